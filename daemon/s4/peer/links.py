"""Connections to the other stores' nodes, for what replicas say to each other: kept up, and never waited for.

Messages for one store are sent in batches that nobody answers; what cannot be sent is dropped, for the cores of the
replicas repeat what matters. A connection that breaks, or falls silent, is made anew.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Mapping
from functools import partial

from s4.base import tasks
from s4.base.clock import boot_clock
from s4.base.jobs import Job, Jobs
from s4.cluster.messages import AnyMessage, Append
from s4.peer import frames
from s4.peer.api import UnavailableError
from s4.peer.client import CONNECT_S, RefusedError, RemoteNode

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
BATCH, BATCH_BYTES = 512, 16 << 20  # of messages in one frame, but for one that is longer by itself
RETRY_S = 0.2


class _Link:
    """One store."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, AnyMessage]] = deque(maxlen=MOST_WAITING)
        self.wake = asyncio.Event()
        self.said = ""  # why it cannot be reached


def _batch(waiting: deque[tuple[int, AnyMessage]]) -> list[tuple[int, AnyMessage]]:
    """The next messages for one frame, in their order."""
    taken: list[tuple[int, AnyMessage]] = []
    size = 0
    while waiting and len(taken) < BATCH:
        message = waiting[0][1]
        size += sum(len(entry.rows) for entry in message.entries) if isinstance(message, Append) else 0
        if taken and size > BATCH_BYTES:
            break
        taken.append(waiting.popleft())
    return taken


class Links:
    """`addresses` has the (host, port) of each other store; it may be changed."""

    def __init__(
        self,
        me: str,
        cluster: str,
        addresses: Mapping[str, tuple[str, int]],
        context: ssl.SSLContext,
        jobs: Jobs | None = None,
    ) -> None:
        self._me, self._cluster, self._addresses, self._context = me, cluster, addresses, context
        self._links: dict[str, _Link] = {}
        self._jobs, self._keeping = jobs or Jobs(), list[Job]()
        self.versions = frames.VERSIONS

    def only(self, least: int) -> None:
        """Speak with nobody who speaks less."""
        self.versions = (least, self.versions[1])
        for link in self._links.values():
            link.wake.set()

    def send(self, store: str, partition: int, message: AnyMessage) -> None:
        if store not in self._addresses:
            return
        link = self._links.get(store)
        if link is None:
            link = self._links[store] = _Link()
            job = Job(f"link to store {store[:8]}", 0.0, 0.0, partial(self._keep, store, link))
            self._keeping.append(job)
            self._jobs.start(job)
        link.waiting.append((partition, message))
        link.wake.set()

    async def _keep(self, store: str, link: _Link) -> None:
        """One connection, until it breaks."""
        try:
            async with tasks.awake_within(CONNECT_S):
                remote = await RemoteNode.connect(
                    self._addresses[store],
                    boot_clock,
                    link.wake.set,
                    cluster=self._cluster,
                    store=store,
                    context=self._context,
                    versions=self.versions,
                )
        except (OSError, RefusedError, UnavailableError, KeyError) as error:
            reason = str(error) or f"no answer within {CONNECT_S:g} s"
            if reason != link.said:
                log.info("store %s cannot be reached: %s", store[:8], reason)
            link.said = reason
            link.waiting.clear()
            await asyncio.sleep(RETRY_S)
            await link.wake.wait()
            return
        link.said = ""
        link.waiting.clear()  # meant for the process that was there before
        try:
            await self._pump(remote, link)
        finally:
            await remote.close()

    async def _pump(self, remote: RemoteNode, link: _Link) -> None:
        """Send until the connection breaks."""
        while not remote.gone:
            await link.wake.wait()
            link.wake.clear()
            if remote.version < self.versions[0]:
                return
            while link.waiting and not remote.gone:
                batch = _batch(link.waiting)
                try:
                    remote.post("deliver", self._me, batch)
                    await remote.drained()
                except OSError as error:  # a host that is not there any more is no ConnectionError
                    log.info("messages were lost: %s", error)

    async def close(self) -> None:
        await self._jobs.stop(*self._keeping)

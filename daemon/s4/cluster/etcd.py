"""The coordinator in etcd: a document is a key below a prefix, its revision the key's mod revision.

The only module that knows aetcd, which talks to one host; several endpoints are made here. Its watcher shares one
stream between all watches of a client, and when etcd restarts it can hang with its lock held, so watches are streams
of their own here. A watch only wakes us: what is given is always read, linearizably, so an event that is lost or
comes twice costs nothing. A compare-and-swap whose answer is lost is repeated as it was,
on the next endpoint; it can only land once (rule R4).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import aetcd
from aetcd import rpc
from grpc.aio import AioRpcError

from s4.cluster.coordinator import ConflictError, CoordinatorError, UnknownOutcomeError

log = logging.getLogger(__name__)

CALL_S = 3
REFRESH_S = 5.0  # a watch that says nothing for so long is not trusted: the document is read
RETRY_S = 0.2
ROUNDS = 2  # over all endpoints before a call is given up

T = TypeVar("T")
_Failed = (aetcd.ClientError, AioRpcError, TimeoutError, OSError)


class UnusableVersionError(CoordinatorError):
    """This etcd loses what it acknowledged."""


class EtcdCoordinator:
    """`endpoints` are HOST:PORT of members of one etcd cluster; `prefix` is this S4 cluster's."""

    def __init__(self, endpoints: Sequence[str], prefix: str) -> None:
        self._prefix, self._endpoints = prefix, list(endpoints)
        self._clients = [_client(endpoint) for endpoint in endpoints]
        self._left: list[tuple[float, aetcd.Client]] = []
        self._current = 0

    def _key(self, document: str) -> bytes:
        return f"{self._prefix}/{document}".encode()

    async def check_versions(self) -> None:
        """Raises UnusableVersionError for a member of 3.5.0 to 3.5.5, which lose consistency when killed."""
        for client in self._clients:
            try:
                version: str = (await client.status()).version
            except _Failed as error:
                log.warning("an etcd endpoint does not answer: %s", error)
                continue
            if re.fullmatch(r"3\.5\.[0-5]", version):
                raise UnusableVersionError(
                    f"etcd {version} can lose data when it is killed; use 3.4, or 3.5.6 and later"
                )

    async def read(self, document: str) -> tuple[bytes, int]:
        async def one(client: aetcd.Client) -> tuple[bytes, int]:
            found = await client.get(self._key(document))
            return (found.value, found.mod_revision) if found is not None else (b"", 0)

        return await self._anywhere(one, CoordinatorError)

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        """Raises ConflictError, UnknownOutcomeError."""
        key, tried = self._key(document), 0

        async def one(client: aetcd.Client) -> tuple[bool, int, bytes]:
            nonlocal tried
            tried += 1
            await client.connect()
            change = client.transactions
            done, answers = await client.transaction(
                compare=[change.mod(key) == revision], success=[change.put(key, value)], failure=[change.get(key)]
            )
            if done:
                return True, int(answers[0].response_put.header.revision), value
            found = answers[0][0][1] if answers[0] else None
            return False, found.mod_revision if found is not None else 0, found.value if found is not None else b""

        done, now, content = await self._anywhere(one, UnknownOutcomeError)
        if done or (tried > 1 and now > revision and content == value):  # an earlier try landed
            return now
        raise ConflictError(f"{document} is at revision {now}, not {revision}")

    async def watch(self, document: str, since: int) -> AsyncIterator[tuple[bytes, int]]:
        """Goes on through restarts and losses of members."""
        while True:
            try:
                value, revision = await self.read(document)
            except CoordinatorError as error:
                log.warning("watching %s: %s", document, error)
                await asyncio.sleep(RETRY_S)
                continue
            if revision > since:
                since = revision
                yield value, revision
            else:
                await self._wait(document, since)

    async def _wait(self, document: str, since: int) -> None:
        """Until the document may have changed."""
        client, call = self._clients[self._current], None
        create = rpc.WatchCreateRequest(key=self._key(document), start_revision=since + 1)
        try:
            async with asyncio.timeout(REFRESH_S):
                await client.connect()
                call = rpc.WatchStub(client.channel).Watch(metadata=client.metadata)
                await call.write(rpc.WatchRequest(create_request=create))
                async for answer in call:
                    if answer.events or answer.canceled:
                        return
        except TimeoutError:
            return
        except _Failed as error:
            log.info("a watch ended: %s", error)
            await self._leave(client)
            await asyncio.sleep(RETRY_S)
        finally:
            if call is not None:
                call.cancel()

    async def _anywhere(self, call: Callable[[aetcd.Client], Awaitable[T]], failure: type[CoordinatorError]) -> T:
        """The call on the current endpoint, then on the others. Raises `failure` where none answers."""
        reason: Exception | None = None
        for number in range(ROUNDS * len(self._clients)):
            client = self._clients[self._current]
            try:
                async with asyncio.timeout(CALL_S):
                    return await call(client)
            except _Failed as error:
                reason = error
                await self._leave(client)
                if number % len(self._clients) == len(self._clients) - 1:
                    await asyncio.sleep(RETRY_S)
        raise failure(f"no etcd endpoint answers: {reason}") from reason

    async def _leave(self, client: aetcd.Client) -> None:
        """Use the next endpoint, and a new connection when this one's turn comes again.

        Closing a channel cancels the tasks that use it, whoever they are. So it is closed once all of their calls
        must have ended by their own time limits.
        """
        now = asyncio.get_running_loop().time()
        if client in self._clients:
            number = self._clients.index(client)
            self._clients[number] = _client(self._endpoints[number])
            if self._current == number:
                self._current = (number + 1) % len(self._clients)
            self._left.append((now, client))
        while self._left and self._left[0][0] + 2 * REFRESH_S < now:
            with contextlib.suppress(*_Failed):
                await self._left.pop(0)[1].close()

    async def close(self) -> None:
        for client in [*self._clients, *(client for _, client in self._left)]:
            with contextlib.suppress(*_Failed):
                await client.close()


def _client(endpoint: str) -> aetcd.Client:
    host, _, port = endpoint.rpartition(":")
    return aetcd.Client(host.strip("[]"), int(port), timeout=CALL_S)

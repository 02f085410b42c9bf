"""The coordinator as its clients see it: named documents with compare-and-swap, reached over the simulated network.

Legal faults: a request or an answer is lost, a change lands late or twice (the second is a conflict), reads answer
late, a watch brings values late, skips some, or old ones; it is away for a while. What it answered is never undone.

Not simulated: etcd's and Kubernetes' own clients (tests/cluster/test_coordinator.py,
tests/kube/test_kubernetes_map.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from s4.cluster.coordinator import ConflictError, CoordinatorError, UnknownOutcomeError
from whole.loop import Loop, Process
from whole.network import Network

HOST = "coordinator"
LOST_S = 3.0  # after which a client takes a request for lost


class Documents:
    """The documents, and what is wrong with those who serve them: `loss` and `late` are chances, `away` is all of
    it."""

    def __init__(self, loop: Loop, network: Network) -> None:
        self.loop, self.network = loop, network
        self.kept: dict[str, tuple[bytes, int]] = {}
        self.loss = self.late = 0.0
        self.away = False
        self.watchers: list[Watcher] = []
        self.process = Process(loop, HOST, HOST)

    def swap(self, document: str, value: bytes, revision: int) -> int:
        _, known = self.kept.get(document, (b"", 0))
        if known != revision:
            raise ConflictError(f"{document} is at revision {known}, not {revision}")
        self.kept[document] = value, revision + 1
        self.loop.note(f"{document} is at revision {revision + 1}")
        for watcher in self.watchers:
            watcher.changed()
        return revision + 1

    def way(self, sender: str, to: str) -> float | None:
        """How long a packet takes; None where it is lost."""
        random = self.loop.random
        if self.away or not self.network.passes(sender, to) or random.random() < self.loss:
            self.loop.effects["lost on the way to or from the coordinator"] += 1
            return None
        return self.network.delay() + (random.random() * 2.5 if random.random() < self.late else 0.0)


class Watcher:
    """Wakes one watch, late."""

    def __init__(self, documents: Documents, process: Process) -> None:
        self._documents, self._process, self.event = documents, process, asyncio.Event()

    def changed(self) -> None:
        delay = self._documents.way(HOST, self._process.host)
        # what is lost is sent again once the stream is made anew
        self._documents.loop.at(5.0 if delay is None else delay, self._wake)

    def _wake(self) -> None:
        if self._process.alive:
            self._documents.loop.call_soon(self.event.set, context=self._process.context)


class Client:
    """One process's connection to it."""

    def __init__(self, documents: Documents, process: Process) -> None:
        self._documents, self._process = documents, process

    async def read(self, document: str) -> tuple[bytes, int]:
        there = self._documents.way(self._process.host, HOST)
        if there is None:
            await asyncio.sleep(LOST_S)
            raise CoordinatorError("the coordinator does not answer")
        await asyncio.sleep(there)
        found = self._documents.kept.get(document, (b"", 0))
        back = self._documents.way(HOST, self._process.host)
        if back is None:
            await asyncio.sleep(LOST_S)
            raise CoordinatorError("the coordinator does not answer")
        await asyncio.sleep(back)
        return found

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        loop, documents = self._documents.loop, self._documents
        answer: asyncio.Future[Any] = loop.create_future()
        there = documents.way(self._process.host, HOST)

        def land() -> None:
            result: Any
            try:
                result = documents.swap(document, value, revision)
            except ConflictError as error:
                result = error
            back = documents.way(HOST, self._process.host)
            if back is not None:
                loop.at(back, lambda: loop.call_soon(tell, result, context=self._process.context))

        def tell(result: Any) -> None:
            if not answer.done():
                answer.set_exception(result) if isinstance(result, Exception) else answer.set_result(result)

        if there is not None:
            loop.at(there, land)
            if loop.random.random() < documents.loss:  # sent again on the way: the second is a conflict
                loop.at(there + loop.random.random(), land)
        try:
            async with asyncio.timeout(LOST_S):
                return int(await answer)
        except TimeoutError:
            raise UnknownOutcomeError("the coordinator does not answer: a change may have happened") from None

    async def watch(self, document: str, since: int) -> AsyncIterator[tuple[bytes, int]]:
        watcher = Watcher(self._documents, self._process)
        self._documents.watchers.append(watcher)
        try:
            while True:
                value, revision = self._documents.kept.get(document, (b"", 0))
                if revision > since and self._documents.way(HOST, self._process.host) is not None:
                    since = revision
                    yield value, revision
                    continue
                watcher.event.clear()
                try:
                    await asyncio.wait_for(watcher.event.wait(), 5.0)
                except TimeoutError:
                    continue
        finally:
            self._documents.watchers.remove(watcher)

    async def check_versions(self) -> None:
        pass

    async def close(self) -> None:
        pass

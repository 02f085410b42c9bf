"""The cluster's map as a process knows it, and the changes that it makes.

For replicas it is a coordinator with a document for each partition (`partition/7`). Their compare-and-swaps, which
come together when a store dies, go into one write of the map: each is checked against its partition's own revision,
and those that fit are made at once. A write whose outcome is unknown tells all of them so; a replica then repeats
its swap as it is (R4), and that can happen once only: had the first landed, the partition's revision would have
risen, and if another write landed before it, the first never lands.

`current` is never older than what any call here has returned. Listeners are told of every newer one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from msgspec.structs import replace as changed

from s4.cluster import clustermap
from s4.cluster.clustermap import ClusterMap, Partition
from s4.cluster.coordinator import ConflictError, Coordinator, CoordinatorError, UnknownOutcomeError
from s4.cluster.messages import Config, decode_document, encode_document

log = logging.getLogger(__name__)

DOCUMENT = "map"
TRIES = 20
LOOK_S = 0.1
RETRY_S = 0.2


class NoMapError(CoordinatorError):
    """There is no cluster yet."""


class LostMapError(CoordinatorError):
    """The map was lost, and another one begun: who knows the old one begins anew, and stands by
    (cluster/recovery.py)."""


@dataclass(slots=True)
class _Swap:
    number: int
    config: Config
    revision: int
    future: asyncio.Future[int]


class MapKeeper:
    """Open with `await MapKeeper.open(...)`, then keep `follow` running."""

    def __init__(self, coordinator: Coordinator, current: ClusterMap, revision: int) -> None:
        self._coordinator = coordinator
        self.current, self.revision = current, revision
        self._news = asyncio.Condition()
        self._swaps: list[_Swap] = []
        self._flushing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[ClusterMap] | None = None
        self._looked = 0.0  # when that began
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, coordinator: Coordinator) -> MapKeeper:
        """Raises NoMapError, CoordinatorError, ValueError."""
        value, revision = await coordinator.read(DOCUMENT)
        if not revision:
            raise NoMapError("there is no cluster here yet; make one with `s4 admin cluster init`")
        return cls(coordinator, clustermap.decode(value), revision)

    async def follow(self, fatal: Callable[[BaseException], None]) -> None:
        """See what others change, for ever. `fatal` is told where a map cannot be read: a newer S4 wrote it, or it is
        damaged."""
        try:
            async for value, revision in self._coordinator.watch(DOCUMENT, self.revision):
                self._see(clustermap.decode(value), revision)
        except Exception as error:
            fatal(error)
            raise

    async def refresh(self) -> ClusterMap:
        """The newest map. Raises CoordinatorError."""
        value, revision = await self._coordinator.read(DOCUMENT)
        if revision > self.revision:
            self._see(clustermap.decode(value), revision)
        return self.current

    async def look(self) -> None:
        """As `refresh`, for who asks again and again: one read for all who do, and none where one began just now."""
        now = asyncio.get_running_loop().time()
        if self._looking is None or (self._looking.done() and now - self._looked >= LOOK_S):
            self._looking, self._looked = asyncio.ensure_future(self.refresh()), now
            self._looking.add_done_callback(lambda done: done.cancelled() or done.exception())  # all may have left
        await asyncio.shield(self._looking)

    def _see(self, found: ClusterMap, revision: int) -> None:
        if revision <= self.revision:
            return
        if self.current.partitions and (not found.partitions or found.cluster != self.current.cluster):
            raise LostMapError(
                "the cluster's map was lost, and another one was begun, under which this process stands by"
            )
        self.current, self.revision = found, revision
        task = asyncio.ensure_future(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def change(self, made: Callable[[ClusterMap], ClusterMap]) -> ClusterMap:
        """Replace the map by what `made` makes of the newest. Raises CoordinatorError, and whatever `made` raises.

        `made` may be called several times, and must be such that making its change twice is making it once.
        """
        error: CoordinatorError | None = None
        for _ in range(TRIES):
            try:
                wanted = made(await self.refresh())
                if wanted == self.current:
                    return wanted
                revision = await self._coordinator.replace(DOCUMENT, clustermap.encode(wanted), self.revision)
            except ConflictError:
                continue
            except CoordinatorError as failure:
                error = failure
                await asyncio.sleep(RETRY_S)
                continue
            self._see(wanted, revision)
            return wanted
        raise error or CoordinatorError("the map keeps changing; try again")

    # -- for replicas: a coordinator of partitions

    @staticmethod
    def _number(document: str) -> int:
        return int(document.removeprefix("partition/"))

    def _value(self, number: int) -> tuple[bytes, int]:
        if number >= len(self.current.partitions):
            return b"", 0
        return encode_document(self.current.document(number)), self.current.partitions[number].revision

    async def read(self, document: str) -> tuple[bytes, int]:
        await self.refresh()
        return self._value(self._number(document))

    async def watch(self, document: str, since: int) -> AsyncIterator[tuple[bytes, int]]:
        number = self._number(document)
        while True:
            value, revision = self._value(number)
            if revision > since:
                since = revision
                yield value, revision
                continue
            async with self._news:
                if self._value(number)[1] <= since:
                    await self._news.wait()

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        """Change a partition's configuration; its plan stays. Raises ConflictError, UnknownOutcomeError."""
        swap = _Swap(self._number(document), decode_document(value).config, revision, asyncio.Future())
        self._swaps.append(swap)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.ensure_future(self._flush())
        return await swap.future

    async def _flush(self) -> None:
        while self._swaps:
            taken, self._swaps = self._swaps, []
            try:
                await self._swap(taken)
            except Exception as error:
                if not isinstance(error, CoordinatorError):
                    log.exception("the map cannot be changed")
                for swap in taken:
                    if not swap.future.done():
                        failure = UnknownOutcomeError(f"the map may have been changed, or not: {error}")
                        swap.future.set_exception(failure)

    async def _swap(self, swaps: list[_Swap]) -> None:
        for attempt in range(TRIES):
            if attempt:
                await self.refresh()
            partitions = list(self.current.partitions)
            made: list[_Swap] = []
            for swap in swaps:
                if swap.future.done():
                    continue
                old = partitions[swap.number]
                if old.revision != swap.revision:
                    if old.revision < swap.revision:
                        raise CoordinatorError("a map from a backup")
                    swap.future.set_exception(ConflictError(f"partition {swap.number} is at revision {old.revision}"))
                    continue
                partitions[swap.number] = Partition(old.revision + 1, swap.config, old.wanted)
                made.append(swap)
            if not made:
                return
            wanted = changed(self.current, partitions=tuple(partitions))
            try:
                revision = await self._coordinator.replace(DOCUMENT, clustermap.encode(wanted), self.revision)
            except ConflictError:
                continue
            self._see(wanted, revision)
            for swap in made:
                if not swap.future.done():
                    swap.future.set_result(swap.revision + 1)
            return
        raise CoordinatorError("others keep changing the map")

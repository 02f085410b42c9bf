"""The drives of this process: one shard store on each, and which of them keeps which position of a partition.

Which drives are there is decided at start and stays so: a drive that fails ends the process (rule D7), and the
next start goes on without it. So every stripe of a blob meets the same stores (D2). A position that moves is written
to where it goes, and read from wherever a shard is (cluster/growing.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from s4.base.clock import boot_clock
from s4.storage.files import Buffer
from s4.storage.records import OfflineError, Shard
from s4.storage.shards import ShardStore


@dataclass(frozen=True, slots=True)
class Drive:
    """One directory. `shards` is None where the drive is away; `reason` says why."""

    number: int
    directory: Path
    store: str
    shards: ShardStore | None
    reason: str = ""


class Drives:
    """`members[partition]` are numbers of drives in order of positions; of the partitions in `moving` other drives may
    have shards too."""

    def __init__(self, drives: Sequence[Drive], members: Sequence[Sequence[int]], moving: Collection[int] = ()) -> None:
        self.all = list(drives)
        self.members, self._moving = [list(kept) for kept in members], set(moving)
        self._at = [[self.all[number].shards for number in kept] for kept in self.members]
        self.stores = [drive.shards for drive in self.all if drive.shards is not None]
        self._written = {store for row in self._at for store in row if store is not None}
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="sync")

    def at(self, partition: int, position: int) -> ShardStore | None:
        """The store that keeps a position; None where its drive is away or there is no such position."""
        row = self._at[partition]
        return row[position] if position < len(row) else None

    def find(self, shard: Shard) -> ShardStore | None:
        """The store to read a shard from: the one that keeps its position, or one that has the shard still."""
        store = self.at(shard.partition, shard.position)
        if shard.partition in self._moving and (store is None or store.locate(shard) is None):
            return next((one for one in self.stores if one is not store and one.locate(shard) is not None), store)
        return store

    def settled(self, partition: int) -> None:
        """No drive has shards of a partition any more but those that keep its positions."""
        self._moving.discard(partition)

    def online(self) -> Iterator[tuple[Drive, ShardStore]]:
        for drive in self.all:
            if drive.shards is not None:
                yield drive, drive.shards

    async def append(self, shard: Shard, pieces: Sequence[Buffer], *, sync: bool) -> None:
        """Raises OfflineError, DiskFullError."""
        await _there(self.at(shard.partition, shard.position), shard).append(shard, pieces, sync=sync)

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview:
        """Raises DamagedError, of which OfflineError is one."""
        return await _there(self.find(shard), shard).read(shard, offset, length)

    async def free(self, partition: int, blob: bytes) -> int:
        """Drop a blob's shards on every drive that may have some; returns the bytes."""
        freed = 0
        for store in self.stores if partition in self._moving else self._at[partition]:
            if store is not None:
                freed += await store.free(partition, blob)
        return freed

    def has_room(self) -> bool:
        """Whether every drive that is there, and that anything is written to, is above its reserve."""
        return all(store.has_room() for store in self._written)

    def sync_now(self) -> None:
        """Make every append so far durable, on all drives at once. Blocks."""
        dirty = [store for store in self.stores if store.dirty]
        if len(dirty) == 1:
            dirty[0].sync_now()
        elif dirty:
            for _ in self._pool.map(ShardStore.sync_now, dirty):
                pass

    def oldest_use(self) -> float:
        """Since when (seconds of the boot clock) the oldest read or punch on any drive is in progress; now if none
        is."""
        return min((store.oldest_use() for store in self.stores), default=boot_clock())

    async def flush(self) -> None:
        await asyncio.gather(*(store.flush() for store in self.stores))

    async def close(self) -> None:
        await asyncio.gather(*(store.close() for store in self.stores))
        self._pool.shutdown()


def _there(store: ShardStore | None, shard: Shard) -> ShardStore:
    if store is None:
        raise OfflineError(f"the drive for position {shard.position} of partition {shard.partition} is away")
    return store

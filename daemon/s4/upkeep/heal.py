"""Healing on one server (a cluster's is mend.py): makes lost shards again from the others, fills drives that are new
or were away, fills copies of metadata.

What is to be done is on disk: heal rows name single shards, and the shard map names the stores that are being
filled. A fill walks the blob rows of a partition and makes what the store's index lacks; so after a crash it
passes over what is there, and is where it was. A store counts for a partition only once every blob row was
confirmed on it or queued as a heal row (rule D3). Shards are durable, with their index, before a heal row goes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

from s4.cluster import shardmap
from s4.erasure.codec import ErasureError, codec, stripes_of
from s4.metadata import commands, keys
from s4.metadata.commands import Taken
from s4.metadata.rows import Blob, decode
from s4.metadata.rows import Counters as CountersRow
from s4.node.base import Node
from s4.storage.leveldb import Database
from s4.storage.records import DamagedError, DiskFullError, OfflineError, Shard
from s4.storage.shards import ShardStore
from s4.upkeep.failing import put_aside
from s4.upkeep.sources import sources

log = logging.getLogger(__name__)

BATCH = 64
CONCURRENT = 4
RETRY_S = 60.0
COUNTED = 100_000


@dataclass(slots=True)
class Fill:
    """How far the filling of a store is, in blob rows of the partitions that it holds."""

    total: int = 0
    done: int = 0
    made_bytes: int = 0
    started_s: float = field(default_factory=time.time)


class Healer:
    """`joiners` are stores with the empty databases that want to become copies of the metadata.

    No more than `bytes_per_s` are read to make shards again; 0 is no bound.
    """

    def __init__(self, node: Node, joiners: list[tuple[str, Database]], *, bytes_per_s: float = 0.0) -> None:
        self._node, self._joiners, self._bytes_per_s = node, joiners, bytes_per_s
        self._limit = asyncio.Semaphore(CONCURRENT)
        self._later: dict[bytes, float] = {}  # heal rows that failed, and when they are tried again
        self.fills: dict[str, Fill] = {}
        self.healed = self.healed_bytes = self.read_bytes = 0
        for partition, store in self._unfilled():
            self.fills.setdefault(store, Fill()).total += self._blobs(partition)

    @property
    def waiting(self) -> int:
        """Shards that must be made again, counted up to COUNTED."""
        rows = (
            row
            for partition in range(self._node.partitions)
            for row in self._node.host.scan(keys.table(partition, keys.HEAL))
        )
        return sum(1 for _ in islice(rows, COUNTED))

    @property
    def failed(self) -> int:
        """Shards that could not be made again when last tried."""
        return len(self._later)

    @property
    def left(self) -> int:
        """Blob rows that fills have not come to."""
        return sum(max(0, fill.total - fill.done) for fill in self.fills.values())

    @property
    def metadata_left(self) -> int:
        """Copies of metadata that are not level yet."""
        return len(self._joiners)

    def _unfilled(self) -> list[tuple[int, str]]:
        status = self._node.membership.current.status
        return [(partition, store) for partition, one in enumerate(status) for store in one.joining]

    def _blobs(self, partition: int) -> int:
        value = self._node.host.get(keys.counters_row(partition, 0))
        return decode(CountersRow, value).blobs if value is not None else 0

    async def work(self) -> None:
        """One round: everything that waits now. What fails is left for the next one, and hinders nothing behind it."""
        put_aside(self._node)
        await self._join_copies()
        await self._heal_queue()
        full: set[str] = set()
        for partition, store in self._unfilled():
            if store in full:
                continue
            try:
                await self._fill(partition, store)
            except DiskFullError as error:
                log.error("store %s takes no more: %s", store[:8], error)
                full.add(store)
            await self._heal_queue()

    async def _join_copies(self) -> None:
        for store, database in list(self._joiners):
            started = time.monotonic()
            await self._node.host.join(database)
            await self._node.membership.change(lambda old, store=store: shardmap.joined(old, store))  # type: ignore[misc]
            self._joiners.remove((store, database))
            log.warning("store %s has all metadata again after %.1f s", store[:8], time.monotonic() - started)

    # -- the queue

    async def _heal_queue(self) -> None:
        now = time.monotonic()
        self._later = {row: when for row, when in self._later.items() if self._node.host.get(row) is not None}
        for partition in range(self._node.partitions):
            table = start = keys.table(partition, keys.HEAL)
            while rows := [key for key, _ in islice(self._node.host.scan(table, start), BATCH)]:
                start = rows[-1] + b"\x00"
                await self._heal_batch([row for row in rows if self._later.get(row, 0) <= now and self._can(row)])

    def _can(self, row: bytes) -> bool:
        partition, _, position = keys.split_heal(row)
        return self._node.drives.at(partition, position) is not None

    async def _heal_batch(self, batch: list[bytes]) -> None:
        done = await asyncio.gather(*(self._heal(row) for row in batch))
        if any(done):
            await self._node.drives.flush()
        for row, good in zip(batch, done, strict=True):
            if good:
                await self._forget(row)

    async def _heal(self, row: bytes) -> bool:
        """Whether the shard that a heal row names is whole now, or not wanted any more."""
        partition, blob, position = keys.split_heal(row)
        try:
            found = await self._node.find_blob(partition, blob)
        except DamagedError:
            return True
        try:
            await self.make(partition, blob, found, position, read=True)
        except (DamagedError, ErasureError, DiskFullError) as error:
            log.error("blob %s, position %d cannot be healed: %s", blob.hex(), position, error)
        except Exception:
            log.exception("blob %s, position %d cannot be healed", blob.hex(), position)
        else:
            return True
        self._later[row] = time.monotonic() + RETRY_S
        return False

    async def _forget(self, row: bytes) -> None:
        partition, blob, position = keys.split_heal(row)
        answer = await self._node.host.submit(partition, commands.Healed(blob, [position]), own=True)
        if isinstance(answer, Taken) and not answer.granted:
            await self._node.drives.free(partition, blob)

    # -- filling

    async def _fill(self, partition: int, store: str) -> None:
        """Confirm every blob of a partition on a store, then say in the map that it holds its position."""
        position = self._node.membership.current.spec.members[partition].index(store)
        fill = self.fills.setdefault(store, Fill())
        start = keys.table(partition, keys.BLOB)
        while rows := list(islice(self._node.host.scan(keys.table(partition, keys.BLOB), start), BATCH)):
            start = rows[-1][0] + b"\x00"
            confirmed = await asyncio.gather(
                *(self._confirm(partition, key[3:], decode(Blob, value), position, fill) for key, value in rows),
                return_exceptions=True,
            )
            for error in confirmed:
                if error is not None:
                    raise error
            fill.done += len(rows)
        await self._node.drives.flush()
        await self._node.membership.change(lambda old: shardmap.filled(old, partition, store))
        if not any(one == store for _, one in self._unfilled()):
            fill.done = fill.total
            log.warning(
                "store %s is filled: %d bytes made in %.1f s", store[:8], fill.made_bytes, time.time() - fill.started_s
            )

    async def _confirm(self, partition: int, blob: bytes, row: Blob, position: int, fill: Fill) -> None:
        if position >= row.k + row.m:
            return
        try:
            fill.made_bytes += await self.make(partition, blob, row, position, read=False)
        except (DamagedError, ErasureError) as error:
            log.error("blob %s, position %d cannot be made: %s", blob.hex(), position, error)
            await self._node.host.submit(partition, commands.NeedHeal(blob, [position]), own=True)
        if await self._gone(partition, blob):
            await self._node.drives.free(partition, blob)

    async def _gone(self, partition: int, blob: bytes) -> bool:
        return self._node.host.get(keys.blob_row(partition, blob)) is None

    # -- making shards

    async def make(self, partition: int, blob: bytes, row: Blob, position: int, *, read: bool) -> int:
        """Make the shards of a position that are not there, or (`read`) are damaged; returns their bytes.

        Raises DamagedError where too many others are lost, DiskFullError. Durable after the store's next flush.
        """
        store = self._node.drives.at(partition, position)
        if store is None:
            raise OfflineError(f"the drive for position {position} of partition {partition} is away")
        made = 0
        async with self._limit:
            for number, length in stripes_of(row):
                shard = Shard(partition, blob, position, number)
                if await _is_good(store, shard, length, read):
                    continue
                found = await sources(self._node.read, shard, row, length)
                data = codec(row.k, row.m).reconstruct(found, [position])[position]
                await store.append(shard, [data], sync=False)
                made += length
                self.healed += 1
                self.healed_bytes += length
                self.read_bytes += length * row.k
                if self._bytes_per_s:  # each of those that run at once takes its part of the rate
                    await asyncio.sleep(CONCURRENT * length * row.k / self._bytes_per_s)
        return made


async def _is_good(store: ShardStore, shard: Shard, length: int, read: bool) -> bool:
    location = store.locate(shard)
    if location is None or location.length != length:
        return False
    if not read:
        return True
    try:
        await store.read(shard, 0, length)
    except DamagedError:
        return False
    return True


def filling(node: Node) -> Counter[str]:
    """For each store that is being filled, in how many partitions it is not yet."""
    return Counter(store for one in node.membership.current.status for store in one.joining)

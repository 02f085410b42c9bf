"""Repair on one server (a cluster's is mend.py): heals what is queued, fills drives that are new or were away, fills copies
of metadata.

The server keeps its map by itself: every position goes to the drive that the map plans, and one whose drive came empty
is in `joining` until every blob row was confirmed on it or queued (D3). What is alike in a cluster is in
upkeep/shard_repair.py.
"""

from __future__ import annotations

import logging
import time
from itertools import islice

from s4.cluster import shardmap
from s4.erasure.codec import Buffer
from s4.metadata import keys
from s4.node.base import Node
from s4.storage.leveldb import Database
from s4.storage.records import DamagedError, DiskFullError, Shard
from s4.upkeep.failing import put_aside
from s4.upkeep.shard_repair import Blobs, Fill, ShardRepair

log = logging.getLogger(__name__)

COUNTED = 100_000


class OwnDrives:
    """The drives of this process as a target of repair."""

    retry_s = 60.0

    def __init__(self, node: Node) -> None:
        self._node = node
        self.read, self.flush = node.read, node.drives.flush

    def store_for(self, partition: int, position: int) -> str:
        there = self._node.drives.at(partition, position) is not None
        return self._node.membership.current.spec.members[partition][position] if there else ""

    def there(self, partition: int) -> frozenset[str]:
        members = range(len(self._node.membership.current.spec.members[partition]))
        return frozenset(filter(None, (self.store_for(partition, position) for position in members)))

    def is_up(self, store: str) -> bool:
        return True  # a drive that fails ends the process (D7)

    async def is_whole(self, shard: Shard, length: int) -> bool:
        store = self._node.drives.at(shard.partition, shard.position)
        location = store.locate(shard) if store is not None else None
        if store is None or location is None or location.length != length:
            return False
        try:
            await store.read(shard, 0, length)
        except DamagedError:
            return False
        return True

    async def copied(self, shard: Shard, length: int, store: str) -> Buffer | None:
        other = self._node.drives.find(shard)
        if other is None or other is self._node.drives.at(shard.partition, shard.position):
            return None
        try:
            return await other.read(shard, 0, length)
        except DamagedError:
            return None

    async def discard(self, store: str, partition: int, blob: bytes, position: int) -> None:
        drive = self._node.drives.at(partition, position)
        if drive is not None:
            await drive.free_position(partition, blob, position)

    async def append(self, store: str, shard: Shard, data: Buffer, last: bool) -> str:
        await self._node.drives.append(shard, [data], sync=False)
        return store

    async def lacking(self, store: str, partition: int, position: int, blobs: Blobs) -> list[bytes]:
        return await self._node.lacking(partition, position, blobs)


class Healer:
    """`joiners` are stores with the empty databases that want to become copies of the metadata."""

    def __init__(self, node: Node, joiners: list[tuple[str, Database]], *, bytes_per_s: float = 0.0) -> None:
        self._node, self._joiners = node, joiners
        self.repair = ShardRepair(node.host, OwnDrives(node), bytes_per_s)
        self.fills: dict[str, Fill] = {}
        for partition, store in self._unfilled():
            self.fills.setdefault(store, Fill()).total += self.repair.blobs(partition)

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

    async def work(self) -> None:
        """One round: everything that waits now. What fails is left for the next one, and hinders nothing behind it."""
        put_aside(self._node)
        await self._join_copies()
        await self._heal_queues()
        full: set[str] = set()
        for partition, store in self._unfilled():
            if store in full:
                continue
            try:
                await self._fill(partition, store)
            except DiskFullError as error:
                log.error("store %s takes no more: %s", store[:8], error)
                full.add(store)
            await self._heal_queues()

    async def _join_copies(self) -> None:
        for store, database in list(self._joiners):
            started = time.monotonic()
            await self._node.host.join(database)
            await self._node.membership.change(lambda old, store=store: shardmap.joined(old, store))  # type: ignore[misc]
            self._joiners.remove((store, database))
            log.warning("store %s has all metadata again after %.1f s", store[:8], time.monotonic() - started)

    async def _heal_queues(self) -> None:
        for partition in range(self._node.partitions):
            await self.repair.heal_queue(partition)

    async def _fill(self, partition: int, store: str) -> None:
        """Confirm every blob of a partition on a store, then say in the map that it holds its position."""
        position = self._node.membership.current.spec.members[partition].index(store)
        fill = self.fills.setdefault(store, Fill())
        await self.repair.fill(partition, position, store, fill)
        await self._node.membership.change(lambda old: shardmap.filled(old, partition, store))
        if not any(one == store for _, one in self._unfilled()):
            fill.done = fill.total
            log.warning(
                "store %s is filled: %d bytes made in %.1f s", store[:8], fill.made_bytes, time.time() - fill.started_s
            )

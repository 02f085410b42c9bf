"""Shards of positions that moved away are dropped by the node that had them; whom it asks before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cluster.memory import MemoryCoordinator
from cluster.test_map import made
from s4.base.clock import boot_clock
from s4.cluster import clustermap
from s4.cluster.keeper import DOCUMENT, MapKeeper
from s4.storage.records import Shard
from s4.storage.shards import ShardStore
from s4.upkeep.ownstore import OwnStore
from upkeep.test_own_scrub import Clock, own

OURS, ANOTHERS = Shard(0, b"o" * 16, 0, 0), Shard(0, b"a" * 16, 1, 0)


class Asked(MemoryCoordinator):
    """Counts who asks for the map, and who for the heals that wait in partition 0."""

    reads = heals_asked = 0
    heals = 5

    async def read(self, document: str) -> tuple[bytes, int]:
        self.reads += 1
        return await super().read(document)

    async def heals_of(self, partition: int) -> int:
        self.heals_asked += 1
        return self.heals if partition == 0 else 0


@asynccontextmanager
async def holder(directory: Path, asked: Asked) -> AsyncIterator[tuple[ShardStore, OwnStore]]:
    """Who holds position 0 of partition 0, from a start on."""
    async with own(directory, Clock()) as (store, upkeep):
        node: Any = upkeep._node
        node.keeper, node.asked, node.horizon = await MapKeeper.open(asked), {}, lambda: boot_clock() + 3600
        node.store, node.router.heals_of = node.keeper.current.partitions[0].config.members[0], asked.heals_of
        asked.reads = asked.heals_asked = 0
        yield store, upkeep


def test_who_has_nothing_that_others_hold_asks_nobody(tmp_path: Path) -> None:
    """Each node had after its start the map read once for each partition, every two seconds, and all heals counted, for
    as long as any waited: while a store was away."""

    async def test() -> None:
        asked = Asked()
        await asked.replace(DOCUMENT, clustermap.encode(made()), 0)
        async with holder(tmp_path, asked) as (store, upkeep):
            await store.append(OURS, [b"our own"], sync=False)
            await store.flush()
            for _ in range(3):
                await upkeep.leave()
            assert (asked.reads, asked.heals_asked) == (0, 0)
            await store.append(ANOTHERS, [b"of a position that moved"], sync=False)
        async with holder(tmp_path, asked) as (store, upkeep):
            for _ in range(3):
                await upkeep.leave()
            assert (asked.reads, asked.heals_asked) == (3, 3), "of this partition"
            assert store.locate(ANOTHERS) is not None, "others may be made of it (D3)"
            asked.heals = 0
            await upkeep.leave()
            assert [shard for shard, _ in store.records()] == [OURS]
            await upkeep.leave()
            assert asked.heals_asked == 4

    asyncio.run(test())

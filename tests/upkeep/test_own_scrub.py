"""A node's scrub of its own store goes on where a restart cut it off, and knows after a restart when it is due."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from s4.metadata.commands import NeedHeal
from s4.metadata.rows import Blob
from s4.node.member import OneStore
from s4.node.rows import RowNode
from s4.storage.drives import Drive
from s4.storage.records import Shard
from s4.storage.shards import ShardStore
from s4.upkeep import ownstore, progress
from s4.upkeep.confirm import confirm_doubtful
from s4.upkeep.ownstore import OwnStore
from storage.test_shards import open_store

WEEK_S = 7 * 86_400.0
SHARDS = 5 * ownstore.BATCH // 2


class Rows:
    """Whoever leads the partitions: what was written, and what was queued for healing."""

    def __init__(self) -> None:
        self.blobs: dict[int, dict[bytes, Blob]] = {}
        self.queued: list[NeedHeal] = []

    async def list_blobs(self, partition: int, after: bytes) -> list[tuple[bytes, Blob]]:
        return [one for one in sorted(self.blobs.get(partition, {}).items()) if one[0] > after][:100]

    async def execute(self, partition: int, command: NeedHeal) -> None:
        self.queued.append(command)


class Copy:
    """A copy of the metadata that is well."""

    async def scrub(self, _bytes_per_s: float) -> None:
        return


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def own(directory: Path, clock: Clock) -> AsyncIterator[tuple[ShardStore, OwnStore]]:
    """A node's upkeep of its store, from a start to a stop; it holds whatever is in the store."""
    store, _ = await open_store(directory)
    held: Any = SimpleNamespace(is_held=lambda _, position, __: position == 0, geometry=(1, 1))
    rows = Rows()
    node: Any = SimpleNamespace(
        shards=store,
        copy=Copy(),
        store="s",
        membership=held,
        partitions=4,
        drives=OneStore(Drive(0, directory, "s", store), store),
    )
    node.router, node.lacking = rows, partial(RowNode.lacking, node)
    try:
        yield store, OwnStore(node, clock)
    finally:
        await store.close()


async def fill(store: ShardStore) -> None:
    body = os.urandom(1000)
    for number in range(SHARDS):
        await store.append(Shard(number % 4, number.to_bytes(16, "big"), 0, 0), [body], sync=False)
    await store.flush()


def test_a_scrub_that_a_restart_cut_off_is_gone_on_with(tmp_path: Path, monkeypatch: Any) -> None:
    """Both together read everything once."""
    monkeypatch.setattr(progress, "SAVE_S", -1.0)  # after each batch, as if each took ten seconds

    async def test() -> None:
        clock = Clock()
        async with own(tmp_path, clock) as (store, upkeep):
            await fill(store)
            running = asyncio.ensure_future(upkeep.scrub(0))
            while upkeep.scrubbed.shards < ownstore.BATCH * 3 // 2:
                assert not running.done(), running.exception()
                await asyncio.sleep(0)  # looked at in each turn: it goes on
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        async with own(tmp_path, clock) as (store, upkeep):
            assert upkeep.due(WEEK_S)
            assert upkeep.scrubbed.shards == ownstore.BATCH, "as it was last kept"
            found = await upkeep.scrub(0)
            assert (found.shards, found.bytes_read, found.damaged) == (SHARDS, SHARDS * 1000, 0)
            assert store.bytes_read == (SHARDS - ownstore.BATCH) * 1000
            upkeep.scrubbed = replace(found, running=True, shards=ownstore.BATCH, damaged=7)
            asked = await upkeep.scrub(0, anew=True)
            assert (asked.shards, asked.damaged) == (SHARDS, 0), "who asks is told of all, and of what is now"

    asyncio.run(test())


def test_a_node_that_restarts_often_is_scrubbed_when_it_is_due(tmp_path: Path) -> None:
    """It counted from its start: a cluster that was restarted once a week was never scrubbed."""

    async def test() -> None:
        clock = Clock()
        async with own(tmp_path, clock) as (_, upkeep):
            assert upkeep.due(WEEK_S), "it never was"
            assert not upkeep.due(0.0), "switched off"
            await upkeep.scrub(0)
        for _ in range(6):
            clock.now_s += 86_400.0
            async with own(tmp_path, clock) as (_, upkeep):
                assert not upkeep.due(WEEK_S)
        clock.now_s += 86_400.0
        async with own(tmp_path, clock) as (_, upkeep):
            assert upkeep.due(WEEK_S)
        clock.now_s -= 30 * 86_400.0
        async with own(tmp_path, clock) as (_, upkeep):
            assert upkeep.due(WEEK_S), "the clock was wrong when it ended, or is now"

    asyncio.run(test())


def test_what_scrubs_read_and_found_only_rises(tmp_path: Path) -> None:
    """A counter, as of a server: it fell to nothing when a scrub began, and `rate` took that for a restart."""

    async def test() -> None:
        async with own(tmp_path, Clock()) as (store, upkeep):
            await fill(store)
            for number in (1, 2):
                found = await upkeep.scrub(0)
                assert found.bytes_read == SHARDS * 1000
                assert (upkeep.read_bytes, upkeep.damaged) == (number * SHARDS * 1000, 0)

    asyncio.run(test())


def test_two_who_ask_for_a_scrub_do_not_mix_theirs(tmp_path: Path) -> None:
    async def test() -> None:
        async with own(tmp_path, Clock()) as (store, upkeep):
            await fill(store)
            one, other = await asyncio.gather(upkeep.scrub(0), upkeep.scrub(0))
            assert one is not other
            assert (one.shards, other.shards) == (SHARDS, SHARDS)

    asyncio.run(test())


def test_a_shard_that_is_missing_altogether_is_found(tmp_path: Path) -> None:
    """Parity that nobody reads, of which the index has no row: neither who reads shards nor who reads contents saw it."""

    async def test() -> None:
        async with own(tmp_path, Clock()) as (store, upkeep):
            await fill(store)
            rows: Any = upkeep._node.router
            for number in range(SHARDS):
                blob = number.to_bytes(16, "big")
                rows.blobs.setdefault(number % 4, {})[blob] = Blob(
                    size=1000, k=1, m=1, stripe=1000, sha256=bytes(32), created_ms=0
                )
            assert (await upkeep.scrub(0)).damaged == 0
            lost = (5).to_bytes(16, "big")
            await store.free(1, lost)
            assert (await upkeep.scrub(0)).damaged == 1
            assert rows.queued == [NeedHeal(lost, [0])]

    asyncio.run(test())


def test_a_store_in_doubt_is_compared_once_it_is_filled(tmp_path: Path) -> None:
    """Who fills it asked before the start what it lacks: what that start lost is found once the position is its own."""

    async def test() -> None:
        async with own(tmp_path, Clock()) as (store, _):
            await fill(store)
        shutil.rmtree(tmp_path / "index")
        async with own(tmp_path, Clock()) as (store, upkeep):
            node: Any = upkeep._node
            lost = (1 << 40).to_bytes(16, "big")
            node.router.blobs[1] = {lost: Blob(size=1000, k=1, m=1, stripe=1000, sha256=bytes(32), created_ms=0)}
            for joining in (True, False):
                assert store.in_doubt
                node.membership.is_joining = lambda _, joining=joining: joining
                await confirm_doubtful(node, node.router)
                assert node.router.queued == ([] if joining else [NeedHeal(lost, [0])])
            assert not store.in_doubt

    asyncio.run(test())


def test_a_record_whose_header_is_damaged_is_written_anew(tmp_path: Path) -> None:
    """Compaction does not find it, and a start that has lost its index would not."""

    async def test() -> None:
        async with own(tmp_path, Clock()) as (store, upkeep):
            await fill(store)
            one, at = next(store.records())
            with (tmp_path / "volumes" / f"{at.volume:08x}.vol").open("r+b") as file:
                file.seek(at.offset + 20)
                file.write(b"damage")
            assert (await upkeep.scrub(0)).damaged == 0
            now = store.locate(one)
            assert now is not None
            assert now != at
            assert [record.shard for _, record in await store.read_headers(now.volume, now.offset, 1)] == [one]

    asyncio.run(test())

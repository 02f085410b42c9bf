"""What an upgrade must put right: once, in the background, in every partition, whatever is written meanwhile. And heals
where a copy was emptied."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inprocess import opened, put, verified
from s4.gateway.buckets import create_bucket
from s4.metadata import keys
from s4.metadata.rows import Counters, decode, encode
from s4.peer.api import StaleError
from s4.upkeep import shard_repair
from s4.upkeep.repair import Repairer
from s4.upkeep.shard_repair import ShardRepair


def repairer(store: Any) -> Repairer:
    return Repairer(
        lambda: store.host.database, partial(store.host.submit, own=True), lambda: range(store.node.partitions)
    )


def as_an_older_program_left_it(store: Any) -> int:
    """Counters as 0.1 to 0.6 kept them: without what sharing saves. How many were made so."""
    rows = []
    for partition in range(store.node.partitions):
        prefix = keys.table(partition, keys.COUNTERS)
        for key, value in store.host.database.scan(prefix, keys.after(prefix)):
            row = decode(Counters, value)
            if row.saved:
                rows.append((key, encode(Counters(row.objects, row.bytes, row.blobs, row.references, row.blob_bytes))))
    store.host.database.write(rows)
    return len(rows)


def test_counters_of_older_programs_are_put_right_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path / "one") as (store, gateway):
            for bucket in ("a", "b"):
                await create_bucket(gateway, bucket, "root")
                for number in range(12):
                    await put(gateway, bucket, b"k%d" % number, b"shared by all" * 1000)
                    await put(gateway, bucket, b"own-%d" % number, b"%d" % number * 9000)
        async with opened(tmp_path / "one") as (store, gateway):
            assert as_an_older_program_left_it(store) >= 2
        async with opened(tmp_path / "one") as (store, gateway):  # as it is read at a start
            assert (await verified(store.node, deep=False)).problems, "verify says so for ever"
            repair = repairer(store)
            left = next(iter(repair.metrics())).value
            assert left > 0
            writing = asyncio.gather(
                *(put(gateway, "a", b"late-%d" % number, b"shared by all" * 1000) for number in range(8))
            )
            await repair.run()
            await writing
            assert not (await verified(store.node, deep=False)).problems
            assert repair.mended >= 2
            assert next(iter(repair.metrics())).value == 0
            turns = store.host.turns
            await repairer(store).run()
            assert store.host.turns == turns, "what was done is not done again"

    asyncio.run(test())


class NoLonger:
    """The rows of a node that does not lead a partition any more, and has emptied its copy to fill it anew."""

    def __init__(self, host: Any, *, leads: bool) -> None:
        self.get, self.scan, self.submit, self._leads = host.get, host.scan, host.submit, leads

    def check(self, partition: int) -> None:
        if not self._leads:
            raise StaleError


class Nothing:
    """A target of which nothing is to be made."""

    retry_s = 0.0

    def store_for(self, _partition: int, _position: int) -> str:
        return "store"

    def there(self, _partition: int) -> frozenset[str]:
        return frozenset(["store"])

    async def flush(self) -> None: ...

    async def discard(self, _store: str, _partition: int, _blob: bytes, _position: int) -> None: ...


def test_a_shard_of_a_blob_that_is_gone_is_healed_only_where_that_is_so(tmp_path: Path) -> None:
    """Heals of a node that leads no more, whose rows are gone, were taken for done."""

    async def test() -> None:
        async with opened(tmp_path / "one") as (store, _):
            row = keys.heal_row(0, bytes(16), 0)
            store.host.database.write([(row, b"")])
            for leads in (False, True):
                repair = ShardRepair(NoLonger(store.host, leads=leads), cast(Any, Nothing()), 0.0)
                await repair.heal_queue(0)
                assert (store.host.get(row) is None) == leads

    asyncio.run(test())


class Away(Nothing):
    """Stores by position, of which some are away."""

    def __init__(self, up: list[str]) -> None:
        self.up, self.asked = up, 0

    def store_for(self, _partition: int, position: int) -> str:
        self.asked += 1
        return self.up[position]

    def there(self, _partition: int) -> frozenset[str]:
        return frozenset(filter(None, self.up))


def test_what_waits_for_a_store_that_is_away_is_looked_at_less_and_less_until_one_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        heals = {keys.heal_row(0, bytes([blob]) * 16, position): b"" for blob in range(200) for position in (1, 2)}
        rounds: list[float] = []
        now = 0.0

        def scan(table: bytes, start: bytes) -> Any:
            if start == table:
                rounds.append(now)
            return iter([(row, b"") for row in sorted(heals) if row >= start])

        async def submit(_: int, healed: Any, *, own: bool) -> None:
            del heals[keys.heal_row(0, healed.blob, healed.positions[0])]

        async def until(end: float) -> list[float]:
            nonlocal now
            while now < end:
                await repair.heal_queue(0)
                now += 1
            return [when for when in rounds if when >= end - 200]

        monkeypatch.setattr(shard_repair, "time", SimpleNamespace(monotonic=lambda: now))
        target = Away(["a", "", ""])
        rows = SimpleNamespace(get=heals.get, scan=scan, submit=submit, check=lambda _: None)
        repair = ShardRepair(cast(Any, rows), cast(Any, target), 0.0)
        assert await until(200) == [0, 5, 15, 35, 75, 135, 195]
        assert target.asked == 2 * 7
        target.up[1] = "b"  # in the middle of a wait
        assert (await until(400))[:5] == [200, 201, 206, 216, 236], "what came is healed, then nothing could be done"
        assert len(heals) == 200
        target.up = ["a", "", "c"]
        await until(402)
        assert not heals

    asyncio.run(test())

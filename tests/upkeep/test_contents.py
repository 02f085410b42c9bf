"""A cluster's blobs are compared with what was written, by who leads their partitions: each in its time, over restarts
and changes of leaders."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import damage
from inprocess import opened, put
from s4.gateway.buckets import create_bucket
from s4.metadata import keys
from s4.metadata.rows import Blob, decode, encode
from s4.storage.files import Files
from s4.upkeep import contents, progress
from s4.upkeep.contents import Checked, Contents
from s4.upkeep.progress import ProgressFile

WEEK_S = 7 * 86_400.0
BLOBS = 40


class World:
    """A store whose node leads `led`; several nodes may be made of it, each with a file of its own."""

    def __init__(self, directory: Path, store: Any, gateway: Any) -> None:
        self._directory, self._store, self._gateway = directory, store, gateway
        self.led, self.now_s = list(range(store.node.partitions)), 1_000_000.0

    def node(self, name: str = "a") -> Contents:
        (self._directory / name).mkdir(exist_ok=True)
        file = ProgressFile(Files(), self._directory / name, Checked, contents.NAME)
        return Contents(self._gateway, self._store.node.host, lambda: self.led, file, lambda: self.now_s)

    def change(self, **changes: Any) -> str:
        """Say something else of one blob; its name."""
        for partition in range(self._store.node.partitions):
            for key, value in self._store.node.host.scan(keys.table(partition, keys.BLOB)):
                self.written = decode(Blob, value)
                self.put(key, replace(self.written, **changes))
                self.key = key
                return key[len(keys.table(partition, keys.BLOB)) :].hex()
        raise AssertionError("no blob")

    def blobs(self, partition: int) -> list[bytes]:
        return [key for key, _ in self._store.node.host.scan(keys.table(partition, keys.BLOB))]

    def remove(self, key: bytes) -> None:
        for copy in self._store.node.host.copies.all():
            copy.write([(key, None)])

    def put(self, key: bytes, row: Blob) -> None:
        for copy in self._store.node.host.copies.all():
            copy.write([(key, encode(row))])


def run(tmp_path: Path, work: Any) -> None:
    async def test() -> None:
        async with opened([tmp_path / f"d{number}" for number in range(1, 5)]) as (store, gateway):
            await create_bucket(gateway, "contents", "root")
            for number in range(BLOBS):
                await put(gateway, "contents", b"%d" % number, random.Random(number).randbytes(20_000))
            await work(World(tmp_path, store, gateway))

    asyncio.run(test())


def test_a_blob_that_is_not_what_was_written_is_told_until_it_is(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        node = world.node()
        assert (await node.run(node.due(WEEK_S), 0)).wrong == {}
        assert (node.checked.blobs, node.checked.bytes_read, node.alarms()) == (BLOBS, BLOBS * 20_000, [])
        name = world.change(sha256=bytes(32))
        assert list((await node.run(world.led, 0)).wrong) == [name]
        assert node.alarms() == [
            "1 blobs are not what was written, though their shards are whole: s4 admin scrub --deep names them"
        ]
        again = world.node()
        assert again.alarms() == node.alarms(), "it is known after a restart"
        world.put(world.key, world.written)
        await again.run(world.led, 0)
        assert again.alarms() == []

    run(tmp_path, work)


@pytest.mark.parametrize("why", ["deleted", "led by another"])
def test_what_is_deleted_or_led_by_another_is_told_no_more(tmp_path: Path, why: str) -> None:
    async def work(world: World) -> None:
        node = world.node()
        world.change(sha256=bytes(32))
        await node.run(world.led, 0)
        assert node.alarms()
        if why == "deleted":
            world.remove(world.key)
        else:
            world.led = []
        await node.run([], 0)
        assert node.alarms() == []

    run(tmp_path, work)


def test_shards_that_are_damaged_are_done_without(tmp_path: Path) -> None:
    """They are the healer's; what is left says what the blob is."""

    async def work(world: World) -> None:
        for one in list(damage.places(tmp_path / "d2"))[:3]:
            one.flip(random.Random(1))
        node = world.node()
        assert ((await node.run(world.led, 0)).wrong, node.checked.blobs) == ({}, BLOBS)

    run(tmp_path, work)


def test_each_partition_is_read_once_a_cycle_by_who_leads_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "SAVE_S", -1.0)  # after each blob, as if each took ten seconds

    async def work(world: World) -> None:
        node, every = world.node(), list(world.led)
        world.led = every[:4]
        await node.run(node.due(WEEK_S), 0)
        first = node.checked.blobs
        assert 0 < first < BLOBS
        assert node.due(WEEK_S) == []
        assert node.due(0) == [], "never"
        world.led = every  # others died: what they led was never read here
        assert node.due(WEEK_S) == every[4:]
        running = asyncio.ensure_future(node.run(node.due(WEEK_S), 0))
        while node.checked.blobs < (first + BLOBS) // 2:
            await asyncio.sleep(0)  # looked at in each turn: it goes on
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        again = world.node()
        assert again.checked.running
        begun = again.checked.partition
        assert again.due(WEEK_S)[0] == begun
        await again.run(again.due(WEEK_S), 0)
        assert again.checked.blobs == BLOBS, "everything once"
        world.now_s += WEEK_S
        assert again.due(WEEK_S) == every

    run(tmp_path, work)


def test_who_does_not_lead_any_more_stops(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        node = world.node()
        running = asyncio.ensure_future(node.run(list(world.led), 1e9))
        while node.checked.blobs < 5:
            await asyncio.sleep(0)  # looked at in each turn: it goes on
        world.led = []
        await running
        assert node.checked.blobs < 10
        assert len(node.checked.ended) < 16, "who comes to lead the others has to read them"

    run(tmp_path, work)


def test_a_partition_whose_rows_went_with_its_lead_was_not_read_to_its_end(tmp_path: Path, monkeypatch: Any) -> None:
    """Its copy is emptied, to be filled anew: that looked like the end."""
    monkeypatch.setattr(contents, "RUN", 1)

    async def work(world: World) -> None:
        node, tables = world.node(), {one: world.blobs(one) for one in world.led}
        partition = next(one for one, rows in tables.items() if len(rows) > 1)
        running = asyncio.ensure_future(node.run([partition], 0))
        while node.checked.blobs < 1:
            await asyncio.sleep(0)  # looked at in each turn: it goes on
        for key in tables[partition]:
            world.remove(key)
        every, world.led = world.led, []
        await running
        assert node.checked.blobs == 1
        world.led = every
        assert partition in node.due(WEEK_S)

    run(tmp_path, work)

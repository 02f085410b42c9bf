"""Scrub: goes on where it was cut off, keeps to its rate, finds what is damaged, tells a wrong whole from a damaged
part."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import damage
from inprocess import opened, put
from s4.gateway.buckets import create_bucket
from s4.metadata import keys
from s4.metadata.rows import Blob, decode, encode
from s4.storage.leveldb import verify
from s4.upkeep import scrub
from s4.upkeep.heal import Healer
from s4.upkeep.scrub import Scrubber


def drives(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"d{number}" for number in range(1, 5)]


def fail(error: BaseException) -> None:
    raise error


async def fill(gateway: Any, count: int, size: int = 20_000) -> None:
    await create_bucket(gateway, "scrub", "root")
    for number in range(count):
        await put(gateway, "scrub", b"%d" % number, random.Random(number).randbytes(size))


def test_a_scrub_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """Cut off in the middle by a stop of the server: the second run reads the rest, and both together everything
    once."""

    async def whole() -> None:
        async with opened(drives(tmp_path)) as (store, gateway):
            await fill(gateway, 60)
            scrubber = Scrubber(store.node, 0.0, fail)
            running = asyncio.ensure_future(scrubber.run(deep=True))
            while scrubber.place.partition < 5:
                await asyncio.sleep(0)  # looked at in each turn: it goes on
            scrubber._file.save(scrubber.place)  # what happens every ten seconds
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        async with opened(drives(tmp_path)) as (store, _):
            again = Scrubber(store.node, 0.0, fail)
            assert again.place.running
            assert again.place.partition >= 5
            assert again.due(3600.0)
            before = again.place.blobs
            place = await again.run(deep=False)
            assert place.deep, "the scrub that was cut off was a deep one"
            assert 0 < before < 60
            assert place.blobs == 60
            assert place.bytes_read == 60 * 4 * 10_000
            assert not again.due(3600.0)
            assert json.loads((tmp_path / "d1" / "scrub.json").read_text())["running"] is False

    asyncio.run(whole())


def test_who_asks_for_a_scrub_is_told_of_all(tmp_path: Path) -> None:
    """The rest of one that was cut off before drives were mended, shallow too, was given for a deep one of now."""

    async def whole() -> None:
        async with opened(drives(tmp_path)) as (store, gateway):
            await fill(gateway, 60)
            scrubber = Scrubber(store.node, 0.0, fail)
            running = asyncio.ensure_future(scrubber.run(deep=False))
            while scrubber.place.partition < 5:
                await asyncio.sleep(0)  # looked at in each turn: it goes on
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            scrubber.place.damaged = 71
            place = await scrubber.run(deep=True, anew=True)
            assert (place.deep, place.blobs, place.bytes_read, place.damaged) == (True, 60, 60 * 4 * 10_000, 0)

    asyncio.run(whole())


def test_a_damaged_place_begins_anew(tmp_path: Path) -> None:
    async def whole() -> None:
        async with opened(drives(tmp_path)) as (store, gateway):
            await fill(gateway, 3)
            (tmp_path / "d1" / "scrub.json").write_bytes(b'{"running": tru')
            assert (await Scrubber(store.node, 0.0, fail).run(deep=False)).blobs == 3

    asyncio.run(whole())


def test_bytes_a_second_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of rows too."""
    took = list[float]()

    async def timed(*arguments: Any) -> None:
        started = time.monotonic()
        await verify(*arguments)
        took.append(time.monotonic() - started)

    async def whole() -> None:
        async with opened(drives(tmp_path)) as (store, gateway):
            await fill(gateway, 10)
            started = time.monotonic()
            place = await Scrubber(store.node, 1_000_000.0, fail).run(deep=False)
            assert time.monotonic() - started - sum(took) >= place.bytes_read / 1_000_000.0
            copies = store.node.host.copies.all()
            rows = sum(len(key) + len(value) for copy in copies for key, value in copy.scan(b"", keys.END))
            assert rows > 10_000
            assert len(took) == len(copies)
            assert sum(took) >= rows / 1_000_000.0

    monkeypatch.setattr(scrub, "verify", timed)
    asyncio.run(whole())


def test_a_record_whose_header_is_damaged_is_written_anew(tmp_path: Path) -> None:
    """Its bytes are whole, so that nobody misses it, until the index is lost."""

    async def whole() -> None:
        async with opened(drives(tmp_path)) as (store, gateway):
            await fill(gateway, 10)
            scrubber, shards = Scrubber(store.node, 0.0, fail), store.node.drives.stores[1]
            await shards.flush()
            found = dict(shards.records())
            for at in list(found.values())[:3]:
                with (shards.directory / "volumes" / f"{at.volume:08x}.vol").open("r+b") as file:
                    file.seek(at.offset + 20)
                    file.write(b"damage")
            assert (await scrubber.run(deep=True)).damaged == 0
            await shards.flush()
            now = dict(shards.records())
            assert now.keys() == found.keys()
            assert {one for one in found if now[one] != found[one]} == set(list(found)[:3])
            for one, at in now.items():
                assert [record.shard for _, record in await shards.read_headers(at.volume, at.offset, 1)] == [one]

    asyncio.run(whole())


@pytest.mark.parametrize("kind", ["flip", "wrong-sha"])
def test_what_is_found(tmp_path: Path, kind: str) -> None:
    """A flipped bit is queued and healed; whole shards that do not make the content are told, by name, and left
    alone."""

    async def whole() -> None:
        async with opened(drives(tmp_path)) as (store, gateway):
            await fill(gateway, 10)
            place = await Scrubber(store.node, 0.0, fail).run(deep=True)
            assert (place.damaged, place.unhealable) == (0, [])
            if kind == "flip":
                chosen = random.Random(1)
                found = list(damage.places(tmp_path / "d2"))
                for one in found[:3]:
                    one.flip(chosen)
            else:
                partition, key, row = next(
                    (partition, key, decode(Blob, value))
                    for partition in range(16)
                    for key, value in store.node.host.scan(keys.table(partition, keys.BLOB))
                )
                for copy in store.node.host.copies.all():
                    copy.write([(key, encode(replace(row, sha256=bytes(32))))])
            place = await Scrubber(store.node, 0.0, fail).run(deep=True)
            if kind == "wrong-sha":
                assert place.unhealable == [key[len(keys.table(partition, keys.BLOB)) :].hex()]
                return
            assert place.damaged == 3
            await Healer(store.node, store.joiners).work()
            assert (await Scrubber(store.node, 0.0, fail).run(deep=True)).damaged == 0

    asyncio.run(whole())


def test_what_a_drive_lacks_that_is_being_filled_is_not_damaged(tmp_path: Path) -> None:
    """All that was still to come was counted so, told as an error, and queued beside the filling."""

    async def whole() -> None:
        async with opened(drives(tmp_path)) as (_, gateway):
            await fill(gateway, 20)
        shutil.rmtree(tmp_path / "d2")
        (tmp_path / "d2").mkdir()
        async with opened(drives(tmp_path)) as (store, _):
            scrubber, healer = Scrubber(store.node, 0.0, fail), Healer(store.node, store.joiners)
            assert ((await scrubber.run(deep=True)).damaged, healer.waiting) == (0, 0)
            await healer.work()
            for shard, _ in list(store.node.drives.stores[1].records())[:3]:
                await store.node.drives.stores[1].free(shard.partition, shard.blob)
            assert ((await scrubber.run(deep=True)).damaged, healer.waiting) == (3, 3), "lost since"

    asyncio.run(whole())


def test_healing_keeps_to_its_rate(tmp_path: Path) -> None:
    """A drive is replaced: what is read to fill it is bounded too."""

    async def whole() -> None:
        async with opened(drives(tmp_path)) as (_, gateway):
            await fill(gateway, 20)
        shutil.rmtree(tmp_path / "d2")
        (tmp_path / "d2").mkdir()
        async with opened(drives(tmp_path)) as (store, _):
            healer = Healer(store.node, store.joiners, bytes_per_s=1_000_000.0)
            started = time.monotonic()
            await healer.work()
            assert healer.repair.read_bytes == 20 * 2 * 10_000
            assert time.monotonic() - started >= healer.repair.read_bytes / 1_000_000.0
            assert not any(one.joining for one in store.membership.current.status)

    asyncio.run(whole())

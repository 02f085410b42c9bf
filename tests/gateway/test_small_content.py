"""Content in rows, through the gateway: what a client sees is the same with and without it, byte for byte, whatever it
does; verify, scrubs and the independent checker count it; nothing of it is in volumes."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from checker import check
from crash.history import multipart, settle
from inprocess import get, opened, put, verified
from s4.gateway.buckets import create_bucket
from s4.gateway.context import Gateway
from s4.gateway.copies import Copy, copy_object
from s4.gateway.objects import Attributes, delete_object
from s4.gateway.read import open_object, read_small, stream
from s4.metadata import keys
from s4.metadata.rows import Blob, decode
from s4.metadata.small import OLDEST, content_of
from s4.node.local import OpenStore
from s4.s3.errors import S3Error
from s4.storage.directory import keeps_out
from s4.upkeep.scrub import Scrubber

SMALL = 16 * 1024
SIZES = (0, 300, 4095, 4096, 5000, SMALL - 1, SMALL, SMALL + 1, 70_000)
KEYS = [b"a", b"b", b"c/d"]


def drives(root: Path, count: int) -> list[Path]:
    return [root / f"d{number}" for number in range(count)]


async def _bytes(gateway: Gateway, key: bytes, offset: int = 0, length: int | None = None) -> bytes:
    """As GET answers it: at once where it may, else as a stream; both give the same."""
    found = await open_object(gateway, "b", key, "")
    length = min(length, found.row.size - offset) if length is not None else found.row.size - offset
    pieces = [bytes(piece) async for piece in stream(gateway, found, offset, length)]
    at_once = await read_small(gateway, found, offset, length)
    assert at_once is None or bytes(at_once) == b"".join(pieces)
    return b"".join(pieces)


async def _step(gateway: Gateway, chosen: random.Random) -> Any:
    """One operation, and what the client was told."""
    key, other = chosen.choice(KEYS), chosen.choice(KEYS)
    size, seed = chosen.choice(SIZES), chosen.randrange(3)
    body = random.Random(seed).randbytes(size)
    what = chosen.choice(("put", "put", "put", "get", "range", "copy", "delete", "parts"))
    try:
        match what:
            case "put":
                await put(gateway, "b", key, body)
            case "get":
                return await _bytes(gateway, key)
            case "range":
                found = await open_object(gateway, "b", key, "")
                start = chosen.random()
                return await _bytes(gateway, key, int(start * found.row.size), 1000)
            case "copy":
                source = await open_object(gateway, "b", other, "")
                return (await copy_object(gateway, source, Copy("b", key, "root", Attributes()))).etag
            case "delete":
                await delete_object(gateway, "b", key, "", "root")
            case "parts":
                await multipart(gateway, key, [body], "b")
    except S3Error as error:
        return error.code
    return what


async def _history(root: Path, count: int, seed: int, small: int) -> tuple[list[Any], Any]:
    told = []
    chosen = random.Random(seed)
    async with opened(drives(root, count), preallocate_bytes=0, small=small) as (store, gateway):
        await create_bucket(gateway, "b", "root")
        for _ in range(60):
            told.append(await _step(gateway, chosen))
        await settle(store)
        counters = store.node.counters()
        if small:
            assert not (await verified(store.node)).problems
    assert check(drives(root, count)) == []
    return told, counters


@pytest.mark.parametrize(("count", "seed"), [(1, 1), (1, 2), (1, 3), (3, 4)])
def test_clients_are_told_the_same_with_and_without_it(tmp_path: Path, count: int, seed: int) -> None:
    off = asyncio.run(_history(tmp_path / "off", count, seed, 0))
    on = asyncio.run(_history(tmp_path / "on", count, seed, SMALL))
    assert on == off


def _contents(store: OpenStore) -> list[bytes]:
    """The blob rows that have bytes."""
    tables = [keys.table(number, keys.BLOB) for number in range(store.node.partitions)]
    return [value for table in tables for _, value in store.host.scan(table) if content_of(value)]


def test_what_is_up_to_the_bound_is_in_rows_and_what_is_above_in_shards(tmp_path: Path) -> None:
    async def whole() -> None:
        async with opened(tmp_path / "d", small=SMALL) as (store, gateway):
            await create_bucket(gateway, "b", "root")
            for size in SIZES:
                await put(gateway, "b", b"%d" % size, random.Random(size).randbytes(size))
            found = sorted(decode(Blob, value).size for value in _contents(store))
            assert found == [4096, 5000, SMALL - 1, SMALL]
            await store.drives.flush()
            shards = [shard for one in store.drives.stores for shard, _ in one.records()]
            assert len(shards) == 2, "of what is larger, of 64 KiB and a little a stripe each"
        async with opened(tmp_path / "d") as (store, gateway):  # taken back: what there is stays readable
            for size in SIZES:
                assert await get(gateway, "b", b"%d" % size) == random.Random(size).randbytes(size)
            await put(gateway, "b", b"new", random.Random(8).randbytes(8000))
            assert len(_contents(store)) == 4

    asyncio.run(whole())


def test_a_store_keeps_out_older_programs_from_the_first_such_row_on(tmp_path: Path) -> None:
    """The mark is there before any row is, and stays when the setting is taken back."""

    async def whole() -> None:
        async with opened(tmp_path / "d"):
            assert '"format": 1' in (tmp_path / "d" / "s4.json").read_text()
        for small in (SMALL, 0):
            async with opened(tmp_path / "d", small=small) as (store, _):
                assert store.small == bool(small)
                said = (tmp_path / "d" / "s4.json").read_text()
                assert '"format": 2' in said
                assert '"oldest": "0.8.0"' in said

    asyncio.run(whole())


def test_a_drive_that_replaces_another_keeps_out_the_same_programs(tmp_path: Path) -> None:
    """It gets a copy of the rows that the others have, though the setting was taken back."""
    drives = [tmp_path / f"d{number}" for number in range(4)]

    async def whole() -> None:
        async with opened(drives, small=SMALL):
            pass
        for file in sorted(drives[1].rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        async with opened(drives):
            pass
        async with opened(drives):
            assert all(keeps_out(drive, OLDEST) for drive in drives)

    asyncio.run(whole())


def test_a_blob_that_is_not_what_was_written_is_found(tmp_path: Path) -> None:
    """LevelDB's checksums tell of damaged rows; bytes that came wrong into a good row, their SHA-256."""

    async def whole() -> None:
        async with opened(tmp_path / "d", small=SMALL) as (store, gateway):
            await create_bucket(gateway, "b", "root")
            await put(gateway, "b", b"k", b"x" * 5000)
            (value,) = _contents(store)
            row = next(
                key
                for number in range(store.node.partitions)
                for key, _ in store.host.scan(keys.table(number, keys.BLOB))
            )
            store.host.database.write([(row, value[:-1] + b"y")])
            found = await verified(store.node)
            assert any("does not have its SHA-256" in text for text in found.problems), found.problems
            scrubbed = await Scrubber(store.node, 0, store.host._fatal).run(deep=True)
            assert scrubbed.unhealable == [row[3:].hex()]
            assert scrubbed.bytes_read == 5000
            store.host.database.write([(row, value[:-1])])
            found = await verified(store.node, deep=False)
            assert any("has 4999 bytes in its row, and not 5000" in text for text in found.problems), found.problems

    asyncio.run(whole())

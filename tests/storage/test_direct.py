"""Aligned records, written past the page cache: what is written so is what is read, after every crash, beside records of
the other kind, and where disks and file systems refuse."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from s4.storage import direct
from s4.storage.files import Buffer, Files
from s4.storage.records import ALIGN, DamagedError, DiskFullError
from s4.storage.shards import ShardSettings, ShardStore
from s4.upkeep import compaction
from storage.fakes import AilingFiles, FailingFiles, RecordingFiles
from storage.test_shards import SETTINGS, open_store, run, shard

SIZES = (10, 131_072, 5_000, 200_001, 131_071, 262_144, 70_000, 1, 524_287)
OLD = replace(SETTINGS, mark=None)


def body(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number % len(SIZES)])


async def fill(store: ShardStore, first: int, last: int) -> None:
    for number in range(first, last):
        await store.append(shard(number), [body(number)], sync=number % 3 == 0)


async def check(store: ShardStore, last: int) -> None:
    for number in range(last):
        data = body(number)
        assert await store.read(shard(number), 0, len(data)) == data
        middle = len(data) // 3
        assert await store.read(shard(number), middle, len(data) - middle) == data[middle:]


class Watched(Files):
    """Notes the place of each write of a record, and by which way it came."""

    def __init__(self) -> None:
        self.direct: list[tuple[int, int]] = []
        self.cached: list[tuple[int, int]] = []

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        self.cached.append((offset, offset + sum(map(len, pieces))))
        return super().write(fd, pieces, offset)

    def write_direct(self, fd: int, direct: int, pieces: Sequence[Buffer], offset: int) -> int:
        self.direct.append((offset, offset + sum(map(len, pieces))))
        return super().write_direct(fd, direct, pieces, offset)


@pytest.mark.parametrize("lost", [False, True])
def test_a_store_has_records_of_both_kinds_side_by_side(tmp_path: Path, lost: bool) -> None:
    """What 0.7 wrote stays readable, with the index and without it, and new records go into the same volume behind it."""

    async def test() -> None:
        store, _ = await open_store(tmp_path, settings=replace(OLD, volume_bytes=64 << 20))
        await fill(store, 0, 20)
        await store.close()
        settings = replace(SETTINGS, volume_bytes=64 << 20)
        store, _ = await open_store(tmp_path, settings=settings)
        await fill(store, 20, 40)
        for _ in range(2):
            await check(store, 40)
            kinds = {location.aligned for _, location in store.records()}
            await store.close()
            if lost:
                shutil.rmtree(tmp_path / "index")
            store, _ = await open_store(tmp_path, settings=settings)
        assert kinds == {False, True}
        await fill(store, 40, 50)
        assert len(list((tmp_path / "volumes").iterdir())) == 1, "zeros before an aligned record are no damage"
        await check(store, 50)
        await store.close()

    run(test)


def test_no_page_of_a_volume_is_written_both_ways(tmp_path: Path) -> None:
    async def test() -> None:
        files = Watched()
        store, _ = await open_store(tmp_path, files, replace(SETTINGS, volume_bytes=64 << 20))
        await fill(store, 0, 60)
        await store.close()
        store, _ = await open_store(tmp_path, files, replace(SETTINGS, volume_bytes=64 << 20))
        await fill(store, 60, 90)
        await store.close()
        past = {page for start, end in files.direct for page in range(start // ALIGN, -(-end // ALIGN))}
        through = {page for start, end in files.cached for page in range(start // ALIGN, -(-end // ALIGN))}
        assert len(past) > 1000
        assert not past & through

    run(test)


def test_memory_that_is_used_again_leaves_nothing_in_a_record(tmp_path: Path) -> None:
    """What stands behind a record's data is zeros, not what stood there for another."""

    async def test() -> None:
        store, _ = await open_store(tmp_path, settings=replace(SETTINGS, volume_bytes=64 << 20))
        await store.append(shard(1), [b"\xee" * 1_000_000], sync=True)
        await store.append(shard(2), [bytes(131_073)], sync=True)
        location = store.locate(shard(2))
        await store.close()
        assert location is not None
        (path,) = (tmp_path / "volumes").iterdir()
        written = path.read_bytes()[location.offset :]
        assert len(written) == location.record(shard(2)).size
        assert b"\xee\xee" not in written

    run(test)


@pytest.mark.parametrize("says", [None, False])
def test_a_store_that_cannot_keep_older_programs_out_has_no_such_records(tmp_path: Path, says: bool | None) -> None:
    async def test() -> None:
        asked = []

        def mark() -> bool:
            asked.append(1)
            return False

        files = Watched()
        store, _ = await open_store(tmp_path, files, replace(SETTINGS, mark=mark if says is not None else None))
        await fill(store, 0, 20)
        await check(store, 20)
        assert not files.direct
        assert len(asked) == (says is not None), "once in a start"
        await store.close()

    run(test)


def test_older_programs_are_kept_out_before_the_first_such_record_and_not_for_small_ones(tmp_path: Path) -> None:
    async def test() -> None:
        files = Watched()
        at: list[int] = []

        def mark() -> bool:
            at.append(len(files.direct))
            return True

        store, _ = await open_store(tmp_path, files, replace(SETTINGS, mark=mark))
        await store.append(shard(1), [bytes(131_071)], sync=True)
        assert not at
        await store.append(shard(2), [bytes(131_072)], sync=True)
        await store.append(shard(3), [bytes(131_072)], sync=True)
        assert at == [0]
        await store.close()

    run(test)


@pytest.mark.parametrize("when", ["opened", "written"])
def test_where_the_file_system_refuses_the_same_records_go_through_the_cache(
    tmp_path: Path, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(Watched):
        def open_direct(self, path: Path) -> int | None:
            return None if when == "opened" else super().open_direct(path)

        def write_direct(self, fd: int, direct: int, pieces: Sequence[Buffer], offset: int) -> int:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    async def test() -> None:
        store, fatal = await open_store(tmp_path, Refusing())
        await fill(store, 0, 30)
        await check(store, 30)
        assert not fatal.done()
        assert {location.aligned for number in range(30) if (location := store.locate(shard(number)))} == {False, True}
        await store.close()
        store, _ = await open_store(tmp_path)
        await check(store, 30)
        await store.close()

    with caplog.at_level(logging.WARNING):
        run(test)
    assert sum("past the page cache" in record.message for record in caplog.records) == 1, "said once"


@pytest.mark.parametrize("shortest", [1, 4096, 100_000])
def test_short_writes_are_finished(tmp_path: Path, shortest: int) -> None:
    async def test() -> None:
        files = AilingFiles()
        store, fatal = await open_store(tmp_path, files)
        files.shortest_bytes = max(shortest, 100_000) if shortest > 1 else 65_521
        await fill(store, 0, 12)
        await check(store, 12)
        assert not fatal.done()
        await store.close()

    run(test)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_an_error_of_such_a_write_ends_the_process_and_acknowledges_nothing(tmp_path: Path, code: int) -> None:
    """D7. ENOSPC too: room was reserved before."""

    class Failing(FailingFiles):
        def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
            return Files.write(self, fd, pieces, offset)

    async def test() -> None:
        store, fatal = await open_store(tmp_path, Failing({"write"}, 3, code))
        for number in range(3):
            append = asyncio.ensure_future(store.append(shard(number), [body(1)], sync=True))
            await asyncio.wait([append, fatal], return_when=asyncio.FIRST_COMPLETED)
            assert (number < 2) == append.done()
        assert fatal.done()
        append.cancel()
        store._index.close()
        again, _ = await open_store(tmp_path)
        for number in range(2):
            assert await again.read(shard(number), 0, len(body(1))) == body(1)
        await again.close()

    run(test)


def test_a_full_disk_refuses_such_a_record_and_takes_smaller_ones(tmp_path: Path) -> None:
    async def test() -> None:
        files = AilingFiles()
        store, fatal = await open_store(tmp_path, files, replace(SETTINGS, preallocate_bytes=0))
        await fill(store, 0, 2)
        files.room_bytes = 100_000
        with pytest.raises(DiskFullError):
            await store.append(shard(50), [bytes(131_072)], sync=True)
        await store.append(shard(51), [b"small"], sync=True)
        files.mend()
        await store.append(shard(50), [body(1)], sync=True)
        assert not fatal.done()
        await check(store, 2)
        assert await store.read(shard(50), 0, len(body(1))) == body(1)
        await store.close()

    run(test)


def test_all_of_its_data_is_given_back_by_a_hole_and_its_header_stays(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path, settings=replace(SETTINGS, volume_bytes=64 << 20, preallocate_bytes=0))
        for number in range(8):
            await store.append(shard(number), [body(8)], sync=True)
        (path,) = (tmp_path / "volumes").iterdir()
        for number in range(7):
            await store.free(number % 4, shard(number).blob)
        left = path.stat().st_blocks * 512
        assert left <= len(body(8)) + (8 + 4) * ALIGN, "the headers, and what the file system itself needs"
        assert await store.read(shard(7), 0, len(body(8))) == body(8)
        assert len(await store.read_headers(1, 0, 100)) == 8
        await store.close()

    run(test)


def test_compaction_moves_records_of_both_kinds(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path, settings=OLD)
        await fill(store, 0, 27)
        await store.close()
        store, _ = await open_store(tmp_path)
        await fill(store, 27, 45)
        kept = range(0, 45, 4)
        for number in range(45):
            if number not in kept:
                await store.free(number % 4, shard(number).blob)
        await store.append(shard(99), [bytes(1 << 20)], sync=True)
        for number in store.sealed():
            await compaction.compact_one(store, number, lambda: float("inf"))
        for _ in range(2):
            for number in kept:
                location = store.locate(shard(number))
                assert location is not None
                assert location.aligned == (len(body(number)) >= direct.LEAST_BYTES)
                assert await store.read(shard(number), 0, len(body(number))) == body(number)
            await store.close()
            shutil.rmtree(tmp_path / "index")
            store, _ = await open_store(tmp_path)
        await store.close()

    run(test)


@pytest.mark.parametrize("seed", range(6))
def test_every_legal_crash_keeps_what_was_acknowledged(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its namesake in test_shards.py, with records of both kinds: what was not synced is kept, lost or torn at any
    page, in any order, and found out."""
    monkeypatch.setattr(direct, "LEAST_BYTES", 4000)
    chosen = random.Random(seed)
    files = RecordingFiles()
    acknowledged: dict[int, tuple[int, bytes]] = {}
    settings = ShardSettings(volume_bytes=60_000, preallocate_bytes=0, reserve_bytes=0, flush_s=3600, mark=lambda: True)

    async def record() -> None:
        store, _ = await open_store(tmp_path / "real", files, settings)
        for number in range(16):
            data = chosen.randbytes(chosen.choice([10, 300, 5000, 20_000]))
            sync = chosen.random() < 0.6
            await store.append(shard(number), [data], sync=sync)
            if sync:
                acknowledged[number] = (len(files.events), data)
        await store.close()

    run(record)

    def keep(_: int, data: bytes) -> bytes | None:
        what = chosen.random()
        if what < 0.4:
            return data
        if what < 0.6:
            return None
        pages = [data[at : at + ALIGN] for at in range(0, len(data), ALIGN)]
        return b"".join(page if chosen.random() < 0.5 else bytes(len(page)) for page in pages)

    async def after(upto: int) -> None:
        path = tmp_path / f"crash{upto}"
        (path / "volumes").mkdir(parents=True)
        files.replay(path / "volumes", upto, keep)
        store, _ = await open_store(path, settings=settings)
        for number, (event, data) in acknowledged.items():
            if event <= upto:
                assert await store.read(shard(number), 0, len(data)) == data, (number, upto)
        for number in range(16):
            if number not in acknowledged and store.locate(shard(number)) is not None:
                location = store.locate(shard(number))
                assert location is not None
                await store.read(shard(number), 0, location.length)  # what the start took for whole is
        await store.append(shard(999), [b"after" * 1000], sync=True)
        await store.close()
        store, _ = await open_store(path, settings=settings)
        assert await store.read(shard(999), 0, 5) == b"after"
        await store.close()
        shutil.rmtree(path)

    for upto in range(1, len(files.events) + 1):
        run(lambda upto=upto: after(upto))


@pytest.mark.parametrize("where", ["header", "table", "data", "zeros"])
def test_damage_to_such_a_record_is_never_given_out(tmp_path: Path, where: str) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path, settings=replace(SETTINGS, volume_bytes=64 << 20))
        for number in range(3):
            await store.append(shard(number), [bytes([number]) * 200_000], sync=True)
        location = store.locate(shard(1))
        assert location is not None
        await store.close()
        at = {"header": location.offset + 20, "table": location.data_at - 1, "data": location.data_at + 199_999}
        (path,) = (tmp_path / "volumes").iterdir()
        with path.open("r+b") as file:
            file.seek(at.get(where, location.offset + 1000))
            file.write(b"\xaa")
        shutil.rmtree(tmp_path / "index")
        store, _ = await open_store(tmp_path)
        for number in (0, 2) if where != "zeros" else (0, 1, 2):
            assert await store.read(shard(number), 0, 200_000) == bytes([number]) * 200_000
        if where != "zeros":
            with pytest.raises(DamagedError):
                await store.read(shard(1), 190_000, 10_000)
        await store.close()

    run(test)

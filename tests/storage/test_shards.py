"""The shard store on a real disk: group commit, checks, recovery, freeing, compaction, faults, crashes."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from inprocess import until
from s4.storage import appender
from s4.storage.files import Buffer, Files
from s4.storage.records import DamagedError, DiskFullError, Shard
from s4.storage.shards import ShardSettings, ShardStore
from s4.upkeep import compaction
from storage.fakes import AilingFiles, FailingFiles, RecordingFiles

STORE = bytes(16)
SETTINGS = ShardSettings(
    volume_bytes=1 << 20, preallocate_bytes=256 << 10, reserve_bytes=0, flush_s=3600, mark=lambda: True
)


class FatalError(Exception):
    """What the process would have died of."""


async def open_store(
    path: Path, files: Files | None = None, settings: ShardSettings = SETTINGS
) -> tuple[ShardStore, asyncio.Future[Any]]:
    loop = asyncio.get_running_loop()
    fatal: asyncio.Future[Any] = loop.create_future()

    def die(error: BaseException) -> None:
        loop.call_soon_threadsafe(lambda: fatal.done() or fatal.set_result(error))

    path.mkdir(exist_ok=True)
    return await ShardStore.open(files or Files(), path, STORE, settings, die), fatal


def shard(number: int, stripe: int = 0) -> Shard:
    return Shard(number % 4, number.to_bytes(16, "big"), 0, stripe)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


def test_what_is_appended_is_read_back_now_and_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        data = {
            number: os.urandom(random.Random(number).choice([1, 4096, 65536, 65537, 300_000])) for number in range(40)
        }
        await asyncio.gather(*(store.append(shard(number), [body], sync=True) for number, body in data.items()))
        for _ in range(2):
            for number, body in data.items():
                assert await store.read(shard(number), 0, len(body)) == body
                half = len(body) // 2
                assert await store.read(shard(number), half, len(body) - half) == body[half:]
            assert len(store.usage()) > 3
            await store.close()
            store, _ = await open_store(tmp_path)
        await store.close()

    run(test)


def test_many_writers_share_a_sync(tmp_path: Path) -> None:
    async def test() -> None:
        files = RecordingFiles()
        store, _ = await open_store(tmp_path, files)
        await asyncio.gather(*(store.append(shard(number), [b"x" * 5000], sync=True) for number in range(64)))
        syncs = sum(event[0] == "sync" for event in files.events)
        assert syncs < 16
        await store.close()

    run(test)


class Held(Files):
    """Writes of records stand still until they are let go on; `calls` are the bytes of each, and 0 for a sync."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Semaphore(0)
        self.calls: list[int] = []
        self.small_at = -1

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        if sum(map(len, pieces)) > 8192:  # no head of a volume
            self.entered.set()
            self.go_on.acquire()
        if any(bytes(piece[:5]) == b"small" for piece in pieces):
            self.small_at = len(self.calls)
        done = super().write(fd, pieces, offset)
        self.calls.append(done)
        return done

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.calls.append(0)


@pytest.fixture
def flooded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[tuple[Held, ShardStore, Any]]]:
    """A store that writes 200 kB of a flood of forty times 100 kB."""
    monkeypatch.setattr(appender, "PIECE_BYTES", 200_000)

    async def begin() -> tuple[Held, ShardStore, Any]:
        files = Held()
        store, _ = await open_store(tmp_path, files, ShardSettings(reserve_bytes=0, flush_s=3600))
        await store.append(shard(999), [b"before"], sync=False)
        appends = [store.append(shard(number), [bytes(100_000)], sync=False) for number in range(40)]
        flood = asyncio.gather(*map(asyncio.ensure_future, appends))
        await until(files.entered.is_set)
        return files, store, flood

    return begin


def test_a_small_record_waits_for_a_piece_of_a_flood_and_not_for_all_of_it(flooded: Any) -> None:
    async def test() -> None:
        files, store, flood = await flooded()
        small = asyncio.ensure_future(store.append(shard(1000), [b"small"], sync=True))
        await asyncio.sleep(0)
        files.go_on.release(100)
        await asyncio.gather(flood, small)
        before = files.calls[: files.small_at + 1]
        assert sum(before) < 3 * 210_000, before
        assert files.calls[files.small_at + 1] == 0, "and is synced at once"
        await store.close()

    run(test)


def test_a_sync_waits_for_a_piece_of_a_flood_and_not_for_all_of_it(flooded: Any) -> None:
    async def test() -> None:
        files, store, flood = await flooded()
        syncing = asyncio.ensure_future(asyncio.to_thread(store.sync_now))
        await until(store._appender._turnstile.locked)
        files.go_on.release()  # of what is being written; what comes next stands still, and has the lock
        await syncing
        assert 0 in files.calls
        files.go_on.release(100)
        await flood
        await store.close()

    run(test)


def test_a_lost_index_is_made_again_from_the_volumes(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        data = {number: os.urandom(50_000) for number in range(60)}
        for number, body in data.items():
            await store.append(shard(number), [body], sync=number % 7 == 0)
        await store.close()
        shutil.rmtree(tmp_path / "index")
        store, _ = await open_store(tmp_path)
        for number, body in data.items():
            assert await store.read(shard(number), 0, len(body)) == body
        await store.close()

    run(test)


@pytest.mark.parametrize("where", ["header", "table", "data"])
def test_damage_is_never_given_out_and_hurts_only_its_shard(tmp_path: Path, where: str) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        for number in range(3):
            await store.append(shard(number), [bytes([number]) * 100_000], sync=True)
        location = store.locate(shard(1))
        assert location is not None
        await store.close()
        path = tmp_path / "volumes" / f"{location.volume:08x}.vol"
        at = location.offset + {"header": 20, "table": 65, "data": 64 + 8 + 70_000}[where]
        with path.open("r+b") as file:
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write(bytes([old[0] ^ 1]))
        shutil.rmtree(tmp_path / "index")
        store, _ = await open_store(tmp_path)
        for number in (0, 2):
            assert await store.read(shard(number), 0, 100_000) == bytes([number]) * 100_000
        with pytest.raises(DamagedError):
            await store.read(shard(1), 60_000, 40_000)
        await store.close()

    run(test)


def test_user_data_that_looks_like_a_record_is_not_taken_for_one(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        await store.append(shard(1), [b"x" * 5000], sync=True)
        location = store.locate(shard(1))
        assert location is not None
        volume = (tmp_path / "volumes" / f"{location.volume:08x}.vol").read_bytes()
        copied = volume[location.offset : location.offset + 64 + 4 + 5000]
        await store.append(shard(2), [copied * 3], sync=True)  # somebody stores a record's own bytes
        second = store.locate(shard(2))
        await store.close()
        assert second is not None
        with (tmp_path / "volumes" / f"{second.volume:08x}.vol").open("r+b") as file:
            file.seek(second.offset)
            file.write(bytes(64))  # its header is lost, so the scan looks for the next one inside the data
        shutil.rmtree(tmp_path / "index")
        store, _ = await open_store(tmp_path)
        assert [item[0] for item in store.records()] == [shard(1)]
        assert store.locate(shard(1)) == location
        await store.close()

    run(test)


def test_freed_space_comes_back_by_punching_and_by_compaction(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        for number in range(10):
            await store.append(shard(number), [os.urandom(200_000)], sync=True)
        keep = {number: os.urandom(9000) for number in range(100, 140)}
        for number, body in keep.items():
            await store.append(shard(number), [body], sync=True)
            await store.append(shard(number + 1000), [os.urandom(9000)], sync=True)
        used = _disk(tmp_path)
        for number in [*range(10), *range(1100, 1140)]:
            await store.free(number % 4, shard(number).blob)
        await store.flush()
        punched = _disk(tmp_path)
        assert used - punched > 1_500_000
        await store.append(shard(5000), [os.urandom(1 << 20)], sync=True)  # seals what came before
        numbers = compaction.candidates(store, 0.3)
        assert numbers
        for number in numbers:
            await compaction.compact_one(store, number, time.monotonic)
        assert _disk(tmp_path) < punched + (1 << 20) - 100_000
        for _ in range(2):
            for number, body in keep.items():
                assert await store.read(shard(number), 0, len(body)) == body
            with pytest.raises(DamagedError):
                await store.read(shard(1100), 0, 1)
            await store.close()
            store, _ = await open_store(tmp_path)
        await store.close()

    run(test)


def _disk(path: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in (path / "volumes").iterdir())


@pytest.mark.parametrize("flushed", [False, True])
def test_one_position_is_freed_wherever_its_rows_are(tmp_path: Path, flushed: bool) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        blob = bytes(16)
        for position in (0, 1):
            for stripe in (0, 1):
                await store.append(Shard(3, blob, position, stripe), [b"x" * 5000], sync=True)
        if flushed:
            await store.flush()
        assert await store.free_position(3, blob, 1) > 10_000
        assert [store.locate(Shard(3, blob, position, 1)) is not None for position in (0, 1)] == [True, False]
        await store.close()

    run(test)


def test_a_shard_freed_while_it_is_copied_stays_dead(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        await store.append(shard(1), [b"x" * 5000], sync=True)
        location = store.locate(shard(1))
        copy = asyncio.ensure_future(store.append(shard(1), [b"x" * 5000], sync=True, replaces=location))
        await asyncio.sleep(0)
        await store.free(1, shard(1).blob)
        await copy
        assert store.locate(shard(1)) is None
        assert sum(use.used - use.dead for use in store.usage().values()) == 0
        await store.close()

    run(test)


def test_compaction_does_not_unlink_a_live_record_that_the_scan_passes_over(tmp_path: Path) -> None:
    """The index still finds a record whose header is damaged: its volume must stay."""

    async def test() -> None:
        store, _ = await open_store(tmp_path)
        for number in range(3):
            await store.append(shard(number), [bytes([number]) * 5000], sync=True)
        location = store.locate(shard(1))
        assert location is not None
        with (tmp_path / "volumes" / "00000001.vol").open("r+b") as file:
            file.seek(location.offset + 20)
            file.write(b"damage")
        await store.append(shard(9), [os.urandom(1 << 20)], sync=True)
        await compaction.compact_one(store, 1, time.monotonic)
        for number in range(3):
            assert await store.read(shard(number), 0, 5000) == bytes([number]) * 5000
        assert (tmp_path / "volumes" / "00000001.vol").exists()
        await store.close()

    run(test)


def test_readers_hold_compaction_back(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        await store.append(shard(1), [b"x" * 5000], sync=True)
        await store.append(shard(2), [os.urandom(1 << 20)], sync=True)
        oldest = time.monotonic()
        reading = True
        task = asyncio.ensure_future(compaction.compact_one(store, 1, lambda: oldest if reading else time.monotonic()))
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
        assert (tmp_path / "volumes" / "00000001.vol").exists()
        reading = False
        await task
        assert not (tmp_path / "volumes" / "00000001.vol").exists()
        assert await store.read(shard(1), 0, 5000) == b"x" * 5000
        await store.close()

    run(test)


@pytest.mark.parametrize("method", ["write", "sync", "create"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_io_error_ends_the_process_and_acknowledges_nothing(tmp_path: Path, method: str, at: int) -> None:
    async def test() -> None:
        store, fatal = await open_store(
            tmp_path,
            FailingFiles({method}, at),
            ShardSettings(volume_bytes=20_000, preallocate_bytes=0, reserve_bytes=0, flush_s=3600),
        )
        kept = []
        for number in range(10):
            append = asyncio.ensure_future(store.append(shard(number), [b"x" * 9000], sync=True))
            await asyncio.wait([append, fatal], return_when=asyncio.FIRST_COMPLETED)
            if fatal.done():
                append.cancel()
                break
            kept.append(number)
        assert fatal.done()
        store._index.close()
        again, _ = await open_store(tmp_path)
        for number in kept:
            assert await again.read(shard(number), 0, 9000) == b"x" * 9000
        await again.close()

    run(test)


def test_a_full_disk_is_a_clean_refusal(tmp_path: Path) -> None:
    async def test() -> None:
        files = FailingFiles({"preallocate"}, 3, errno.ENOSPC)
        store, fatal = await open_store(
            tmp_path,
            files,
            ShardSettings(volume_bytes=1 << 30, preallocate_bytes=10_000, reserve_bytes=0, flush_s=3600),
        )
        kept = []
        for number in range(6):
            try:
                await store.append(shard(number), [b"x" * 9000], sync=True)
                kept.append(number)
            except DiskFullError:
                pass
        assert kept == [0, 1]
        assert not fatal.done()
        files.at = 10**9
        await store.append(shard(9), [b"y" * 9000], sync=True)
        assert await store.read(shard(0), 0, 9000) == b"x" * 9000
        await store.close()

    run(test)


def test_a_drive_that_is_unmounted_under_its_open_files_is_not_a_full_one(tmp_path: Path) -> None:
    """It takes what is written, and would refuse everybody's uploads for all drives: it has the room that it had."""

    async def test() -> None:
        store, _ = await open_store(tmp_path / "mounted")
        await store.append(shard(2), [b"x" * 1000], sync=True)  # a volume is open
        free, total = store.space()
        (tmp_path / "mounted").rename(tmp_path / "elsewhere")
        assert store.space() == (free, total)
        assert store.has_room()
        assert store.watch.full() == ""
        await store.append(shard(1), [b"x" * 1000], sync=True)
        (tmp_path / "elsewhere").rename(tmp_path / "mounted")
        await store.close()

    run(test)


def test_a_disk_that_stays_full_is_left_as_it_is(tmp_path: Path) -> None:
    """Each try makes a volume that cannot get its header: none of them stays, nor a descriptor of it."""

    async def test() -> None:
        files = AilingFiles()
        store, fatal = await open_store(tmp_path, files)
        files.room_bytes = 10
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        for number in range(20):
            with pytest.raises(DiskFullError):
                await store.append(shard(number), [b"x" * 9000], sync=True)
        assert list((tmp_path / "volumes").iterdir()) == []
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
        assert not fatal.done()
        files.mend()
        await store.append(shard(1), [b"x" * 9000], sync=True)
        assert await store.read(shard(1), 0, 9000) == b"x" * 9000
        await store.close()

    run(test)


def test_the_reserve_is_kept_for_compaction(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(
            tmp_path, settings=ShardSettings(volume_bytes=20_000, preallocate_bytes=0, reserve_bytes=0, flush_s=3600)
        )
        await store.append(shard(1), [b"x" * 9000], sync=True)
        await store.close()
        store, _ = await open_store(
            tmp_path,
            settings=ShardSettings(volume_bytes=20_000, preallocate_bytes=0, reserve_bytes=1 << 60, flush_s=3600),
        )
        with pytest.raises(DiskFullError):
            await store.append(shard(2), [b"x"], sync=True)
        location = store.locate(shard(1))
        await store.append(shard(1), [b"x" * 9000], sync=True, replaces=location)
        assert await store.read(shard(1), 0, 9000) == b"x" * 9000
        await store.close()

    run(test)


@pytest.mark.parametrize("seed", range(6))
def test_every_legal_crash_keeps_what_was_acknowledged(tmp_path: Path, seed: int) -> None:
    """Crash after each event; unsynced writes are kept, lost or torn at random; acknowledged shards must be there."""
    chosen = random.Random(seed)
    files = RecordingFiles()
    acknowledged: dict[int, tuple[int, bytes]] = {}

    async def record() -> None:
        store, _ = await open_store(
            tmp_path / "real",
            files,
            ShardSettings(volume_bytes=60_000, preallocate_bytes=0, reserve_bytes=0, flush_s=3600),
        )
        for number in range(14):
            body = chosen.randbytes(chosen.choice([10, 5000, 20_000]))
            sync = chosen.random() < 0.7
            await store.append(shard(number), [body], sync=sync)
            if sync:
                acknowledged[number] = (len(files.events), body)
        await store.close()

    run(record)

    def keep(_: int, data: bytes) -> bytes | None:
        what = chosen.random()
        return data if what < 0.4 else None if what < 0.7 else data[: chosen.randrange(len(data))]

    async def check(upto: int) -> None:
        path = tmp_path / f"crash{upto}"
        (path / "volumes").mkdir(parents=True)
        files.replay(path / "volumes", upto, keep)
        store, _ = await open_store(path)
        for number, (event, body) in acknowledged.items():
            if event <= upto:
                assert await store.read(shard(number), 0, len(body)) == body, (number, upto)
        await store.append(shard(999), [b"after"], sync=True)
        await store.close()
        store, _ = await open_store(path)
        assert await store.read(shard(999), 0, 5) == b"after"
        await store.close()
        shutil.rmtree(path)

    for upto in range(1, len(files.events) + 1):
        run(lambda upto=upto: check(upto))

"""Disks that do not get well by themselves: sectors that are never read again, power that fails in a compaction, a
thread that comes late to a volume that is gone."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from inprocess import until
from s4.storage.files import Files
from s4.storage.index import DOUBT_KEY, open_index
from s4.storage.records import DamagedError, Shard
from s4.storage.shards import ShardSettings, ShardStore
from s4.upkeep import compaction
from storage.fakes import AilingFiles, RecordingFiles
from storage.test_shards import SETTINGS, open_store, run, shard


def body(number: int, size: int = 9000) -> bytes:
    return random.Random(number).randbytes(size)


async def filled(store: ShardStore, count: int, size: int = 9000) -> None:
    for number in range(count):
        await store.append(shard(number), [body(number, size)], sync=True)


def volume(path: Path, number: int = 1) -> Path:
    return path / "volumes" / f"{number:08x}.vol"


# -- reads that fail for good (D7)


def test_what_a_disk_cannot_read_is_damaged_and_nothing_else_is(tmp_path: Path) -> None:
    async def test() -> None:
        files = AilingFiles()
        store, fatal = await open_store(tmp_path, files)
        await filled(store, 5)
        location = store.locate(shard(2))
        assert location is not None
        files.spoil(volume(tmp_path), location.offset + 4096, location.offset + 8192)
        for _ in range(3):
            for number in range(5):
                if number == 2:
                    assert store.read_now(shard(2), 0, 9000) is None
                    with pytest.raises(DamagedError):
                        await store.read(shard(2), 0, 9000)
                else:
                    assert await store.read(shard(number), 0, 9000) == body(number)
        await store.append(shard(2), [body(2)], sync=True)  # healed: elsewhere
        assert await store.read(shard(2), 0, 9000) == body(2)
        assert not fatal.done()
        await store.close()

    run(test)


def test_a_process_out_of_descriptors_calls_no_shard_damaged(tmp_path: Path) -> None:
    class Out(AilingFiles):
        out = False

        def open(self, path: Path) -> int:
            if self.out:
                raise OSError(24, "Too many open files")
            return super().open(path)

    async def test() -> None:
        files = Out()
        store, _ = await open_store(
            tmp_path,
            files,
            ShardSettings(volume_bytes=20_000, preallocate_bytes=0, reserve_bytes=0, open_volumes=1, flush_s=3600),
        )
        await filled(store, 6)
        files.out = True
        with pytest.raises(DamagedError, match="cannot be read now"):
            await store.read(shard(0), 0, 9000)
        assert store.damaged == 0
        assert store.failing.count == 0
        files.out = False
        assert await store.read(shard(0), 0, 9000) == body(0)
        await store.close()

    run(test)


@pytest.mark.parametrize("lost", [False, True])
def test_a_start_goes_past_what_it_cannot_read(tmp_path: Path, lost: bool) -> None:
    """Sectors of the tail, with a header in them, and the whole of another volume: what is behind them is found. That
    something may be lost is remembered."""

    async def test() -> None:
        files = AilingFiles()
        settings = ShardSettings(volume_bytes=60_000, preallocate_bytes=0, reserve_bytes=0, flush_s=3600)
        store, _ = await open_store(tmp_path, files, settings)
        await filled(store, 20)
        places = {number: store.locate(shard(number)) for number in range(20)}
        first = [number for number, place in places.items() if place is not None and place.volume == 1]
        await store.close()
        if lost:
            shutil.rmtree(tmp_path / "index")
        else:
            index = open_index(tmp_path / "index")
            index.write([(key, None) for key, _ in index.scan(b"\x00", b"\xff")])
            index.close()
        files.spoil(volume(tmp_path, 2))
        middle = places[first[2]]
        assert middle is not None
        files.spoil(volume(tmp_path, 1), middle.offset, middle.offset + 100)
        store, _ = await open_store(tmp_path, files, settings)
        for number, place in places.items():
            assert place is not None
            if place.volume == 2 or number == first[2]:
                with pytest.raises(DamagedError):
                    await store.read(shard(number), 0, 9000)
            else:
                assert await store.read(shard(number), 0, 9000) == body(number)
        await store.append(shard(99), [b"after"], sync=True)
        assert store.in_doubt
        await store.close()
        store, _ = await open_store(tmp_path, files, settings)
        assert store.in_doubt
        store.trust()
        await store.close()
        store, _ = await open_store(tmp_path, files, settings)
        assert not store.in_doubt
        await store.close()

    run(test)


def test_a_record_of_the_tail_that_cannot_be_read_stands_for_its_shard_where_nothing_else_does(tmp_path: Path) -> None:
    """Its header can be read: the shard is damaged then, and not forgotten. Where an older record is in the index, that
    one counts, for who knows whether the newer one was ever written to its end."""

    async def test() -> None:
        files = AilingFiles()
        store, _ = await open_store(tmp_path, files)
        await filled(store, 2)
        await store.flush()
        await filled(store, 3)  # the first two again
        new = [store.locate(shard(number)) for number in range(3)]
        crashed = tmp_path / "crashed"
        shutil.copytree(tmp_path, crashed, ignore=lambda *_: ["crashed"])
        await store.close()
        for place in new:
            assert place is not None
            files.spoil(volume(crashed), place.offset + 200, place.offset + 300)
        store, _ = await open_store(crashed, files)
        assert store.in_doubt
        for number in range(2):
            assert store.locate(shard(number)) not in (None, new[number])
            assert await store.read(shard(number), 0, 9000) == body(number)
        assert store.locate(shard(2)) == new[2]
        with pytest.raises(DamagedError):
            await store.read(shard(2), 0, 9000)
        await store.append(shard(99), [b"after"], sync=True)
        await store.close()
        files.mend()
        store, _ = await open_store(crashed, files)
        assert [store.locate(shard(number)) for number in range(3)] == new, "the next start reads it once more"
        assert await store.read(shard(2), 0, 9000) == body(2)
        assert await store.read(shard(99), 0, 5) == b"after"
        await store.close()

    run(test)


def test_compaction_goes_past_a_record_that_cannot_be_read_and_reports_it(tmp_path: Path) -> None:
    """What is behind it is copied; the volume stays until the record was made again elsewhere, and then it goes."""

    async def test() -> None:
        files = AilingFiles()
        store, _ = await open_store(tmp_path, files)
        await filled(store, 10)
        bad = store.locate(shard(3))
        assert bad is not None
        files.spoil(volume(tmp_path), bad.offset + 1000, bad.offset + 2000)
        await store.append(shard(99), [os.urandom(1 << 20)], sync=True)  # seals what came before
        found: list[Shard] = []
        assert await compaction.compact_one(store, 1, time.monotonic, damaged=found.append) == 0
        assert found == [shard(3)]
        assert volume(tmp_path).exists()
        assert [place.volume for number in range(10) if number != 3 and (place := store.locate(shard(number)))] == [
            3
        ] * 9
        await store.append(shard(3), [body(3)], sync=True)
        await compaction.compact_one(store, 1, time.monotonic, damaged=found.append)
        assert found == [shard(3)]
        assert not volume(tmp_path).exists()
        for number in range(10):
            assert await store.read(shard(number), 0, 9000) == body(number)
        await store.close()

    run(test)


def test_a_shard_is_freed_though_its_hole_cannot_be_made(tmp_path: Path) -> None:
    class NoHoles(Files):
        def punch(self, fd: int, offset: int, length: int) -> None:
            raise OSError(28, "No space left on device")

    async def test() -> None:
        store, fatal = await open_store(tmp_path, NoHoles())
        await filled(store, 3, 200_000)
        for number in range(2):
            assert await store.free(number, shard(number).blob) > 0
        assert store.locate(shard(0)) is None
        assert sum(use.dead for use in store.usage().values()) > 400_000
        assert not fatal.done()
        await store.close()

    run(test)


def test_an_index_that_cannot_be_read_is_made_again_at_the_start_that_follows(tmp_path: Path) -> None:
    async def test() -> None:
        store, fatal = await open_store(tmp_path)
        await filled(store, 400, 3000)
        await store.close()
        open_index(tmp_path / "index").close()  # LevelDB makes a table of its log
        (table,) = (tmp_path / "index").glob("*.ldb")
        with table.open("r+b") as file:
            file.write(os.urandom(2000))
        for _ in range(2):
            store, fatal = await open_store(tmp_path)
            failed = 0
            for number in range(400):
                try:
                    assert await store.read(shard(number), 0, 3000) == body(number, 3000)
                except Exception:
                    failed += 1
            await asyncio.sleep(0)
            if not failed:
                break
            assert fatal.done()  # the process would end here
            store._index.close()
        assert failed == 0
        await store.close()

    run(test)


def test_an_index_whose_word_of_doubt_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    """It is read at a start, and the whole server with all other drives did not start."""

    async def test() -> None:
        store, _ = await open_store(tmp_path)
        await filled(store, 400, 3000)
        store._put(DOUBT_KEY, b"")
        await store.close()
        open_index(tmp_path / "index").close()  # LevelDB makes a table of its log
        (table,) = (tmp_path / "index").glob("*.ldb")
        with table.open("r+b") as file:
            file.write(os.urandom(2000))
        store, fatal = await open_store(tmp_path)
        for number in range(400):
            assert await store.read(shard(number), 0, 3000) == body(number, 3000)
        assert store.in_doubt
        assert not fatal.done()
        await store.close()

    run(test)


# -- power that fails where copies are made (D5)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("lost", ["data", "half", "all"])
def test_a_torn_copy_does_not_stand_for_its_synced_original(tmp_path: Path, lost: str, indexed: bool) -> None:
    """Compaction on a disk without parity: the power fails after the copies were written and before they were synced.
    Of a write the page with the header may reach the disk, and the others not."""

    async def record(files: RecordingFiles) -> int:
        store, _ = await open_store(tmp_path / "real", files, SETTINGS)
        await filled(store, 6, 100_000)
        await store.append(shard(99), [os.urandom(1 << 20)], sync=True)
        await store.flush()
        shutil.copytree(tmp_path / "real" / "index", tmp_path / "index")
        at = len(files.events)
        location = store.locate(shard(2))
        await store.append(shard(2), [body(2, 100_000)], sync=False, replaces=location)
        store._index.close()  # the process ends here; its lock must not outlive it
        return at

    async def test() -> None:
        files = RecordingFiles()
        at = await record(files)

        def keep(index: int, data: bytes) -> bytes | None:
            if index < at:
                return data
            kept = {"data": 100, "half": 50_000, "all": 0}[lost]
            return data[:kept].ljust(len(data), b"\x00") if kept else None

        crashed = tmp_path / "crashed"
        (crashed / "volumes").mkdir(parents=True)
        if indexed:
            shutil.copytree(tmp_path / "index", crashed / "index")
        files.replay(crashed / "volumes", len(files.events), keep)
        store, _ = await open_store(crashed)
        for number in range(6):
            assert await store.read(shard(number), 0, 100_000) == body(number, 100_000)
        await store.append(shard(7), [b"after"], sync=True)
        await store.close()
        store, _ = await open_store(crashed)
        assert await store.read(shard(2), 0, 100_000) == body(2, 100_000)
        assert await store.read(shard(7), 0, 5) == b"after"
        await store.close()

    run(test)


def test_a_torn_heal_is_not_taken_for_a_shard(tmp_path: Path) -> None:
    """A fill that goes on after a crash passes over what the index has: what was not written must not be in it (D3)."""

    async def test() -> None:
        files = RecordingFiles()
        store, _ = await open_store(tmp_path / "real", files)
        await filled(store, 2)
        at = len(files.events)
        await store.append(shard(2), [body(2)], sync=False)
        (tmp_path / "crashed" / "volumes").mkdir(parents=True)
        files.replay(
            tmp_path / "crashed" / "volumes",
            len(files.events),
            lambda index, data: data if index < at else data[:64] + bytes(len(data) - 64),
        )
        again, _ = await open_store(tmp_path / "crashed")
        assert again.locate(shard(1)) is not None
        assert again.locate(shard(2)) is None
        assert sum(use.dead for use in again.usage().values()) > 9000, "compaction gives its space back"
        await again.close()
        await store.close()

    run(test)


# -- volumes in use (D5)


class Held(Files):
    """Punches and reads wait, with the descriptor in their hand, until they are let go."""

    def __init__(self) -> None:
        self.came, self.go = threading.Event(), threading.Event()
        self.hold = ""

    def _wait(self, what: str) -> None:
        if self.hold == what:
            self.hold = ""
            self.came.set()
            assert self.go.wait(30)

    def punch(self, fd: int, offset: int, length: int) -> None:
        self._wait("punch")
        super().punch(fd, offset, length)

    def read(self, fd: int, buffers: list[bytearray | memoryview], offset: int, *, nowait: bool = False) -> int:  # type: ignore[override]
        if nowait:
            return -1
        self._wait("read")
        return super().read(fd, buffers, offset, nowait=nowait)


def test_a_punch_that_comes_late_hits_no_other_file(tmp_path: Path) -> None:
    """Its volume is unlinked meanwhile, and the next file that is opened would get its descriptor."""

    async def test() -> None:
        files = Held()
        store, _ = await open_store(tmp_path, files)
        await filled(store, 2, 200_000)
        files.hold = "punch"
        freeing = asyncio.ensure_future(store.free(0, shard(0).blob))
        assert await asyncio.to_thread(files.came.wait, 30)
        await store.forget_volume(1)
        others = []
        for number in range(8):
            path = tmp_path / f"other{number}"
            path.write_bytes(b"x" * 300_000)
            others.append((path, os.open(path, os.O_RDWR)))
        files.go.set()
        await freeing
        for path, fd in others:
            assert path.read_bytes() == b"x" * 300_000
            os.close(fd)
        await store.close()

    run(test)


@pytest.mark.parametrize("what", ["punch", "read"])
def test_a_volume_goes_only_when_nobody_uses_it_any_more(tmp_path: Path, what: str) -> None:
    """A punch, or a read that no gateway began (a peer's heal): compaction waits though its horizon would let it go."""

    async def test() -> None:
        files = Held()
        store, _ = await open_store(tmp_path, files)
        await filled(store, 3, 200_000)
        await store.append(shard(99), [os.urandom(1 << 20)], sync=True)
        files.hold = what
        use = asyncio.ensure_future(
            store.free(0, shard(0).blob) if what == "punch" else store.read(shard(1), 0, 200_000)
        )
        assert await asyncio.to_thread(files.came.wait, 30)
        assert store.oldest_use() < time.monotonic()
        compacting = asyncio.ensure_future(compaction.compact_one(store, 1, time.monotonic))
        await until(lambda: (place := store.locate(shard(2))) and place.volume != 1)
        done, _ = await asyncio.wait([compacting], timeout=0.3)
        assert not done
        assert volume(tmp_path).exists()
        files.go.set()
        found = await use
        if what == "read":
            assert found == body(1, 200_000)
        await compacting
        assert not volume(tmp_path).exists()
        await store.close()

    run(test)


def test_a_use_ends_when_its_thread_does_though_nobody_waits_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        files = Held()
        store, _ = await open_store(tmp_path, files)
        await filled(store, 1, 200_000)
        files.hold = "read"
        reading = asyncio.ensure_future(store.read(shard(0), 0, 200_000))
        assert await asyncio.to_thread(files.came.wait, 30)
        reading.cancel()
        await asyncio.wait([reading])
        assert store.oldest_use() < time.monotonic()
        files.go.set()
        await store.close()
        assert not store._uses._all

    run(test)


def test_who_opens_a_volume_that_is_removed_meanwhile_keeps_no_descriptor(tmp_path: Path) -> None:
    class Removing(Files):
        """Somebody removes the volume between its opening and its use."""

        store: ShardStore | None = None

        def open(self, path: Path) -> int:
            fd = super().open(path)
            if self.store is not None:
                store, self.store = self.store, None
                store._volumes.remove(int(path.stem, 16))
            return fd

    async def test() -> None:
        files = Removing()
        store, _ = await open_store(
            tmp_path,
            files,
            ShardSettings(volume_bytes=20_000, preallocate_bytes=0, reserve_bytes=0, open_volumes=1, flush_s=3600),
        )
        await filled(store, 4)
        files.store = store
        with pytest.raises(DamagedError):
            await store.read(shard(0), 0, 9000)
        assert 1 not in store._volumes._open
        links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        assert not [link for link in links if str(tmp_path) in str(link) and "deleted" in str(link)]
        await store.close()

    run(test)


def test_a_volume_that_was_unlinked_before_its_row_went_is_forgotten(tmp_path: Path) -> None:
    async def test() -> None:
        store, _ = await open_store(tmp_path)
        await filled(store, 2)
        await store.append(shard(99), [os.urandom(1 << 20)], sync=True)
        await store.close()
        volume(tmp_path).unlink()
        store, _ = await open_store(tmp_path)
        assert 1 not in store.usage()
        await store.close()

    run(test)

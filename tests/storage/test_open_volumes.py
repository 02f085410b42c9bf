"""Which volumes are open, and who waits for it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from s4.storage.files import Files
from s4.storage.records import VolumeHeader, pack_volume
from s4.storage.shards import ShardSettings, ShardStore
from s4.storage.timing import READ
from s4.storage.volumes import Volumes
from storage.test_shards import open_store, run, shard

HEAD = VolumeHeader(1, bytes(16), bytes(16))
FEW = ShardSettings(volume_bytes=20_000, preallocate_bytes=0, reserve_bytes=0, open_volumes=1, flush_s=3600)


class Opened(Files):
    """Remembers which threads opened files."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def open(self, path: Path) -> int:
        self.threads.append(threading.current_thread())
        return super().open(path)


async def filled(path: Path, files: Files) -> ShardStore:
    """Six volumes, of which the last two are open."""
    store, _ = await open_store(path, files, FEW)
    for number in range(12):
        await store.append(shard(number), [bytes([number]) * 9000], sync=True)
    return store


def test_a_read_that_may_not_wait_opens_no_volume_and_one_that_may_is_timed(tmp_path: Path) -> None:
    async def test() -> None:
        files = Opened()
        store = await filled(tmp_path, files)
        files.threads.clear()
        before = store.times.count[READ]
        assert store.read_now(shard(0), 0, 9000) is None
        assert not files.threads
        assert await store.read(shard(0), 0, 9000) == bytes(9000)
        assert len(files.threads) == 1
        assert threading.current_thread() not in files.threads
        assert store.times.count[READ] == before + 2, "opening it, and what was read then"
        assert store.read_now(shard(0), 0, 9000) == bytes(9000), "it is open now, and in the page cache"
        await store.close()

    run(test)


def test_a_drive_that_does_not_open_a_volume_is_told_of(tmp_path: Path) -> None:
    class Hanging(Opened):
        hangs, go_on = False, threading.Event()

        def open(self, path: Path) -> int:
            fd = super().open(path)
            if self.hangs:
                self.go_on.wait(60)
            return fd

    async def test() -> None:
        files = Hanging()
        store = await filled(tmp_path, files)
        store.times.slow_s, files.hangs = 0.0, True
        reading = asyncio.ensure_future(store.read(shard(0), 0, 9000))
        while "a read has not ended" not in store.times.slow():
            await asyncio.sleep(0.01)
        files.go_on.set()
        assert await reading == bytes(9000)
        assert store.times.errors[READ] == 0
        await store.close()

    run(test)


def test_a_new_volume_is_not_closed_before_its_first_record(tmp_path: Path) -> None:
    (tmp_path / "00000001.vol").write_bytes(pack_volume(HEAD))
    volumes = Volumes(Files(), tmp_path, HEAD.store, open_files=1)
    new = volumes.create(2)
    volumes.release(volumes.acquire(1))  # another thread opens one: only so many stay open
    assert volumes.files.size(new.fd) > 0
    volumes.release(new)
    volumes.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        volumes.files.size(new.fd)

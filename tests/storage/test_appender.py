"""The appender's syncs."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path

from inprocess import until
from s4.storage.files import Files
from storage.test_shards import open_store, run, shard


class Overlapping(Files):
    """A sync lasts until another of the same file has begun, or half a second; `most` is how many there were at
    once."""

    def __init__(self) -> None:
        self._lock, self._second = threading.Lock(), threading.Event()
        self._running: Counter[int] = Counter()
        self.most = 0

    def sync(self, fd: int) -> None:
        with self._lock:
            self._running[fd] += 1
            self.most = max(self.most, self._running[fd])
            if self._running[fd] > 1:
                self._second.set()
        self._second.wait(0.5)
        super().sync(fd)
        with self._lock:
            self._running[fd] -= 1

    @property
    def is_syncing(self) -> bool:
        return any(self._running.values())


def test_a_volume_that_is_sealed_is_not_synced_beside_another_sync_of_it(tmp_path: Path) -> None:
    async def test() -> None:
        files = Overlapping()
        store, fatal = await open_store(tmp_path, files)
        await store.append(shard(1), [bytes(300_000)], sync=False)
        syncing = asyncio.ensure_future(asyncio.to_thread(store.sync_now))
        await until(lambda: files.is_syncing)
        location = await store.append(shard(2), [bytes(900_000)], sync=False)
        await syncing
        assert location.volume == 2, "the first one was full"
        assert files.most == 1
        assert not fatal.done()
        await store.close()

    run(test)

"""A sync that failed, and a page cache that goes on to have what the disk does not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from storage.fakes import LosingFiles
from storage.test_ailing_disks import body, filled
from storage.test_shards import open_store, run, shard


@pytest.mark.parametrize("size", [5000, 100_000])
def test_what_a_sync_failed_for_is_not_believed_from_the_page_cache(tmp_path: Path, size: int) -> None:
    """Compaction on a disk without parity: the copies' sync fails, and the process starts again (D7). The kernel's
    cache has what the disk lacks: the copy passed for whole, and its original went."""
    files = LosingFiles()

    async def test() -> None:
        store, fatal = await open_store(tmp_path, files)
        await filled(store, 3, size)
        await store.append(shard(99), [os.urandom(1 << 20)], sync=True)  # seals the first volume
        await store.flush()
        location = store.locate(shard(2))
        files.fails = True
        copying = asyncio.ensure_future(store.append(shard(2), [body(2, size)], sync=True, replaces=location))
        await asyncio.wait_for(fatal, 20)
        copying.cancel()
        store._index.close()  # the process ends here; its lock must not outlive it
        again, _ = await open_store(tmp_path, files)
        for number in again._volumes.numbers():  # others drop the cache when memory is short
            volume = again._volumes.acquire(number)
            files.forget(volume.fd, 0)
            again._volumes.release(volume)
        assert await again.read(shard(2), 0, size) == body(2, size)
        await again.close()

    run(test)

"""What of an index is taken for damage at a start, and what is not."""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import plyvel
import pytest

from s4.storage import index
from s4.storage.files import Files
from s4.storage.index import MARK_KEY, open_index
from s4.storage.leveldb import DatabaseError
from s4.storage.records import HEADER_SIZE
from storage.test_shards import SETTINGS, open_store, run, shard


@contextmanager
def out_of_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class NoTable:
    """LevelDB, as it reads where it cannot open a table."""

    def iterator(self, **_: object) -> None:
        raise plyvel.IOError(b"IO error: meta/000005.ldb: Too many open files")


def test_an_index_that_a_process_out_of_descriptors_cannot_open_is_not_put_aside(tmp_path: Path) -> None:
    rows = open_index(tmp_path / "index")
    rows.write([(b"key", b"value")])
    rows.close()
    with out_of_descriptors(), pytest.raises(DatabaseError, match="Too many open files"):
        open_index(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    rows = open_index(tmp_path / "index")
    assert rows.get(b"key") == b"value"
    rows.close()


def test_a_tail_that_a_process_out_of_memory_cannot_read_is_not_in_doubt(tmp_path: Path) -> None:
    """It was taken for damage: the store was in doubt, and compared with all that should be there."""

    class Out(Files):
        def read(self, fd: int, buffers: Sequence[bytearray | memoryview], offset: int, *, nowait: bool = False) -> int:
            if offset > HEADER_SIZE:
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            return super().read(fd, buffers, offset, nowait=nowait)

    async def test() -> None:
        store, _ = await open_store(tmp_path)
        await store.append(shard(1), [b"kept"], sync=True)
        await store.close()
        (tmp_path / "index").rename(tmp_path / "aside")
        with pytest.raises(OSError, match="Cannot allocate memory"):
            await open_store(tmp_path, Out())

    run(test)


def test_an_index_that_a_process_out_of_descriptors_cannot_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out(*_: object) -> None:
        raise plyvel.IOError(b"IO error: index/000005.ldb: Too many open files")

    async def test() -> None:
        store, _ = await open_store(tmp_path, Files())
        await store.append(shard(1), [b"kept"], sync=True)
        await store.close()
        with monkeypatch.context() as patch:
            patch.setattr(index, "_loaded", out)
            with pytest.raises(DatabaseError, match="cannot be read now"):
                await open_store(tmp_path)
        assert not list(tmp_path.glob("index.damaged*"))
        store, _ = await open_store(tmp_path)
        assert await store.read(shard(1), 0, 4) == b"kept"
        assert not store.in_doubt
        await store.close()

    run(test)


class StoppingFiles(Files):
    """A process that ends at the sync of its `syncs`th volume."""

    def __init__(self, syncs: int) -> None:
        super().__init__()
        self._left = syncs

    def sync(self, fd: int) -> None:
        self._left -= 1
        if not self._left:
            raise OSError(errno.ENOMEM, "the end")
        super().sync(fd)


def test_a_lost_index_is_written_as_volumes_are_read_and_made_anew_where_that_was_cut_short(tmp_path: Path) -> None:
    """All rows of a store of 20 million records waited in memory, 1.1 KB each, until the last volume was read."""
    settings = dataclasses.replace(SETTINGS, flush_rows=8)
    rows = tmp_path / "index"

    async def test() -> None:
        store, _ = await open_store(tmp_path, settings=settings)
        for round_ in range(3):  # of which the last counts
            for number in range(40):
                await store.append(shard(number), [bytes([round_]) * 20_000], sync=False)
        await store.close()
        shutil.rmtree(rows)
        store, _ = await open_store(tmp_path, settings=settings)
        use = dict(store.usage())
        await store.close()

        shutil.rmtree(rows)
        assert len(use) > 2
        with pytest.raises(OSError, match="the end"):
            await open_store(tmp_path, StoppingFiles(len(use)), settings)
        found = open_index(rows)
        assert sum(1 for _ in found.scan(b"i", b"j")) == 40
        assert found.get(MARK_KEY) is None
        found.close()
        store, _ = await open_store(tmp_path, settings=settings)
        assert store.usage() == use
        assert store.in_doubt
        for number in range(40):
            assert await store.read(shard(number), 0, 20_000) == bytes([2]) * 20_000
        await store.close()
        assert not list(tmp_path.glob("index.damaged*"))

    run(test)

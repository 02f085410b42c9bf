"""What of an index is taken for damage at a start, and what is not."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import plyvel
import pytest

from s4.storage.files import Files
from s4.storage.index import open_index
from s4.storage.leveldb import DatabaseError
from s4.storage.shards import ShardStore
from storage.test_shards import open_store, run, shard


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


def test_an_index_that_a_process_out_of_descriptors_cannot_open_is_not_put_aside(tmp_path: Path) -> None:
    index = open_index(tmp_path / "index")
    index.write([(b"key", b"value")])
    index.close()
    with out_of_descriptors(), pytest.raises(DatabaseError, match="Too many open files"):
        open_index(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    index = open_index(tmp_path / "index")
    assert index.get(b"key") == b"value"
    index.close()


def test_an_index_that_a_process_out_of_descriptors_cannot_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out(_: ShardStore) -> None:
        raise plyvel.IOError(b"IO error: index/000005.ldb: Too many open files")

    async def test() -> None:
        store, _ = await open_store(tmp_path, Files())
        await store.append(shard(1), [b"kept"], sync=True)
        await store.close()
        with monkeypatch.context() as patch:
            patch.setattr(ShardStore, "_load", out)
            with pytest.raises(DatabaseError, match="cannot be read now"):
                await open_store(tmp_path)
        assert not list(tmp_path.glob("index.damaged*"))
        store, _ = await open_store(tmp_path)
        assert await store.read(shard(1), 0, 4) == b"kept"
        assert not store.in_doubt
        await store.close()

    run(test)

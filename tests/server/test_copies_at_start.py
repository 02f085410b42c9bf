"""What a start does to copies of the metadata, in which order."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from inprocess import get, opened, put
from process import wait_until
from s4.cluster.coordinator import QuorumError
from s4.gateway.buckets import create_bucket
from s4.metadata import commands
from s4.node import local
from s4.storage.directory import DirectoryError
from s4.storage.files import Files
from s4.storage.leveldb import Database, DatabaseError


class NoMap(Files):
    """The shard map cannot be written."""

    def replace(self, path: Path, content: bytes) -> None:
        if path.name == "map":
            raise OSError(5, "planted")
        super().replace(path, content)


def test_a_copy_is_emptied_only_once_the_map_says_that_it_does_not_count(tmp_path: Path) -> None:
    """R8 at a crash between the two: an empty copy that counts would pass for all there is, were the others lost
    next."""

    async def whole() -> None:
        drives = [tmp_path / f"d{number}" for number in range(1, 5)]
        async with opened(drives) as (_, gateway):
            await create_bucket(gateway, "kept", "root")
            await put(gateway, "kept", b"k", b"inline")
        current = drives[1] / "meta" / "CURRENT"
        current.write_bytes(b"no database")
        with pytest.raises(QuorumError):
            async with opened(drives, files=NoMap()):
                pass
        assert current.read_bytes() == b"no database"
        for kept in (drives[0], drives[2]):
            assert (kept / "meta" / "CURRENT").exists()

    asyncio.run(whole())


@pytest.mark.parametrize("count", [1, 4])
def test_metadata_that_is_gone_is_not_taken_for_empty(tmp_path: Path, count: int) -> None:
    """Somebody removed `meta`: of all drives, and nothing starts; of one of several, and it is filled again."""

    async def whole() -> (
        None
    ):  # in directories that no other test has: what a refused start opened is open while its process lives
        drives = [tmp_path / f"{count}-d{number}" for number in range(1, count + 1)]
        async with opened(drives) as (_, gateway):
            await create_bucket(gateway, "kept", "root")
            await put(gateway, "kept", b"k", b"inline")
        (drives[0] / "meta").rename(tmp_path / "aside")
        if count > 1:
            async with opened(drives) as (store, gateway):
                assert len(store.joiners) == 1
                assert await get(gateway, "kept", b"k") == b"inline"
            for drive in drives[:3]:
                shutil.rmtree(drive / "meta", ignore_errors=True)
        with pytest.raises(DirectoryError, match="no copy of the metadata is there"):
            async with opened(drives):
                pass

    asyncio.run(whole())


def test_a_damaged_copy_is_filled_again(tmp_path: Path) -> None:
    async def whole() -> None:
        drives = [tmp_path / f"d{number}" for number in range(1, 5)]
        async with opened(drives) as (_, gateway):
            await create_bucket(gateway, "kept", "root")
            await put(gateway, "kept", b"k", b"inline")
        (drives[0] / "meta" / "CURRENT").write_bytes(b"no database")
        async with opened(drives) as (store, gateway):
            assert len(store.membership.current.status[0].in_sync) == 2
            assert [name for name, _ in store.joiners] == [store.membership.current.order[0]]
            assert await get(gateway, "kept", b"k") == b"inline"

    asyncio.run(whole())


def test_a_copy_that_a_process_out_of_descriptors_cannot_open_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for damaged, and removed to be filled again."""
    drives = [tmp_path / f"d{number}" for number in range(1, 5)]

    class Out(Database):
        def __init__(self, path: Path, **sizes: Any) -> None:
            if path == drives[0] / "meta":
                raise DatabaseError(f"cannot open the database {path}: IO error: {path}/LOCK: Too many open files")
            super().__init__(path, **sizes)

    async def whole() -> None:
        async with opened(drives) as (_, gateway):
            await create_bucket(gateway, "kept", "root")
        with monkeypatch.context() as patch:
            patch.setattr(local, "Database", Out)
            with pytest.raises(DatabaseError, match="Too many open files"):
                async with opened(drives):
                    pass
        assert (drives[0] / "meta" / "CURRENT").exists()

    asyncio.run(whole())


def test_a_drive_that_a_process_out_of_descriptors_cannot_open_is_not_left_out(tmp_path: Path) -> None:
    """The others did without it: it lacked what was written meanwhile, and was filled anew."""
    drives = [tmp_path / f"out-d{number}" for number in range(1, 5)]

    class Out(Files):
        def open(self, path: Path) -> int:
            if drives[1] in path.parents:
                raise OSError(24, "Too many open files")
            return super().open(path)

    async def whole() -> None:
        async with opened(drives) as (_, gateway):
            await create_bucket(gateway, "kept", "root")
            await put(gateway, "kept", b"k", bytes(100_000))
        with pytest.raises(OSError, match="Too many open files"):
            async with opened(drives, files=Out()):
                pass

    asyncio.run(whole())


def test_a_start_with_too_few_copies_serves_reads_and_finishes_a_deletion_later(own_server: Any, client: Any) -> None:
    """Of three copies one is left, so that nothing may be written (R9), and the deletion of a bucket was cut off."""
    server = own_server(drives=3)
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="k", Body=b"inline")
    server.stop()

    async def begin() -> None:
        async with opened(server.directories) as (store, gateway):
            await create_bucket(gateway, "going", "root")
            await store.node.execute(0, commands.BeginDelete("going", b"token"))

    asyncio.run(begin())
    for directory in server.directories[:2]:
        shutil.rmtree(directory / "meta")
    server.start()
    assert s3.get_object(Bucket="kept", Key="k")["Body"].read() == b"inline"
    wait_until(lambda: buckets(s3) == ["kept"], "the deletion is finished")
    s3.put_object(Bucket="kept", Key="later", Body=b"written")


def buckets(s3: Any) -> list[str]:
    return [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]

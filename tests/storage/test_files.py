"""The file layer on disks that take less than they are given: all is written, or nothing changed."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from s4.cluster.coordinator import LocalCoordinator, QuorumError
from s4.storage.files import Files
from storage.fakes import AilingFiles


class Half(Files):
    """What a kernel may do: a write takes half of what it is given, as long as that is more than a byte."""

    def _write_some(self, fd: int, pieces: list[bytes], offset: int) -> int:  # type: ignore[override]
        whole = b"".join(pieces)
        return os.pwrite(fd, whole[: max(1, len(whole) // 2)], offset)


def test_a_file_is_replaced_wholly_where_writes_are_short(tmp_path: Path) -> None:
    content = os.urandom(10_000)
    Half().replace(tmp_path / "map", content)
    assert (tmp_path / "map").read_bytes() == content


def test_records_are_written_wholly_where_writes_are_short(tmp_path: Path) -> None:
    pieces = [os.urandom(size) for size in (1, 700, 0, 70_000, 3)]
    files = Half()
    fd = files.create(tmp_path / "volume")
    assert files.write(fd, pieces, 100) == 70_704
    files.close(fd)
    assert (tmp_path / "volume").read_bytes() == bytes(100) + b"".join(pieces)


@pytest.mark.parametrize("room", [0, 1, 500, 999])
def test_a_full_disk_leaves_the_file_that_was_to_be_replaced(tmp_path: Path, room: int) -> None:
    """D5: a short write is an error; what was there stays, and no half of the new one is left in its way."""
    files = AilingFiles()
    files.replace(tmp_path / "map", b"old")
    files.room_bytes = room
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        files.replace(tmp_path / "map", b"n" * 1000)
    assert (tmp_path / "map").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["map"]
    files.mend()
    files.replace(tmp_path / "map", b"n" * 1000)
    assert (tmp_path / "map").read_bytes() == b"n" * 1000


def test_a_write_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    class Nothing(Files):
        def _write_some(self, fd: int, pieces: list[bytes], offset: int) -> int:  # type: ignore[override]
            return 0

    with pytest.raises(OSError, match="took no bytes"):
        Nothing().replace(tmp_path / "map", b"x")


def test_a_map_on_full_disks_counts_towards_no_majority(tmp_path: Path) -> None:
    """Two of three disks are full: the change is refused, and the map is what it was at every later start."""
    directories = [tmp_path / name for name in "abc"]
    for directory in directories:
        directory.mkdir()
    files = AilingFiles()

    async def test() -> None:
        await LocalCoordinator(files, directories, 2).replace("map", b"one", 0)
        files.room_bytes = 1500  # one copy of the new one, and a part of the second
        with pytest.raises(QuorumError):
            await LocalCoordinator(files, directories, 2).replace("map", b"2" * 1000, 1)
        files.mend()
        for kept in (directories[:2], directories[1:]):
            value, revision = LocalCoordinator(files, kept, 2).newest("map")
            assert (value, revision) in ((b"one", 1), (b"2" * 1000, 2))

    asyncio.run(test())

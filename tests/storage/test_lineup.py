"""What is said of directories before anything is put there."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from s4.cluster import shardmap
from s4.cluster.coordinator import LocalCoordinator
from s4.cluster.membership import DOCUMENT
from s4.cluster.shardmap import ShardMap
from s4.node.drive_set import line_up
from s4.storage.directory import DirectoryError
from s4.storage.files import Files
from storage.test_index import out_of_descriptors

UNMOUNTED = "d3, is on the file system of /, where the others are not"


def test_a_new_server_says_which_disk_was_not_mounted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It goes on, since that may be meant; but whoever forgot to mount one learns it before there is data on the
    system's disk."""
    if os.getuid() != 0 or tmp_path.stat().st_dev != Path("/").stat().st_dev:
        pytest.skip("mounts need root, and a place on the file system of /")
    drives = [tmp_path / f"d{number}" for number in range(1, 4)]
    mounted = []
    try:
        for drive in drives:
            drive.mkdir()
        for drive in drives[:2]:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=1m", "s4-test", str(drive)], check=True, capture_output=True
            )
            mounted.append(drive)
        with caplog.at_level(logging.WARNING):
            seats = line_up(Files(), drives, geometry=None, partitions=16).seats
        for seat in seats:
            os.close(seat.lock)
        assert UNMOUNTED in caplog.text
        caplog.clear()
        other = [tmp_path / f"o{number}" for number in range(1, 4)]  # all on one disk, to try it
        for seat in line_up(Files(), other, geometry=None, partitions=16).seats:
            os.close(seat.lock)
        assert "file system of /" not in caplog.text
    except subprocess.CalledProcessError:
        pytest.skip("nothing can be mounted here")
    finally:
        for drive in mounted:
            subprocess.run(["umount", str(drive)], check=True)


def lined_up(drives: Sequence[Path], **more: Any) -> int:
    """The revision that counts."""
    found = line_up(Files(), drives, geometry=None, partitions=16, **more)
    for seat in found.seats:
        if seat.lock >= 0:
            os.close(seat.lock)
    return found.revision


def kept(drives: Sequence[Path], change: Callable[[ShardMap], ShardMap]) -> int:
    """Change the map on some of a server's drives only, as a process does that has no others. Its revision."""
    coordinator = LocalCoordinator(Files(), drives)
    value, revision = coordinator.newest(DOCUMENT)
    return asyncio.run(coordinator.replace(DOCUMENT, shardmap.encode(change(shardmap.decode(value))), revision))


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """A server of two drives that has a map."""
    drives = [tmp_path / "d1", tmp_path / "d2"]
    made = line_up(Files(), drives, geometry=(1, 1), partitions=16)
    asyncio.run(made.coordinator.replace(DOCUMENT, shardmap.encode(made.shard_map), 0))
    for seat in made.seats:
        os.close(seat.lock)
    return drives


def later(old: ShardMap) -> ShardMap:
    return replace(old, spec=replace(old.spec, later=not old.spec.later))


def test_half_of_the_drives_is_enough_after_a_failure_only_where_it_has_the_newest_map(two: list[Path]) -> None:
    """One that was put aside long ago passed for all there is when the other failed: what was written since was gone,
    and then wiped from the other when that was back (M2)."""
    newest = kept(two[:1], later)
    with pytest.raises(DirectoryError, match="2 of 2 drives are needed"):
        lined_up(two, failed=two[:1], known=newest)
    assert lined_up(two, failed=two[1:], known=newest) == newest
    with pytest.raises(DirectoryError, match="2 of 2 drives are needed"):
        lined_up(two, failed=two[1:])
    assert lined_up(two, failed=two[:1], degraded=True) == newest - 1, "a person may say so"


def test_drives_that_were_used_without_each_other_are_not_mixed(two: list[Path], tmp_path: Path) -> None:
    kept(two[:1], later)
    kept(two[1:], lambda old: later(replace(old, spec=replace(old.spec, replicas=1))))
    with pytest.raises(DirectoryError, match="they were used without each other"):
        lined_up(two)


def test_a_change_that_too_few_drives_took_does_not_win_over_one_that_counts(tmp_path: Path) -> None:
    drives = [tmp_path / f"d{number}" for number in range(4)]
    made = line_up(Files(), drives, geometry=(2, 2), partitions=16)
    asyncio.run(made.coordinator.replace(DOCUMENT, shardmap.encode(made.shard_map), 0))
    for seat in made.seats:
        os.close(seat.lock)
    kept(drives[:1], lambda old: later(replace(old, spec=replace(old.spec, replicas=1))))  # and the process was killed
    kept(drives[1:], later)
    found = line_up(Files(), drives, geometry=None, partitions=16)
    for seat in found.seats:
        os.close(seat.lock)
    assert found.shard_map.spec.later
    assert found.shard_map.spec.replicas == made.shard_map.spec.replicas


def test_a_process_out_of_descriptors_leaves_no_drive_out(tmp_path: Path) -> None:
    """It said that a new server needs all its drives."""
    drives = [tmp_path / f"d{number}" for number in range(1, 4)]
    for seat in line_up(Files(), drives, geometry=None, partitions=16).seats:
        os.close(seat.lock)
    with out_of_descriptors(), pytest.raises(DirectoryError, match=r"^/.*/d1 cannot be used: Too many open files"):
        line_up(Files(), drives, geometry=None, partitions=16)

"""What is said of directories before anything is put there."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest

from s4.node.drive_set import line_up
from s4.storage.files import Files

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

"""The program of 0.7, as it is in this repository's history."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMIT = "fef1eea"


def missing() -> str:
    """Why it cannot be had; "" where it can."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "cat-file", "-e", f"{COMMIT}^{{commit}}"], capture_output=True, check=False
    )
    return f"0.7 is commit {COMMIT}, which this clone does not have" if done.returncode else ""


def program(directory: Path) -> Path:
    """What goes on a process's path to have it be that program."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", COMMIT, "daemon"], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(directory, filter="data")
    return directory / "daemon"

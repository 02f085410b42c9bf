"""A directory among the temporary ones for as long as a process lives.

Whoever is killed, or starts again by `restart`, leaves its own behind: whoever comes next takes it away. Whose process
still lives shows by a lock, which ends with the process whatever ends it; the descriptor must stay with it alone.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

LOCK = "alive"


def own_directory(prefix: str) -> Path:
    """A new directory, empty but for the lock; those of the same prefix and user that nobody holds are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_left(left)
    while True:
        made = Path(tempfile.mkdtemp(prefix=prefix))
        fcntl.flock(os.open(made / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX)
        if made.exists():  # nobody took it for left before it was locked
            atexit.register(shutil.rmtree, made, ignore_errors=True)
            return made


def _remove_left(directory: Path) -> None:
    """Raises nothing: somebody else's, or one that another process removes right now, is left alone."""
    with contextlib.suppress(OSError):
        if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
            return
        held = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(held)

"""Where prometheus-client keeps the counts of a process with siblings: files that are mapped into memory, in a
directory of a tmpfs or disk that may be full.

The client makes them sparse, and the kernel kills whoever touches a page of such a file that has no room. Here room is
reserved before a page is touched; where there is none, a process counts in memory of its own from then on, which the
sum of all processes lacks. A count never fails a request, and never ends a process.
"""

from __future__ import annotations

import contextlib
import io
import logging
import mmap
import os
from pathlib import Path
from typing import Any

from prometheus_client import mmap_dict, values

log = logging.getLogger(__name__)

BEGIN_BYTES = 1 << 16
ROW_BYTES = 32  # of a value beside its key, at most


class ReservedDict(mmap_dict.MmapedDict):
    """One file, whose pages are all there."""

    _m: Any

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            if not read_mode:
                _reserve(filename)
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except OSError as error:
            log.error("%s has no room: what this process counts there is not added to the others': %s", filename, error)
            with contextlib.suppress(OSError):
                Path(filename).unlink()  # an empty one could not be read
            self._f, self._fname, self._positions = io.BytesIO(), filename, {}
            self._m, self._capacity, self._used = mmap.mmap(-1, BEGIN_BYTES), BEGIN_BYTES, 8

    def _init_value(self, key: str) -> None:
        while self._used + len(key.encode()) + ROW_BYTES > self._capacity:
            self._grow()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self) -> None:
        size = self._capacity * 2
        try:
            os.posix_fallocate(self._f.fileno(), 0, size)
            made = mmap.mmap(self._f.fileno(), size)
        except OSError as error:
            log.error(
                "%s cannot grow: what this process counts from now on is not added to the others': %s",
                self._fname,
                error,
            )
            made = mmap.mmap(-1, size)
            made[: self._capacity] = self._m[:]
        self._m, self._capacity = made, size


def _reserve(filename: str) -> None:
    number = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(number).st_size == 0:
            os.posix_fallocate(number, 0, BEGIN_BYTES)
    finally:
        os.close(number)


def install() -> None:
    """To be called before anything is counted."""
    values.MmapedDict = ReservedDict  # type: ignore[attr-defined]

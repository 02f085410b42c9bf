"""Writing past the page cache: memory that the kernel takes as it is, and the descriptor for it.

Copying into the page cache, and what keeps that in order, is a third of what a large write costs a processor. Only
aligned records (records.py) are written so: O_DIRECT wants memory, length and place in the file at multiples of what the
disk writes at once, for which 4096 stands here.

Rules for editors:
- No 4096 bytes of a file have something of both kinds. An aligned record begins and ends at such a boundary, and what is
  before it is zeros or a small record of its own; so neither way ever writes what the other one keeps in the cache.
  (What a short write left over is written through the cache: after it, by the same thread, before anybody is told.)
- A direct write that has ended is on the disk's way, not durable: a sync is as due as after any other (D7).
- A piece's memory is not changed until the write has ended: a stripe's is free once nothing refers to it
  (gateway/buffers.py), and a scratch is used by one write at a time.
- Where the file system refuses (tmpfs, some overlays), the same records are written through the cache. That is said once.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import mmap
from collections.abc import Callable
from pathlib import Path

from s4.storage.files import Buffer, Files
from s4.storage.records import ALIGN, aligned

log = logging.getLogger(__name__)

LEAST_BYTES = 128 * 1024  # of data of an aligned record: it may cost 8 KiB of room
SCRATCH_BYTES = 8 << 20


class Scratch:
    """Aligned memory that is used again and again. What was taken is good until `reset`."""

    def __init__(self, size: int = SCRATCH_BYTES) -> None:
        self._size = size
        self._memory = memoryview(b"")
        self._used = 0

    def take(self, size: int) -> memoryview:
        size = aligned(size)
        if self._used + size > len(self._memory):
            self._memory, self._used = memoryview(mmap.mmap(-1, max(size, self._size))), 0
        taken = self._memory[self._used : self._used + size]
        self._used += size
        return taken

    def reset(self) -> None:
        self._used = 0
        if len(self._memory) > self._size:
            self._memory = memoryview(b"")


def is_aligned(data: memoryview) -> bool:
    """Whether the kernel takes this memory as it is."""
    return not data.readonly and ctypes.addressof(ctypes.c_char.from_buffer(data)) % ALIGN == 0


def pieces(head: bytes, table: bytes, data: Buffer, scratch: Scratch) -> list[Buffer]:
    """An aligned record as it is written: only what is not aligned is copied."""
    front = scratch.take(len(head) + len(table))
    front[: len(head)] = head
    front[len(head) : -len(table)] = bytes(len(front) - len(head) - len(table))
    front[-len(table) :] = table
    view = memoryview(data)
    whole = len(view) // ALIGN * ALIGN if is_aligned(view) else 0
    if whole == len(view):
        return [front, view]
    rest = scratch.take(len(view) - whole)
    rest[: len(view) - whole] = view[whole:]
    rest[len(view) - whole :] = bytes(len(rest) - len(view) + whole)
    return [front, view[:whole], rest] if whole else [front, rest]


class Kinds:
    """Which records are aligned. `mark` has the store refuse programs that do not know them, durably, and says whether it
    does; without it none are. It is asked before the first one, on the event loop, as all that marks a store is."""

    def __init__(self, mark: Callable[[], bool] | None) -> None:
        self._mark = mark
        self._marked: bool | None = None if mark is not None else False

    def is_aligned(self, length: int) -> bool:
        """Whether a record of so many bytes of data is."""
        if length < LEAST_BYTES or self._marked is False:
            return False
        if self._marked is None and self._mark is not None:
            self._marked = self._mark()
        return self._marked is True


class Direct:
    """How aligned records are written to the volume that is appended to."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._fd: int | None = None
        self._refused = False
        self.scratch = Scratch()

    def write(self, path: Path, fd: int, data: list[Buffer], offset: int) -> int:
        """Raises OSError."""
        if self._fd is None and not self._refused:
            with contextlib.suppress(OSError):  # no descriptor is free, or somebody deleted the volume: as well without
                self._fd = self._files.open_direct(path)
                if self._fd is None:
                    self._refuse(path)
        if self._fd is not None:
            try:
                return self._files.write_direct(fd, self._fd, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._refuse(path)
        return self._files.write(fd, data, offset)

    def _refuse(self, path: Path) -> None:
        self._refused = True
        self.leave()
        log.warning("%s: its file system takes no writes past the page cache; they go through it", path.parent.parent)

    def leave(self) -> None:
        """The volume is not appended to any more."""
        if self._fd is not None:
            self._files.close(self._fd)
            self._fd = None

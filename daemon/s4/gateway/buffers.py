"""Memory of stripes: a body's bytes are gathered in it, encoded from it, and written from it by the disk itself.

It begins at a page's start, which is what writes past the page cache want (storage/direct.py), and is used again: new
memory costs a fault for each of its pages. Nobody gives it back: it is free once nothing refers to it any more, be that
a shard which still waits for its drive or a peer though the request has ended. So it is never filled under who reads it.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections import deque

KEPT = 8  # stripes' memory that waits to be used again


class StripeMemory:
    """Memory of `size` bytes for one stripe and its parity each time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kind = ctypes.c_char * size
        self._free: deque[mmap.mmap] = deque(maxlen=KEPT)

    def take(self) -> memoryview:
        """Whatever was in it is in it."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = mmap.mmap(-1, self.size)
        owner = self._kind.from_buffer(memory)  # every view of it, and every slice of those, keeps this one
        weakref.finalize(owner, self._free.append, memory).atexit = False
        return memoryview(owner).cast("B")

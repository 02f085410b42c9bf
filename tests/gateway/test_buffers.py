"""Memory of stripes is used again, and never under somebody who still reads it."""

from __future__ import annotations

import ctypes
import gc

from s4.gateway.buffers import KEPT, StripeMemory


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def test_it_begins_at_a_pages_start_and_is_used_again_once_nobody_has_any_of_it() -> None:
    memory = StripeMemory(3 * 4096)
    first = memory.take()
    place = address(first)
    assert place % 4096 == 0
    assert len(first) == 3 * 4096
    first[4096:4100] = b"kept"
    shard = first[4096:8192]
    del first
    other = memory.take()
    assert address(other) != place, "a shard of it still waits for its drive"
    other[:] = b"\xff" * len(other)
    assert shard[:4] == b"kept"
    sent = shard[:4]
    del shard
    assert address(memory.take()) != place
    del sent
    gc.collect()
    assert address(memory.take()) == place


def test_no_more_of_it_is_kept_than_is_said() -> None:
    memory = StripeMemory(4096)
    held = [memory.take() for _ in range(3 * KEPT)]
    places = {address(view) for view in held}
    assert len(places) == 3 * KEPT
    held.clear()
    assert len(memory._free) == KEPT

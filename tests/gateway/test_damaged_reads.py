"""A read that meets damage which nothing can make good: an error where nothing was answered yet, and never wrong
bytes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

import damage
from fuzz.endpoint import endpoint
from inprocess import put
from s4.gateway.memory import MemoryBudget
from s4.http.operations.objects import FIRST_BYTES


def _hurt_the_end(drive: Path, size: int) -> None:
    """The last byte of the one object of that size."""
    (place,) = (one for one in damage.places(drive) if one.record.length == size)
    place.write(bytes([place.read()[-1] ^ 1]), place.offset + place.record.size - 1)


@pytest.mark.parametrize(
    ("size", "memory_bytes", "head"),
    [
        (300_000, 384 << 20, b"HTTP/1.1 500"),
        (1 << 20, 384 << 20, b"HTTP/1.1 500"),
        (1 << 20, 3 << 20, b"HTTP/1.1 200"),  # memory is short: what was sent is right, and then the answer is cut
    ],
)
def test_an_object_that_is_read_whole_first_is_an_error_and_no_answer_that_is_cut(
    tmp_path: Path, size: int, memory_bytes: int, head: bytes
) -> None:
    async def test() -> None:
        async with endpoint(tmp_path, time.time) as server:
            gateway, data = server.gateway, os.urandom(size)
            gateway.memory = MemoryBudget(memory_bytes, 1.0)
            await put(gateway, "bbb", b"hurt", data)
            whole = await server.send(server.signed("GET", "/bbb/hurt", {"connection": "close"}))
            assert whole.partition(b"\r\n\r\n")[2] == data
            _hurt_the_end(tmp_path / "data", size)
            answer = await server.send(server.signed("GET", "/bbb/hurt", {"connection": "close"}))
            assert answer.startswith(head)
            body = answer.partition(b"\r\n\r\n")[2]
            if head.endswith(b"500"):
                assert b"damaged" in body
            else:
                assert FIRST_BYTES <= len(body) < size
                assert data.startswith(body)
            assert gateway.memory.used_bytes == 0

    asyncio.run(test())

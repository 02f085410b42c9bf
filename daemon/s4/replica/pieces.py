"""Walking a table that may be long: a piece at a time, with everybody else's work between.

Whoever walks rows of a host in a coroutine comes here, or takes no more than a bounded number of them (`islice`,
`next`): a walk that grows with keys, versions, uploads or what waits would hold the loop. tests/replica/test_pieces.py
looks for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Protocol

PIECE = 256


class Scans(Protocol):
    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


async def pieces(host: Scans, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
    """The rows with a prefix; others may change between two pieces what was not read yet."""
    start = prefix
    while rows := list(islice(host.scan(prefix, start), PIECE)):
        for row in rows:
            yield row
        start = rows[-1][0] + b"\x00"
        await asyncio.sleep(0)


async def count(host: Scans, prefix: bytes) -> int:
    found = 0
    async for _ in pieces(host, prefix):
        found += 1
    return found

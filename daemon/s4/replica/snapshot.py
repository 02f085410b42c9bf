"""A snapshot of a partition on its way from the one that leads to one that joins: all committed rows, in parts.

Neither side holds more of it than a part: it may be millions of rows, and rows may have content (metadata/small.py).
The sender walks a snapshot of its database and sends the next part once the one before is on the other's disk. Who
joins clears what it has, piece by piece, and puts each part into its rows as it comes (R8). Until the last one is in
it is LOST (M4), which was durable before the first row went: a crash at any point leaves a copy that counts for
nothing, and that asks for all of it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

PART_ROWS, PART_BYTES = 2000, 2 << 20


def parts(
    rows: Iterable[tuple[bytes, bytes]], over: Mapping[bytes, bytes | None]
) -> Iterator[tuple[list[tuple[bytes, bytes]], bool]]:
    """(rows, whether they are the last) of a snapshot: those of the database, under the committed ones `over` them."""
    part: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in chain(rows, over.items()):
        if len(part) >= PART_ROWS or size >= PART_BYTES:
            yield part, False
            part, size = [], 0
        if value is not None and over.get(key, value) == value:
            part.append((key, value))
            size += len(value)
    yield part, True

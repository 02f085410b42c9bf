"""Content rows whose blob is gone: hints that came late.

Who publishes content may do so twice, for it is a hint (C4); the second time may come after the blob died and its
content was withdrawn. Nothing is lost by such a row, but nobody else would ever remove it, unless the same content is
put again. A blob that has no row any more never has one again, and content is published only after its blob's row was
committed: so what the blob's partition does not know is dead. The row goes only if it still names that blob.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from s4.metadata import keys
from s4.metadata.commands import UnpublishContent
from s4.metadata.rows import Content, decode
from s4.replica.pieces import pieces
from s4.upkeep.forget import Rows

ASKED_AT_ONCE = 2048  # blobs, of all partitions

Unknown = Callable[[int, list[bytes]], Awaitable[list[bytes]]]


async def forget_stale(rows: Rows, partition: int, unknown: Unknown) -> int:
    """Remove the content rows of one partition whose blob is gone. How many; `unknown` asks another partition which of
    some blobs it has no row of."""
    found, waiting = 0, list[tuple[int, bytes, bytes]]()
    prefix = keys.table(partition, keys.CONTENT)
    async for key, value in pieces(rows, prefix):
        row = decode(Content, value)
        waiting.append((row.partition, row.blob, key[len(prefix) :]))
        if len(waiting) >= ASKED_AT_ONCE:
            found += await _forget(rows, partition, waiting, unknown)
            waiting.clear()
    return found + await _forget(rows, partition, waiting, unknown)


async def _forget(rows: Rows, partition: int, waiting: list[tuple[int, bytes, bytes]], unknown: Unknown) -> int:
    blobs: dict[int, list[bytes]] = {}
    for where, blob, _ in waiting:
        blobs.setdefault(where, []).append(blob)
    gone = {(where, blob) for where, named in blobs.items() for blob in await unknown(where, named)}
    stale = [(blob, sha256) for where, blob, sha256 in waiting if (where, blob) in gone]
    await asyncio.gather(*(rows.submit(partition, UnpublishContent(sha256, blob), own=True) for blob, sha256 in stale))
    return len(stale)

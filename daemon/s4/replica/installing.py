"""A snapshot of a partition becomes rows of a turn, a piece at a time: it may be a million rows, and the loop is
everybody's.

R8: what was there goes, whatever the snapshot brings; both in the one batch of that turn. Its parts stay as they came
until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from s4.replica.keptrows import LOG
from s4.replica.pieces import PIECE

Rows = dict[bytes, bytes | None]
_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(list[bytes])
rows_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, bytes | None]])


def packed(parts: list[bytes]) -> bytes:
    """The parts of a snapshot, each a version byte and rows, as one content."""
    return _packer.encode(parts)


async def install(
    old: Iterator[tuple[bytes, bytes]], partition: int, log: Iterable[int], content: bytes, rows: Rows
) -> None:
    """Put into the rows of a turn what makes the partition the snapshot's. `old` are its rows in the database, `log`
    the sequences of its log."""
    first, last = partition.to_bytes(2, "big"), (partition + 1).to_bytes(2, "big")
    for at in list(rows):
        if first <= at < last:
            rows[at] = None
    while found := [key for key, _ in islice(old, PIECE)]:
        rows.update(dict.fromkeys(found))
        await asyncio.sleep(0)
    prefix = LOG + first
    rows.update({prefix + sequence.to_bytes(8, "big"): None for sequence in log})
    for part in _unpacker.decode(content):
        rows.update(rows_decoder.decode(part[1:]))
        await asyncio.sleep(0)

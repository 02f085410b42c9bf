"""The end of a LevelDB log that a loss of power tore.

LevelDB appends a batch to its log (and an edit to its MANIFEST) as one record, in as many pieces as it touches blocks
of 32 KiB, and a write is acknowledged once a sync covers all of them. Before that the disk may have taken some sectors
of the pieces and not others: what it did not take reads as zeros where something behind it was. With paranoid checks
LevelDB opens such a file only where nothing but its end is missing; without them it would pass over damage of what was
acknowledged, too.

So a database that does not open is looked at here. Where every write is synced only the last record can be one that no
sync covered. If all that is wrong in a file lies behind its last whole record, if no other record begins in there, and
if there are sectors that read as never written, then this is what the loss of power left of a record that nobody was
told of, and it is cut off: a crash before the cut, or within it, leaves what the next start cuts again. Anything else
is damage, and stays for whoever has another copy.

Where writes are not all synced (`--durability interval` and `none`) several records may be torn, and whole ones follow
them. What no sync covered goes from the first of them on, with the logs that were begun later: a database is what it
was at some moment, never a choice of later writes.

Format: doc/log_format.md of LevelDB. A piece is a masked CRC-32C (of type and payload), length, type, payload.
"""

from __future__ import annotations

import os
from pathlib import Path

from crc32c import crc32c

BLOCK, HEADER, SECTOR = 32 << 10, 7, 512
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def cut_torn_ends(directory: Path, *, unsynced: bool = False) -> list[tuple[Path, int]]:
    """Cut what no sync covered off a database that is not open: (file, bytes). Raises OSError. Blocks."""
    found: list[tuple[Path, int]] = []
    logs = sorted(directory.glob("*.log"), key=lambda one: int(one.stem))
    for path in [*directory.glob("MANIFEST-*"), *logs]:
        data = path.read_bytes()
        loose = unsynced and path in logs
        end = 0 if loose and any(cut in logs for cut, _ in found) else torn_from(data, unsynced=loose)
        if end is not None:
            found.append((path, len(data) - end))
    for path, size in reversed(found):  # the newest first: a crash between two of them leaves no later writes
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - size)
            os.fsync(file.fileno())
    return found


def torn_from(data: bytes, *, unsynced: bool = False) -> int | None:
    """Where in a log its last record begins, if that is torn, or with `unsynced` the first that is; None where all is
    whole, and where it is damaged."""
    end, at, is_open = 0, 0, False  # is_open: the first pieces of a record were there
    while (at := _next(at)) < len(data) and (piece := _piece(data, at)) is not None:
        if is_open != (piece[0] in (MIDDLE, LAST)):
            break
        is_open, at = piece[0] in (FIRST, MIDDLE), piece[1]
        end = end if is_open else at
    if at >= len(data):
        return end if unsynced and is_open else None
    if unsynced:
        return end if _was_not_written(data, at) else None
    start = _next(end)
    others = (_piece(data, offset) for offset in range(start + 1, len(data)) if data[offset + 6 : offset + 7] in _BEGIN)
    return end if not any(others) and _has_hole(data, start) else None


_BEGIN = (bytes([FULL]), bytes([FIRST]))


def _next(at: int) -> int:
    """Where the piece behind `at` begins: the end of a block that has no room for a header is filled up with zeros."""
    left = BLOCK - at % BLOCK
    return at + left if left < HEADER else at


def _piece(data: bytes, at: int) -> tuple[int, int] | None:
    """(its kind, where it ends), if a whole piece is there."""
    if at + HEADER > len(data):
        return None
    kind, end = data[at + 6], at + HEADER + int.from_bytes(data[at + 4 : at + 6], "little")
    if not FULL <= kind <= LAST or end > min(len(data), at - at % BLOCK + BLOCK):
        return None
    crc = crc32c(data[at + 6 : end])
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return (kind, end) if masked == int.from_bytes(data[at : at + 4], "little") else None


def _was_not_written(data: bytes, at: int) -> bool:
    """Whether of a piece that is not whole a sector reads as never written, or the file ends before it does. Its header
    says how long it is; where that is not there, it is looked at alone: zeros further on may be somebody's."""
    header = data[at : at + HEADER]
    is_there = len(header) == HEADER and FULL <= header[6] <= LAST
    end = at + HEADER + (int.from_bytes(header[4:6], "little") if is_there else 0)
    return _piece(data, at) is None and (end > len(data) or _has_hole(data[: end + -end % SECTOR], at))


def _has_hole(data: bytes, start: int) -> bool:
    """Whether a sector behind `start`, or what is left of its own, reads as never written."""
    starts = [start, *range(start - start % SECTOR + SECTOR, len(data), SECTOR)]
    return any(not any(data[first:end]) for first, end in zip(starts, [*starts[1:], len(data)], strict=True))

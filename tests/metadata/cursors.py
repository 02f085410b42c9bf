"""Cursors over rows in memory, where a database's stand in a server."""

from __future__ import annotations

import bisect


class SortedCursor:
    """`reads` counts what was asked of it, the end included."""

    def __init__(self, rows: list[tuple[bytes, bytes]]) -> None:
        self.rows, self._at, self.reads = sorted(rows), 0, 0

    def take(self, count: int) -> list[tuple[bytes, bytes]]:
        taken = self.rows[self._at : self._at + count]
        self._at += len(taken)
        self.reads += len(taken) + (len(taken) < count)
        return taken

    def seek(self, key: bytes) -> None:
        self._at = bisect.bisect_left(self.rows, (key, b""))

    def close(self) -> None:
        pass

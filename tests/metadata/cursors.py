"""Cursors over rows in memory, where a database's stand in a server."""

from __future__ import annotations

import bisect


class SortedCursor:
    """`reads` counts what was asked of it, the end included."""

    def __init__(self, rows: list[tuple[bytes, bytes]]) -> None:
        self.rows, self._at, self.reads = sorted(rows), 0, 0

    def next(self) -> tuple[bytes, bytes] | None:
        self.reads += 1
        if self._at >= len(self.rows):
            return None
        self._at += 1
        return self.rows[self._at - 1]

    def seek(self, key: bytes) -> None:
        self._at = bisect.bisect_left(self.rows, (key, b""))

    def close(self) -> None:
        pass

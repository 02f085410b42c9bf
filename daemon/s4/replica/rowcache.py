"""A cache of object rows."""

from __future__ import annotations

from collections import OrderedDict


class RowCache:
    """Newest rows of object keys, least recently used out first, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._rows: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()
        self.limit_bytes, self.size_bytes = limit_bytes, 0

    def get(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        row = self._rows.get(prefix)
        if row is not None:
            self._rows.move_to_end(prefix)
        return row

    def put(self, prefix: bytes, row: tuple[bytes, bytes]) -> None:
        self.drop(prefix)
        self._rows[prefix] = row
        self.size_bytes += self._weight(prefix, row)
        while self.size_bytes > self.limit_bytes:
            old, value = self._rows.popitem(last=False)
            self.size_bytes -= self._weight(old, value)

    def drop(self, prefix: bytes) -> None:
        old = self._rows.pop(prefix, None)
        if old is not None:
            self.size_bytes -= self._weight(prefix, old)

    @staticmethod
    def _weight(prefix: bytes, row: tuple[bytes, bytes]) -> int:
        return 400 + 2 * len(prefix) + len(row[1])

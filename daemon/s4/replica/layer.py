"""Rows that stand over a database until they are in it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable

from s4.metadata.entry import Overlay, Source


class Layer(Overlay):
    """Each row has a rising number: of the turn that writes it, or of the entry that it is from. Rows are dropped in
    that order, unless a newer value came."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._numbers: dict[bytes, int] = {}
        self._queue: deque[tuple[int, bytes]] = deque()

    def add(self, rows: Iterable[tuple[bytes, bytes | None]], number: int) -> None:
        for key, value in rows:
            if key not in self.rows:
                insort(self._order, key)
            self.rows[key] = value
            self._numbers[key] = number
            self._queue.append((number, key))

    def drop(self, upto: int) -> None:
        """Forget what was added under numbers up to `upto`: it is in the source now."""
        while self._queue and self._queue[0][0] <= upto:
            number, key = self._queue.popleft()
            if self._numbers.get(key) == number:
                del self.rows[key], self._numbers[key]
                del self._order[bisect_left(self._order, key)]

    @property
    def newest(self) -> int:
        """The highest number that was added and is not dropped."""
        return self._queue[-1][0] if self._queue else 0

    def clear(self) -> None:
        self.rows.clear()
        self._numbers.clear()
        self._order.clear()
        self._queue.clear()

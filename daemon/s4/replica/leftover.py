"""Rows of partitions of which a store has no copy any more, on their way out.

That nothing of them counts is durable first: the replica is LOST and has committed nothing, which is what Clear leaves.
One that is LOST and has committed something may yet turn out to lack nothing (M4), and keeps its rows. Then they go a
piece with each turn of the writer, so that other partitions, which this store may lead, wait for a piece and not for
millions of rows. What goes is looked up as its turn begins: whatever the turn writes itself stands over it. A partition
that is filled anew leaves here before its first row comes, and comes `first`. A crash leaves some of the rows: the next
start goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from s4.cluster.messages import LOST, State
from s4.replica.pieces import PIECE
from s4.storage.leveldb import Database

Piece = dict[bytes, bytes | None]


class LeftOver:
    """`state` says what the database has of a partition's replica."""

    def __init__(self, database: Database, state: Callable[[int], State], partitions: Iterable[int]) -> None:
        self._database, self._state = database, state
        self._starts: dict[int, bytes] = {}  # where in a partition's rows the next piece begins
        for number in partitions:
            self.add(number)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __contains__(self, number: int) -> bool:
        """Whether rows of a partition may be left: none are once a turn began and found none."""
        return number in self._starts

    def add(self, number: int) -> None:
        self._starts[number] = number.to_bytes(2, "big")

    def piece(self, first: Iterable[int] = ()) -> Piece:
        """Rows that go with the turn that begins; none where none are left."""
        for number in dict.fromkeys((*first, *self._starts)):
            if number not in self._starts:
                continue
            state = self._state(number)
            is_cleared = state.joining == LOST and not state.commit and not state.log
            if is_cleared and (found := self._next(number)):
                return found
            del self._starts[number]
        return {}

    def _next(self, number: int) -> Piece:
        start, stop = self._starts[number], (number + 1).to_bytes(2, "big")
        found = [key for key, _ in islice(self._database.scan(start, stop), PIECE)]
        if found:
            self._starts[number] = found[-1] + b"\x00"
        return dict.fromkeys(found)

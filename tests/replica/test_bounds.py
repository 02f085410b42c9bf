"""What goes in one message or one turn is bounded in bytes, not in rows or entries alone: a frame has an end
(MAX_HEADER), and what is longer cuts the connection, again and again."""

from __future__ import annotations

from collections import deque
from typing import Any

from s4.cluster.messages import AnyMessage, Append, Beacon, Entry
from s4.metadata.entry import Overlay
from s4.peer.frames import MAX_HEADER
from s4.peer.links import BATCH, BATCH_BYTES, _batch
from s4.replica.terms import MOST_BYTES, MOST_ENTRIES, MOST_KEPT_BYTES, Kept
from s4.replica.turn import TURN_ROWS, Turn

MIB = 1 << 20


def entries(first: int, last: int, size: int) -> list[Entry]:
    return [Entry(1, number, bytes(size)) for number in range(first, last + 1)]


def test_an_append_has_so_many_entries_or_bytes() -> None:
    kept = Kept()
    kept.add(entries(1, 300, 10), base=0)
    assert [one.sequence for one in kept.then(entries(301, 400, 10), 200)] == list(
        range(200, 200 + min(201, MOST_ENTRIES))
    )
    assert len(kept.then([], 1)) == MOST_ENTRIES
    large = entries(1, 9, 4 * MIB)
    assert [one.sequence for one in Kept().then(large, 2)] == [2, 3, 4, 5]
    assert sum(len(one.rows) for one in Kept().then(large, 2)) <= MOST_BYTES
    assert [one.sequence for one in Kept().then(entries(7, 8, 2 * MOST_BYTES), 7)] == [7], "one at least"
    assert Kept().then(large, 10) == ()


def test_what_is_kept_for_a_snapshot_fits_into_one_append() -> None:
    """A replica that joins by the log is sent all that is kept and all that waits, in one message (R7)."""
    kept = Kept()
    kept.add(entries(1, 100, MIB), base=0)
    assert sum(len(one.rows) for one in kept.entries) <= MOST_KEPT_BYTES
    assert kept.entries[-1].sequence == 100
    assert MOST_KEPT_BYTES + MOST_BYTES + 2 * 1024 * TURN_ROWS < MAX_HEADER


def test_a_batch_of_messages_has_so_many_or_so_many_bytes() -> None:
    def append(size: int) -> AnyMessage:
        return Append(1, 0, tuple(entries(1, 1, size)), 0)

    waiting: deque[tuple[int, AnyMessage]] = deque((number, Beacon(1, 0.0)) for number in range(BATCH + 1))
    assert len(_batch(waiting)) == BATCH
    waiting = deque((number, append(6 * MIB)) for number in range(5))
    assert [len(_batch(waiting)) for _ in range(3)] == [2, 2, 1]
    waiting = deque([(0, append(2 * BATCH_BYTES)), (1, Beacon(1, 0.0))])
    assert [number for number, _ in _batch(waiting)] == [0]


def test_a_turn_is_full_by_what_its_rows_hold() -> None:
    class Nothing:
        def get(self, _: bytes) -> None:
            return None

        def scan(self, _: bytes, __: bytes) -> Any:
            return ()

    turn = Turn(Overlay(Nothing()), {0: 1}, {0: 0})
    turn.overlay.merge({b"%d" % number: bytes(MIB) for number in range(TURN_ROWS // 1024 - 1)})
    assert turn.weight < TURN_ROWS
    turn.overlay.merge({b"x": bytes(MIB)})
    assert turn.weight >= TURN_ROWS

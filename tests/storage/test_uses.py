"""What uses of volumes hold back, and for how long."""

from __future__ import annotations

from s4.storage.uses import STUCK_S, Uses


def test_a_read_that_never_returns_holds_nothing_back_for_ever() -> None:
    now = [1000.0]
    uses = Uses(lambda: now[0])
    stuck = uses.begin()
    assert uses.oldest() == 1000.0
    now[0] += STUCK_S - 1
    other = uses.begin()
    assert uses.oldest() == 1000.0, "a request may live for hours"
    now[0] += 2
    assert uses.oldest() == other.since
    uses.drop(other)
    assert uses.oldest() == now[0]
    uses.drop(stuck)
    assert uses.oldest() == now[0]

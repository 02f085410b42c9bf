"""Which drive is slow, from how long its operations took and what it has not answered yet."""

from __future__ import annotations

import pytest

from s4.storage.timing import READ, SLOW_MANY, SYNC, WITHIN_S, Times


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def took(times: Times, clock: Clock, seconds: float, kind: str = READ) -> None:
    number = times.begin(kind)
    clock.now += seconds
    times.end(number)


def test_several_slow_ones_within_a_minute_are_a_slow_drive(clock: Clock) -> None:
    times = Times(1.0, clock)
    for _ in range(SLOW_MANY - 1):
        took(times, clock, 2.0)
    for _ in range(1000):
        took(times, clock, 0.001)
    assert times.slow() == ""
    took(times, clock, 2.5)
    assert "the longest 2.5 s" in times.slow()
    clock.now += WITHIN_S
    assert times.slow() == "", "it is well again"


def test_what_is_never_answered_is_told_while_it_lasts(clock: Clock) -> None:
    times = Times(1.0, clock)
    number = times.begin(SYNC)
    clock.now += 3.9
    assert times.slow() == ""
    clock.now += 1
    assert times.slow() == "a sync has not ended for 5 s"
    times.end(number)
    assert times.slow() == ""


def test_sums_are_kept_by_kind_and_errors_raised(clock: Clock) -> None:
    times = Times(1.0, clock)
    took(times, clock, 0.5, SYNC)

    def fails() -> None:
        raise OSError

    with pytest.raises(OSError, match=r"^$"):
        times.of(READ, fails)
    assert (times.count[SYNC], times.seconds[SYNC], times.errors[READ], times.errors[SYNC]) == (
        1,
        pytest.approx(0.5),
        1,
        0,
    )

"""Times that are put on rows, and that something will end by: not those of a clock that nobody checked (R13)."""

from __future__ import annotations

import pytest

from metadata.test_lock_decisions import Rows
from s4.cluster.clocks import Clocks
from s4.metadata import keys
from s4.metadata.commands import (
    AnyAnswer,
    AnyCommand,
    CreateUpload,
    DeleteObject,
    PutObject,
    Refused,
    Settings,
    Written,
)
from s4.metadata.decide import decide
from s4.metadata.entry import Entry, Overlay
from s4.metadata.rows import Object, Upload, decode, decode_object

NOW_MS, YEAR_MS = 1_800_000_000_000, 365 * 86_400_000
LOCKED, PLAIN = Settings(7, 2, "Enabled", "COMPLIANCE", 10 * YEAR_MS), Settings(7, 2, "Enabled")


def row(modified_ms: int = NOW_MS) -> Object:
    return Object(modified_ms, 0, "e", False, False, "ana")


def done(command: AnyCommand, *, timed: bool = True) -> tuple[AnyAnswer, Entry]:
    entry = Entry(Overlay(Rows()), 0, 1, 1, 1, NOW_MS, timed=lambda: timed)
    return decide(entry, command), entry


def written(entry: Entry) -> Object:
    return next(
        decode_object(value)[0] for key, value in entry.rows.items() if key[2:3] == keys.OBJECT and value is not None
    )


def test_a_default_retention_is_not_given_by_a_clock_that_nobody_compared() -> None:
    refused, entry = done(PutObject(LOCKED, b"k", row()), timed=False)
    assert isinstance(refused, Refused)
    assert (refused.code, entry.rows) == ("ServiceUnavailable", {})
    answer, entry = done(PutObject(LOCKED, b"k", row()))
    assert isinstance(answer, Written)
    assert written(entry).lock_until_ms == NOW_MS + 10 * YEAR_MS


@pytest.mark.parametrize(
    "command",
    [
        PutObject(PLAIN, b"k", row()),
        DeleteObject(LOCKED, b"k"),
        PutObject(LOCKED, b"k", Object(NOW_MS, 0, "e", False, False, "ana", lock_mode="COMPLIANCE", lock_until_ms=5)),
    ],
)
def test_what_promises_nothing_by_this_clock_goes_on(command: AnyCommand) -> None:
    assert not isinstance(done(command, timed=False)[0], Refused)


@pytest.mark.parametrize("said_ms", [NOW_MS - YEAR_MS, NOW_MS + YEAR_MS])
def test_what_a_gateway_says_of_the_time_is_not_taken_where_it_is_far_off(said_ms: int) -> None:
    """Lifecycle counts days from it: an object that seems to be a year old would end at midnight."""
    assert written(done(PutObject(PLAIN, b"k", row(said_ms)))[1]).modified_ms == NOW_MS
    _, entry = done(CreateUpload(PLAIN, b"k", b"u" * 16, Upload(said_ms, "ana")))
    value = entry.rows[keys.upload_row(0, 7, b"k", b"u" * 16)]
    assert decode(Upload, value or b"").created_ms == NOW_MS
    assert written(done(PutObject(PLAIN, b"k", row(said_ms)), timed=False)[1]).modified_ms == said_ms, (
        "nor is this clock's"
    )


def test_a_gateway_that_is_right_is_taken_by_its_word() -> None:
    assert written(done(PutObject(PLAIN, b"k", row(NOW_MS - 1500)))[1]).modified_ms == NOW_MS - 1500


# -- the time as most have it


def heard(*offsets: float, at: float = 0.0, wall: float = 1000.0) -> Clocks:
    clocks = Clocks()
    for number, offset in enumerate(offsets):
        clocks.heard(str(number), wall + offset, wall, wall, at)
    return clocks


def test_the_time_is_that_of_most() -> None:
    assert heard().time(0.0, 1000.0) is None
    assert heard(0.1, -3.0, 7200.0).time(0.0, 1000.0) == 1000.0, "ours is theirs, but for one"
    assert heard(3600.0, 3601.0, 0.0).time(0.0, 1000.0) == 4600.0
    assert heard(-50.0, 50.0).time(0.0, 1000.0) == 1050.0, "of two the later: a promise that is too long is kept"


def test_a_step_of_our_own_clock_shows_at_once() -> None:
    """Not when the others are asked next: ten seconds are enough to end a lock by."""
    clocks = heard(0.0, 0.0)
    assert clocks.agree(3.0, 1003.0)
    assert not clocks.agree(3.0, 1003.0 + 900.0)
    assert clocks.apart(3.0, 1003.0 + 900.0) == {"0": 900.0, "1": 900.0}
    assert clocks.time(3.0, 1003.0 + 900.0) == 1003.0
    assert clocks.time(5000.0, 6000.0 + 900.0) == 6000.0, "though nobody answered lately"


def test_stores_that_went_have_no_say() -> None:
    clocks = heard(500.0, 500.0, 0.0)
    clocks.keep(["2"])
    assert clocks.agree(1.0, 1001.0)

"""What a process leaves to the one that takes its place."""

from __future__ import annotations

from pathlib import Path

from s4.restart import VARIABLE, WITHIN_S, History


def test_a_drive_is_left_out_once_it_failed_twice_within_minutes(monkeypatch: object) -> None:
    history = History()
    history.add("/d1", 1000.0)
    history.add("/d2", 1001.0)
    history.add("", 1002.0)
    assert history.failed() == frozenset()
    history.add("/d1", 1003.0)
    assert history.failed() == {Path("/d1")}


def test_failures_are_handed_on_and_forgotten_after_a_while(monkeypatch: object) -> None:
    import os

    history = History([(1000.0, "/d1"), (1200.0, "/d1")], {"s3": 5})
    before = os.environ.get(VARIABLE)
    try:
        history.write()
        left = dict(os.environ)
    finally:
        os.environ.pop(VARIABLE, None) if before is None else os.environ.update({VARIABLE: before})
    assert History.read(left, 1200.0) == history
    assert History.read(left, 1000.0 + WITHIN_S + 1) == History([(1200.0, "/d1")], {"s3": 5})
    assert History.read({}, 0.0) == History()

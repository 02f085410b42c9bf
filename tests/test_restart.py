"""What a process leaves to the one that takes its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s4.server.restart import VARIABLE, WITHIN_S, History


def test_a_drive_is_left_out_once_it_failed_twice_within_minutes() -> None:
    history = History()
    history.add("/d1", 1000.0)
    history.add("/d2", 1001.0)
    history.add("", 1002.0)
    assert history.failed() == frozenset()
    history.add("/d1", 1003.0)
    assert history.failed() == {Path("/d1")}


def test_failures_are_handed_on_and_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that it is put back afterwards
    history = History([(1000.0, "/d1"), (1200.0, "/d1")], {"s3": 5})
    history.write()
    assert History.read(os.environ, 1200.0) == history
    assert History.read(os.environ, 1000.0 + WITHIN_S + 1) == History([(1200.0, "/d1")], {"s3": 5})
    assert History.read({}, 0.0) == History()

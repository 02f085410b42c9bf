"""What a process leaves to the one that takes its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from s4.base.clock import boot_clock
from s4.server.restart import EXIT_FATAL, NO_MAP, VARIABLE, WITHIN_S, History

DIES = """
import time
from s4.cluster.keeper import LostMapError
from s4.server import restart
time.time = lambda: {wall}
error = {error}
restart.die(error{what})
"""


def ended(wall: str, failures: list[tuple[float, str]], **parts: str) -> subprocess.CompletedProcess[str]:
    """A process that ends by an error; the one that takes its place fails in the same way, and so on."""
    program = DIES.format(wall=wall, **{"error": "OSError('bad disk')", "what": "", **parts})
    environment = {**os.environ, VARIABLE: json.dumps({"failures": failures})}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


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


@pytest.mark.parametrize("wall", ["time.monotonic() * 1e6", "1e9 - time.monotonic() * 1e6"])
def test_a_clock_that_is_set_makes_no_restart_without_end_and_stops_none(wall: str) -> None:
    """Six failures were a moment ago: one more, and one that is the last, whatever the wall clock says."""
    now = boot_clock()
    done = ended(wall, [(now, "")] * 6)
    assert done.returncode == EXIT_FATAL
    assert (done.stderr.count("starting again"), done.stderr.count("stopping")) == (1, 1)
    done = ended(wall, [(now - WITHIN_S - 1, "")] * 6 + [(now, "")] * 5)
    assert (done.stderr.count("starting again"), done.stderr.count("stopping")) == (2, 1), "the old ones are forgotten"


def test_times_that_an_older_program_left_are_not_taken_for_the_future() -> None:
    """They are seconds since 1970: more than any machine has been up."""
    history = History([(1.7e9, "/d1"), (990.0, "/d2")], {}, [(1.7e9, "/d1"), (990.0, "/d2")])
    found = History.read({VARIABLE: msgspec.json.encode(history).decode()}, 1000.0)
    assert found == History([(990.0, "/d2")], {}, [(990.0, "/d2")])


def test_a_lost_map_is_no_doubt_of_durability() -> None:
    said = ended("0.0", [(boot_clock(), "")] * 7, error="LostMapError('the map was lost')")
    assert said.stderr == f"s4: {NO_MAP}, stopping to recover at the next start: the map was lost\n"

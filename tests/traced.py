"""A pytest plugin: how much of the tests coverage traces. What it says is a lower bound.

To trace takes all Python of a process two to three times as long, boto3's and Hypothesis's too. So a test is traced
for its first second of a processor: what a property or a crash repeats a thousand times is seen by then. One that is
marked `untraced` is not traced at all, fixtures included: what it asks of a server runs in the server, and some of
these are traced themselves (process.COVERED). pytest-cov's own `no_cover` does not hold in a worker of pytest-xdist:
it begins twice there, and stops once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import coverage
import pytest

TRACED_S = 1.0


def pytest_configure(config: pytest.Config) -> None:
    """What pytest-cov began in a worker before it knew that it is one, and forgets, ends here."""
    if hasattr(config, "workerinput") and (first := coverage.Coverage.current()) is not None:
        first.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    tracing = coverage.Coverage.current()
    if tracing is None:
        return (yield)
    before = signal.signal(signal.SIGPROF, lambda *_: tracing.stop())
    if item.get_closest_marker("untraced"):
        tracing.stop()
    else:
        signal.setitimer(signal.ITIMER_PROF, TRACED_S)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if coverage.Coverage.current() is None:
            tracing.start()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if getattr(config.option, "cov_source", None):
        terminalreporter.section("coverage, below, is a lower bound")
        terminalreporter.write_line(
            "traced: the servers that tests share, and the first second of tests that run S4 themselves"
        )

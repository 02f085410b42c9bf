"""A pytest plugin: tests marked `untraced` run without coverage, from the first of their fixtures to the last.

To trace takes all Python of a process twice as long, boto3's and Hypothesis's too. What a test asks of a server runs in the
server, some of which are traced themselves (process.COVERED); what a simulator or a crash repeats a thousand times is traced
elsewhere. pytest-cov's own `no_cover` does not hold in a worker of pytest-xdist: it begins twice there, and stops once.
"""

from __future__ import annotations

from collections.abc import Iterator

import coverage
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """What pytest-cov began in a worker before it knew that it is one, and forgets."""
    if hasattr(config, "workerinput") and (first := coverage.Coverage.current()) is not None:
        first.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    tracing = coverage.Coverage.current() if item.get_closest_marker("untraced") else None
    if tracing is None:
        return (yield)
    tracing.stop()
    try:
        return (yield)
    finally:
        tracing.start()

"""Every input that a fuzzer or a person kept, in each run of the tests: no broken promise, bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from fuzz.corpus import load
from fuzz.targets import TARGETS

LIMIT_S = 5.0  # an input is at most 4 KiB: what takes seconds is a hang in the making
PEAK_BYTES = 32 << 20


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    inputs = load(name)
    assert len(inputs) >= 3
    with TARGETS[name]() as run:
        for data in [b"", *inputs]:
            tracemalloc.start()
            started = time.monotonic()
            try:
                run(data)
                peak = tracemalloc.get_traced_memory()[1]
            except AssertionError as broken:
                raise AssertionError(f"{name} {data!r}: {broken}") from broken
            finally:
                tracemalloc.stop()
            assert time.monotonic() - started < LIMIT_S, data
            assert peak < PEAK_BYTES, data

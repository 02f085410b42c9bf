"""Every input that a fuzzer or a person kept, in each run of the tests: no broken promise, bounded time and memory."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from fuzz.corpus import load
from fuzz.targets import TARGETS
from s4.s3 import amz

LIMIT_S = 5.0  # of the processor; an input is at most 4 KiB: what takes seconds is a hang in the making
PEAK_BYTES = 32 << 20


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    inputs = load(name)
    assert len(inputs) >= 3
    with TARGETS[name]() as run:
        for data in [b"", *inputs]:
            tracemalloc.start()
            started = time.process_time()
            try:
                run(data)
                peak = tracemalloc.get_traced_memory()[1]
            except AssertionError as broken:
                raise AssertionError(f"{name} {data!r}: {broken}") from broken
            finally:
                tracemalloc.stop()
            assert time.process_time() - started < LIMIT_S, data
            assert peak < PEAK_BYTES, data


SAID = ("request", "presigned", "forms")  # by headers, by an address, by a form


def with_unknown(name: str) -> Iterator[bytes]:
    """Each request of the corpus with a name that nobody knows: as a header, and as a parameter; of a form, as a
    field."""
    for data in load(name):
        mode, lines = (data[:1], data[1:]) if name != "presigned" else (b"", data)
        first, _, rest = lines.partition(b"\n")
        if name == "forms":
            if mode and mode[0] % 2:
                yield b"%sx-amz-next: 1\n%s" % (mode, lines)
            continue
        yield b"%s%s\nx-amz-next: 1\n%s" % (mode, first, rest)
        yield b"%s%s%sX-Amz-Next=1\n%s" % (mode, first, b"&" if b"?" in first else b"?", rest)


@pytest.mark.parametrize("name", SAID)
def test_nothing_succeeds_that_says_what_nobody_knows(name: str) -> None:
    with TARGETS[name]() as run:
        for data in with_unknown(name):
            run(data)


@pytest.mark.parametrize("name", SAID)
def test_it_would_be_seen_if_something_did(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amz, "check", lambda *_: None)
    with TARGETS[name]() as run, pytest.raises(AssertionError, match="were passed over"):
        for data in itertools.chain(load(name), with_unknown(name)):
            run(data)

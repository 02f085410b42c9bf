"""Each call of the file layer fails once, wherever it is made: EIO, ENOSPC, a torn write, a delay.

A server must then either refuse cleanly and go on, or end; what is on disk is recovered without the fault, and
everything that was acknowledged is there.
"""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from crash import sites
from crash.history import History, recover
from process import forked
from s4.server.restart import EXIT_FATAL
from storage.fakes import FaultyFiles
from tiers import SOAK

METHODS = ("write", "sync", "create", "preallocate", "truncate", "unlink", "punch", "read")
FAULTS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "torn": FaultyFiles.TORN, "slow": FaultyFiles.SLOW}
CASES = [
    (method, fault)
    for method in METHODS
    for fault in FAULTS
    if (fault != "torn" or method == "write") and (fault != "slow" or method in ("sync", "read"))
]
AT, SLOW_AT = ((1, 2, 4, 9, 20, 45), (1, 7, 30)) if SOAK else ((1, 4, 20), (1,))  # at which call of its kind


def run(directories: list[Path], method: str, at: int, code: int) -> tuple[int, bool, History]:
    """(exit status, whether the fault came, what the process told) of one run."""
    process, ours = forked(sites.main, directories, method, at, code)
    history, fired = History(), False
    while True:
        try:
            kind, key, value = ours.recv()
        except EOFError:
            break
        if kind == "fired":
            fired = True
        elif kind == "begun":
            history.maybe[key] = value
        else:
            history.known[key] = history.maybe.pop(key)
    process.join()
    ours.close()
    status = process.exitcode
    process.close()
    assert status is not None
    return status, fired, history


@pytest.mark.parametrize("drives", [1, 6])
@pytest.mark.parametrize(("method", "fault"), CASES)
def test_each_call_fails_once(tmp_path: Path, method: str, fault: str, drives: int) -> None:
    outcomes = set()
    for at in SLOW_AT if fault == "slow" else AT:
        directories = [tmp_path / f"{at}" / f"d{number}" for number in range(1, drives + 1)]
        status, fired, history = run(directories, method, at, FAULTS[fault])
        assert status in (sites.DONE, sites.REFUSED, EXIT_FATAL), status
        if not fired:
            break
        outcomes.add(status)
        asyncio.run(recover(directories, history))
    if method in ("write", "sync") and fault != "slow":
        assert EXIT_FATAL in outcomes
    if (method, fault) == ("preallocate", "ENOSPC"):
        assert outcomes == {
            sites.REFUSED if drives == 1 else sites.DONE
        }  # of six, the one that is full is done without
    if fault == "slow":
        assert outcomes <= {sites.DONE}

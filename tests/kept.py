"""Runs programs so that nothing which they start outlives them, not even what has left its session, as PostgreSQL does.

`python kept.py COMMAND…` is a process between the tests and a program: what the program leaves behind becomes its
child (prctl(2), PR_SET_CHILD_SUBREAPER), and it ends those, by their ids, when the program has ended, when it is told
to end, and when the tests die.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PDEATHSIG, SUBREAPER = 1, 36
KEEPER = (sys.executable, "-I", "-S", str(Path(__file__).resolve()))


@contextmanager
def started(command: Sequence[str | os.PathLike[str]], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program that runs until the end of the block, and all that it started."""
    with subprocess.Popen([*KEEPER, str(os.getpid()), *command], **options) as process:
        try:
            yield process
        finally:
            process.terminate()  # not kill: the one between has to end the others
            process.wait()


def run(
    command: Sequence[str | os.PathLike[str]], *, limit_s: float, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A program to its end, with what it says. Raises TimeoutExpired."""
    pipe = subprocess.PIPE
    with started(command, stdout=pipe, stderr=pipe, text=True, **options) as process:
        out, err = process.communicate(timeout=limit_s)
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


def _below(ancestor: int) -> list[int]:
    """All that a process started, and what these did; not what has ended."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    found, grown = {ancestor}, True
    while grown:
        more = {one for one, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return sorted(found - {ancestor})


def _end_all() -> None:
    while below := _below(os.getpid()):
        for one in below:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)  # whose children these were may only now be learnt


def _prctl() -> Callable[..., int]:
    called: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return called


def main(tests: int, command: list[str]) -> int:
    def told(*_: object) -> None:
        _end_all()
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, told)
    prctl = _prctl()
    prctl(SUBREAPER, 1)
    prctl(PDEATHSIG, signal.SIGTERM)
    if os.getppid() != tests:  # they died before we could hear of it
        return 1
    program = subprocess.Popen(command)
    code = program.wait()
    _end_all()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

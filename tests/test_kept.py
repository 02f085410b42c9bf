"""Nothing that a program starts outlives it: tried with one that leaves its session and its parent, as a daemon
does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kept
from process import wait_until

# Writes the id of a daemon that it starts, and goes on itself unless it is told to end.
LEAVES = textwrap.dedent("""
    import os, subprocess, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(sys.argv[1] + ".new", "w") as file:
                file.write(str(os.getpid()))
            os.rename(sys.argv[1] + ".new", sys.argv[1])
            time.sleep(1000)
        os._exit(0)
    os.wait()
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    time.sleep(float(sys.argv[2]))
    sys.exit(7)
""")


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_program_that_ends_leaves_nothing(tmp_path: Path) -> None:
    done = kept.run([sys.executable, "-c", LEAVES, tmp_path / "id", "0"], limit_s=100)
    assert done.returncode == 7
    assert gone(int((tmp_path / "id").read_text()))


def test_a_program_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    with kept.started([sys.executable, "-c", LEAVES, tmp_path / "id", "1000"]):
        left = int(wait_until(lambda: (tmp_path / "id").exists() and (tmp_path / "id").read_text(), "the daemon runs"))
    assert gone(left)
    with pytest.raises(subprocess.TimeoutExpired):
        kept.run([sys.executable, "-c", LEAVES, tmp_path / "other", "1000"], limit_s=0.5)


def test_what_runs_a_program_dies(tmp_path: Path) -> None:
    text = f"import sys; sys.path.insert(0, {str(Path(kept.__file__).parent)!r}); import kept; kept.run([sys.executable, '-c', {LEAVES!r}, sys.argv[1], '1000'], limit_s=1000)"
    tests = subprocess.Popen([sys.executable, "-c", text, tmp_path / "id"])
    left = int(wait_until(lambda: (tmp_path / "id").exists() and (tmp_path / "id").read_text(), "the daemon runs"))
    assert not gone(left)
    tests.send_signal(signal.SIGKILL)
    tests.wait()
    wait_until(lambda: gone(left), "the daemon has ended too")

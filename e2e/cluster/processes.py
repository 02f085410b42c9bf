"""Programs of the local cluster: run one, or have it run in the background until it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

STATE = Path(os.environ.get("S4_E2E_STATE", "/var/lib/s4-e2e"))


def sh(*words: object, check: bool = True, stdin: str | None = None) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, input=stdin)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done.stdout


def wait(what: str, limit_s: float, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + limit_s
    while not ready():
        if time.monotonic() > until:
            raise SystemExit(f"{what}: not within {limit_s:.0f} s; see {STATE}/log")
        time.sleep(0.2)


def start(name: str, *words: object) -> None:
    """Run a program in the background; its pid and log are in the state folder."""
    with (STATE / "log" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in words], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    (STATE / "pid" / name).write_text(str(process.pid))


def stop(name: str) -> None:
    path = STATE / "pid" / name
    if path.exists():
        kill([int(path.read_text())])
        path.unlink()


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue

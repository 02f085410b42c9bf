"""Ending after an error that leaves durability in doubt (rule D7), and starting again by itself.

Nothing in memory can be trusted then, so the process replaces itself by a new one of the same command line, which
recovers from what is on disk and goes on listening on the same sockets. What failed, and when, travels in an
environment variable: a drive that fails a second time within minutes is left out, and a server that keeps failing ends
for good, so that whatever started it can wait and see. With it goes the newest revision of the map that this process
had: fewer drives than a majority are enough for the next one where they have that (M2), and else not, since one that
was put aside long ago would pass for all there is. `S4_RESTART=off` always ends. Times are of a clock that nobody
sets, and that is the same for all of these processes (base/clock.py): with one that steps forward a server would start
again for ever, and with one that steps back what failed would never be forgotten.

A process whose map of the cluster was lost ends in the same way, and says so: nothing is in doubt then.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from s4.base.clock import boot_clock
from s4.cluster.keeper import LostMapError
from s4.storage.directory import DriveError

EXIT_FATAL = 70
IN_DOUBT = "durability is in doubt"
NO_MAP = "what this process knew of the cluster is no more"
VARIABLE = "S4_FAILURES"
WITHIN_S = 300.0
DRIVE_FAILURES = 2
DRIVE_RENEWALS = 3  # by itself, within WITHIN_S
MOST_RESTARTS = 8
FIRST_WAIT_S, MOST_WAIT_S = 0.02, 5.0

_ending = threading.Lock()
_revision: Callable[[], int] = int


class History(msgspec.Struct):
    """(seconds by `boot_clock`, directory or "") of failures in the last minutes, the oldest first; listening
    sockets; the newest revision of a server's map."""

    failures: list[tuple[float, str]] = []
    sockets: dict[str, int] = {}
    renewals: list[tuple[float, str]] = []
    map: int = 0

    @classmethod
    def read(cls, environment: Mapping[str, str], now: float | None = None) -> History:
        """What the process before this one, and those before it, left."""
        history = msgspec.json.decode(environment.get(VARIABLE, "{}"), type=cls)
        until = boot_clock() if now is None else now
        failures, renewals = (
            [event for event in events if until - WITHIN_S <= event[0] <= until]  # later ones are seconds since 1970
            for events in (history.failures, history.renewals)
        )
        return cls(failures, history.sockets, renewals, history.map)

    def failed(self) -> frozenset[Path]:
        """Directories whose drives are left out: they failed more than once."""
        named = [directory for _, directory in self.failures if directory]
        return frozenset(Path(one) for one in named if named.count(one) >= DRIVE_FAILURES)

    def add(self, directory: str, now: float) -> None:
        self.failures.append((now, directory))

    def blame(self, error: BaseException, now: float) -> None:
        """Note what failed; a drive that is to be left out at once counts as one that failed often enough."""
        directory = str(error.directory) if isinstance(error, DriveError) else ""
        for _ in range(DRIVE_FAILURES if isinstance(error, DriveError) and error.for_good else 1):
            self.add(directory, now)

    def write(self) -> None:
        """Leave it to the process that comes after."""
        os.environ[VARIABLE] = msgspec.json.encode(self).decode()


def keep_open(name: str, bound: socket.socket) -> None:
    """Hand a listening socket on to the next process, so that clients wait for it instead of being refused."""
    history = History.read(os.environ)
    history.sockets[name] = bound.fileno()
    history.write()


def kept_open(name: str) -> socket.socket | None:
    """The socket that the process before this one handed on."""
    number = History.read(os.environ).sockets.get(name)
    if number is None:
        return None
    kept = socket.socket(fileno=number)
    kept.set_inheritable(False)
    return kept


def die(error: BaseException, what: str = IN_DOUBT) -> None:
    """End at once, for `what`; a new process takes over unless there were too many. Does not return."""
    if not _ending.acquire(blocking=False):
        time.sleep(60)  # another thread is about to end this process
    if isinstance(error, LostMapError):  # whoever met it: it is read in many places
        what = NO_MAP
    if not isinstance(error, DriveError | LostMapError):  # which say themselves what is wrong: no fault of the program
        traceback.print_exception(error)
    history = History.read(os.environ)
    history.blame(error, boot_clock())
    again = os.environ.get("S4_RESTART", "on") != "off" and len(history.failures) < MOST_RESTARTS
    then = "starting again to recover" if again else "stopping to recover at the next start"
    sys.stderr.write(f"s4: {what}, {then}: {error}\n")
    sys.stderr.flush()
    if again:
        time.sleep(min(FIRST_WAIT_S * 2 ** len(history.failures), MOST_WAIT_S))
        _execute(history)
    os._exit(EXIT_FATAL)


def renew(directory: Path) -> None:
    """Start again, to take a drive in whose failures are forgotten. Nothing is in doubt. Does not return."""
    if not _ending.acquire(blocking=False):
        time.sleep(60)
    history = History.read(os.environ)
    history.failures = [failure for failure in history.failures if failure[1] != str(directory)]
    history.renewals.append((boot_clock(), str(directory)))
    _execute(history)


def may_renew(directory: Path) -> bool:
    """Whether that was not done for this directory too often: one that is taken in and fails, again and again, is not
    back."""
    return [named for _, named in History.read(os.environ).renewals].count(str(directory)) < DRIVE_RENEWALS


def remember(revision: Callable[[], int]) -> None:
    """What the newest revision of the map is that this process has, for the one that comes after."""
    global _revision  # noqa: PLW0603 - there is one process
    _revision = revision


def _execute(history: History) -> None:
    history.map = max(history.map, _revision())
    history.write()
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2:
            _inherit(fd, fd in history.sockets.values())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves


def _inherit(fd: int, keep: bool) -> None:
    try:
        os.set_inheritable(fd, keep)
    except OSError:
        return  # the one that listed the directory

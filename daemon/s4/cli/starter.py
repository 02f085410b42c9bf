"""Starts servers without each of them loading the program: one process loads it, and is forked for each.

Loading is most of what a start costs, half a second of a processor. `s4 dev` starts the nodes of its cluster so, and
tests their servers. What is started is as if its command line had been run: arguments, environment, output, a session
of its own; and it starts itself again by that command line (server/restart.py).

For editors: the loading process has one thread, no event loop and no open file but its socket, so that nothing of it
but modules is in what it forks. It ends when its owner does; what it started goes on, as it would have without it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

import msgspec

MESSAGE_BYTES = 1 << 17  # of an environment and arguments; a socket takes some 200 KiB at once
TURN_S = 0.05  # that one thread listens for the end of a process before others may


class _Start(msgspec.Struct):
    arguments: list[str]
    environment: dict[str, str]


class _Said(msgspec.Struct):
    """A process was started (no status), or has ended."""

    pid: int
    status: int | None = None


class Starter:
    """A process that starts others. For any thread, one call at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "s4.cli.starter_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._lock = threading.Lock()
        self._ended: dict[int, int] = {}

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], errors: IO[bytes]) -> Started:
        """Run `s4 ARGUMENTS`, with a pipe for its output. Raises OSError where the starter is gone."""
        read, write = os.pipe()
        with self._lock:
            try:
                request = msgspec.json.encode(_Start(list(arguments), dict(environment)))
                socket.send_fds(self._socket, [request], [write, errors.fileno()])
                while (said := self._hear()) is None or said.status is not None:
                    pass
            except BaseException:
                os.close(read)
                raise
            finally:
                os.close(write)
            self._ended.pop(said.pid, None)  # of another that had this number
        return Started(self, said.pid, os.fdopen(read, "rb"))

    def _hear(self, wait_s: float | None = None) -> _Said | None:
        """The next word, None where it does not come in time. Raises ConnectionError. With the lock."""
        self._socket.settimeout(wait_s)
        try:
            data = self._socket.recv(1 << 10)
        except (TimeoutError, BlockingIOError):
            return None
        if not data:
            raise ConnectionError("the process that starts others has ended")
        said = msgspec.json.decode(data, type=_Said)
        if said.status is not None:
            self._ended[said.pid] = said.status
        return said

    def status(self, pid: int, wait_s: float) -> int | None:
        """How a process ended, negative by which signal; None where it has not yet."""
        with self._lock:
            while pid not in self._ended and self._hear(wait_s) is not None:
                pass
            return self._ended.get(pid)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


class Started:
    """A process of a starter, as a Popen: `stdout` is the end of a pipe."""

    def __init__(self, starter: Starter, pid: int, stdout: IO[bytes]) -> None:
        self._starter, self.pid, self.stdout = starter, pid, stdout
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """As a Popen: not None from the moment the process has ended, though its starter may have yet to say so."""
        if self.returncode is None:
            self.returncode = self._starter.status(self.pid, 0.0)
        return self.wait() if self.returncode is None and has_ended(self.pid) else self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        ends = time.monotonic() + timeout if timeout is not None else float("inf")
        while self.returncode is None:
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired("s4", timeout or 0.0)
            self.returncode = self._starter.status(self.pid, TURN_S)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and the starter has not said so yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """Whether all threads of a process have, be it that its parent has not looked yet."""
    try:
        number = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended = select.poll()
        ended.register(number, select.POLLIN)
        return bool(ended.poll(0))
    finally:
        os.close(number)


def serve(owner: socket.socket) -> list[str] | None:
    """Start what is asked for; returns its arguments in each process that was forked, None at the end."""
    running: set[int] = set()
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Not select(): it takes no number above 1023, and `owner` has the number that its process gave it.
    either = select.poll()
    for end in (owner, wake):
        either.register(end, select.POLLIN)
    while True:
        ready = {number for number, _ in either.poll()}
        if wake.fileno() in ready:
            wake.recv(1 << 10)
        for pid in [pid for pid in running if _reap(pid, owner)]:
            running.remove(pid)
        if owner.fileno() not in ready:
            continue
        data, files, _, _ = socket.recv_fds(owner, MESSAGE_BYTES, 2)
        if not data:
            return None
        asked = msgspec.json.decode(data, type=_Start)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            for end in (owner, wake, woken):
                end.close()
            _become(asked, files)
            return asked.arguments
        for number in files:
            os.close(number)
        running.add(pid)
        _tell(owner, _Said(pid))


def _reap(pid: int, owner: socket.socket) -> bool:
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
        _tell(owner, _Said(pid, os.waitstatus_to_exitcode(status)))
    return bool(found)


def _tell(owner: socket.socket, said: _Said) -> None:
    with contextlib.suppress(BrokenPipeError):  # the owner has ended, as the next look at its socket tells
        owner.send(msgspec.json.encode(said))


def _become(asked: _Start, files: list[int]) -> None:
    """Be the process that this command line would have made."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, wanted in zip(files, (1, 2), strict=True):
        os.dup2(number, wanted)
        os.close(number)
    os.environ.clear()
    os.environ.update(asked.environment)
    sys.argv = ["s4", *asked.arguments]
    sys.orig_argv = [sys.executable, "-m", "s4.cli", *asked.arguments]

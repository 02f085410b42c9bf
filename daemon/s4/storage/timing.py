"""How long a drive takes for what it is asked, and what it has not answered yet: from that people are told that it is
slow.

A drive that dies slowly answers everything, each time later; one that hangs fails nothing and answers nothing. Neither
is an error, so nothing else notices them. Reads that the page cache answers are not counted: they say nothing of a
drive. Threads of one drive share one of these. An editor must keep `begin` and `end` cheap: they are on the path of
every write.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

READ, WRITE, SYNC = KINDS = ("read", "write", "sync")
SLOW_S = 2.0  # an operation that takes longer is a slow one, unless a limit says otherwise
SLOW_MANY = 4  # of them within WITHIN_S are a slow drive: one alone may be a machine that was busy
WITHIN_S = 60.0


class Times:
    """Sums by kind of operation, and what was slow lately."""

    def __init__(self, slow_s: float = SLOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.slow_s, self._clock, self._lock = slow_s, clock, threading.Lock()
        self.count = dict.fromkeys(KINDS, 0)
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self.errors = dict.fromkeys(KINDS, 0)
        self._running: dict[int, tuple[str, float]] = {}
        self._slow: deque[tuple[float, float]] = deque(maxlen=1000)  # (when it ended, seconds) of slow ones
        self._number = 0

    def begin(self, kind: str) -> int:
        started = self._clock()
        with self._lock:
            self._number += 1
            self._running[self._number] = kind, started
            return self._number

    def end(self, number: int, *, failed: bool = False) -> None:
        now = self._clock()
        with self._lock:
            kind, started = self._running.pop(number)
            took = now - started
            self.count[kind] += 1
            self.seconds[kind] += took
            self.errors[kind] += failed
            if took >= self.slow_s:
                self._slow.append((now, took))

    def of(self, kind: str, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Make a call that waits for the drive."""
        number, failed = self.begin(kind), True
        try:
            found = call(*arguments, **named)
            failed = False
            return found
        finally:
            self.end(number, failed=failed)

    def slow(self) -> str:
        """Why the drive is slow, in words; empty where it is not."""
        now = self._clock()
        with self._lock:
            waits = [(now - started, kind) for kind, started in self._running.values()]
            recent = [took for ended, took in self._slow if ended > now - WITHIN_S]
        longest, kind = max(waits, default=(0.0, ""))
        if longest >= SLOW_MANY * self.slow_s:
            return f"a {kind} has not ended for {longest:.0f} s"
        if len(recent) >= SLOW_MANY:
            return f"{len(recent)} operations took more than {self.slow_s:g} s each within a minute, the longest {max(recent):.1f} s"
        return ""

"""Who uses volumes on other threads, and since when; and which places of a drive could not be read lately.

A use counts from the moment it is asked for until its thread is done with it, though nobody waits for the result any
more: what a reader may still want is not unlinked under it (D6), whoever it is: a client, a peer, a scrub, a punch. A
thread that a dying disk never lets go would hold all of that back for ever. After STUCK_S nobody is left who could
want what it reads: a request lives for half of that, and whatever it reads by then is checked like all that is read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from s4.base.clock import boot_clock

P = ParamSpec("P")
T = TypeVar("T")

STUCK_S = 86_400.0
FAILING_S = 600.0
FAILING = 64  # places within FAILING_S: more than a few bad sectors


class Use:
    """One use, which `run` carries out on a thread."""

    __slots__ = ("_running", "_uses", "since")

    def __init__(self, uses: Uses, since: float) -> None:
        self._uses, self.since, self._running = uses, since, False

    def run(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        self._running = True
        self._uses.add(self)  # once more: who waited for it may have given it up just now
        try:
            return call(*arguments, **named)
        finally:
            self._uses.drop(self)

    def give_up(self) -> None:
        """Nobody waits for it any more. It ends now if no thread has begun with it, else when that is done."""
        if not self._running:
            self._uses.drop(self)


class Uses:
    """The uses in progress, oldest first; compared with readers of other processes, so on their clock."""

    def __init__(self, clock: Callable[[], float] = boot_clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._all: dict[Use, None] = {}

    def begin(self) -> Use:
        use = Use(self, self._clock())
        self.add(use)
        return use

    def add(self, use: Use) -> None:
        with self._lock:
            self._all[use] = None

    def drop(self, use: Use) -> None:
        with self._lock:
            self._all.pop(use, None)

    def oldest(self) -> float:
        """When the oldest one began that is not stuck; now where there is none."""
        now = self._clock()
        with self._lock:
            return min((use.since for use in self._all if use.since > now - STUCK_S), default=now)


class FailingReads:
    """Places (volume, offset) that the drive could not read. `many` of them are no bad sector: the drive is failing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._places: dict[tuple[int, int], float] = {}
        self.count = 0

    def note(self, volume: int, offset: int) -> None:
        now = self._clock()
        with self._lock:
            self.count += 1
            self._places.pop((volume, offset), None)
            self._places[volume, offset] = now
            while len(self._places) > FAILING or next(iter(self._places.values())) < now - FAILING_S:
                del self._places[next(iter(self._places))]

    @property
    def many(self) -> bool:
        since = self._clock() - FAILING_S
        with self._lock:
            return sum(when >= since for when in self._places.values()) >= FAILING

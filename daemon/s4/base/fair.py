"""A queue that is fair between users, and for each of them between buckets: whoever asks for little does not wait for
who asks for much.

Start-time fair queueing (Goyal, Vin, Cheng 1996), twice: each user, and each bucket of a user, has a virtual time at
which its next item starts, which each item moves on by its cost; what starts first goes first. Who comes after a pause
starts now, and saved nothing up meanwhile. The queue knows no clock and no event loop.

For editors: a branch is in its parent's heap exactly while it has items, and in no other; its start never moves back.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
LATELY_S = 10.0  # who asks all the time and nobody else in so long is alone
REMEMBERED = 1000  # branches that have no items, until their starts are past


class Flow(NamedTuple):
    """For whom something is done."""

    user: str
    bucket: str


NOBODYS = Flow("", "")  # what the store does by itself, or another process for whom it knows
FLOW: ContextVar[Flow] = ContextVar("flow", default=NOBODYS)


class Company:
    """Whether others asked for something lately too: where nobody did there is nobody to be fair to."""

    __slots__ = ("_clock", "_last", "_since")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: object = None
        self._since = -math.inf  # that nobody but the last one asked

    def note(self, who: object) -> None:
        """Somebody asks."""
        if who != self._last:
            if self._last is not None:
                self._since = self._clock()
            self._last = who

    @property
    def alone(self) -> bool:
        return self._clock() - self._since >= LATELY_S


@dataclass(slots=True)
class _Branch(Generic[T]):
    """What one user, or one bucket of it, waits for."""

    start: int = 0
    items: deque[tuple[int, T]] = field(default_factory=deque)  # of a bucket
    below: _Level[T] | None = None  # of a user


class _Level(Generic[T]):
    """Branches beside each other."""

    __slots__ = ("branches", "heap", "now", "order")

    def __init__(self) -> None:
        self.now, self.order = 0, 0
        self.branches: dict[str, _Branch[T]] = {}
        self.heap: list[tuple[int, int, str]] = []  # those that have items: start, order, name

    def branch(self, name: str, *, waits: bool) -> _Branch[T]:
        """The branch of that name, which `waits` or has no items yet and gets one."""
        found = self.branches.get(name)
        if found is None:
            if len(self.branches) > REMEMBERED + 2 * len(self.heap):
                waiting = {other for _, _, other in self.heap}
                self.branches = {
                    other: one for other, one in self.branches.items() if other in waiting or one.start > self.now
                }
            found = self.branches[name] = _Branch()
        if not waits:
            found.start = max(found.start, self.now)
            self.enter(name, found)
        return found

    def enter(self, name: str, branch: _Branch[T]) -> None:
        self.order += 1
        heapq.heappush(self.heap, (branch.start, self.order, name))

    def first(self) -> tuple[str, _Branch[T]]:
        """Taken out of the heap."""
        self.now, _, name = heapq.heappop(self.heap)
        return name, self.branches[name]


class FairQueue(Generic[T]):
    """Items with a cost, of flows; `length` of them. Those of one flow alone stand in a plain line: there is nothing to
    be even about."""

    def __init__(self) -> None:
        self._users: _Level[T] = _Level()
        self._counts: dict[str, int] = {}  # of users that have items, but in the line
        self.length = 0
        self._flow: Flow | None = None  # of those in the line; None where several have items
        self._line: deque[tuple[int, T]] = deque()
        self._served = False  # the line's flow had its turn: whoever comes is next

    def __len__(self) -> int:
        return self.length

    def count(self, user: str) -> int:
        """Items of a user that wait."""
        if self._flow is not None:
            return self.length if self._flow.user == user else 0
        return self._counts.get(user, 0)

    def push(self, flow: Flow, cost: int, item: T) -> None:
        if not self.length:
            self._flow, self._served = flow, False
        self.length += 1
        if flow == self._flow:
            self._line.append((cost, item))
            return
        lines: list[tuple[Flow, Sequence[tuple[int, T]]]] = [(flow, [(cost, item)])]
        if self._flow is not None:
            lines.insert(int(self._served), (self._flow, self._line))
            self._flow, self._line = None, deque()
        for one in lines:
            self._place(*one)

    def _place(self, flow: Flow, items: Sequence[tuple[int, T]]) -> None:
        waiting = self._counts.get(flow.user, 0)
        self._counts[flow.user] = waiting + len(items)
        user = self._users.branch(flow.user, waits=waiting > 0)
        if user.below is None:
            user.below = _Level()
        found = user.below.branches.get(flow.bucket)
        bucket = user.below.branch(flow.bucket, waits=found is not None and bool(found.items))
        bucket.items.extend(items)

    def pop(self) -> tuple[int, T]:
        """The next one and its cost. Raises IndexError where there is none."""
        if self._flow is not None:
            only = self._line.popleft()
            self.length -= 1
            self._served = True
            return only
        name, user = self._users.first()
        if user.below is None:
            raise IndexError(name)
        bucket_name, bucket = user.below.first()
        cost, item = bucket.items.popleft()
        bucket.start += cost
        if bucket.items:
            user.below.enter(bucket_name, bucket)
        user.start += cost
        self.length -= 1
        self._counts[name] -= 1
        if self._counts[name]:
            self._users.enter(name, user)
        else:
            del self._counts[name]
        if not self.length:
            self._users = _Level()  # nobody waits: nothing is left to be even about
        return cost, item

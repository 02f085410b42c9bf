"""Places of requests that are at work, so that nobody has all of them: a user may have a third of those that are free.

That is a quarter for who is alone (of 256 places 64, which keep a process of Python busy), and whoever comes beside
finds as many free as there were when the first one came, and so on (Choudhury and Hahne's dynamic thresholds, 1998).
What a user asks for beyond waits, in an order that is fair between its buckets; it has half of what is free of the
room to wait in, and is refused beyond. A request that waits for its client leaves its place, and what it sends or
takes is paced by memory and turns; what was sent whole takes a place again before it is committed.

Where several users ask, all of them together have no more places than keep the event loop at work (`Pace`), beside one
for each: what is at work beyond gains its user nothing, and everybody else waits for it at each step.

For editors: whoever enters leaves, once or several times.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar

from s4.base import tasks
from s4.base.fair import Company, FairQueue, Flow
from s4.s3.errors import S3Error

PACE_LEAST = 4  # at work, which keep a loop of Python three quarters at work where a sync takes a millisecond
LOOK_S = 0.02
BUSY, IDLE = 0.7, 0.5  # of the time that the loop's thread could have


class Place:
    """The place of one request, or of what is no request and needs none."""

    __slots__ = ("_places", "flow", "taken")

    def __init__(self, user: str, bucket: str, places: Places | None = None) -> None:
        self.flow, self._places, self.taken = Flow(user, bucket), places, False

    def enter_now(self) -> bool:
        """Whether that needs no waiting."""
        if self._places is not None and self._places.take_now(self.flow.user):
            self.taken = True
        return self.taken

    async def enter(self) -> None:
        """Raises S3Error SlowDown."""
        if self._places is not None and not self.taken:
            await self._places.take(self.flow, known=False)
            self.taken = True

    async def again(self) -> None:
        """Where it was left, and the request goes on: never refused for those that wait before it, but for the time."""
        if self._places is not None and not self.taken:
            await self._places.take(self.flow, known=True)
            self.taken = True

    def leave(self) -> None:
        if self.taken and self._places is not None:
            self.taken = False
            self._places.give_back(self.flow.user)


NOBODYS = Place("", "")
PLACE: ContextVar[Place] = ContextVar("place", default=NOBODYS)


class Pace:
    """How many are at work where several users ask: half as many where the loop's thread is busy, down to PACE_LEAST,
    and more, up to `most`, where it is idle, since they wait for a disk or another machine. That thread asks."""

    def __init__(
        self,
        company: Company,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        self._company, self._most, self._clock, self._worked = company, most, clock, worked
        self._now, self._at, self._worked_s = PACE_LEAST, clock(), worked()

    def holds_up(self, taken: int) -> bool:
        """Whether one more beside those that are at work would only make others wait."""
        if taken < PACE_LEAST or self._company.alone:
            return False
        passed = self._clock() - self._at
        if passed >= LOOK_S:
            worked_s = self._worked()
            share = (worked_s - self._worked_s) / passed
            self._at, self._worked_s = self._at + passed, worked_s
            if share > BUSY:
                self._now = max(PACE_LEAST, self._now // 2)
            elif share < IDLE:
                self._now = min(self._most, self._now + 1 + self._now // 4)
        return taken >= self._now


class Places:
    """`most` places in all, room for `waiting_most` to wait in, for at most `wait_s`."""

    def __init__(self, most: int, waiting_most: int, wait_s: float, company: Company) -> None:
        self._most, self._waiting_most, self._wait_s = most, waiting_most, wait_s
        self._pace = Pace(company, most // 4)
        self._taken: dict[str, int] = {}  # by user
        self._queues: OrderedDict[str, FairQueue[asyncio.Future[None]]] = OrderedDict()  # by user, next first
        self.taken = self.waiting = 0

    def take_now(self, user: str) -> bool:
        free = self._most - self.taken
        taken = self._taken.get(user, 0)
        if user in self._queues or free <= 0 or (taken and (taken >= free // 3 or self._pace.holds_up(self.taken))):
            return False
        self.taken += 1
        self._taken[user] = taken + 1
        return True

    async def take(self, flow: Flow, *, known: bool) -> None:
        """Raises S3Error SlowDown."""
        user = flow.user
        if self.take_now(user):
            return
        queue = self._queues.get(user)
        if not known and (len(queue) if queue is not None else 0) >= max(1, self._waiting_most - self.waiting):
            raise _slow_down()
        if queue is None:
            queue = self._queues[user] = FairQueue()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.push(flow, 1, future)
        self.waiting += 1
        try:
            async with tasks.within(self._wait_s):
                await future
        except BaseException as error:
            if future.cancelled():
                self._grant()  # what waits behind it must not wait for it
            else:
                self.give_back(user)
            if isinstance(error, TimeoutError):
                raise _slow_down() from None
            raise

    def give_back(self, user: str) -> None:
        self._end(user)
        if self._queues:
            self._grant()

    def _end(self, user: str) -> None:
        self.taken -= 1
        self._taken[user] -= 1
        if not self._taken[user]:
            del self._taken[user]

    def _grant(self) -> None:
        """Let in whoever may, users in turn."""
        passed = 0
        while passed < len(self._queues) and self.taken < self._most:
            user, queue = next(iter(self._queues.items()))
            passed += 1
            del self._queues[user]  # it is the next one's turn, or nobody waits any more
            if self.take_now(user):
                passed = 0
                self.waiting -= 1
                _, future = queue.pop()
                if future.done():
                    self._end(user)
                else:
                    future.set_result(None)
            if len(queue):
                self._queues[user] = queue


def _slow_down() -> S3Error:
    return S3Error("SlowDown", headers={"Retry-After": "1", "Connection": "close"})

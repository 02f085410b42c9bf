"""Threads of simulated processes, as greenlets: they stand still at each system call, while everybody else goes on.

So threads interleave where real ones may, between any two system calls, by the seed. What the code that ships takes
from `threading`, `queue` and `concurrent.futures` is here, under the same names.

For editors: `block` is the one place where a thread stands still. On a loop itself there is no standing still: who
would wait there for a thread has it go on at once, and where that cannot be, the run is stuck.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from whole.loop import Loop, Process


class DeadError(BaseException):
    """This process has ended: nothing that it still runs may do anything."""


class StuckError(Exception):
    """Something runs for ever, or waits for ever."""


class Job:
    """Blocking work of a process on a thread of its own. It stands still in `block`."""

    def __init__(
        self, loop: Loop, process: Process, work: Callable[[], Any], future: asyncio.Future[Any] | None = None
    ) -> None:
        self.loop, self.process, self._work, self._future = loop, process, work, future
        self._context = contextvars.copy_context()
        self._greenlet = greenlet(self._main)
        self._greenlet.job = self
        self._greenlet.gr_context = self._context
        self._turn, self.done = 0, False
        self.waits_for: Lock | None = None
        self.joined: list[Job] = []

    def begin(self) -> None:
        self._after(self.loop.random.random() * 0.0003)

    def _after(self, delay: float) -> None:
        self._turn += 1
        self.loop.at(delay, partial(self._due, self._turn))

    def _due(self, turn: int) -> None:
        if not self.process.alive:
            self.process.kept.append(self)
        elif turn == self._turn:
            if self.process.paused:
                self.loop.at(0.05, partial(self._due, turn))
            else:
                self.go_on()

    def go_on(self) -> None:
        """Run until it blocks again."""
        self._turn += 1
        self._greenlet.parent = getcurrent()
        delay = self._greenlet.switch()
        if self.done or not self.process.alive:
            if not self.done:
                self.process.kept.append(self)
            return
        if delay is not None:
            self._after(delay)

    def wake(self) -> None:
        self._after(self.loop.random.random() * 0.00005)

    def _main(self) -> None:
        try:
            result = self._work()
        except DeadError:
            self.done = True
            return
        except BaseException as error:
            if self._future is not None and not self._future.done():
                self._future.set_exception(error)
        else:
            if self._future is not None and not self._future.done():
                self._future.set_result(result)
        self.done = True
        for job in self.joined:
            job.wake()


def job() -> Job | None:
    """The job that runs now, None on a loop."""
    return getattr(getcurrent(), "job", None)


def block(seconds: float | None) -> None:
    """Stand still: for a while, or (None) until `wake`. On the loop itself there is no standing still."""
    current = job()
    if current is not None:
        current._greenlet.parent.switch(seconds)


class Lock:
    """`threading.Lock` between jobs and loops."""

    def __init__(self) -> None:
        self._held, self._holder = False, None
        self._waiting: deque[Job] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        while self._held:
            if not blocking:
                return False
            mine = job()
            if mine is None:  # the loop's thread waits: whoever has the lock goes on until it is free
                self._hurry()
            else:
                self._waiting.append(mine)
                mine.waits_for = self
                block(None)
                mine.waits_for = None
        self._held, self._holder = True, job()
        return True

    def _hurry(self) -> None:
        holder = self._holder
        if holder is None:
            raise StuckError("a loop waits for a lock that it has itself")
        if holder.waits_for is not None and holder.waits_for._held:
            holder.waits_for._hurry()
        else:
            holder.go_on()

    def release(self) -> None:
        self._held, self._holder = False, None
        if self._waiting:
            self._waiting.popleft().wake()

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Thread:
    """`threading.Thread`: a job that nobody awaits."""

    def __init__(self, *, target: Callable[[], None], name: str = "", daemon: bool = False) -> None:
        self._target, self._job = target, None

    def start(self) -> None:
        loop: Any = asyncio._get_running_loop()
        self._job = Job(loop, loop.here(), self._target)
        loop.here().kept.append(self._job)
        self._job.begin()

    def join(self) -> None:
        mine = job()
        while self._job is not None and not self._job.done:
            if mine is None:
                raise StuckError("a loop joins a thread")
            self._job.joined.append(mine)
            block(None)


class SimpleQueue:
    """`queue.SimpleQueue`, read by one job."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._reader: Job | None = None

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._reader is not None:
            self._reader.wake()
            self._reader = None

    def get(self) -> Any:
        while not self._items:
            self._reader = job()
            block(None)
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()


class Pool:
    """`ThreadPoolExecutor` for those who use it without a loop: one call after the other."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def map(self, call: Callable[..., Any], *items: Any) -> list[Any]:
        return [call(*one) for one in zip(*items, strict=True)]

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


threads = SimpleNamespace(Thread=Thread, Lock=Lock)
queues = SimpleNamespace(SimpleQueue=SimpleQueue, Empty=queue.Empty)

"""Background work: what a process does by itself, again and again, beside what it is asked for.

Every loop of that kind goes through here, for one that ends by an error is missed by nobody until much later. No error
ends a job: it is told, counted, and the job runs again, later each time up to a bound; the same error again is told
once a minute. Only `stop` and `close` end one, or its own success where it is to be done once. Loops whose errors must
end the process are not jobs: the writer loops and what belongs to them (`replica/`), for after a failed write nothing
in memory counts any more (D7).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from s4.base.metrics import Metric, counter, gauge

log = logging.getLogger(__name__)

RETRY_S, MOST_RETRY_S = 0.2, 10.0
TELL_AGAIN_S = 60.0
ALARM_S, ALARM_TIMES = 60.0, 3  # a job that fails for so long, and so often in a row, is told to people

T = TypeVar("T")


@dataclass(slots=True)
class Failures:
    """Errors of one thing that is tried again and again: `total` since the start, `in_a_row` since it last
    succeeded."""

    total: int = 0
    in_a_row: int = 0
    last: str = ""
    told_at: float = float("-inf")
    since: float = 0.0  # of the monotonic clock: when the first of those in a row happened
    of_others: bool = False  # the last one was expected

    def add(self, what: str, error: BaseException, expected: tuple[type[BaseException], ...] = ()) -> None:
        """`expected` errors are those of others, whose trace says nothing."""
        said, now = repr(error), time.monotonic()
        self.total += 1
        self.in_a_row += 1
        self.since = self.since or now
        self.of_others = isinstance(error, expected)
        if said == self.last and now - self.told_at < TELL_AGAIN_S:
            return
        self.last, self.told_at = said, now
        if self.of_others:
            log.warning("%s failed and is tried again: %s", what, said)
        else:
            log.error("%s failed %d times in a row and is tried again", what, self.in_a_row, exc_info=error)

    def end(self, what: str) -> None:
        """It succeeded."""
        if self.in_a_row:
            log.info("%s works again, after it failed %d times", what, self.in_a_row)
        self.in_a_row, self.last, self.told_at, self.since = 0, "", float("-inf"), 0.0


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do the work for each, one after the other; the first error is raised once all have had their turn. Otherwise what
    stands behind one that always fails would never be come to."""
    failure: Exception | None = None
    for item in items:
        try:
            await work(item)
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure


@dataclass(eq=False, slots=True)
class Job:
    """`run` is called after `first_s`, then `every_s` after each time it has ended; with None it is done once, which
    may take several tries. A run may itself wait for what it works on."""

    name: str
    first_s: float
    every_s: float | None
    run: Callable[[], Awaitable[object]]
    expected: tuple[type[BaseException], ...] = ()
    retry_s: float = 0.0  # after a failure at first; `every_s` unless told, and RETRY_S at least
    runs: int = 0
    running: bool = False
    ended_s: float = 0.0  # when it last came to its end, in seconds since 1970
    failures: Failures = field(default_factory=Failures)

    def pause_s(self) -> float:
        """Until the next run."""
        if not self.failures.in_a_row:
            return self.every_s or 0.0
        first = self.retry_s or max(self.every_s or 0.0, RETRY_S)
        later: float = first * 2 ** min(self.failures.in_a_row - 1, 10)
        return min(later, max(first, MOST_RETRY_S))


class Jobs:
    """The jobs of a process, or of a part of it that starts and stops by itself."""

    def __init__(self) -> None:
        self._tasks: dict[Job, asyncio.Task[None]] = {}

    def start(self, *jobs: Job) -> None:
        for job in jobs:
            self._tasks[job] = asyncio.create_task(self._work(job), name=job.name)

    def named(self, name: str) -> Job | None:
        """The job of that name which is not over."""
        return next((job for job in self._tasks if job.name == name), None)

    async def stop(self, *jobs: Job) -> None:
        """Cut them off, wherever they are, and return once they have ended."""
        tasks = [self._tasks.pop(job) for job in jobs if job in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        await self.stop(*self._tasks)

    def table(self) -> list[dict[str, object]]:
        """What there is and how it does, for people; times in seconds."""
        return [
            {
                "name": job.name,
                "every_s": job.every_s,
                "running": job.running,
                "runs": job.runs,
                "ended_s": job.ended_s,
                "failures": job.failures.total,
                "failures_in_a_row": job.failures.in_a_row,
                "error": job.failures.last,
            }
            for job in self._tasks
        ]

    def alarms(self) -> list[str]:
        """Jobs that fail again and again, by what is nobody else's fault."""
        found = [(job.name, job.failures) for job in self._tasks]
        now = time.monotonic()
        return [
            f"the job {name!r} fails again and again: {failed.last}"
            for name, failed in found
            if failed.in_a_row >= ALARM_TIMES and now - failed.since >= ALARM_S and not failed.of_others
        ]

    def metrics(self) -> Iterator[Metric]:
        for job in self._tasks:
            yield counter("s4_job_runs", "Times that background work was done", job.runs, job=job.name)
            yield counter("s4_job_failures", "Times that it failed", job.failures.total, job=job.name)
            yield gauge("s4_job_failing", "Times in a row that it failed just now", job.failures.in_a_row, job=job.name)

    async def _work(self, job: Job) -> None:
        await asyncio.sleep(job.first_s)
        while True:
            job.running = True
            try:
                await job.run()
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                job.failures.add(job.name, error, job.expected)  # what it waited for may have been cancelled by others
            else:
                job.runs, job.ended_s = job.runs + 1, time.time()
                job.failures.end(job.name)
                if job.every_s is None:
                    self._tasks.pop(job, None)
                    return
            job.running = False
            await asyncio.sleep(job.pause_s())

"""A queue of resources to look at: each is worked on by one task at a time, again when something about it changed, and
again after the time that its last round asked for. Errors put it back, later each time.

Each kind has places of its own: hundreds of S4Users whose cluster does not answer, or Buckets that are emptied for
hours, keep no S4Cluster from being looked at."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable

from s4.cluster.coordinator import CoordinatorError
from s4.cluster.planner import PlanError
from s4_operator.daemons import DaemonError
from s4_operator.kube import KubeError

log = logging.getLogger(__name__)

Key = tuple[str, str, str]  # kind, namespace, name
EXPECTED = (
    KubeError,
    DaemonError,
    CoordinatorError,
    PlanError,
)  # what others say no to; all else is told with its trace
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 30.0


class Queue:
    """`work(key)` returns the seconds until the key's next turn; 0 forgets it. `workers` are at work on each kind."""

    def __init__(self, work: Callable[[Key], Awaitable[float]], workers: int) -> None:
        self._work = work
        self._limits = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(workers))
        self._wakes: dict[Key, asyncio.Event] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self.turns = self.failures = 0

    def add(self, key: Key) -> None:
        """Look at a resource soon."""
        self._wakes.setdefault(key, asyncio.Event()).set()
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._follow(key))

    async def _follow(self, key: Key) -> None:
        retry_s, wake = FIRST_RETRY_S, self._wakes[key]
        while True:
            wake.clear()
            try:
                async with self._limits[key[0]]:
                    self.turns += 1
                    wait_s = await self._work(key)
                retry_s = FIRST_RETRY_S
            except Exception as error:
                self.failures += 1
                log.warning(
                    "%s %s/%s is tried again in %.0f s: %s",
                    *key,
                    retry_s,
                    error,
                    exc_info=not isinstance(error, EXPECTED),
                )
                wait_s, retry_s = retry_s, min(LAST_RETRY_S, retry_s * 2)
            if not wait_s and not wake.is_set():
                del self._tasks[key], self._wakes[key]
                return
            try:
                await asyncio.wait_for(wake.wait(), wait_s or None)
            except TimeoutError:
                continue

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._wakes.clear()

"""A thread that does one piece of blocking work after the other, and tells the event loop.

What an executor's future does for each call (a lock, two chained futures and a round of the loop) is a twentieth of a
small write's processor time, and each write of a process passes here.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable

Done = Callable[[Exception | None], None]


class Worker:
    """Made on the event loop that it tells, in the context in which it tells it."""

    def __init__(self, name: str) -> None:
        self._loop, self._context = asyncio.get_running_loop(), contextvars.copy_context()
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], None], done: Done) -> None:
        """Have the thread do `work`; then the loop calls `done` with what that raised, or None."""
        self._queue.put((work, done))

    def run(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """As `call`, for who awaits it."""
        future: asyncio.Future[None] = self._loop.create_future()

        def done(error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.call(work, done)
        return future

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, done = item
            error: Exception | None = None
            try:
                work()
            except Exception as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, error, context=self._context)
            del item, work, done, error  # or they live until there is more to do

    async def close(self) -> None:
        """Return once what was asked for is done."""
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

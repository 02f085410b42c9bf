"""What a coroutine has to know of the task that runs it.

A request begins where its bytes arrive, in no task of its own (http/connection.py); it gets one when it has to wait.
What asks asyncio for its task, above all a limit of time, says so here first.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from contextvars import Context
from types import TracebackType
from typing import Any

STOOD_S = 0.2  # by so much a timer is late where its process stood still


@types.coroutine
def _leave() -> Generator[None, Any, object]:
    return (yield)


async def in_task() -> None:
    """What follows runs in a task of its own."""
    if asyncio.current_task() is None:
        await _leave()


class within:  # noqa: N801 - read as a word
    """`asyncio.timeout`, wherever this runs. Raises TimeoutError."""

    __slots__ = ("_limit", "_seconds")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> asyncio.Timeout:
        await in_task()
        self._limit = asyncio.timeout(self._seconds)
        return await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._limit.__aexit__(kind, error, trace)


class awake_within(within):  # noqa: N801 - read as a word
    """`within`, for what others are to say. Where this process itself stood still when the time was up, it has as long
    again as it stood, once: what they said meanwhile waits to be read."""

    __slots__ = ("_up",)

    async def __aenter__(self) -> asyncio.Timeout:
        seconds, self._seconds = self._seconds, None
        limit = await super().__aenter__()
        self._up: asyncio.TimerHandle | None = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._up = loop.call_later(seconds, self._end, loop.time() + seconds, seconds)
        return limit

    def _end(self, due: float, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        more = min(now - due, seconds) if now - due > STOOD_S else 0.0
        self._limit.reschedule(now + more)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._up is not None:
            self._up.cancel()
        await super().__aexit__(kind, error, trace)


def begin(
    work: Coroutine[Any, Any, None], context: Context, loop: asyncio.AbstractEventLoop
) -> asyncio.Task[None] | None:
    """Run a coroutine at once, as far as it goes without waiting; the task that goes on with it, None where it has
    ended."""
    try:
        waits = context.run(work.send, None)
    except StopIteration:
        return None
    return loop.create_task(_Rest(work, waits), context=context)


class _Rest(Coroutine[Any, Any, None]):
    """The rest of a coroutine that was begun and waits for `waits`; for None, only for its task.

    Whatever its task is told reaches the coroutine, its cancelling before its first step too.
    """

    def __init__(self, work: Coroutine[Any, Any, None], waits: Any) -> None:
        self._work, self._waits = work, waits

    def send(self, value: Any) -> Any:
        waits, self._waits = self._waits, None
        return self._work.send(value) if waits is None else waits

    def throw(self, *error: Any) -> Any:
        self._waits = None
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("a task goes on with it")

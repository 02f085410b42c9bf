"""The thread that tells the loop: in order, with what was raised, in the context in which it was made."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from s4.base.worker import Worker

WHO: ContextVar[str] = ContextVar("who", default="nobody")


def test_work_is_done_in_order_on_one_thread_and_told_on_the_loop() -> None:
    async def test() -> None:
        WHO.set("maker")
        worker, threads, told = Worker("w"), set[int](), list[tuple[str, str, str]]()
        WHO.set("caller")

        def work() -> None:
            threads.add(threading.get_ident())

        def broken() -> None:
            raise OSError("broken")

        def done(error: Exception | None) -> None:
            told.append((threading.current_thread().name, WHO.get(), str(error)))

        for one in (work, broken, work):
            worker.call(one, done)
        await worker.run(work)
        assert told == [("MainThread", "maker", said) for said in ("None", "broken", "None")]
        assert len(threads) == 1
        assert threading.get_ident() not in threads
        with pytest.raises(OSError, match="broken"):
            await worker.run(broken)
        await worker.close()

    asyncio.run(test())


def test_who_gives_up_waiting_leaves_the_work_to_its_end() -> None:
    async def test() -> None:
        worker, goes_on, ended = Worker("w"), threading.Event(), list[str]()

        def work() -> None:
            goes_on.wait(60)
            ended.append("ended")

        waiting = worker.run(work)
        waiting.cancel()
        goes_on.set()
        await worker.close()
        assert ended == ["ended"]
        await asyncio.sleep(0)  # the loop is told, and nobody waits

    asyncio.run(test())


def test_a_loop_that_is_closed_is_told_nothing() -> None:
    goes_on = threading.Event()

    async def test() -> Worker:
        worker = Worker("w")
        worker.run(lambda: goes_on.wait(60) and None)
        return worker

    worker = asyncio.run(test())
    goes_on.set()
    worker._queue.put(None)
    worker._thread.join(60)
    assert not worker._thread.is_alive()

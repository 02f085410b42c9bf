"""A coroutine that is begun without a task, and goes on in one where it has to wait."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from s4.base import tasks

SOURCES = Path(tasks.__file__).parent
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME")


def run(make: Callable[[list[str]], Coroutine[Any, Any, None]]) -> list[str]:
    """What a coroutine said, `|` where it was given a task."""
    said: list[str] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[asyncio.Task[None] | None] = loop.create_future()

        def begin() -> None:  # as a connection does: where no task runs
            begun.set_result(tasks.begin(make(said), contextvars.copy_context(), loop))
            said.append("|")

        loop.call_soon(begin)
        task = await begun
        if task is not None:
            await task

    asyncio.run(test())
    return said


def test_what_never_waits_has_ended_when_begin_returns() -> None:
    async def work(said: list[str]) -> None:
        said.append("all")

    assert run(work) == ["all", "|"]


def test_what_waits_goes_on_in_a_task_in_its_own_context() -> None:
    async def work(said: list[str]) -> None:
        NAME.set("mine")
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, future.set_result, "came")
        said.append(await future)
        assert asyncio.current_task() is not None
        await asyncio.sleep(0)
        said.append(NAME.get())

    assert run(work) == ["|", "came", "mine"]
    assert NAME.get("none") == "none"


def test_who_needs_a_task_gets_one() -> None:
    async def work(said: list[str]) -> None:
        assert asyncio.current_task() is None
        try:
            async with tasks.within(0.01):
                said.append("waits")
                await asyncio.Event().wait()
        except TimeoutError:
            said.append("too long")

    assert run(work) == ["|", "waits", "too long"]


def test_cancelling_it_before_its_first_step_lets_it_clean_up() -> None:
    async def work(said: list[str]) -> None:
        loop = asyncio.get_running_loop()
        try:
            loop.call_soon(
                lambda: [one.cancel() for one in asyncio.all_tasks() if isinstance(one.get_coro(), tasks._Rest)]
            )
            await asyncio.Event().wait()
        finally:
            said.append("cancelled")
            await asyncio.sleep(0.01)  # cleaning up waits for something
            said.append("cleaned up")

    said: list[str] = []
    with pytest.raises(asyncio.CancelledError):
        said += run(lambda into: work(said))
    assert said == ["cancelled", "cleaned up"]


def test_nobody_on_the_way_of_a_request_takes_it_for_granted_that_a_task_runs() -> None:
    """`asyncio.timeout` and its like raise where a request begins; `tasks.within` is the one to use there."""
    elsewhere = ("http/admin", "peer/server.py", "http/server.py::drain", "gateway/memory.py::await_client")
    found = []
    for path in [
        *SOURCES.glob("http/**/*.py"),
        *SOURCES.glob("gateway/*.py"),
        *SOURCES.glob("peer/*.py"),
        SOURCES / "crypto/kms.py",
        SOURCES / "crypto/vault.py",
        SOURCES / "node/rows.py",
    ]:
        if not path.exists():
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for node in ast.walk(function):
                named = isinstance(node, ast.Attribute) and ast.unparse(node) in (
                    "asyncio.timeout",
                    "asyncio.timeout_at",
                    "asyncio.wait_for",
                    "asyncio.current_task",
                    "asyncio.TaskGroup",
                )
                if named:
                    found.append(f"{path.relative_to(SOURCES)}::{function.name}")
    assert [one for one in found if not one.startswith(elsewhere)] == []


@pytest.mark.parametrize("answers", [True, False])
def test_who_stood_still_itself_reads_what_came_meanwhile_before_it_gives_up(answers: bool) -> None:
    """On an overloaded machine a peer that had answered at once was taken for gone."""

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            if answers:
                loop.call_soon(theirs.send, b"x")
            loop.call_soon(time.sleep, 0.5)  # of this whole process
            try:
                async with tasks.awake_within(0.1):
                    assert await loop.sock_recv_into(ours, bytearray(1)) == 1
            except TimeoutError:
                assert not answers
            else:
                assert answers

    asyncio.run(whole())

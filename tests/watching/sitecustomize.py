"""Put on the path of every program that tests start: notes what held its loop for longer than `HELD_S` at a stretch.

A stretch is one step of a task, from one await to the next, or one plain callback: of a timer, of a socket, of a
protocol. Its length is the processor time of the loop's own thread: a machine that does other things makes none
longer. What is noted goes into a file of the process in the directory that HELD names; held.py prints them at the end
of a test run. Of a step within a callback the step alone is noted. Not seen: what uvloop does by itself, such as TLS.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Coroutine
from typing import Any

HELD_S = 0.1
CALLS = {
    "call_soon": 0,
    "call_soon_threadsafe": 0,
    "call_later": 1,
    "call_at": 1,
    "add_reader": 1,
    "add_writer": 1,
}  # and where the callback is
MAKERS = (
    "connect_accepted_socket",
    "create_server",
    "create_connection",
    "create_unix_server",
    "create_unix_connection",
    "create_datagram_endpoint",
    "subprocess_exec",
)
TOLD = (
    "connection_made",
    "data_received",
    "buffer_updated",
    "datagram_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
    "pipe_data_received",
    "process_exited",
)


class Watched(Coroutine[Any, Any, Any]):
    """A task's coroutine, each step of which is measured."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *raised: Any) -> Any:
        return self._step(self._inner.throw, *raised)

    def _step(self, step: Any, *given: Any) -> Any:
        began = time.thread_time()
        try:
            return step(*given)
        finally:
            lasted = time.thread_time() - began
            if lasted > HELD_S:
                self._watch.note(self._inner.__qualname__, lasted, places(self._inner))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def places(coroutine: Any) -> list[str]:
    """Where the coroutine waits now, which is behind what held the loop."""
    found = []
    while (coroutine := getattr(coroutine, "cr_await", None)) is not None and getattr(coroutine, "cr_frame", None):
        found.append(f"{coroutine.__qualname__}:{coroutine.cr_frame.f_lineno}")
    return found


class Watch:
    """Has every task and every callback of new loops of a class measured."""

    def __init__(self, loop_class: Any) -> None:
        import asyncio

        self.loop_class, self.task_class = loop_class, asyncio.Task
        self.noted = 0
        self.known = set[type]()  # protocols whose methods are measured

    def put_in_place(self) -> None:
        for way, at in CALLS.items():
            setattr(self.loop_class, way, self._called(way, at))
        for way in MAKERS:
            setattr(self.loop_class, way, self._maker(way))
        begin = self.loop_class.__init__

        def made(loop: Any, *given: Any, **more: Any) -> None:
            begin(loop, *given, **more)
            loop.set_task_factory(self._task)

        self.loop_class.__init__ = made

    def note(self, name: str, lasted_s: float, place: list[str]) -> None:
        import json
        from pathlib import Path

        self.noted += 1
        if "HELD" not in os.environ:
            return
        # of this process, which may have been forked (s4/cli/starter.py)
        path = Path(os.environ["HELD"]) / str(os.getpid())
        told = {
            "program": " ".join(sys.argv[1:2]),
            "test": os.environ.get("PYTEST_CURRENT_TEST", ""),
            "traced": "COVERAGE_PROCESS_START" in os.environ,
        }
        line = json.dumps({**told, "ms": round(lasted_s * 1000), "where": [name, *place]})
        with path.open("a") as file:
            file.write(line + "\n")

    def _task(self, loop: Any, coroutine: Any, **more: Any) -> Any:
        return self.task_class(Watched(coroutine, self), loop=loop, **more)

    def _measured(self, call: Any, name: str) -> Any:
        def measuring(*given: Any, **more: Any) -> Any:
            before, began = self.noted, time.thread_time()
            try:
                return call(*given, **more)
            finally:
                lasted = time.thread_time() - began
                if lasted > HELD_S and self.noted == before:
                    self.note(f"callback {name}", lasted, [])

        return measuring

    def _called(self, way: str, at: int) -> Any:
        """A way to have something called later; a task's steps are measured as such."""
        real = getattr(self.loop_class, way)

        def calls(loop: Any, *given: Any, **more: Any) -> Any:
            if len(given) > at and not isinstance(getattr(given[at], "__self__", None), self.task_class):
                what = given[at]
                inner = getattr(what, "func", what)  # of a partial
                measured = self._measured(what, getattr(inner, "__qualname__", type(inner).__name__))
                given = (*given[:at], measured, *given[at + 1 :])
            return real(loop, *given, **more)

        return calls

    def _maker(self, way: str) -> Any:
        """A way to have a protocol of a class made, whose methods are measured from then on."""
        real = getattr(self.loop_class, way)

        def makes(loop: Any, factory: Any, *given: Any, **more: Any) -> Any:
            def made() -> Any:
                protocol = factory()
                self._measure_methods(type(protocol))
                return protocol

            return real(loop, made, *given, **more)

        return makes

    def _measure_methods(self, kind: type) -> None:
        if kind in self.known:
            return
        self.known.add(kind)
        of_python = kind.__flags__ & (1 << 9)  # one of C's cannot be changed
        for told in TOLD:
            if callable(method := getattr(kind, told, None)) and of_python:
                setattr(kind, told, self._measured(method, f"{kind.__qualname__}.{told}"))


class Finder(importlib.abc.MetaPathFinder):
    """Watches the loops of uvloop once it is imported: what imports none pays nothing."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "uvloop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                Watch(module.Loop).put_in_place()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if os.environ.get("HELD"):
    sys.meta_path.insert(0, Finder())

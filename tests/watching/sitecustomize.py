"""Put on the path of every program that tests start: notes what held its loop for longer than `HELD_S` at a stretch.

A stretch is one step of a task, from one await to the next, and its length the processor time of the loop's own
thread: a machine that does other things makes none longer. What is noted goes into a file of the process in the
directory that HELD names; held.py prints them at the end of a test run. Not seen: callbacks that are no task's, such
as the parser of HTTP.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from typing import Any

HELD_S = 0.1


def watch(loop_class: Any) -> None:
    """Have every task of new loops measured."""
    import asyncio
    import json
    import time
    from collections.abc import Coroutine
    from pathlib import Path

    def note(coroutine: Any, lasted_s: float, place: list[str]) -> None:
        if "HELD" not in os.environ:
            return
        path = Path(os.environ["HELD"]) / str(
            os.getpid()
        )  # of this process, which may have been forked (s4/cli/starter.py)
        told = {
            "program": " ".join(sys.argv[1:2]),
            "test": os.environ.get("PYTEST_CURRENT_TEST", ""),
            "traced": "COVERAGE_PROCESS_START" in os.environ,
        }
        line = json.dumps({**told, "ms": round(lasted_s * 1000), "where": [coroutine.__qualname__, *place]})
        with path.open("a") as file:
            file.write(line + "\n")

    def places(coroutine: Any) -> list[str]:
        """Where the coroutine waits now, which is behind what held the loop."""
        found = []
        while (coroutine := getattr(coroutine, "cr_await", None)) is not None and getattr(coroutine, "cr_frame", None):
            found.append(f"{coroutine.__qualname__}:{coroutine.cr_frame.f_lineno}")
        return found

    class Watched(Coroutine[Any, Any, Any]):
        def __init__(self, inner: Any) -> None:
            self._inner = inner

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
                    note(self._inner, lasted, places(self._inner))

        def close(self) -> None:
            self._inner.close()

        def __await__(self) -> Any:
            return self._inner.__await__()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    def task(loop: Any, coroutine: Any, **more: Any) -> Any:
        return asyncio.Task(Watched(coroutine), loop=loop, **more)

    begin = loop_class.__init__

    def made(self: Any, *given: Any, **more: Any) -> None:
        begin(self, *given, **more)
        self.set_task_factory(task)

    loop_class.__init__ = made


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
                watch(module.Loop)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if os.environ.get("HELD"):
    sys.meta_path.insert(0, Finder())

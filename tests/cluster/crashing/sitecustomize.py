"""Put on the path of a cluster's processes: the first of them that comes to the step named in S4_CRASH_FILE dies there.

A step is `before:NAME` or `after:NAME`; the file is taken away by whoever dies of it. With S4_STRACE_DIR a node runs
under strace, which leaves its system calls there.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

FILE = os.environ.get("S4_CRASH_FILE", "")


def die_at(step: str) -> None:
    path = Path(FILE)
    try:
        if path.read_text() != step:
            return
        path.unlink()
    except OSError:
        return
    os.kill(os.getpid(), 9)


def around(owner: Any, method: str, name: Any) -> None:
    """Have a coroutine method die before or after its work; `name(arguments)` is the step's name, or None."""
    inner = getattr(owner, method)

    @functools.wraps(inner)
    async def outer(self: Any, *arguments: Any, **named: Any) -> Any:
        step = name(arguments)
        die_at(f"before:{step}")
        result = await inner(self, *arguments, **named)
        die_at(f"after:{step}")
        return result

    setattr(owner, method, outer)


def around_submit(owner: Any) -> None:
    """The same of a host, which gives a future for a command."""
    inner = owner.submit

    @functools.wraps(inner)
    def outer(self: Any, partition: int, command: Any, *arguments: Any, **named: Any) -> Any:
        step = f"submit-{type(command).__name__}"
        die_at(f"before:{step}")
        future = inner(self, partition, command, *arguments, **named)
        future.add_done_callback(lambda _: die_at(f"after:{step}"))
        return future

    owner.submit = outer


def patch() -> None:
    from s4.node.member import MemberNode
    from s4.peer.router import Router
    from s4.replica.replicated import ReplicatedHost
    from s4.upkeep.leader import Leader
    from s4.upkeep.shard_repair import ShardRepair

    around(Router, "execute", lambda arguments: type(arguments[1]).__name__)
    around(Router, "append_to", lambda _: "append")
    around(Router, "discard_all", lambda _: "discard")
    around(MemberNode, "append", lambda _: "take-shard")
    around(MemberNode, "execute", lambda arguments: f"decide-{type(arguments[1]).__name__}")
    around(Leader, "_in_order", lambda arguments: f"outbox-{type(arguments[1][0][0]).__name__}")
    around(ShardRepair, "make", lambda _: "make")
    around_submit(ReplicatedHost)


def trace(directory: str, calls: str) -> None:
    """Start this process again under strace, if it is a node."""
    words = sys.orig_argv
    if "node" in words and "--name" in words:
        del os.environ["S4_STRACE_DIR"]
        log = Path(directory) / words[words.index("--name") + 1]
        options = ["-f", "-ttt", "-y", "-xx", "-s", "4000000", "-o", str(log), "-e", f"trace={calls}", "--seccomp-bpf"]
        os.execvp("strace", ["strace", *options, sys.executable, *words[1:]])


if os.environ.get("S4_STRACE_DIR"):
    trace(os.environ["S4_STRACE_DIR"], os.environ["S4_STRACE_CALLS"])

if FILE:
    import importlib.abc

    class Late(importlib.abc.MetaPathFinder):
        """Patches once the last of the modules is there: nothing may be imported while Python starts."""

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "s4.http.admin_cluster":
                sys.meta_path.remove(self)
                patch()

    sys.meta_path.insert(0, Late())

"""What clients were told is judged by what may be, no more and no less: orders that a seed met and its judge did not
know."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from whole.clients import FOREVER, Answer, Call, Clients
from whole.judge import histories
from whole.versions import Locks, State
from whole.world import DAY_S

OLD, NEW = f"{1:08x}{1:016x}", f"{1:08x}{2:016x}"


class Told(Clients):
    """Puts that are answered as the test says: (version or "" for one that nobody knows of, begin, end)."""

    def __init__(self, world: Any, puts: list[tuple[str, float, float]]) -> None:
        super().__init__(world)
        self.left = puts

    async def put(self, *_: Any, of: Any, call: Any, **__: Any) -> Any:
        version, begin, end = self.left.pop(0)
        record = call()
        record.begin, record.end = begin, end
        of.calls.append(record)
        return Answer(record, None, None), SimpleNamespace(version=version) if version else None


def locked(*puts: tuple[str, float, float], ends: bool = True) -> Locks:
    """Versions of one key, unlocked, in a bucket whose past versions end."""
    world: Any = SimpleNamespace(seed=1, loop=SimpleNamespace(now=0.0), most_off=0, nodes=[])
    locks = Locks(Told(world, list(puts)))
    locks.names, locks.puts, locks.default, locks.ends = [b"l"], {b"l": []}, False, ends
    for _, begin, _ in puts:
        world.loop.now = begin
        asyncio.run(locks._put(random.Random(1), "value"))
    for one in locks.versions.values():
        one.state = State()
    world.loop.now = 100.0
    return locks


def gone(locks: Locks, version: str, at: float) -> list[str]:
    """What is said of a version that somebody looked for and did not find."""
    locks.versions[version].calls.calls.append(Call("look", None, at, at, State(False)))
    work: Any = SimpleNamespace(histories=locks.histories)
    return histories(work)


@pytest.mark.parametrize("newer", [(NEW, 10.0, 10.2), ("", 10.0, FOREVER), ("", 9.0, FOREVER)])
def test_what_was_put_at_the_same_moment_may_be_above(newer: tuple[str, float, float]) -> None:
    """Seed 210: lifecycle ended a version upon which another came that had begun at the very same time."""
    assert gone(locked((OLD, 10.0, 10.1), newer), OLD, 10.0 + DAY_S) == []


def test_a_version_that_nothing_is_above_does_not_end() -> None:
    assert gone(locked((OLD, 10.0, 10.1), (NEW, 10.0, 10.2)), NEW, 10.0 + 3 * DAY_S)
    assert gone(locked((OLD, 10.0, 10.1)), OLD, 10.0 + 3 * DAY_S)


def test_no_version_ends_before_its_day_is_over() -> None:
    assert gone(locked((OLD, 10.0, 10.1), (NEW, 20.0, 20.2)), OLD, 20.0 + DAY_S / 4)
    assert gone(locked((OLD, 10.0, 10.1), (NEW, 10.0, 10.2), ends=False), OLD, 10.0 + 3 * DAY_S)

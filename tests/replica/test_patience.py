"""Commands that nobody waits for make no entry of their own, which every replica would write, while others come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from inprocess import until
from replica.test_group import ONE, alone, rows
from s4.metadata import keys
from s4.metadata.commands import Done, ForgetRows, PublishContent, RefuseBlob, Taken
from s4.replica import replicated
from s4.replica.group import Group
from s4.replica.replicated import ReplicatedHost
from s4.storage.leveldb import Database

HINTS = [PublishContent(bytes([number]) * 32, 0, bytes([number]) * 16, 5000) for number in range(20)]
NEVER = 3600.0


def serving(path: Path, test: Callable[[Group, ReplicatedHost], Awaitable[None]]) -> None:
    async def whole(group: Group, _: Database) -> None:
        host = ReplicatedHost(group, 1, cache_bytes=1 << 20, max_waiting=8)
        await until(lambda: group.serves(0))
        await test(group, host)

    alone(path / "meta", whole)


def test_what_nobody_waits_for_goes_with_the_next_entry_and_takes_no_place_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicated, "PATIENCE_S", NEVER)

    async def test(group: Group, host: ReplicatedHost) -> None:
        before = group.last(0)
        waiting = [host.submit(0, hint) for hint in HINTS]  # more than may wait
        waiting.append(host.submit(0, ForgetRows([b"row"]), own=True, patient=True))
        await group.write(0, rows((ONE, b"a turn of something else")))
        assert await host.submit(0, RefuseBlob(b"b" * 16)) == Taken(False)
        assert await asyncio.gather(*waiting) == [Done()] * len(waiting)
        assert group.last(0) == before + 2
        assert host.get(keys.content_row(0, HINTS[0].sha256)) is not None
        assert host.waiting == 0

    serving(tmp_path, test)


@pytest.mark.parametrize(("patience_s", "most"), [(0.05, 64), (NEVER, len(HINTS))])
def test_patience_ends_after_a_time_and_where_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float, most: int
) -> None:
    monkeypatch.setattr(replicated, "PATIENCE_S", patience_s)
    monkeypatch.setattr(replicated, "PATIENT_MOST", most)

    async def test(group: Group, host: ReplicatedHost) -> None:
        before = group.last(0)
        assert await asyncio.gather(*(host.submit(0, hint) for hint in HINTS)) == [Done()] * len(HINTS)
        assert group.last(0) == before + 1

    serving(tmp_path, test)

"""Whose commands the writer's next turn takes, and how many of them: by order and count, on a clock of the test's."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from contextvars import copy_context
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cluster.memory import MemoryCoordinator
from inprocess import until
from s4.base.fair import FLOW, LATELY_S, Flow
from s4.cluster.messages import Config, Document, Plan, encode_document
from s4.metadata import keys
from s4.metadata.commands import (
    Claim,
    CompleteUpload,
    DeleteObject,
    NewBlob,
    PutObject,
    SetDocument,
    Settings,
    TakeReferences,
)
from s4.metadata.rows import Extent, Object
from s4.replica.copies import Copies
from s4.replica.group import Group
from s4.replica.host import Host
from s4.replica.replicated import ReplicatedHost
from s4.replica.terms import Timing
from s4.replica.waiting import COMMAND_S, TURN_LEAST, TURN_MOST, Commands, held_by
from s4.storage.leveldb import Database

FLOOD = TURN_MOST + 100
ROW = Object(1, 0, "e", False, True, "o")


def put(bucket: int, number: int) -> PutObject:
    return PutObject(Settings(bucket, 1, ""), b"%d" % number, ROW)


def as_user(flow: Flow, call: Any, *arguments: Any) -> Any:
    def run() -> Any:
        FLOW.set(flow)
        return call(*arguments)

    return copy_context().run(run)


def test_users_come_in_turn_and_the_commands_of_each_in_order() -> None:
    waiting: Commands[str] = Commands()
    for number in range(6):
        as_user(Flow("flood", f"b{number % 2}"), waiting.push, put(1, number), f"f{number}")
    as_user(Flow("calm", "c"), waiting.push, put(2, 0), "c0")
    as_user(Flow("calm", "c"), waiting.push, put(2, 1), "c1")
    order = [waiting.pop() for _ in range(8)]
    assert max(order.index("c0"), order.index("c1")) <= 3
    for mine in ("f0 f2 f4", "f1 f3 f5", "c0 c1"):
        assert [one for one in order if one in mine.split()] == mine.split()
    with pytest.raises(IndexError):
        waiting.pop()


def test_whose_a_command_is_goes_by_its_bucket_where_nobody_says_it() -> None:
    """What another gateway sends, and what the store does by itself."""
    waiting: Commands[str] = Commands()
    for number in range(20):
        waiting.push(put(1, number), "flood")
    waiting.push(DeleteObject(Settings(2, 1, ""), b"k"), "settings")
    waiting.push(TakeReferences([Claim(b"b", b"r", 0, 3, b"k")]), "claims")
    order = [waiting.pop() for _ in range(22)]
    assert sorted((order.index("settings"), order.index("claims"))) <= [2, 4]


def test_a_turn_takes_as_many_as_are_decided_in_half_the_time_of_a_write() -> None:
    now = 0.0

    def lasting(seconds: float) -> None:
        nonlocal now
        now += seconds

    waiting: Commands[int] = Commands(clock=lambda: now)
    for number in range(FLOOD):
        assert waiting.next == min(number, TURN_MOST), "nobody else is there"
        waiting.push(put(1, number), 0)
    waiting.push(put(2, 0), 0)
    assert waiting.next == TURN_LEAST
    for seconds, most in ((0.0001, TURN_LEAST), (100 * COMMAND_S, 100), (10.0, TURN_MOST), (0.0, TURN_LEAST)):
        waiting.timed(lambda seconds=seconds: lasting(seconds))  # type: ignore[misc]
        for bucket in (1, 2):
            waiting.push(put(bucket, 0), 0)
        assert waiting.next in (most, most - 1)  # of floats
    now += LATELY_S / 2
    waiting.push(put(2, 1), 0)
    assert waiting.next == TURN_LEAST
    now += LATELY_S / 2
    assert waiting.next == TURN_MOST, "nobody else asked for so long"
    waiting.push(put(1, 1), 0)
    assert waiting.next == TURN_LEAST
    with pytest.raises(OSError, match="broken"):
        waiting.timed(lambda: (_ for _ in ()).throw(OSError("broken")))


def test_a_tenants_command_is_in_the_next_turn_however_many_of_anothers_wait(tmp_path: Path) -> None:
    """Turns were first come first served: who came last waited for all of them."""

    async def test() -> tuple[int, int]:
        database = Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=20)
        host = Host(
            Copies(database),
            1,
            [1],
            sync=False,
            fatal=lambda error: None,
            sync_shards=lambda: None,
            on_outbox=lambda *_: None,
            cache_bytes=1 << 20,
            max_waiting=4096,
        )
        flood = [as_user(Flow("flood", "f"), host.submit, 0, put(1, number)) for number in range(FLOOD)]
        calm = as_user(Flow("calm", "c"), host.submit, 0, put(2, 0))
        await calm
        turns = host.turns
        await asyncio.gather(*flood)
        found = [host.newest(0, 1, b"%d" % number) for number in range(FLOOD)]
        assert all(one is not None and one[0].startswith(keys.object_versions(0, 1, b"")[:2]) for one in found)
        await host.close()
        database.close()
        return turns, host.turns

    calm, all_turns = asyncio.run(test())
    assert calm == 1
    assert all_turns > 2


def test_what_commands_hold_is_known_about() -> None:
    """Of what may be large: within a half of what memory it takes."""
    extents = [
        Extent(
            number,
            5 << 20,
            3,
            b"%016d" % number,
            b"r%015d" % number,
            f"{number:032d}",
            f"{number:08d}",
            b"%016d" % number,
        )
        for number in range(10_000, 12_000)
    ]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        command = msgspec.json.decode(
            msgspec.json.encode(CompleteUpload(Settings(1, 1, ""), b"k", bytes(16), replace(ROW, extents=extents))),
            type=CompleteUpload,
        )
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.67 * took < held_by(command) < 1.5 * took
    blob = NewBlob(bytes(16), bytes(16), 60_000, 0, 0, 0, bytes(32), content=bytes(60_000))
    small = PutObject(Settings(1, 1, ""), b"k", ROW, blobs=[blob])
    assert held_by(small) == held_by(put(1, 1)) + 60_000
    assert held_by(SetDocument("b", "cors", "x" * 4_000_000)) > 4_000_000


def test_so_it_is_in_a_cluster_over_all_partitions_of_a_store(tmp_path: Path) -> None:
    """There each partition had a queue of its own, and a turn all that waited in them."""

    async def test() -> tuple[int, int]:
        kept, coordinator, partitions = (
            Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=20),
            MemoryCoordinator(),
            4,
        )
        alone = encode_document(Document(Config(1, "a", ("a",)), Plan(("a",), 1)))
        for number in range(partitions):
            await coordinator.replace(f"partition/{number}", alone, 0)
        timing, failed = Timing(beacon=0.02, lease=0.2, grace=0.3, resend=0.05), list[BaseException]()
        group = Group(
            "a",
            kept,
            coordinator,
            lambda *_: None,
            partitions=partitions,
            clock=time.monotonic,
            fatal=failed.append,
            timing=timing,
        )
        host = ReplicatedHost(group, partitions, cache_bytes=1 << 20, max_waiting=4096)
        await group.start()
        await until(lambda: all(group.serves(number) for number in range(partitions)))
        flood = [host.submit(number % partitions, put(1, number)) for number in range(FLOOD)]
        calm = host.submit(0, put(2, 0))
        before = group.turns
        await calm
        turns = group.turns - before
        await asyncio.gather(*flood)
        assert (host.waiting, host._queue.held_bytes, host.commands) == (0, 0, FLOOD + 1)
        assert not failed
        ended = group.turns - before
        await host.close()
        kept.close()
        return turns, ended

    calm, all_turns = asyncio.run(test())
    assert calm <= 2  # one may be under way
    assert all_turns > 3

"""What the primary of a partition carries out of its outbox, on the real writer loop and a real LevelDB."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.memory import MemoryCoordinator
from inprocess import until
from replica.test_group import TIMING, fail
from s4.base.clock import boot_clock
from s4.base.jobs import Jobs
from s4.cluster.messages import Config, Document, Plan, encode_document
from s4.metadata import keys
from s4.metadata.commands import DeleteIfNewest, PublishContent
from s4.metadata.rows import AnyAction, FreeBlob, Publish, RemoveSource, encode
from s4.replica.group import Group
from s4.replica.replicated import ReplicatedHost
from s4.storage.leveldb import Database
from s4.upkeep.leader import Leader

LOOK_S = 0.5


class Node:
    """A node that leads one partition alone; other stores are only told what to drop."""

    def __init__(self, group: Group) -> None:
        self.host, self.router, self.partitions = ReplicatedHost(group, 1, cache_bytes=1 << 20, max_waiting=64), self, 1
        self.reading_since, self.asked, self.discarded = 0.0, 0, list[bytes]()

    def horizon(self) -> float:
        self.asked += 1
        return self.reading_since

    def led(self) -> list[int]:
        return [0]

    async def discard_all(self, partition: int, blobs: list[bytes]) -> None:
        assert partition == 0
        self.discarded += blobs


@asynccontextmanager
async def led(directory: Path, kind: type[Node]) -> AsyncIterator[tuple[Group, Any]]:
    """A partition that is served, its node of such a kind, and what carries its outbox out."""
    database = Database(directory / "meta", cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=50)
    coordinator = MemoryCoordinator()
    await coordinator.replace("partition/0", encode_document(Document(Config(1, "a", ("a",)), Plan(("a",), 1))), 0)
    group = Group(
        "a", database, coordinator, lambda *_: None, partitions=1, clock=time.monotonic, fatal=fail, timing=TIMING
    )
    node: Any = kind(group)
    jobs = Jobs()
    Leader(node, None, SimpleNamespace(resume=asyncio.Event().wait)).start(jobs)  # type: ignore[arg-type]
    await group.start()
    await until(lambda: group.serves(0))
    yield group, node
    await jobs.close()
    await group.close()
    database.close()


def test_dead_blobs_are_freed_once_nobody_reads_and_their_rows_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row by itself was an entry for every replica to write."""
    monkeypatch.setattr("s4.upkeep.leader.LOOK_S", LOOK_S)
    blobs = [bytes([number]) * 16 for number in range(60)]

    async def whole() -> None:
        async with led(tmp_path, Node) as (group, node):

            def left() -> int:
                return sum(1 for _ in node.host.scan(keys.table(0, keys.OUTBOX)))

            async def die(some: list[bytes]) -> None:
                for blob in some:
                    row = keys.outbox_row(0, group.last(0) + 1, 0)
                    await group.write(0, lambda _, row=row, blob=blob: [(row, encode(FreeBlob(blob)))])

            await die(blobs[:1])
            await until(lambda: node.asked > 2)
            assert (node.discarded, left()) == ([], 1)  # a request that began before still reads
            node.reading_since = boot_clock() + 3600
            await until(lambda: not left())
            before, began = group.last(0), boot_clock()
            await die(blobs[1:])
            await until(lambda: not left())
            assert node.discarded == blobs
            assert group.last(0) - before - len(blobs[1:]) <= (boot_clock() - began) / LOOK_S + 2

    asyncio.run(whole())


def test_what_waits_for_readers_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each deletion, and each half a second, had all of it read and decoded: 20,000 dead blobs that waited for one long
    download held the loop for 0.4 s at a time."""
    monkeypatch.setattr("s4.upkeep.leader.LOOK_S", 0.01)

    class Counting(Node):
        def __init__(self, group: Group) -> None:
            super().__init__(group)
            self.read, scan = 0, self.host.scan

            def counted(prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
                for row in scan(prefix, start):
                    self.read += prefix == keys.table(0, keys.OUTBOX)
                    yield row

            self.host.scan = counted  # type: ignore[method-assign]

    async def whole() -> None:
        async with led(tmp_path, Counting) as (group, node):
            total = 0
            for count in (700, *[1] * 10):
                row = partial(keys.outbox_row, 0, group.last(0) + 1)
                dead = [(row(number), encode(FreeBlob(bytes(8) + row(number)[3:11]))) for number in range(count)]
                await group.write(0, lambda _, dead=dead: dead)
                total, asked = total + count, node.asked
                await until(lambda asked=asked: node.asked > asked + 2)
            assert (node.discarded, node.read) == ([], total)
            node.reading_since = boot_clock() + 3600
            await until(lambda: len(node.discarded) == total)
            node.host.on_lead(0)  # who leads anew looks at all that is left
            await until(lambda: not list(node.host.scan(keys.table(0, keys.OUTBOX))))

    asyncio.run(whole())


def test_rows_carried_out_while_a_partition_is_led_anew_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The round that was under way had the rows that were carried out, and no place for them any more."""
    monkeypatch.setattr("s4.upkeep.leader.LOOK_S", LOOK_S)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Node):
        async def discard_all(self, partition: int, blobs: list[bytes]) -> None:
            under_way.set()
            await go_on.wait()
            await super().discard_all(partition, blobs)

    async def whole() -> None:
        async with led(tmp_path, Slow) as (group, node):
            node.reading_since = boot_clock() + 3600
            row = keys.outbox_row(0, group.last(0) + 1, 0)
            await group.write(0, lambda _: [(row, encode(FreeBlob(b"b" * 16)))])
            await under_way.wait()
            node.host.on_lead(0)
            go_on.set()
            await until(lambda: not list(node.host.scan(keys.table(0, keys.OUTBOX))))
            assert set(node.discarded) == {b"b" * 16}, "once more is harmless (C2)"

    asyncio.run(whole())
    assert not caplog.records


def test_what_somebody_may_miss_is_carried_out_beside_hints_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source of a rename stood for as long as hints before it waited for entries that others need."""

    class Waiting(Node):
        def __init__(self, group: Group) -> None:
            super().__init__(group)
            self.partitions, self.executed = 8, list[Any]()

        async def execute(self, partition: int, command: Any, named: bytes = b"", again: bool = False) -> None:
            self.executed.append(command)
            if isinstance(command, PublishContent):
                await asyncio.Event().wait()

    async def whole() -> None:
        async with led(tmp_path, Waiting) as (group, node):

            async def ask(action: AnyAction) -> None:
                row = keys.outbox_row(0, group.last(0) + 1, 0)
                await group.write(0, lambda _: [(row, encode(action))])

            await ask(Publish(b"s" * 32, 0, b"b" * 16, 5000))
            await until(lambda: node.executed)
            await ask(RemoveSource(1, b"key", "null"))
            await until(lambda: len(node.executed) == 2)
            assert isinstance(node.executed[1], DeleteIfNewest)

    asyncio.run(whole())


def test_hints_that_come_while_others_are_told_are_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s4.upkeep.leader.LOOK_S", 0.01)
    go_on = asyncio.Event()

    class Slow(Node):
        def __init__(self, group: Group) -> None:
            super().__init__(group)
            self.partitions, self.executed = 8, list[Any]()

        async def execute(self, partition: int, command: Any, named: bytes = b"", again: bool = False) -> None:
            self.executed.append(command)
            await go_on.wait()

    async def whole() -> None:
        async with led(tmp_path, Slow) as (group, node):
            for number in range(2):
                row, asked = keys.outbox_row(0, group.last(0) + 1, 0), node.asked
                hint = Publish(bytes([number]) * 32, 0, bytes([number]) * 16, 5000)
                await group.write(0, lambda _, row=row, hint=hint: [(row, encode(hint))])
                await until(lambda asked=asked: node.executed and node.asked > asked)
            go_on.set()
            await until(lambda: not list(node.host.scan(keys.table(0, keys.OUTBOX))))
            assert len(node.executed) == 2

    asyncio.run(whole())


def test_hints_that_never_end_keep_no_row_from_going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s4.upkeep.leader.LOOK_S", 0.01)

    class Busy(Node):
        def __init__(self, group: Group) -> None:
            super().__init__(group)
            self.group, self.partitions, self.executed = group, 8, 0

        async def execute(self, partition: int, command: Any, named: bytes = b"", again: bool = False) -> None:
            self.executed += 1
            before = self.asked
            await ask(self.group, self.executed)
            await until(lambda: self.asked > before)  # it is known before this one is told

    async def ask(group: Group, number: int) -> None:
        row, name = keys.outbox_row(0, group.last(0) + 1, 0), number.to_bytes(16, "big")
        await group.write(0, lambda _: [(row, encode(Publish(name * 2, 0, name, 5000)))])

    async def whole() -> None:
        async with led(tmp_path, Busy) as (group, node):
            await ask(group, 0)
            first = keys.outbox_row(0, group.last(0), 0)
            assert node.host.get(first) is not None
            await until(lambda: node.host.get(first) is None)

    asyncio.run(whole())

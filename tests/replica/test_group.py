"""The host of the core by itself: what it keeps on disk, byte by byte, and what a crash between turns leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cluster.memory import MemoryCoordinator
from inprocess import until
from s4.cluster.messages import (
    LOST,
    Append,
    Config,
    Document,
    Durable,
    Entry,
    Plan,
    SnapshotPart,
    decode_document,
    encode_document,
)
from s4.node.member import MemberNode
from s4.replica.group import Group, View
from s4.replica.keptrows import config_of, load, packed
from s4.replica.pieces import PIECE
from s4.replica.snapshot import AT_ONCE
from s4.replica.terms import NotServingError, Timing
from s4.storage.leveldb import Database

_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]])
TIMING = Timing(beacon=0.02, lease=0.2, grace=0.3, resend=0.05)
ONE = b"\x00\x00k"


def database(path: Path) -> Database:
    return Database(path, cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=50)


def fail(error: BaseException) -> None:
    raise error


def rows(*made: tuple[bytes, bytes | None]) -> Callable[[View], list[tuple[bytes, bytes | None]]]:
    return lambda _: list(made)


def alone(
    path: Path, test: Callable[[Group, Database], Awaitable[None]], stores: tuple[str, ...] = ("a",), epoch: int = 1
) -> None:
    """A group of one partition on one store; other stores of the set are away."""

    async def whole() -> None:
        kept, coordinator = database(path), MemoryCoordinator()
        document = Document(Config(epoch, "a", stores), Plan(stores, 1))
        await coordinator.replace("partition/0", encode_document(document), 0)
        group = Group(
            "a", kept, coordinator, lambda *_: None, partitions=1, clock=time.monotonic, fatal=fail, timing=TIMING
        )
        await group.start()
        try:
            await test(group, kept)
        finally:
            await group.close()
            kept.close()

    asyncio.run(whole())


def test_rows_are_read_back_and_after_a_restart(tmp_path: Path) -> None:
    async def first(group: Group, kept: Database) -> None:
        with pytest.raises(NotServingError):
            group.read(0, ONE)
        await until(lambda: group.serves(0))
        await asyncio.gather(*(group.write(0, rows((ONE + b"%d" % number, b"v%d" % number))) for number in range(50)))
        await group.write(0, rows((ONE + b"7", None)))
        assert group.read(0, ONE + b"49") == b"v49"
        assert group.read(0, ONE + b"7") is None
        seen: list[bytes | None] = []
        await group.write(0, lambda view: seen.append(view(ONE + b"1")) or [])  # type: ignore[func-returns-value]
        assert seen == [b"v1"]

    async def second(group: Group, kept: Database) -> None:
        assert group.replica(0).state.epoch == 2
        await until(lambda: group.serves(0))
        assert group.replica(0).state.epoch >= 3, "a primary takes a new epoch after a restart (R10)"
        assert group.read(0, ONE + b"49") == b"v49"
        assert group.read(0, ONE + b"7") is None

    alone(tmp_path / "meta", first)
    alone(tmp_path / "meta", second, epoch=2)


def test_what_is_not_committed_is_kept_apart_byte_by_byte(tmp_path: Path) -> None:
    """Golden bytes of version 1: the state of a replica, and an entry that waits for a replica that is away."""

    async def test(group: Group, kept: Database) -> None:
        await until(lambda: group.serves(0))
        await group.write(0, rows((ONE, b"committed")))
        group._partitions[0].core._enough = lambda: False  # type: ignore[method-assign]  # no commit from here on
        group._partitions[0].core.serves = lambda _: True  # type: ignore[method-assign]
        core = group._partitions[0].core
        core._keep(Entry(core.state.epoch, core.last + 1, b"\x01\x91\x92\xc4\x03\x00\x00k\xc0"))
        group._drain(group._partitions[0])
        await until(lambda: kept.get(b"\xff\xffL\x00\x00" + (2).to_bytes(8, "big")))
        assert kept.get(ONE) == b"committed"
        assert dict(kept.scan(b"\xff\xff", b"\xff\xff\xff")) == {
            b"\xff\xffC\x00\x00": bytes.fromhex("01 97 02 a1 61 91 a1 61 90 90 a0 ff"),
            b"\xff\xffE\x00\x00": bytes.fromhex("01 93 02 01 c0"),
            b"\xff\xffL\x00\x00" + (2).to_bytes(8, "big"): bytes.fromhex("01 92 02 c4 09 01 91 92 c4 03 00 00 6b c0"),
        }
        assert config_of(kept, 0) == Config(2, "a", ("a",)), "what a lost map is made of again"
        state = load(kept, 0)
        assert (state.epoch, state.commit, state.joining) == (2, 1, None)
        assert state.log == [Entry(2, 2, b"\x01\x91\x92\xc4\x03\x00\x00k\xc0")]

    alone(tmp_path / "meta", test)


def test_a_store_whose_metadata_was_removed_leads_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """M4: somebody empties the directory, or a new disk is mounted below `meta/`: the map knows that there was
    something."""

    async def whole() -> None:
        kept, coordinator = database(tmp_path / "meta"), MemoryCoordinator()
        await coordinator.replace(
            "partition/0", encode_document(Document(Config(9, "a", ("a", "b")), Plan(("a", "b"), 1))), 0
        )
        group = Group(
            "a", kept, coordinator, lambda *_: None, partitions=1, clock=time.monotonic, fatal=fail, timing=TIMING
        )
        await group.start()
        try:
            await until(lambda: group.replica(0).alarm)
            await until(lambda: "partition 0: the copy of the metadata" in caplog.text)
            assert not group.serves(0)
            assert (await coordinator.read("partition/0"))[1] == 1, "it asked for nothing"
        finally:
            await group.close()
            kept.close()

    asyncio.run(whole())


def test_the_document_byte_by_byte() -> None:
    document = Document(
        Config(7, "a", ("a", "b"), ("c",), ("e", ""), "f", 1), Plan(("a", "b", "c"), 2, ("d",), ("e", "f"))
    )
    raw = b'{"format":1,"config":{"type":"Config","epoch":7,"primary":"a","in_sync":["a","b"],"eligible":["c"],"members":["e",""],"joining":"f","position":1},"plan":{"type":"Plan","replicas":["a","b","c"],"minimum":2,"gone":["d"],"members":["e","f"]}}'
    assert encode_document(document) == raw
    assert decode_document(raw) == document
    with pytest.raises(ValueError, match="format 2; this S4 knows 1"):
        decode_document(raw.replace(b'"format":1', b'"format":2'))


@pytest.mark.parametrize("lost", ["the part", "who joins"])
@pytest.mark.parametrize("bound", ["PART_ROWS", "PART_BYTES"])
def test_a_snapshot_travels_in_parts_and_replaces_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, lost: str
) -> None:
    """A replica that has other rows and lacks entries that nobody keeps joins: what it had goes, what was deleted stays
    deleted, and a part that is lost, or a start between two of them, costs another try only. No batch is longer than a
    part, or than a piece of what goes."""
    monkeypatch.setattr(f"s4.replica.snapshot.{bound}", 70)
    to_lose = [3]
    batches: list[int] = []

    async def whole() -> None:
        coordinator, groups = MemoryCoordinator(), dict[str, Group]()
        document = Document(Config(1, "a", ("a",)), Plan(("a", "b"), 1))
        await coordinator.replace("partition/0", encode_document(document), 0)

        def send(sender: str) -> Callable[[str, int, Any], None]:
            def to(store: str, partition: int, message: Any) -> None:
                if isinstance(message, SnapshotPart) and message.number == 3 and to_lose:
                    to_lose.clear()
                    if lost == "who joins":
                        restarts.append(asyncio.create_task(restart()))
                    return
                if store in groups:
                    asyncio.get_running_loop().call_soon(groups[store].deliver, sender, [(partition, message)])

            return to

        restarts: list[asyncio.Task[None]] = []

        async def restart() -> None:
            await groups["b"].written()
            await groups.pop("b").close()
            left = load(kept["b"], 0)
            assert (left.commit, left.joining, left.log) == (0, LOST, []), "what came in until now is no copy"
            await begin("b")

        async def begin(name: str) -> None:
            groups[name] = Group(
                name, kept[name], coordinator, send(name), partitions=1, clock=time.monotonic, fatal=fail, timing=TIMING
            )
            await groups[name].start()

        kept = {name: database(tmp_path / name) for name in "ab"}
        old = [(b"\x00\x00old%04d" % number, b"x") for number in range(600)]
        kept["b"].write([*old, (b"\x00\x01other", b"stays")])
        batch = kept["b"].batch
        monkeypatch.setattr(kept["b"], "batch", lambda rows, sync: (batches.append(len(rows)), batch(rows, sync))[1])
        await begin("a")
        groups["a"].replica(0)._kept.limit_bytes = -1
        await until(lambda: groups["a"].serves(0))
        for number in range(500):
            await groups["a"].write(0, rows((b"\x00\x00%03d" % number, b"v")))
        await groups["a"].write(0, rows(*((b"\x00\x00%03d" % number, None) for number in range(0, 500, 2))))
        await begin("b")
        await until(lambda: groups["a"].replica(0).document.config.in_sync == ("a", "b"))
        await groups["a"].write(0, rows((b"\x00\x00last", b"v")))
        wanted = {b"\x00\x00%03d" % number: b"v" for number in range(1, 500, 2)} | {b"\x00\x00last": b"v"}
        await until(lambda: dict(kept["b"].scan(b"\x00\x00", b"\x00\x01")) == wanted)
        assert kept["b"].get(b"\x00\x01other") == b"stays"
        assert not to_lose
        assert len(restarts) == (lost == "who joins")
        assert max(batches) <= PIECE
        for group in groups.values():
            await group.close()
        for one in kept.values():
            one.close()

    asyncio.run(whole())


def test_a_part_of_a_snapshot_is_acknowledged_once_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a member takes it: the sender's next part comes only then, so that a joiner with a slow disk holds one part
    in memory and not all of them."""
    monkeypatch.setattr("s4.replica.snapshot.PART_ROWS", 20)
    acknowledged: list[tuple[int, bool]] = []  # a part, and whether it was on the disk then

    async def whole() -> None:
        coordinator, groups = MemoryCoordinator(), dict[str, Group]()
        await coordinator.replace(
            "partition/0", encode_document(Document(Config(1, "a", ("a",)), Plan(("a", "b"), 1))), 0
        )
        kept = {name: database(tmp_path / name) for name in "ab"}

        def send(sender: str) -> Callable[[str, int, Any], None]:
            def to(store: str, partition: int, message: Any) -> None:
                if store in groups:
                    asyncio.get_running_loop().call_soon(groups[store].deliver, sender, [(partition, message)])

            return to

        def send_bulk(sender: str) -> Callable[[str, int, Any], Awaitable[None]]:
            async def to(store: str, partition: int, message: Any) -> None:
                member: Any = SimpleNamespace(host=SimpleNamespace(group=groups[store]))
                await MemberNode.deliver(member, sender, [(partition, message)])
                there = all(kept[store].get(key) == value for key, value in _decoder.decode(message.rows[1:]))
                acknowledged.append((message.number, there))

            return to

        for name in "ab":
            groups[name] = Group(
                name, kept[name], coordinator, send(name), partitions=1, clock=time.monotonic, fatal=fail,
                timing=TIMING, send_bulk=send_bulk(name),
            )  # fmt: skip
        await groups["a"].start()
        groups["a"].replica(0)._kept.limit_bytes = -1
        await until(lambda: groups["a"].serves(0))
        for number in range(100):
            await groups["a"].write(0, rows((b"\x00\x00%03d" % number, b"v")))
        await groups["b"].start()
        await until(lambda: groups["a"].replica(0).document.config.in_sync == ("a", "b"))
        await until(lambda: len(acknowledged) == 5)
        assert acknowledged == [(number, True) for number in range(5)]
        for group in groups.values():
            await group.close()
        for one in kept.values():
            one.close()

    asyncio.run(whole())


def test_few_snapshots_go_out_at_once_and_nothing_is_kept_for_those_that_wait(tmp_path: Path) -> None:
    """All partitions of a replaced disk at once each took longer than what was written meanwhile could be kept, and
    began anew for ever."""
    partitions = 6

    async def whole() -> None:
        coordinator, groups = MemoryCoordinator(), dict[str, Group]()
        for number in range(partitions):
            document = Document(Config(1, "a", ("a",)), Plan(("a", "b"), 1))
            await coordinator.replace(f"partition/{number}", encode_document(document), 0)
        kept = {name: database(tmp_path / name) for name in "ab"}
        under_way, most, go_on = set[int](), list[int](), asyncio.Event()

        def send(sender: str) -> Callable[[str, int, Any], None]:
            def to(store: str, partition: int, message: Any) -> None:
                if store in groups:
                    asyncio.get_running_loop().call_soon(groups[store].deliver, sender, [(partition, message)])

            return to

        async def send_bulk(store: str, partition: int, message: Any) -> None:
            under_way.add(partition)
            most.append(len(under_way))
            await go_on.wait()
            groups[store].deliver("a", [(partition, message)])
            if message.last:
                under_way.remove(partition)

        for name in "ab":
            groups[name] = Group(
                name, kept[name], coordinator, send(name), partitions=partitions, clock=time.monotonic, fatal=fail,
                timing=TIMING, send_bulk=send_bulk,
            )  # fmt: skip
        cores = [groups["a"].replica(number) for number in range(partitions)]
        await groups["a"].start()
        for number, core in enumerate(cores):
            core._kept.limit_bytes = -1
            await until(lambda number=number: groups["a"].serves(number))
            await groups["a"].write(number, rows((number.to_bytes(2, "big") + b"key", b"v")))
        await groups["b"].start()
        await until(lambda: all(core._attempts for core in cores))
        waiting = next(number for number in range(partitions) if number not in under_way)
        for number in range(50):
            await groups["a"].write(waiting, rows((waiting.to_bytes(2, "big") + b"%d" % number, b"v")))
        go_on.set()
        await until(lambda: all(core.document and core.document.config.in_sync == ("a", "b") for core in cores))
        assert max(most) == AT_ONCE
        assert cores[waiting]._attempts == 1
        await until(lambda: kept["b"].get(waiting.to_bytes(2, "big") + b"49") == b"v")
        for group in groups.values():
            await group.close()
        for one in kept.values():
            one.close()

    asyncio.run(whole())


def test_a_copy_that_is_cleared_keeps_no_other_partition_waiting(tmp_path: Path) -> None:
    """R8: a store that was away clears millions of rows before it is filled anew. What it takes of other partitions
    meanwhile waits for a piece of that: else no promise goes out, and it is thrown out of all sets that it is in."""

    async def whole() -> None:
        kept, coordinator, said = database(tmp_path / "b"), MemoryCoordinator(), list[tuple[int, Any]]()
        for number, in_sync in enumerate((("a", "b"), ("a",))):
            document = Document(Config(1, "a", in_sync), Plan(("a", "b"), 1))
            await coordinator.replace(f"partition/{number}", encode_document(document), 0)
        old = [b"\x00\x01%06d" % at for at in range(PIECE * 50)]
        kept.write([(key, b"old") for key in old])
        group = Group(
            "b", kept, coordinator, lambda _to, number, message: said.append((number, message)),
            partitions=2, clock=time.monotonic, fatal=fail, timing=TIMING,
        )  # fmt: skip
        await group.start()
        await until(lambda: all(group.replica(number).document for number in range(2)))
        group.deliver("a", [(0, Append(1, 0, (), 0, True))])
        filled = [(1, SnapshotPart(1, 7, 0, packed([(old[0] + b"new", b"v")]), True, 1))]
        group.deliver("a", filled)
        written = asyncio.ensure_future(group.written())
        await until(lambda: kept.get(old[0]) is None)
        group.deliver("a", [(0, Append(1, 0, (Entry(1, 1, packed([(ONE, b"v")])),), 0))])
        await until(lambda: (0, Durable(1, 1)) in said)
        assert kept.get(old[-1]) == b"old"
        assert not written.done(), "the next part comes when this one is on the disk"
        await written
        assert list(kept.scan(b"\x00\x01", b"\x00\x02")) == [(old[0] + b"new", b"v")]
        assert load(kept, 1).commit == 7
        await until(lambda: (1, Durable(1, 7, 1)) in said)
        await group.close()
        kept.close()

    asyncio.run(whole())

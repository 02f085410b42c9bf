"""Errors that nobody listed, around the core: a coordinator or a peer that fails in some new way ends neither a change
of the configuration nor a snapshot for good, and no process that has nothing in doubt."""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.memory import MemoryCoordinator
from inprocess import until
from replica.test_group import TIMING, database
from s4.cluster.messages import AnyMessage, Config, Document, Plan, SnapshotPart, encode_document
from s4.replica.group import Group
from s4.storage.leveldb import Database, DatabaseError

ERRORS = [OSError(errno.EHOSTUNREACH, "no route"), KeyError("x"), TimeoutError()]


class Moody(MemoryCoordinator):
    """Its next calls fail, each with one of these."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        if revision and self.errors:
            raise self.errors.pop(0)
        return await super().replace(document, value, revision)

    async def read(self, document: str) -> tuple[bytes, int]:
        if self.errors:
            raise self.errors.pop(0)
        return await super().read(document)


def test_a_change_of_the_configuration_is_repeated_after_any_error(tmp_path: Path) -> None:
    async def whole() -> None:
        ended: list[BaseException] = []
        coordinator, kept = Moody(*ERRORS), database(tmp_path / "a")
        await coordinator.replace("partition/0", encode_document(Document(Config(1, "a", ("a",)), Plan(("a",), 1))), 0)
        group = Group(
            "a",
            kept,
            coordinator,
            lambda *_: None,
            partitions=1,
            clock=time.monotonic,
            fatal=ended.append,
            timing=TIMING,
        )
        await group.start()
        await until(lambda: group.serves(0) or ended)
        assert not ended
        assert not coordinator.errors
        await group.close()
        kept.close()

    asyncio.run(whole())


@pytest.mark.parametrize("broken", ["the network", "the rows"])
def test_a_snapshot_that_fails_is_asked_for_again(tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A primary whose rows are damaged and cannot be done without ended, and did again whenever somebody joined."""

    async def whole() -> None:
        ended: list[BaseException] = []
        errors: list[Exception] = (
            [*ERRORS] if broken == "the network" else [DatabaseError("a block"), DatabaseError("a block")]
        )
        coordinator, groups = MemoryCoordinator(), dict[str, Group]()
        await coordinator.replace(
            "partition/0", encode_document(Document(Config(1, "a", ("a",)), Plan(("a", "b"), 1))), 0
        )

        def send(sender: str) -> Any:
            def to(store: str, partition: int, message: AnyMessage) -> None:
                if store in groups:
                    asyncio.get_running_loop().call_soon(groups[store].deliver, sender, [(partition, message)])

            return to

        async def bulk(store: str, partition: int, message: AnyMessage) -> None:
            if errors and isinstance(message, SnapshotPart):
                raise errors.pop(0)
            send("a")(store, partition, message)

        kept = {name: database(tmp_path / name) for name in "ab"}
        if broken == "the rows":
            real = Database.snapshot

            def snapshot(self: Database) -> Any:
                if errors:
                    raise errors.pop(0)
                return real(self)

            monkeypatch.setattr(Database, "snapshot", snapshot)
        for name in "ab":
            more: dict[str, Any] = {"send_bulk": bulk} if name == "a" and broken == "the network" else {}
            groups[name] = Group(
                name,
                kept[name],
                coordinator,
                send(name),
                partitions=1,
                clock=time.monotonic,
                fatal=ended.append,
                timing=TIMING,
                **more,
            )
            if name == "a":
                groups[name].replica(0)._kept.limit_bytes = -1  # no entries at hand: whoever joins gets a snapshot
                await groups[name].start()
                await until(lambda: groups["a"].serves(0))
                await groups[name].write(0, lambda _: [(b"\x00\x00k", b"v")])
        await groups["b"].start()
        await until(lambda: ended or groups["a"].replica(0).document.config.in_sync == ("a", "b"))
        assert not ended
        assert not errors
        await until(lambda: kept["b"].get(b"\x00\x00k") == b"v")
        for name in "ab":
            await groups[name].close()
            kept[name].close()

    asyncio.run(whole())

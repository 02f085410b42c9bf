"""A command whose answer is lost is sent again, while the disk fills up or a drive goes away meanwhile (R12, D5).

The cluster's router does that between nodes; here its part is done by a node that loses answers, over a real store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from inprocess import Bytes, get, opened, put
from s4.gateway.buckets import create_bucket
from s4.gateway.context import Gateway, NotCommittedError
from s4.gateway.multipart import Completion, WantedPart, complete_upload, create_upload, put_part
from s4.gateway.objects import Attributes
from s4.metadata import commands, keys
from s4.metadata.commands import AnyAnswer, AnyCommand, Claim, Taken
from s4.node.local import OpenStore
from s4.peer.api import UnknownResultError
from s4.s3.checksums import Expected
from s4.s3.errors import S3Error
from s4.storage.files import Files


class Disk(Files):
    """As large as it is told to be."""

    full = False

    def free_bytes(self, directory: Path) -> tuple[int, int]:
        return (0 if self.full else 1 << 40), 1 << 40


def new_id(number: int) -> bytes:
    return keys.command_id(int(time.time() * 1000), number.to_bytes(10, "big"))


class Losing:
    """A node whose answers to what `loses` says are lost once, and asked for again as the router does. `between` is
    what happens meanwhile."""

    def __init__(self, node: Any) -> None:
        self._node, self.lost, self._number = node, 0, 0
        self.loses: Callable[[AnyCommand], bool] = lambda _: False
        self.between: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def execute(
        self, partition: int, command: AnyCommand, command_id: bytes = b"", again: bool = False
    ) -> AnyAnswer:
        self._number += 1
        named = command_id or new_id(self._number)
        answer: AnyAnswer = await self._node.execute(partition, command, named, again)
        if not self.loses(command):
            return answer
        self.lost += 1
        self.between()
        repeated: AnyAnswer = await self._node.execute(partition, command, named, True)
        return repeated if self.lost else answer


@pytest.fixture(autouse=True)
def disk_is_always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s4.storage.room.ASK_S", -1.0)


def run(path: Path, test: Callable[[OpenStore, Gateway, Losing, Disk], Awaitable[None]], drives: int = 1) -> None:
    async def whole() -> None:
        disk = Disk()
        paths = [path / f"d{number}" for number in range(drives)]
        async with opened(paths, files=disk, reserve_bytes=1) as (store, gateway):
            node = Losing(store.node)
            gateway.node = node  # type: ignore[assignment]
            await create_bucket(gateway, "photos", "root")
            await test(store, gateway, node, disk)

    asyncio.run(whole())


@pytest.mark.parametrize("size", [100, 9000])
def test_a_put_whose_answer_is_lost_on_a_disk_that_fills_up_is_a_put(tmp_path: Path, size: int) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Losing, disk: Disk) -> None:
        body = b"x" * size
        node.loses = lambda command: isinstance(command, commands.PutObject)
        node.between = lambda: setattr(disk, "full", True)
        await put(gateway, "photos", b"k", body)
        assert node.lost == 1
        node.loses, disk.full = (lambda _: False), False
        assert await get(gateway, "photos", b"k") == body
        await put(gateway, "photos", b"other", body)  # the same content: shared, if it is there
        assert await get(gateway, "photos", b"other") == body

    run(tmp_path, test)


def test_a_shared_put_whose_answer_is_lost_keeps_its_reference(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Losing, disk: Disk) -> None:
        body = b"x" * 9000
        await put(gateway, "photos", b"first", body)
        node.loses = lambda command: isinstance(command, commands.PutObject)
        node.between = lambda: setattr(disk, "full", True)
        await put(gateway, "photos", b"second", body)
        node.loses, disk.full = (lambda _: False), False
        assert store.node.counters().references == 2
        await put(gateway, "photos", b"first", b"")
        assert await get(gateway, "photos", b"second") == body

    run(tmp_path, test)


def test_a_part_and_its_completion_survive_the_same(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Losing, disk: Disk) -> None:
        def fills() -> None:
            disk.full = True

        node.between = fills
        node.loses = lambda command: isinstance(command, commands.CreateUpload)
        upload, _ = await create_upload(gateway, "photos", b"m", Attributes(), "root", "", "")
        disk.full = False
        node.loses = lambda command: isinstance(command, commands.PutPart)
        stored, _, _ = await put_part(gateway, "photos", b"m", upload, 1, Bytes(b"y" * 9000), Expected())
        node.loses = lambda command: isinstance(command, commands.CompleteUpload)
        await complete_upload(gateway, "photos", b"m", upload, Completion([WantedPart(1, stored.etag, {})]))
        assert node.lost == 3
        assert await get(gateway, "photos", b"m") == b"y" * 9000

    run(tmp_path, test)


def test_what_never_was_decided_is_refused_on_a_full_disk_and_leaves_nothing(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Losing, disk: Disk) -> None:
        body = b"x" * 9000
        home = keys.partition_of(1, b"k", gateway.partitions)
        assert await store.node.execute(home, commands.RefuseBlob(b"b" * 16)) == Taken(False)
        execute = node.execute

        async def first_is_lost(partition: int, command: AnyCommand, *sent: Any) -> AnyAnswer:
            if not isinstance(command, commands.PutObject):
                return await execute(partition, command, *sent)
            disk.full, named = True, new_id(0)
            answer: AnyAnswer = await store.node.execute(partition, command, named, True)
            disk.full = False
            late: AnyAnswer = await store.node.execute(partition, command, named)  # the first sending, at last
            assert late == answer
            return answer

        node.execute = first_is_lost  # type: ignore[method-assign]
        with pytest.raises(NotCommittedError) as refused:
            await put(gateway, "photos", b"k", body)
        assert refused.value.code == "StorageFull"
        with pytest.raises(S3Error, match="NoSuchKey"):
            await get(gateway, "photos", b"k")
        assert store.node.counters().blobs == 0
        await store.drives.flush()
        assert not list(store.drives.stores[0].records())

    run(tmp_path, test)


def test_a_bucket_that_was_made_on_a_disk_that_fills_up_is_made(tmp_path: Path) -> None:
    async def test(store: OpenStore, gateway: Gateway, node: Losing, disk: Disk) -> None:
        node.loses = lambda command: isinstance(command, commands.CreateBucket)
        node.between = lambda: setattr(disk, "full", True)
        assert (await create_bucket(gateway, "more", "root")).owner == "root"
        disk.full, node.loses = False, lambda _: False
        node.between = lambda: None
        disk.full = True
        with pytest.raises(NotCommittedError) as refused:
            await create_bucket(gateway, "less", "root")
        assert refused.value.code == "StorageFull"

    run(tmp_path, test)


def test_a_reference_that_was_granted_is_granted_again_while_a_drive_is_away(tmp_path: Path) -> None:
    """C4 refuses new ones then; this one is taken, and its holder may be committed."""

    async def test(store: OpenStore, gateway: Gateway, node: Losing, disk: Disk) -> None:
        await put(gateway, "photos", b"first", b"x" * 9000)
        bucket = await gateway.node.find_bucket("photos")
        assert bucket is not None
        home = keys.partition_of(bucket.id, b"first", gateway.partitions)
        blob = next(iter(store.host.scan(keys.table(home, keys.BLOB))))[0][3:]
        take = commands.TakeReferences([Claim(blob, b"r" * 16, 1, bucket.id, b"k")])
        assert await store.node.execute(home, take) == Taken(True)
        assert await store.node.execute(home, commands.NeedHeal(blob, [1])) == Taken(True)
        assert await store.node.execute(home, take, b"", True) == Taken(True)
        more = commands.TakeReferences([Claim(blob, b"s" * 16, 1, bucket.id, b"k")])
        assert await store.node.execute(home, more) == Taken(False)

    run(tmp_path, test, drives=3)


def test_a_result_that_nobody_knows_is_no_refusal(tmp_path: Path) -> None:
    """What was stored stays: it may be committed."""

    async def test(store: OpenStore, gateway: Gateway, node: Losing, disk: Disk) -> None:
        async def unknown(partition: int, command: AnyCommand, *sent: Any) -> AnyAnswer:
            await store.node.execute(partition, command)
            raise UnknownResultError("no longer known")

        node.execute = unknown  # type: ignore[method-assign]
        with pytest.raises(S3Error) as failure:
            await put(gateway, "photos", b"k", b"x" * 9000)
        assert not isinstance(failure.value, NotCommittedError)
        assert (failure.value.code, failure.value.headers["Retry-After"]) == ("ServiceUnavailable", "1")
        assert await get(gateway, "photos", b"k") == b"x" * 9000

    run(tmp_path, test)

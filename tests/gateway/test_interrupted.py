"""Work that a crash cut off between two steps is finished or undone at the next start (rule L3; the sixth of README's
promises)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from inprocess import opened, put, until, verified
from s4.gateway.buckets import create_bucket, delete_bucket, set_versioning
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.objects import delete_object
from s4.gateway.read import open_object
from s4.metadata import commands, keys
from s4.metadata.rows import Content, decode
from s4.node.local import OpenStore
from s4.s3.errors import S3Error
from s4.upkeep.deletions import Deletions


def with_store(path: Path, test: Callable[[OpenStore, Gateway], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with opened(path) as (store, gateway):
            await test(store, gateway)

    asyncio.run(whole())


@pytest.mark.parametrize("closed", [0, 1, 9, 16])
@pytest.mark.parametrize("empty", [True, False])
def test_a_bucket_deletion_that_was_cut_off(tmp_path: Path, closed: int, empty: bool) -> None:
    key = b"kept"

    async def cut_off(store: OpenStore, gateway: Gateway) -> None:
        bucket = await create_bucket(gateway, "photos", "root")
        if not empty:
            await put(gateway, "photos", key, b"x" * 5000)
        begun = await store.node.execute(0, commands.BeginDelete("photos", b"token"))
        home = keys.partition_of(bucket.id, key, 16)
        for partition in range(closed):
            if empty or partition != home:
                await store.node.execute(partition, commands.CloseBucket(bucket.id, begun.bucket.deleting))

    async def resumed(store: OpenStore, gateway: Gateway) -> None:
        await Deletions(gateway, alone=True).look()
        if empty:
            with pytest.raises(S3Error, match="NoSuchBucket"):
                await find_bucket(gateway, "photos")
            return
        assert (await find_bucket(gateway, "photos")).deleting == b""
        for number in range(40):  # every partition takes writes again
            await put(gateway, "photos", b"%d" % number, b"y")
        with pytest.raises(S3Error, match="BucketNotEmpty"):
            await delete_bucket(gateway, "photos")
        await put(gateway, "photos", b"after", b"z")

    with_store(tmp_path / "data", cut_off)
    with_store(tmp_path / "data", resumed)


def test_a_reference_without_a_holder_goes_with_the_audit(tmp_path: Path) -> None:
    """A crash between taking a reference and committing its object leaves garbage, never a dangling reference."""
    from s4.upkeep.orphans import audit

    async def test(store: OpenStore, gateway: Gateway) -> None:
        bucket = await create_bucket(gateway, "photos", "root")
        await put(gateway, "photos", b"a", b"x" * 9000)
        home = keys.partition_of(bucket.id, b"a", 16)
        blob = next(iter(store.host.scan(keys.table(home, keys.BLOB))))[0][3:]
        claim = commands.Claim(blob, b"r" * 16, 5, bucket.id, b"never")
        assert await store.node.execute(home, commands.TakeReferences([claim])) == commands.Taken(True)
        report = await verified(store.node, deep=False)
        assert ["held by nobody" in problem for problem in report.problems] == [True]
        assert (await audit(store.node, store.node, age_s=86400)).orphan_references == 0
        assert (await audit(store.node, store.node, age_s=-1)).orphan_references == 1
        report = await verified(store.node)
        assert (report.problems, report.references) == ([], 1)

    with_store(tmp_path / "data", test)


def test_a_hint_that_came_late_goes_with_the_audit(tmp_path: Path) -> None:
    """Whose content was published once more after it was withdrawn: the row named a blob that is gone, for ever."""
    from s4.upkeep.orphans import audit

    async def test(store: OpenStore, gateway: Gateway) -> None:
        def contents() -> list[tuple[int, bytes, bytes]]:
            return [
                (partition, key[3:], value)
                for partition in range(16)
                for key, value in store.host.scan(keys.table(partition, keys.CONTENT))
            ]

        await create_bucket(gateway, "photos", "root")
        for number in range(3):
            await put(gateway, "photos", b"%d" % number, b"%d" % number * 9000)
        before = contents()
        assert len(before) == 3
        for number in range(2):
            await delete_object(gateway, "photos", b"%d" % number, "", "root")
        (left,) = contents()
        for partition, sha256, value in before:
            row = decode(Content, value)
            await store.node.execute(partition, commands.PublishContent(sha256, row.partition, row.blob, row.size))
        assert contents() == before
        assert (await audit(store.node, store.node, age_s=86400)).stale_contents == 2
        assert contents() == [left]
        assert (await audit(store.node, store.node, age_s=86400)).stale_contents == 0

    with_store(tmp_path / "data", test)


def test_a_format_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "s4.json.new").write_bytes(b'{"clus')

    async def test(store: OpenStore, gateway: Gateway) -> None:
        await create_bucket(gateway, "photos", "root")

    with_store(tmp_path / "data", test)


def test_a_lost_map_does_not_put_new_versions_below_old_ones(tmp_path: Path) -> None:
    async def write(store: OpenStore, gateway: Gateway) -> None:
        if await gateway.node.find_bucket("photos") is None:
            await create_bucket(gateway, "photos", "root")
            await set_versioning(gateway, "photos", "Enabled")
        await put(gateway, "photos", b"k", b"%d" % store.host.epochs[0])
        opened = await open_object(gateway, "photos", b"k", "")
        assert opened.inline == b"%d" % store.host.epochs[0]

    for _ in range(3):
        with_store(tmp_path / "data", write)
    (tmp_path / "data" / "map").unlink()
    with_store(tmp_path / "data", write)
    with_store(tmp_path / "data", write)


def test_freeing_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s4.node.base.REAP_S", 0.01)

    async def test(store: OpenStore, gateway: Gateway) -> None:
        await create_bucket(gateway, "photos", "root")
        free, failed = store.drives.stores[0].free, asyncio.Event()

        async def failing(partition: int, blob: bytes) -> int:
            if not failed.is_set():
                failed.set()
                raise OSError("once")
            return await free(partition, blob)

        store.drives.stores[0].free = failing  # type: ignore[method-assign]
        for key in (b"a", b"b"):
            await put(gateway, "photos", key, key * 9000)
            await delete_object(gateway, "photos", key, "", "root")
            await asyncio.wait_for(failed.wait(), 60)
        await until(lambda: not store.node.outbox_waiting)
        dead = sum(use.dead for use in store.drives.stores[0].usage().values())
        assert dead >= 9000

    with_store(tmp_path / "data", test)


def test_two_who_delete_one_bucket_end_it_once(tmp_path: Path) -> None:
    """One finds the bucket in use, the other comes later and finds it empty: the deletion that was to be undone is not
    ended as done, and a message that closes a partition late closes nothing (L3)."""

    async def test() -> None:
        async with opened(tmp_path / "data") as (store, gateway):
            await create_bucket(gateway, "photos", "root")
            answer = await store.node.execute(0, commands.BeginDelete("photos", b"t" * 16))
            token, bucket = answer.bucket.deleting, answer.bucket.id
            assert (await store.node.execute(0, commands.UndoDelete("photos", token))).granted
            assert not (await store.node.execute(0, commands.EndDelete("photos", token, done=True))).granted
            for partition in range(store.node.partitions):
                await store.node.execute(partition, commands.ReopenBucket(bucket, token))
            assert (await store.node.execute(0, commands.EndDelete("photos", token, done=False))).granted
            late = await store.node.execute(3, commands.CloseBucket(bucket, token))
            assert late.code == "OperationAborted"
            assert not (await store.node.execute(0, commands.EndDelete("photos", token, done=True))).granted
            await delete_bucket(gateway, "photos")
            assert await store.node.find_bucket("photos") is None

    asyncio.run(test())

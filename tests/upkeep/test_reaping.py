"""Shards of dead blobs are freed, whatever fails on the way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

import pytest

from inprocess import opened, put
from s4.base.clock import boot_clock
from s4.gateway.buckets import create_bucket
from s4.gateway.context import Gateway
from s4.gateway.objects import delete_object
from s4.metadata import commands, keys
from s4.metadata.rows import Blob, decode
from s4.node.local import OpenStore
from s4.storage.records import Shard
from s4.upkeep import orphans
from s4.upkeep.heal import Healer
from storage.fakes import FaultyFiles


def test_what_cannot_be_freed_once_is_freed_later(tmp_path: Path) -> None:
    """The simulator (tests/whole) met a punch that failed: its blob, and all that were freed beside it, waited in the
    outbox for the next start of the server."""

    async def whole() -> None:
        files = FaultyFiles({"punch"}, 1, errno.EIO)
        async with opened(tmp_path, files=files) as (store, gateway):
            await create_bucket(gateway, "bucket", "root")
            for key in (b"one", b"two"):
                await put(gateway, "bucket", key, key * 50_000)
            for key in (b"one", b"two"):
                await delete_object(gateway, "bucket", key, "", "root")
            files.arm()
            while store.node.outbox_waiting:
                with contextlib.suppress(OSError):  # a job tells it and is run again
                    await store.node.reap()
                await asyncio.sleep(0)
            assert files.fired
            left = [
                row
                for partition in range(store.node.partitions)
                for row in store.host.scan(keys.table(partition, keys.OUTBOX))
            ]
            assert left == []
            assert not list(store.drives.stores[0].records())

    asyncio.run(whole())


async def _deleted_under_a_reader(store: OpenStore, gateway: Gateway) -> tuple[int, bytes, Blob, list[float]]:
    """(partition, blob, its row, the start of the oldest reader) of content that was deleted while somebody reads
    it."""
    began = [boot_clock()]
    store.node._horizon = lambda: began[0]
    await create_bucket(gateway, "read", "root")
    await put(gateway, "read", b"key", os.urandom(200_000))
    ((partition, blob, row),) = [
        (partition, key[3:], decode(Blob, value))
        for partition in range(store.node.partitions)
        for key, value in store.host.scan(keys.table(partition, keys.BLOB))
    ]
    await delete_object(gateway, "read", b"key", "", "root")
    assert store.host.get(keys.blob_row(partition, blob)) is None
    return partition, blob, row, began


def _there(store: OpenStore, partition: int, blob: bytes) -> list[int]:
    """Positions of a blob whose shards are there."""
    return [at for at in range(3) if store.drives.at(partition, at).locate(Shard(partition, blob, at, 0)) is not None]


def test_the_auditor_frees_nothing_under_who_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that was deleted a moment ago has no row either: a download of what was older than a day broke off at the
    next audit (D6)."""
    monkeypatch.setattr(orphans, "READERS_S", 0.3)

    async def test() -> None:
        async with opened([tmp_path / f"d{number}" for number in range(3)]) as (store, gateway):
            partition, blob, _, began = await _deleted_under_a_reader(store, gateway)
            assert (await orphans.audit(store.node, store.node, age_s=-10)).orphan_blobs == 0
            assert _there(store, partition, blob) == [0, 1, 2]
            began[0] = boot_clock() + 60  # it has ended
            assert (await orphans.audit(store.node, store.node, age_s=-10)).orphan_blobs == 3
            assert _there(store, partition, blob) == []

    asyncio.run(test())


def test_a_heal_of_what_was_deleted_meanwhile_frees_what_it_made_alone(tmp_path: Path) -> None:
    """It freed all shards, of a download too that had begun before (D6)."""

    async def test() -> None:
        async with opened([tmp_path / f"d{number}" for number in range(3)]) as (store, gateway):
            partition, blob, row, _ = await _deleted_under_a_reader(store, gateway)
            name = store.node.membership.current.spec.members[partition][1]
            await store.drives.at(partition, 1).free_position(partition, blob, 1)
            repair = Healer(store.node, store.joiners).repair
            assert await repair._confirm(partition, blob, row, 1, name) > 0
            assert _there(store, partition, blob) == [0, 2]
            await store.node.execute(partition, commands.NeedHeal(blob, [1]))
            await repair.make(partition, blob, row, 1, name)
            await repair._forget(partition, blob, 1, name)
            assert _there(store, partition, blob) == [0, 2]

    asyncio.run(test())

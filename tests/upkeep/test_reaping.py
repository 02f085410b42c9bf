"""Shards of dead blobs are freed, whatever fails on the way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from pathlib import Path

from inprocess import opened, put
from s4.gateway.buckets import create_bucket
from s4.gateway.objects import delete_object
from s4.metadata import keys
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

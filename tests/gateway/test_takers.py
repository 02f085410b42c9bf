"""D2: a shard counts only where one process of one store took all of its stripes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from inprocess import opened, put
from s4.gateway.buckets import create_bucket
from s4.metadata import keys
from s4.metadata.rows import Blob, decode
from s4.storage.records import Shard


class Restarting:
    """A node with a store that starts again, or is another one, from some stripe on."""

    def __init__(self, node: Any, position: int, stripe: int) -> None:
        self._node, self._from = node, (position, stripe)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def append(self, shard: Shard, payload: Any, sync: bool) -> str:
        await self._node.append(shard, payload, sync)
        again = shard.position == self._from[0] and shard.stripe >= self._from[1]
        return f"store-{shard.position}.{2 if again else 1}"


def test_a_store_that_starts_again_within_a_blob_does_not_count(tmp_path: Path) -> None:
    async def test() -> None:
        directories = [tmp_path / f"d{number}" for number in range(4)]
        async with opened(directories) as (store, gateway):
            await create_bucket(gateway, "photos", "root")
            gateway.node = Restarting(store.node, 1, 1)
            await put(gateway, "photos", b"k", bytes(range(256)) * 40_000)
            rows = [
                decode(Blob, value) for part in range(16) for _, value in store.host.scan(keys.table(part, keys.BLOB))
            ]
            assert [row.missing for row in rows] == [[1]]
            heals = [key for part in range(16) for key, _ in store.host.scan(keys.table(part, keys.HEAL))]
            assert len(heals) == 1

    asyncio.run(test())


def test_what_a_store_says_it_has_stays_there(tmp_path: Path) -> None:
    """D1: whoever fills a store, or compares it, counts on the answer: a shard that its loss of power takes with it was
    neither lacking nor queued."""

    async def test() -> None:
        async with opened(tmp_path / "d", preallocate_bytes=0) as (store, _):
            blob, row = bytes(16), Blob(5, 4096, 1, 0, bytes(32), 0)
            shards = store.node.drives.stores[0]
            await store.node.append(Shard(0, blob, 0, 0), b"bytes", False)
            assert shards.dirty
            assert await store.node.lacking(0, 0, [(blob, row)]) == []
            assert not shards.dirty

    asyncio.run(test())

"""Uploads of many parts as a gateway asks for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from inprocess import opened
from s4.gateway.context import Readers
from s4.metadata import commands, keys
from s4.metadata.rows import Extent, Part, Upload, decode
from s4.peer import frames
from s4.peer.client import RemoteNode
from s4.peer.server import PeerServer

COUNT, CONTENT, UPLOAD = 1100, bytes(64 * 1024 - 1), bytes(16)


def test_an_upload_is_found_whatever_its_parts_hold(tmp_path: Path) -> None:
    """Content that is in the rows of parts does not come along: beyond a frame it cut the connection, which all other
    calls share, and each of many requests held all of it."""
    assert COUNT * len(CONTENT) > frames.MAX_HEADER

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, _):
            server = PeerServer(store.node, tmp_path / "peer.sock")
            await server.start()
            remote = await RemoteNode.connect(tmp_path / "peer.sock", Readers().oldest, lambda: None)
            made = await remote.execute(0, commands.CreateBucket("bucket", "root", 100, 100))
            assert isinstance(made, commands.BucketMade)
            settings, partition = commands.Settings(made.bucket.id, 1, ""), keys.partition_of(made.bucket.id, b"k", 16)
            await remote.execute(partition, commands.CreateUpload(settings, b"k", UPLOAD, Upload(0, "root")))
            for number in range(1, COUNT + 1):
                extent = Extent(number, len(CONTENT), etag="e")
                await remote.execute(partition, commands.PutPart(settings, b"k", UPLOAD, extent, CONTENT))
            for after, limit in ((0, 10_000), (0, 1000), (700, 301), (0, 0)):
                found = await remote.find_upload(partition, made.bucket.id, b"k", UPLOAD, after, limit)
                assert found is not None
                numbers = [decode(Part, value).extent.number for value in found.parts]
                assert numbers == list(range(1, COUNT + 1))[after : after + limit]
                assert sum(map(len, found.parts)) < 1 << 20
            assert not remote.gone
            await remote.close()
            await server.close()

    asyncio.run(whole())

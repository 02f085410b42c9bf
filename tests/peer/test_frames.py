"""The frames: every method of the interface travels, and nonsense ends the connection without hurting others."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from inprocess import opened
from s4.base.clock import boot_clock
from s4.metadata import commands
from s4.metadata.listing import Query
from s4.metadata.rows import Grant
from s4.node.local import OpenStore
from s4.peer import frames
from s4.peer.api import NodeApi, UnavailableError
from s4.peer.client import RemoteNode
from s4.peer.server import PeerServer
from s4.storage.records import DamagedError, Shard


def with_remote(tmp_path: Path, test: Callable[[OpenStore, PeerServer, RemoteNode], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, _):
            server = PeerServer(store.node, tmp_path / "peer.sock")
            await server.start()
            remote = await RemoteNode.connect(tmp_path / "peer.sock", boot_clock, lambda: None)
            try:
                await test(store, server, remote)
            finally:
                await remote.close()
                await server.close()

    asyncio.run(whole())


def test_every_method_travels(tmp_path: Path) -> None:
    async def test(store: OpenStore, _: PeerServer, remote: RemoteNode) -> None:
        node: NodeApi = remote
        assert (await node.layout()).partitions == 16
        made = await node.execute(0, commands.CreateBucket("photos", "root", 10, 10))
        assert isinstance(made, commands.BucketMade)
        assert (await node.list_buckets())[0][0] == "photos"
        assert await node.find_bucket("photos") == made.bucket
        assert await node.find_bucket("none") is None
        assert (await node.execute(0, commands.CreateBucket("photos", "root", 10, 10))) == await store.node.execute(
            0, commands.CreateBucket("photos", "root", 10, 10)
        )
        identity = await node.find_identity(store.root.access_key)
        assert identity is not None
        assert identity.grants == [Grant("SuperUser")]
        body = os.urandom(300_000)
        shard = Shard(3, b"b" * 16, 0, 0)
        await node.append(shard, memoryview(body), True)
        assert await node.read(shard, 1000, 200_000) == body[1000:201_000]
        await node.discard(3, b"b" * 16)
        with pytest.raises(DamagedError):
            await node.read(shard, 0, 1)
        others = [Shard(3, bytes([number]) * 16, 0, 0) for number in range(3)]
        for remote.version in frames.VERSIONS:  # of an older one too, which is told of each
            for other in others:
                await node.append(other, memoryview(body), True)
            await node.discard_all(3, [other.blob for other in others])
            for other in others:
                with pytest.raises(DamagedError):
                    await node.read(other, 0, 1)
        with pytest.raises(DamagedError):
            await node.find_blob(3, b"b" * 16)
        page = await node.list_objects(made.bucket.id, Query())
        assert (page.items, page.truncated) == ([], False)
        assert (await node.list_uploads(made.bucket.id, b"", b"", b"", None, 10)).items == []
        assert await node.find_object(0, 1, b"k", "") is None
        assert await node.find_upload(0, 1, b"k", b"u" * 16, 0, 10) is None
        assert await node.find_content(0, bytes(32)) is None
        assert (await node.stats())["buckets_count"] == 1

    with_remote(tmp_path, test)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xff" * 100,
        struct.pack("<II", 1 << 31, 0),
        struct.pack("<II", 3, 0) + b"abc",
        struct.pack("<II", 1, 1 << 31) + b"\x90",
    ],
)
def test_nonsense_ends_its_connection_only(tmp_path: Path, junk: bytes) -> None:
    async def test(_: OpenStore, server: PeerServer, remote: RemoteNode) -> None:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "peer.sock")
        writer.write(junk)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert (await remote.layout()).partitions == 16

    with_remote(tmp_path, test)


def test_another_incarnation_is_refused(tmp_path: Path) -> None:
    """D2: what was meant for the process before is not taken by this one."""

    async def test(_: OpenStore, server: PeerServer, remote: RemoteNode) -> None:
        remote._incarnation += 1
        with pytest.raises(UnavailableError):
            await remote.layout()

    with_remote(tmp_path, test)


def test_a_lost_store_fails_calls_and_ends_the_gateway(tmp_path: Path) -> None:
    async def test(_: OpenStore, server: PeerServer, remote: RemoteNode) -> None:
        lost = asyncio.Event()
        remote._lost = lost.set
        await server.close()
        await asyncio.wait_for(lost.wait(), 60)
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(remote.layout(), 5)

    with_remote(tmp_path, test)


def test_a_gateway_that_does_not_forget_holds_a_change_back_for_its_lease_only(tmp_path: Path) -> None:
    async def test(store: OpenStore, server: PeerServer, remote: RemoteNode) -> None:
        await remote.execute(0, commands.CreateBucket("photos", "root", 10, 10))
        assert (await remote.find_bucket("photos")) is not None
        for task in remote._tasks:
            task.cancel()  # it hears nothing any more and sends no beacons
        started = time.monotonic()
        await store.node.execute(0, commands.SetVersioning("photos", "Enabled"))
        assert 0.5 < time.monotonic() - started < 4
        assert boot_clock() >= remote._lease_until

    with_remote(tmp_path, test)


def test_the_interface_is_the_wire_format() -> None:
    assert set(frames.METHODS) == {name for name in dir(NodeApi) if not name.startswith("_")} - {
        "read_now"
    }  # which a peer never has
    assert [name for name, method in frames.METHODS.items() if method.raw_result] == ["read"]
    everything: Any = frames.METHODS["append"].payload_at
    assert everything == 1

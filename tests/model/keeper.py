"""A store in a process of its own whose clock its parent moves, and that its parent may kill at any moment.

Over a pipe come {"op": name, "now": seconds, ...}; each is answered. Not a test by itself.
"""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from inprocess import Bytes, opened, verified
from s4.access import documents
from s4.crypto.keyring import Keyring
from s4.gateway import buckets, objects
from s4.gateway.context import Gateway
from s4.gateway.objects import Attributes
from s4.gateway.read import open_object, stream, unlock
from s4.metadata import keys
from s4.metadata.listing import Query
from s4.metadata.listing import Version as Listed
from s4.node.local import OpenStore
from s4.s3.checksums import Expected
from s4.s3.encryption import SSE_S3, Wanted
from s4.s3.errors import S3Error
from s4.s3.lifecycle import Rule
from s4.s3.lock import Lock
from s4.upkeep.lifecycle import Lifecycle

BUCKET, DAY_S = "kept", 10


class Keeper:
    def __init__(self, store: OpenStore, gateway: Gateway) -> None:
        self.store, self.gateway, self.now = store, gateway, 0.0
        self.worker = Lifecycle(gateway, store.host, lambda: range(gateway.partitions), lambda: True, lambda: self.now)

    async def put(self, key: str, body: str, mode: str, until: int, hold: bool, sealed: bool) -> str:
        attributes = Attributes(lock=Lock(mode, until, hold), encryption=Wanted(SSE_S3) if sealed else None)
        return (
            await objects.put_object(
                self.gateway, BUCKET, key.encode(), Bytes(body.encode()), Expected(), attributes, "root"
            )
        ).version

    async def delete(self, key: str) -> str:
        return (await objects.delete_object(self.gateway, BUCKET, key.encode(), "", "root")).version

    async def delete_version(self, key: str, version: str, bypass: bool) -> str:
        return (await objects.delete_object(self.gateway, BUCKET, key.encode(), version, "root", bypass=bypass)).version

    async def retain(self, key: str, version: str, mode: str, until: int, bypass: bool) -> str:
        return await objects.change_object(
            self.gateway, BUCKET, key.encode(), version, retention=(mode, until), bypass=bypass
        )

    async def hold(self, key: str, version: str, on: bool) -> str:
        return await objects.change_object(self.gateway, BUCKET, key.encode(), version, hold=on)

    async def rules(self, **rule: Any) -> str:
        text = documents.encode([Rule("r", True, **rule)]) if any(rule.values()) else ""
        await buckets.set_document(self.gateway, BUCKET, documents.LIFECYCLE, text)
        return ""

    async def lifecycle(self) -> str:
        """A pass; the day's own was maybe done before."""
        self.worker._done.clear()
        await self.worker.run()
        return ""

    async def versions(self) -> list[list[Any]]:
        """[key, version, marker, modified, mode, until, hold, body] of all, newest first."""
        bucket = await self.gateway.node.find_bucket(BUCKET)
        assert bucket is not None
        page = await self.gateway.node.list_objects(bucket.id, Query(versions=True, limit=10_000))
        found = []
        for one in page.items:
            assert isinstance(one, Listed)
            shown = keys.version_id(one.suffix)
            if one.row.marker:
                found.append([one.key.decode(), shown, True, one.row.modified_ms, "", 0, False, ""])
                continue
            row = await open_object(self.gateway, BUCKET, one.key, shown)
            await unlock(self.gateway, row)
            body = b"".join([bytes(piece) async for piece in stream(self.gateway, row, 0, row.row.size)]).decode()
            found.append(
                [
                    one.key.decode(),
                    shown,
                    False,
                    row.row.modified_ms,
                    row.row.lock_mode,
                    row.row.lock_until_ms,
                    row.row.legal_hold,
                    body,
                ]
            )
        return found

    async def problems(self) -> list[str]:
        return (await verified(self.store.node)).problems


def main(directory: Path, pipe: Connection) -> None:
    asyncio.run(_serve(directory, pipe))


async def _serve(directory: Path, pipe: Connection) -> None:
    now = [0.0]
    async with opened(directory, clock=lambda: now[0], partitions=2) as (store, gateway):
        gateway.keyring, gateway.day_ms = Keyring(bytes(32)), DAY_S * 1000
        if await gateway.node.find_bucket(BUCKET) is None:
            await buckets.create_bucket(gateway, BUCKET, "root", lock=True)
        keeper = Keeper(store, gateway)
        pipe.send("ready")
        while given := await asyncio.to_thread(pipe.recv):
            now[0] = keeper.now = given.pop("now")
            try:
                answer = {"ok": await getattr(keeper, given.pop("op"))(**given)}
            except S3Error as error:
                answer = {"error": error.code}
            pipe.send(answer)

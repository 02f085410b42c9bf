"""The embedded server's store side: from a directory to a running `Node`. One process, the `local` coordinator.

Order at start: lock, identity, shard map with a new epoch (rule R10), databases, volumes past the mark, then
the writer loop, then whatever a crash cut off. At the end the reverse: what is acknowledged is durable anyway.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from s4.cluster import shardmap
from s4.cluster.coordinator import LocalCoordinator
from s4.limits import MIB, Limits
from s4.metadata import keys
from s4.metadata.rows import Grant, Head, decode
from s4.node import ROOT_USER, Node
from s4.peer.api import Identity
from s4.replica.host import Host
from s4.storage.directory import open_directory
from s4.storage.files import Files
from s4.storage.leveldb import Database
from s4.storage.shards import ShardSettings, ShardStore

PARTITIONS = 16


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """`reserve_bytes` is kept free; `durability` is sync, interval (each second) or none."""

    durability: str = "sync"
    reserve_bytes: int = 1 << 30
    volume_bytes: int = 1 << 30
    preallocate_bytes: int = 64 * MIB
    partitions: int = PARTITIONS


class RootKeys(msgspec.Struct, frozen=True):
    access_key: str
    secret_key: str


def root_keys(files: Files, directory: Path, environment: dict[str, str]) -> tuple[RootKeys, bool]:
    """(keys, made just now): from the environment, or kept in the directory, or made and kept."""
    access, secret = environment.get("S4_ROOT_ACCESS_KEY", ""), environment.get("S4_ROOT_SECRET_KEY", "")
    if bool(access) != bool(secret):
        raise ValueError("set both S4_ROOT_ACCESS_KEY and S4_ROOT_SECRET_KEY, or neither")
    if access:
        if len(access) < 3 or len(secret) < 8 or "/" in access:
            raise ValueError(
                "S4_ROOT_ACCESS_KEY needs 3 characters or more without a slash, S4_ROOT_SECRET_KEY 8 or more"
            )
        return RootKeys(access, secret), False
    path = directory / "root.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=RootKeys), False
    keys = RootKeys("S4" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))
    files.replace(path, msgspec.json.encode(keys))
    return keys, True


@dataclass(slots=True)
class OpenStore:
    """A running store."""

    directory: Path
    node: Node
    host: Host
    shards: ShardStore
    database: Database
    coordinator: LocalCoordinator
    root: RootKeys
    root_made: bool
    lock: int

    async def close(self) -> None:
        await self.node.close()
        await self.host.close()
        await self.shards.close()
        self.database.close()
        os.close(self.lock)


async def open_store(directory: Path, settings: StoreSettings, limits: Limits, *, horizon: Callable[[], float],
                     fatal: Callable[[BaseException], None], files: Files | None = None,
                     environment: dict[str, str] | None = None) -> OpenStore:  # fmt: skip
    """Open or format a directory. Raises DirectoryError, DatabaseError, ValueError."""
    files = files or Files()
    identity, lock = open_directory(files, directory, settings.partitions)
    root, root_made = root_keys(files, directory, dict(environment or {}))
    coordinator = LocalCoordinator(files, directory)
    database = Database(
        directory / "meta", cache_bytes=64 * MIB, write_buffer_bytes=32 * MIB, open_files=limits.open_tables
    )
    current = await _new_epoch(
        coordinator, identity.cluster, identity.store, identity.partitions, newest_epoch(database, identity.partitions)
    )
    durable = settings.durability == "sync"
    shards = await ShardStore.open(files, directory, identity.store_bytes, ShardSettings(
        volume_bytes=settings.volume_bytes, preallocate_bytes=settings.preallocate_bytes,
        reserve_bytes=settings.reserve_bytes, open_volumes=limits.open_volumes,
        durable=durable, sync_index=settings.durability != "none",
    ), fatal)  # fmt: skip
    node: Node | None = None

    def on_outbox(partition: int, key: bytes, value: bytes) -> None:
        if node is not None:
            node.on_outbox(partition, key, value)

    host = Host(
        database, current.partitions, [status.epoch for status in current.status], sync=durable, fatal=fatal,
        sync_shards=shards.sync_now, on_outbox=on_outbox, cache_bytes=limits.row_cache_bytes, max_waiting=limits.waiting_commands,
        sync_every_s=1.0 if settings.durability == "interval" else 0.0,
    )  # fmt: skip
    owner = Identity(ROOT_USER, root.secret_key, [Grant("SuperUser")])
    node = Node(host, shards, partitions=current.partitions, horizon=horizon, root=owner, root_key=root.access_key)
    node.start()
    return OpenStore(directory, node, host, shards, database, coordinator, root, root_made, lock)


def newest_epoch(database: Database, partitions: int) -> int:
    """The highest epoch of any entry in the database."""
    heads = (database.get(keys.head_row(partition)) for partition in range(partitions))
    return max((decode(Head, value).epoch for value in heads if value is not None), default=0)


async def _new_epoch(
    coordinator: LocalCoordinator, cluster: str, store: str, partitions: int, newest: int
) -> shardmap.ShardMap:
    value, revision = await coordinator.read("map")
    old = shardmap.decode(value) if revision else shardmap.single(cluster, store, partitions)
    current = shardmap.restarted(old, store, newest)
    await coordinator.replace("map", shardmap.encode(current), revision)
    return current

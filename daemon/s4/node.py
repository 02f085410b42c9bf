"""A node: the stores of this process with their partitions, as gateways see them (`peer.api.NodeApi`), and the outbox.

It composes the pieces and owns none of their state: rows belong to `replica.host`, shards to
`storage.drives`, the map to `cluster.membership`, memory of who still reads to the gateways. The outbox frees shards once more after a crash
rather than not at all, which is harmless (rule C2).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from s4.cluster.membership import Membership
from s4.cluster.wire import AnyMessage
from s4.metadata import commands, keys
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.listing import Page, Query, common_prefix, list_page
from s4.metadata.rows import (
    AccessKey,
    Blob,
    Bucket,
    Content,
    Counters,
    FreeBlob,
    Grant,
    Policy,
    Upload,
    User,
    decode,
    decode_action,
    decode_object,
)
from s4.peer.api import Found, Identity, Layout, UnavailableError, UploadFound, UploadListed, UploadPage
from s4.replica.host import Host
from s4.replica.turn import OverloadedError
from s4.storage.drives import Drives
from s4.storage.records import DamagedError, OfflineError, Shard

log = logging.getLogger(__name__)

REAP_BLOBS = 2048
REAP_S = 0.5
ROOT_USER = "root"
CACHED_SETTINGS = 10_000
SETTINGS_COMMANDS = (
    commands.CreateBucket, commands.SetVersioning, commands.BeginDelete, commands.EndDelete,
    commands.PutUser, commands.DeleteUser, commands.PutAccessKey, commands.DeleteAccessKey,
)  # fmt: skip


class Node:
    """The local node. `horizon()` is the start (monotonic seconds) of the oldest request that may still read."""

    def __init__(self, host: Host, drives: Drives, membership: Membership, *, horizon: Callable[[], float],
                 root: Identity, root_key: str, strict: bool = False,
                 clock: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
        self.host, self.drives, self.membership = host, drives, membership
        self.partitions = membership.current.partitions
        self._horizon, self._clock = horizon, clock
        self._root, self._root_key, self._strict = root, root_key, strict
        self._started = clock()
        self._buckets: dict[str, Bucket] = {}
        self._identities: dict[str, Identity] = {}
        self.on_settings: Callable[[], Awaitable[None]] | None = None
        self._freed: deque[tuple[float, int, bytes, bytes]] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Take up the outbox as it was left, and begin to work."""
        self.host.on_settings = self.on_settings_committed
        for partition in range(self.partitions):
            for key, value in self.host.scan(keys.table(partition, keys.OUTBOX)):
                self.on_outbox(partition, key, value)
        self._tasks = [asyncio.create_task(self._reap())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def layout(self) -> Layout:
        return Layout(self.partitions, *self.membership.geometry)

    # -- commands

    async def execute(self, partition: int, command: AnyCommand, command_id: bytes = b"") -> AnyAnswer:
        if isinstance(command, commands.TakeReferences) and not self.membership.is_whole(partition):
            return commands.Taken(False)  # a drive is away or being filled: its blobs have fewer shards (rule C4)
        if not self.drives.has_room() and isinstance(
            command, commands.PutObject | commands.PutPart | commands.CreateUpload | commands.CreateBucket
        ):
            return commands.Refused("StorageFull", "The disk has no room for more; delete something or add disk.")
        if self.membership.copies() < self.membership.copies_needed(self._strict):
            raise UnavailableError("ServiceUnavailable", "Too few copies of the metadata are there for writes (R9).")
        try:
            answer = await self.host.submit(partition, command, command_id)
        except OverloadedError:
            raise UnavailableError("SlowDown", "Please reduce your request rate.") from None
        if self.on_settings is not None and isinstance(command, SETTINGS_COMMANDS):
            await self.on_settings()
        return answer

    # -- metadata reads

    async def find_object(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        if not version:
            row = self.host.newest(partition, bucket, key)
            return Found(row[1], row[0][-keys.VERSION_BYTES :]) if row else None
        prefix = keys.object_versions(partition, bucket, key)
        if version == "null":
            for row_key, value in self.host.scan(prefix):
                if decode_object(value)[0].null:
                    return Found(value, row_key[-keys.VERSION_BYTES :])
            return None
        suffix = keys.parse_version_id(version)
        found = self.host.get(prefix + suffix) if suffix is not None else None
        if suffix is None or found is None or decode_object(found)[0].null:
            return None
        return Found(found, suffix)

    async def find_upload(
        self, partition: int, bucket: int, key: bytes, upload: bytes, after: int, limit: int
    ) -> UploadFound | None:
        value = self.host.get(keys.upload_row(partition, bucket, key, upload))
        if value is None:
            return None
        prefix = keys.upload_parts(partition, bucket, key, upload)
        parts: list[bytes] = []
        for _, part in self.host.scan(prefix, prefix + min(after + 1, 65535).to_bytes(2, "big")):
            if len(parts) >= limit:
                break
            parts.append(part)
        return UploadFound(decode(Upload, value), parts)

    async def find_content(self, partition: int, sha256: bytes) -> Content | None:
        value = self.host.get(keys.content_row(partition, sha256))
        return decode(Content, value) if value is not None else None

    async def find_blob(self, partition: int, blob: bytes) -> Blob:
        value = self.host.get(keys.blob_row(partition, blob))
        if value is None:
            raise DamagedError(f"there is no row for blob {blob.hex()} in partition {partition}")
        return decode(Blob, value)

    async def find_bucket(self, name: str) -> Bucket | None:
        found = self._buckets.get(name)
        if found is None:
            value = self.host.get(keys.named_row(keys.BUCKET, name))
            if value is None:
                return None
            found = decode(Bucket, value)
            if len(self._buckets) < CACHED_SETTINGS:
                self._buckets[name] = found
        return found

    async def find_identity(self, access_key: str) -> Identity | None:
        found = self._identities.get(access_key)
        if found is None:
            found = self._read_identity(access_key)
            if found is not None and len(self._identities) < CACHED_SETTINGS:
                self._identities[access_key] = found
        return found

    def on_settings_committed(self) -> None:
        """Called when a turn changed a bucket, user, key or policy, before its answers go out."""
        self._buckets.clear()
        self._identities.clear()

    def _read_identity(self, access_key: str) -> Identity | None:
        if access_key == self._root_key:
            return self._root
        value = self.host.get(keys.named_row(keys.ACCESS_KEY, access_key))
        if value is None:
            return None
        row = decode(AccessKey, value)
        user = self.host.get(keys.named_row(keys.USER, row.user))
        policy = self.host.get(keys.named_row(keys.POLICY, row.user))
        if user is None or not row.enabled or not decode(User, user).enabled:
            return None
        return Identity(row.user, row.secret, decode(Policy, policy).grants if policy else [])

    async def list_buckets(self) -> list[tuple[str, Bucket]]:
        return [(key[3:].decode(), decode(Bucket, value)) for key, value in self.host.scan(keys.table(0, keys.BUCKET))]

    async def list_objects(self, bucket: int, query: Query) -> Page:
        cursors = [self.host.cursor(keys.bucket_objects(partition, bucket)) for partition in range(self.partitions)]
        try:
            for page in list_page(cursors, query):
                if page is not None:
                    return page
                await asyncio.sleep(0)
        finally:
            for cursor in cursors:
                cursor.close()
        raise AssertionError("a listing ends with its page")

    async def list_uploads(
        self, bucket: int, prefix: bytes, delimiter: bytes, after_key: bytes, after_upload: bytes | None, limit: int
    ) -> UploadPage:
        items: list[UploadListed | bytes] = []
        listed: list[UploadListed] = []
        for partition in range(self.partitions):
            table = keys.bucket_uploads(partition, bucket)
            for row_key, value in self.host.scan(table + keys.escape(prefix)):
                key, upload = keys.split_upload(row_key[len(table) :])
                if (key, upload) > (after_key, after_upload if after_upload is not None else b"\xff" * 17):
                    listed.append(UploadListed(key, upload, decode(Upload, value)))
            await asyncio.sleep(0)
        listed.sort(key=lambda item: (item.key, item.upload))
        next_key = next_upload = b""
        for item in listed:
            common = common_prefix(item.key, prefix, delimiter)
            if common is not None and (common == after_key or (items and items[-1] == common)):
                continue
            if len(items) >= limit:
                return UploadPage(items, limit > 0, next_key, next_upload)
            items.append(item if common is None else common)
            next_key, next_upload = (item.key, item.upload) if common is None else (common, b"")
        return UploadPage(items, False, b"", b"")

    async def list_users(self) -> list[tuple[User, list[str]]]:
        """Every user with its access keys, for the admin interface."""
        held: dict[str, list[str]] = {}
        for key, value in self.host.scan(keys.table(0, keys.ACCESS_KEY)):
            held.setdefault(decode(AccessKey, value).user, []).append(key[3:].decode())
        users = [decode(User, value) for _, value in self.host.scan(keys.table(0, keys.USER))]
        return [(user, held.get(user.name, [])) for user in users]

    async def grants_of(self, user: str) -> list[Grant]:
        value = self.host.get(keys.named_row(keys.POLICY, user))
        return decode(Policy, value).grants if value else []

    # -- shards

    async def append(self, shard: Shard, payload: memoryview | bytes, sync: bool) -> None:
        await self.drives.append(shard, [payload], sync=sync)

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview:
        store = self.drives.at(shard.partition, shard.position)
        filled = self.membership.current.status[shard.partition].members[shard.position]
        if store is not None and not filled and store.locate(shard) is None:
            raise OfflineError(f"{shard} is not on the drive that is being filled yet")  # no damage
        try:
            return await self.drives.read(shard, offset, length)
        except OfflineError:
            raise
        except DamagedError:
            self.found_damage(shard.partition, shard.blob, shard.position)
            raise

    def read_now(self, shard: Shard, offset: int, length: int) -> memoryview | None:
        store = self.drives.at(shard.partition, shard.position)
        return store.read_now(shard, offset, length) if store is not None else None

    def found_damage(self, partition: int, blob: bytes, position: int) -> asyncio.Future[AnyAnswer] | None:
        """Queue a shard for healing; without parity there is nothing to heal it from."""
        if not self.membership.geometry[1]:
            return None
        return self.host.submit(partition, commands.NeedHeal(blob, [position]), own=True)

    async def discard(self, partition: int, blob: bytes) -> None:
        await self.drives.free(partition, blob)

    async def deliver(self, sender: str, messages: list[tuple[int, AnyMessage]]) -> None:
        raise UnavailableError("ServiceUnavailable", "This server keeps its metadata by itself and has no peers.")

    # -- figures

    def counters(self) -> Counters:
        """Sums over all partitions and buckets."""
        total = [0] * 5
        for partition in range(self.partitions):
            for _, value in self.host.scan(keys.table(partition, keys.COUNTERS)):
                row = decode(Counters, value)
                for index, number in enumerate((row.objects, row.bytes, row.blobs, row.references, row.blob_bytes)):
                    total[index] += number
        return Counters(*total)

    def bucket_counters(self, bucket: int) -> Counters:
        objects = size = 0
        for partition in range(self.partitions):
            value = self.host.get(keys.counters_row(partition, bucket))
            if value is not None:
                row = decode(Counters, value)
                objects, size = objects + row.objects, size + row.bytes
        return Counters(objects, size)

    async def stats(self) -> dict[str, float]:
        sums = self.counters()
        buckets = sum(1 for _ in self.host.scan(keys.table(0, keys.BUCKET)))
        use = [volume for store in self.drives.stores for volume in store.usage().values()]
        stored = sum(volume.used - volume.dead for volume in use) + self.host.database.size_bytes()
        return {
            "uptime_seconds": round(self._clock() - self._started, 3),
            "buckets_count": buckets,
            "objects_count": sums.objects,
            "logical_bytes": sums.bytes,
            "storage_used_bytes": stored,
            "dedup_unique_blobs": sums.blobs,
            "dedup_total_references": sums.references,
            "dedup_ratio": round(sums.references / sums.blobs, 4) if sums.blobs else 1.0,
        }

    # -- the outbox

    def on_outbox(self, partition: int, key: bytes, value: bytes) -> None:
        """Called for each outbox row once it is committed: shards to free when no reader wants them."""
        action = decode_action(value)
        if not isinstance(action, FreeBlob):
            raise TypeError(f"no other partition is elsewhere, but the outbox has {action}")
        self._freed.append((self._clock(), partition, key, action.blob))

    @property
    def outbox_waiting(self) -> int:
        return len(self._freed)

    async def _reap(self) -> None:
        """Free the shards of dead blobs once every request that began before has ended (rule D6)."""
        while True:
            await asyncio.sleep(REAP_S)
            try:
                await self.reap()
            except Exception:  # the rows stay in the outbox; the others must not wait for a restart
                log.exception("freeing shards failed")

    async def reap(self) -> None:
        horizon = self._horizon()
        done: dict[int, list[bytes]] = {}
        count = 0
        while self._freed and self._freed[0][0] < horizon and count < REAP_BLOBS:
            _, partition, key, blob = self._freed.popleft()
            await self.drives.free(partition, blob)
            done.setdefault(partition, []).append(key)
            count += 1
        if done:
            await self.drives.flush()
        for partition, rows in done.items():
            await self.host.submit(partition, commands.ForgetRows(rows), own=True)

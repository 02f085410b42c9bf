"""The rows of a node, as gateways and other nodes ask for them: the same for one process and for a cluster's member.

Nothing is kept here but what was read of settings. A host answers from committed rows; its `check` comes after every
read and before every answer, and refuses where another store may know better by then (R5).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Protocol

from s4.base.clock import boot_clock
from s4.erasure.codec import stripes_of
from s4.metadata import keys
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.decide import COMMANDS
from s4.metadata.entry import find
from s4.metadata.listing import Page, Query, list_page, walk_uploads
from s4.metadata.nulls import SEEKING, Walk, wanted
from s4.metadata.rows import (
    Blob,
    BucketState,
    Content,
    Counters,
    Upload,
    decode,
    decode_object,
    summed,
)
from s4.metadata.small import content_of
from s4.metadata.uploads import without_content
from s4.node.accounts import Accounts
from s4.node.hosts import AnyHost
from s4.peer.api import (
    BlobFound,
    Found,
    Identity,
    Layout,
    StaleError,
    UnavailableError,
    UploadFound,
    UploadListed,
    UploadPage,
    Where,
)
from s4.replica.pieces import PIECE, count, pieces
from s4.replica.turn import OverloadedError
from s4.storage.drives import Drives
from s4.storage.records import DamagedError, OfflineError, Shard
from s4.storage.shards import ShardStore
from s4.telemetry import tracing

PAGE_BLOBS = 256


class AnyMap(Protocol):
    """What a node asks of the map."""

    @property
    def partitions(self) -> int: ...

    @property
    def geometry(self) -> tuple[int, int]: ...

    def copies(self, partition: int) -> int: ...

    def copies_needed(self, strict: bool) -> int: ...

    def is_held(self, partition: int, position: int, store: str) -> bool: ...


async def _page_of_uploads(found: Iterator[tuple[bytes, bytes, bytes] | bytes | None], limit: int) -> UploadPage:
    """The first `limit` of some uploads and of what they have in common."""
    items: list[UploadListed | bytes] = []
    next_key = next_upload = b""
    for item in found:
        if item is None:
            await asyncio.sleep(0)
            continue
        if len(items) >= limit:
            return UploadPage(items, limit > 0, next_key, next_upload)
        if isinstance(item, bytes):
            items.append(item)
            next_key, next_upload = item, b""
        else:
            next_key, next_upload, value = item
            items.append(UploadListed(next_key, next_upload, decode(Upload, value)))
    return UploadPage(items, False, b"", b"")


class RowNode:
    """The part of `peer.api.NodeApi` that is about rows. `horizon()` is the start (seconds of the boot clock) of the
    oldest request that may still read."""

    def __init__(
        self,
        host: AnyHost,
        drives: Drives,
        membership: AnyMap,
        *,
        horizon: Callable[[], float],
        root: Identity,
        root_key: str,
        strict: bool = False,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._host, self._map = host, membership
        self.drives = drives
        self.partitions = membership.partitions
        self._horizon, self._clock = horizon, clock
        self._strict = strict
        self._started = clock()
        self.accounts = accounts = Accounts(host, root, root_key)
        self.root_identity, self.find_identity = accounts.root_identity, accounts.find_identity
        self.find_accounts, self.list_accounts = accounts.find_accounts, accounts.list_accounts
        self.find_bucket, self.list_buckets = accounts.find_bucket, accounts.list_buckets
        self.list_users, self.list_jobs = accounts.list_users, accounts.list_jobs
        self.on_settings: Callable[[], Awaitable[None]] | None = None

    async def layout(self) -> Layout:
        return Layout(self.partitions, *self._map.geometry)

    # -- commands

    async def execute(
        self, partition: int, command: AnyCommand, command_id: bytes = b"", again: bool = False
    ) -> AnyAnswer:
        """Nothing is refused here, but by raising: a repeat is told no only by who has looked for its first answer
        (R12)."""
        self._must_have_copies(partition)
        settings = COMMANDS[type(command)].settings
        if settings:
            await self._host.settings_may_change()
        kept = await self._keep_nulls(partition, command) if isinstance(command, SEEKING) else ()
        try:
            with tracing.span("commit", partition=partition, command=type(command).__name__):
                answer = await self._host.submit(partition, command, command_id, again=again)
        except OverloadedError:
            raise UnavailableError("SlowDown", "Please reduce your request rate.") from None
        finally:
            for prefix in kept:
                self._host.nulls.release(prefix)
        if settings and self.on_settings is not None:
            await self.on_settings()
        if self._strict:
            self._must_have_copies(partition)  # who left meanwhile may not have it: nobody is told that it is done
        return answer

    def _must_have_copies(self, partition: int) -> None:
        """Raises UnavailableError."""
        if self._map.copies(partition) < self._map.copies_needed(self._strict):
            raise UnavailableError("ServiceUnavailable", "Too few copies of the metadata are there for writes (R9).")

    async def _keep_nulls(self, partition: int, command: AnyCommand) -> list[bytes]:
        """What it looks for, kept until it is released."""
        return [prefix for prefix in await self._look_for_nulls(partition, command) if self._host.nulls.keep(prefix)]

    # -- metadata reads

    async def find_object(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        if version == "null":
            return await self._find_null(partition, bucket, key)
        found = self._find_object(partition, bucket, key, version)
        self._host.check(partition)
        return found

    async def find_whole(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        found = await self.find_object(partition, bucket, key, version)
        extents = decode_object(found.value)[0].extents if found is not None else []
        if found is None or len(extents) != 1 or not extents[0].blob or extents[0].partition != partition:
            return found
        row = self._host.get(keys.blob_row(partition, extents[0].blob))
        self._host.check(partition)
        return Found(found.value, found.suffix, content_of(row or b""))

    async def _find_null(self, partition: int, bucket: int, key: bytes) -> Found | None:
        """There may be any number of versions before it: what was found is noted, for decisions too."""
        self._host.check(partition)
        prefix = keys.object_versions(partition, bucket, key)
        walk = Walk(self._host.nulls.get(prefix))
        async for row in self._rows(prefix):
            if walk.row(*row):
                break
        found, seen = walk.end(self._host.get), walk.seen()
        self._host.check(partition)
        if seen is not None:
            self._host.nulls.note(prefix, seen)
        return Found(found[1], found[0][-keys.VERSION_BYTES :]) if found is not None else None

    async def _look_for_nulls(self, partition: int, command: AnyCommand) -> list[bytes]:
        """Before a decision that would walk all versions of a key in one piece; the prefixes of such keys."""

        def versioning(bucket: int) -> str:
            state = find(self._host, BucketState, keys.bucket_state_row(partition, bucket))
            return state.versioning if state is not None else ""

        looked = []
        for bucket, key in wanted(command, versioning):
            home = keys.partition_of(bucket, key, self.partitions)
            with suppress(StaleError):  # the source of a rename may be led by another: it looks itself
                await self._find_null(home, bucket, key)
                looked.append(keys.object_versions(home, bucket, key))
        return looked

    def _rows(self, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        return pieces(self._host, prefix)

    def _find_object(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        if not version:
            row = self._host.newest(partition, bucket, key)
            return Found(row[1], row[0][-keys.VERSION_BYTES :]) if row else None
        prefix = keys.object_versions(partition, bucket, key)
        suffix = keys.parse_version_id(version)
        found = self._host.get(prefix + suffix) if suffix is not None else None
        if suffix is None or found is None or decode_object(found)[0].null:
            return None
        return Found(found, suffix)

    async def find_upload(
        self, partition: int, bucket: int, key: bytes, upload: bytes, after: int, limit: int
    ) -> UploadFound | None:
        """Its row is read after its parts: a turn may be written between two reads, and an upload that is completed
        meanwhile must not be found without them."""
        row, prefix = keys.upload_row(partition, bucket, key, upload), keys.upload_parts(partition, bucket, key, upload)
        first, parts = prefix + min(after + 1, 65535).to_bytes(2, "big"), list[bytes]()
        while len(parts) < limit and (some := list(islice(self._host.scan(prefix, first), PIECE))):
            parts += [without_content(value) for _, value in some]
            first = some[-1][0] + b"\x00"
            await asyncio.sleep(0)
        found = find(self._host, Upload, row)
        self._host.check(partition)
        return UploadFound(found, parts[:limit]) if found is not None else None

    async def find_content(self, partition: int, sha256: bytes) -> Content | None:
        found = find(self._host, Content, keys.content_row(partition, sha256))
        self._host.check(partition)
        return found

    async def find_blob(self, partition: int, blob: bytes) -> BlobFound:
        value = self._host.get(keys.blob_row(partition, blob))
        self._host.check(partition)
        if value is None:
            raise DamagedError(f"there is no row for blob {blob.hex()} in partition {partition}")
        row = decode(Blob, value)
        content = content_of(value)
        return BlobFound(row.size, row.stripe, row.k, row.m, row.sha256, row.created_ms, row.missing, content)

    def may_cache(self) -> bool:
        """Whether a gateway may go on using the settings that it was told: its lease is renewed (L2)."""
        try:
            self._host.check(0)
        except StaleError:
            return False
        return True

    def _where(self, where: Where) -> list[int]:
        """The partitions of a request that names some, all served here at these epochs (L1); or else all."""
        for partition, epoch in where:
            self._host.check(partition, epoch)
        return [partition for partition, _ in where] or list(range(self.partitions))

    async def list_objects(self, bucket: int, query: Query, where: Where = ()) -> Page:
        await self._host.settled()
        cursors = [self._host.cursor(keys.bucket_objects(partition, bucket)) for partition in self._where(where)]
        try:
            for page in list_page(cursors, query):
                if page is not None:
                    self._where(where)
                    return page
                await asyncio.sleep(0)
        finally:
            for cursor in cursors:
                cursor.close()
        raise AssertionError("a listing ends with its page")

    async def list_uploads(
        self,
        bucket: int,
        prefix: bytes,
        delimiter: bytes,
        after_key: bytes,
        after_upload: bytes | None,
        limit: int,
        where: Where = (),
    ) -> UploadPage:
        await self._host.settled()
        cursors = [self._host.cursor(keys.bucket_uploads(partition, bucket)) for partition in self._where(where)]
        try:
            page = await _page_of_uploads(walk_uploads(cursors, prefix, delimiter, after_key, after_upload), limit)
        finally:
            for cursor in cursors:
                cursor.close()
        self._where(where)
        return page

    async def wall_clock(self) -> float:
        return time.time()

    # -- for those who make shards again

    async def lacking(self, partition: int, position: int, blobs: list[tuple[bytes, Blob]]) -> list[bytes]:
        store = self.drives.at(partition, position)
        if store is None:
            raise OfflineError(f"the drive for position {position} of partition {partition} is away")
        found = [blob for blob, row in blobs if not _holds(store, Shard(partition, blob, position, 0), row)]
        if store.dirty:  # what is there is counted on from now on: it must not go with a loss of power (D1)
            await store.flush()
        return found

    async def list_blobs(self, partition: int, after: bytes) -> list[tuple[bytes, Blob]]:
        table = keys.table(partition, keys.BLOB)
        rows = islice(self._host.scan(table, table + after + b"\x00" if after else table), PAGE_BLOBS)
        listed = [(key[len(table) :], decode(Blob, value)) for key, value in rows]
        self._host.check(partition)
        return listed

    async def unknown_blobs(self, partition: int, blobs: list[bytes]) -> list[bytes]:
        unknown = [blob for blob in blobs if self._host.get(keys.blob_row(partition, blob)) is None]
        self._host.check(partition)
        return unknown

    async def heals_of(self, partition: int) -> int:
        heals = await count(self._host, keys.table(partition, keys.HEAL))
        self._host.check(partition)
        return heals

    def read_now(self, shard: Shard, offset: int, length: int) -> memoryview | None:
        store = self.drives.at(shard.partition, shard.position)
        return store.read_now(shard, offset, length) if store is not None else None

    async def discard(self, partition: int, blob: bytes) -> None:
        await self.drives.free(partition, blob)

    async def discard_all(self, partition: int, blobs: list[bytes]) -> None:
        for blob in blobs:
            await self.discard(partition, blob)
            await asyncio.sleep(0)  # each looks into the index

    # -- figures

    def led(self) -> list[int]:
        """The partitions that are served here."""
        return list(range(self.partitions))

    def counters(self) -> Counters:
        """Sums over all buckets of the partitions that are served here."""
        tables = (keys.table(partition, keys.COUNTERS) for partition in self.led())
        return summed(decode(Counters, value) for table in tables for _, value in self._host.scan(table))

    async def bucket_counters(self, bucket: int, where: Where = ()) -> Counters:
        rows = [find(self._host, Counters, keys.counters_row(partition, bucket)) for partition in self._where(where)]
        self._where(where)
        return summed(row for row in rows if row is not None)


def _holds(store: ShardStore, first: Shard, row: Blob) -> bool:
    for number, length in stripes_of(row):
        found = store.locate(Shard(first.partition, first.blob, first.position, number))
        if found is None or found.length != length:
            return False
    return True

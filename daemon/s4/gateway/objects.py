"""PutObject, DeleteObject, DeleteObjects, CopyObject, RenameObject."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from s4.access.documents import object_owner
from s4.gateway.context import Gateway, NotCommittedError, commit, execute, find_bucket, paced
from s4.gateway.read import Opened, open_object, stream
from s4.gateway.receive import REFERENCES_AT_ONCE, Body, Decoder, Destination, Stored, abandon, drop_references, receive
from s4.gateway.sealing import Seal, new_seal, wanted_in
from s4.metadata import events, keys
from s4.metadata.commands import (
    NO_CONDITIONS,
    ChangeObject,
    Claim,
    Conditions,
    Deleted,
    DeleteObject,
    PutObject,
    Taken,
    TakeReferences,
    Written,
)
from s4.metadata.rows import Bucket, Extent, Object, Sealing
from s4.s3 import checksums
from s4.s3.checksums import Expected
from s4.s3.chunked import PlainDecoder
from s4.s3.encryption import Wanted
from s4.s3.errors import S3Error
from s4.s3.lock import NONE, Lock
from s4.storage.records import DamagedError

CHANGE_TRIES = 3
WINDOW = 64  # commands of one request at a time, so that many such requests crowd out nobody
CROWDED_S = 0.05


T = TypeVar("T")


class SourceChangedError(Exception):
    """What was opened and judged is not there any more, or is another version: open it again, and judge it again."""


async def while_it_changes(attempt: Callable[[], Awaitable[T]]) -> T:
    """Open, judge and use an object, all of it again where it was replaced in between. Raises S3Error OperationAborted."""
    for _ in range(CHANGE_TRIES):
        try:
            return await attempt()
        except SourceChangedError:
            continue
    raise S3Error("OperationAborted", "The source keeps changing. Try again.")


class Attributes(msgspec.Struct, frozen=True):
    """What a request says of an object besides its bytes: headers to give back, user metadata, tags."""

    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    acl: str = ""
    lock: Lock = NONE
    encryption: Wanted | None = None
    event: str = events.PUT


class Put(msgspec.Struct, frozen=True):
    """A version that was written. `checksum` is (algorithm, value, type), empty strings where there is none."""

    version: str
    etag: str
    checksum: tuple[str, str, str]
    modified_ms: int
    size: int
    tags: dict[str, str] = {}
    sealing: Sealing | None = None

    @classmethod
    def of(cls, row: Object, version: str) -> Put:
        checksum = row.checksum_algorithm, row.checksum, row.checksum_type
        return cls(version, row.etag, checksum, row.modified_ms, row.size, row.tags, row.sealing)


async def put_object(gateway: Gateway, name: str, key: bytes, body: Body, expected: Expected, attributes: Attributes,
                     owner: str, conditions: Conditions = NO_CONDITIONS) -> Put:  # fmt: skip
    """Store a body under a key. Raises S3Error."""
    bucket = await find_bucket(gateway, name)
    partition = keys.partition_of(bucket.id, key, gateway.partitions)
    await gateway.quotas.take(gateway.node, bucket, body.length)
    seal = await new_seal(gateway, name, bucket, wanted_in(bucket, attributes.encryption))
    expected = msgspec.structs.replace(expected, keep=expected.kept or checksums.DEFAULT)
    stored = await receive(gateway, body, expected, Destination(partition, bucket.id, key), seal)
    row = Object(
        gateway.now_ms(), stored.extent.size, stored.etag, False, bucket.versioning != "Enabled", object_owner(bucket, owner),
        expected.keep, checksums.FULL_OBJECT, stored.checksum, attributes.headers, attributes.metadata, attributes.tags,
        [stored.extent], b"", *attributes.lock, attributes.acl, seal.sealing if seal is not None else None,
    )  # fmt: skip
    event = attributes.event
    written = await _commit_put(gateway, name, bucket, partition, key, row, stored, conditions, event)
    return Put.of(row, written.version)


async def _commit_put(gateway: Gateway, name: str, bucket: Bucket, partition: int, key: bytes, row: Object,
                      stored: Stored, conditions: Conditions, event: str) -> Written:  # fmt: skip
    try:
        answer = await commit(gateway, name, bucket, partition, lambda settings: PutObject(
            settings, key, with_null(row, settings.versioning), stored.inline, stored.blobs, stored.granted, conditions,
            event=event,
        ))  # fmt: skip
    except NotCommittedError:
        await abandon(gateway, stored)
        raise
    if not isinstance(answer, Written):
        raise S3Error("InternalError")
    return answer


def with_null(row: Object, versioning: str) -> Object:
    """The row as the bucket's versioning wants it: outside Enabled it is the null version."""
    null = versioning != "Enabled"
    if row.null == null:
        return row
    return msgspec.structs.replace(row, null=null)


async def delete_object(gateway: Gateway, name: str, key: bytes, version: str, owner: str,
                        conditions: Conditions = NO_CONDITIONS, *, bypass: bool = False) -> Deleted:  # fmt: skip
    bucket = await find_bucket(gateway, name)
    partition = keys.partition_of(bucket.id, key, gateway.partitions)
    answer = await commit(gateway, name, bucket, partition, lambda settings: DeleteObject(
        settings, key, version, owner, conditions, bypass,
    ))  # fmt: skip
    if not isinstance(answer, Deleted):
        raise S3Error("InternalError")
    return answer


async def delete_objects(gateway: Gateway, name: str, wanted: list[tuple[bytes, str, str]],
                         owner: str, *, bypass: bool = False) -> list[Deleted | S3Error]:  # fmt: skip
    """Delete many (key, version, If-Match ETag); one answer each, in order. Raises S3Error NoSuchBucket."""
    await find_bucket(gateway, name)
    loop, window = asyncio.get_running_loop(), asyncio.Semaphore(WINDOW)
    deadline = loop.time() + gateway.limits.request_s

    async def one(key: bytes, version: str, etag: str) -> Deleted | S3Error:
        if len(key) > gateway.limits.key_bytes:
            return S3Error("KeyTooLongError")
        while True:
            try:
                async with window:
                    return await delete_object(
                        gateway, name, key, version, owner, Conditions(if_match=etag), bypass=bypass
                    )
            except S3Error as error:
                crowded = error.code == "SlowDown" and not isinstance(error, NotCommittedError)
                if not crowded or loop.time() > deadline:
                    return error
            await asyncio.sleep(CROWDED_S)  # nothing was done: it waits, for no client asks again behind a 200

    return list(await asyncio.gather(*(one(*item) for item in wanted)))


async def take_extents(gateway: Gateway, extents: list[Extent], to: Destination) -> list[Extent] | None:
    """New references to the blobs of some extents, under new random ids (C1); None where one is gone."""
    taken: list[Extent] = []
    by_partition: dict[int, list[Claim]] = {}
    async for extent in paced(extents):
        if not extent.blob:
            taken.append(extent)
            continue
        name = gateway.random(16)
        claim = Claim(extent.blob, name, to.partition, to.bucket, to.key, to.upload)
        by_partition.setdefault(extent.partition, []).append(claim)
        taken.append(msgspec.structs.replace(extent, reference=name))
    granted: list[Extent] = []
    for partition, claims in by_partition.items():
        for at in range(0, len(claims), REFERENCES_AT_ONCE):
            some = claims[at : at + REFERENCES_AT_ONCE]
            answer = await execute(gateway, partition, TakeReferences(some))
            if not isinstance(answer, Taken) or not answer.granted:
                await drop_references(gateway, granted)
                return None
            granted += [Extent(0, 0, partition, claim.blob, claim.reference) for claim in some]
    return taken


async def change_object(gateway: Gateway, name: str, key: bytes, version: str, *, tags: dict[str, str] | None = None,
                        acl: str | None = None, retention: tuple[str, int] | None = None, hold: bool | None = None,
                        bypass: bool = False, seen: bytes = b"") -> str:  # fmt: skip
    """Give a version other tags, another ACL, retention or hold; returns its id. `seen` is the suffix of the version that
    the change was made for, where it must be that. Raises S3Error, SourceChangedError."""
    bucket = await find_bucket(gateway, name)
    partition = keys.partition_of(bucket.id, key, gateway.partitions)
    try:
        answer = await commit(gateway, name, bucket, partition, lambda settings: ChangeObject(
            settings, key, version, tags, acl, retention, hold, bypass, seen,
        ))  # fmt: skip
    except NotCommittedError as error:
        if seen and error.code == "OperationAborted":
            raise SourceChangedError from error
        raise
    if not isinstance(answer, Written):
        raise S3Error("InternalError")
    return answer.version


@dataclass(frozen=True, slots=True)
class Copy:
    """Where a copy goes and what changes on the way. `attributes` and `tags` None keep the source's, as renames do."""

    name: str
    key: bytes
    owner: str
    attributes: Attributes | None = None
    tags: dict[str, str] | None = None
    acl: str = ""
    lock: Lock = NONE
    conditions: Conditions = NO_CONDITIONS
    rename: bool = False
    encryption: Wanted | None = None
    checksum: str = ""  # the algorithm of the copy's, where it is to be another than the source's
    named: Callable[[str, int], bytes] | None = None  # the id, by the source's version and the settings' revision


class CopiedBody:
    """A range of an object as the body of another object or part."""

    def __init__(self, gateway: Gateway, source: Opened, offset: int, length: int) -> None:
        self.length = length
        self.decoder: Decoder = PlainDecoder(length)
        self._pieces = stream(gateway, source, offset, length)

    async def read(self) -> bytes:
        async for piece in self._pieces:
            return bytes(piece)
        return b""


async def receive_copied(gateway: Gateway, source: Opened, span: tuple[int, int], expected: Expected, to: Destination,
                         seal: Seal | None) -> Stored:  # fmt: skip
    """Store (offset, length) of an object once more. Raises S3Error, DamagedError, and SourceChangedError where it went."""
    try:
        with gateway.readers.reading():
            return await receive(gateway, CopiedBody(gateway, source, *span), expected, to, seal)
    except DamagedError:
        await must_be_there(gateway, source)
        raise


async def copy_object(gateway: Gateway, source: Opened, copy: Copy) -> Put:
    """Copy a whole object by sharing its content; between plain and encrypted, and where it cannot be shared now (C4), it
    is written anew. The caller has opened, judged and unlocked the source; a rename takes it as it is, and needs no key.

    Raises S3Error, and SourceChangedError where the source was replaced meanwhile: what the caller looked at, conditions and
    tags, need not hold for what is there now. It reads since before it opened the source (D6).
    """
    bucket = await find_bucket(gateway, copy.name)
    partition = keys.partition_of(bucket.id, copy.key, gateway.partitions)
    if source.row.size > gateway.limits.put_bytes and not copy.rename:
        raise S3Error(
            "InvalidRequest",
            "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120",
        )
    if not copy.rename:
        await gateway.quotas.take(gateway.node, bucket, source.row.size)
        sealed = wanted_in(bucket, copy.encryption) is not None
        if sealed != (source.row.sealing is not None):
            return await _copy_bytes(gateway, source, copy, bucket, partition)
    extents = await take_extents(gateway, source.row.extents, Destination(partition, bucket.id, copy.key))
    if extents is not None:
        if copy.checksum not in ("", source.row.checksum_algorithm):
            source = await _with_checksum(gateway, source, copy.checksum, extents)
        return await _commit_copy(gateway, source, copy, bucket, partition, extents)
    await must_be_there(gateway, source)
    if copy.rename:
        raise S3Error(
            "ServiceUnavailable",
            "Shards of this object are being made again, and it cannot be renamed before. Try again later.",
            headers={"Retry-After": "5"},
        )
    return await _copy_bytes(gateway, source, copy, bucket, partition)


async def _with_checksum(gateway: Gateway, source: Opened, algorithm: str, extents: list[Extent]) -> Opened:
    """The source as if it had been put with that checksum: its bytes are read once, and shared all the same. Raises what
    reading does, with the references on `extents` dropped."""
    digests = checksums.Digests(Expected(keep=algorithm), content=False)
    try:
        async for piece in stream(gateway, source, 0, source.row.size):
            await asyncio.get_running_loop().run_in_executor(gateway.pool, digests.update, piece)
    except BaseException as error:
        await asyncio.shield(drop_references(gateway, extents))
        if isinstance(error, DamagedError):
            await must_be_there(gateway, source)
        raise
    value = digests.checksum()
    extents[:] = [msgspec.structs.replace(extent, checksum=value if len(extents) == 1 else "") for extent in extents]
    row = msgspec.structs.replace(
        source.row, checksum_algorithm=algorithm, checksum_type=checksums.FULL_OBJECT, checksum=value
    )
    return dataclasses.replace(source, row=row)


async def must_be_there(gateway: Gateway, source: Opened) -> None:
    """Raises SourceChangedError where what was opened is not what would be opened now: then its blob may be gone too."""
    partition = keys.partition_of(source.bucket.id, source.key, gateway.partitions)
    found = await gateway.node.find_object(partition, source.bucket.id, source.key, source.asked_version)
    if found is None or found.suffix != source.suffix:
        raise SourceChangedError


async def _commit_copy(gateway: Gateway, source: Opened, copy: Copy, bucket: Bucket, partition: int,
                       extents: list[Extent]) -> Put:  # fmt: skip
    old = source.row
    sealing = old.sealing
    try:
        if sealing is not None and not copy.rename:
            seal = await new_seal(gateway, copy.name, bucket, wanted_in(bucket, copy.encryption), source.content_key)
            sealing = seal.sealing if seal is not None else None
    except S3Error:
        await drop_references(gateway, extents)
        raise
    row = _copied(gateway, old, copy, bucket, msgspec.structs.replace(old, extents=extents, sealing=sealing))
    granted = [extent.reference for extent in extents if extent.blob]
    rename_version, named = keys.version_id(source.suffix) if copy.rename else "", copy.named
    try:
        answer = await commit(gateway, copy.name, bucket, partition, lambda settings: PutObject(
            settings, copy.key, with_null(row, settings.versioning), source.inline, [], granted, copy.conditions,
            source.key if copy.rename else b"", rename_version, events.COPY,
        ), lambda revision: named(rename_version, revision) if named is not None else b"")  # fmt: skip
    except NotCommittedError:
        await drop_references(gateway, extents)
        raise
    if not isinstance(answer, Written):
        raise S3Error("InternalError")
    return Put.of(row, answer.version)


def _copied(gateway: Gateway, old: Object, copy: Copy, bucket: Bucket, content: Object) -> Object:
    """The row of a copy, with what `content` says of its bytes."""
    kept = copy.attributes or Attributes(old.headers, old.metadata)
    tags = old.tags if copy.tags is None else copy.tags
    acl = old.acl if copy.rename else copy.acl
    return Object(
        gateway.now_ms(), content.size, content.etag, False, bucket.versioning != "Enabled", object_owner(bucket, copy.owner),
        content.checksum_algorithm, content.checksum_type, content.checksum, kept.headers, kept.metadata, tags,
        content.extents, b"", *copy.lock, acl, content.sealing,
    )  # fmt: skip


async def _copy_bytes(gateway: Gateway, source: Opened, copy: Copy, bucket: Bucket, partition: int) -> Put:
    old, seal = source.row, await new_seal(gateway, copy.name, bucket, wanted_in(bucket, copy.encryption))
    expected = Expected(keep=copy.checksum or old.checksum_algorithm or checksums.DEFAULT)
    to = Destination(partition, bucket.id, copy.key)
    stored = await receive_copied(gateway, source, (0, old.size), expected, to, seal)
    content = Object(
        0, old.size, stored.etag, False, False, "", expected.keep, checksums.FULL_OBJECT, stored.checksum,
        extents=[stored.extent], sealing=seal.sealing if seal is not None else None,
    )  # fmt: skip
    row = _copied(gateway, old, copy, bucket, content)
    written = await _commit_put(
        gateway, copy.name, bucket, partition, copy.key, row, stored, copy.conditions, events.COPY
    )
    return Put.of(row, written.version)


async def _as_it_is(_: Opened) -> None:
    return


async def rename_object(gateway: Gateway, name: str, source_key: bytes, key: bytes, owner: str, conditions: Conditions = NO_CONDITIONS,
                        judge: Callable[[Opened], Awaitable[None]] = _as_it_is,
                        named: Callable[[str, int], bytes] | None = None) -> Put:  # fmt: skip
    """Give an object another key in its bucket: destination first, then the source, never neither. `judge` raises S3Error
    where the very version that is to be renamed must not be. `named` is as in `Copy`."""

    async def attempt() -> Put:
        source = await open_object(gateway, name, source_key, "")
        await judge(source)
        if source_key == key:
            raise S3Error("InvalidRequest", "The source and the destination of a rename must differ.")
        return await copy_object(
            gateway, source, Copy(name, key, owner, conditions=conditions, rename=True, named=named)
        )

    return await while_it_changes(attempt)

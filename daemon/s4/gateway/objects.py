"""PutObject, DeleteObject, DeleteObjects, CopyObject, RenameObject."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from s4.gateway.context import Gateway, NotCommittedError, commit, execute, find_bucket
from s4.gateway.read import Opened, open_object
from s4.gateway.receive import Body, Place, Stored, abandon, drop_references, receive
from s4.metadata import keys
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
from s4.metadata.rows import Bucket, Extent, Object
from s4.s3 import checksums
from s4.s3.checksums import Expected
from s4.s3.errors import S3Error
from s4.s3.lock import NONE, Lock

COPY_TRIES = 3


class Attributes(msgspec.Struct, frozen=True):
    """What a request says of an object besides its bytes: headers to give back, user metadata, tags."""

    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    acl: str = ""
    lock: Lock = NONE


class Put(msgspec.Struct, frozen=True):
    """A version that was written. `checksum` is (algorithm, value, type), empty strings where there is none."""

    version: str
    etag: str
    checksum: tuple[str, str, str]
    modified_ms: int
    size: int
    tags: dict[str, str] = {}


async def put_object(gateway: Gateway, name: str, key: bytes, body: Body, expected: Expected, attributes: Attributes,
                     owner: str, conditions: Conditions = NO_CONDITIONS) -> Put:  # fmt: skip
    """Store a body under a key. Raises S3Error."""
    bucket = await find_bucket(gateway, name)
    partition = keys.partition_of(bucket.id, key, gateway.partitions)
    await gateway.quotas.take(gateway.node, bucket, body.length)
    stored = await receive(gateway, body, expected, Place(partition, bucket.id, key))
    kind = checksums.FULL_OBJECT if expected.algorithm else ""
    row = Object(
        gateway.now_ms(), stored.extent.size, stored.etag, False, bucket.versioning != "Enabled", owner,
        expected.algorithm, kind, stored.checksum, attributes.headers, attributes.metadata, attributes.tags,
        [stored.extent], b"", *attributes.lock, attributes.acl,
    )  # fmt: skip
    written = await _commit_put(gateway, name, bucket, partition, key, row, stored, conditions)
    return Put(
        written.version, written.etag, (expected.algorithm, stored.checksum, kind), row.modified_ms, row.size, row.tags
    )


async def _commit_put(gateway: Gateway, name: str, bucket: Bucket, partition: int, key: bytes, row: Object,
                      stored: Stored, conditions: Conditions) -> Written:  # fmt: skip
    try:
        answer = await commit(gateway, name, bucket, partition, lambda settings: PutObject(
            settings, key, with_null(row, settings.versioning), stored.inline, stored.blobs, stored.granted, conditions,
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

    async def one(key: bytes, version: str, etag: str) -> Deleted | S3Error:
        if len(key) > gateway.limits.key_bytes:
            return S3Error("KeyTooLongError")
        try:
            return await delete_object(gateway, name, key, version, owner, Conditions(if_match=etag), bypass=bypass)
        except S3Error as error:
            return error

    return list(await asyncio.gather(*(one(*item) for item in wanted)))


async def take_extents(gateway: Gateway, extents: list[Extent], place: Place) -> list[Extent] | None:
    """New references to the blobs of some extents, under new random ids (C1); None where one is gone."""
    taken: list[Extent] = []
    by_partition: dict[int, list[Claim]] = {}
    for extent in extents:
        if not extent.blob:
            taken.append(extent)
            continue
        name = gateway.random(16)
        claim = Claim(extent.blob, name, place.partition, place.bucket, place.key, place.upload)
        by_partition.setdefault(extent.partition, []).append(claim)
        taken.append(msgspec.structs.replace(extent, reference=name))
    granted: list[Extent] = []
    for partition, claims in by_partition.items():
        answer = await execute(gateway, partition, TakeReferences(claims))
        if not isinstance(answer, Taken) or not answer.granted:
            await drop_references(gateway, granted)
            return None
        names = {claim.reference for claim in claims}
        granted += [extent for extent in taken if extent.reference in names]
    return taken


async def change_object(gateway: Gateway, name: str, key: bytes, version: str, *, tags: dict[str, str] | None = None,
                        acl: str | None = None, retention: tuple[str, int] | None = None, hold: bool | None = None,
                        bypass: bool = False) -> str:  # fmt: skip
    """Give a version other tags, another ACL, retention or hold; returns its id. Raises S3Error."""
    bucket = await find_bucket(gateway, name)
    partition = keys.partition_of(bucket.id, key, gateway.partitions)
    answer = await commit(
        gateway,
        name,
        bucket,
        partition,
        lambda settings: ChangeObject(settings, key, version, tags, acl, retention, hold, bypass),
    )
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


async def copy_object(gateway: Gateway, source: Opened, copy: Copy) -> Put:
    """Copy a whole object by sharing its content. The caller has opened and authorized the source."""
    bucket = await find_bucket(gateway, copy.name)
    partition = keys.partition_of(bucket.id, copy.key, gateway.partitions)
    if source.row.size > gateway.limits.put_bytes and not copy.rename:
        raise S3Error(
            "InvalidRequest",
            "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120",
        )
    if not copy.rename:
        await gateway.quotas.take(gateway.node, bucket, source.row.size)
    for _ in range(COPY_TRIES):
        extents = await take_extents(gateway, source.row.extents, Place(partition, bucket.id, copy.key))
        if extents is not None:
            break
        source = await open_object(gateway, source.name, source.key, source.asked_version)
    else:
        raise S3Error("OperationAborted", "The source keeps changing. Try again.")
    return await _commit_copy(gateway, source, copy, bucket, partition, extents)


async def _commit_copy(gateway: Gateway, source: Opened, copy: Copy, bucket: Bucket, partition: int,
                       extents: list[Extent]) -> Put:  # fmt: skip
    old = source.row
    kept = copy.attributes or Attributes(old.headers, old.metadata)
    tags = old.tags if copy.tags is None else copy.tags
    acl = old.acl if copy.rename else copy.acl
    row = Object(
        gateway.now_ms(), old.size, old.etag, False, bucket.versioning != "Enabled", copy.owner,
        old.checksum_algorithm, old.checksum_type, old.checksum, kept.headers, kept.metadata, tags, extents, b"", *copy.lock, acl,
    )  # fmt: skip
    granted = [extent.reference for extent in extents if extent.blob]
    rename_version = keys.version_id(source.suffix) if copy.rename else ""
    try:
        answer = await commit(gateway, copy.name, bucket, partition, lambda settings: PutObject(
            settings, copy.key, with_null(row, settings.versioning), source.inline, [], granted, copy.conditions,
            source.key if copy.rename else b"", rename_version,
        ))  # fmt: skip
    except NotCommittedError:
        await drop_references(gateway, extents)
        raise
    if not isinstance(answer, Written):
        raise S3Error("InternalError")
    return Put(
        answer.version,
        row.etag,
        (row.checksum_algorithm, row.checksum, row.checksum_type),
        row.modified_ms,
        row.size,
        row.tags,
    )


async def rename_object(gateway: Gateway, name: str, source_key: bytes, key: bytes, owner: str,
                        conditions: Conditions = NO_CONDITIONS) -> Put:  # fmt: skip
    """Give an object another key in its bucket: destination first, then the source, never neither."""
    source = await open_object(gateway, name, source_key, "")
    if source_key == key:
        raise S3Error("InvalidRequest", "The source and the destination of a rename must differ.")
    return await copy_object(gateway, source, Copy(name, key, owner, conditions=conditions, rename=True))

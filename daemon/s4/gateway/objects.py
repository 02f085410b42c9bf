"""PutObject, DeleteObject, DeleteObjects, and what changes of an object without its bytes. Copies and renames: copies.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from s4.access.documents import object_owner
from s4.gateway.context import NOBODY, Gateway, NotCommittedError, Origin, commit, execute, find_bucket, paced, placed
from s4.gateway.read import Opened
from s4.gateway.receive import REFERENCES_AT_ONCE, Body, Destination, Stored, abandon, drop_references, receive
from s4.gateway.sealing import new_seal, wanted_in
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
from s4.s3.encryption import Wanted
from s4.s3.errors import S3Error
from s4.s3.lock import NONE, Lock

CHANGE_TRIES = 3
WINDOW = 64  # commands of one request at a time, so that many such requests crowd out nobody
CROWDED_S = 0.05


T = TypeVar("T")


class SourceChangedError(Exception):
    """What was opened and judged is not there any more, or is another version: open it again, and judge it again."""


async def while_it_changes(attempt: Callable[[], Awaitable[T]]) -> T:
    """Open, judge and use an object, all of it again where it was replaced in between. Raises S3Error
    OperationAborted."""
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
    origin: Origin = NOBODY


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


async def put_object(
    gateway: Gateway,
    name: str,
    key: bytes,
    body: Body,
    expected: Expected,
    attributes: Attributes,
    owner: str,
    conditions: Conditions = NO_CONDITIONS,
) -> Put:
    """Store a body under a key. Raises S3Error."""
    bucket, partition = await placed(gateway, name, key)
    await gateway.quotas.take(gateway.node, bucket, body.length)
    seal = await new_seal(gateway, name, bucket, wanted_in(bucket, attributes.encryption))
    expected = msgspec.structs.replace(expected, keep=expected.kept or checksums.DEFAULT)
    stored = await receive(gateway, body, expected, Destination(partition, bucket.id, key), seal)
    row = Object(
        gateway.now_ms(),
        stored.extent.size,
        stored.etag,
        False,
        bucket.versioning != "Enabled",
        object_owner(bucket, owner),
        expected.keep,
        checksums.FULL_OBJECT,
        stored.checksum,
        attributes.headers,
        attributes.metadata,
        attributes.tags,
        [stored.extent],
        b"",
        *attributes.lock[:3],
        attributes.acl,
        seal.sealing if seal is not None else None,
        attributes.lock.told,
    )
    about = attributes.event, attributes.origin
    written = await commit_put(gateway, name, bucket, partition, key, row, stored, conditions, *about)
    return Put.of(row, written.version)


async def commit_put(
    gateway: Gateway,
    name: str,
    bucket: Bucket,
    partition: int,
    key: bytes,
    row: Object,
    stored: Stored,
    conditions: Conditions,
    event: str,
    origin: Origin,
) -> Written:
    try:
        return await commit(
            gateway,
            Written,
            name,
            bucket,
            partition,
            lambda settings: PutObject(
                settings,
                key,
                with_null(row, settings.versioning),
                stored.inline,
                stored.blobs,
                stored.granted,
                conditions,
                event=event,
            ),
            origin=origin,
        )
    except NotCommittedError:
        await abandon(gateway, stored)
        raise


def with_null(row: Object, versioning: str) -> Object:
    """The row as the bucket's versioning wants it: outside Enabled it is the null version."""
    null = versioning != "Enabled"
    if row.null == null:
        return row
    return msgspec.structs.replace(row, null=null)


async def delete_object(
    gateway: Gateway,
    name: str,
    key: bytes,
    version: str,
    owner: str,
    conditions: Conditions = NO_CONDITIONS,
    *,
    bypass: bool = False,
    origin: Origin = NOBODY,
) -> Deleted:
    bucket, partition = await placed(gateway, name, key)
    return await commit(
        gateway,
        Deleted,
        name,
        bucket,
        partition,
        lambda settings: DeleteObject(
            settings,
            key,
            version,
            owner,
            conditions,
            bypass,
        ),
        origin=origin,
    )


async def delete_objects(
    gateway: Gateway,
    name: str,
    wanted: list[tuple[bytes, str, str]],
    owner: str,
    *,
    bypass: bool = False,
    origin: Origin = NOBODY,
) -> list[Deleted | S3Error]:
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
                    asked = Conditions(if_match=etag)
                    return await delete_object(gateway, name, key, version, owner, asked, bypass=bypass, origin=origin)
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


async def change_object(
    gateway: Gateway,
    name: str,
    key: bytes,
    version: str,
    *,
    tags: dict[str, str] | None = None,
    acl: str | None = None,
    retention: tuple[str, int] | None = None,
    hold: bool | None = None,
    bypass: bool = False,
    seen: bytes = b"",
    origin: Origin = NOBODY,
) -> str:
    """Give a version other tags, another ACL, retention or hold; returns its id. `seen` is the suffix of the version
    that the change was made for, where it must be that. Raises S3Error, SourceChangedError."""
    bucket, partition = await placed(gateway, name, key)
    try:
        changed = await commit(
            gateway,
            Written,
            name,
            bucket,
            partition,
            lambda settings: ChangeObject(
                settings,
                key,
                version,
                tags,
                acl,
                retention,
                hold,
                bypass,
                seen,
            ),
            origin=origin,
        )
    except NotCommittedError as error:
        if seen and error.code == "OperationAborted":
            raise SourceChangedError from error
        raise
    return changed.version


async def must_be_there(gateway: Gateway, source: Opened) -> None:
    """Raises SourceChangedError where what was opened is not what would be opened now: then its blob may be gone
    too."""
    partition = keys.partition_of(source.bucket.id, source.key, gateway.partitions)
    found = await gateway.node.find_object(partition, source.bucket.id, source.key, source.asked_version)
    if found is None or found.suffix != source.suffix:
        raise SourceChangedError

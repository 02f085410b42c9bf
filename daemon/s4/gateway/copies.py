"""Copies and renames: an object's content under another name, by references where it may be shared and by bytes where not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from s4.access.documents import object_owner
from s4.gateway.context import NOBODY, Gateway, NotCommittedError, Origin, commit, placed
from s4.gateway.objects import (
    Attributes,
    Put,
    commit_put,
    must_be_there,
    take_extents,
    while_it_changes,
    with_null,
)
from s4.gateway.read import Opened, open_object, stream
from s4.gateway.receive import Decoder, Destination, Stored, drop_references, receive
from s4.gateway.sealing import Seal, new_seal, wanted_in
from s4.metadata import events, keys
from s4.metadata.commands import (
    NO_CONDITIONS,
    Conditions,
    PutObject,
    Written,
)
from s4.metadata.rows import Bucket, Extent, Object
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
    checksum: str = ""  # the algorithm of the copy's, which is of the whole object; empty for what the source has
    named: Callable[[str, int], bytes] | None = None  # the id, by the source's version and the settings' revision
    origin: Origin = NOBODY


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


async def receive_copied(
    gateway: Gateway, source: Opened, span: tuple[int, int], expected: Expected, to: Destination, seal: Seal | None
) -> Stored:
    """Store (offset, length) of an object once more. Raises S3Error, DamagedError, and SourceChangedError where it
    went."""
    try:
        with gateway.readers.reading():
            return await receive(gateway, CopiedBody(gateway, source, *span), expected, to, seal)
    except DamagedError:
        await must_be_there(gateway, source)
        raise


async def copy_object(gateway: Gateway, source: Opened, copy: Copy) -> Put:
    """Copy a whole object by sharing its content; between plain and encrypted, and where it cannot be shared now (C4),
    it is written anew. The caller has opened, judged and unlocked the source; a rename takes it as it is, and needs no
    key.

    Raises S3Error, and SourceChangedError where the source was replaced meanwhile: what the caller looked at,
    conditions and tags, need not hold for what is there now. It reads since before it opened the source (D6).
    """
    bucket, partition = await placed(gateway, copy.name, copy.key)
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
        held = source.row
        whole = held.checksum_type != checksums.COMPOSITE
        if copy.checksum and not (whole and copy.checksum == held.checksum_algorithm):
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
    """The source as if it had been put with that checksum: its bytes are read once, and shared all the same. Raises
    what reading does, with the references on `extents` dropped."""
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
    return msgspec.structs.replace(source, row=row)


async def _commit_copy(
    gateway: Gateway, source: Opened, copy: Copy, bucket: Bucket, partition: int, extents: list[Extent]
) -> Put:
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
        answer = await commit(
            gateway,
            Written,
            copy.name,
            bucket,
            partition,
            lambda settings: PutObject(
                settings,
                copy.key,
                with_null(row, settings.versioning),
                source.inline,
                [],
                granted,
                copy.conditions,
                source.key if copy.rename else b"",
                rename_version,
                events.COPY,
            ),
            lambda revision: named(rename_version, revision) if named is not None else b"",
            origin=copy.origin,
        )
    except NotCommittedError:
        await drop_references(gateway, extents)
        raise
    return Put.of(row, answer.version)


def _copied(gateway: Gateway, old: Object, copy: Copy, bucket: Bucket, content: Object) -> Object:
    """The row of a copy, with what `content` says of its bytes."""
    kept = copy.attributes or Attributes(old.headers, old.metadata)
    tags = old.tags if copy.tags is None else copy.tags
    acl = old.acl if copy.rename else copy.acl
    return Object(
        gateway.now_ms(),
        content.size,
        content.etag,
        False,
        bucket.versioning != "Enabled",
        object_owner(bucket, copy.owner),
        content.checksum_algorithm,
        content.checksum_type,
        content.checksum,
        kept.headers,
        kept.metadata,
        tags,
        content.extents,
        old.upload if copy.rename else b"",  # whose parts it still has
        *copy.lock[:3],
        acl,
        content.sealing,
        copy.lock.told or (copy.rename and old.hold_told),
    )


async def _copy_bytes(gateway: Gateway, source: Opened, copy: Copy, bucket: Bucket, partition: int) -> Put:
    old, seal = source.row, await new_seal(gateway, copy.name, bucket, wanted_in(bucket, copy.encryption))
    expected = Expected(keep=copy.checksum or old.checksum_algorithm or checksums.DEFAULT)
    to = Destination(partition, bucket.id, copy.key)
    stored = await receive_copied(gateway, source, (0, old.size), expected, to, seal)
    content = Object(
        0,
        old.size,
        stored.etag,
        False,
        False,
        "",
        expected.keep,
        checksums.FULL_OBJECT,
        stored.checksum,
        extents=[stored.extent],
        sealing=seal.sealing if seal is not None else None,
    )
    row = _copied(gateway, old, copy, bucket, content)
    written = await commit_put(
        gateway, copy.name, bucket, partition, copy.key, row, stored, copy.conditions, events.COPY, copy.origin
    )
    return Put.of(row, written.version)


async def _as_it_is(_: Opened) -> None:
    return


async def rename_object(
    gateway: Gateway,
    name: str,
    source_key: bytes,
    key: bytes,
    owner: str,
    conditions: Conditions = NO_CONDITIONS,
    judge: Callable[[Opened], Awaitable[None]] = _as_it_is,
    named: Callable[[str, int], bytes] | None = None,
    origin: Origin = NOBODY,
) -> Put:
    """Give an object another key in its bucket: destination first, then the source, never neither. `judge` raises
    S3Error where the very version that is to be renamed must not be. `named` is as in `Copy`."""

    async def attempt() -> Put:
        source = await open_object(gateway, name, source_key, "")
        await judge(source)
        if source_key == key:
            raise S3Error("InvalidRequest", "The source and the destination of a rename must differ.")
        return await copy_object(
            gateway, source, Copy(name, key, owner, conditions=conditions, rename=True, named=named, origin=origin)
        )

    return await while_it_changes(attempt)

"""Multipart uploads: create, upload part, part copy, list, complete, abort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from s4.access.documents import object_owner
from s4.gateway.context import NOBODY, Gateway, NotCommittedError, Origin, commit, paced, placed
from s4.gateway.copies import receive_copied
from s4.gateway.objects import Attributes, Put, take_extents, with_null
from s4.gateway.read import Opened
from s4.gateway.receive import Body, Destination, Stored, abandon, receive
from s4.gateway.sealing import Seal, new_seal, unwrap, wanted_in
from s4.metadata.commands import (
    NO_CONDITIONS,
    AbortUpload,
    CompleteUpload,
    Conditions,
    CreateUpload,
    Done,
    PutPart,
    Written,
)
from s4.metadata.rows import Bucket, Extent, Object, Part, Sealing, Upload, decode, decode_object
from s4.peer.api import UploadFound
from s4.s3 import checksums
from s4.s3.checksums import Expected
from s4.s3.encryption import SSE_C
from s4.s3.errors import S3Error


@dataclass(frozen=True, slots=True)
class WantedPart:
    """A part as CompleteMultipartUpload names it. `checksums` maps algorithm to base64 where given."""

    number: int
    etag: str
    checksums: dict[str, str]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a CompleteMultipartUpload asks for besides its parts."""

    parts: Sequence[WantedPart]
    conditions: Conditions = NO_CONDITIONS
    checksum: tuple[str, str] = ("", "")  # algorithm, value
    checksum_type: str = ""
    size: int | None = None
    origin: Origin = NOBODY


def parse_upload_id(text: str) -> bytes:
    """Raises S3Error NoSuchUpload: an id that we never gave out."""
    try:
        upload = bytes.fromhex(text)
    except ValueError:
        upload = b""
    if len(upload) != 16:
        raise S3Error("NoSuchUpload", UploadId=text)
    return upload


async def create_upload(
    gateway: Gateway, name: str, key: bytes, attributes: Attributes, owner: str, algorithm: str, kind: str
) -> tuple[str, Sealing | None]:
    """Returns the upload id, 32 hexadecimal digits that sort by time, and how its parts are encrypted. With no
    `algorithm` the default checksum is kept."""
    bucket, partition = await placed(gateway, name, key)
    upload = gateway.now_ms().to_bytes(6, "big") + gateway.random(10)
    seal = await new_seal(gateway, name, bucket, wanted_in(bucket, attributes.encryption))
    row = Upload(
        gateway.now_ms(),
        owner,
        algorithm or checksums.DEFAULT,
        kind or checksums.FULL_OBJECT,
        attributes.headers,
        attributes.metadata,
        attributes.tags,
        attributes.acl,
        *attributes.lock[:3],
        seal.sealing if seal is not None else None,
        bool(algorithm),
        attributes.lock.told,
    )
    await commit(gateway, Done, name, bucket, partition, lambda settings: CreateUpload(settings, key, upload, row))
    return upload.hex(), row.sealing


async def find_upload(
    gateway: Gateway, name: str, key: bytes, upload_id: str, after: int = 0, limit: int = 0
) -> tuple[Bucket, int, bytes, UploadFound]:
    bucket, partition = await placed(gateway, name, key)
    upload = parse_upload_id(upload_id)
    found = await gateway.node.find_upload(partition, bucket.id, key, upload, after, limit)
    if found is None:
        raise S3Error("NoSuchUpload", UploadId=upload_id)
    return bucket, partition, upload, found


async def find_begun(gateway: Gateway, name: str, key: bytes, upload_id: str, customer: bytes) -> Upload | None:
    """An upload that `customer` is the key of, where it is given; None where there is none. Raises S3Error for another
    key."""
    try:
        bucket, _, _, found = await find_upload(gateway, name, key, upload_id)
    except S3Error as error:
        if error.code != "NoSuchUpload":
            raise
        return None
    if customer:
        await unwrap(gateway, bucket.id, found.upload.sealing, customer)
    return found.upload


async def put_part(
    gateway: Gateway,
    name: str,
    key: bytes,
    upload_id: str,
    number: int,
    body: Body,
    expected: Expected,
    customer: bytes = b"",
) -> tuple[Stored, str, Sealing | None]:
    """Store a part; say of which algorithm its checksum is, and how it is encrypted: as its upload is, for which
    `customer` must be the upload's own key."""
    bucket, partition, upload, found = await find_upload(gateway, name, key, upload_id)
    expected = _part_checksum(expected, found.upload)
    seal = await _seal_of(gateway, bucket, found.upload, customer)
    stored = await receive(gateway, body, expected, Destination(partition, bucket.id, key, upload, number), seal)
    await _commit_part(gateway, name, bucket, partition, key, upload, stored)
    return stored, expected.kept, found.upload.sealing


async def _seal_of(gateway: Gateway, bucket: Bucket, upload: Upload, customer: bytes) -> Seal | None:
    if upload.sealing is not None and upload.sealing.mode == SSE_C and not customer:
        raise S3Error(
            "InvalidRequest",
            "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters.",
        )
    key = await unwrap(gateway, bucket.id, upload.sealing, customer)
    return Seal(key, upload.sealing) if upload.sealing is not None else None


def _part_checksum(expected: Expected, upload: Upload) -> Expected:
    """A part is kept with the checksum of its upload. Where the client chose that one, a part brings no other, and must
    bring it where the whole is made of the parts' (COMPOSITE). Raises S3Error."""
    algorithm = upload.checksum_algorithm
    wrong = expected.algorithm != algorithm and (expected.algorithm or upload.checksum_type == checksums.COMPOSITE)
    if algorithm and upload.checksum_chosen and wrong:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.lower()}, actual checksum Type: {expected.algorithm.lower() or 'null'}",
        )
    return msgspec.structs.replace(expected, keep=algorithm)


async def _commit_part(
    gateway: Gateway, name: str, bucket: Bucket, partition: int, key: bytes, upload: bytes, stored: Stored
) -> None:
    try:
        await commit(
            gateway,
            Written,
            name,
            bucket,
            partition,
            lambda settings: PutPart(
                settings,
                key,
                upload,
                stored.extent,
                stored.inline,
                stored.blobs,
                stored.granted,
                stored.brought,
            ),
        )
    except NotCommittedError:
        await abandon(gateway, stored)
        raise


async def copy_part(
    gateway: Gateway,
    source: Opened,
    name: str,
    key: bytes,
    upload_id: str,
    number: int,
    span: tuple[int, int] | None,
    customer: bytes = b"",
) -> tuple[Stored, str, Sealing | None]:
    """UploadPartCopy; returns what `put_part` does. A whole object in one plain blob is shared; all else is read and
    stored again. Raises S3Error, and SourceChangedError where the source that was judged is gone."""
    bucket, partition, upload, found = await find_upload(gateway, name, key, upload_id)
    offset, length = span or (0, source.row.size)
    to = Destination(partition, bucket.id, key, upload, number)
    expected = Expected(keep=found.upload.checksum_algorithm)
    seal = await _seal_of(gateway, bucket, found.upload, customer)
    extents = source.row.extents
    plain = seal is None and source.row.sealing is None
    whole = plain and (offset, length) == (0, source.row.size) and len(extents) == 1 and extents[0].blob
    if whole and expected.keep in ("", source.row.checksum_algorithm):
        taken = await take_extents(gateway, extents, to)
        if taken is not None:
            old = taken[0]
            etag = old.etag or source.row.etag
            extent = Extent(number, old.size, old.partition, old.blob, old.reference, etag, old.checksum)
            stored = Stored(extent, etag, old.checksum, granted=[extent.reference])
            await _commit_part(gateway, name, bucket, partition, key, upload, stored)
            return stored, source.row.checksum_algorithm, None
    stored = await receive_copied(gateway, source, (offset, length), expected, to, seal)
    await _commit_part(gateway, name, bucket, partition, key, upload, stored)
    return stored, expected.keep, found.upload.sealing


async def complete_upload(gateway: Gateway, name: str, key: bytes, upload_id: str, wanted: Completion) -> Put:
    """Write the manifest of the parts as a new version. A repeat of a completed one gets the same answer."""
    try:
        bucket, partition, upload, found = await find_upload(gateway, name, key, upload_id, 0, gateway.limits.parts)
        row = await manifest(gateway, found, upload, wanted)
        row = msgspec.structs.replace(row, owner=object_owner(bucket, row.owner))
        async with gateway.quotas.completing(gateway.node, bucket, row.size, upload):
            answer = await commit(
                gateway,
                Written,
                name,
                bucket,
                partition,
                lambda settings: CompleteUpload(
                    settings,
                    key,
                    upload,
                    with_null(row, settings.versioning),
                    wanted.conditions,
                ),
                origin=wanted.origin,
            )
    except S3Error as error:
        if error.code not in ("NoSuchUpload", "QuotaExceeded"):  # of the second what was completed may be the reason
            raise
        return await _completed_before(gateway, name, key, upload_id, wanted, error)
    return Put.of(row, answer.version)


async def _completed_before(
    gateway: Gateway, name: str, key: bytes, upload_id: str, wanted: Completion, error: S3Error
) -> Put:
    bucket, partition = await placed(gateway, name, key)
    found = await gateway.node.find_object(partition, bucket.id, key, "")
    if found is None:
        raise error
    row, inline = decode_object(found.value)
    if row.upload != parse_upload_id(upload_id) or len(row.extents) != len(wanted.parts):
        raise error
    for part, extent in zip(wanted.parts, row.extents, strict=True):
        if part.etag != extent.etag:
            raise error
        if part.checksums.get(row.checksum_algorithm, extent.checksum) != extent.checksum:
            raise S3Error("InvalidPart", PartNumber=str(part.number), ETag=part.etag)
    _must_be_asked_for(row, wanted)
    return Put.of(row, Opened(bucket, name, key, "", row, inline, found.suffix).version)


async def manifest(gateway: Gateway, found: UploadFound, upload: bytes, wanted: Completion) -> Object:
    """The object row of a completion. Pure but for the time, and for pauses. Raises S3Error."""
    info = found.upload
    decoded = [decode(Part, value) async for value in paced(found.parts)]
    there = {part.extent.number: part for part in decoded}
    extents = [_chosen(there.get(part.number), part, info) async for part in paced(wanted.parts)]
    for extent in extents[:-1]:
        if extent.size < gateway.limits.part_min_bytes:
            raise S3Error(
                "EntityTooSmall",
                ProposedSize=str(extent.size),
                MinSizeAllowed=str(gateway.limits.part_min_bytes),
                PartNumber=str(extent.number),
                ETag=extent.etag,
            )
    size = sum(extent.size for extent in extents)
    if size > gateway.limits.object_bytes:
        raise S3Error("EntityTooLarge", ProposedSize=str(size), MaxSizeAllowed=str(gateway.limits.object_bytes))
    algorithm, kind = info.checksum_algorithm, info.checksum_type
    row = Object(
        gateway.now_ms(),
        size,
        checksums.multipart_etag(extent.etag for extent in extents),
        False,
        True,
        info.owner,
        algorithm,
        kind,
        _checksum(algorithm, kind, extents),
        info.headers,
        info.metadata,
        info.tags,
        extents,
        upload,
        info.lock_mode,
        info.lock_until_ms,
        info.legal_hold,
        info.acl,
        info.sealing,
        info.hold_told,
    )
    _must_be_asked_for(row, wanted)
    return row


def _must_be_asked_for(row: Object, wanted: Completion) -> None:
    """Raises S3Error where a completion, or its repeat, says another size or checksum of the whole than it has."""
    if wanted.size is not None and wanted.size != row.size:
        raise S3Error("InvalidRequest", "The provided 'x-amz-mp-object-size' header does not match what was computed.")
    if wanted.checksum_type and wanted.checksum_type != row.checksum_type:
        raise S3Error("InvalidRequest", "The upload was created with another checksum type.")
    algorithm, given = wanted.checksum
    if given and algorithm != row.checksum_algorithm:
        raise S3Error("InvalidRequest", _other_checksum(row, "the request", algorithm))
    if given and given not in (row.checksum, row.checksum.partition("-")[0]):
        raise S3Error("BadDigest", f"The {algorithm.lower()} you specified did not match the calculated checksum.")


def _chosen(part: Part | None, wanted: WantedPart, info: Upload) -> Extent:
    if part is None or part.extent.etag != wanted.etag:
        raise S3Error("InvalidPart", PartNumber=str(wanted.number), ETag=wanted.etag)
    if not wanted.checksums and info.checksum_type == checksums.COMPOSITE:
        algorithm = info.checksum_algorithm.lower()
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using a {algorithm} checksum. The complete request must include the checksum for each part. It was missing for part {wanted.number} in the request.",
        )
    for algorithm, value in wanted.checksums.items():
        if f"{algorithm}:{value}" == part.brought:
            continue
        if algorithm != info.checksum_algorithm:
            if part.brought.startswith(f"{algorithm}:"):
                raise S3Error("InvalidPart", PartNumber=str(wanted.number), ETag=wanted.etag)
            raise S3Error("InvalidRequest", _other_checksum(info, f"part {wanted.number}", algorithm))
        if value != part.extent.checksum:
            raise S3Error("InvalidPart", PartNumber=str(wanted.number), ETag=wanted.etag)
    return part.extent


def _other_checksum(info: Upload | Object, what: str, algorithm: str) -> str:
    own = info.checksum_algorithm.lower()
    return f"The upload was created using {'a ' + own if own else 'no'} checksum, but {what} names {algorithm.lower()}."


def _checksum(algorithm: str, kind: str, extents: list[Extent]) -> str:
    if not algorithm:
        return ""
    if kind == checksums.COMPOSITE:
        return checksums.composite(algorithm, [extent.checksum for extent in extents])
    return checksums.full_object(algorithm, [(extent.checksum, extent.size) for extent in extents])


async def abort_upload(gateway: Gateway, name: str, key: bytes, upload_id: str) -> None:
    bucket, partition = await placed(gateway, name, key)
    upload = parse_upload_id(upload_id)
    await commit(gateway, Done, name, bucket, partition, lambda settings: AbortUpload(settings, key, upload))

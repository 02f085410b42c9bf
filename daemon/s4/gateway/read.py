"""Opening and reading objects: the row first, then only the blocks that a range touches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from s4.crypto.segments import SEGMENT, InvalidTag, Opener, stored_size
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.sealing import unwrap
from s4.gateway.stripes import Stripe
from s4.metadata import keys
from s4.metadata.rows import Bucket, Extent, Object, decode_object
from s4.peer.api import BlobFound
from s4.s3.errors import S3Error
from s4.s3.names import http_date
from s4.storage.records import DamagedError

READ_BYTES = 1 << 20
ROWS_AT_ONCE = 32  # of blobs that are asked for
# One extent's part of what is read: the extent, the bytes that its row has, and offset and length in it.
_Span = tuple[Extent, memoryview | None, int, int]


def whole_pieces() -> int:
    """What is read at once for who surely takes it."""
    return READ_BYTES


class Opened(msgspec.Struct, eq=False):
    """A version of an object: its row, inline bytes and version suffix, and what was asked for. The bytes of one that
    is encrypted can be read once it was `unlocked`; `customer` is the key that its reader brought."""

    bucket: Bucket
    name: str
    key: bytes
    asked_version: str
    row: Object
    inline: bytes
    suffix: bytes
    content_key: bytes = b""
    customer: bytes = b""

    @property
    def version(self) -> str:
        """The version id as clients see it; empty in a bucket that never had versioning."""
        if not self.bucket.versioning:
            return ""
        return "null" if self.row.null else keys.version_id(self.suffix)


async def open_object(
    gateway: Gateway, name: str, key: bytes, version: str, bucket: Bucket | None = None, *, whole: bool = False
) -> Opened:
    """Raises S3Error: NoSuchBucket, NoSuchKey, NoSuchVersion, and MethodNotAllowed for a delete marker asked by id.

    `bucket` is the row of that name, where the caller has it. `whole`: its bytes are wanted too.
    """
    if bucket is None:
        bucket = await find_bucket(gateway, name)
    partition = keys.partition_of(bucket.id, key, gateway.partitions)
    if version and version != "null" and keys.parse_version_id(version) is None:
        raise S3Error(
            "InvalidArgument", "Invalid version id specified", ArgumentName="versionId", ArgumentValue=version
        )
    far = whole and gateway.far and gateway.small_bytes > 0  # then content is asked for with its row, not after it
    found = await (gateway.node.find_whole if far else gateway.node.find_object)(partition, bucket.id, key, version)
    shown = key.decode("utf-8", "replace")
    if found is None:
        if version:
            raise S3Error("NoSuchVersion", Key=shown, VersionId=version)
        raise S3Error("NoSuchKey", Key=shown)
    row, inline = decode_object(found.value)
    opened = Opened(bucket, name, key, version, row, inline, found.suffix)
    if found.content:
        gateway.cache.put(row.extents[0].blob, found.content)
    if row.marker:
        headers = {"x-amz-delete-marker": "true"}
        if opened.version:
            headers["x-amz-version-id"] = opened.version
        if version:
            headers |= {"Allow": "DELETE", "Last-Modified": http_date(row.modified_ms // 1000)}
            raise S3Error("MethodNotAllowed", headers=headers, Method="GET", ResourceType="DeleteMarker")
        raise S3Error("NoSuchKey", headers=headers, Key=shown)
    return opened


async def unlock(gateway: Gateway, opened: Opened, customer: bytes = b"") -> None:
    """Make an object's bytes readable, with the key that the request brings where it was encrypted with one. Raises
    S3Error where the key is another one, or where one is given and none was used."""
    opened.content_key = await unwrap(gateway, opened.bucket.id, opened.row.sealing, customer)
    opened.customer = customer


async def read_small(gateway: Gateway, opened: Opened, offset: int, length: int) -> bytes | memoryview | None:
    """The bytes of a range where they are few and at hand; None where `stream` should give them."""
    extents = opened.row.extents
    if opened.row.sealing is not None:
        if length > SEGMENT:
            return None
        return b"".join([piece async for piece in stream(gateway, opened, offset, length)])
    if len(opened.inline) == opened.row.size:
        whole = opened.inline
    elif len(extents) == 1 and extents[0].size <= gateway.cache.blob_bytes:
        whole = await _cached(gateway, extents[0])
    else:
        return None
    return whole if length == len(whole) else memoryview(whole)[offset : offset + length]


async def _cached(gateway: Gateway, extent: Extent) -> bytes:
    data = gateway.cache.get(extent.blob)
    if data is None:
        row = await gateway.node.find_blob(extent.partition, extent.blob)
        data = row.content
        if row.k:
            data = b"".join(await Stripe(gateway, extent.partition, extent.blob, row, 0).read(0, extent.size))
        gateway.cache.put(extent.blob, data)
    return data


async def stream(
    gateway: Gateway, opened: Opened, offset: int, length: int, piece_bytes: Callable[[], int] = whole_pieces
) -> AsyncIterator[memoryview]:
    """Bytes [offset, offset + length) of an object in pieces of at most `piece_bytes()`, which is asked before each.

    Raises DamagedError where bytes are lost; what was given before is right. The rows of all its blobs are read before
    the first piece is given: they go at once where the object does, and their shards only when nobody reads them (D6).
    """
    inline, spans = memoryview(opened.inline), list[_Span]()
    for extent in opened.row.extents:
        stored, held = stored_size(extent), None
        if not extent.blob:
            held, inline = inline[:stored], inline[stored:]
        if offset >= extent.size:
            offset -= extent.size
            continue
        take = min(length, extent.size - offset)
        spans.append((extent, held, offset, take))
        offset, length = 0, length - take
        if length <= 0:
            break
    rows = await _rows(gateway, [extent for extent, *_ in spans if extent.blob])
    for extent, held, start, take in spans:
        row = rows.get(extent.blob)
        if extent.seal:
            sealed = _stream_sealed(gateway, extent, held, row, opened.content_key, start, take, piece_bytes)
            async for piece in sealed:
                yield piece
        elif held is not None:
            yield held[start : start + take]
        elif row is not None:
            async for piece in _stream_blob(gateway, extent, row, start, take, piece_bytes):
                yield piece


async def _rows(gateway: Gateway, extents: list[Extent]) -> dict[bytes, BlobFound]:
    if len(extents) == 1:  # as nearly always
        blob, held = extents[0].blob, gateway.cache.get(extents[0].blob)
        if held is not None:  # as when it came with the object's row
            return {blob: BlobFound(size=len(held), stripe=0, k=0, m=0, sha256=b"", created_ms=0, content=held)}
        return {blob: await gateway.node.find_blob(extents[0].partition, blob)}
    found: dict[bytes, BlobFound] = {}
    for at in range(0, len(extents), ROWS_AT_ONCE):
        group = extents[at : at + ROWS_AT_ONCE]
        rows = await asyncio.gather(*(gateway.node.find_blob(one.partition, one.blob) for one in group))
        found |= zip((one.blob for one in group), rows, strict=True)
    return found


async def _stream_sealed(
    gateway: Gateway,
    extent: Extent,
    held: memoryview | None,
    row: BlobFound | None,
    key: bytes,
    offset: int,
    length: int,
    piece_bytes: Callable[[], int],
) -> AsyncIterator[memoryview]:
    """Decrypt a range, from `held` or from its blob, a few whole segments at a time."""
    opener = Opener(key, extent)
    while length:
        take = min(length, piece_bytes() - offset % SEGMENT)
        start, size = opener.span(offset, take)
        if row is not None:
            pieces = [piece async for piece in _stream_blob(gateway, extent, row, start, size, whole_pieces)]
            data: bytes | memoryview = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        else:
            data = (held or memoryview(b""))[start : start + size]
        try:
            plain = opener.open(offset // SEGMENT, data)
        except InvalidTag as error:
            raise DamagedError("the encrypted bytes are not those that were written") from error
        yield memoryview(plain)[offset % SEGMENT :][:take]
        offset, length = offset + take, length - take


async def _stream_blob(
    gateway: Gateway, extent: Extent, row: BlobFound, offset: int, length: int, piece_bytes: Callable[[], int]
) -> AsyncIterator[memoryview]:
    if not row.k:  # it is here, and little
        await gateway.turns.turn(length)
        yield memoryview(row.content)[offset : offset + length]
        return
    while length:
        number, start = divmod(offset, row.stripe)
        take = min(length, row.stripe - start, piece_bytes())
        await gateway.turns.turn(take)
        for piece in await Stripe(gateway, extent.partition, extent.blob, row, number).read(start, take):
            yield piece
        offset, length = offset + take, length - take

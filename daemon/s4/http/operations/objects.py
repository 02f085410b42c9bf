"""Objects: put, get, head, attributes, delete, copy, rename."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from msgspec.structs import replace

from s4.access.documents import object_owner
from s4.access.keys import of_etag
from s4.base import tasks
from s4.gateway import objects
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.memory import Share
from s4.gateway.objects import Attributes
from s4.gateway.read import READ_BYTES, Opened, read_small, stream
from s4.http.answers import Answer, respond, respond_xml
from s4.http.authorize import Call
from s4.http.operations import encryption as sse
from s4.http.operations import labels, locks
from s4.http.operations.settings import check_acl
from s4.http.owners import canonical_of
from s4.http.request import S3Request, request_patience
from s4.http.responses import common_headers, ending, from_wire, header_value, object_headers, put_headers
from s4.metadata import classes, keys
from s4.metadata.commands import Conditions, Deleted
from s4.metadata.rows import Extent, Object
from s4.s3 import acl, checksums, conditions, encryption, lock, names, ranges, tags, website
from s4.s3.errors import S3Error
from s4.s3.xml import Element, document, encode_key, tag
from s4.storage.records import DamagedError

KEPT_HEADERS = (
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "cache-control",
    "expires",
)
FIRST_BYTES = 128 * 1024  # of a client of which it is not known yet whether it takes what it is sent
JUDGED_AT_ONCE = 50  # keys of a DeleteObjects
_SHOWN = {name: "-".join(part.capitalize() for part in name.split("-")) for name in KEPT_HEADERS}
_OVERRIDES = {f"response-{name}": shown for name, shown in _SHOWN.items()}


def attributes_of(request: S3Request) -> Attributes:
    """The headers to keep with an object. Raises S3Error MetadataTooLarge, InvalidArgument."""
    kept: dict[str, str] = {}
    metadata: dict[str, str] = {}
    size = 0
    for name, value in request.headers.items():
        if name in _SHOWN:
            if name == "content-encoding":
                value = _without_chunked(value)  # noqa: PLW2901 - aws-chunked is of the transfer, not of the object
                if not value.strip():
                    continue
            kept[_SHOWN[name]] = header_value(from_wire(value), name)
        elif name[:6] != "x-amz-":
            continue
        elif name.startswith("x-amz-meta-"):
            text = metadata[name[11:]] = header_value(from_wire(value), name)
            size += len(name) - 11 + len(text.encode())
        elif name == website.LOCATION:
            kept[name] = header_value(website.check_location(value), name)
        elif name == classes.NAME:
            kept.update(classes.kept(value))
    if size > request.limits.metadata_bytes:
        raise S3Error("MetadataTooLarge", Size=str(size), MaxSizeAllowed=str(request.limits.metadata_bytes))
    return Attributes(kept, metadata, tags.from_header(request.headers))


async def asked_acl(gateway: Gateway, call: Call) -> str:
    """The ACL that a write asks for, as it is kept. Raises S3Error where the bucket takes no such, or the caller may
    not."""
    if acl.ASKED.isdisjoint(call.request.headers):
        return ""
    bucket, owner = await find_bucket(gateway, call.request.bucket), call.request.requester.asker.canonical
    if (whose := object_owner(bucket, call.caller)) != call.caller:
        owner = await canonical_of(gateway, whose)
    wanted = acl.from_headers(call.request.headers, owner)
    if wanted is None or call.request.headers.get("x-amz-acl") == "private":  # which some clients say of every write
        return ""
    if not wanted.private:
        await call.authorizer.must("s3:PutObjectAcl", call.request.key)
    check_acl(bucket, wanted, call.request.headers)
    return acl.encode(wanted)


def _without_chunked(value: str) -> str:
    """The client's own spelling, but for aws-chunked."""
    if "aws-chunked" not in value.lower():
        return value
    return ",".join(piece for piece in value.split(",") if piece.strip().lower() != "aws-chunked").strip()


def write_conditions(headers: Mapping[str, str]) -> Conditions:
    """If-Match and If-None-Match of a write. Raises S3Error NotImplemented for forms that S3 has not."""
    if_match, if_none = conditions.etag_of(headers.get("if-match")), headers.get("if-none-match", "")
    if if_none != "*" and "if-none-match" in headers:
        raise S3Error("NotImplemented", "If-None-Match of a write can only be *.", Header="If-None-Match")
    if "if-modified-since" in headers or "if-unmodified-since" in headers:
        raise S3Error("NotImplemented", "Writes have no conditions on time.")
    return Conditions(if_match, if_none)


async def with_acl(gateway: Gateway, call: Call) -> Attributes:
    """What a write says of the object to be, its ACL included."""
    found = replace(attributes_of(call.request), origin=call.origin)
    if not acl.ASKED.isdisjoint(call.request.headers):
        found = replace(found, acl=await asked_acl(gateway, call))
    if not lock.ASKED.isdisjoint(call.request.headers):
        found = replace(found, lock=await locks.asked_lock(gateway, call))
    if not encryption.ASKED.isdisjoint(call.request.headers):
        found = replace(found, encryption=sse.asked(gateway, call.request))
    return found


async def put_object(gateway: Gateway, call: Call) -> Answer:
    body = call.request.body()
    if body.length > call.request.limits.put_bytes:
        raise S3Error(
            "EntityTooLarge", ProposedSize=str(body.length), MaxSizeAllowed=str(call.request.limits.put_bytes)
        )
    if "content-length" not in call.request.headers and "x-amz-decoded-content-length" not in call.request.headers:
        raise S3Error("MissingContentLength")
    expected = checksums.expected_of(call.request.headers, call.request.payload)
    checksums.check_whole(call.request.headers)
    if not lock.ASKED.isdisjoint(call.request.headers) and not expected.certain:
        raise S3Error(
            "InvalidRequest",
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters",
        )
    put = await objects.put_object(
        gateway,
        call.request.bucket,
        call.request.key,
        body,
        expected,
        await with_acl(gateway, call),
        call.caller,
        write_conditions(call.request.headers),
    )
    return respond(200, put_headers(put, call.request) | ending(gateway, call.bucket, call.request.key, put))


def _span(request: S3Request, opened: Opened) -> tuple[int, int, dict[str, str], int]:
    """(offset, length, headers, status) of what a read asks for: all, a range, or a part."""
    size = opened.row.size
    header, part = request.headers.get("range"), request.query.get("partNumber")
    if part is not None:
        if header is not None:
            raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
        return _part_span(request, opened, part)
    if header is not None and not conditions.range_holds(
        request.headers.get("if-range"), opened.row.etag, opened.row.modified_ms
    ):
        header = None
    span = ranges.parse(header, size) if header is not None else None
    if span is None:
        return 0, size, {}, 200
    return *span, {"Content-Range": f"bytes {span[0]}-{span[0] + span[1] - 1}/{size}"}, 206


def _part_span(request: S3Request, opened: Opened, text: str) -> tuple[int, int, dict[str, str], int]:
    if names.number(text, 1, request.limits.parts) is None:
        raise S3Error(
            "InvalidArgument",
            "Part number must be an integer between 1 and 10000, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text,
        )
    extents, number = opened.row.extents, int(text)
    count = len(extents) if opened.row.upload else 1
    if number > max(count, 1):
        raise S3Error("InvalidPartNumber", ActualPartCount=str(count), PartNumberRequested=text)
    offset, length, headers = 0, opened.row.size, {}
    if opened.row.upload:
        offset, length = sum(extent.size for extent in extents[: number - 1]), extents[number - 1].size
        headers["x-amz-mp-parts-count"] = str(count)
    if length == 0:
        return offset, length, headers, 200  # no range can say that there is nothing in it
    return offset, length, headers | {"Content-Range": f"bytes {offset}-{offset + length - 1}/{opened.row.size}"}, 206


async def _open(gateway: Gateway, call: Call) -> Opened:
    version = call.request.query.get("versionId", "")
    opened = await call.authorizer.open(call.request.key, version, whole=call.request.method == "GET")
    try:
        conditions.check_read(call.request.headers, opened.row.etag, opened.row.modified_ms)
    except S3Error as error:
        if error.status == 304:
            error.headers["Last-Modified"] = names.http_date(opened.row.modified_ms // 1000)
            kept = opened.row.headers
            error.headers |= {name: kept[name] for name in ("Cache-Control", "Expires") if name in kept}
            if opened.version:
                error.headers["x-amz-version-id"] = opened.version
        raise
    if opened.row.sealing is not None or not encryption.ASKED.isdisjoint(call.request.headers):
        await sse.unlock_for(gateway, call.request, opened)
    return opened


async def _read_headers(
    gateway: Gateway, call: Call, opened: Opened, span: dict[str, str], status: int
) -> dict[str, str]:
    headers = object_headers(opened)
    if call.request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers.update(_checksum_headers(call.request, opened, status))
    headers.update(span)
    if not opened.asked_version:
        headers.update(ending(gateway, opened.bucket, opened.key, opened.row))
    if opened.row.tags:
        headers.update(await labels.shown(call, opened))
    if opened.row.lock_mode or lock.hold_of(opened.row):
        headers.update(await locks.shown(call, opened))
    headers.update(encryption.shown(opened.row.sealing, call.request.headers))
    if call.request.query:
        for name, shown in _OVERRIDES.items():
            if name in call.request.query:
                headers[shown] = header_value(call.request.query[name], name)
    return headers


def _checksum_headers(request: S3Request, opened: Opened, status: int) -> dict[str, str]:
    """The checksum of all bytes, or of the part that is asked for; none of a range."""
    row, number = opened.row, request.query.get("partNumber")
    if not row.checksum_algorithm or (status != 200 and number is None):
        return {}
    of_part = number is not None and row.upload
    value = row.extents[int(number or 0) - 1].checksum if of_part else row.checksum
    return {checksums.HEADER[row.checksum_algorithm]: value, "x-amz-checksum-type": row.checksum_type}


async def get_object(gateway: Gateway, call: Call) -> Answer:
    reading = gateway.readers.begin()
    try:
        return await _get(gateway, call)
    except objects.SourceChangedError:
        return await objects.while_it_changes(lambda: _get(gateway, call))
    finally:
        gateway.readers.end(reading)


async def _get(gateway: Gateway, call: Call) -> Answer:
    """Raises SourceChangedError, with nothing answered, where the object was replaced and its blob went with it."""
    opened = await _open(gateway, call)
    offset, length, span, status = _span(call.request, opened)
    headers = await _read_headers(gateway, call, opened, span, status)
    try:
        small = await read_small(gateway, opened, offset, length)
        if small is not None:
            return respond(status, headers, small)
    except DamagedError:
        await objects.must_be_there(gateway, opened)
        raise
    transport = call.request.http.transport
    share = Share(
        gateway.memory,
        lambda: transport.get_write_buffer_size() if transport else 0,
        lambda: transport.abort() if transport else None,
    )
    sending = _Sending(call.request, share)
    try:
        await share.take(2 * FIRST_BYTES)  # before anything is read
        pieces = stream(gateway, opened, offset, length, sending.piece_bytes)
        try:
            first = await sending.begin(pieces, length)  # an error here is still an answer of its own
        except DamagedError:
            await objects.must_be_there(gateway, opened)
            raise
        response = Answer(status, {**headers, **common_headers(call.request.id), **call.request.extra}, b"", length)
        call.request.begun = True
        await sending.send(response, first, pieces)
    finally:
        share.drop()
    return response


class _Sending:
    """An answer on its way to its client. Until that has taken READ_BYTES, and after it stopped, little is read ahead
    of it: who takes nothing costs no more than that. While memory is plenty a short one is read whole before it
    begins, so that damage to any of it is an error, and not an answer that is cut."""

    def __init__(self, request: S3Request, share: Share) -> None:
        self._request, self._share = request, share
        self._taken = 0  # since it began, or went on
        self._whole = False

    async def begin(self, pieces: AsyncIterator[memoryview], length: int) -> memoryview:
        """What is read before the head of the answer goes out. Raises DamagedError."""
        self._whole = length <= READ_BYTES and self._share.grow(2 * length, spare=True)
        if not self._whole:
            return await anext(pieces, memoryview(b""))
        read = [piece async for piece in pieces]
        return read[0] if len(read) == 1 else memoryview(b"".join(read))

    def piece_bytes(self) -> int:
        if self._whole:
            return READ_BYTES
        grown = self._taken >= READ_BYTES and self._share.grow(2 * READ_BYTES)
        return READ_BYTES if grown else FIRST_BYTES

    async def send(self, response: Answer, first: memoryview, pieces: AsyncIterator[memoryview]) -> None:
        loop, request = asyncio.get_running_loop(), self._request
        async with tasks.within(request_patience(request)) as patience:
            await response.begin(request.exchange)
            await self._write(first)
            async for piece in pieces:
                patience.reschedule(loop.time() + request_patience(request))
                await self._write(piece)

    async def _write(self, piece: memoryview) -> None:
        share = self._share
        share.await_client()
        try:
            await self._request.exchange.write(piece)
        finally:
            stalled = share.client_came()
        self._request.sent += len(piece)
        self._taken = 0 if stalled else self._taken + len(piece)
        if stalled:
            await share.take(2 * FIRST_BYTES)


async def head_object(gateway: Gateway, call: Call) -> Answer:
    opened = await _open(gateway, call)
    _, length, span, status = _span(call.request, opened)
    headers = await _read_headers(gateway, call, opened, span, status)
    headers["Content-Length"] = str(length)
    return respond(status, headers)


async def get_attributes(gateway: Gateway, call: Call) -> Answer:
    wanted = {
        piece.strip() for piece in call.request.headers.get("x-amz-object-attributes", "").split(",") if piece.strip()
    }
    known = {"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}
    if not wanted:
        raise S3Error(
            "InvalidRequest",
            "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty",
        )
    if not wanted <= known:
        raise S3Error(
            "InvalidArgument",
            "Invalid attribute name specified.",
            ArgumentName="x-amz-object-attributes",
            ArgumentValue=min(wanted - known),
        )
    after, limit = (_part_number(call.request, name, most) for name, most in _PARTS.items())
    opened = await _open(gateway, call)
    row = opened.row
    xml = ""
    if "ETag" in wanted:
        xml += tag("ETag", row.etag)
    if "Checksum" in wanted and row.checksum_algorithm:
        value = row.checksum.partition("-")[0]
        xml += f"<Checksum>{tag('Checksum' + row.checksum_algorithm, value)}{tag('ChecksumType', row.checksum_type)}</Checksum>"
    if "ObjectParts" in wanted and row.upload:
        xml += _parts_xml(opened.row, after, min(limit, 1000))
    if "StorageClass" in wanted:
        xml += tag("StorageClass", classes.of(row.headers))
    if "ObjectSize" in wanted:
        xml += tag("ObjectSize", row.size)
    headers = {"Last-Modified": names.http_date(row.modified_ms // 1000)}
    if opened.version:
        headers["x-amz-version-id"] = opened.version
    return respond_xml(document("GetObjectAttributesResponse", xml), headers)


_PARTS = {
    "x-amz-part-number-marker": "0",
    "x-amz-max-parts": "1000",
}  # of GetObjectAttributes, and what holds without them


def _part_number(request: S3Request, name: str, default: str) -> int:
    value = request.headers.get(name, default)
    found = names.number(value, 0, 2**31 - 1)
    if found is None:
        raise S3Error("InvalidArgument", f"{name} is not a number", ArgumentName=name, ArgumentValue=value)
    return found


def _parts_xml(row: Object, marker: int, limit: int) -> str:
    xml = tag("PartsCount", len(row.extents))
    if row.checksum_type != checksums.COMPOSITE:
        return f"<ObjectParts>{xml}</ObjectParts>"
    after = [extent for extent in row.extents if extent.number > marker]
    page = after[:limit]
    xml += (
        tag("PartNumberMarker", marker)
        + tag("MaxParts", limit)
        + tag("IsTruncated", str(0 < limit < len(after)).lower())
    )
    if page:
        xml += tag("NextPartNumberMarker", page[-1].number)
    xml += "".join(_part_xml(extent, row.checksum_algorithm) for extent in page)
    return f"<ObjectParts>{xml}</ObjectParts>"


def _part_xml(extent: Extent, algorithm: str) -> str:
    checksum = tag(f"Checksum{algorithm}", extent.checksum)
    return f"<Part>{tag('PartNumber', extent.number)}{tag('Size', extent.size)}{checksum}</Part>"


async def delete_object(gateway: Gateway, call: Call) -> Answer:
    version = call.request.query.get("versionId", "")
    done = await objects.delete_object(
        gateway,
        call.request.bucket,
        call.request.key,
        version,
        call.caller,
        Conditions(if_match=conditions.etag_of(call.request.headers.get("if-match"))),
        bypass=await locks.wants_bypass(call, call.request.key, version),
        origin=call.origin,
    )
    headers: dict[str, str] = {}
    if done.version:
        headers["x-amz-version-id"] = done.version
    if done.marker:
        headers["x-amz-delete-marker"] = "true"
    return respond(204, headers)


async def delete_objects(gateway: Gateway, call: Call) -> Answer:
    if not checksums.expected_of(call.request.headers, call.request.payload).certain:
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
    root = await call.request.xml("Delete")
    wanted = [_wanted_delete(element) for element in root.all("Object")]
    if not wanted or len(wanted) > call.request.limits.delete_keys:
        raise S3Error("MalformedXML", f"A request deletes 1 to {call.request.limits.delete_keys} keys.")
    quiet = root.truth("Quiet")
    answers = await _delete_allowed(gateway, call, wanted)
    xml = ""
    for (key, version, _), answer in zip(wanted, answers, strict=True):
        name = f"<Key>{encode_key(key, url=False)}</Key>" + (tag("VersionId", version) if version is not None else "")
        if isinstance(answer, S3Error):
            xml += f"<Error>{name}{tag('Code', answer.code)}{tag('Message', answer.message)}</Error>"
        elif not quiet:
            marker = "<DeleteMarker>true</DeleteMarker>" if answer.marker else ""
            made = tag("DeleteMarkerVersionId", answer.version) if answer.marker and answer.version else ""
            xml += f"<Deleted>{name}{marker}{made}</Deleted>"
    return respond_xml(document("DeleteResult", xml))


async def _delete_allowed(gateway: Gateway, call: Call, wanted: list[WantedDelete]) -> list[Deleted | S3Error]:
    """Delete what the caller may; who may delete none of it learns nothing of the bucket either. A version id that
    none can be is no version that is there (S3 says so of each key, where DeleteObject refuses its request)."""
    authorizer = call.authorizer
    bypass = lock.wants_bypass(call.request.headers)
    always = ("s3:DeleteObject", "s3:BypassGovernanceRetention") if bypass else ("s3:DeleteObject",)
    may = []
    for at, (key, version, written) in enumerate(wanted):
        if at % JUDGED_AT_ONCE == JUDGED_AT_ONCE - 1:
            await asyncio.sleep(0)  # others have a turn
        needed = (*always, "s3:GetObject") if conditions.etag_of(written) not in ("", "*") else always
        more = of_etag(written)
        may.append(all([await authorizer.may(action, key, version or "", more) for action in needed]))
    answers: dict[int, Deleted | S3Error] = {
        at: S3Error("AccessDenied") for at, allowed in enumerate(may) if not allowed
    }
    for at, (_, version, _) in enumerate(wanted):
        if may[at] and version not in (None, "null") and keys.parse_version_id(version or "") is None:
            answers[at] = S3Error("NoSuchVersion")
    asked = [
        (key, version or "", conditions.etag_of(written))
        for at, (key, version, written) in enumerate(wanted)
        if at not in answers
    ]
    done = iter(
        await objects.delete_objects(
            gateway, call.request.bucket, asked, call.caller, bypass=bypass, origin=call.origin
        )
        if asked
        else ()
    )
    return [answers[at] if at in answers else next(done) for at in range(len(wanted))]


WantedDelete = tuple[bytes, str | None, str | None]  # key, version, ETag as it is written; None where it names none


def _wanted_delete(element: Element) -> WantedDelete:
    key = next((child.text for child in element.all("Key")), "")
    if not key:
        raise S3Error("MalformedXML", "An Object has no Key.")
    if element.get("LastModifiedTime") or element.get("Size"):
        raise S3Error("NotImplemented", "Deletes have conditions on the ETag only.")
    written = element.get("ETag")
    conditions.etag_of(written)
    return key.encode(), element.get("VersionId"), written

"""CopyObject and RenameObject, and the source that a part is copied from.

What a source is judged by, its conditions, its tags, who may read it, holds for the very version that is used: where
it was replaced in between, all of it is done again. Bytes are read since before the source was opened (D6).
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from s4.access.keys import of_tags
from s4.gateway import copies, objects
from s4.gateway.context import Gateway
from s4.gateway.copies import Copy
from s4.gateway.objects import Attributes
from s4.gateway.read import Opened, unlock
from s4.http.answers import Answer, respond, respond_xml
from s4.http.authorize import Call, authorizer_of, hidden
from s4.http.operations import encryption as sse
from s4.http.operations import locks
from s4.http.operations.objects import asked_acl, attributes_of, write_conditions
from s4.http.request import S3Request
from s4.http.responses import ending, header_value
from s4.metadata import classes
from s4.s3 import checksums, conditions, encryption, lock, names, tags, website
from s4.s3.errors import S3Error
from s4.s3.lock import NONE as NO_LOCK
from s4.s3.xml import document, tag


async def open_source(gateway: Gateway, call: Call) -> Opened:
    """The source that a copy names, once the caller may read it. Raises S3Error; authorization comes first. Who calls
    this reads since before (D6): the bytes stay, though the source may be replaced."""
    request, header = call.request, "x-amz-copy-source"
    text = request.headers[header]
    query = text.partition("?")[2]
    version = ""
    if query:
        name, _, version = query.partition("=")
        if name != "versionId" or not version:
            raise S3Error(
                "InvalidArgument",
                "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
                ArgumentName=header,
                ArgumentValue=text,
            )
    name_raw, _, key = names.copy_source(text).partition(b"/")
    name = name_raw.decode("utf-8", "replace")
    if not name or not key:
        raise S3Error(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            ArgumentName=header,
            ArgumentValue=text,
        )
    authorizer = await authorizer_of(gateway, request, name)
    await authorizer.must("s3:GetObject", key, version)
    if len(key) > request.limits.key_bytes:
        raise S3Error("KeyTooLongError")
    call.must_exist()
    try:
        opened = await authorizer.open(key, version)
    except S3Error as error:
        if error.code == "MethodNotAllowed":
            raise S3Error(
                "InvalidRequest",
                "The source of a copy request may not specifically refer to a delete marker by version id.",
            ) from None
        raise await hidden(authorizer, error) from error
    conditions.check_read(request.headers, opened.row.etag, opened.row.modified_ms, "x-amz-copy-source-")
    await unlock(gateway, opened, sse.customer_key(gateway, request, encryption.SOURCE))
    return opened


def _directive(request: S3Request, what: str) -> str:
    """COPY or REPLACE, for metadata or tagging."""
    name = f"x-amz-{what}-directive"
    value = request.headers.get(name, "COPY")
    if value not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", f"Unknown {what} directive.", ArgumentName=name, ArgumentValue=value)
    return value


def _copied_attributes(request: S3Request, source: Opened) -> Attributes:
    """A source's own, but for its class and where visitors are sent, which a copy has only where they are asked for."""
    kept = {name: value for name, value in source.row.headers.items() if name not in (website.LOCATION, classes.NAME)}
    kept |= classes.kept(request.headers.get(classes.NAME))
    if website.LOCATION in request.headers:
        location = website.check_location(request.headers[website.LOCATION])
        kept[website.LOCATION] = header_value(location, website.LOCATION)
    return Attributes(kept, source.row.metadata)


def check_bodiless(request: S3Request) -> None:
    """Raises S3Error UnexpectedContent where a copy brings bytes of its own: which of the two is meant nobody can
    say."""
    if request.body().length:
        raise S3Error("UnexpectedContent")


async def copy_object(gateway: Gateway, call: Call) -> Answer:
    check_bodiless(call.request)
    with gateway.readers.reading():
        return await objects.while_it_changes(lambda: _copy(gateway, call))


async def _copy(gateway: Gateway, call: Call) -> Answer:
    """One attempt: whatever the source is judged by holds for the version that is copied."""
    directive, tagging = _directive(call.request, "metadata"), _directive(call.request, "tagging")
    algorithm = checksums.asked_algorithm(call.request.headers, "x-amz-checksum-algorithm")
    source = await open_source(gateway, call)
    same = (source.name, source.key) == (call.request.bucket, call.request.key)
    changed = (
        "REPLACE" in (directive, tagging)
        or not {website.LOCATION, classes.NAME}.isdisjoint(call.request.headers)
        or sse.changes(gateway, call, source)
    )
    if same and not changed and not source.asked_version:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.",
        )
    if tagging == "COPY" and source.row.tags:
        await (await authorizer_of(gateway, call.request, source.name)).must(
            "s3:GetObjectTagging", source.key, source.asked_version, row=source.row
        )
        await call.authorizer.must("s3:PutObjectTagging", call.request.key, more=of_tags(source.row.tags))
    asked_tags = tags.from_header(call.request.headers)
    attributes = attributes_of(call.request) if directive == "REPLACE" else _copied_attributes(call.request, source)
    put = await copies.copy_object(
        gateway,
        source,
        Copy(
            call.request.bucket,
            call.request.key,
            call.caller,
            attributes,
            asked_tags if tagging == "REPLACE" else None,
            await asked_acl(gateway, call),
            NO_LOCK if lock.ASKED.isdisjoint(call.request.headers) else await locks.asked_lock(gateway, call),
            write_conditions(call.request.headers),
            encryption=sse.asked(gateway, call.request),
            checksum=algorithm,
            origin=call.origin,
        ),
    )
    headers = {"x-amz-version-id": put.version} if put.version else {}
    headers |= encryption.shown(put.sealing, call.request.headers)
    headers |= ending(gateway, call.bucket, call.request.key, put)
    if source.version:
        headers["x-amz-copy-source-version-id"] = source.version
    kept, value, kind = put.checksum
    checksum = tag(f"Checksum{kept}", value) + tag("ChecksumType", kind) if kept else ""
    result = f"{tag('LastModified', names.iso_date(put.modified_ms))}<ETag>&quot;{put.etag}&quot;</ETag>{checksum}"
    return respond_xml(document("CopyObjectResult", result), headers)


async def rename_object(gateway: Gateway, call: Call) -> Answer:
    check_bodiless(call.request)
    header = "x-amz-rename-source"
    text = call.request.headers.get(header, "")
    raw, before = unquote_to_bytes(text.encode("utf-8", "surrogateescape")), f"/{call.request.bucket}/".encode()
    key = raw.removeprefix(before if raw.startswith(before) else b"/")  # without its slash a key may begin so
    if not key or len(key) > call.request.limits.key_bytes:
        raise S3Error(
            "InvalidArgument",
            "x-amz-rename-source must be the key of the source, with or without /bucket/ before it",
            ArgumentName=header,
            ArgumentValue=text,
        )
    for action in ("s3:GetObject", "s3:DeleteObject"):
        await call.authorizer.must(action, key)

    async def judge(source: Opened) -> None:
        await call.authorizer.confirm(key, "", source.row)
        if source.row.tags:  # they move along, and so does the ACL
            await call.authorizer.must("s3:PutObjectTagging", call.request.key, more=of_tags(source.row.tags))
        if source.row.acl:
            await call.authorizer.must("s3:PutObjectAcl", call.request.key)
        conditions.check_read(call.request.headers, source.row.etag, source.row.modified_ms, "x-amz-rename-source-")

    await copies.rename_object(
        gateway,
        call.request.bucket,
        key,
        call.request.key,
        call.caller,
        write_conditions(call.request.headers),
        judge,
        origin=call.origin,
    )
    return respond(200)

"""ListObjects, ListObjectsV2, ListObjectVersions, ListMultipartUploads. XML is joined from pieces, not built."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from s4.gateway.context import Gateway
from s4.http.answers import Answer, respond_xml
from s4.http.authorize import Call
from s4.http.owners import owners_xml
from s4.http.request import S3Request
from s4.metadata import classes, keys
from s4.metadata.listing import Page, Query, Version
from s4.s3 import names
from s4.s3.errors import S3Error
from s4.s3.xml import document, encode_key, tag

_PLAIN = re.compile(rb"[ !-%'-;=?-~]*").fullmatch  # printable ASCII without & < >


@dataclass(frozen=True, slots=True)
class Parameters:
    """What all listings share."""

    prefix: bytes
    delimiter: bytes
    limit: int
    url: bool


def _parameters(request: S3Request, count: str) -> Parameters:
    query = request.query
    encoding = query.get("encoding-type")
    if encoding not in (None, "", "url"):
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            ArgumentName="encoding-type",
            ArgumentValue=encoding or "",
        )
    text = query.get(count) or str(request.limits.list_keys)
    if names.number(text.removeprefix("-"), 0, 10**12) is None:
        raise S3Error(
            "InvalidArgument",
            f"Provided {count} not an integer or within integer range",
            ArgumentName=count,
            ArgumentValue=text,
        )
    if names.number(text, 0, 2**31 - 1) is None:
        raise S3Error(
            "InvalidArgument",
            f"Argument {count} must be an integer between 0 and 2147483647",
            ArgumentName=count,
            ArgumentValue=text,
        )
    limit = min(int(text), request.limits.list_keys)
    return Parameters(query.get("prefix", "").encode(), query.get("delimiter", "").encode(), limit, encoding == "url")


def _head(request: S3Request, shared: Parameters, count: str) -> str:
    delimiter = f"<Delimiter>{encode_key(shared.delimiter, shared.url)}</Delimiter>" if shared.delimiter else ""
    encoding = "<EncodingType>url</EncodingType>" if shared.url else ""
    prefix = encode_key(shared.prefix, shared.url)
    return f"{tag('Name', request.bucket)}<Prefix>{prefix}</Prefix>{delimiter}{encoding}{tag(count, shared.limit)}"


def key_text(items: Iterable[Version | bytes], url: bool) -> Callable[[bytes], str]:
    """What shows the keys of a page: nothing is to be escaped in most."""
    keys_of = b"".join([item.key for item in items if not isinstance(item, bytes)])
    return bytes.decode if not url and _PLAIN(keys_of) else partial(encode_key, url=url)


@lru_cache(64)
def _checksum_xml(algorithm: str, kind: str) -> str:
    return tag("ChecksumAlgorithm", algorithm) + tag("ChecksumType", kind) if algorithm else ""


def _contents(page: Page, url: bool, owners: Mapping[str, str]) -> tuple[str, int]:
    """The Contents and CommonPrefixes elements, and how many; with those owners that are given."""
    contents: list[str] = []
    prefixes: list[str] = []
    iso, text = names.iso_second, key_text(page.items, url)
    for item in page.items:
        if isinstance(item, bytes):
            prefixes.append(f"<CommonPrefixes><Prefix>{encode_key(item, url)}</Prefix></CommonPrefixes>")
            continue
        row = item.row
        contents.append(
            f"<Contents><Key>{text(item.key)}</Key><LastModified>{iso(row.modified_ms // 1000)}</LastModified>"
            f"<ETag>&quot;{row.etag}&quot;</ETag>{_checksum_xml(row.checksum_algorithm, row.checksum_type)}<Size>{row.size}</Size>"
            f"{f'<Owner>{owners[row.owner]}</Owner>' if owners else ''}<StorageClass>{item.storage_class}</StorageClass></Contents>"
        )
    return "".join(contents) + "".join(prefixes), len(page.items)


async def _owners(gateway: Gateway, page: Page) -> dict[str, str]:
    return await owners_xml(gateway, (item.row.owner for item in page.items if not isinstance(item, bytes)))


async def list_objects(gateway: Gateway, call: Call) -> Answer:
    shared = _parameters(call.request, "max-keys")
    marker = call.request.query.get("marker", "").encode()
    bucket = call.must_exist()
    page = await gateway.node.list_objects(bucket.id, Query(shared.prefix, shared.delimiter, marker, b"", shared.limit))
    listed, _ = _contents(page, shared.url, await _owners(gateway, page))
    # S3 gives NextMarker only with a delimiter; without one the last key is it.
    following = (
        f"<NextMarker>{encode_key(page.next_key, shared.url)}</NextMarker>"
        if page.truncated and shared.delimiter
        else ""
    )
    return respond_xml(
        document(
            "ListBucketResult",
            (
                f"{_head(call.request, shared, 'MaxKeys')}<Marker>{encode_key(marker, shared.url)}</Marker>{following}"
                f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>{listed}"
            ),
        )
    )


async def list_objects_v2(gateway: Gateway, call: Call) -> Answer:
    query = call.request.query
    shared = _parameters(call.request, "max-keys")
    start = query.get("start-after", "").encode()
    token = query.get("continuation-token")
    after = _parse_token(token) if token is not None else start
    with_owners = query.get("fetch-owner", "false").lower()
    if with_owners not in ("true", "false", ""):
        raise S3Error(
            "InvalidArgument",
            "fetch-owner must be true or false",
            ArgumentName="fetch-owner",
            ArgumentValue=with_owners,
        )
    bucket = call.must_exist()
    page = await gateway.node.list_objects(bucket.id, Query(shared.prefix, shared.delimiter, after, b"", shared.limit))
    owners = await _owners(gateway, page) if with_owners == "true" else {}
    listed, count = _contents(page, shared.url, owners)
    more = tag("ContinuationToken", token) if token is not None else ""
    if page.truncated:
        more += tag("NextContinuationToken", base64.urlsafe_b64encode(b"1" + page.next_key).decode())
    if start:
        more += f"<StartAfter>{encode_key(start, shared.url)}</StartAfter>"
    return respond_xml(
        document(
            "ListBucketResult",
            (
                f"{_head(call.request, shared, 'MaxKeys')}<KeyCount>{count}</KeyCount>"
                f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>{more}{listed}"
            ),
        )
    )


def _parse_token(token: str) -> bytes:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if raw[:1] != b"1":
        raise S3Error(
            "InvalidArgument", "The continuation token provided is incorrect", ArgumentName="continuation-token"
        )
    return raw[1:]


async def list_versions(gateway: Gateway, call: Call) -> Answer:
    query = call.request.query
    shared = _parameters(call.request, "max-keys")
    key_marker, version_marker = query.get("key-marker", "").encode(), query.get("version-id-marker", "")
    if version_marker and not key_marker:
        raise S3Error(
            "InvalidArgument",
            "A version-id marker cannot be specified without a key marker.",
            ArgumentName="version-id-marker",
            ArgumentValue=version_marker,
        )
    bucket = call.must_exist()
    suffix = await _version_suffix(gateway, bucket.id, key_marker, version_marker)
    page = await gateway.node.list_objects(
        bucket.id, Query(shared.prefix, shared.delimiter, key_marker, suffix, shared.limit, versions=True)
    )
    owners = await _owners(gateway, page)
    listed = "".join(_version_xml(item, shared.url, owners) for item in page.items if isinstance(item, Version))
    listed += "".join(
        f"<CommonPrefixes><Prefix>{encode_key(item, shared.url)}</Prefix></CommonPrefixes>"
        for item in page.items
        if isinstance(item, bytes)
    )
    markers = f"<KeyMarker>{encode_key(key_marker, shared.url)}</KeyMarker>{tag('VersionIdMarker', version_marker)}"
    if page.truncated:
        markers += f"<NextKeyMarker>{encode_key(page.next_key, shared.url)}</NextKeyMarker>"
        if page.next_version:
            last = page.items[-1]
            null = isinstance(last, Version) and last.row.null
            markers += tag("NextVersionIdMarker", "null" if null else keys.version_id(page.next_version))
    return respond_xml(
        document(
            "ListVersionsResult",
            (
                f"{_head(call.request, shared, 'MaxKeys')}{markers}<IsTruncated>{str(page.truncated).lower()}</IsTruncated>{listed}"
            ),
        )
    )


async def _version_suffix(gateway: Gateway, bucket: int, key: bytes, marker: str) -> bytes:
    """The place of a version marker in its key's order. Where the null version is gone nobody knows where it stood:
    before all, so that what was listed may come again and nothing is left out. Raises S3Error."""
    if not marker:
        return b""
    if marker == "null":
        partition = keys.partition_of(bucket, key, gateway.partitions)
        found = await gateway.node.find_object(partition, bucket, key, "null")
        return found.suffix if found is not None else bytes(keys.VERSION_BYTES)
    suffix = keys.parse_version_id(marker)
    if suffix is None:
        raise S3Error(
            "InvalidArgument", "Invalid version id specified", ArgumentName="version-id-marker", ArgumentValue=marker
        )
    return suffix


def _version_xml(item: Version, url: bool, owners: Mapping[str, str]) -> str:
    row = item.row
    version = "null" if row.null else keys.version_id(item.suffix)
    shared = (
        f"<Key>{encode_key(item.key, url)}</Key><VersionId>{version}</VersionId>"
        f"<IsLatest>{str(item.latest).lower()}</IsLatest><LastModified>{names.iso_date(row.modified_ms)}</LastModified>"
    )
    owner = f"<Owner>{owners[row.owner]}</Owner>"
    if row.marker:
        return f"<DeleteMarker>{shared}{owner}</DeleteMarker>"
    return (
        f"<Version>{shared}<ETag>&quot;{row.etag}&quot;</ETag>{_checksum_xml(row.checksum_algorithm, row.checksum_type)}<Size>{row.size}</Size>"
        f"<StorageClass>{item.storage_class}</StorageClass>{owner}</Version>"
    )


async def list_uploads(gateway: Gateway, call: Call) -> Answer:
    query = call.request.query
    shared = _parameters(call.request, "max-uploads")
    key_marker, upload_marker = query.get("key-marker", "").encode(), query.get("upload-id-marker", "")
    bucket = call.must_exist()
    try:
        after = bytes.fromhex(upload_marker) if upload_marker and key_marker else None
    except ValueError:
        raise S3Error(
            "InvalidArgument", "Invalid uploadId marker", ArgumentName="upload-id-marker", ArgumentValue=upload_marker
        ) from None
    page = await gateway.node.list_uploads(bucket.id, shared.prefix, shared.delimiter, key_marker, after, shared.limit)
    owners = await owners_xml(gateway, (item.row.owner for item in page.items if not isinstance(item, bytes)))
    listed = ""
    for item in page.items:
        if isinstance(item, bytes):
            listed += f"<CommonPrefixes><Prefix>{encode_key(item, shared.url)}</Prefix></CommonPrefixes>"
            continue
        owner = owners[item.row.owner]
        checksum = (
            tag("ChecksumAlgorithm", item.row.checksum_algorithm) + tag("ChecksumType", item.row.checksum_type)
            if item.row.checksum_algorithm
            else ""
        )
        listed += (
            f"<Upload><Key>{encode_key(item.key, shared.url)}</Key><UploadId>{item.upload.hex()}</UploadId>"
            f"<Initiator>{owner}</Initiator><Owner>{owner}</Owner>{tag('StorageClass', classes.of(item.row.headers))}"
            f"<Initiated>{names.iso_date(item.row.created_ms)}</Initiated>{checksum}</Upload>"
        )
    following = ""
    if page.truncated:
        following = f"<NextKeyMarker>{encode_key(page.next_key, shared.url)}</NextKeyMarker>{tag('NextUploadIdMarker', page.next_upload.hex())}"
    delimiter = f"<Delimiter>{encode_key(shared.delimiter, shared.url)}</Delimiter>" if shared.delimiter else ""
    encoding = "<EncodingType>url</EncodingType>" if shared.url else ""
    return respond_xml(
        document(
            "ListMultipartUploadsResult",
            (
                f"{tag('Bucket', call.request.bucket)}<KeyMarker>{encode_key(key_marker, shared.url)}</KeyMarker>"
                f"{tag('UploadIdMarker', upload_marker)}{following}<Prefix>{encode_key(shared.prefix, shared.url)}</Prefix>"
                f"{delimiter}{encoding}{tag('MaxUploads', shared.limit)}"
                f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>{listed}"
            ),
        )
    )

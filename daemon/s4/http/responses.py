"""The headers of answers: those that all have, and those that objects and writes share."""

from __future__ import annotations

import base64

from s4.access import documents
from s4.gateway.context import Gateway
from s4.gateway.objects import Put
from s4.gateway.read import Opened
from s4.http.request import S3Request
from s4.metadata.rows import Bucket, Object
from s4.s3 import encryption, lifecycle, names
from s4.s3.checksums import HEADER
from s4.s3.errors import S3Error


def common_headers(request_id: str) -> dict[str, str]:
    """What every answer has."""
    return {"x-amz-request-id": request_id, "x-amz-id-2": request_id, "Server": "S4"}


def put_headers(put: Put, request: S3Request) -> dict[str, str]:
    """ETag, version, checksum and encryption of a version that was written."""
    headers = {"ETag": f'"{put.etag}"'}
    if put.sealing is not None:
        headers.update(encryption.shown(put.sealing, request.headers))
    if put.version:
        headers["x-amz-version-id"] = put.version
    algorithm, value, kind = put.checksum
    if algorithm:
        headers[HEADER[algorithm]] = value
        headers["x-amz-checksum-type"] = kind
    return headers


def object_headers(opened: Opened) -> dict[str, str]:
    """The headers of GET and HEAD but for lengths and ranges."""
    row = opened.row
    headers = {
        "ETag": f'"{row.etag}"',
        "Last-Modified": names.http_date(row.modified_ms // 1000),
        "Accept-Ranges": "bytes",
        "Content-Type": "binary/octet-stream",
    }
    headers.update(row.headers)
    for name, value in row.metadata.items():
        headers["x-amz-meta-" + name] = value if value.isascii() else encoded_word(value)
    if opened.version:
        headers["x-amz-version-id"] = opened.version
    return headers


def ending(gateway: Gateway, bucket: Bucket | None, key: bytes, row: Put | Object) -> dict[str, str]:
    """When lifecycle ends a current version, where a rule does."""
    if bucket is None or documents.LIFECYCLE not in bucket.documents:
        return {}
    rules, name = documents.lifecycle_of(bucket), key.decode("utf-8", "replace")
    end = lifecycle.expires_at(rules, name, row.modified_ms, row.size, row.tags, gateway.day_ms)
    return {"x-amz-expiration": lifecycle.header(end)} if end is not None else {}


def aborting(gateway: Gateway, bucket: Bucket | None, key: bytes, created_ms: int) -> dict[str, str]:
    """When lifecycle ends an upload that is not completed, where a rule does."""
    if bucket is None or documents.LIFECYCLE not in bucket.documents:
        return {}
    rules, name = documents.lifecycle_of(bucket), key.decode("utf-8", "replace")
    end = lifecycle.aborts_at(rules, name, created_ms, gateway.day_ms)
    if end is None:
        return {}
    return {"x-amz-abort-date": names.http_date(end[0] // 1000), "x-amz-abort-rule-id": lifecycle.quoted(end[1])}


def header_value(text: str, name: str) -> str:
    """A value fit for a response header. Raises S3Error for what could end the header or is no text."""
    if text.isascii() and text.isprintable():
        return text
    if any((ord(letter) < 32 and letter != "\t") or ord(letter) == 127 for letter in text) or not _encodable(text):
        raise S3Error(
            "InvalidArgument", f"The value of {name} has characters that a header cannot have.", ArgumentName=name
        )
    return text


def from_wire(value: str) -> str:
    """The text of a header that holds more than ASCII: UTF-8, or else Latin-1, whose bytes come as surrogates."""
    if value.isascii() or _encodable(value):
        return value
    return value.encode("utf-8", "surrogateescape").decode("latin-1")


def encoded_word(text: str) -> str:
    """Text beyond ASCII as S3 sends it in a header (RFC 2047)."""
    return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Responses: small ones from bytes, long ones as streams, and the headers that objects and writes share."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

from s4.gateway.objects import Put
from s4.gateway.read import Opened
from s4.metadata.rows import Object
from s4.s3 import names
from s4.s3.checksums import HEADER
from s4.s3.errors import S3Error

XML = "application/xml"


def respond(
    status: int = 200, headers: Mapping[str, str] | None = None, body: bytes | memoryview = b""
) -> web.Response:
    """A response without a content type of its own unless `headers` has one."""
    return web.Response(status=status, headers=CIMultiDict(headers or {}), body=bytes(body))


def respond_xml(document: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=200, headers=CIMultiDict({"Content-Type": XML, **(headers or {})}), body=document)


def common_headers(request_id: str) -> dict[str, str]:
    """What every answer has."""
    return {"x-amz-request-id": request_id, "x-amz-id-2": request_id, "Server": "S4"}


def put_headers(put: Put) -> dict[str, str]:
    """ETag, version and checksum of a version that was written."""
    headers = {"ETag": f'"{put.etag}"'}
    if put.version:
        headers["x-amz-version-id"] = put.version
    algorithm, value, kind = put.checksum
    if algorithm:
        headers[HEADER[algorithm]] = value
        headers["x-amz-checksum-type"] = kind
    return headers


def object_headers(opened: Opened, checksum: bool) -> dict[str, str]:
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
        headers["x-amz-meta-" + name] = value
    if opened.version:
        headers["x-amz-version-id"] = opened.version
    if checksum:
        headers.update(checksum_headers(row))
    return headers


def checksum_headers(row: Object) -> dict[str, str]:
    if not row.checksum_algorithm:
        return {}
    return {HEADER[row.checksum_algorithm]: row.checksum, "x-amz-checksum-type": row.checksum_type}


def header_value(text: str, name: str) -> str:
    """A value fit for a response header. Raises S3Error for what could end the header or is no text."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text) or not _encodable(text):
        raise S3Error(
            "InvalidArgument", f"The value of {name} has characters that a header cannot have.", ArgumentName=name
        )
    return text


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

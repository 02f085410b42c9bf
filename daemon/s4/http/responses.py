"""Responses: small ones from bytes, long ones as streams, and the headers that objects and writes share."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

import structlog

from s4.access import documents
from s4.gateway.context import Gateway
from s4.gateway.objects import Put
from s4.gateway.read import Opened
from s4.http.connection import Exchange
from s4.http.request import S3Request
from s4.metadata.rows import Bucket, Object
from s4.s3 import encryption, lifecycle, names
from s4.s3.checksums import HEADER
from s4.s3.errors import S3Error

log = structlog.get_logger("s4.http")

XML = "application/xml"


class Answer:
    """What a client is answered: whole, or its head first and then as many bytes as `length` says (`begin`).

    `headers` is a plain dict, each name spelled in one way. A value that could end its line is refused.
    """

    __slots__ = ("begun", "body", "goes_on", "headers", "length", "status")

    def __init__(
        self, status: int, headers: dict[str, str], body: bytes | memoryview, length: int | None = None
    ) -> None:
        self.status, self.headers, self.body = status, headers, body
        self.length = len(body) if length is None else length
        self.goes_on = True  # the connection, after it
        self.begun = False

    async def begin(self, http: Exchange) -> None:
        """Send the head; the bytes are for `http.write`. Raises ConnectionError."""
        head = self._head_of(http)
        self.begun = True
        await http.write(head)

    async def end(self, http: Exchange) -> None:
        """Send it, or what is left of it. Raises ConnectionError."""
        if not self.begun:
            head = self._head_of(http)
            self.begun = True
            await http.write(b"".join((head, self.body)) if self.body and http.method != "HEAD" else head)

    def _head_of(self, http: Exchange) -> bytes:
        if self.headers.pop("Connection", "") == "close" or not http.keep_alive:
            self.goes_on = False
        try:
            return self._head(http)
        except ValueError as error:  # an end of line, or what is no UTF-8: an answer all the same
            log.error("an answer could not be written", error=str(error), names=sorted(self.headers))
        kept = ("x-amz-request-id", "x-amz-id-2", "Server")
        self.headers = {name: self.headers[name] for name in kept if name in self.headers}
        self.status, self.goes_on = 500, False
        self.body = S3Error("InternalError").xml("", self.headers.get("x-amz-request-id", ""))
        self.headers["Content-Type"], self.length = XML, len(self.body)
        return self._head(http)

    def _head(self, http: Exchange) -> bytes:
        """Status line and headers. Raises ValueError for a header that would be more than one line."""
        status, headers, version = self.status, self.headers, http.version
        lines = [_status_line(version.major, version.minor, status)]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines.append(f"Date: {names.http_date(int(time.time()))}")
        if status not in (204, 304) and "Content-Length" not in headers:
            lines.append(f"Content-Length: {self.length}")
        if not self.goes_on:
            lines.append("Connection: close")
        elif version.minor == 0:
            lines.append("Connection: keep-alive")
        text = "\r\n".join(lines)
        if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1:
            raise ValueError("a header has an end of line in it")
        return f"{text}\r\n\r\n".encode()


@lru_cache(256)
def _status_line(major: int, minor: int, status: int) -> str:
    known = {one.value: one.phrase for one in HTTPStatus}  # a website's rule may redirect by a number that has no name
    return f"HTTP/{major}.{minor} {status} {known.get(status, 'Redirect')}"


def respond(status: int = 200, headers: dict[str, str] | None = None, body: bytes | memoryview = b"") -> Answer:
    """An answer without a content type unless `headers` has one."""
    return Answer(status, headers if headers is not None else {}, body)


def respond_xml(document: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(200, {"Content-Type": XML, **(headers or {})}, document)


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
    if row.tags:
        headers["x-amz-tagging-count"] = str(len(row.tags))
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

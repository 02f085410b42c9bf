"""What a client is answered: a status, headers and a body, and how they become lines of HTTP/1.1.

It knows nothing of requests and connections but where bytes go (`Sink`): both of them know it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol

import structlog
from aiohttp.http_writer import HttpVersion

from s4.s3 import names
from s4.s3.errors import S3Error

log = structlog.get_logger("s4.http")

XML = "application/xml"


class Sink(Protocol):
    """Where an answer goes: the exchange of a connection."""

    method: str
    keep_alive: bool
    version: HttpVersion

    async def write(self, data: bytes | memoryview, *, whole: bool = False) -> None:
        """Returns when there is room for more. What is `whole` is all of an answer: nobody else counts its bytes. Raises
        ConnectionError."""


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

    async def begin(self, http: Sink) -> None:
        """Send the head; the bytes are for `http.write`. Raises ConnectionError."""
        head = self._head_of(http)
        self.begun = True
        await http.write(head)

    async def end(self, http: Sink) -> None:
        """Send it, or what is left of it. Raises ConnectionError."""
        if not self.begun:
            head = self._head_of(http)
            self.begun = True
            has_body = self.body and http.method != "HEAD"
            await http.write(b"".join((head, self.body)) if has_body else head, whole=True)

    def _head_of(self, http: Sink) -> bytes:
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

    def _head(self, http: Sink) -> bytes:
        """Status line and headers. Raises ValueError for a header that would be more than one line."""
        status, headers, version = self.status, self.headers, http.version
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if fields.count("\r") != len(headers) or fields.count("\n") != len(headers):
            raise ValueError("a header has an end of line in it")
        more = ""
        if status not in (204, 304) and "Content-Length" not in headers:
            more = f"Content-Length: {self.length}\r\n"
        if not self.goes_on:
            more += "Connection: close\r\n"
        elif version.minor == 0:
            more += "Connection: keep-alive\r\n"
        first = _status_line(version.major, version.minor, status)
        return f"{first}\r\n{fields}Date: {names.http_date(int(time.time()))}\r\n{more}\r\n".encode()


@lru_cache(256)
def _status_line(major: int, minor: int, status: int) -> str:
    known = {
        named.value: named.phrase for named in HTTPStatus
    }  # a website's rule may redirect by a number that has no name
    return f"HTTP/{major}.{minor} {status} {known.get(status, 'Redirect')}"


def respond(status: int = 200, headers: dict[str, str] | None = None, body: bytes | memoryview = b"") -> Answer:
    """An answer without a content type unless `headers` has one."""
    return Answer(status, headers if headers is not None else {}, body)


def respond_xml(document: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(200, {"Content-Type": XML, **(headers or {})}, document)

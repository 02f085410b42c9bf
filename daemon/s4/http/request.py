"""An S3 request as values: address, query, headers, body. The bounds on each are checked here, before any work."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from s4.access.requester import NOBODY, Requester
from s4.base import tasks
from s4.base.clock import boot_clock
from s4.config.limits import Limits
from s4.gateway.places import Place
from s4.gateway.receive import Body, Decoder
from s4.http.connection import Exchange
from s4.s3 import sigv4
from s4.s3.checksums import Digests, expected_of
from s4.s3.chunked import ChunkedDecoder, PlainDecoder
from s4.s3.errors import S3Error
from s4.s3.names import number
from s4.s3.postpolicy import PostPolicy
from s4.s3.xml import Document, Element

Http = Exchange | web.BaseRequest  # of the S3 port, and of the admin port
XML_PIECE = 32 * 1024
JOINED_BYTES = 64 * 1024
ANONYMOUS_USER = "anonymous"  # owns what nobody signed for


class FormFile(Body, Protocol):
    """The file of a browser's form, whose bytes are still to be read."""

    async def look_ahead(self, size: int) -> None:
        """Read until `size` bytes are here, or the end: then the length is known."""


@dataclass(slots=True)
class UploadForm:
    """A browser's form: its fields by lower-case name, and the file."""

    fields: dict[str, str]
    policy: PostPolicy | None
    claim: sigv4.Claim | None
    body: FormFile


class S3Request(msgspec.Struct, eq=False):
    """One request. `query` has the first value of each name; `key` is the object key's bytes, empty for buckets."""

    http: Http
    id: str
    method: str
    path: str
    bucket: str
    key: bytes
    query: dict[str, str]
    pairs: list[tuple[str, str]]
    headers: dict[str, str]
    limits: Limits
    requester: Requester = NOBODY
    form: UploadForm | None = None
    extra: dict[str, str] = {}  # headers of the answer, whatever it is
    claim: sigv4.Claim | None = None
    signing_key: bytes = b""
    payload: str = ""  # x-amz-content-sha256 as it counts, signed or not: the body's hash, or how it is sent
    operation: str = ""
    refusal: S3Error | None = None  # the error of that kind
    failure: str = ""  # the code of an error that was answered in another form than S3's
    place: Place | None = None  # from when it is known who asks
    begun: bool = False  # the head of the answer has gone out
    sent: int = 0  # bytes of its body since
    rated: bool = False  # a rate may count what it asks for and sends
    started: float = 0.0  # of the boot clock
    website: bool = False  # of a visitor, who sees a bucket as a website
    continued: bool = True  # no client waits for "100 Continue" any more

    @property
    def exchange(self) -> Exchange:
        """Where its answer goes, on the S3 port."""
        if not isinstance(self.http, Exchange):
            raise TypeError("the admin port answers by itself")
        return self.http

    @property
    def scheme(self) -> str:
        return "https" if self.http.secure else "http"

    @property
    def user(self) -> str:
        return self.requester.name or ANONYMOUS_USER

    def body(self, *, encoded: bool = True) -> HttpBody:
        """The body, to be read once. Raises S3Error where its length is missing or too large."""
        return HttpBody(self, encoded)

    async def xml(self, root: str, *, checksums: bool = True) -> Element:
        """The body as XML, checked against its signed hash and Content-MD5. Raises S3Error.

        Without `checksums` the x-amz-checksum headers are about something else than the body.
        """
        body = await self.small_body(self.limits.xml_bytes, checksums)
        document = Document(root, self.limits.xml_depth)
        for at in range(0, len(body), XML_PIECE):
            if at:
                await asyncio.sleep(0)  # a body may take a tenth of a second: others come between its pieces
            document.feed(body[at : at + XML_PIECE])
        return document.end()

    async def small_body(self, limit: int, checksums: bool = True) -> bytes:
        """The whole body, at most `limit` bytes, checked against what the headers say of it."""
        body = self.body()
        if body.length > limit:
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(limit))
        about_body = self.headers
        if not checksums:
            about_body = {name: value for name, value in self.headers.items() if "checksum" not in name}
        expected = expected_of(about_body, self.payload)
        digests = Digests(expected)
        pieces: list[bytes | memoryview] = []
        while data := await body.read():
            pieces += body.decoder.feed(data)
        if not body.decoder.finished:
            raise S3Error("IncompleteBody")
        whole = b"".join(pieces)
        digests.update(whole)
        digests.verify(body.decoder.trailers)
        return whole


def split_address(path: str, host: str, domains: tuple[str, ...]) -> tuple[str, bytes]:
    """(bucket, key) of a raw path, in path style, or with the bucket in the host name below one of `domains`."""
    bucket = bucket_of(host, domains) if domains else ""
    rest = path[1:]
    if not bucket:
        bucket, _, rest = rest.partition("/")
    raw = rest.encode("utf-8", "surrogateescape")
    key = unquote_to_bytes(raw) if b"%" in raw else raw
    if "%" in bucket or not bucket.isascii():
        bucket = unquote_to_bytes(bucket.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
    return bucket, key


def bucket_of(host: str, domains: tuple[str, ...]) -> str:
    """The bucket in a host's name: what stands before one of `domains`; empty where none ends it."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    return next((name[: -len(one) - 1].lower() for one in domains if name.lower().endswith("." + one)), "")


def parse_request(
    http: Http, request_id: str, limits: Limits, domains: tuple[str, ...], websites: tuple[str, ...] = ()
) -> S3Request:
    """Raises S3Error for what no S3 request may have."""
    path, _, raw_query = http.raw_path.partition("?")
    headers = {name.lower(): value for name, value in http.headers.items()}
    if len(headers) != len(http.headers):
        headers = {name: ",".join(http.headers.getall(name)) for name in headers}
    pairs = sigv4.parse_query(raw_query) if raw_query else []
    query: dict[str, str] = {}
    for name, value in pairs:
        query.setdefault(name, value)
    if not path.startswith("/"):
        raise S3Error("InvalidURI")
    host = headers.get("host", "")
    website = bool(websites) and bucket_of(host, websites) != ""
    bucket, key = split_address(path, host, websites if website else domains)
    if len(key) > limits.key_bytes:
        raise S3Error("KeyTooLongError", Size=str(len(key)), MaxSizeAllowed=str(limits.key_bytes))
    if not key.isascii():
        try:
            key.decode()
        except UnicodeDecodeError:
            raise S3Error("InvalidURI", "The object key is not valid UTF-8.") from None
    continued = headers.get("expect", "").lower() != "100-continue"
    return S3Request(
        http,
        request_id,
        http.method,
        path,
        bucket,
        key,
        query,
        pairs,
        headers,
        limits,
        started=boot_clock(),
        continued=continued,
        website=website,
    )


def check_unsigned(request: S3Request) -> None:
    """What S3 lets nobody do unsigned, whatever a bucket's policy says. Raises S3Error."""
    if request.operation in ("GetObject", "HeadObject"):
        if any(name.startswith("response-") for name in request.query):
            raise S3Error(
                "InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests."
            )
    elif request.operation == "CreateMultipartUpload":
        raise S3Error("AccessDenied", "Anonymous users cannot initiate multipart uploads. Please authenticate.")
    elif request.operation in ("CopyObject", "UploadPartCopy"):
        raise S3Error("AccessDenied", "Anonymous users cannot copy objects. Please authenticate.")


def proceed(request: S3Request) -> None:
    """Tell a client that waits for it to send the body."""
    if not request.continued:
        request.continued = True
        transport = request.http.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def request_patience(request: S3Request) -> float:
    """Seconds to wait for the client's next bytes: at most `stall_s`, and not past the request's end."""
    left = request.started + request.limits.request_s - boot_clock()
    return max(0.0, min(request.limits.stall_s, left))


class Pace:
    """How fast a client sends while it is waited for. One that trickles is ended, however fast it was before: each
    `stall_s` counts by itself. How fast it takes what it is sent: taking.py."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._bytes, self._waited_s = limits, 0, 0.0

    def note(self, size: int, waited_s: float) -> None:
        """Raises S3Error RequestTimeout."""
        self._bytes += size
        self._waited_s += waited_s
        if self._waited_s > self._limits.stall_s and self._bytes < self._waited_s * self._limits.least_rate_bytes:
            raise S3Error("RequestTimeout", headers={"Connection": "close"})
        if self._waited_s > self._limits.stall_s:
            self._bytes, self._waited_s = 0, 0.0


def _number(text: str, name: str) -> int:
    value = number(text, 0, 10**18)
    if value is None:
        raise S3Error("InvalidArgument", f"{name} is not a number", ArgumentName=name, ArgumentValue=text)
    return value


class HttpBody:
    """A request's body on its way in: Content-Length or aws-chunked, with a limit on how long it may stall."""

    def __init__(self, request: S3Request, encoded: bool) -> None:
        headers, claim = request.headers, request.claim
        self._content = request.http.content
        self._request, self._pace = request, Pace(request.limits)
        streaming = request.payload in sigv4.STREAMING_MODES
        length = headers.get("content-length")
        self._left: int | None = _number(length, "Content-Length") if length is not None else None
        self.decoder: Decoder
        if streaming and encoded:
            declared = headers.get("x-amz-decoded-content-length")
            if declared is None:
                raise S3Error("MissingContentLength", "You must provide x-amz-decoded-content-length.")
            self.length = _number(declared, "x-amz-decoded-content-length")
            self.decoder = self._chunked(request, claim)
        else:
            if self._left is None:
                if headers.get("transfer-encoding"):
                    raise S3Error("MissingContentLength")
                self._left = 0
            self.length = self._left
            self.decoder = PlainDecoder(self.length)

    def _chunked(self, request: S3Request, claim: sigv4.Claim | None) -> ChunkedDecoder:
        mode = request.payload
        names = tuple(
            name.strip().lower() for name in request.headers.get("x-amz-trailer", "").split(",") if name.strip()
        )
        signed = mode != sigv4.STREAMING_UNSIGNED_TRAILER
        signer = sigv4.ChunkSigner(request.signing_key, claim) if signed and claim is not None else None
        if mode == sigv4.STREAMING and names:
            raise S3Error("MalformedTrailerError", "x-amz-trailer needs a payload mode with trailers.")
        return ChunkedDecoder(self.length, signer, names, mode == sigv4.STREAMING_TRAILER)

    async def read(self) -> bytes:
        """The next bytes as they came, empty at the end."""
        proceed(self._request)  # for an empty body too: botocore takes an answer without it for one to an old request
        if self._left == 0:
            return b""
        try:
            data, waited_s = (await self._next(), 0.0) if self.at_hand else await self._come()
        except TimeoutError:
            raise S3Error("RequestTimeout", headers={"Connection": "close"}) from None
        except (ClientPayloadError, HttpProcessingError, ConnectionError) as error:
            raise S3Error("IncompleteBody", headers={"Connection": "close"}) from error
        if self._left is not None:
            if not data:
                raise S3Error("IncompleteBody", headers={"Connection": "close"})
            self._left -= len(data)
        if data and waited_s:
            self._pace.note(len(data), waited_s)
        return data

    async def _come(self) -> tuple[bytes, float]:
        """What the client sends next, and the seconds that it was waited for."""
        began = boot_clock()
        async with tasks.within(request_patience(self._request)):
            data = await self._next()
        return data, boot_clock() - began

    async def _next(self) -> bytes:
        """Of a large body as much as came at once: to join what came since would be to copy it."""
        if self.length <= JOINED_BYTES:
            joined: bytes = await self._content.readany()
            return joined
        while True:
            data, ended = await self._content.readchunk()
            if data or not ended or self._content.is_eof():
                return bytes(data)

    @property
    def at_hand(self) -> bool:
        """Whether nothing has to be waited for: all of it has come, or there is none."""
        return self._left == 0 or self._content.is_eof()

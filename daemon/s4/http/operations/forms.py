"""Uploads by a browser's form: PostObject. Who asks and what it may say stands in the form's own fields.

The fields come first and are small; the file is last and streams. How long it is shows at its end only, so that a
store takes `FormBody.length` for the most it can be, and for what it is where the file is small. Fields after the
file are not read, as in S3. Multipart parsing is aiohttp's.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, quote_from_bytes, urlencode, urlsplit, urlunsplit

from aiohttp import (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    BodyPartReader,
    ClientPayloadError,
    MultipartReader,
)
from aiohttp.http_exceptions import HttpProcessingError
from msgspec.structs import replace
from multidict import CIMultiDict

from s4.base import tasks
from s4.base.clock import boot_clock
from s4.gateway import objects
from s4.gateway.context import Gateway
from s4.gateway.places import PLACE
from s4.gateway.receive import Decoder
from s4.http.answers import XML, Answer, respond
from s4.http.authorize import Call
from s4.http.operations.objects import with_acl, write_conditions
from s4.http.request import Pace, S3Request, UploadForm, proceed, request_patience
from s4.http.responses import from_wire, put_headers
from s4.metadata import events
from s4.s3 import amz, checksums, postpolicy, sigv2, sigv4, tags, xml
from s4.s3.errors import S3Error
from s4.s3.hashing import BodyHash
from s4.s3.names import number
from s4.s3.postpolicy import PostPolicy
from s4.s3.xml import HEAD, tag

FIELDS_BYTES = 20 * 1024  # before the file, as in S3
FIELDS = 1000
READ_BYTES = 256 * 1024
_AS_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
    "if-none-match",
)
# Headers of the HTTP request that count: none of them is kept with the object, which is what the form's fields say.
_OF_REQUEST = frozenset(
    (
        "host",
        "user-agent",
        "referer",
        "origin",
        "content-length",
        "expect",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
    )
)
_SIGNATURE = ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token")

T = TypeVar("T")

for _warning in (
    BadContentDispositionHeader,
    BadContentDispositionParam,
):  # the answer says it; a log is not the client's
    warnings.simplefilter("ignore", _warning)


class _Whatever:
    """Bytes as they come, until the end is found."""

    def __init__(self) -> None:
        self.finished = False
        self.trailers: dict[str, str] = {}

    def feed(self, data: bytes) -> list[memoryview]:
        return [memoryview(data)]

    def hash_into(self, _: BodyHash, /) -> bool:
        return False


class FormBody:
    """The file of a form. Raises S3Error EntityTooSmall and EntityTooLarge where the form's policy says so."""

    def __init__(self, request: S3Request, part: BodyPartReader, most: int) -> None:
        self._request, self._part, self._ready = request, part, bytearray()
        self.length, self._size, self._least, self._most = most, 0, 0, request.limits.put_bytes
        self._end, self._pace = _Whatever(), Pace(request.limits)
        self.decoder: Decoder = self._end

    @property
    def at_hand(self) -> bool:
        """Whether nothing has to be waited for."""
        return bool(self._ready) or self.decoder.finished or self._request.http.content.is_eof()

    def bound(self, policy: PostPolicy) -> None:
        self._least = policy.least
        if policy.most is not None:
            self._most = min(self._most, policy.most)

    async def look_ahead(self, size: int) -> None:
        """Read until `size` bytes are here, or the end: then the length is known. Who waits for that has no place."""
        while len(self._ready) < size and not self.decoder.finished:
            if not self._request.http.content.is_eof():
                PLACE.get().leave()
            self._ready += await self._next()
        if self.decoder.finished:
            self.length = len(self._ready)

    async def read(self) -> bytes:
        if self._ready:
            ready, self._ready = bytes(self._ready), bytearray()
            return ready
        return b"" if self.decoder.finished else await self._next()

    async def _next(self) -> bytes:
        began = boot_clock()
        data = bytes(await patiently(self._request, self._part.read_chunk(READ_BYTES)))
        self._pace.note(len(data), boot_clock() - began)
        self._size += len(data)
        if self._size > self._most:
            raise S3Error("EntityTooLarge", ProposedSize=str(self._size), MaxSizeAllowed=str(self._most))
        if not data:
            if not self._part.at_eof():  # the body ended, and no boundary ended the file
                raise S3Error("MalformedPOSTRequest")
            self._end.finished = True
            if self._size < self._least:
                raise S3Error("EntityTooSmall", ProposedSize=str(self._size), MinSizeAllowed=str(self._least))
        return data


async def patiently(request: S3Request, reading: Awaitable[T]) -> T:
    """One step of reading a form. Raises S3Error where it is none, or stalls."""
    try:
        async with tasks.within(request_patience(request)):
            return await reading
    except TimeoutError:
        raise S3Error("RequestTimeout", headers={"Connection": "close"}) from None
    except (ClientPayloadError, ConnectionError) as error:
        raise S3Error("IncompleteBody", headers={"Connection": "close"}) from error
    except (HttpProcessingError, ValueError, RuntimeError, AssertionError) as error:
        raise S3Error("MalformedPOSTRequest", headers={"Connection": "close"}) from error


def is_form(request: S3Request) -> bool:
    """Whether a request is a browser's upload: a POST to a bucket, and nothing else says what it wants."""
    if request.method != "POST" or not request.bucket or request.key or request.query:
        return False
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def read_form(request: S3Request, signature_v2: str, region: str) -> UploadForm:
    """Read up to the file, and put what the fields say into the request, as if a PUT had said it. Raises S3Error."""
    whole = number(request.headers.get("content-length", ""), 0, 10**18)
    if whole is None:
        raise S3Error("MissingContentLength")
    proceed(request)
    fields, part = await _fields(request)
    body = FormBody(request, part, whole)
    name = from_wire(part.filename or "").replace("\\", "/").rpartition("/")[2]
    if not fields.get("key"):
        raise _lacks("key")
    fields["key"] = fields["key"].replace("${filename}", name)
    request.key = fields["key"].encode()
    if not 1 <= len(request.key) <= request.limits.key_bytes:
        raise S3Error("KeyTooLongError", Size=str(len(request.key)), MaxSizeAllowed=str(request.limits.key_bytes))
    sent, request.headers = request.headers, _with_fields(request, fields)
    form = UploadForm(fields, None, None, body)
    if "policy" in fields:
        form.claim = _claim(fields, signature_v2, region)
        form.policy = postpolicy.parse(fields["policy"])
        body.bound(form.policy)
    elif any(one in fields for one in (*_SIGNATURE, "awsaccesskeyid", "signature")):
        raise _lacks("policy")
    _check_sent(sent)
    return form


async def _fields(request: S3Request) -> tuple[dict[str, str], BodyPartReader]:
    fields: dict[str, str] = {}
    size = 0
    try:
        reader = MultipartReader(
            CIMultiDict({"Content-Type": request.headers["content-type"]}),
            request.http.content,
            client_max_size=FIELDS_BYTES,
        )
    except (ValueError, AssertionError) as error:
        raise S3Error("MalformedPOSTRequest") from error
    while True:
        part = await patiently(request, reader.next())
        if part is None:
            raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.", ArgumentName="file")
        if not isinstance(part, BodyPartReader) or not part.name:
            raise S3Error("MalformedPOSTRequest")
        name = part.name.lower()
        if name == "file":
            return fields, part
        value = bytearray()
        while data := await patiently(request, part.read_chunk(FIELDS_BYTES)):
            value += data
            size += len(data)
            if size > FIELDS_BYTES:
                raise S3Error("MaxPostPreDataLengthExceeded", headers={"Connection": "close"})
        if name in fields or len(fields) == FIELDS:
            raise S3Error("InvalidArgument", f"The form has the field {name} more than once.", ArgumentName=name)
        try:
            fields[name] = value.decode()
        except UnicodeDecodeError:
            raise S3Error("InvalidArgument", "A field is not valid UTF-8.", ArgumentName=name) from None


def _lacks(name: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields.",
        ArgumentName=name,
        ArgumentValue="",
    )


def _check_sent(headers: dict[str, str]) -> None:
    """Refuse what the HTTP request of a form says beside the form, and what would be lost. Raises S3Error."""
    if "authorization" in headers:
        raise S3Error(
            "InvalidArgument",
            "A form says in its own fields who asks: send no Authorization header with it.",
            ArgumentName="Authorization",
        )
    for name in ("content-md5", "x-amz-trailer", "x-amz-decoded-content-length", "x-amz-expected-bucket-owner"):
        if name in headers:
            raise S3Error("InvalidArgument", f"{name} must be a field of the form.", ArgumentName=name)
    if headers.get("x-amz-content-sha256", sigv4.UNSIGNED) != sigv4.UNSIGNED:
        raise S3Error(
            "InvalidArgument", "A form's body has no x-amz-content-sha256.", ArgumentName="x-amz-content-sha256"
        )
    amz.check("", headers)


def _with_fields(request: S3Request, fields: dict[str, str]) -> dict[str, str]:
    """The headers that a PUT would have had. Raises S3Error."""
    found = {name: value for name, value in request.headers.items() if name in _OF_REQUEST}
    for name, value in fields.items():
        if name in amz.TRANSFER and name not in _SIGNATURE:
            raise S3Error("InvalidArgument", f"{name} cannot be a field of a form.", ArgumentName=name)
        if name in _AS_HEADERS or (name.startswith("x-amz-") and name not in _SIGNATURE):
            found[name] = amz.once(found, name, amz.clean(name, value))
    if "acl" in fields:
        found["x-amz-acl"] = amz.once(found, "x-amz-acl", fields["acl"])
    if "tagging" in fields:
        root = xml.parse(fields["tagging"].encode(), "Tagging", request.limits.xml_depth)
        found["x-amz-tagging"] = amz.once(found, "x-amz-tagging", urlencode(tags.from_xml(root, tags.OF_OBJECT)))
    return found


def _claim(fields: dict[str, str], signature_v2: str, region: str) -> sigv4.Claim:
    if "awsaccesskeyid" in fields:
        if "x-amz-algorithm" in fields:
            raise S3Error(
                "InvalidArgument",
                "Only one auth mechanism allowed; the form has fields of two versions.",
                ArgumentName="AWSAccessKeyId",
            )
        return sigv2.parse_form(fields, signature_v2, region)
    for name in _SIGNATURE[:4]:
        if not fields.get(name):
            raise _lacks(name)
    return sigv4.parse_form(fields)


async def post_object(gateway: Gateway, call: Call) -> Answer:
    form = call.request.form
    if form is None:
        raise S3Error("MalformedPOSTRequest")
    checksums.check_whole(call.request.headers)
    await form.body.look_ahead(max(gateway.inline_bytes, gateway.small_bytes + 1))
    put = await objects.put_object(
        gateway,
        call.request.bucket,
        call.request.key,
        form.body,
        checksums.expected_of(call.request.headers, ""),
        replace(await with_acl(gateway, call), event=events.POST),
        call.caller,
        write_conditions(call.request.headers),
    )
    key = quote_from_bytes(call.request.key, safe="/-_.~")
    location = f"{call.request.scheme}://{call.request.headers.get('host', '')}{call.request.path.rstrip('/')}/{key}"
    headers = {**put_headers(put, call.request), "Location": location}
    split = _redirect(form.fields.get("success_action_redirect") or form.fields.get("redirect") or "")
    if split is not None:
        about = {"bucket": call.request.bucket, "key": call.request.key, "etag": f'"{put.etag}"'}
        query = urlencode([*parse_qsl(split.query, keep_blank_values=True), *about.items()])
        return respond(303, {**headers, "Location": urlunsplit(split._replace(query=query))})
    status = form.fields.get("success_action_status")
    if status != "201":
        return respond(200 if status == "200" else 204, headers)
    said = tag("Location", location) + tag("Bucket", call.request.bucket) + tag("Key", form.fields["key"])
    said += tag("ETag", f'"{put.etag}"')
    text = f"{HEAD}<PostResponse>{said}</PostResponse>"  # S3 gives it no namespace
    return respond(201, {**headers, "Content-Type": XML}, text.encode())


def _redirect(target: str) -> SplitResult | None:
    """Where a form's user is sent; None for what is no address of the web, as if the form had none."""
    try:
        split = urlsplit(target)
    except ValueError:
        return None
    return split if split.scheme in ("http", "https") and split.netloc and target.isprintable() else None

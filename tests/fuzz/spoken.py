"""Requests as a fuzzer says them: by headers, by a presigned address and by a form; and what must become of their
x-amz- names.

The signing is written from AWS's documents, apart from the program's own. Source: "Authenticating Requests: Using Query
Parameters (AWS Signature Version 4)", "Creating an HTML Form".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

from fuzz.endpoint import REGION, Endpoint
from s4.s3 import amz

STAMP = "20260101T000000Z"
SCOPE = f"{STAMP[:8]}/{REGION}/s3/aws4_request"
SIGNATURE = (
    "algorithm",
    "credential",
    "date",
    "expires",
    "signedheaders",
    "signature",
    "security-token",
    "content-sha256",
)
BOUNDARY = "----b"
# What a request says by itself: a second one would be about HTTP, which other targets and tests are for.
OURS = ("host", "connection", "content-length", "transfer-encoding", "expect")


def check(answer: bytes, names: Iterable[str]) -> None:
    """An answer to what said these names: never a failure of the server's own, and none of success where it knows one
    of them not."""
    status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0
    assert 200 <= status < 500 or status in (501, 503), answer[:600]
    strange = unknown(names)
    assert not strange or status >= 400, f"{sorted(strange)} were passed over: {answer[:200]!r}"


def unknown(names: Iterable[str]) -> set[str]:
    """Those that say something to S3 which nobody here knows."""
    said = {name for name in map(str.lower, names) if name.startswith("x-amz-") and not name.startswith(amz.META)}
    return said - amz.KNOWN - {f"x-amz-{name}" for name in SIGNATURE}


def names_in(target: str) -> list[str]:
    """The names of a query, decoded."""
    query = target.encode("utf-8", "surrogateescape").partition(b"?")[2]
    return [unquote_to_bytes(one.partition(b"=")[0]).decode("utf-8", "replace") for one in query.split(b"&")]


def _key(secret: str) -> bytes:
    made = ("AWS4" + secret).encode()
    for piece in SCOPE.split("/"):
        made = hmac.new(made, piece.encode(), hashlib.sha256).digest()
    return made


def _sign(secret: str, text: str) -> str:
    return hmac.new(_key(secret), text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _quoted(text: bytes, safe: str = "") -> str:
    return quote(text, safe="-_.~" + safe)


def head(method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
    """A request on a connection of its own."""
    sent = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    text = "\r\n".join([*sent, f"content-length: {len(body)}", "connection: close", "", ""])
    return text.encode("utf-8", "surrogateescape") + body


def presigned(
    server: Endpoint, method: str, target: str, headers: dict[str, str], body: bytes
) -> tuple[bytes, list[str]]:
    """(the request, the names that it says): what stands in the query and all headers are signed."""
    path, _, query = target.encode("utf-8", "surrogateescape").partition(b"?")
    headers = {"host": "localhost", **headers}
    listed = ";".join(sorted(headers))
    ours = {
        b"X-Amz-Algorithm": b"AWS4-HMAC-SHA256",
        b"X-Amz-Credential": f"{server.access}/{SCOPE}".encode(),
        b"X-Amz-Date": STAMP.encode(),
        b"X-Amz-Expires": b"600",
        b"X-Amz-SignedHeaders": listed.encode("utf-8", "surrogateescape"),
    }
    pairs, once = [*ours.items()], {name.lower() for name in (*ours, b"X-Amz-Signature")}
    for one in query.split(b"&") if query else ():
        name, _, value = one.partition(b"=")
        if unquote_to_bytes(name).lower() not in once:
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    said = "&".join(
        f"{_quoted(name)}={_quoted(value)}"
        for name, value in sorted(pairs, key=lambda pair: (_quoted(pair[0]), _quoted(pair[1])))
    )
    canonical = [
        method,
        _quoted(unquote_to_bytes(path), "/"),
        said,
        *(f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)),
        "",
        listed,
        "UNSIGNED-PAYLOAD",
    ]
    digest = hashlib.sha256("\n".join(canonical).encode("utf-8", "surrogateescape")).hexdigest()
    signature = _sign(server.secret, "\n".join(("AWS4-HMAC-SHA256", STAMP, SCOPE, digest)))
    where = f"{_quoted(unquote_to_bytes(path), '/')}?{said}&X-Amz-Signature={signature}"
    return head(method, where, headers, body), [*headers, *(name.decode("utf-8", "replace") for name, _ in pairs)]


def form(server: Endpoint, fields: list[tuple[str, str]], file: bytes) -> bytes:
    """A form for the bucket `bbb` whose policy covers every field, as often as it stands there."""
    credential = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{server.access}/{SCOPE}",
        "x-amz-date": STAMP,
    }
    conditions = [{"bucket": "bbb"}, *({name: value} for name, value in (*fields, *credential.items()))]
    policy = base64.b64encode(
        json.dumps({"expiration": "2026-01-02T00:00:00.000Z", "conditions": conditions}).encode()
    ).decode()
    signed = [*fields, *credential.items(), ("policy", policy), ("x-amz-signature", _sign(server.secret, policy))]
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode(
            "utf-8", "surrogateescape"
        )
        for name, value in signed
    ]
    last = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'.encode()
    return upload(b"".join((*parts, last, file, f"\r\n--{BOUNDARY}--\r\n".encode())))


def upload(body: bytes) -> bytes:
    return head(
        "POST", "/bbb", {"host": "localhost", "content-type": f"multipart/form-data; boundary={BOUNDARY}"}, body
    )

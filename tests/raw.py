"""Requests without an SDK: any method, path, query, headers and body, signed by botocore or wrongly on purpose."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import re
import socket
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from botocore.auth import HmacV1Auth, HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from process import ACCESS, REGION, SECRET


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The S3 error code, empty where there is none."""
        match = re.search(rb"<Code>([^<]*)</Code>", self.body)
        return match[1].decode() if match else ""


def signed(
    endpoint: str,
    method: str,
    path: str,
    *,
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    access: str = ACCESS,
    secret: str = SECRET,
    region: str = REGION,
    presign_s: int = 0,
    payload: str | None = None,
    chunked: str = "",
    trailer: tuple[str, str] | None = None,
    version: int = 4,
) -> tuple[str, dict[str, str], bytes]:
    """(target, headers, body) of a signed request. `chunked` is signed, trailer or unsigned-trailer; the trailer is a
    CRC32 unless another is given."""
    url = f"{endpoint}{quote(path, safe='/~-_.%')}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, headers=dict(headers or {}), data=b"" if presign_s else body)
    credentials = Credentials(access, secret)
    if version == 2:
        (HmacV1QueryAuth(credentials, presign_s) if presign_s else HmacV1Auth(credentials)).add_auth(request)
        prepared = urlsplit(request.url)
        sent = {name: value for name, value in request.headers.items() if not presign_s or name != "Date"}
        return f"{prepared.path}?{prepared.query}" if prepared.query else prepared.path, sent, body
    if presign_s:
        S3SigV4QueryAuth(credentials, "s3", region, expires=presign_s).add_auth(request)
        prepared = urlsplit(request.url)
        return f"{prepared.path}?{prepared.query}", dict(request.headers.items()), body
    modes = {
        "signed": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "trailer": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "unsigned-trailer": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    }
    mode = modes.get(chunked)
    request.headers["X-Amz-Content-SHA256"] = payload or mode or hashlib.sha256(body).hexdigest()
    if mode:
        request.headers["X-Amz-Decoded-Content-Length"] = str(len(body))
        request.headers["Content-Encoding"] = "aws-chunked"
        if "trailer" in chunked:
            request.headers["X-Amz-Trailer"] = trailer[0] if trailer else "x-amz-checksum-crc32"
    auth = S3SigV4Auth(credentials, "s3", region)
    request.context["payload_signing_enabled"] = True
    wanted = request.headers["X-Amz-Content-SHA256"]
    auth.payload = lambda _: wanted  # type: ignore[method-assign]
    auth.add_auth(request)
    sent = dict(request.headers.items())
    sent["X-Amz-Content-SHA256"] = wanted
    if mode:
        body = encode_chunks(sent, secret, region, body, chunked, trailer=trailer)
    target = urlsplit(url)
    return target.path + (f"?{target.query}" if target.query else ""), sent, body


def encode_chunks(
    headers: dict[str, str],
    secret: str,
    region: str,
    body: bytes,
    mode: str,
    size: int = 64 * 1024,
    trailer: tuple[str, str] | None = None,
) -> bytes:
    """aws-chunked, written from its specification and apart from the server's own code."""
    date = headers["X-Amz-Date"]
    scope = f"{date[:8]}/{region}/s3/aws4_request"
    key = ("AWS4" + secret).encode()
    for piece in (date[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, piece.encode(), hashlib.sha256).digest()
    previous = headers["Authorization"].rpartition("Signature=")[2]
    empty = hashlib.sha256(b"").hexdigest()
    out = b""
    pieces = [body[at : at + size] for at in range(0, len(body), size)] + [b""]
    for piece in pieces:
        if mode == "unsigned-trailer":
            out += f"{len(piece):x}\r\n".encode()
        else:
            text = (
                f"AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{previous}\n{empty}\n{hashlib.sha256(piece).hexdigest()}"
            )
            previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
            out += f"{len(piece):x};chunk-signature={previous}\r\n".encode()
        out += piece + b"\r\n" if piece else b""
    if "trailer" in mode:
        line = ":".join(
            trailer or ("x-amz-checksum-crc32", base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode())
        )
        out += line.encode() + b"\r\n"
        if mode == "trailer":
            digest = hashlib.sha256(line.encode() + b"\n").hexdigest()
            text = f"AWS4-HMAC-SHA256-TRAILER\n{date}\n{scope}\n{previous}\n{digest}"
            out += (
                b"x-amz-trailer-signature:"
                + hmac.new(key, text.encode(), hashlib.sha256).hexdigest().encode()
                + b"\r\n"
            )
    return out + b"\r\n"


def send(endpoint: str, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    try:
        connection.putrequest(
            method, target, skip_host="host" in {name.lower() for name in headers}, skip_accept_encoding=True
        )
        names = {name.lower() for name in headers}
        for name, value in headers.items():
            connection.putheader(name, value.encode("utf-8") if isinstance(value, str) else value)
        if body and "content-length" not in names and "transfer-encoding" not in names:
            connection.putheader("Content-Length", str(len(body)))
        elif method in ("PUT", "POST") and "content-length" not in names and "transfer-encoding" not in names:
            connection.putheader("Content-Length", "0")
        connection.endheaders(body or None)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def call(endpoint: str, method: str, path: str, **options: Any) -> Answer:
    """Sign and send. `extra` headers are sent unsigned; `without` names headers left out after signing."""
    extra, without = options.pop("extra", {}), options.pop("without", ())
    target, headers, body = signed(endpoint, method, path, **options)
    kept = {name: value for name, value in headers.items() if name.lower() not in without}
    return send(endpoint, method, target, {**kept, **extra}, body)


def exchange(endpoint: str, data: bytes, *, limit_s: float = 20.0) -> bytes:
    """Send raw bytes on a connection and read until the server closes it or the time is over."""
    host = urlsplit(endpoint)
    with socket.create_connection((host.hostname or "", host.port or 0), timeout=limit_s) as connection:
        connection.sendall(data)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except TimeoutError:
            pass
        return received


def begun(endpoint: str, method: str, path: str, sent: bytes, length: int, **options: Any) -> socket.socket:
    """A connection with a signed request, of whose body so much was sent; it takes hardly any of an answer at once."""
    target, headers, _ = signed(endpoint, method, path, **{"payload": "UNSIGNED-PAYLOAD", **options})
    host = urlsplit(endpoint)
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host.netloc}",
        *(f"{name}: {value}" for name, value in headers.items() if name.lower() != "host"),
        *([f"Content-Length: {length}"] if length else []),
    ]
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((host.hostname, host.port))
    made.sendall("\r\n".join([*lines, "", ""]).encode() + sent)
    return made


def query_of(target: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))

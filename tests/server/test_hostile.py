"""Input that no client of good will sends: an answer below 500 each time, and the server lives on."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from process import ACCESS, REGION, SECRET, ServerProcess
from raw import call, exchange, send
from s4.s3 import chunked, conditions, ranges, sigv4, xml
from s4.s3.errors import S3Error


def request(server: ServerProcess, head: bytes, headers: dict[bytes, bytes] | None = None, body: bytes = b"") -> bytes:
    lines = [
        head,
        b"Host: " + urlsplit(server.endpoint).netloc.encode(),
        b"Connection: close",
        b"Content-Length: %d" % len(body),
    ]
    lines += [name + b": " + value for name, value in (headers or {}).items()]
    return exchange(server.endpoint, b"\r\n".join(lines) + b"\r\n\r\n" + body, limit_s=10)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


@pytest.mark.parametrize(
    "head",
    [
        b"GET /\xe9 HTTP/1.1",
        b"GET /bucket/\xe9\xff HTTP/1.1",
        b"GET /bucket?prefix=\xe9 HTTP/1.1",
        b"GET /bucket?prefix=%E9 HTTP/1.1",
        b"GET /%E9%FF/k HTTP/1.1",
        b"GET /bucket?\xff=\xff&&==& HTTP/1.1",
        b"PUT //// HTTP/1.1",
        b"GET /%00/%00 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET http://other/bucket/k HTTP/1.1",
        b"TRACE / HTTP/1.1",
        b"GET /bucket/%zz%1 HTTP/1.1",
    ],
)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"\xe9\xff",
        b"AWS4-HMAC-SHA256",
        b"AWS4-HMAC-SHA256 Credential=\xe9/20260101/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=\xe9",
        b"AWS4-HMAC-SHA256 Credential=a/b/c/d/e/f/g,SignedHeaders=;;,Signature=",
        b"AWS4-HMAC-SHA256 Credential=,,,,=,=",
    ],
)
def test_strange_requests_get_an_answer_below_500(
    server: ServerProcess, head: bytes, authorization: bytes | None
) -> None:
    headers = {
        b"x-amz-date": b"20260101T000000Z",
        b"x-amz-content-sha256": b"UNSIGNED-PAYLOAD",
        b"x-amz-meta-\xc3\xa9": b"\xe9",
    }
    if authorization is not None:
        headers[b"Authorization"] = authorization
    assert 400 <= status(request(server, head, headers)) < 500
    assert send(server.endpoint, "GET", "/healthz", {}).status == 200


def test_signed_headers_that_are_no_utf8(server: ServerProcess, bucket: str) -> None:
    """Signed over the bytes that were sent, they are taken (s3/test_folding.py says as what); over others they are not."""
    host, stamp = urlsplit(server.endpoint).netloc, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"host": host, "x-amz-date": stamp, "x-amz-content-sha256": sigv4.UNSIGNED, "cache-control": "caf\udce9"}
    headers["authorization"] = sigv4.authorization(ACCESS, SECRET, REGION, "PUT", f"/{bucket}/k", headers)
    raw = {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in headers.items() if name != "host"}
    line = f"PUT /{bucket}/k HTTP/1.1".encode()
    assert request(server, line, raw, b"x").startswith(b"HTTP/1.1 200 ")
    assert b"<Code>SignatureDoesNotMatch</Code>" in request(server, line, raw | {b"cache-control": b"caf\xe8"}, b"x")


@pytest.mark.parametrize("digits", ["9" * 5000, "\uff11", "-1", "+1", "0x1", "1e3", " 1", ""])
def test_numbers_are_bounded(server: ServerProcess, s3: Any, bucket: str, digits: str) -> None:
    from urllib.parse import quote

    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    part = f"<CompleteMultipartUpload><Part><PartNumber>{digits}</PartNumber><ETag>a</ETag></Part></CompleteMultipartUpload>"
    answers = [
        call(server.endpoint, "POST", f"/{bucket}/m", query=f"uploadId={upload}", body=part.encode()),
        call(server.endpoint, "PUT", f"/{bucket}/m", query=f"partNumber={quote(digits)}&uploadId={upload}", body=b"x"),
        call(server.endpoint, "GET", f"/{bucket}", query=f"max-keys={quote(digits)}"),
        call(server.endpoint, "GET", f"/{bucket}/m", query=f"uploadId={upload}&max-parts={quote(digits)}"),
        call(server.endpoint, "GET", "/", query=f"max-buckets={quote(digits)}"),
    ]
    for answer in answers:
        assert answer.status in (200, 400), answer.body
    assert answers[0].status == answers[1].status == 400


@settings(max_examples=300)
@given(st.binary(max_size=400), st.integers(1, 50), st.booleans())
def test_chunked_bodies_never_hang_or_break_the_parser(data: bytes, step: int, signed: bool) -> None:
    claim = sigv4.Claim(
        "a", "20260101", REGION, "20260101T000000Z", ("host",), "0" * 64, sigv4.STREAMING, presigned=False
    )
    signer = sigv4.ChunkSigner(b"k" * 32, claim) if signed else None
    decoder = chunked.ChunkedDecoder(100, signer, ("x-amz-checksum-crc32",), signed)
    total = 0
    try:
        for at in range(0, len(data), step):
            total += sum(map(len, decoder.feed(data[at : at + step])))
    except S3Error as error:
        assert error.status < 500
    assert total <= 100


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.text("<>/!DOCTYPE&;a [x]\"'=", max_size=100).map(str.encode)))
def test_xml_is_parsed_or_refused(data: bytes) -> None:
    try:
        xml.parse(data, "a", 5)
    except S3Error as error:
        assert error.code == "MalformedXML"


@settings(max_examples=300)
@given(st.text(max_size=60), st.integers(0, 10**6))
def test_ranges_and_dates_are_parsed_or_refused(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            span = ranges.parse(header, size)
        except S3Error as error:
            assert error.code == "InvalidRange"
        else:
            assert span is None or (span[0] >= 0 and span[1] > 0 and span[0] + span[1] <= size)
    assert conditions.parse_date(text) is None or isinstance(conditions.parse_date(text), int)

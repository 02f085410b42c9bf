"""What whoever has no key sends leaves nothing behind: no memory, no secrets in logs, no connection that ends without
a word."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tracemalloc
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import structlog
from aiohttp.http_writer import HttpVersion11

from s4.crypto.keyring import Keyring
from s4.http.answers import respond
from s4.s3 import cors, lifecycle, sigv4
from s4.s3.errors import S3Error
from s4.telemetry import logs

STAMP = "20260101T000000Z"
NOW_S = 1767225600.0
SCOPE = "20260101/us-east-1/s3/aws4_request"


def unproven(number: int, names: int) -> sigv4.Request:
    """A request with a header of its own, whose signature nobody made."""
    signed = ";".join(["host", "x-amz-content-sha256", "x-amz-date", *(f"x-{number}-{one}" for one in range(names))])
    front = f"{sigv4.ALGORITHM} Credential=AKIA{number}/{SCOPE},SignedHeaders={signed},Signature={number:064x}"
    headers = {"host": "h", "x-amz-date": STAMP, "x-amz-content-sha256": sigv4.UNSIGNED, "authorization": front}
    return sigv4.Request("GET", "/b/k", [], headers)


def test_what_is_not_proven_is_not_kept() -> None:
    def send(number: int, names: int) -> None:
        request = unproven(number, names)
        claim = sigv4.parse(request)
        assert claim is not None
        with pytest.raises(S3Error):
            sigv4.check(claim, request, f"secret{number}", "us-east-1", NOW_S, 900, 604800)

    send(0, 100)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1, 500):
        send(number, 100)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000, f"{grown} bytes of requests that nobody proved are kept"


def test_names_of_signed_headers_are_bounded() -> None:
    assert sigv4.parse(unproven(1, sigv4.SIGNED_HEADERS - 3)) is not None
    with pytest.raises(S3Error) as refused:
        sigv4.parse(unproven(1, sigv4.SIGNED_HEADERS - 2))
    assert refused.value.code == "AuthorizationHeaderMalformed"
    presigned = {
        "X-Amz-Algorithm": sigv4.ALGORITHM,
        "X-Amz-Credential": f"a/{SCOPE}",
        "X-Amz-Date": STAMP,
        "X-Amz-Expires": "60",
        "X-Amz-SignedHeaders": ";".join(["host"] * 1000),
        "X-Amz-Signature": "0",
    }
    with pytest.raises(S3Error) as refused:
        sigv4.parse(sigv4.Request("GET", "/", list(presigned.items()), {"host": "h"}))
    assert refused.value.code == "AuthorizationQueryParametersError"


def test_a_signer_who_was_right_is_kept() -> None:
    names = {"host": "h", "x-amz-date": STAMP, "x-amz-content-sha256": sigv4.UNSIGNED}
    headers = {**names, "authorization": sigv4.authorization("AKIAKEPT", "s", "us-east-1", "GET", "/b/k", names)}
    request = sigv4.Request("GET", "/b/k", [], headers)
    claim = sigv4.parse(request)
    assert claim is not None
    key = sigv4.check(claim, request, "s", "us-east-1", NOW_S, 900, 604800)
    assert claim.front in sigv4._fronts
    assert sigv4.parse(request) == claim
    assert sigv4.check(claim, request, "s", "us-east-1", NOW_S, 900, 604800) == key
    with pytest.raises(S3Error):  # a secret that was changed is another name
        sigv4.check(claim, request, "t", "us-east-1", NOW_S, 900, 604800)


def test_long_texts_that_were_opened_are_not_kept() -> None:
    ring = Keyring(bytes(32))
    for size in (10, 100_000):
        assert ring.open(ring.seal("x" * size, "about"), "about") == "x" * size
    assert ring._opened.cache_info().currsize == 1


SIGNATURE, TOKEN, KEY = "5f" * 32, "FwoGZXIvYXdzEJr%2F%2Fabc", "bmljZSBrZXkgb2YgMzIgYnl0ZXMgZm9yIHRlc3RzISE="
SECRETS = (
    f"GET /b/k?X-Amz-Signature={SIGNATURE}&X-Amz-Security-Token={TOKEN}&prefix=visible",
    f"{{'authorization': 'AWS4-HMAC-SHA256 Credential=AKIAVISIBLE/{SCOPE}, SignedHeaders=host, Signature={SIGNATURE}'}}",
    f'{{"x-amz-security-token": "{TOKEN}", "x-amz-server-side-encryption-customer-key": "{KEY}"}}',
    f"[('x-amz-copy-source-server-side-encryption-customer-key', '{KEY}')]".replace("', '", "': '"),
    f"Authorization: Bearer {TOKEN}",
    f"Invalid header value char: b'Authorization: AWS AKIAOLD:{KEY}'",
    f"{{'Authorization': 'Basic {KEY}'}}",
    f"Action=AssumeRoleWithWebIdentity&WebIdentityToken={TOKEN}&Version=2011",
    f"SecretAccessKey={KEY}",
)


@pytest.mark.parametrize("line", SECRETS)
def test_a_line_with_a_secret_is_redacted(line: str) -> None:
    told = logs.redacted(line)
    for secret in (SIGNATURE, TOKEN, KEY):
        assert secret not in told
    assert logs.redacted("no secret here: path=/b/k status=500") == "no secret here: path=/b/k status=500"
    assert logs.redacted(told) == told


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, kept = root.handlers[:], root.level, structlog.get_config()
    logs.configure("info", "json")
    stream = io.StringIO()
    handler: Any = root.handlers[0]
    handler.setStream(stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.configure(**kept)


def test_a_traceback_tells_no_secret(logged: io.StringIO) -> None:
    try:
        raise ValueError(f"cannot read {SECRETS[0]}")
    except ValueError as error:
        structlog.get_logger("s4.test").error(
            "request failed", path=logs.address(f"/b/k?X-Amz-Signature={SIGNATURE}&prefix=a"), exc_info=error
        )
        logging.getLogger("other").error("of a library: %s", SECRETS[1])
    told = logged.getvalue()
    assert "ValueError" in told
    assert "/b/k?X-Amz-Signature&prefix" in told
    assert SIGNATURE not in told
    assert TOKEN not in told
    assert all(json.loads(line) for line in told.splitlines())


def test_rules_across_origins_have_names_and_origins_only() -> None:
    rule = cors.CorsRule(["http://*.example"], ["GET"], ["*"], ["x-amz-a\r\nset-cookie: b", "x-amz-b", "with space"])
    assert cors.answer(rule, "http://a.example")["Access-Control-Expose-Headers"] == "x-amz-b"
    for origin in ("http://\udcff.example", "http://a\r\n.example", "http://ä.example"):
        assert cors.find([rule], origin, "GET") is None
    assert cors.find([rule], "http://a.example", "GET", ["x-a\udcff"]) is None
    assert cors.find([rule], "http://a.example", "GET", ["x-a"]) is rule
    from s4.s3.xml import parse

    text = "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod><ExposeHeader>a&#13;&#10;b</ExposeHeader></CORSRule></CORSConfiguration>"
    with pytest.raises(S3Error) as refused:
        cors.from_xml(parse(text.encode(), "CORSConfiguration", 10))
    assert refused.value.code == "InvalidRequest"


def test_the_id_of_a_rule_ends_no_header() -> None:
    told = lifecycle.header((0, 'a"b\r\nc: d'))
    assert told.endswith('rule-id="a%22b%0D%0Ac: d"')


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\udcffb"])
def test_a_header_that_cannot_be_written_is_an_answer_of_500(value: str) -> None:
    """What stands in for a connection keeps what is written."""
    written: list[bytes] = []

    async def write(data: bytes, *, whole: bool = False) -> None:
        written.append(data)

    async def test() -> None:
        http: Any = mock.Mock(version=HttpVersion11, method="GET", keep_alive=True, write=write)
        answer = respond(200, {"x-amz-request-id": "1", "Access-Control-Allow-Origin": value}, b"secret body")
        await answer.end(http)

    asyncio.run(test())
    assert written[0].startswith(b"HTTP/1.1 500 ")
    assert b"InternalError" in written[0]
    assert b"secret body" not in written[0]
    assert b"\nb: c" not in written[0]

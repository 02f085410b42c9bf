"""A request that is served where its bytes arrive is answered as one that has a task of its own from its beginning:
what fuzzers kept, each operation, and every wrong way of signing, sent to two servers alike, answers compared byte for
byte."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fuzz import spoken
from fuzz.corpus import load
from fuzz.endpoint import Endpoint
from fuzz.targets import serving, signed
from process import SECRET
from s4.s3 import sigv4

Send = Callable[[bytes], bytes]

# Of each connection and moment: request ids, times, ids that are random.
OF_ITS_OWN = (
    rb"S4[0-9A-F]{18}",
    rb"[0-9A-F]{16}",
    rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT",
    rb"\d{4}-\d\d-\d\dT[\d:.]+Z",
    rb"(?<=<UploadId>)[^<]+",
    rb"[0-9a-f]{24}",
)

DELETE = b"<Delete><Object><Key>a</Key></Object><Object><Key>none</Key></Object></Delete>"
VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
ERRORS = Path(__file__).with_name("errors.tsv")
LOCKED = b"\x01PUT /locked\nx-amz-bucket-object-lock-enabled: true\n\n"
CALLS = [
    b"GET /\n\n",
    b"PUT /ccc\n\n",
    b"HEAD /ccc\n\n",
    b"PUT /ccc/a\ncontent-type: text/plain\nx-amz-meta-a: b\n\nhello",
    b"GET /ccc/a\n\n",
    b"HEAD /ccc/a\n\n",
    b"GET /ccc/a\nrange: bytes=1-2\n\n",
    b"GET /ccc/a\nif-none-match: *\n\n",
    b"GET /ccc/none\n\n",
    b"GET /bbb/big\n\n",
    b"GET /bbb/big\nrange: bytes=70000-\n\n",
    b"PUT /ccc/b\nx-amz-copy-source: /ccc/a\n\n",
    b"GET /ccc?list-type=2\n\n",
    b"GET /ccc?versions\n\n",
    b"PUT /ccc?versioning\n\n" + VERSIONING,
    b"PUT /ccc/a\n\n" + b"x" * 100_000,
    b"GET /ccc/a\n\n",
    b"DELETE /ccc/a\n\n",
    b"GET /ccc/a\n\n",
    b"POST /ccc?delete\n\n" + DELETE,
    b'PUT /ccc/a\nif-match: "0"\n\nx',
    b"PUT /ccc/l?tagging\n\nx",
    b"GET /ccc?policy\n\n",
    b"POST /bbb/m?uploads\n\n",
    b"PUT /bbb/m?partNumber=1&uploadId=UPLOAD\n\npart",
    b"GET /bbb/m?uploadId=UPLOAD\n\n",
    b"DELETE /bbb/m?uploadId=UPLOAD\n\n",
    b"PUT /ccc/b\nif-none-match: *\n\nx",
    b"DELETE /ccc\n\n",
    b"OPTIONS /bbb/k\norigin: http://a\naccess-control-request-method: GET\n\n",
    b"PATCH /bbb/k\n\n",
]


def alike(answer: bytes) -> bytes:
    for one in OF_ITS_OWN:
        answer = re.sub(one, b"-", answer)
    return answer


def compared(
    server: Endpoint, send: Send, other: Endpoint, send_other: Send, say: Callable[[Endpoint], bytes]
) -> bytes:
    """The answer of both."""
    here, there = send(say(server)), send_other(say(other))
    assert alike(here) == alike(there), say(server)[:300]
    return here


def test_what_fuzzers_kept() -> None:
    with serving() as (server, send), serving(tasks=True) as (other, send_other):
        for data in [one for one in load("request") if one and b"/stats" not in one]:  # it tells of the disk
            compared(server, send, other, send_other, lambda one, data=data: signed(one, data)[0])  # type: ignore[misc]


def test_each_operation_by_each_mode_of_signing() -> None:
    seen = set()
    for mode in range(len(sigv4.STREAMING_MODES) + 1):
        with serving() as (server, send), serving(tasks=True) as (other, send_other):
            for call in CALLS:
                answer = compared(
                    server, send, other, send_other, lambda one, data=bytes([mode]) + call: signed(one, data)[0]
                )  # type: ignore[misc]
                seen.add(answer.split(b" ", 2)[1])
    assert {b"200", b"204", b"206", b"304", b"404", b"412", b"400", b"403"} <= seen


def asked(server: Endpoint, row: dict[str, str]) -> bytes:
    """A row of errors.tsv, of the bucket and the upload that are here."""
    values = {"bucket": "bbb", "locked": "locked", "key": "k", "upload": server.upload, "upload2": "none"}
    values |= {"long": "k" * 1025, "kib3": "m" * 3000, "version": "0" * 24, "etag": '"0"'}
    query = "?" + row["query"] if row["query"] else ""
    text = "\n".join([f"{row['method']} {row['path']}{query}", *filter(None, row["headers"].split("|"))])
    text += "\n\n" + row["body"]
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return signed(server, b"\x01" + text.encode())[0]


def test_every_wrong_input() -> None:
    rows = csv.DictReader(ERRORS.read_text(encoding="utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    refused = 0
    with serving() as (server, send), serving(tasks=True) as (other, send_other):
        compared(server, send, other, send_other, lambda one: signed(one, LOCKED)[0])
        for row in rows:
            answer = compared(server, send, other, send_other, lambda one, row=row: asked(one, row))  # type: ignore[misc]
            refused += f"<Code>{row['code']}</Code>".encode() in answer
    assert refused > 300  # by the very code that the table has


def test_every_wrong_way_of_signing() -> None:
    """The whole of a good request, with one thing of it another: never let through, and refused in the same words."""
    good = b"\x01PUT /bbb/k2\nx-amz-meta-a: b\n\nhello"
    wrong: list[tuple[bytes, bytes]] = [
        (b"/bbb/k2 ", b"/bbb/k3 "),
        (b"hello", b"hellO"),
        (b"x-amz-meta-a: b", b"x-amz-meta-a: c"),
        (b"/us-east-1/", b"/eu-west-1/"),
        (b"/s3/aws4", b"/iam/aws4"),
        (b"20260101T000000Z", b"20260101T000001Z"),
        (b"20260101T000000Z", b"20250101T000000Z"),
        (b"Signature=", b"Signature=0"),
        (b"SignedHeaders=host;", b"SignedHeaders="),
        (b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA512"),
        (b"Credential=", b"Credential=x"),
        (b"authorization: ", b"x-authorization: "),
    ]
    with serving() as (server, send), serving(tasks=True) as (other, send_other):
        for old, new in wrong:
            answer = compared(server, send, other, send_other, lambda one: signed(one, good)[0].replace(old, new))  # noqa: B023
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403")), (old, answer[:200])

        def by_another(one: Endpoint) -> bytes:
            return signed(replace(one, secret=SECRET), good)[0]

        assert b"SignatureDoesNotMatch" in compared(server, send, other, send_other, by_another)
        assert compared(server, send, other, send_other, lambda one: signed(one, good)[0]).startswith(b"HTTP/1.1 200")


def test_forms_and_presigned_addresses() -> None:
    with serving() as (server, send), serving(tasks=True) as (other, send_other):
        compared(server, send, other, send_other, lambda one: spoken.presigned(one, "GET", "/bbb/k", {}, b"")[0])
        compared(server, send, other, send_other, lambda one: spoken.presigned(one, "PUT", "/bbb/p", {}, b"hello")[0])
        compared(
            server, send, other, send_other, lambda one: spoken.form(one, [("key", "f"), ("acl", "private")], b"file")
        )

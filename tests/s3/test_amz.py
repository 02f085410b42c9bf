"""The registry of x-amz- names: every operation, every name, by header, presigned query and form field."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
from urllib3 import encode_multipart_formdata

from fuzz.endpoint import Endpoint, endpoint
from raw import Answer, signed
from s4.http.operations import OPERATIONS
from s4.s3 import amz
from s4.s3.errors import S3Error
from tiers import amount

MODEL = botocore.session.get_session().get_service_model("s3")
NEXT_YEARS = ("x-amz-object-embargo-until", "x-amz-server-side-encryption-vault", "x-amz-copy-source-if-newer")
NAMES = sorted({*amz.KNOWN, *NEXT_YEARS, "x-amz-meta-a"})
# Names that say how the body is sent, or who signs: they cannot be tried one by one on a signed request.
TRIED = [name for name in NAMES if name not in amz.TRANSFER]
VALUES = {
    "x-amz-storage-class": "STANDARD",
    "x-amz-request-payer": "requester",
    "x-amz-checksum-mode": "ENABLED",
    "x-amz-api-version": "2006-03-01",
    "x-amz-optional-object-attributes": "RestoreStatus",
    "x-amz-transition-default-minimum-object-size": "all_storage_classes_128K",
    "x-amz-expected-bucket-owner": "000000000000",
}
MORE = {
    "UploadPart": "partNumber=1&uploadId={upload}",
    "UploadPartCopy": "partNumber=1&uploadId={upload}",
    "ListParts": "uploadId={upload}",
    "CompleteMultipartUpload": "uploadId={upload}",
    "AbortMultipartUpload": "uploadId={upload}",
    "ListObjectsV2": "list-type=2",
}


def value_of(name: str) -> str:
    return VALUES.get(name, "true")


def refusal(operation: str, name: str, value: str) -> str:
    """The code that the registry refuses with, empty where it takes the name."""
    try:
        amz.check(operation, {"host": "h", "x-amz-date": "d", name: value})
    except S3Error as error:
        return error.code
    return ""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_takes_what_the_model_gives_it_and_refuses_all_else(operation: str) -> None:
    of_model = set()
    if operation != "PostObject":
        members = (
            MODEL.operation_model(operation).input_shape.members.values()
            if MODEL.operation_model(operation).input_shape
            else ()
        )
        said = ((one.serialization.get("location"), one.serialization.get("name", "").lower()) for one in members)
        of_model = {name for where, name in said if where in ("header", "headers") and name.startswith("x-amz-")}
    for name in of_model - {amz.META} - amz.UNSUPPORTED:
        assert refusal(operation, name, value_of(name)) == "", "a name of S3's own model is not in the registry"
    assert (amz.META in of_model or operation == "PostObject") == (operation in amz.NAMED)
    for name in NAMES:
        listed = name in amz.taken(operation) or (name.startswith(amz.META) and operation in amz.NAMED)
        code = refusal(operation, name, value_of(name))
        expected = "" if listed else "NotImplemented" if name in (*NEXT_YEARS, *amz.UNSUPPORTED) else "InvalidArgument"
        assert code == expected, name


def test_a_value_that_would_not_be_obeyed_is_refused() -> None:
    for operation, name, value, code in (
        ("DeleteObject", "x-amz-bypass-governance-retention", "yes", "InvalidArgument"),
        ("CreateBucket", "x-amz-bucket-object-lock-enabled", "1", "InvalidArgument"),
        ("PutObject", "x-amz-storage-class", "GLACIER", "NotImplemented"),
        ("PutObject", "x-amz-server-side-encryption-bucket-key-enabled", "on", "InvalidArgument"),
        ("GetObject", "x-amz-checksum-mode", "on", "InvalidArgument"),
        ("GetObject", "x-amz-request-payer", "somebody", "InvalidArgument"),
        ("ListObjects", "x-amz-optional-object-attributes", "Owner", "InvalidArgument"),
        ("PutObject", "x-amz-meta-a b", "x", "InvalidArgument"),
        ("PutObject", "x-amz-meta-a\r\nb", "x", "InvalidArgument"),
    ):
        assert refusal(operation, name, value) == code, name
    assert refusal("DeleteObject", "x-amz-bypass-governance-retention", "TRUE") == ""


def test_of_a_request_without_a_body_its_checksum_may_be_said() -> None:
    for name, value in (
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-checksum-sha1", "2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
        ("x-amz-checksum-xxhash64", "70bbN1HY6Zk="),
    ):
        assert (
            refusal("GetObject", name, value)
            == refusal("CreateMultipartUpload", name, value)
            == refusal("CopyObject", name, value)
            == ""
        )
    for operation in ("GetObject", "CopyObject"):
        assert (
            refusal(operation, "x-amz-checksum-crc32", "AAAAAQ==")
            == refusal(operation, "x-amz-checksum-crc32", "AAAAAA")
            == "InvalidArgument"
        )


def test_names_without_a_promise_have_a_reason() -> None:
    assert set(amz.NO_PROMISE) <= amz.KNOWN
    assert all(amz.NO_PROMISE.values())


def test_what_stands_in_a_query_is_a_header() -> None:
    headers = {"host": "h", "x-amz-acl": "private"}
    assert amz.hoisted(
        [("prefix", "a"), ("X-Amz-Meta-A", " b "), ("x-amz-acl", "private")], headers, presigned=True
    ) == {**headers, "x-amz-meta-a": "b"}
    assert amz.hoisted([("prefix", "a")], headers, presigned=True) is headers
    for pairs, presigned in (
        ([("x-amz-acl", "public-read")], True),
        ([("x-amz-tagging", "a=b"), ("X-Amz-Tagging", "a=c")], True),
        ([("x-amz-meta-a", "b\r\nc: d")], True),
        ([("x-amz-meta-a\r\nb", "c")], True),
        ([("x-amz-trailer", "x-amz-checksum-crc32")], True),
        ([("X-Amz-Expires", "1"), ("x-amz-expires", "2")], True),
        ([("X-Amz-Signature", "a")], False),
        ([("x-amz-date", "a")], False),
    ):
        with pytest.raises(S3Error) as refused:
            amz.hoisted(pairs, headers, presigned=presigned)
        assert refused.value.code == "InvalidArgument", pairs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoint, asyncio.Runner]]:
    with asyncio.Runner() as runner:
        made = endpoint(Path(tmp_path_factory.mktemp("amz")), time.time)
        yield runner.run(made.__aenter__()), runner
        runner.run(made.__aexit__(None, None, None))


def asked(operation: str, upload: str) -> tuple[str, str, str]:
    """(method, path, query) of an operation on what `endpoint` holds."""
    http = MODEL.operation_model(operation).http
    path, _, query = http["requestUri"].partition("?")
    path = path.replace("{Bucket}", "bbb").replace("{Key+}", "m" if "uploadId" in MORE.get(operation, "") else "k")
    return http["method"], path, "&".join(one for one in (query, MORE.get(operation, "").format(upload=upload)) if one)


def answer_to(
    server: tuple[Endpoint, asyncio.Runner], method: str, target: str, headers: dict[str, str], body: bytes = b""
) -> Answer:
    made, runner = server
    lines = [
        f"{method} {target} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items() if name.lower() not in ("host", "content-length")),
    ]
    head = "\r\n".join([*lines, "host: localhost", f"content-length: {len(body)}", "connection: close", "", ""])
    received = runner.run(made.send(head.encode() + body))
    return Answer(int(received.split(b" ", 2)[1]), {}, received)


def test_what_is_not_taken_is_refused_however_it_is_said(server: tuple[Endpoint, asyncio.Runner]) -> None:
    """Every operation with every name, by header and by presigned query; every name as a field of a form."""
    made = server[0]
    keys = {"access": made.access, "secret": made.secret}
    pairs = list(itertools.product([one for one in OPERATIONS if one != "PostObject"], TRIED, ("header", "query")))
    for operation, name, way in pairs[:: amount("S4_NAMES_STEP", 11, 1)]:
        if name == "x-amz-copy-source" and operation in ("PutObject", "UploadPart"):
            continue  # with it they are other operations
        listed = name in amz.taken(operation) or (name.startswith(amz.META) and operation in amz.NAMED)
        if listed:
            continue
        method, path, query = asked(operation, made.upload)
        more = {"x-amz-copy-source": "/bbb/k"} if operation in ("CopyObject", "UploadPartCopy") else {}
        if way == "header":
            target, headers, _ = signed(
                "http://localhost", method, path, query=query, headers={**more, name: value_of(name)}, **keys
            )
        else:
            said = "&".join(
                [
                    *([query] if query else []),
                    *(f"{one}={value}" for one, value in {**more, name.title(): value_of(name)}.items()),
                ]
            )
            target, headers, _ = signed("http://localhost", method, path, query=said, presign_s=60, **keys)
        answer = answer_to(server, method, target, headers)
        if method == "HEAD":
            assert answer.status in (400, 501), (operation, name, way)
            continue
        assert answer.code in ("InvalidArgument", "NotImplemented"), (operation, name, way, answer.body)
        assert name.encode() in answer.body.lower(), (operation, name, way, answer.body)
    for name in NAMES:
        if name in amz.taken("PostObject") or name.startswith(amz.META):
            continue
        body, kind = encode_multipart_formdata({"key": "k", name: "true", "file": ("f", b"x")})
        answer = answer_to(server, "POST", "/bbb", {"content-type": kind}, body)
        assert answer.code in ("InvalidArgument", "NotImplemented"), (name, answer.body)


def test_what_needs_no_look_is_taken_by_every_operation() -> None:
    """`check` passes over a request that has nothing else."""
    said = {name for name in amz._PLAIN if name.startswith("x-amz-")}
    assert said
    assert not said & amz._LOOKED_AT
    assert all(said <= amz.taken(operation) for operation in (*OPERATIONS, amz.QUERY, "Unknown", ""))

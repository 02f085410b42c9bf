"""Every signing mode on every write: right secrets work, wrong ones are 403 and change nothing (SECURITY.md)."""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
import zlib
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from process import ACCESS, REGION, SECRET, ServerProcess
from raw import Answer, call, encode_chunks, exchange, send, signed
from s4.s3 import sigv4

MODES: dict[str, dict[str, Any]] = {
    "header": {},
    "unsigned payload": {"payload": "UNSIGNED-PAYLOAD"},
    "presigned": {"presign_s": 60},
    "chunked": {"chunked": "signed"},
    "chunked with trailer": {"chunked": "trailer"},
    "unsigned chunks with trailer": {"chunked": "unsigned-trailer"},
    "version 2": {"version": 2},
    "presigned by version 2": {"version": 2, "presign_s": 60},
}
STAMP = "20260101T000000Z"
XML_DELETE = b"<Delete><Object><Key>there</Key></Object></Delete>"
XML_VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
# operation: method, path, query, headers, body
WRITES: dict[str, tuple[str, str, str, dict[str, str], bytes]] = {
    "CreateBucket": ("PUT", "/{bucket}-new", "", {}, b""),
    "DeleteBucket": ("DELETE", "/{bucket}", "", {}, b""),
    "PutBucketVersioning": ("PUT", "/{bucket}", "versioning", {}, XML_VERSIONING),
    "DeleteObjects": ("POST", "/{bucket}", "delete", {"Content-MD5": "cxTFYf/Lfk8y3mQHBJw1Aw=="}, XML_DELETE),
    "PutObject": ("PUT", "/{bucket}/k", "", {}, b"body"),
    "CopyObject": ("PUT", "/{bucket}/k", "", {"x-amz-copy-source": "/{bucket}/there"}, b""),
    "RenameObject": ("PUT", "/{bucket}/k", "renameObject", {"x-amz-rename-source": "there"}, b""),
    "DeleteObject": ("DELETE", "/{bucket}/there", "", {}, b""),
    "CreateMultipartUpload": ("POST", "/{bucket}/k", "uploads", {}, b""),
    "UploadPart": ("PUT", "/{bucket}/mp", "partNumber=1&uploadId={upload}", {}, b"part"),
    "UploadPartCopy": (
        "PUT",
        "/{bucket}/mp",
        "partNumber=1&uploadId={upload}",
        {"x-amz-copy-source": "/{bucket}/there"},
        b"",
    ),
    "CompleteMultipartUpload": ("POST", "/{bucket}/mp", "uploadId={upload}", {}, b"<CompleteMultipartUpload/>"),
    "AbortMultipartUpload": ("DELETE", "/{bucket}/mp", "uploadId={upload}", {}, b""),
}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def names(s3: Any) -> dict[str, str]:
    bucket = f"signing-{next(_numbers)}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="there", Body=b"x")
    return {"bucket": bucket, "upload": s3.create_multipart_upload(Bucket=bucket, Key="mp")["UploadId"]}


def state(s3: Any, bucket: str) -> Any:
    """All that a write could have changed."""
    listed = s3.list_object_versions(Bucket=bucket)
    uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    parts = [s3.list_parts(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"]).get("Parts") for item in uploads]
    versions = [(item["Key"], item["VersionId"], item["ETag"]) for item in listed.get("Versions", [])]
    return (
        versions,
        len(listed.get("DeleteMarkers", [])),
        [item["UploadId"] for item in uploads],
        parts,
        s3.get_bucket_versioning(Bucket=bucket).get("Status"),
    )


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize("mode", MODES)
def test_wrong_secret_is_refused_and_changes_nothing(
    server: ServerProcess, s3: Any, names: dict[str, str], mode: str, operation: str
) -> None:
    method, path, query, headers, body = WRITES[operation]
    before = state(s3, names["bucket"])
    filled = {name: value.format(**names) for name, value in headers.items()}
    place, asked = path.format(**names), query.format(**names)

    def by(**who: str) -> tuple[int, str]:
        said = call(server.endpoint, method, place, query=asked, headers=filled, body=body, **who, **MODES[mode])
        return said.status, said.code

    # whoever asks: renameObject is not in what version 2 signs
    uncovered = operation == "RenameObject" and "version 2" in mode
    assert by(secret="not the secret") == (403, "AccessDenied" if uncovered else "SignatureDoesNotMatch")
    assert state(s3, names["bucket"]) == before
    assert by(access="nobody") == (403, "AccessDenied" if uncovered else "InvalidAccessKeyId")
    anonymous = send(server.endpoint, method, place + (f"?{asked}" if asked else ""), filled, body)
    assert (anonymous.status, anonymous.code) == (403, "AccessDenied")
    assert state(s3, names["bucket"]) == before


@pytest.mark.parametrize("size", [0, 5, 65536, 65537, 300_000])
@pytest.mark.parametrize("mode", MODES)
def test_right_secret_stores_the_body(server: ServerProcess, s3: Any, bucket: str, mode: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    answer = call(server.endpoint, "PUT", f"/{bucket}/k", body=body, **MODES[mode])
    assert answer.status == 200, answer.body
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == body
    assert got.get("ContentEncoding") is None
    assert ("ChecksumCRC32" in got) == ("trailer" in mode)


def chunk_edits() -> dict[str, Any]:
    return {
        "data changed": lambda body: body.replace(b"aaaa", b"aaab", 1),
        "signature changed": lambda body: body.replace(b"chunk-signature=", b"chunk-signature=0", 1)[:-1] + b"\n",
        "signature missing": lambda body: body.replace(b";chunk-signature=", b";x=", 1),
        "last chunk missing": lambda body: body[: body.rindex(b"0;chunk-signature")],
        "cut off": lambda body: body[:-30],
        "size is no number": lambda body: b"zz" + body[2:],
        "size is huge": lambda body: b"ffffffffffffffff" + body[body.index(b";") :],
        "size is endless": lambda body: b"0" * 2000 + body,
        "more behind the end": lambda body: body + b"more",
        "chunks swapped": _swap,
    }


def _swap(body: bytes) -> bytes:
    line = body.index(b"\r\n") + 2
    size = int(body[: body.index(b";")], 16)
    first = body[: line + size + 2]
    rest = body[len(first) :]
    line2 = rest.index(b"\r\n") + 2
    size2 = int(rest[: rest.index(b";")], 16)
    second = rest[: line2 + size2 + 2]
    return second + first + rest[len(second) :]


@pytest.mark.parametrize("edit", chunk_edits())
def test_tampered_chunks_are_refused(server: ServerProcess, s3: Any, bucket: str, edit: str) -> None:
    target, headers, body = signed(server.endpoint, "PUT", f"/{bucket}/k", body=b"a" * 131072, chunked="signed")
    answer = send(server.endpoint, "PUT", target, {**headers, "Connection": "close"}, chunk_edits()[edit](body))
    assert answer.status in (400, 403), answer.body
    assert answer.code in ("SignatureDoesNotMatch", "IncompleteBody", "InvalidRequest")
    with pytest.raises(ClientError):
        s3.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("mode", ["signed", "trailer", "unsigned-trailer"])
def test_only_the_last_chunk_may_be_small(server: ServerProcess, s3: Any, bucket: str, mode: str) -> None:
    def put(length: int, size: int) -> Answer:
        target, headers, _ = signed(server.endpoint, "PUT", f"/{bucket}/k", body=b"a" * length, chunked=mode)
        return send(
            server.endpoint,
            "PUT",
            target,
            {**headers, "Connection": "close"},
            encode_chunks(headers, SECRET, REGION, b"a" * length, mode, size),
        )

    answer = put(8191 + 1, 8191)
    assert (answer.status, answer.code) == (403, "InvalidChunkSizeError")
    assert b"<Chunk>2</Chunk><BadChunkSize>8191</BadChunkSize>" in answer.body
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    for length, size in ((8192 + 1, 8192), (8191, 8191), (1, 5), (0, 5)):
        assert put(length, size).status == 200
        assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == length


def test_tampered_trailer_is_refused(server: ServerProcess, s3: Any, bucket: str) -> None:
    for mode in ("trailer", "unsigned-trailer"):
        target, headers, body = signed(server.endpoint, "PUT", f"/{bucket}/k", body=b"a" * 1000, chunked=mode)
        at = body.index(b"x-amz-checksum-crc32:") + 21
        changed = body[:at] + b"AAAAAA==" + body[at + 8 :]
        answer = send(server.endpoint, "PUT", target, headers, changed)
        assert (answer.status, answer.code) in ((403, "SignatureDoesNotMatch"), (400, "BadDigest"))
        missing = body[: body.index(b"x-amz-checksum-crc32:")] + b"\r\n"
        answer = send(server.endpoint, "PUT", target, headers, missing)
        assert (answer.status, answer.code) == (400, "MalformedTrailerError")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_a_trailer_is_what_was_announced_and_nothing_else(server: ServerProcess, s3: Any, bucket: str) -> None:
    right = base64.b64encode(zlib.crc32(b"a" * 1000).to_bytes(4, "big"))
    line = b"x-amz-checksum-crc32:" + right + b"\r\n"
    target, headers, body = signed(server.endpoint, "PUT", f"/{bucket}/k", body=b"a" * 1000, chunked="unsigned-trailer")
    head = body[: body.index(b"x-amz-checksum-crc32:")]
    for trailer in (
        b"",
        b"x-amz-checksum-crc32c:" + right + b"\r\n",
        line + b"x-amz-checksum-crc32c:" + right + b"\r\n",
        line + b"x-amz-checksum-crc32:AAAAAA==\r\n",
        b"x-amz-checksum-crc32:AAAAAA==\r\n" + line,
        line + b"no colon\r\n",
        line + b"x-amz-meta-late: " + b"x" * 20_000 + b"\r\n",
    ):
        answer = send(server.endpoint, "PUT", target, headers, head + trailer + b"\r\n")
        assert (answer.status, answer.code) == (400, "MalformedTrailerError"), trailer[:80]
    for options in ({"chunked": "signed"}, {}):  # how the body is sent has no trailer
        answer = call(
            server.endpoint,
            "PUT",
            f"/{bucket}/k",
            body=b"a",
            headers={"x-amz-trailer": "x-amz-checksum-crc32"},
            **options,
        )
        assert (answer.status, answer.code) == (400, "MalformedTrailerError"), options
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert send(server.endpoint, "PUT", target, headers, head + line + b"\r\n").status == 200


def test_body_must_match_its_signed_hash(server: ServerProcess, bucket: str) -> None:
    target, headers, _ = signed(server.endpoint, "PUT", f"/{bucket}/k", body=b"right")
    answer = send(server.endpoint, "PUT", target, headers, b"wrong")
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")


@pytest.mark.parametrize("version", [4, 2])
def test_presigned_covers_every_amz_header_and_parameter(
    server: ServerProcess, s3: Any, bucket: str, version: int
) -> None:
    refused = "AccessDenied" if version == 4 else "SignatureDoesNotMatch"
    s3.put_object(Bucket=bucket, Key="there", Body=b"x")
    way: dict[str, Any] = {"presign_s": 60, "version": version}
    extra = {"x-amz-copy-source": f"/{bucket}/there"}
    assert call(server.endpoint, "PUT", f"/{bucket}/k", extra=extra, **way).code == refused
    assert call(server.endpoint, "PUT", f"/{bucket}/k", body=b"x", extra={"x-amz-meta-a": "b"}, **way).code == refused
    target, headers, _ = signed(server.endpoint, "GET", f"/{bucket}/there", **way)
    assert send(server.endpoint, "GET", target, headers).body == b"x"
    for more in (
        "versionId=null",
        "response-content-type=text/html",
        "x-amz-meta-a=b",
        "X-Amz-Copy-Source=a",
        "acl",
        "tagging",
    ):
        assert send(server.endpoint, "GET", f"{target}&{more}", headers).code == "SignatureDoesNotMatch", more
    for more in ("prefix=a", "attributes", "retention", "legal-hold", "renameObject", "anything"):
        assert send(server.endpoint, "GET", f"{target}&{more}", headers).code == (
            "AccessDenied" if version == 2 else "SignatureDoesNotMatch"
        ), more
    assert send(server.endpoint, "DELETE", target, headers).code == "SignatureDoesNotMatch"
    assert send(server.endpoint, "GET", target.replace("there", "other"), headers).code == "SignatureDoesNotMatch"
    twice = target + ("&X-Amz-Expires=999" if version == 4 else "&Expires=99999999999")
    assert send(server.endpoint, "GET", twice, headers).code == (
        "AuthorizationQueryParametersError" if version == 4 else "AccessDenied"
    )


@pytest.mark.parametrize("version", [4, 2])
def test_header_signature_covers_every_amz_header(server: ServerProcess, bucket: str, version: int) -> None:
    answer = call(server.endpoint, "PUT", f"/{bucket}/k", body=b"x", extra={"x-amz-meta-a": "b"}, version=version)
    assert (answer.status, answer.code) == (403, "AccessDenied" if version == 4 else "SignatureDoesNotMatch")


def test_a_signer_who_was_right_before_signs_every_amz_header_again() -> None:
    """What is kept of a good signature says which headers it covers, and no others."""
    headers = {"host": "h", "user-agent": "u", "x-amz-content-sha256": sigv4.EMPTY_SHA256, "x-amz-date": STAMP}
    signed = {name: value for name, value in headers.items() if name != "user-agent"}
    headers["authorization"] = sigv4.authorization(ACCESS, SECRET, REGION, "GET", "/b/k", signed)
    for _ in range(2):
        claim = sigv4.parse(sigv4.Request("GET", "/b/k", [], headers))
        assert claim is not None
        request = sigv4.Request("GET", "/b/k", [], headers)
        sigv4.check(claim, request, SECRET, REGION, sigv4.parse_time(STAMP), 900, 604800)
    assert claim.front in sigv4._fronts
    for name in ("x-amz-meta-a", "x-amz-copy-source", "x-amz-security-token", "x-amz-acl"):
        with pytest.raises(sigv4.S3Error) as refused:
            sigv4.parse(sigv4.Request("GET", "/b/k", [], {**headers, name: "x"}))
        assert (refused.value.code, refused.value.fields) == ("AccessDenied", {"HeadersNotSigned": name})


def test_several_ways_of_signing_together_are_refused(server: ServerProcess, bucket: str) -> None:
    """Any two of them, and of one version too."""
    ways = [
        signed(server.endpoint, "GET", f"/{bucket}/k", version=version, presign_s=presign_s)
        for version in (4, 2)
        for presign_s in (0, 60)
    ]
    (plain, four, _), (address_four, *_), (_, two, _), (address_two, *_) = ways
    mixed = [(target, headers) for target in (address_four, address_two) for headers in (four, two)]
    mixed.append((f"{address_four}&{urlsplit(address_two).query}", {}))
    for target, headers in mixed:
        answer = send(server.endpoint, "GET", target, headers)
        assert (answer.status, answer.code) == (400, "InvalidArgument"), (target, headers)
    assert send(server.endpoint, "GET", plain, four).code == "NoSuchKey"


def test_wrong_region_names_the_right_one(server: ServerProcess) -> None:
    answer = call(server.endpoint, "GET", "/", region="eu-west-1")
    assert (answer.status, answer.code) == (400, "AuthorizationHeaderMalformed")
    assert b"<Region>us-east-1</Region>" in answer.body


@pytest.mark.parametrize(
    ("offset_s", "code"),
    [(0, None), (-600, None), (600, None), (-901, "RequestTimeTooSkewed"), (1000, "RequestTimeTooSkewed")],
)
def test_clock_skew_of_fifteen_minutes(offset_s: int, code: str | None) -> None:
    now = 1_700_000_000.0
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now + offset_s))
    assert _checked(stamp, now) == code


def test_presigned_requests_expire() -> None:
    now = 1_700_000_000.0
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    for after_s, expires_s, code in (
        (0, 60, None),
        (60, 60, None),
        (61, 60, "AccessDenied"),
        (-901, 60, "AccessDenied"),
        (0, 0, "AuthorizationQueryParametersError"),
        (0, 604801, "AuthorizationQueryParametersError"),
    ):
        assert _checked(stamp, now + after_s, expires_s) == code


def _checked(stamp: str, now_s: float, expires_s: int | None = None) -> str | None:
    """The error code of a claim made at `stamp` and checked at `now_s`."""
    payload = sigv4.UNSIGNED
    claim = sigv4.Claim(ACCESS, stamp[:8], REGION, stamp, ("host",), "", payload, expires_s is not None, expires_s or 0)
    request = sigv4.Request("GET", "/b/k", [], {"host": "h"})
    signature = sigv4.sign(sigv4.signing_key(SECRET, stamp[:8], REGION), sigv4.string_to_sign(claim, request))
    claim = sigv4.Claim(
        ACCESS, stamp[:8], REGION, stamp, ("host",), signature, payload, expires_s is not None, expires_s or 0
    )
    try:
        sigv4.check(claim, request, SECRET, REGION, now_s, 900, 604800)
    except sigv4.S3Error as error:
        return error.code
    return None


def test_example_of_the_signature_documentation() -> None:
    """The GET Object example of "Signature Calculations for the Authorization Header" in the S3 API reference."""
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": sigv4.EMPTY_SHA256,
        "x-amz-date": "20130524T000000Z",
    }
    request = sigv4.Request("GET", "/test.txt", [], headers)
    claim = sigv4.Claim(
        "AKIAIOSFODNN7EXAMPLE",
        "20130524",
        "us-east-1",
        "20130524T000000Z",
        tuple(sorted(headers)),
        "",
        sigv4.EMPTY_SHA256,
        presigned=False,
    )
    key = sigv4.signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1")
    assert (
        sigv4.sign(key, sigv4.string_to_sign(claim, request))
        == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_expect_100_continue(server: ServerProcess, bucket: str) -> None:
    """The interim answer comes before the body is sent, and not at all where the request is refused."""
    host = urlsplit(server.endpoint).netloc
    for secret, interim in ((SECRET, True), ("wrong", False)):
        target, headers, _ = signed(server.endpoint, "PUT", f"/{bucket}/k", body=b"hello", secret=secret)
        head = f"PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() != "host") + "\r\n"
        received = exchange(server.endpoint, head.encode() + (b"hello" if interim else b""), limit_s=5)
        assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\n") == interim
        assert (b"HTTP/1.1 200" in received) == interim


def test_the_query_is_signed_in_canonical_order() -> None:
    pairs = [("b", "2"), ("a", "x y"), ("a", "ü"), ("c", "")]
    assert sigv4.canonical_query(pairs, presigned=False) == "a=%C3%BC&a=x%20y&b=2&c="
    assert hashlib.sha256(b"").hexdigest() == sigv4.EMPTY_SHA256

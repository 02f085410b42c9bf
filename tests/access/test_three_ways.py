"""What a request asks for by x-amz- names is done or refused, whether a header, a presigned query or a form's field
says it."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from access import where
from access.test_buckets import put_policy, statement
from access.test_forms import post, presigned
from process import make_client
from raw import Answer, call, send, signed

server = where.server
UNTIL = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
KEY = base64.b64encode(bytes(range(32))).decode()
MD5 = base64.b64encode(hashlib.md5(bytes(range(32)), usedforsecurity=False).digest()).decode()
CUSTOMER = {
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": KEY,
    "x-amz-server-side-encryption-customer-key-md5": MD5,
}
# What a write may ask for.
ASKED: dict[str, dict[str, str]] = {
    "a lock": {
        "x-amz-object-lock-mode": "GOVERNANCE",
        "x-amz-object-lock-retain-until-date": UNTIL,
        "x-amz-checksum-sha1": base64.b64encode(hashlib.sha1(b"x", usedforsecurity=False).digest()).decode(),
    },
    "a hold": {
        "x-amz-object-lock-legal-hold": "ON",
        "x-amz-checksum-crc32": base64.b64encode((0x8CDC1683).to_bytes(4, "big")).decode(),
    },
    "tags": {"x-amz-tagging": "a=b&c=d%20e"},
    "encryption": {"x-amz-server-side-encryption": "AES256"},
    "a key of the KMS": {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "other",
    },
    "metadata": {"x-amz-meta-a": "b c", "x-amz-meta-z": "y"},
    "a redirect": {"x-amz-website-redirect-location": "/there"},
    "a class": {"x-amz-storage-class": "STANDARD"},
    "a checksum": {"x-amz-checksum-algorithm": "CRC32C"},
    "an owner": {"x-amz-expected-bucket-owner": "000000000000"},
    "a public ACL": {"x-amz-acl": "public-read"},
    "a grant": {"x-amz-grant-read": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
}


@pytest.fixture(scope="module")
def s3(server: Any) -> Any:
    return make_client(server.endpoint, signature_version="s3v4")


@pytest.fixture
def bucket(s3: Any) -> str:
    """With object lock and ACLs that count."""
    name = where.new_name()
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True, ObjectOwnership="ObjectWriter")
    s3.delete_public_access_block(Bucket=name)
    return name


def by_header(server: Any, method: str, path: str, said: dict[str, str], body: bytes = b"", query: str = "") -> Answer:
    return call(server.endpoint, method, path, headers=said, body=body, query=query)


def by_query(
    server: Any,
    method: str,
    path: str,
    said: dict[str, str],
    body: bytes = b"",
    query: str = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    """As JavaScript's SDK presigns."""
    whole = "&".join(one for one in (query, urlencode(said, quote_via=quote)) if one)
    endpoint = server.endpoint  # one gateway: its name is signed
    target, sent, _ = signed(endpoint, method, path, query=whole, presign_s=60, headers=headers)
    return send(endpoint, method, target, sent, body)


def seen(server: Any, bucket: str, key: str) -> tuple[dict[str, str], bytes, bytes]:
    """All that shows of an object but its name and its times."""
    head = call(server.endpoint, "HEAD", f"/{bucket}/{key}", headers={"x-amz-checksum-mode": "ENABLED"})
    assert head.status == 200
    own = (
        "etag" if head.headers.get("x-amz-server-side-encryption") == "aws:kms" else "",
        "x-amz-request-id",
        "x-amz-id-2",
        "x-amz-version-id",
        "date",
        "last-modified",
    )
    shown = {name: value for name, value in head.headers.items() if name not in own}
    asked = [call(server.endpoint, "GET", f"/{bucket}/{key}", query=what).body for what in ("tagging", "acl")]
    return shown, asked[0], asked[1]


@pytest.mark.parametrize("what", ASKED)
def test_a_header_a_query_and_a_field_do_the_same(server: Any, s3: Any, bucket: str, what: str) -> None:
    said = ASKED[what]
    assert by_header(server, "PUT", f"/{bucket}/header", said, b"x").status == 200
    answer = by_query(server, "PUT", f"/{bucket}/query", said, b"x")
    assert answer.status == 200, answer.body
    endpoint = server.endpoint
    target, _, _ = signed(
        endpoint, "PUT", f"/{bucket}/old", headers=said, presign_s=60, version=2
    )  # botocore moves them into the query
    assert send(endpoint, "PUT", target, {}, b"x").status == 200
    form = presigned(s3, bucket, "field", b"x", said, [{name: value} for name, value in said.items()])
    assert post(server.endpoint, bucket, form).status == 204
    plain = by_header(server, "PUT", f"/{bucket}/plain", {}, b"x")
    assert plain.status == 200
    wanted = seen(server, bucket, "header")
    assert seen(server, bucket, "query") == seen(server, bucket, "old") == seen(server, bucket, "field") == wanted
    if what not in ("a class", "an owner"):
        assert wanted != seen(server, bucket, "plain"), "the test asks for nothing"


@pytest.mark.parametrize("what", [one for one in ASKED if one != "a checksum"])
def test_an_upload_and_a_copy_take_the_same(server: Any, s3: Any, bucket: str, what: str) -> None:
    said = {name: value for name, value in ASKED[what].items() if "checksum" not in name}
    by_header(server, "PUT", f"/{bucket}/there", {}, b"x")
    more = {
        "x-amz-copy-source": f"/{bucket}/there",
        "x-amz-metadata-directive": "REPLACE",
        "x-amz-tagging-directive": "REPLACE",
    }
    for way, ask in (("header", by_header), ("query", by_query)):
        copied = ask(server, "PUT", f"/{bucket}/copy-{way}", {**said, **more})
        assert b"CopyObjectResult" in copied.body
        upload = ask(server, "POST", f"/{bucket}/upload-{way}", said, query="uploads")
        found = upload.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
        etag = s3.upload_part(Bucket=bucket, Key=f"upload-{way}", UploadId=found, PartNumber=1, Body=b"x")["ETag"]
        s3.complete_multipart_upload(
            Bucket=bucket,
            Key=f"upload-{way}",
            UploadId=found,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]},
        )
    for made in ("copy", "upload"):
        assert seen(server, bucket, f"{made}-header") == seen(server, bucket, f"{made}-query")


def test_a_presigned_copy_copies(server: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="there", Body=b"precious")
    s3.put_object(Bucket=bucket, Key="here", Body=b"old")
    assert by_query(server, "PUT", f"/{bucket}/here", {"X-Amz-Copy-Source": f"/{bucket}/there"}).status == 200
    assert s3.get_object(Bucket=bucket, Key="here")["Body"].read() == b"precious"
    unless = {"x-amz-copy-source": f"/{bucket}/there", "x-amz-copy-source-if-match": '"0"'}
    assert by_query(server, "PUT", f"/{bucket}/here", unless).code == "PreconditionFailed"


def test_what_a_query_says_holds(server: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    other = {"x-amz-expected-bucket-owner": "111111111111"}
    for method in ("GET", "PUT", "DELETE"):
        assert by_query(server, method, f"/{bucket}/k", other).code == "AccessDenied"
    assert by_query(server, "PUT", f"/{bucket}/k", {"x-amz-checksum-crc32": "AAAAAA=="}, b"x").code == "BadDigest"
    assert by_query(server, "PUT", f"/{bucket}/c", CUSTOMER, b"secret").status == 200
    assert by_header(server, "GET", f"/{bucket}/c", {}).code == "InvalidRequest"
    assert by_query(server, "GET", f"/{bucket}/c", CUSTOMER).body == b"secret"
    locked = s3.put_object(
        Bucket=bucket, Key="l", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=UNTIL
    )["VersionId"]
    assert by_query(server, "DELETE", f"/{bucket}/l", {}, query=f"versionId={locked}").code == "AccessDenied"
    assert (
        by_query(
            server, "DELETE", f"/{bucket}/l", {"x-amz-bypass-governance-retention": "true"}, query=f"versionId={locked}"
        ).status
        == 204
    )


def test_both_ways_say_the_same_or_nothing(server: Any, bucket: str) -> None:
    one, other = {"x-amz-meta-a": "1"}, {"x-amz-meta-a": "2"}
    assert by_query(server, "PUT", f"/{bucket}/k", one, b"x", headers=dict(other)).code in (
        "InvalidArgument",
        "AccessDenied",
    )
    assert (
        by_query(server, "PUT", f"/{bucket}/k", {}, b"x", query="x-amz-meta-a=1&X-Amz-Meta-A=2").code
        == "InvalidArgument"
    )
    assert (
        call(server.endpoint, "PUT", f"/{bucket}/k", headers=one, query="x-amz-meta-a=2", body=b"x").code
        == "InvalidArgument"
    )
    assert call(server.endpoint, "HEAD", f"/{bucket}/k").status == 404
    assert call(server.endpoint, "PUT", f"/{bucket}/k", headers=one, query="x-amz-meta-a=1", body=b"x").status == 200


def test_a_name_of_next_year_is_refused(server: Any, s3: Any, bucket: str) -> None:
    said = {"x-amz-object-embargo-until": "2030-01-01"}
    for answer in (
        by_header(server, "PUT", f"/{bucket}/k", said, b"x"),
        by_query(server, "PUT", f"/{bucket}/k", said, b"x"),
        post(server.endpoint, bucket, presigned(s3, bucket, "k", b"x", said, [said])),
    ):
        assert (answer.status, answer.code) == (501, "NotImplemented")
        assert b"x-amz-object-embargo-until" in answer.body
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_parts_and_completions_agree_with_their_upload(server: Any, s3: Any, bucket: str) -> None:
    """minio-go says how an object is encrypted with each of its parts, and once more at the end."""
    key = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "other"}
    upload = s3.create_multipart_upload(
        Bucket=bucket, Key="k", ServerSideEncryption="aws:kms", SSEKMSKeyId="other", ChecksumAlgorithm="CRC32"
    )["UploadId"]
    wrong = (
        {"x-amz-server-side-encryption": "AES256"},
        {**key, "x-amz-server-side-encryption-aws-kms-key-id": "first"},
        {"x-amz-checksum-type": "FULL_OBJECT"},
    )
    for said in wrong:
        assert by_header(server, "PUT", f"/{bucket}/k", said, b"x", f"partNumber=1&uploadId={upload}").status == 400
    crc = base64.b64encode((0x8CDC1683).to_bytes(4, "big")).decode()
    more = {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "COMPOSITE", "x-amz-checksum-crc32": crc}
    etag = by_header(server, "PUT", f"/{bucket}/k", {**key, **more}, b"x", f"partNumber=1&uploadId={upload}").headers[
        "etag"
    ]
    listed = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag><ChecksumCRC32>{crc}</ChecksumCRC32></Part></CompleteMultipartUpload>".encode()
    for said in (*wrong, {"x-amz-checksum-crc32c": "AAAAAA=="}, CUSTOMER):
        assert by_header(server, "POST", f"/{bucket}/k", said, listed, f"uploadId={upload}").status == 400, said
    for _ in range(2):
        assert (
            b"CompleteMultipartUploadResult"
            in by_header(server, "POST", f"/{bucket}/k", key, listed, f"uploadId={upload}").body
        )


# -- requests that nobody signed


def bare(server: Any, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    endpoint = server.endpoint
    return send(endpoint, method, path, {"Host": urlsplit(endpoint).netloc, **(headers or {})}, body)


@pytest.fixture
def public(s3: Any, bucket: str) -> str:
    put_policy(s3, bucket, statement(bucket, ["s3:GetObject", "s3:PutObject"], who="*"))
    s3.put_object(Bucket=bucket, Key="k", Body=b"there")
    return bucket


def test_strangers_do_not_say_how_an_answer_looks(server: Any, s3: Any, public: str) -> None:
    assert bare(server, "GET", f"/{public}/k").body == b"there"
    answer = bare(server, "GET", f"/{public}/k?response-content-type=text%2Fhtml")
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert bare(server, "HEAD", f"/{public}/k?response-content-disposition=a").status == 400
    assert (
        by_query(server, "GET", f"/{public}/k", {}, query="response-content-type=text%2Fhtml").headers["content-type"]
        == "text/html"
    )


def test_strangers_begin_no_uploads_and_copy_nothing(server: Any, public: str) -> None:
    assert bare(server, "POST", f"/{public}/m?uploads").code == "AccessDenied"
    assert bare(server, "PUT", f"/{public}/c", {"x-amz-copy-source": f"/{public}/k"}).code == "AccessDenied"
    assert bare(server, "PUT", f"/{public}/c?x-amz-copy-source=/{public}/k").code == "AccessDenied"


def test_a_hash_that_nobody_signed_is_checked(server: Any, s3: Any, public: str) -> None:
    right, wrong = hashlib.sha256(b"new").hexdigest(), hashlib.sha256(b"old").hexdigest()
    assert (
        bare(server, "PUT", f"/{public}/k", {"x-amz-content-sha256": wrong}, b"new").code == "XAmzContentSHA256Mismatch"
    )
    assert bare(server, "PUT", f"/{public}/k", {"x-amz-content-sha256": "nonsense"}, b"new").code == "InvalidArgument"
    assert s3.get_object(Bucket=public, Key="k")["Body"].read() == b"there"
    assert bare(server, "PUT", f"/{public}/k", {"x-amz-content-sha256": right}, b"new").status == 200


def test_chunks_that_nobody_signed_are_decoded_or_refused(server: Any, s3: Any, public: str) -> None:
    framed = (
        b"3\r\nnew\r\n0\r\n"
        + b"x-amz-checksum-crc32:"
        + base64.b64encode((0xE3A7C146).to_bytes(4, "big"))
        + b"\r\n\r\n"
    )
    plain = b"3\r\nnew\r\n0\r\n\r\n"
    chunked = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": "3"}
    for mode in ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"):
        assert (
            bare(server, "PUT", f"/{public}/k", {**chunked, "x-amz-content-sha256": mode}, plain).code
            == "InvalidRequest"
        )
    wrong = {
        **chunked,
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    }
    assert bare(server, "PUT", f"/{public}/k", wrong, framed).code == "BadDigest"
    for more in ({"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}, {}):
        assert bare(server, "PUT", f"/{public}/k", {**chunked, **more}, plain).status == 200
        assert s3.get_object(Bucket=public, Key="k")["Body"].read() == b"new"
        s3.put_object(Bucket=public, Key="k", Body=b"there")

"""Version 2 of the signature: where it is taken, what it covers, when it ends. tests/s3/test_signing.py has its every
write."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from process import ACCESS, REGION, SECRET, ServerProcess, make_client
from raw import Answer, call, send, signed
from s4.s3 import sigv2, sigv4

NOW = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
GUIDE = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
# "Signing and authenticating REST requests", its examples: method, path as sent, bucket of the host, headers,
# signature.
EXAMPLES: dict[str, tuple[str, str, str, dict[str, str], str]] = {
    "Object GET": (
        "GET",
        "/photos/puppy.jpg",
        "awsexamplebucket1",
        {"date": "Tue, 27 Mar 2007 19:36:42 +0000"},
        "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=",
    ),
    "Object PUT": (
        "PUT",
        "/photos/puppy.jpg",
        "awsexamplebucket1",
        {"content-type": "image/jpeg", "date": "Tue, 27 Mar 2007 21:15:45 +0000"},
        "iqRzw+ileNPu1fhspnRs8nOjjIA=",
    ),
    "List": (
        "GET",
        "/?prefix=photos&max-keys=50&marker=puppy",
        "awsexamplebucket1",
        {"date": "Tue, 27 Mar 2007 19:42:41 +0000"},
        "m0WP8eCtspQl5Ahe6L1SozdX9YA=",
    ),
    "Fetch": (
        "GET",
        "/?acl",
        "awsexamplebucket1",
        {"date": "Tue, 27 Mar 2007 19:44:46 +0000"},
        "82ZHiFIjc+WbcwFKGUVEQspPn+0=",
    ),
}


def request_of(target: str, headers: dict[str, str] | None = None, method: str = "GET") -> sigv4.Request:
    path, _, query = target.partition("?")
    return sigv4.Request(method, path, sigv4.parse_query(query), {"host": "h", **(headers or {})})


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_guide(example: str) -> None:
    method, target, virtual, headers, signature = EXAMPLES[example]
    request = request_of(target, {**headers, "authorization": f"AWS {GUIDE[0]}:{signature}"}, method)
    old = sigv2.parse(request, virtual, "all", REGION)
    assert sigv2.sign(GUIDE[1], old.texts[0]) == signature
    assert old.claim.access_key == GUIDE[0]
    sigv2.check(old, GUIDE[1], sigv4.parse_time(old.claim.timestamp) + 1, 900, 604_800)


def checked(old: Callable[[], sigv2.OldClaim], now_s: float = NOW) -> str:
    """The code that a claim is refused with, once it is signed."""
    try:
        sigv2.check(old(), SECRET, now_s, 900, 604_800)
    except sigv4.S3Error as error:
        return error.code
    return ""


def in_headers(date: str, name: str = "date") -> Callable[[], sigv2.OldClaim]:
    def make(signature: str = "a") -> sigv2.OldClaim:
        return sigv2.parse(
            request_of("/b/k", {name: date, "authorization": f"AWS {ACCESS}:{signature}"}), "", "all", REGION
        )

    return lambda: make(sigv2.sign(SECRET, make().texts[0]))


def in_address(ends: str) -> Callable[[], sigv2.OldClaim]:
    def make(signature: str = "a") -> sigv2.OldClaim:
        target = f"/b/k?AWSAccessKeyId={ACCESS}&Expires={ends}&Signature={signature}"
        return sigv2.parse(request_of(target), "", "query", REGION)

    return lambda: make(sigv2.sign(SECRET, make().texts[0]).replace("+", "%2B"))


def test_clocks_and_ends() -> None:
    """As version 4 has them: a quarter of an hour either way, a week at most."""
    for after_s, code in (
        (0, ""),
        (900, ""),
        (-900, ""),
        (901, "RequestTimeTooSkewed"),
        (-901, "RequestTimeTooSkewed"),
    ):
        assert checked(in_headers(DATE), NOW + after_s) == code
        assert checked(in_headers(DATE.replace("GMT", "+0000"), "x-amz-date"), NOW + after_s) == code
        for same in ("20231114T221320Z", "Tue, 14 Nov 2023 23:13:20 +0100", "Tuesday, 14-Nov-23 22:13:20 GMT"):
            assert checked(in_headers(same), NOW + after_s) == code
    for ends, code in (
        (NOW, ""),
        (NOW + 604_800, ""),
        (NOW - 1, "AccessDenied"),
        (NOW + 604_800 + 901, "AccessDenied"),
        (0, "AccessDenied"),
        (10**11, "AccessDenied"),
    ):
        assert checked(in_address(str(ends))) == code, ends
    for nonsense in ("", "soon", "1e3", "-1", "٣", "9" * 30, "1700000000.5"):
        assert checked(in_address(nonsense)) == "AccessDenied", nonsense
    for nonsense in ("", "yesterday", "Tue, 14 Nov 2023 22:13:20", str(NOW)):
        assert checked(in_headers(nonsense)) == "AccessDenied", nonsense


def test_the_wrong_secret_and_signatures_that_are_none() -> None:
    for signature in ("", "a", "ä", "=" * 28, "\udcff", "A" * 10_000):
        request = request_of("/b/k", {"date": DATE, "authorization": f"AWS {ACCESS}:{signature}"})
        assert checked(lambda request=request: sigv2.parse(request, "", "all", REGION)) == "SignatureDoesNotMatch"  # type: ignore[misc]
    for header in ("AWS ", "AWS a", "AWS :b"):
        with pytest.raises(sigv4.S3Error, match="Expected AwsAccessKeyId:signature"):
            sigv2.parse(request_of("/", {"authorization": header, "date": DATE}), "", "all", REGION)


def test_the_mode_decides_where_it_is_taken() -> None:
    address, header = (
        request_of(f"/b/k?AWSAccessKeyId=a&Expires={NOW}&Signature=b"),
        request_of("/b/k", {"date": DATE, "authorization": "AWS a:b"}),
    )
    form = {"awsaccesskeyid": "a", "policy": "", "signature": "b"}
    taken = {
        mode: [
            _is_taken(lambda mode=mode: sigv2.parse(address, "", mode, REGION)),
            _is_taken(lambda mode=mode: sigv2.parse(header, "", mode, REGION)),
            _is_taken(lambda mode=mode: sigv2.parse_form(form, mode, REGION)),
        ]
        for mode in sigv2.MODES
    }
    assert taken == {"query": [True, False, False], "all": [True, True, True], "off": [False, False, False]}


def _is_taken(what: Callable[[], Any]) -> bool:
    try:
        what()
    except sigv4.OldSignatureError as error:
        assert "--signature-v2" in error.message
        assert error.status == 400
        return False
    return True


def test_how_a_key_is_spelled_changes_nothing() -> None:
    """s3cmd encodes `~`, Python's HTTP clients send it as it is."""
    claims = [
        sigv2.parse(request_of(f"/b/{key}?AWSAccessKeyId=a&Expires=1&Signature=b"), "", "query", REGION)
        for key in ("a~b%20c", "a%7Eb%20c")
    ]
    assert set(claims[0].texts) & set(claims[1].texts)


def test_a_listing_as_botocore_of_debian_12_signs_it() -> None:
    own = "AWSAccessKeyId=a&Expires=1&Signature=b"
    signed = "GET\n\n\n1\n/b?list-type=2"
    for path, takes in ((f"/b?list-type=2&prefix=p&{own}", True), (f"/b?{own}", False), (f"/b/k?{own}", False)):
        assert (signed in sigv2.parse(request_of(path), "", "query", REGION).texts) is takes


def by_default(own_server: Callable[..., ServerProcess], *options: str) -> ServerProcess:
    server = own_server(*options)
    make_client(server.endpoint).create_bucket(Bucket="own")
    return server


def test_presigned_addresses_by_default_and_nothing_else(own_server: Callable[..., ServerProcess]) -> None:
    server = by_default(own_server)
    plain = make_client(server.endpoint)
    for method, options in (("put_object", {"Body": b""}), ("get_object", {})):
        url = plain.generate_presigned_url(method, Params={"Bucket": "own", "Key": "ä b/~+&=", **options})
        assert "AWSAccessKeyId=" in url, "boto3 signs by version 4 now: this test tries nothing"
        answer = send(
            server.endpoint,
            "PUT" if method == "put_object" else "GET",
            url.removeprefix(server.endpoint),
            {},
            b"there" if options else b"",
        )
        assert answer.status == 200, answer.body
    assert answer.body == b"there"
    header = call(server.endpoint, "GET", "/own/k", version=2)
    assert (header.status, header.code) == (400, "InvalidRequest")
    assert b"--signature-v2 all" in header.body
    form = plain.generate_presigned_post("own", "k")
    assert "signature" in form["fields"], "boto3 signs forms by version 4 now"
    refused = _post(server, form["fields"])
    assert (refused.status, refused.code) == (400, "InvalidRequest")
    assert b"--signature-v2 all" in refused.body


def test_presigned_listings(server: ServerProcess, s3: Any, bucket: str) -> None:
    """boto3's defaults, as S3 takes them: what part is wanted is not signed, and only listings have it."""
    for key in ("a/1", "a/2 +", "b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m/ n")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="m/ n", UploadId=upload, PartNumber=1, Body=b"x")
    plain = make_client(server.endpoint)
    for method, options, there, not_there in (
        (
            "list_objects_v2",
            {"Prefix": "a/", "MaxKeys": 1, "FetchOwner": True, "EncodingType": "url"},
            b"<Key>a/1</Key>",
            b"a/2",
        ),
        ("list_objects_v2", {"StartAfter": "a/1", "Delimiter": "/"}, b"<Key>b</Key>", b"<Key>a/1"),
        ("list_objects", {"Prefix": "a/", "Marker": "a/1"}, b"<Key>a/2", b"<Key>a/1"),
        ("list_object_versions", {"Prefix": "b", "KeyMarker": "a"}, b"<Key>b</Key>", b"a/1"),
        ("list_multipart_uploads", {"Prefix": "m", "MaxUploads": 5}, upload.encode(), b"a/1"),
        (
            "list_parts",
            {"Key": "m/ n", "UploadId": upload, "MaxParts": 3, "PartNumberMarker": 0},
            b"<PartNumber>1</PartNumber>",
            b"a/1",
        ),
        ("list_buckets", {"Prefix": bucket, "MaxBuckets": 3}, bucket.encode(), b"a/1"),
    ):
        where = {} if method == "list_buckets" else {"Bucket": bucket}
        url = plain.generate_presigned_url(method, Params={**where, **options})
        assert "AWSAccessKeyId=" in url, "boto3 signs by version 4 now: this test tries nothing"
        answer = send(server.endpoint, "GET", url.removeprefix(server.endpoint), {})
        assert answer.status == 200, (method, answer.body)
        assert there in answer.body, (method, answer.body)
        assert not_there not in answer.body, (method, answer.body)
    listing = plain.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket}).removeprefix(server.endpoint)
    for more in ("acl", "uploads", "versions", "policy", "tagging", "versionId=a"):
        assert send(server.endpoint, "GET", f"{listing}&{more}", {}).code == "SignatureDoesNotMatch", more
    for method in ("PUT", "DELETE", "HEAD"):
        assert send(server.endpoint, method, listing, {}).status == 403
    read = plain.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "b"}).removeprefix(
        server.endpoint
    )
    for more in ("prefix=a", "list-type=2", "max-parts=1", "delimiter=%2F"):
        assert send(server.endpoint, "GET", f"{read}&{more}", {}).code == "AccessDenied", more


def _post(server: ServerProcess, fields: dict[str, str]) -> Answer:
    from access.test_forms import post

    return post(server.endpoint, "own", {**fields, "file": ("f", b"x")})


def test_off_refuses_it_everywhere(own_server: Callable[..., ServerProcess]) -> None:
    server = by_default(own_server, "--signature-v2", "off")
    for presign_s, needed in ((0, b"--signature-v2 all"), (60, b"--signature-v2 query")):
        answer = call(server.endpoint, "GET", "/own/k", version=2, presign_s=presign_s)
        assert (answer.status, answer.code) == (400, "InvalidRequest")
        assert needed in answer.body


def test_what_an_address_says_counts(server: ServerProcess, s3: Any, bucket: str) -> None:
    """boto3 puts the type and metadata of a presigned PUT into its query."""
    plain = make_client(server.endpoint)
    url = plain.generate_presigned_url(
        "put_object", Params={"Bucket": bucket, "Key": "k", "ContentType": "image/png", "Metadata": {"a": "b"}}
    )
    target = url.removeprefix(server.endpoint)
    assert send(server.endpoint, "PUT", target, {"Content-Type": "text/html"}, b"x").code == "InvalidArgument"
    for headers in ({}, {"Content-Type": "image/png"}):
        assert send(server.endpoint, "PUT", target, headers, b"x").status == 200
        head = s3.head_object(Bucket=bucket, Key="k")
        assert (head["ContentType"], head["Metadata"]) == ("image/png", {"a": "b"})
    shown = plain.generate_presigned_url(
        "get_object",
        Params={"Bucket": bucket, "Key": "k", "ResponseContentDisposition": 'attachment; filename="a b.png"'},
    )
    with urlopen(shown) as answer:
        assert answer.headers["Content-Disposition"] == 'attachment; filename="a b.png"'


def test_a_bucket_in_the_host_is_signed(own_server: Callable[..., ServerProcess]) -> None:
    server = by_default(own_server, "--domain", "s4.example", "--signature-v2", "all")
    make_client(server.endpoint).put_object(Bucket="own", Key="k", Body=b"x")
    port = urlsplit(server.endpoint).port
    ends = str(int(time.time()) + 60)
    signature = sigv2.sign(SECRET, f"GET\n\n\n{ends}\n/own/k").replace("+", "%2B")
    target = f"/k?AWSAccessKeyId={ACCESS}&Expires={ends}&Signature={signature}"
    assert send(server.endpoint, "GET", target, {"Host": f"own.s4.example:{port}"}).body == b"x"
    assert send(server.endpoint, "GET", target, {"Host": f"other.s4.example:{port}"}).code == "SignatureDoesNotMatch"
    assert send(server.endpoint, "GET", f"{target}&prefix=a", {"Host": f"own.s4.example:{port}"}).code == "AccessDenied"
    signature = sigv2.sign(SECRET, f"GET\n\n\n{ends}\n/own/").replace("+", "%2B")
    listing = f"/?prefix=k&AWSAccessKeyId={ACCESS}&Expires={ends}&Signature={signature}"
    assert b"<Key>k</Key>" in send(server.endpoint, "GET", listing, {"Host": f"own.s4.example:{port}"}).body


def test_chunks_are_signed_by_nobody(server: ServerProcess, bucket: str) -> None:
    for mode in ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"):
        more = {"x-amz-content-sha256": mode, "x-amz-decoded-content-length": "1"}
        for presign_s in (0, 60):
            assert call(
                server.endpoint,
                "PUT",
                f"/{bucket}/k",
                headers=more,
                body=b"1\r\nx\r\n0\r\n\r\n",
                version=2,
                presign_s=presign_s,
            ).code in ("InvalidRequest", "InvalidArgument")
    wrong = {"x-amz-content-sha256": sigv4.EMPTY_SHA256}
    assert (
        call(server.endpoint, "PUT", f"/{bucket}/k", headers=wrong, body=b"x", version=2).code
        == "XAmzContentSHA256Mismatch"
    )


def test_listings_in_headers(server: ServerProcess, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"x")
    assert (
        b"<Key>a/b</Key>"
        in call(server.endpoint, "GET", f"/{bucket}", query="list-type=2&prefix=a%2F&max-keys=3", version=2).body
    )
    answer = call(
        server.endpoint,
        "GET",
        f"/{bucket}/a/b",
        query="attributes",
        version=2,
        headers={"x-amz-object-attributes": "ETag"},
    )
    assert (answer.status, answer.code) == (403, "AccessDenied")
    target, headers, _ = signed(server.endpoint, "GET", f"/{bucket}/a/b", version=2)
    for more in ("acl", "versionId=null", "x-amz-meta-a=b"):
        assert send(server.endpoint, "GET", f"{target}?{more}", headers).status in (400, 403), more

"""A browser's form that uploads: fields, policies, signatures and answers, through botocore's own presigned posts."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
from collections.abc import Mapping
from email.header import decode_header, make_header
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore import UNSIGNED
from urllib3 import encode_multipart_formdata

from access import where
from access.accounts import allow, client
from access.test_buckets import put_policy, statement
from process import make_client
from raw import Answer
from s4.s3.errors import S3Error
from s4.s3.postpolicy import parse as parse_policy

server, bucket = where.server, where.bucket


@pytest.fixture(scope="module")
def s3(server: Any) -> Any:
    """botocore presigns posts by the old signature if it is not told otherwise."""
    return make_client(server.endpoint, signature_version="s3v4")


def post(
    endpoint: str,
    bucket: str,
    fields: Mapping[str, Any] | bytes,
    kind: str = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """`fields` in order; a file is (name, bytes)."""
    body, made = (fields, kind) if isinstance(fields, bytes) else encode_multipart_formdata(dict(fields))
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("POST", f"/{bucket}", body, {"Content-Type": kind or made, **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def presigned(
    s3: Any,
    bucket: str,
    name: str,
    content: bytes,
    fields: dict[str, str] | None = None,
    conditions: list[Any] | None = None,
    *,
    expires: int = 60,
    **more: str,
) -> dict[str, Any]:
    """The form of botocore's presigned post; `more` are changed after the signing."""
    made = s3.generate_presigned_post(bucket, name, Fields=fields, Conditions=conditions, ExpiresIn=expires)["fields"]
    return {**made, **more, "file": ("holiday.jpg", content)}


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 70_000, 9_000_000])
def test_what_a_form_brings_is_what_is_there(server: Any, s3: Any, bucket: str, size: int) -> None:
    content = os.urandom(size)
    fields = {
        "Content-Type": "image/jpeg",
        "x-amz-meta-who": "ana ä",
        "Cache-Control": "no-store",
        "tagging": "<Tagging><TagSet><Tag><Key>a b</Key><Value>c&amp;d</Value></Tag></TagSet></Tagging>".replace(
            "&amp;d", "+d"
        ),
    }
    answer = post(
        server.endpoint,
        bucket,
        presigned(
            s3,
            bucket,
            "in/${filename}",
            content,
            fields,
            [{one: value} for one, value in fields.items()] + [["starts-with", "$key", "in/"]],
        ),
    )
    assert (answer.status, answer.body) == (204, b""), answer.body
    assert answer.headers["location"].endswith(f"/{bucket}/in/holiday.jpg")
    got = s3.get_object(Bucket=bucket, Key="in/holiday.jpg")
    assert got["Body"].read() == content
    assert (got["ContentType"], got["CacheControl"], got["ETag"]) == ("image/jpeg", "no-store", answer.headers["etag"])
    assert str(make_header(decode_header(got["Metadata"]["who"]))) == "ana ä"
    assert s3.get_object_tagging(Bucket=bucket, Key="in/holiday.jpg")["TagSet"] == [{"Key": "a b", "Value": "c+d"}]


def test_answers_are_what_the_form_asks_for(server: Any, s3: Any, bucket: str) -> None:
    def ask(**fields: str) -> Answer:
        return post(
            server.endpoint,
            bucket,
            presigned(s3, bucket, "ä b", b"x", fields, [{one: value} for one, value in fields.items()]),
        )

    made = ask(success_action_status="201")
    assert made.status == 201
    assert b"<Key>\xc3\xa4 b</Key>" in made.body
    assert f"<Location>{made.headers['location']}</Location>".encode() in made.body
    assert ask(success_action_status="200").status == 200
    assert ask(success_action_status="404").status == 204
    sent = ask(success_action_redirect="https://example.org/done?a=1")
    assert sent.status == 303
    target = urlsplit(sent.headers["location"])
    assert (target.netloc, target.path) == ("example.org", "/done")
    assert parse_qs(target.query) == {"a": ["1"], "bucket": [bucket], "key": ["ä b"], "etag": [sent.headers["etag"]]}
    for nowhere in ("javascript:alert(1)", "https://[example.org/done", "https://example.org\u2100/done"):
        assert ask(success_action_redirect=nowhere).status == 204


def test_a_policy_is_obeyed(server: Any, s3: Any, bucket: str) -> None:
    def ask(
        size: int = 10,
        fields: dict[str, str] | None = None,
        conditions: list[Any] | None = None,
        signed_key: str = "k",
        expires: int = 60,
        **more: str,
    ) -> str:
        return post(
            server.endpoint,
            bucket,
            presigned(s3, bucket, signed_key, b"x" * size, fields, conditions, expires=expires, **more),
        ).code

    assert not ask(conditions=[["content-length-range", 10, 10]])
    assert ask(11, conditions=[["content-length-range", 1, 10]]) == "EntityTooLarge"
    assert ask(9_000_000, conditions=[["content-length-range", 1, 8_000_000]]) == "EntityTooLarge"
    assert ask(9, conditions=[["content-length-range", 10, 20]]) == "EntityTooSmall"
    assert ask(70_000, conditions=[["content-length-range", 80_000, 90_000]]) == "EntityTooSmall"
    assert ask(signed_key="other") == ""
    assert ask(key="changed-after") == "AccessDenied"
    assert ask(acl="public-read") == "AccessDenied"
    assert not ask(**{"x-ignore-me": "1"})
    assert ask(expires=-1) == "AccessDenied"
    assert (
        ask(fields={"Content-Type": "text/html"}, conditions=[["starts-with", "$Content-Type", "image/"]])
        == "AccessDenied"
    )
    assert not ask(fields={"Content-Type": "image/png"}, conditions=[["starts-with", "$content-type", "image/"]])
    assert not ask(fields={"Content-Type": "image/png"}, conditions=[["starts-with", "$Content-Type", ""]])
    other = s3.generate_presigned_post("another-bucket", "k")["fields"]
    assert post(server.endpoint, bucket, {**other, "file": ("f", b"x")}).code == "AccessDenied"


def test_a_form_stores_what_its_policy_covers(server: Any, s3: Any, bucket: str) -> None:
    """No more: neither headers of the HTTP request, nor a type behind a comma, nor in a bucket that the policy does
    not name."""
    browser = {
        "Cache-Control": "no-cache",
        "Content-Encoding": "gzip",
        "Expires": "0",
        "Content-Language": "de",
        "User-Agent": "test",
    }
    assert post(server.endpoint, bucket, presigned(s3, bucket, "k", b"x"), headers=browser).status == 204
    got = s3.head_object(Bucket=bucket, Key="k")
    assert not {"CacheControl", "ContentEncoding", "Expires", "ContentLanguage"} & set(got)
    types = [["starts-with", "$Content-Type", "image/"]]
    for listed, code in (
        ("image/png,image/jpeg", ""),
        ("image/png, text/html", "AccessDenied"),
        ("image/png,", "AccessDenied"),
    ):
        assert (
            post(server.endpoint, bucket, presigned(s3, bucket, "t", b"x", {"Content-Type": listed}, types)).code
            == code
        ), listed
    for name in (
        "x-amz-acl",
        "x-amz-meta-a",
        "x-amz-storage-class",
        "x-amz-expected-bucket-owner",
        "Content-MD5",
        "Authorization",
    ):
        answer = post(server.endpoint, bucket, presigned(s3, bucket, "h", b"x"), headers={name: "a"})
        assert answer.code == "InvalidArgument", name
    assert (
        post(
            server.endpoint,
            bucket,
            presigned(
                s3, bucket, "h", b"x", {"x-amz-meta-a: b\u00a0": "c"}, [["starts-with", "$x-amz-meta-a: b\u00a0", ""]]
            ),
        ).code
        == "InvalidArgument"
    )
    assert code_of_listing(s3, bucket) == ["k", "t"]


def test_a_policy_without_a_bucket_is_for_none() -> None:
    conditions: list[Any] = [["starts-with", "$key", ""]]
    made = {"expiration": "2030-01-01T00:00:00Z", "conditions": conditions}
    for more, good in (
        ([], False),
        ([{"bucket": "other"}], False),
        ([{"bucket": "mine"}], True),
        ([["starts-with", "$bucket", "mi"]], True),
    ):
        policy = parse_policy(
            base64.b64encode(json.dumps({**made, "conditions": [*conditions, *more]}).encode()).decode()
        )
        if good:
            policy.check({"key": "k", "bucket": "mine"}, 0.0)
        else:
            with pytest.raises(S3Error, match=r"bucket"):
                policy.check({"key": "k", "bucket": "mine"}, 0.0)


def test_signatures_are_checked(server: Any, s3: Any, bucket: str) -> None:
    good = presigned(s3, bucket, "k", b"x")
    assert post(server.endpoint, bucket, {**good, "x-amz-signature": "0" * 64}).code == "SignatureDoesNotMatch"
    loose = json.loads(base64.b64decode(good["policy"]))
    loose["conditions"].append(["starts-with", "$x-amz-meta-a", ""])
    changed = base64.b64encode(json.dumps(loose).encode()).decode()
    assert post(server.endpoint, bucket, {**good, "policy": changed}).code == "SignatureDoesNotMatch"
    assert (
        post(server.endpoint, bucket, {**good, "x-amz-credential": good["x-amz-credential"].replace("/", "X/", 1)}).code
        == "InvalidAccessKeyId"
    )
    assert (
        post(
            server.endpoint, bucket, {**good, "x-amz-credential": good["x-amz-credential"].replace("/s3/", "/sts/")}
        ).code
        == "InvalidArgument"
    )
    for name in ("policy", "x-amz-signature", "x-amz-date", "x-amz-credential", "x-amz-algorithm"):
        assert (
            post(server.endpoint, bucket, {key: value for key, value in good.items() if key != name}).code
            == "InvalidArgument"
        ), name
    assert post(server.endpoint, bucket, {"AWSAccessKeyId": "k", "signature": "s", **good}).code == "InvalidArgument"
    assert code_of_listing(s3, bucket) == []


def test_forms_signed_by_version_2(server: Any, s3: Any, bucket: str) -> None:
    """As botocore presigns them where nobody says otherwise."""
    plain = make_client(server.endpoint)
    good = presigned(plain, bucket, "k", b"x", {"x-amz-meta-a": "b"}, [{"x-amz-meta-a": "b"}])
    assert post(server.endpoint, bucket, good).status == 204
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"a": "b"}
    s3.delete_object(Bucket=bucket, Key="k")
    loose = base64.b64encode(
        base64.b64decode(good["policy"]).replace(
            b'"conditions": [', b'"conditions": [["starts-with", "$x-amz-acl", ""], '
        )
    ).decode()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({**good, "signature": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}, "SignatureDoesNotMatch"),
        ({**good, "signature": ""}, "SignatureDoesNotMatch"),
        ({name: value for name, value in good.items() if name != "signature"}, "SignatureDoesNotMatch"),
        ({**good, "policy": loose}, "SignatureDoesNotMatch"),
        ({**good, "AWSAccessKeyId": "nobody"}, "InvalidAccessKeyId"),
        ({name: value for name, value in good.items() if name != "policy"}, "InvalidArgument"),
        (
            {
                "AWSAccessKeyId": good["AWSAccessKeyId"],
                "signature": good["signature"],
                **presigned(s3, bucket, "k", b"x"),
            },
            "InvalidArgument",
        ),
        ({**good, "key": "other"}, "AccessDenied"),
        ({**good, "x-amz-meta-a": "c"}, "AccessDenied"),
        ({"acl": "private", **good}, "AccessDenied"),
        (presigned(plain, bucket, "k", b"x", expires=-1), "AccessDenied"),
        ({"key": "k", "signature": "a", "file": ("f", b"x")}, "InvalidArgument"),
    ]
    assert [post(server.endpoint, bucket, fields).code for fields, _ in wrong] == [code for _, code in wrong]
    assert code_of_listing(s3, bucket) == []


def code_of_listing(s3: Any, bucket: str) -> list[str]:
    return [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_form_may_do_what_its_signer_may(server: Any, s3: Any, bucket: str) -> None:
    iam = client(server, "iam")
    name = f"forms-{time.monotonic_ns()}"
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    iam.create_user(UserName=name)
    keys = iam.create_access_key(UserName=name)["AccessKey"]
    own = client(server, "s3", keys, signature_version="s3v4")
    assert post(server.endpoint, bucket, presigned(own, bucket, "mine/k", b"x")).code == "AccessDenied"
    assert (
        post(server.endpoint, bucket + "-none", presigned(own, bucket + "-none", "mine/k", b"x")).code == "AccessDenied"
    )
    document = allow(
        "s3:PutObject", resource=f"arn:aws:s3:::{bucket}/mine/*", Condition={"StringEquals": {"s3:authType": "POST"}}
    )
    iam.put_user_policy(UserName=name, PolicyName="forms", PolicyDocument=json.dumps(document))
    assert not post(server.endpoint, bucket, presigned(own, bucket, "mine/k", b"x")).code
    assert post(server.endpoint, bucket, presigned(own, bucket, "theirs/k", b"x")).code == "AccessDenied"
    tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    assert (
        post(
            server.endpoint, bucket, presigned(own, bucket, "mine/k", b"x", {"tagging": tags}, [{"tagging": tags}])
        ).code
        == "AccessDenied"
    )
    session = client(server, "sts", keys).get_session_token()["Credentials"]
    assert not post(
        server.endpoint,
        bucket,
        presigned(client(server, "s3", session, signature_version="s3v4"), bucket, "mine/s", b"x"),
    ).code
    assert {
        one["Key"]: one["Owner"]["DisplayName"]
        for one in s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    } == {"mine/k": name, "mine/s": name}


def test_strangers_write_where_a_bucket_lets_them(server: Any, s3: Any, bucket: str) -> None:
    form = {"key": "k", "file": ("f", b"from anybody")}
    assert post(server.endpoint, bucket, form).code == "AccessDenied"
    assert post(server.endpoint, bucket + "-none", form).code == "AccessDenied"
    s3.delete_public_access_block(Bucket=bucket)
    put_policy(s3, bucket, statement(bucket, "s3:PutObject", who="*"))
    assert post(server.endpoint, bucket, form).status == 204
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"from anybody"
    assert make_client(server.endpoint, signature_version=UNSIGNED).put_object(Bucket=bucket, Key="p", Body=b"x")


def test_a_files_name_that_is_no_utf_8_is_latin_1_as_in_other_headers(server: Any, s3: Any, bucket: str) -> None:
    body, kind = encode_multipart_formdata(presigned(s3, bucket, "in/${filename}", b"x"))
    named = body.replace(b'filename="holiday.jpg"', b'filename="\xfcbung.jpg"')
    assert post(server.endpoint, bucket, named, kind).status == 204
    assert code_of_listing(s3, bucket) == ["in/übung.jpg"]


def test_wrong_forms_get_clear_errors(server: Any, s3: Any, bucket: str) -> None:
    good = presigned(s3, bucket, "k", b"x")
    assert (
        post(server.endpoint, bucket, {name: value for name, value in good.items() if name != "file"}).code
        == "InvalidArgument"
    )
    assert (
        post(server.endpoint, bucket, {name: value for name, value in good.items() if name != "key"}).code
        == "InvalidArgument"
    )
    assert post(server.endpoint, bucket, {"pad": "x" * 21_000, **good}).code == "MaxPostPreDataLengthExceeded"
    assert post(server.endpoint, bucket, {**good, "key": "k" * 1025}).code == "KeyTooLongError"
    assert post(server.endpoint, bucket, {**good, "policy": "no policy"}).code == "InvalidPolicyDocument"
    assert post(server.endpoint, bucket, b"nonsense", "multipart/form-data; boundary=b").code == "MalformedPOSTRequest"
    assert post(server.endpoint, bucket, b"nonsense", "multipart/form-data").code == "MalformedPOSTRequest"
    assert (
        post(server.endpoint, bucket, b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b").code
        == "MalformedPOSTRequest"
    )
    for size in (100, 100_000):
        body, kind = encode_multipart_formdata({**good, "file": ("f", b"x" * size)})
        assert (
            post(server.endpoint, bucket, body[:-50], kind).code == "MalformedPOSTRequest"
        )  # without the boundary at the end
    for mode, error in (("AES128", "InvalidArgument"), ("aws:kms:dsse", "NotImplemented")):
        sse = presigned(
            s3, bucket, "k", b"x", {"x-amz-server-side-encryption": mode}, [{"x-amz-server-side-encryption": mode}]
        )
        assert post(server.endpoint, bucket, sse).code == error
    bad_sum = presigned(
        s3, bucket, "k", b"x", {"x-amz-checksum-crc32": "AAAAAA=="}, [{"x-amz-checksum-crc32": "AAAAAA=="}]
    )
    assert post(server.endpoint, bucket, bad_sum).code == "BadDigest"
    assert code_of_listing(s3, bucket) == []


def policy_code(server: Any, s3: Any, bucket: str, document: Any) -> str:
    """What a policy that is signed as it stands gets; botocore signs what it made itself, so the signature fits
    none."""
    text = base64.b64encode(json.dumps(document).encode()).decode()
    return post(server.endpoint, bucket, {**presigned(s3, bucket, "k", b"x"), "policy": text}).code


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"expiration": "2030-01-01T00:00:00Z"},
        {"conditions": []},
        {"expiration": "soon", "conditions": []},
        {"expiration": "2030-01-01T00:00:00", "conditions": []},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": [["eq", "key", "x"]]},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": [["like", "$key", "x"]]},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": [["content-length-range", "a", 1]]},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": [{"key": 1}]},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": [], "more": 1},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": ["key"]},
    ],
)
def test_policies_that_are_none(server: Any, s3: Any, bucket: str, document: Any) -> None:
    assert policy_code(server, s3, bucket, document) == "InvalidPolicyDocument"

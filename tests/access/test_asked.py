"""Actions that an operation needs besides its first, and who is told that something is not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from access import accounts, where
from access.accounts import allow, client, code
from raw import Answer, call

bucket, iam = where.bucket, accounts.iam


@pytest.fixture(scope="module")
def server(open_server: Any) -> Any:
    return open_server


@pytest.fixture(scope="module")
def s3(server: Any) -> Any:
    return client(server, "s3")


def keys_with_rights(iam: Any, *statements: dict[str, Any]) -> dict[str, str]:
    name = where.new_name()
    iam.create_user(UserName=name)
    iam.put_user_policy(
        UserName=name,
        PolicyName="p",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": list(statements)}),
    )
    return dict(iam.create_access_key(UserName=name)["AccessKey"])


def with_rights(server: Any, iam: Any, *statements: dict[str, Any]) -> Any:
    return client(server, "s3", keys_with_rights(iam, *statements))


def asked(
    server: Any,
    own: dict[str, str],
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes = b"",
    query: str = "",
) -> Answer:
    """A request of a user as it is written here, which an SDK would write otherwise."""
    access, secret = own["AccessKeyId"], own["SecretAccessKey"]
    return call(server.endpoint, method, path, query=query, headers=headers, body=body, access=access, secret=secret)


def one(*actions: str, effect: str = "Allow", resource: str = "*", **more: Any) -> dict[str, Any]:
    return dict(allow(*actions, effect=effect, resource=resource, **more)["Statement"][0])


def test_a_missing_copy_source_is_told_to_who_may_list_its_own_bucket(
    server: Any, s3: Any, iam: Any, bucket: str
) -> None:
    source, copy = where.new_name(), {"Bucket": bucket, "Key": "copy"}
    s3.create_bucket(Bucket=source)
    reads = one("s3:GetObject", "s3:PutObject")
    of_destination = with_rights(server, iam, reads, one("s3:ListBucket", resource=f"arn:aws:s3:::{bucket}"))
    of_source = with_rights(server, iam, reads, one("s3:ListBucket", resource=f"arn:aws:s3:::{source}"))
    upload = s3.create_multipart_upload(Bucket=bucket, Key="copy")["UploadId"]
    for who, told in ((of_destination, "AccessDenied"), (of_source, "NoSuchKey")):
        assert code(who.copy_object, CopySource=f"{source}/none", **copy) == told
        assert code(who.upload_part_copy, CopySource=f"{source}/none", UploadId=upload, PartNumber=1, **copy) == told


def test_how_many_tags_there_are_is_for_who_may_read_them(server: Any, s3: Any, iam: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="team=red&size=1")
    reads, of_tags = one("s3:GetObject"), one("s3:GetObject", "s3:GetObjectTagging")
    only_red = one("s3:GetObjectTagging", Condition={"StringEquals": {"s3:ExistingObjectTag/team": "red"}})
    only_blue = one("s3:GetObjectTagging", Condition={"StringEquals": {"s3:ExistingObjectTag/team": "blue"}})
    for statements, told in (((reads,), None), ((of_tags,), 2), ((reads, only_red), 2), ((reads, only_blue), None)):
        got = with_rights(server, iam, *statements).get_object(Bucket=bucket, Key="k")
        assert (got["Body"].read(), got.get("TagCount")) == (b"x", told)


def test_a_rename_needs_to_put_the_tags_that_move_along(server: Any, s3: Any, iam: Any, bucket: str) -> None:

    keys = []
    for refused in (True, False):
        name = where.new_name()
        iam.create_user(UserName=name)

        every = [
            one("s3:*"),
            *(
                [
                    one(
                        "s3:PutObjectTagging",
                        effect="Deny",
                        Condition={"StringEquals": {"s3:RequestObjectTag/team": "red"}},
                    )
                ]
                if refused
                else []
            ),
        ]
        iam.put_user_policy(
            UserName=name, PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": every})
        )
        keys.append(iam.create_access_key(UserName=name)["AccessKey"])
    s3.put_object(Bucket=bucket, Key="from", Body=b"x", Tagging="team=red")
    answers = [
        call(
            server.endpoint,
            "PUT",
            f"/{bucket}/to",
            query="renameObject",
            headers={"x-amz-rename-source": "from"},
            access=key["AccessKeyId"],
            secret=key["SecretAccessKey"],
        ).status
        for key in keys
    ]
    assert answers == [403, 200]


def test_a_deny_of_listing_buckets_is_an_error_and_no_empty_list(server: Any, iam: Any, bucket: str) -> None:
    assert (
        code(with_rights(server, iam, one("s3:*"), one("s3:ListAllMyBuckets", effect="Deny")).list_buckets)
        == "AccessDenied"
    )
    assert bucket in [found["Name"] for found in with_rights(server, iam, one("s3:*")).list_buckets()["Buckets"]]


def test_attributes_of_a_version_need_the_action_of_versions(server: Any, s3: Any, iam: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    wanted = {
        "Bucket": bucket,
        "Key": "k",
        "VersionId": s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"],
        "ObjectAttributes": ["ETag"],
    }
    assert (
        code(
            with_rights(server, iam, one("s3:GetObjectVersion", "s3:GetObjectAttributes")).get_object_attributes,
            **wanted,
        )
        == "AccessDenied"
    )
    assert not code(
        with_rights(server, iam, one("s3:GetObjectVersion", "s3:GetObjectVersionAttributes")).get_object_attributes,
        **wanted,
    )


def test_each_key_of_a_deletion_is_judged_by_its_own_version(server: Any, s3: Any, iam: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    kept, other = (s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"] for _ in range(2))
    who = with_rights(
        server,
        iam,
        one("s3:*"),
        one("s3:DeleteObjectVersion", effect="Deny", Condition={"StringEquals": {"s3:VersionId": kept}}),
    )
    answer = who.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": kept}, {"Key": "k", "VersionId": other}]}
    )
    assert (
        [found["VersionId"] for found in answer["Errors"]],
        [found["VersionId"] for found in answer["Deleted"]],
    ) == ([kept], [other])


@pytest.mark.parametrize("written", ["src/top+secret/x", "/src/top%20secret/x", "src/top+%73ecret%2Fx?versionId=null"])
def test_a_source_is_denied_however_it_is_written(server: Any, s3: Any, iam: Any, bucket: str, written: str) -> None:
    for key in ("src/top secret/x", "src/top+secret/x"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    denied = {"StringLike": {"s3:x-amz-copy-source": f"{bucket}/src/top secret*"}}
    own = keys_with_rights(iam, one("s3:*"), one("s3:PutObject", effect="Deny", Condition=denied))

    def copied(source: str) -> str:
        source = source.replace("src/", f"{bucket}/src/", 1)
        return asked(server, own, "PUT", f"/{bucket}/copy", {"x-amz-copy-source": source}).code

    assert copied(written) == "AccessDenied"
    assert copied("src/top%2Bsecret/x") == ""


def test_a_condition_on_an_etag_is_for_who_may_read_the_object(server: Any, s3: Any, iam: Any, bucket: str) -> None:
    """It tells the MD5 of what is there."""
    held = {key: s3.put_object(Bucket=bucket, Key=key, Body=b"x")["ETag"] for key in ("k", "from")}
    writes = one("s3:PutObject", "s3:DeleteObject", "s3:ListBucket")
    reads_others = one("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/from")
    blind, seeing = keys_with_rights(iam, writes, reads_others), keys_with_rights(iam, writes, one("s3:GetObject"))
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    parts = f"<Part><PartNumber>1</PartNumber><ETag>{part}</ETag></Part>"
    complete = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    requests = {
        "PutObject": ("PUT", "", {}, b"x"),
        "CopyObject": ("PUT", "", {"x-amz-copy-source": f"{bucket}/from"}, b""),
        "CreateMultipartUpload": ("POST", "uploads", {}, b""),
        "DeleteObject": ("DELETE", "", {}, b""),
        "CompleteMultipartUpload": ("POST", f"uploadId={upload}", {}, complete),
    }

    def codes(own: dict[str, str], etag: str) -> dict[str, str]:
        return {
            name: asked(server, own, method, f"/{bucket}/k", {**more, "If-Match": etag}, body, query).code
            for name, (method, query, more, body) in requests.items()
        }

    for etag in (held["k"], '"other"', held["k"].strip('"')):
        assert set(codes(blind, etag).values()) == {"AccessDenied"}
    assert set(codes(seeing, '"other"').values()) == {"PreconditionFailed"}
    assert asked(server, blind, "PUT", f"/{bucket}/k", {"If-Match": "*"}, b"x").status == 200
    assert asked(server, blind, "PUT", f"/{bucket}/new", {"If-None-Match": "*"}, b"x").status == 200


def test_an_etag_of_a_deletion_is_for_who_may_read_the_object(server: Any, s3: Any, iam: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    blind, seeing = (
        with_rights(server, iam, one("s3:DeleteObject", "s3:ListBucket", *more)) for more in ((), ("s3:GetObject",))
    )

    def deleted(who: Any, etag: str) -> str:
        answer = who.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "ETag": etag}]})
        return str(answer["Errors"][0]["Code"]) if "Errors" in answer else ""

    assert [deleted(blind, one) for one in (etag, '"other"')] == ["AccessDenied"] * 2
    assert [deleted(seeing, one) for one in ('"other"', etag)] == ["PreconditionFailed", ""]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert deleted(blind, "*") == ""


@pytest.mark.parametrize("action", ["s3:DeleteObject", "*"])
def test_a_policy_of_conditions_holds_for_each_key_of_a_deletion(
    server: Any, s3: Any, iam: Any, bucket: str, action: str
) -> None:
    etags = {key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode())["ETag"] for key in ("a", "b", "c")}

    def deleted(condition: dict[str, Any], objects: list[dict[str, str]]) -> dict[str, str]:
        who = with_rights(server, iam, one("s3:*"), one(action, effect="Deny", Condition=condition))
        answer = who.delete_objects(Bucket=bucket, Delete={"Objects": objects})
        return {found["Key"]: found.get("Code", "") for kind in ("Errors", "Deleted") for found in answer.get(kind, ())}

    named = [{"Key": key, "ETag": etag} for key, etag in etags.items()]
    assert deleted({"StringEquals": {"s3:if-match": etags["b"]}}, named[1:]) == {"b": "AccessDenied", "c": ""}
    assert deleted({"StringEquals": {"s3:if-match": etags["b"]}}, [named[0], {"Key": "b"}]) == {"a": "", "b": ""}
    for key in ("a", "b"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    if action != "*":  # which would ask it of reads too
        unless = {"Null": {"s3:if-match": "true"}}
        assert deleted(unless, [{"Key": "a"}, named[1]]) == {"a": "AccessDenied", "b": ""}


SEALED = "s3:x-amz-server-side-encryption"


@pytest.mark.parametrize(
    ("condition", "begun"),
    [
        ({"Null": {SEALED: "true"}}, {"ServerSideEncryption": "AES256"}),
        ({"StringNotEquals": {SEALED: "AES256"}}, {"ServerSideEncryption": "AES256"}),
        (
            {"StringNotEquals": {f"{SEALED}-aws-kms-key-id": "first"}},
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "first"},
        ),
    ],
)
def test_an_upload_goes_on_by_the_encryption_that_it_was_begun_with(
    server: Any, s3: Any, iam: Any, bucket: str, condition: dict[str, Any], begun: dict[str, str]
) -> None:
    who = with_rights(server, iam, one("s3:*"), one("s3:PutObject", effect="Deny", Condition=condition))
    s3.put_object(Bucket=bucket, Key="from", Body=b"copied")

    def steps(upload: str) -> list[str]:
        this = {"Bucket": bucket, "Key": "k", "UploadId": upload}
        put = {**this, "PartNumber": 1, "Body": b"x" * 5 * 2**20}
        copied = {**this, "PartNumber": 2, "CopySource": f"{bucket}/from"}
        codes = [code(who.upload_part, **put), code(who.upload_part_copy, **copied)]
        found = s3.list_parts(**this).get("Parts", [])
        parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in found]
        whole = {"Parts": parts or [{"PartNumber": 1, "ETag": "none"}]}
        return [*codes, *(code(who.complete_multipart_upload, **this, MultipartUpload=whole) for _ in range(2))]

    assert code(who.create_multipart_upload, Bucket=bucket, Key="k") == "AccessDenied"
    bare = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    assert steps(bare) == ["AccessDenied"] * 4
    assert steps(who.create_multipart_upload(Bucket=bucket, Key="k", **begun)["UploadId"]) == ["", "", "", ""]

"""Policies, blocks, ACLs, tags and cross-origin rules through boto3 against the running server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from access import where
from access.accounts import code
from process import ServerProcess, make_client, wait_until
from raw import call, send
from server.test_admin import admin

server, s3, bucket = where.server, where.s3, where.bucket

ANA = "arn:aws:iam::000000000000:user/ana-of-policies"


@pytest.fixture(scope="module", autouse=True)
def ana(server: ServerProcess) -> Any:
    """A user without any right of its own."""
    made = admin(server, "user", "add", "ana-of-policies", "--grant", "Reader:no-such-bucket-at-all")
    return make_client(server.endpoint, made["access_key"], made["secret_key"])


@pytest.fixture(scope="module")
def anybody(server: ServerProcess) -> Any:
    return make_client(server.endpoint, signature_version=UNSIGNED)


def statement(
    bucket: str, action: Any, effect: str = "Allow", who: Any = None, resource: str = "/*", **more: Any
) -> dict[str, Any]:
    return {
        "Effect": effect,
        "Principal": who or {"AWS": ANA},
        "Action": action,
        "Resource": f"arn:aws:s3:::{bucket}{resource}",
        **more,
    }


def put_policy(s3: Any, bucket: str, *statements: dict[str, Any]) -> None:
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))


def test_a_policy_comes_back_as_it_was_put_and_goes(s3: Any, bucket: str) -> None:
    put_policy(s3, bucket, statement(bucket, "s3:GetObject"))
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"][0]["Action"] == "s3:GetObject"
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is False
    s3.delete_bucket_policy(Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)
    assert code(s3.get_bucket_policy, Bucket=bucket) == "NoSuchBucketPolicy"


def test_a_policy_gives_and_takes(s3: Any, ana: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a/x", Body=b"x")
    s3.put_object(Bucket=bucket, Key="secret/x", Body=b"x")
    assert code(ana.get_object, Bucket=bucket, Key="a/x") == "AccessDenied"
    put_policy(
        s3,
        bucket,
        statement(bucket, "s3:*"),
        statement(bucket, "s3:*", "Deny", "*", "/secret/*"),
        statement(bucket, "s3:ListBucket", resource="", Condition={"StringLike": {"s3:prefix": "a/*"}}),
    )
    assert not code(ana.get_object, Bucket=bucket, Key="a/x")
    assert not code(ana.put_object, Bucket=bucket, Key="b", Body=b"y")
    assert not code(ana.delete_object, Bucket=bucket, Key="b")
    assert not code(ana.list_objects_v2, Bucket=bucket, Prefix="a/")
    assert code(ana.list_objects_v2, Bucket=bucket) == "AccessDenied"
    assert code(ana.get_object, Bucket=bucket, Key="secret/x") == "AccessDenied"
    assert code(s3.get_object, Bucket=bucket, Key="secret/x") == "AccessDenied"  # deny wins over root too
    assert code(ana.copy_object, Bucket=bucket, Key="a/stolen", CopySource=f"{bucket}/secret/x") == "AccessDenied"
    assert not code(ana.copy_object, Bucket=bucket, Key="a/copy", CopySource=f"{bucket}/a/x")
    # Of many deletes each is decided for itself.
    answer = ana.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a/copy"}, {"Key": "secret/x"}]})
    assert ([one["Key"] for one in answer["Deleted"]], [one["Code"] for one in answer["Errors"]]) == (
        ["a/copy"],
        ["AccessDenied"],
    )
    s3.delete_bucket_policy(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="secret/x")["Body"].read() == b"x"
    assert code(ana.get_object, Bucket=bucket, Key="a/x") == "AccessDenied"


def test_root_is_never_locked_out(s3: Any, bucket: str) -> None:
    put_policy(s3, bucket, statement(bucket, "s3:*", "Deny", "*"), statement(bucket, "s3:*", "Deny", "*", ""))
    assert code(s3.list_objects_v2, Bucket=bucket) == "AccessDenied"
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket)
    assert not code(s3.list_objects_v2, Bucket=bucket)


def test_what_is_not_there_is_told_to_those_who_may_list(s3: Any, ana: Any, bucket: str) -> None:
    put_policy(s3, bucket, statement(bucket, ["s3:GetObject", "s3:GetObjectVersion"]))
    assert code(ana.get_object, Bucket=bucket, Key="none") == "AccessDenied"
    assert code(ana.head_object, Bucket=bucket, Key="none") == "403"
    assert code(ana.get_object, Bucket=bucket, Key="none", VersionId="0" * 24) == "AccessDenied"
    put_policy(s3, bucket, statement(bucket, "s3:GetObject"), statement(bucket, "s3:ListBucket", resource=""))
    assert code(ana.get_object, Bucket=bucket, Key="none") == "NoSuchKey"
    assert code(ana.get_object, Bucket=bucket + "-none", Key="none") == "AccessDenied"


def test_a_named_version_needs_its_own_action(s3: Any, ana: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    put_policy(s3, bucket, statement(bucket, ["s3:GetObject", "s3:DeleteObject"]))
    assert not code(ana.get_object, Bucket=bucket, Key="k")
    assert code(ana.get_object, Bucket=bucket, Key="k", VersionId=version) == "AccessDenied"
    assert code(ana.delete_object, Bucket=bucket, Key="k", VersionId=version) == "AccessDenied"
    put_policy(s3, bucket, statement(bucket, "s3:GetObjectVersion"))
    assert not code(ana.get_object, Bucket=bucket, Key="k", VersionId=version)
    assert code(ana.get_object, Bucket=bucket, Key="k") == "AccessDenied"


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
        ({"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
        ({"StringEquals": {"aws:username": "ana-of-policies"}}, True),
        ({"ArnEquals": {"aws:PrincipalArn": ANA}}, True),
        ({"StringEquals": {"s3:authType": "REST-HEADER"}}, True),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
        ({"DateLessThan": {"aws:EpochTime": "1600000000"}}, False),
        ({"StringEquals": {"s3:ExistingObjectTag/class": "open"}}, True),
        ({"StringEquals": {"s3:ExistingObjectTag/class": "shut"}}, False),
        ({"StringLike": {"aws:UserAgent": "*Botocore*"}}, True),
        ({"Null": {"s3:ExistingObjectTag/none": "true"}}, True),
        ({"StringEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}}, True),
        ({"StringEquals": {"aws:PrincipalType": "User"}}, True),
        ({"StringEquals": {"s3:ResourceAccount": "000000000000"}}, True),
    ],
)
def test_conditions_see_the_request(s3: Any, ana: Any, bucket: str, condition: dict[str, Any], allowed: bool) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="class=open")
    put_policy(s3, bucket, statement(bucket, "s3:GetObject", Condition=condition))
    assert code(ana.get_object, Bucket=bucket, Key="k") == ("" if allowed else "AccessDenied")


def test_tags_that_a_policy_wants(s3: Any, ana: Any, bucket: str) -> None:
    put_policy(
        s3,
        bucket,
        statement(
            bucket,
            ["s3:PutObject", "s3:PutObjectTagging"],
            Condition={"StringEquals": {"s3:RequestObjectTag/team": "blue"}},
        ),
    )
    assert code(ana.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"
    assert code(ana.put_object, Bucket=bucket, Key="k", Body=b"x", Tagging="team=red") == "AccessDenied"
    assert not code(ana.put_object, Bucket=bucket, Key="k", Body=b"x", Tagging="team=blue")
    blue, red = ({"TagSet": [{"Key": "team", "Value": value}]} for value in ("blue", "red"))
    assert not code(ana.put_object_tagging, Bucket=bucket, Key="k", Tagging=blue)
    assert code(ana.put_object_tagging, Bucket=bucket, Key="k", Tagging=red) == "AccessDenied"


# -- strangers


def test_a_new_bucket_lets_no_stranger_in(s3: Any, anybody: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    everybody = statement(bucket, ["s3:GetObject"], who="*")
    with pytest.raises(ClientError, match="BlockPublicPolicy"):
        put_policy(s3, bucket, everybody)
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy"), False) | {
        "RestrictPublicBuckets": True
    }
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    put_policy(s3, bucket, everybody)
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is True
    assert code(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    s3.delete_public_access_block(Bucket=bucket)
    assert code(s3.get_public_access_block, Bucket=bucket) == "NoSuchPublicAccessBlockConfiguration"
    assert anybody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert code(anybody.get_object, Bucket=bucket, Key="none") == "AccessDenied"
    for method, options in (
        (anybody.put_object, {"Key": "k", "Body": b"y"}),
        (anybody.delete_object, {"Key": "k"}),
        (anybody.list_objects_v2, {}),
        (anybody.delete_objects, {"Delete": {"Objects": [{"Key": "k"}]}}),
    ):
        assert code(method, Bucket=bucket, **options) == "AccessDenied"


def test_strangers_write_where_a_policy_says_so(s3: Any, anybody: Any, bucket: str) -> None:
    s3.delete_public_access_block(Bucket=bucket)
    put_policy(
        s3, bucket, statement(bucket, ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"], who="*", resource="/drop/*")
    )
    anybody.put_object(Bucket=bucket, Key="drop/k", Body=b"y")
    assert code(anybody.put_object, Bucket=bucket, Key="k", Body=b"y") == "AccessDenied"
    assert s3.get_object(Bucket=bucket, Key="drop/k")["Body"].read() == b"y"
    assert (
        code(anybody.create_multipart_upload, Bucket=bucket, Key="drop/m") == "AccessDenied"
    )  # as on S3: nobody could tell whose it is
    s3.put_object(Bucket=bucket, Key="drop/m", Body=b"z")
    assert not code(anybody.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": "drop/m"}]})


# -- ACLs


def test_acls_do_not_count_in_a_new_bucket(s3: Any, bucket: str) -> None:
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"] == [
        {"ObjectOwnership": "BucketOwnerEnforced"}
    ]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="bucket-owner-full-control")
    for method, options in (
        (s3.put_bucket_acl, {}),
        (s3.put_object_acl, {"Key": "k"}),
        (s3.put_object, {"Key": "k", "Body": b"y"}),
    ):
        for canned in ("public-read", "aws-exec-read"):
            assert code(method, Bucket=bucket, ACL=canned, **options) == "AccessControlListNotSupported"
        assert not code(method, Bucket=bucket, ACL="bucket-owner-full-control", **options)
    assert not code(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ACL="private")  # as docker's registry does
    held = s3.get_object_acl(Bucket=bucket, Key="k")
    assert [(one["Grantee"]["ID"], one["Permission"]) for one in held["Grants"]] == [
        (held["Owner"]["ID"], "FULL_CONTROL")
    ]
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": held["Owner"], "Grants": held["Grants"]})


def test_acls_where_ownership_lets_them(s3: Any, ana: Any, anybody: Any, bucket: str) -> None:
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    )
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ACL="public-read") == "AccessDenied"  # its block
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    s3.put_object(Bucket=bucket, Key="own", Body=b"x")
    assert anybody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert code(anybody.get_object, Bucket=bucket, Key="own") == "AccessDenied"
    assert code(anybody.list_objects_v2, Bucket=bucket) == "AccessDenied"
    s3.put_bucket_acl(Bucket=bucket, ACL="authenticated-read")
    assert code(anybody.list_objects_v2, Bucket=bucket) == "AccessDenied"
    assert not code(ana.list_objects_v2, Bucket=bucket)
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert code(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    s3.put_object_acl(Bucket=bucket, Key="k", GrantRead='uri="http://acs.amazonaws.com/groups/global/AllUsers"')
    assert not code(anybody.get_object, Bucket=bucket, Key="k")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"IgnorePublicAcls": True})
    assert code(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert (
        code(
            s3.put_bucket_ownership_controls,
            Bucket=bucket,
            OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        )
        == "InvalidBucketAclWithObjectOwnership"
    )
    # A copy takes no ACL with it.
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={})
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    assert code(anybody.get_object, Bucket=bucket, Key="copy") == "AccessDenied"


def test_a_bucket_made_with_acls(s3: Any, bucket: str) -> None:
    assert code(s3.create_bucket, Bucket=bucket + "-p", ACL="public-read") == "InvalidBucketAclWithObjectOwnership"
    assert (
        code(s3.create_bucket, Bucket=bucket + "-p", ACL="public-read", ObjectOwnership="ObjectWriter")
        == "AccessDenied"
    )
    s3.create_bucket(Bucket=bucket + "-p", ObjectOwnership="ObjectWriter")
    assert s3.get_bucket_ownership_controls(Bucket=bucket + "-p")["OwnershipControls"]["Rules"] == [
        {"ObjectOwnership": "ObjectWriter"}
    ]
    s3.delete_bucket_ownership_controls(Bucket=bucket + "-p")
    assert code(s3.get_bucket_ownership_controls, Bucket=bucket + "-p") == "OwnershipControlsNotFoundError"


# -- tags


def tags(**values: str) -> dict[str, Any]:
    return {"TagSet": [{"Key": name, "Value": value} for name, value in values.items()]}


def test_tags_of_a_bucket(s3: Any, bucket: str) -> None:
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tags(team="blue", cost="1 2"))
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags(team="blue", cost="1 2")["TagSet"]
    s3.delete_bucket_tagging(Bucket=bucket)
    assert code(s3.get_bucket_tagging, Bucket=bucket) == "NoSuchTagSet"


def test_tags_of_an_object_and_of_its_versions(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1", Tagging="a=1&b=%20x")["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]
    assert s3.get_object_tagging(Bucket=bucket, Key="k", VersionId=first)["TagSet"] == tags(a="1", b=" x")["TagSet"]
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=first)["TagCount"] == 2
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tags(c="3"))["VersionId"] == second
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags(c="3")["TagSet"]
    assert s3.head_object(Bucket=bucket, Key="k")["LastModified"] == modified
    s3.copy_object(Bucket=bucket, Key="kept", CopySource={"Bucket": bucket, "Key": "k", "VersionId": first})
    assert s3.get_object_tagging(Bucket=bucket, Key="kept")["TagSet"] == tags(a="1", b=" x")["TagSet"]
    s3.copy_object(Bucket=bucket, Key="new", CopySource=f"{bucket}/k", TaggingDirective="REPLACE", Tagging="d=4")
    assert s3.get_object_tagging(Bucket=bucket, Key="new")["TagSet"] == tags(d="4")["TagSet"]
    s3.delete_object_tagging(Bucket=bucket, Key="k", VersionId=first)
    assert s3.get_object_tagging(Bucket=bucket, Key="k", VersionId=first)["TagSet"] == []
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags(c="3")["TagSet"]
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    assert (
        code(s3.put_object_tagging, Bucket=bucket, Key="k", VersionId=marker, Tagging=tags(a="1")) == "MethodNotAllowed"
    )


def test_tags_of_an_upload(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", Tagging="a=1")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"z")["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    assert s3.get_object_tagging(Bucket=bucket, Key="m")["TagSet"] == tags(a="1")["TagSet"]


# -- other origins


def test_rules_for_other_origins(s3: Any, server: ServerProcess, bucket: str) -> None:
    rules = [
        {
            "ID": "app",
            "AllowedOrigins": ["https://*.example"],
            "AllowedMethods": ["GET", "PUT"],
            "AllowedHeaders": ["x-amz-*", "Content-Type"],
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": 60,
        },
        {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD"]},
    ]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 5_000_000)

    def preflight(origin: str, method: str, headers: str = "") -> Any:
        asked = {"Origin": origin, "Access-Control-Request-Method": method} | (
            {"Access-Control-Request-Headers": headers} if headers else {}
        )
        return send(server.endpoint, "OPTIONS", f"/{bucket}/k", asked, b"")

    answer = preflight("https://a.example", "PUT", "x-amz-date, content-type")
    assert (answer.status, answer.headers["access-control-allow-origin"], answer.headers["access-control-max-age"]) == (
        200,
        "https://a.example",
        "60",
    )
    assert answer.headers["access-control-allow-headers"] == "x-amz-date, content-type"
    assert (
        preflight("https://a.example", "DELETE").code
        == preflight("https://a.example", "PUT", "authorization").code
        == "AccessForbidden"
    )
    assert preflight("https://b.test", "PUT").status == 403
    assert preflight("https://b.test", "HEAD").headers["access-control-allow-origin"] == "*"
    for path in ("k", "none"):  # a streamed answer, and an error
        got = call(server.endpoint, "GET", f"/{bucket}/{path}", headers={"Origin": "https://a.example"})
        assert (got.headers["access-control-allow-origin"], got.headers["access-control-expose-headers"]) == (
            "https://a.example",
            "ETag",
        )
    assert (
        "access-control-allow-origin"
        not in call(server.endpoint, "GET", f"/{bucket}/k", headers={"Origin": "https://b.test"}).headers
    )
    # What asks like a preflight is answered like one, whatever it does.
    names = {"Origin": "https://a.example", "Access-Control-Request-Headers": "x-amz-date"}
    alike = call(
        server.endpoint, "GET", f"/{bucket}/k", headers={**names, "Access-Control-Request-Method": "PUT"}
    ).headers
    asked = preflight("https://a.example", "PUT", "x-amz-date").headers
    told = {name: value for name, value in asked.items() if name.startswith("access-control-")}
    assert len(told) == 6
    assert {name: value for name, value in alike.items() if name.startswith("access-control-")} == told
    assert (
        "access-control-allow-origin"
        not in call(
            server.endpoint, "GET", f"/{bucket}/k", headers={**names, "Access-Control-Request-Method": "DELETE"}
        ).headers
    )
    s3.delete_bucket_cors(Bucket=bucket)
    assert code(s3.get_bucket_cors, Bucket=bucket) == "NoSuchCORSConfiguration"


# -- quotas


def test_a_quota_bounds_what_a_bucket_holds(server: ServerProcess, s3: Any, bucket: str) -> None:
    admin(server, "quota", bucket, "1MiB")
    other = make_client(server.endpoint)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x" * 600_000)
    wait_until(
        lambda: next(one for one in admin(server, "buckets")["buckets"] if one["name"] == bucket)["bytes"] == 600_000,
        "the sum",
    )
    assert code(s3.put_object, Bucket=bucket, Key="b", Body=b"y" * 600_000) == "QuotaExceeded"
    assert code(s3.copy_object, Bucket=bucket, Key="b", CopySource=f"{bucket}/a") == "QuotaExceeded"
    # What another gateway has summed before may be as old as two seconds; then it refuses too.
    wait_until(
        lambda: (
            code(other.put_object, Bucket=bucket, Key="b", Body=b"y" * 600_000) == "QuotaExceeded"
            or other.delete_object(Bucket=bucket, Key="b") is None
        ),
        "the other gateway's refusal",
    )
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"z" * 600_000)["ETag"]
    complete = {"Key": "m", "UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}}
    assert code(s3.complete_multipart_upload, Bucket=bucket, **complete) == "QuotaExceeded"
    admin(server, "quota", bucket, "0")
    s3.complete_multipart_upload(Bucket=bucket, **complete)
    assert not code(s3.put_object, Bucket=bucket, Key="b", Body=b"y" * 600_000)


def test_what_a_bucket_keeps_is_bounded(s3: Any, bucket: str) -> None:
    rules = [
        {
            "AllowedMethods": ["GET"],
            "AllowedOrigins": [f"https://{'x' * 200}{number}.example"],
            "AllowedHeaders": ["y" * 700],
        }
        for number in range(100)
    ]
    assert code(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration={"CORSRules": rules}) == "MaxMessageLengthExceeded"
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    grants = [
        {"Grantee": {"Type": "CanonicalUser", "ID": f"{number:064x}"}, "Permission": "READ"} for number in range(101)
    ]
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]
    assert (
        code(s3.put_bucket_acl, Bucket=bucket, AccessControlPolicy={"Owner": owner, "Grants": grants})
        == "InvalidRequest"
    )
    assert not code(s3.put_bucket_acl, Bucket=bucket, AccessControlPolicy={"Owner": owner, "Grants": grants[:100]})

"""One's own buckets and uploads, and what strangers learn of keys that are not there: as in us-east-1."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore import UNSIGNED

import raw
from access import where
from access.accounts import allow, client, code
from access.test_buckets import put_policy, statement
from process import make_client

server, s3, bucket = where.server, where.s3, where.bucket


def grants(s3: Any, bucket: str) -> set[tuple[str, str]]:
    found = s3.get_bucket_acl(Bucket=bucket)["Grants"]
    return {(one["Grantee"].get("URI", "owner").rpartition("/")[2], one["Permission"]) for one in found}


def test_ones_own_bucket_may_be_made_again(server: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.create_bucket(Bucket=bucket)["Location"] == f"/{bucket}"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    # what is said besides is true of it, or refused
    for options in (
        {"ObjectLockEnabledForBucket": True},
        {"ObjectOwnership": "ObjectWriter"},
        {"CreateBucketConfiguration": {"Tags": [{"Key": "a", "Value": "b"}]}},
    ):
        assert code(s3.create_bucket, Bucket=bucket, **options) == "BucketAlreadyOwnedByYou", options
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicAcls": False})
    s3.create_bucket(Bucket=bucket, GrantRead=f'id="{"a" * 64}"', ObjectOwnership="ObjectWriter")
    assert grants(s3, bucket) == {("owner", "READ")}, "grants in headers are all there are"
    s3.create_bucket(Bucket=bucket)
    assert grants(s3, bucket) == {("owner", "FULL_CONTROL")}, "its ACL is what was asked for last"
    iam = client(server, "iam")
    iam.create_user(UserName=f"maker-{bucket}")
    iam.put_user_policy(
        UserName=f"maker-{bucket}", PolicyName="all", PolicyDocument=json.dumps(allow("s3:CreateBucket"))
    )
    other = client(server, "s3", iam.create_access_key(UserName=f"maker-{bucket}")["AccessKey"])
    assert code(other.create_bucket, Bucket=bucket) == "BucketAlreadyExists"
    other.create_bucket(Bucket=f"{bucket}-other")
    other.create_bucket(Bucket=f"{bucket}-other")


def test_the_first_region_has_no_name_of_a_place(server: Any, bucket: str) -> None:
    body = b"<CreateBucketConfiguration><LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>"
    assert raw.call(server.endpoint, "PUT", f"/{bucket}-named", body=body).code == "InvalidLocationConstraint"


def test_who_began_an_upload_may_end_it_unless_something_denies(server: Any, s3: Any, bucket: str) -> None:
    iam = client(server, "iam")
    users = {}
    for name in ("beginner", "other"):
        iam.create_user(UserName=f"{name}-{bucket}")
        iam.put_user_policy(
            UserName=f"{name}-{bucket}", PolicyName="put", PolicyDocument=json.dumps(allow("s3:PutObject"))
        )
        users[name] = client(server, "s3", iam.create_access_key(UserName=f"{name}-{bucket}")["AccessKey"])
    mine = users["beginner"]
    upload = {
        "Bucket": bucket,
        "Key": "k",
        "UploadId": mine.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"],
    }
    for call in ("list_parts", "abort_multipart_upload"):
        assert code(getattr(users["other"], call), **upload) == "AccessDenied"
        assert (
            code(getattr(mine, call), **{**upload, "Key": "other"})
            == code(getattr(mine, call), **{**upload, "UploadId": "0" * 32})
            == "AccessDenied"
        )
    assert mine.list_parts(**upload)["UploadId"] == upload["UploadId"]
    arn = f"arn:aws:iam::000000000000:user/beginner-{bucket}"
    put_policy(
        s3, bucket, statement(bucket, ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"], "Deny", {"AWS": arn})
    )
    assert code(mine.abort_multipart_upload, **upload) == code(mine.list_parts, **upload) == "AccessDenied"
    s3.delete_bucket_policy(Bucket=bucket)
    mine.abort_multipart_upload(**upload)
    assert code(s3.list_parts, **upload) == "NoSuchUpload"


@pytest.mark.parametrize("by", ["acl", "policy"])
def test_a_key_that_is_not_there_in_a_bucket_that_everybody_may_list(
    server: Any, s3: Any, bucket: str, by: str
) -> None:
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="there", Body=b"x")
    anybody = make_client(server.endpoint, signature_version=UNSIGNED)
    assert code(anybody.get_object, Bucket=bucket, Key="none") == "AccessDenied"
    if by == "acl":
        s3.put_bucket_ownership_controls(
            Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
        )
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    else:
        put_policy(s3, bucket, statement(bucket, "s3:ListBucket", who="*", resource=""))
    assert code(anybody.get_object, Bucket=bucket, Key="none") == "NoSuchKey"
    assert code(anybody.head_object, Bucket=bucket, Key="none") == "404"
    assert code(anybody.get_object, Bucket=bucket, Key="there") == "AccessDenied"
    assert code(anybody.put_object, Bucket=bucket, Key="none") == "AccessDenied"
    denied = statement(bucket, "s3:GetObject", "Deny", "*", "/*")
    put_policy(
        s3, bucket, denied, *([statement(bucket, "s3:ListBucket", who="*", resource="")] if by == "policy" else [])
    )
    assert code(anybody.get_object, Bucket=bucket, Key="none") == "AccessDenied"
    anybody.close()

"""Every operation that writes, by every kind of credential, allowed and denied: the right answer, and nothing told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from access import where
from access.accounts import ACCOUNT, TRUST_ALL, allow, client, code
from access.test_forms import post
from process import make_client
from s4.access.actions import NEEDS, WRITES

server, s3, bucket = where.server, where.s3, where.bucket

TAGS = {"TagSet": [{"Key": "a", "Value": "b"}]}
PART = {"UploadId": "0" * 32, "PartNumber": 1}
# operation -> (method, what it is given, actions that it needs, what happens to who may: an error, or empty)
WRITERS: dict[str, tuple[str, dict[str, Any], list[str], set[str]]] = {
    "PutObject": ("put_object", {"Key": "k", "Body": b"x"}, ["s3:PutObject"], {""}),
    "PostObject": ("post_object", {"Key": "p"}, ["s3:PutObject"], {""}),
    "CopyObject": ("copy_object", {"Key": "c", "CopySource": "{bucket}/k"}, ["s3:PutObject", "s3:GetObject"], {""}),
    "DeleteObject": ("delete_object", {"Key": "d"}, ["s3:DeleteObject"], {""}),
    "DeleteObjects": ("delete_objects", {"Delete": {"Objects": [{"Key": "d"}]}}, ["s3:DeleteObject"], {""}),
    "CreateMultipartUpload": ("create_multipart_upload", {"Key": "m"}, ["s3:PutObject"], {""}),
    "UploadPart": ("upload_part", {"Key": "m", "Body": b"x", **PART}, ["s3:PutObject"], {"NoSuchUpload"}),
    "UploadPartCopy": (
        "upload_part_copy",
        {"Key": "m", "CopySource": "{bucket}/k", **PART},
        ["s3:PutObject", "s3:GetObject"],
        {"NoSuchUpload"},
    ),
    "CompleteMultipartUpload": (
        "complete_multipart_upload",
        {"Key": "m", "UploadId": "0" * 32, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": '"e"'}]}},
        ["s3:PutObject"],
        {"NoSuchUpload"},
    ),
    "AbortMultipartUpload": (
        "abort_multipart_upload",
        {"Key": "m", "UploadId": "0" * 32},
        ["s3:AbortMultipartUpload"],
        {"NoSuchUpload"},
    ),
    "RenameObject": (
        "rename_object",
        {"Key": "k", "RenameSource": "k"},
        ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"],
        {"InvalidRequest"},
    ),
    "PutObjectTagging": ("put_object_tagging", {"Key": "k", "Tagging": TAGS}, ["s3:PutObjectTagging"], {""}),
    "DeleteObjectTagging": ("delete_object_tagging", {"Key": "k"}, ["s3:DeleteObjectTagging"], {""}),
    "PutObjectAcl": ("put_object_acl", {"Key": "k", "ACL": "bucket-owner-full-control"}, ["s3:PutObjectAcl"], {""}),
    "PutObjectLockConfiguration": (
        "put_object_lock_configuration",
        {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
        ["s3:PutBucketObjectLockConfiguration"],
        {"InvalidBucketState"},
    ),
    "PutObjectRetention": (
        "put_object_retention",
        {"Key": "k", "Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": "2099-01-01T00:00:00Z"}},
        ["s3:PutObjectRetention"],
        {"InvalidRequest"},
    ),
    "PutObjectLegalHold": (
        "put_object_legal_hold",
        {"Key": "k", "LegalHold": {"Status": "ON"}},
        ["s3:PutObjectLegalHold"],
        {"InvalidRequest"},
    ),
    "PutBucketTagging": ("put_bucket_tagging", {"Tagging": TAGS}, ["s3:PutBucketTagging"], {""}),
    "DeleteBucketTagging": ("delete_bucket_tagging", {}, ["s3:PutBucketTagging"], {""}),
    "PutBucketVersioning": (
        "put_bucket_versioning",
        {"VersioningConfiguration": {"Status": "Suspended"}},
        ["s3:PutBucketVersioning"],
        {""},
    ),
    "PutBucketPolicy": ("put_bucket_policy", {"Policy": "{}"}, ["s3:PutBucketPolicy"], {"MalformedPolicy"}),
    "PutBucketAcl": ("put_bucket_acl", {"ACL": "bucket-owner-full-control"}, ["s3:PutBucketAcl"], {""}),
    "PutBucketCors": (
        "put_bucket_cors",
        {"CORSConfiguration": {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}},
        ["s3:PutBucketCORS"],
        {""},
    ),
    "DeleteBucketCors": ("delete_bucket_cors", {}, ["s3:PutBucketCORS"], {""}),
    "PutBucketWebsite": (
        "put_bucket_website",
        {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}},
        ["s3:PutBucketWebsite"],
        {""},
    ),
    "DeleteBucketWebsite": ("delete_bucket_website", {}, ["s3:DeleteBucketWebsite"], {""}),
    "PutBucketLifecycleConfiguration": (
        "put_bucket_lifecycle_configuration",
        {
            "LifecycleConfiguration": {
                "Rules": [{"Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
            }
        },
        ["s3:PutLifecycleConfiguration"],
        {""},
    ),
    "DeleteBucketLifecycle": ("delete_bucket_lifecycle", {}, ["s3:PutLifecycleConfiguration"], {""}),
    "PutBucketNotificationConfiguration": (
        "put_bucket_notification_configuration",
        {"NotificationConfiguration": {}},
        ["s3:PutBucketNotification"],
        {""},
    ),
    "PutBucketEncryption": (
        "put_bucket_encryption",
        {
            "ServerSideEncryptionConfiguration": {
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            }
        },
        ["s3:PutEncryptionConfiguration"],
        {""},
    ),
    "DeleteBucketEncryption": ("delete_bucket_encryption", {}, ["s3:PutEncryptionConfiguration"], {""}),
    "PutBucketOwnershipControls": (
        "put_bucket_ownership_controls",
        {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}},
        ["s3:PutBucketOwnershipControls"],
        {""},
    ),
    "DeleteBucketOwnershipControls": ("delete_bucket_ownership_controls", {}, ["s3:PutBucketOwnershipControls"], {""}),
    "PutPublicAccessBlock": (
        "put_public_access_block",
        {"PublicAccessBlockConfiguration": {"RestrictPublicBuckets": False}},
        ["s3:PutBucketPublicAccessBlock"],
        {""},
    ),
    "DeletePublicAccessBlock": ("delete_public_access_block", {}, ["s3:PutBucketPublicAccessBlock"], {""}),
    "CreateBucket": ("create_bucket", {}, ["s3:CreateBucket"], {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}),
    "DeleteBucketPolicy": ("delete_bucket_policy", {}, ["s3:DeleteBucketPolicy"], {""}),
    "DeleteBucket": ("delete_bucket", {}, ["s3:DeleteBucket"], {"BucketNotEmpty"}),
}
KINDS = ("user", "group", "session of a user", "role", "bucket policy", "stranger")
USER = "writer-of-all"


def test_every_writer_is_here() -> None:
    assert set(WRITERS) == WRITES - {"TagResource", "UntagResource"}  # of S3 Control: tests/s3/test_control.py
    for name, (_, _, actions, _) in WRITERS.items():
        assert NEEDS[name][0] in actions


@pytest.fixture(scope="module")
def asker(server: Any) -> Iterator[Callable[[str, str, list[str]], Any]]:
    """A client of a kind of credential that may do some actions to a bucket, and nothing else."""
    iam, s3 = client(server, "iam"), make_client(server.endpoint)
    iam.create_user(UserName=USER)
    keys = iam.create_access_key(UserName=USER)["AccessKey"]
    iam.create_group(GroupName=USER)
    iam.add_user_to_group(UserName=USER, GroupName=USER)
    role = iam.create_role(RoleName=USER, AssumeRolePolicyDocument=json.dumps(TRUST_ALL))["Role"]["Arn"]
    iam.put_user_policy(
        UserName=USER, PolicyName="assume", PolicyDocument=json.dumps(allow("sts:AssumeRole", resource=role))
    )
    session = client(server, "sts", keys).assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    own = client(server, "sts", keys).get_session_token()["Credentials"]
    signer = partial(client, server, "s3", signature_version="s3v4")  # posts too are presigned with it
    clients = {
        "user": signer(keys),
        "group": signer(keys),
        "session of a user": signer(own),
        "role": signer(session),
        "bucket policy": signer(keys),
        "stranger": make_client(server.endpoint, signature_version=UNSIGNED),
    }

    def made(kind: str, bucket: str, actions: list[str]) -> Any:
        # Something else stands where there is nothing to allow, for a document must say something.
        document = json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": actions or ["s3:GetBucketLocation"],
                        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                    }
                ],
            }
        )
        if kind in ("user", "session of a user"):
            iam.put_user_policy(UserName=USER, PolicyName="may", PolicyDocument=document)
        elif kind == "group":
            iam.put_group_policy(GroupName=USER, PolicyName="may", PolicyDocument=document)
        elif kind == "role":
            iam.put_role_policy(RoleName=USER, PolicyName="may", PolicyDocument=document)
        else:
            who = "*" if kind == "stranger" else {"AWS": f"arn:aws:iam::{ACCOUNT}:user/{USER}"}
            statement = {**json.loads(document)["Statement"][0], "Principal": who}
            s3.delete_public_access_block(Bucket=bucket)
            s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        return clients[kind]

    yield made
    iam.remove_user_from_group(UserName=USER, GroupName=USER)
    iam.delete_access_key(UserName=USER, AccessKeyId=keys["AccessKeyId"])


SIGNED_ONLY = {
    "CopyObject",
    "UploadPartCopy",
    "CreateMultipartUpload",
}  # what S3 lets nobody do unsigned, whatever a policy says


@pytest.mark.parametrize("kind", KINDS)
def test_writers(s3: Any, asker: Callable[[str, str, list[str]], Any], bucket: str, kind: str) -> None:
    for name, (method, options, actions, fine) in WRITERS.items():
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        given = {
            key: value.replace("{bucket}", bucket) if isinstance(value, str) else value
            for key, value in options.items()
        }
        # Nothing allowed, and then all but each one of what it needs: refused, and the same for what is not there.
        for lacking in ([], *([one for one in actions if one != without] for without in actions if len(actions) > 1)):
            one = asker(kind, bucket, lacking)
            assert refused(one, method, bucket, given), (name, kind, lacking)
            if name != "CreateBucket":
                assert refused(one, method, bucket + "-none", given), (name, kind, "no such bucket")
            if "Key" in given:
                assert refused(one, method, bucket, {**given, "Key": "none"}), (name, kind, "no such key")
        got = code(call_of(asker(kind, bucket, actions), method), Bucket=bucket, **given)
        # A stranger's policy went with DeleteBucketPolicy; who may not list is not told that a key is not there.
        signed_only = kind == "stranger" and name in SIGNED_ONLY
        assert got in ({"AccessDenied"} if signed_only else fine), (name, kind, got)


def refused(one: Any, method: str, bucket: str, options: dict[str, Any]) -> bool:
    if method == "delete_objects":
        call = code(one.delete_objects, Bucket=bucket, **options)
        return call == "AccessDenied" or all(
            error["Code"] == "AccessDenied" for error in one.delete_objects(Bucket=bucket, **options)["Errors"]
        )
    return code(call_of(one, method), Bucket=bucket, **options) == "AccessDenied"


def call_of(one: Any, method: str) -> Callable[..., Any]:
    """A client's method; that of the form, which boto3 signs and does not send."""
    if method != "post_object":
        return getattr(one, method)  # type: ignore[no-any-return]

    def send(Bucket: str, Key: str) -> None:  # noqa: N803 - as boto3 has it
        anonymous = one.meta.config.signature_version is UNSIGNED
        fields = {"key": Key} if anonymous else one.generate_presigned_post(Bucket, Key)["fields"]
        answer = post(one.meta.endpoint_url, Bucket, {**fields, "file": ("f", b"x")})
        if answer.code:
            raise ClientError({"Error": {"Code": answer.code}}, "PostObject")

    return send

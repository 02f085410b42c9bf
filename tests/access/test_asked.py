"""Actions that an operation needs besides its first, and who is told that something is not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from access import accounts, where
from access.accounts import allow, client, code
from raw import call

bucket, iam = where.bucket, accounts.iam


@pytest.fixture(scope="module")
def server(open_server: Any) -> Any:
    return open_server


@pytest.fixture(scope="module")
def s3(server: Any) -> Any:
    return client(server, "s3")


def with_rights(server: Any, iam: Any, *statements: dict[str, Any]) -> Any:

    name = where.new_name()
    iam.create_user(UserName=name)
    iam.put_user_policy(
        UserName=name,
        PolicyName="p",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": list(statements)}),
    )
    return client(server, "s3", iam.create_access_key(UserName=name)["AccessKey"])


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
    asked = {
        "Bucket": bucket,
        "Key": "k",
        "VersionId": s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"],
        "ObjectAttributes": ["ETag"],
    }
    assert (
        code(
            with_rights(server, iam, one("s3:GetObjectVersion", "s3:GetObjectAttributes")).get_object_attributes,
            **asked,
        )
        == "AccessDenied"
    )
    assert not code(
        with_rights(server, iam, one("s3:GetObjectVersion", "s3:GetObjectVersionAttributes")).get_object_attributes,
        **asked,
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

"""Object lock through boto3: what can be set, by whom, and that a locked version goes by nothing at all."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest

from access import where
from access.accounts import TRUST_ALL, allow, client, code
from process import wait_until

server, s3 = where.server, where.s3


def soon(days: float = 1) -> datetime.datetime:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).replace(microsecond=0)


@pytest.fixture
def bucket(s3: Any) -> str:
    name = where.new_name()
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def put(s3: Any, bucket: str, key: str = "k", **lock: Any) -> str:
    return str(s3.put_object(Bucket=bucket, Key=key, Body=b"kept", **lock)["VersionId"])


def test_a_bucket_with_object_lock_has_versioning_for_good(s3: Any, bucket: str) -> None:
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == {
        "ObjectLockEnabled": "Enabled"
    }
    assert (
        code(s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
        == "InvalidBucketState"
    )
    version = put(s3, bucket)
    s3.delete_object(Bucket=bucket, Key="k", VersionId=version)
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    assert code(s3.get_object_lock_configuration, Bucket=bucket) == "ObjectLockConfigurationNotFoundError"
    assert (
        code(s3.put_object_lock_configuration, Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
        == "InvalidBucketState"
    )
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    put(s3, bucket, ObjectLockLegalHoldStatus="ON")


def configure(s3: Any, bucket: str, **retention: Any) -> None:
    rule = {"Rule": {"DefaultRetention": retention}} if retention else {}
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", **rule})


def test_default_retention_is_of_every_new_version(s3: Any, bucket: str) -> None:
    configure(s3, bucket, Mode="GOVERNANCE", Days=3)
    shown = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    assert shown["Rule"] == {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}}
    s3.put_object(Bucket=bucket, Key="put", Body=b"x" * 10_000)
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/put")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
    for key in ("put", "copy", "parts"):
        head = s3.head_object(Bucket=bucket, Key=key)
        assert head["ObjectLockMode"] == "GOVERNANCE", key
        assert abs(head["ObjectLockRetainUntilDate"] - soon(3)) < datetime.timedelta(minutes=5)
        assert code(s3.delete_object, Bucket=bucket, Key=key, VersionId=head["VersionId"]) == "AccessDenied"
    put(s3, bucket, "own", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=soon(1))
    assert s3.get_object(Bucket=bucket, Key="own")["ObjectLockMode"] == "COMPLIANCE"
    configure(s3, bucket, Mode="COMPLIANCE", Years=1)
    put(s3, bucket, "year")
    assert abs(s3.head_object(Bucket=bucket, Key="year")["ObjectLockRetainUntilDate"] - soon(365)) < datetime.timedelta(
        minutes=5
    )
    configure(s3, bucket)
    assert "ObjectLockMode" not in s3.head_object(Bucket=bucket, Key=(put(s3, bucket, "free"), "free")[1])


def test_locks_of_uploads_and_copies(s3: Any, bucket: str) -> None:
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": soon(), "ObjectLockLegalHoldStatus": "ON"}
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", **lock)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/parts", **lock)
    s3.copy_object(Bucket=bucket, Key="plain", CopySource=f"{bucket}/parts")
    for key in ("parts", "copy"):
        head = s3.head_object(Bucket=bucket, Key=key)
        assert {name: head[name] for name in lock} == lock, key
    assert "ObjectLockMode" not in s3.head_object(Bucket=bucket, Key="plain"), "a lock is of a version, and not copied"


def test_governance_and_its_bypass(s3: Any, bucket: str) -> None:
    version = put(s3, bucket, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon(2))

    def retain(mode: str, days: float, **more: Any) -> str:
        return code(
            s3.put_object_retention,
            Bucket=bucket,
            Key="k",
            Retention={"Mode": mode, "RetainUntilDate": soon(days)},
            **more,
        )

    assert retain("GOVERNANCE", 1) == "AccessDenied"
    assert retain("COMPLIANCE", 3) == "AccessDenied"
    assert not retain("GOVERNANCE", 3)
    assert not retain("GOVERNANCE", 1, BypassGovernanceRetention=True)
    assert code(s3.delete_object, Bucket=bucket, Key="k", VersionId=version) == "AccessDenied"
    assert not code(s3.delete_object, Bucket=bucket, Key="k", VersionId=version, BypassGovernanceRetention=True)
    version = put(s3, bucket, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon(2))
    assert not code(s3.put_object_retention, Bucket=bucket, Key="k", Retention={}, BypassGovernanceRetention=True)
    assert code(s3.get_object_retention, Bucket=bucket, Key="k") == "NoSuchObjectLockConfiguration"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=version)


@pytest.mark.parametrize("status", ["ON", "OFF"])
def test_a_legal_hold_that_came_with_an_object_was_put(s3: Any, bucket: str, status: str) -> None:
    """OFF too: it is told from one that was never put."""
    asked = {"ObjectLockLegalHoldStatus": status}
    put(s3, bucket, "put", **asked)
    s3.copy_object(Bucket=bucket, Key="copied", CopySource={"Bucket": bucket, "Key": "put"}, **asked)
    upload = {
        "Bucket": bucket,
        "Key": "parts",
        "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="parts", **asked)["UploadId"],
    }
    part = s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
    for key in ("put", "copied", "parts"):
        assert s3.get_object_legal_hold(Bucket=bucket, Key=key)["LegalHold"]["Status"] == status, key
        assert s3.head_object(Bucket=bucket, Key=key)["ObjectLockLegalHoldStatus"] == status, key
    s3.copy_object(Bucket=bucket, Key="unasked", CopySource={"Bucket": bucket, "Key": "put"})
    assert code(s3.get_object_legal_hold, Bucket=bucket, Key="unasked") == "NoSuchObjectLockConfiguration"


def test_a_legal_hold_stands_beside_retention(s3: Any, bucket: str) -> None:
    version = put(s3, bucket, ObjectLockLegalHoldStatus="ON")
    assert s3.get_object_legal_hold(Bucket=bucket, Key="k")["LegalHold"]["Status"] == "ON"
    assert (
        code(s3.delete_object, Bucket=bucket, Key="k", VersionId=version, BypassGovernanceRetention=True)
        == "AccessDenied"
    )
    s3.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "OFF"})
    assert s3.get_object_legal_hold(Bucket=bucket, Key="k", VersionId=version)["LegalHold"]["Status"] == "OFF"
    assert s3.head_object(Bucket=bucket, Key="k")["ObjectLockLegalHoldStatus"] == "OFF"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=version)


def test_a_lock_ends_with_its_time(s3: Any, bucket: str) -> None:
    version = put(
        s3,
        bucket,
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3),
    )
    assert code(s3.delete_object, Bucket=bucket, Key="k", VersionId=version) == "AccessDenied"
    wait_until(lambda: not code(s3.delete_object, Bucket=bucket, Key="k", VersionId=version), "the lock ends")
    assert code(s3.head_object, Bucket=bucket, Key="k", VersionId=version) == "404"


def test_who_may_see_and_set_locks(server: Any, s3: Any, bucket: str) -> None:
    iam, user = client(server, "iam"), f"locks-{bucket}"
    iam.create_user(UserName=user)
    own = client(server, "s3", iam.create_access_key(UserName=user)["AccessKey"])

    def may(*actions: str, **more: Any) -> None:
        iam.put_user_policy(UserName=user, PolicyName="locks", PolicyDocument=json.dumps(allow(*actions, **more)))

    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": soon(5)}
    may("s3:PutObject")
    assert code(own.put_object, Bucket=bucket, Key="k", Body=b"x", **lock) == "AccessDenied"
    assert code(own.put_object, Bucket=bucket, Key="k", Body=b"x", ObjectLockLegalHoldStatus="OFF") == "AccessDenied"
    may("s3:PutObject", "s3:PutObjectRetention", "s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion")
    version = own.put_object(Bucket=bucket, Key="k", Body=b"x", **lock)["VersionId"]
    assert "ObjectLockMode" not in own.head_object(Bucket=bucket, Key="k"), "who may not ask for it is not told"
    assert (
        code(own.delete_object, Bucket=bucket, Key="k", VersionId=version, BypassGovernanceRetention=True)
        == "AccessDenied"
    )
    (error,) = own.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": version}]}, BypassGovernanceRetention=True
    )["Errors"]
    assert error["Code"] == "AccessDenied"
    may("s3:*", Condition={"NumericLessThanIfExists": {"s3:object-lock-remaining-retention-days": "10"}})
    assert own.head_object(Bucket=bucket, Key="k")["ObjectLockMode"] == "GOVERNANCE"
    assert (
        code(
            own.put_object_retention,
            Bucket=bucket,
            Key="k",
            Retention={"Mode": "GOVERNANCE", "RetainUntilDate": soon(50)},
        )
        == "AccessDenied"
    )
    assert not code(
        own.put_object_retention, Bucket=bucket, Key="k", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": soon(8)}
    )
    assert "Errors" not in own.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": version}]}, BypassGovernanceRetention=True
    )


def test_a_locked_version_goes_by_nothing(server: Any, s3: Any, bucket: str) -> None:
    """Every way to remove or change it, by every kind of credential; then it is there as it was."""
    until = soon(30)
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
    held = {"inline": b"kept", "large": b"k" * 300_000}
    versions = {
        key: s3.put_object(Bucket=bucket, Key=key, Body=body, Tagging="a=b", **lock)["VersionId"]
        for key, body in held.items()
    }
    versions["hold"] = put(s3, bucket, "hold", ObjectLockLegalHoldStatus="ON")
    held["hold"] = b"kept"
    iam, user = client(server, "iam"), f"hostile-{bucket}"
    iam.create_user(UserName=user)
    keys = iam.create_access_key(UserName=user)["AccessKey"]
    everything = allow("*")
    iam.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=json.dumps(everything))
    role = iam.create_role(RoleName=user, AssumeRolePolicyDocument=json.dumps(TRUST_ALL))["Role"]["Arn"]
    iam.put_role_policy(RoleName=user, PolicyName="all", PolicyDocument=json.dumps(everything))
    session = client(server, "sts", keys).assume_role(RoleArn=role, RoleSessionName="hostile")["Credentials"]
    own = client(server, "sts", keys).get_session_token()["Credentials"]
    for one in (s3, client(server, "s3", keys), client(server, "s3", session), client(server, "s3", own)):
        for key, version in versions.items():
            for call in attacks(one, bucket, key, version):
                call()
    server.admin_cli("rename-prefix", bucket, "la", "moved/la", "--wait")
    for key, version in versions.items():
        got = s3.get_object(Bucket=bucket, Key=key, VersionId=version)
        assert got["Body"].read() == held[key], key
        if key == "hold":
            assert got["ObjectLockLegalHoldStatus"] == "ON"
        else:
            assert (got["ObjectLockMode"], got["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", until)


def attacks(one: Any, bucket: str, key: str, version: str) -> list[Callable[[], None]]:
    def denied(method: Callable[..., Any], *codes: str, **options: Any) -> Callable[[], None]:
        def run() -> None:
            got = code(method, Bucket=bucket, **options)
            assert got in (codes or ("AccessDenied",)), (method, options, got)

        return run

    def fine(method: Callable[..., Any], **options: Any) -> Callable[[], None]:
        def run() -> None:
            method(Bucket=bucket, **options)

        return run

    def each() -> None:
        for bypass in (False, True):
            (error,) = one.delete_objects(
                Bucket=bucket,
                Delete={"Objects": [{"Key": key, "VersionId": version}]},
                BypassGovernanceRetention=bypass,
            )["Errors"]
            assert error["Code"] == "AccessDenied"

    def complete() -> None:
        upload = one.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        part = one.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"other")["ETag"]
        one.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
        )

    own = {"Key": key, "VersionId": version}
    tries = [
        denied(one.delete_object, **own),
        denied(one.delete_object, BypassGovernanceRetention=True, **own),
        each,
        fine(one.delete_object, Key=key),
        fine(one.put_object, Key=key, Body=b"other"),
        complete,
        fine(
            one.copy_object,
            Key=key,
            CopySource={"Bucket": bucket, "Key": key, "VersionId": version},
            MetadataDirective="REPLACE",
        ),
        fine(one.rename_object, Key=key + "-renamed", RenameSource=key),
        fine(one.put_object, Key=key, Body=b"again"),
        denied(one.put_bucket_versioning, "InvalidBucketState", VersioningConfiguration={"Status": "Suspended"}),
        denied(one.delete_bucket, "BucketNotEmpty"),
        fine(one.put_object_lock_configuration, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}),
    ]
    if key != "hold":  # a hold is lifted by who may
        for retention in (
            {},
            {"Mode": "COMPLIANCE", "RetainUntilDate": soon(1)},
            {"Mode": "GOVERNANCE", "RetainUntilDate": soon(60)},
        ):
            for bypass in (False, True):
                tries.append(
                    denied(one.put_object_retention, Retention=retention, BypassGovernanceRetention=bypass, **own)
                )
        tries += [fine(one.put_object_legal_hold, LegalHold={"Status": status}, **own) for status in ("ON", "OFF")]
    return tries

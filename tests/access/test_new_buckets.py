"""What a new bucket begins with: nothing public, as on S3, or open (`--new-buckets open`); and whose its objects
are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import raw
from access.accounts import allow, client
from process import ServerProcess


def another(server: ServerProcess, name: str) -> dict[str, str]:
    """Keys of a new user who may do everything in S3."""
    iam = client(server, "iam")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(allow("s3:*")))
    made: dict[str, str] = iam.create_access_key(UserName=name)["AccessKey"]
    return made


def owners(s3: Any, bucket: str) -> dict[str, str]:
    return {
        found["Key"]: found["Owner"]["DisplayName"]
        for found in s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    }


def test_open_buckets_take_acls_and_public_policies(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", "--new-buckets", "open").start()
    try:
        s3 = client(server, "s3")
        s3.create_bucket(Bucket="photos")
        s3.put_object(Bucket="photos", Key="k", Body=b"x", ACL="public-read")
        assert raw.send(server.endpoint, "GET", "/photos/k", {}).body == b"x"
        assert s3.get_bucket_ownership_controls(Bucket="photos")["OwnershipControls"]["Rules"] == [
            {"ObjectOwnership": "ObjectWriter"}
        ]
        with pytest.raises(ClientError, match="NoSuchPublicAccessBlockConfiguration"):
            s3.get_public_access_block(Bucket="photos")
        s3.create_bucket(Bucket="shown", ACL="public-read")
        s3.put_object(Bucket="shown", Key="k", Body=b"x")
        assert raw.send(server.endpoint, "GET", "/shown", {}).status == 200
        s3.create_bucket(Bucket="closed", ObjectOwnership="BucketOwnerEnforced")
        assert (
            raw.call(server.endpoint, "PUT", "/closed/k", headers={"x-amz-acl": "public-read"}, body=b"x").code
            == "AccessControlListNotSupported"
        )
    finally:
        server.stop()


def test_objects_are_the_buckets_owners_where_its_ownership_says_so(
    server: ServerProcess, s3: Any, bucket: str
) -> None:
    keys = another(server, f"writer-{bucket}")
    writer = client(server, "s3", keys)
    for ownership, whose in (
        ("BucketOwnerEnforced", "root"),
        ("BucketOwnerPreferred", "root"),
        ("ObjectWriter", f"writer-{bucket}"),
    ):
        s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": ownership}]})
        writer.put_object(Bucket=bucket, Key="put", Body=b"x")
        writer.copy_object(Bucket=bucket, Key="copied", CopySource={"Bucket": bucket, "Key": "put"})
        upload = writer.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
        part = writer.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
        done = {name: value for name, value in part.items() if name == "ETag" or name.startswith("Checksum")}
        writer.complete_multipart_upload(
            Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, **done}]}
        )
        found = owners(s3, bucket)
        assert (whose == "root") == (set(found.values()) == {s3.list_buckets()["Owner"]["DisplayName"]}), (
            ownership,
            found,
        )
        assert len(set(found.values())) == 1


def test_a_hold_that_was_never_put(server: ServerProcess, s3: Any) -> None:
    name = f"held-{id(s3)}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    with pytest.raises(ClientError, match="NoSuchObjectLockConfiguration"):
        s3.get_object_legal_hold(Bucket=name, Key="k")
    s3.put_object_legal_hold(Bucket=name, Key="k", LegalHold={"Status": "OFF"})
    assert s3.get_object_legal_hold(Bucket=name, Key="k")["LegalHold"]["Status"] == "OFF"

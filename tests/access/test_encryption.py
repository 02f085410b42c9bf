"""Encryption through boto3, each read compared with the plain bytes; on one server and through two gateways."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from typing import Any

import pytest

import raw
from access import where
from access.accounts import allow, client, code
from access.test_forms import post, presigned
from process import make_client

server, s3 = where.server, where.s3
MIB = 1 << 20
SEGMENT = 64 * 1024
KEYS = ["7" * 32, "8" * 32]


def customer(key: str) -> dict[str, Any]:
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}


def encoded(key: str) -> dict[str, Any]:
    """For the one operation whose key botocore sends as it is."""
    raw_key = key.encode()
    return {
        "SSECustomerAlgorithm": "AES256",
        "SSECustomerKey": base64.b64encode(raw_key).decode(),
        "SSECustomerKeyMD5": base64.b64encode(hashlib.md5(raw_key).digest()).decode(),
    }


def of_source(key: str) -> dict[str, Any]:
    return {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": key}


# mode -> (what a write is given, what a read is given, what a copy from it is given)
MODES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, {}),
    "SSE-S3": ({"ServerSideEncryption": "AES256"}, {}, {}),
    "SSE-KMS": ({"ServerSideEncryption": "aws:kms"}, {}, {}),
    "SSE-KMS, named": (
        {
            "ServerSideEncryption": "aws:kms",
            "SSEKMSKeyId": "arn:aws:kms:us-east-1:1:key/other",
            "SSEKMSEncryptionContext": base64.b64encode(b'{"a": "b"}').decode(),
        },
        {},
        {},
    ),
    "SSE-C": (customer(KEYS[0]), customer(KEYS[0]), of_source(KEYS[0])),
    "SSE-C, other": (customer(KEYS[1]), customer(KEYS[1]), of_source(KEYS[1])),
}
SEALED = [name for name in MODES if name != "plain"]


@pytest.fixture
def bucket(s3: Any) -> str:
    name = where.new_name()
    s3.create_bucket(Bucket=name)
    return name


def read(s3: Any, bucket: str, key: str, **given: Any) -> bytes:
    return bytes(s3.get_object(Bucket=bucket, Key=key, **given)["Body"].read())


def spans(size: int, chance: random.Random) -> list[tuple[int, int]]:
    """Ranges at, across and off the edges of segments, and some at random."""
    edges = [
        at
        for at in (
            0,
            1,
            SEGMENT - 1,
            SEGMENT,
            SEGMENT + 1,
            2 * SEGMENT,
            MIB - 1,
            MIB,
            MIB + 1,
            size - 1,
            size - SEGMENT,
        )
        if 0 <= at < size
    ]
    pairs = [(first, last) for first in edges for last in edges if first <= last]
    return chance.sample(pairs, min(10, len(pairs))) + [
        tuple(sorted((chance.randrange(size), chance.randrange(size)))) for _ in range(6)
    ]  # type: ignore[misc]


def compare(s3: Any, bucket: str, key: str, data: bytes, given: dict[str, Any], chance: random.Random) -> None:
    assert read(s3, bucket, key, **given) == data
    assert s3.head_object(Bucket=bucket, Key=key, **given)["ContentLength"] == len(data)
    for first, last in spans(len(data), chance) if data else []:
        assert read(s3, bucket, key, Range=f"bytes={first}-{last}", **given) == data[first : last + 1], (first, last)


@pytest.mark.parametrize("mode", SEALED)
def test_objects_of_all_sizes_and_their_ranges(s3: Any, bucket: str, mode: str) -> None:
    chance = random.Random(mode)
    write, given, _ = MODES[mode]
    for size in (0, 1, 4095, 4096, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, MIB - 16, MIB, 3 * MIB + 5):
        data = chance.randbytes(size)
        put = s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumAlgorithm="CRC32C", **write)
        compare(s3, bucket, "k", data, given, chance)
        got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", **given)
        assert got["ChecksumCRC32C"] == put["ChecksumCRC32C"]
        for shown in (put, got, s3.head_object(Bucket=bucket, Key="k", **given)):
            assert shown.get("ServerSideEncryption") == write.get("ServerSideEncryption")
            assert shown.get("SSECustomerAlgorithm") == write.get("SSECustomerAlgorithm")
            assert shown.get("SSEKMSKeyId") == ({"SSE-KMS": "first", "SSE-KMS, named": "other"}.get(mode))
            assert bool(shown.get("SSECustomerKeyMD5")) == ("SSECustomerKey" in write)


@pytest.mark.parametrize("mode", SEALED)
def test_multipart(s3: Any, bucket: str, mode: str) -> None:
    chance = random.Random(mode)
    write, given, source = MODES[mode]
    s3.put_object(Bucket=bucket, Key="plain", Body=chance.randbytes(6 * MIB))
    s3.put_object(Bucket=bucket, Key="sealed", Body=chance.randbytes(5 * MIB + 1), **write)
    parts = [
        chance.randbytes(5 * MIB + 3),
        read(s3, bucket, "plain")[10 : 10 + 5 * MIB],
        read(s3, bucket, "sealed", **given),
        chance.randbytes(100),
    ]
    made = s3.create_multipart_upload(Bucket=bucket, Key="m", **write)
    assert made.get("ServerSideEncryption") == write.get("ServerSideEncryption")
    where_to = {"Bucket": bucket, "Key": "m", "UploadId": made["UploadId"]}
    etags = [
        s3.upload_part(**where_to, PartNumber=1, Body=parts[0], **given)["ETag"],
        s3.upload_part_copy(
            **where_to, PartNumber=2, CopySource=f"{bucket}/plain", CopySourceRange=f"bytes=10-{9 + 5 * MIB}", **given
        )["CopyPartResult"]["ETag"],
        s3.upload_part_copy(**where_to, PartNumber=3, CopySource=f"{bucket}/sealed", **given, **source)[
            "CopyPartResult"
        ]["ETag"],
        s3.upload_part(**where_to, PartNumber=4, Body=parts[3], **given)["ETag"],
    ]
    if given:
        assert code(s3.upload_part, **where_to, PartNumber=5, Body=b"x") == "InvalidRequest"
        assert code(s3.upload_part, **where_to, PartNumber=5, Body=b"x", **customer("x" * 32)) == "AccessDenied"
    else:
        assert code(s3.upload_part, **where_to, PartNumber=5, Body=b"x", **customer("x" * 32)) == "InvalidRequest"
    done = s3.complete_multipart_upload(
        **where_to,
        MultipartUpload={"Parts": [{"PartNumber": number + 1, "ETag": etag} for number, etag in enumerate(etags)]},
    )
    assert done.get("ServerSideEncryption") == write.get("ServerSideEncryption")
    compare(s3, bucket, "m", b"".join(parts), given, chance)
    for number, part in enumerate(parts):
        assert read(s3, bucket, "m", PartNumber=number + 1, **given) == part


@pytest.mark.parametrize("before", MODES)
def test_copies_between_modes(s3: Any, bucket: str, before: str) -> None:
    """Each outlives its source, is read by its own key only, and is right once its source is overwritten."""
    chance = random.Random(before)
    for size in (100, 5 * SEGMENT + 9):
        for after, (write, given, _) in MODES.items():
            data = chance.randbytes(size)
            old_write, old_given, source = MODES[before]
            s3.put_object(Bucket=bucket, Key="a", Body=data, ChecksumAlgorithm="SHA256", **old_write)
            copied = s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a", **write, **source)
            assert copied["CopyObjectResult"]["ChecksumSHA256"]
            if source:
                assert (
                    code(s3.copy_object, Bucket=bucket, Key="c", CopySource=f"{bucket}/a", **write) == "InvalidRequest"
                )
                assert (
                    code(
                        s3.copy_object, Bucket=bucket, Key="c", CopySource=f"{bucket}/a", **write, **of_source("x" * 32)
                    )
                    == "AccessDenied"
                )
            s3.put_object(Bucket=bucket, Key="a", Body=b"other")
            compare(s3, bucket, "b", data, given, chance)
            assert s3.head_object(Bucket=bucket, Key="b", **given).get("ServerSideEncryption") == write.get(
                "ServerSideEncryption"
            )
            if old_given and old_given != given:
                assert code(s3.get_object, Bucket=bucket, Key="b", **old_given) in ("AccessDenied", "InvalidRequest")
            if not write and not old_write:
                assert code(s3.copy_object, Bucket=bucket, Key="b", CopySource=f"{bucket}/b") == "InvalidRequest"
                continue
            # Onto itself, which is how keys are changed.
            s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/b", **old_write, **MODES[after][2])
            compare(s3, bucket, "b", data, old_given, chance)


def test_a_rename_needs_no_key(s3: Any, bucket: str) -> None:
    for number, (write, given, _) in enumerate(MODES.values()):
        s3.put_object(Bucket=bucket, Key="old", Body=b"renamed" * 5000, **write)
        s3.rename_object(Bucket=bucket, Key=f"new{number}", RenameSource="old")
        assert read(s3, bucket, f"new{number}", **given) == b"renamed" * 5000


def test_wrong_keys(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="c", Body=b"secret", **customer(KEYS[0]))
    s3.put_object(Bucket=bucket, Key="p", Body=b"plain")
    s3.put_object(Bucket=bucket, Key="s", Body=b"sealed", ServerSideEncryption="AES256")
    attributes = {"ObjectAttributes": ["ETag"]}
    for call, more, brought in ((s3.get_object, {}, customer), (s3.get_object_attributes, attributes, encoded)):
        assert code(call, Bucket=bucket, Key="c", **more) == "InvalidRequest"
        assert code(call, Bucket=bucket, Key="c", **more, **brought(KEYS[1])) == "AccessDenied"
        for key in ("p", "s"):
            assert code(call, Bucket=bucket, Key=key, **more, **brought(KEYS[0])) == "InvalidRequest"
    assert code(s3.head_object, Bucket=bucket, Key="c") == "400"
    assert code(s3.head_object, Bucket=bucket, Key="c", **customer(KEYS[1])) == "403"
    assert s3.get_object_attributes(Bucket=bucket, Key="c", **attributes, **encoded(KEYS[0]))["ETag"]
    assert (
        code(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="none")
        == "KMS.NotFoundException"
    )


def test_equal_content_is_not_shared_across_keys(server: Any, s3: Any, bucket: str) -> None:
    data = random.Random(1).randbytes(300_000)

    def unique() -> int:
        server.settle()  # what a write or a delete leaves to the outbox: content rows, and blobs to be freed
        return int(json.loads(raw.call(server.endpoint, "GET", "/api/stats").body)["dedup_unique_blobs"])

    before = unique()
    for number in range(3):
        s3.put_object(Bucket=bucket, Key=f"plain{number}", Body=data)
        assert unique() == before + 1
    for number in range(2):
        for name in ("AES256", "aws:kms"):
            s3.put_object(Bucket=bucket, Key=f"{name}{number}", Body=data, ServerSideEncryption=name)
    s3.put_object(Bucket=bucket, Key="c", Body=data, **customer(KEYS[0]))
    assert unique() == before + 6
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/AES2560", ServerSideEncryption="aws:kms")
    assert unique() == before + 6
    etags = [
        s3.head_object(Bucket=bucket, Key=key)["ETag"]
        for key in ("plain0", "AES2560", "AES2561", "aws:kms0", "aws:kms1")
    ]
    assert etags[0] == etags[1] == etags[2], "an MD5, as in S3"
    assert len(set(etags[2:])) == 3, "none tells the content"


def test_a_buckets_default(server: Any, s3: Any, bucket: str) -> None:
    assert code(s3.get_bucket_encryption, Bucket=bucket) == "ServerSideEncryptionConfigurationNotFoundError"
    s3.put_object(Bucket=bucket, Key="before", Body=b"x" * 5000)
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "other"},
        "BucketKeyEnabled": True,
    }
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    other = make_client(server.endpoint)
    assert other.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"] == [rule]
    other.put_object(Bucket=bucket, Key="put", Body=b"y" * 5000)
    other.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/before")
    upload = other.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = other.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"z")["ETag"]
    other.complete_multipart_upload(
        Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
    for key, data in (("put", b"y" * 5000), ("copy", b"x" * 5000), ("parts", b"z")):
        got = s3.get_object(Bucket=bucket, Key=key)
        assert (got["Body"].read(), got["ServerSideEncryption"], got["SSEKMSKeyId"], got["BucketKeyEnabled"]) == (
            data,
            "aws:kms",
            "other",
            True,
        )
    s3.put_object(Bucket=bucket, Key="own", Body=b"o", ServerSideEncryption="AES256")
    assert s3.head_object(Bucket=bucket, Key="own")["ServerSideEncryption"] == "AES256"
    assert "ServerSideEncryption" not in s3.head_object(Bucket=bucket, Key="before")
    s3.delete_bucket_encryption(Bucket=bucket)
    other.put_object(Bucket=bucket, Key="after", Body=b"x")
    assert "ServerSideEncryption" not in s3.head_object(Bucket=bucket, Key="after")


def test_a_policy_can_want_encryption(server: Any, s3: Any, bucket: str) -> None:
    iam = client(server, "iam")
    name = bucket
    iam.create_user(UserName=name)
    keys = iam.create_access_key(UserName=name)["AccessKey"]
    document = allow("s3:*")
    document["Statement"].append(
        {
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Resource": "*",
            "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}},
        }
    )
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
    user = client(server, "s3", keys)
    assert code(user.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"
    assert code(user.put_object, Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms") == "AccessDenied"
    user.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256")
    iam.delete_access_key(UserName=name, AccessKeyId=keys["AccessKeyId"])


def test_a_form_can_ask_for_it(server: Any, s3: Any, bucket: str) -> None:
    form = presigned(
        client(server, "s3", signature_version="s3v4"),
        bucket,
        "k",
        b"sealed" * 2000,
        {"x-amz-server-side-encryption": "AES256"},
        [{"x-amz-server-side-encryption": "AES256"}],
    )
    answer = post(server.endpoint, bucket, form)
    assert answer.code == ""
    assert answer.headers["x-amz-server-side-encryption"] == "AES256"
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["ServerSideEncryption"]) == (b"sealed" * 2000, "AES256")


def test_versions_and_metadata_are_as_ever(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put = {
        mode: s3.put_object(
            Bucket=bucket, Key="k", Body=mode.encode() * 3000, Metadata={"m": mode[:5]}, Tagging="t=1", **write
        )["VersionId"]
        for mode, (write, _, _) in MODES.items()
    }
    s3.put_object_tagging(
        Bucket=bucket, Key="k", VersionId=put["SSE-C"], Tagging={"TagSet": [{"Key": "t", "Value": "2"}]}
    )
    for mode, version in put.items():
        got = s3.get_object(Bucket=bucket, Key="k", VersionId=version, **MODES[mode][1])
        assert (got["Body"].read(), got["Metadata"]) == (mode.encode() * 3000, {"m": mode[:5]})
    listed = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert {one["VersionId"]: one["Size"] for one in listed} == {
        version: 3000 * len(mode) for mode, version in put.items()
    }

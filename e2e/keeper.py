"""Writes objects that a later run of it knows byte for byte, and reads them all back: small, large, in parts,
encrypted, and versions of one key. What it is told: GOAL, write or read, and how to reach S4."""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import boto3
from botocore.config import Config

SIZES = (100, 5_000, 300_000, 3 << 20)
COUNT, VERSIONS, PART = 40, 5, 5 << 20
BUCKET = "kept"


def content(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def objects() -> list[tuple[str, int]]:
    return [(f"folder/{number}", SIZES[number % len(SIZES)]) for number in range(COUNT)]


def write(s3: Any) -> None:
    if BUCKET in [one["Name"] for one in s3.list_buckets()["Buckets"]]:
        return  # by a run before, whose cluster was kept
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for number, (key, size) in enumerate(objects()):
        more = {"ServerSideEncryption": "AES256"} if number % 3 == 0 else {}
        s3.put_object(Bucket=BUCKET, Key=key, Body=content(key, size), **more)
    for version in range(VERSIONS):
        s3.put_object(Bucket=BUCKET, Key="versions", Body=content(f"version {version}", 20_000))
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(
                Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=number, Body=content(f"part {number}", PART)
            )["ETag"],
        }
        for number in (1, 2)
    ]
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})


def read(s3: Any) -> None:
    for key, size in objects():
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == content(key, size), key
    found = s3.list_object_versions(Bucket=BUCKET, Prefix="versions")["Versions"]
    assert len(found) == VERSIONS, found
    for number, one in enumerate(reversed(found)):
        body = s3.get_object(Bucket=BUCKET, Key="versions", VersionId=one["VersionId"])["Body"].read()
        assert body == content(f"version {number}", 20_000), number
    whole = s3.get_object(Bucket=BUCKET, Key="parts")["Body"].read()
    assert whole == content("part 1", PART) + content("part 2", PART)
    s3.put_object(Bucket=BUCKET, Key="after", Body=b"written afterwards")
    assert s3.get_object(Bucket=BUCKET, Key="after")["Body"].read() == b"written afterwards"


client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard"}))
{"write": write, "read": read}[os.environ["GOAL"]](client)
sys.stdout.write("well\n")

"""Which buckets may use which keys of the KMS (`--kms-allow`): of what a request names, and of what a bucket's default
is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from access import where
from access.accounts import client, code
from access.test_forms import post, presigned
from s4.crypto.kms import allowed_of

server, s3, bucket = where.server, where.s3, where.bucket  # the bucket is none of theirs


def named(key: str) -> dict[str, str]:
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}


def default(key: str) -> dict[str, Any]:
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}]}


def ways(s3: Any, bucket: str, key: str) -> dict[str, Callable[[], Any]]:
    """Every way to name a key."""
    return {
        "a write": lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x", **named(key)),
        "an upload": lambda: s3.create_multipart_upload(Bucket=bucket, Key="k", **named(key)),
        "a copy": lambda: s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/plain", **named(key)),
        "a copy of what is encrypted": lambda: s3.copy_object(
            Bucket=bucket, Key="k", CopySource=f"{bucket}/sealed", **named(key)
        ),
        "a default": lambda: s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=default(key)),
    }


@pytest.mark.parametrize("key", ["theirs", "alias/theirs", "arn:aws:kms:us-east-1:1:key/theirs"])
def test_a_bucket_uses_the_keys_that_it_may(s3: Any, bucket: str, key: str) -> None:
    theirs = f"theirs-{bucket}"
    s3.create_bucket(Bucket=theirs)
    for name in (bucket, theirs):
        s3.put_object(Bucket=name, Key="plain", Body=b"x")
        s3.put_object(Bucket=name, Key="sealed", Body=b"x" * 10_000, **named("first"))
    for way, call in ways(s3, bucket, key).items():
        assert code(call) == "AccessDenied", way
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["plain", "sealed"]
    for call in ways(s3, theirs, key).values():
        call()
    s3.put_object(Bucket=theirs, Key="by default", Body=b"y")
    assert s3.head_object(Bucket=theirs, Key="by default")["SSEKMSKeyId"] == "theirs"
    assert code(s3.copy_object, Bucket=bucket, Key="k", CopySource=f"{theirs}/k", **named(key)) == "AccessDenied"
    s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{theirs}/k", **named("other"))
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x" * 10_000


def test_a_form_names_no_key_of_others(server: Any, bucket: str) -> None:
    asked = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "theirs"}
    said = post(
        server.endpoint,
        bucket,
        presigned(
            client(server, "s3", signature_version="s3v4"),
            bucket,
            "k",
            b"x",
            asked,
            [{name: value} for name, value in asked.items()],
        ),
    )
    assert (said.status, said.code) == (403, "AccessDenied"), said.body


def test_a_key_of_others_and_one_that_is_not_there_have_one_answer(s3: Any, bucket: str) -> None:
    said = []
    for key in ("theirs", "nowhere", "unheard"):  # theirs exists, nowhere is somebody's by the setting
        with pytest.raises(s3.exceptions.ClientError) as caught:
            s3.put_object(Bucket=bucket, Key="k", Body=b"x", **named(key))
        said.append(caught.value.response["Error"]["Message"].replace(key, "KEY"))
    assert len(set(said)) == 1


def test_what_the_setting_may_say() -> None:
    assert allowed_of("") is None
    assert allowed_of("a = b-*, c ;d=*;") == {"a": ("b-*", "c"), "d": ("*",)}
    for wrong in ("a", "a=", "=b", "a=b;a=c", "a=B", "a=b c", "a=b=c"):
        with pytest.raises(ValueError, match="write KEY=BUCKET"):
            allowed_of(wrong)

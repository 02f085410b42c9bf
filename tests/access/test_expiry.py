"""Lifecycle through boto3, on a server whose days last a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from access import where
from access.accounts import code
from process import ServerProcess, make_client, wait_until

server, s3, bucket = where.server, where.s3, where.bucket


def configure(s3: Any, bucket: str, *rules: dict[str, Any]) -> None:
    s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [{"Status": "Enabled", **rule} for rule in rules]}
    )


def keys(s3: Any, bucket: str) -> list[str]:
    return [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_rules_come_back_as_they_were_put(s3: Any, bucket: str) -> None:
    rules = [
        {"ID": "old", "Status": "Enabled", "Prefix": "a/", "Expiration": {"Days": 3}},
        {
            "ID": "and",
            "Status": "Disabled",
            "Filter": {
                "And": {
                    "Prefix": "b/",
                    "Tags": [{"Key": "t", "Value": "1"}],
                    "ObjectSizeGreaterThan": 5,
                    "ObjectSizeLessThan": 500,
                }
            },
            "Expiration": {"Days": 1},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 2, "NewerNoncurrentVersions": 3},
        },
        {
            "ID": "rest",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {"ID": "tag", "Status": "Enabled", "Filter": {"Tag": {"Key": "t", "Value": "1"}}, "Expiration": {"Days": 9}},
    ]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert code(s3.get_bucket_lifecycle_configuration, Bucket=bucket) == "NoSuchLifecycleConfiguration"


def test_objects_end_and_say_when(s3: Any, bucket: str) -> None:
    configure(
        s3,
        bucket,
        {"ID": "end", "Filter": {"Prefix": "end/"}, "Expiration": {"Days": 1}},
        {"ID": "late", "Filter": {"Prefix": "late/"}, "Expiration": {"Days": 30_000}},
    )
    for key in ("end/k", "late/k", "other"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x" * 10_000)
    late = s3.put_object(Bucket=bucket, Key="late/k", Body=b"x")["Expiration"]
    assert late.startswith('expiry-date="')
    assert late.endswith('rule-id="late"')
    assert s3.head_object(Bucket=bucket, Key="late/k")["Expiration"] == late
    assert "Expiration" not in s3.get_object(Bucket=bucket, Key="other")
    assert 'rule-id="late"' in s3.copy_object(Bucket=bucket, Key="late/c", CopySource=f"{bucket}/other")["Expiration"]
    wait_until(lambda: keys(s3, bucket) == ["late/c", "late/k", "other"], "the object ends")


def test_versions_and_uploads_end(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2", b"3"):
        s3.put_object(Bucket=bucket, Key="k", Body=body)
    s3.put_object(Bucket=bucket, Key="gone", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="gone")
    s3.create_multipart_upload(Bucket=bucket, Key="up")
    configure(
        s3,
        bucket,
        {
            "ID": "a",
            "Filter": {},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
    )

    def left() -> tuple[int, int, int]:
        found = s3.list_object_versions(Bucket=bucket)
        return (
            len(found.get("Versions", [])),
            len(found.get("DeleteMarkers", [])),
            len(s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])),
        )

    wait_until(lambda: left() == (1, 0, 0), "everything of the past ends")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"3"


def test_uploads_say_when_they_end(s3: Any, bucket: str) -> None:
    assert "AbortDate" not in s3.create_multipart_upload(Bucket=bucket, Key="up/k")
    configure(
        s3,
        bucket,
        {"ID": "a", "Filter": {"Prefix": "up/"}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 30_000}},
    )
    made = s3.create_multipart_upload(Bucket=bucket, Key="up/k")
    listed = s3.list_parts(Bucket=bucket, Key="up/k", UploadId=made["UploadId"])
    assert made["AbortRuleId"] == listed["AbortRuleId"] == "a"
    assert abs((made["AbortDate"] - listed["AbortDate"]).total_seconds()) <= 1, "a day is a second here"
    assert "AbortDate" not in s3.create_multipart_upload(Bucket=bucket, Key="other")


def test_what_ends_is_in_the_audit_log(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", "--reserve", "64MiB", "--lifecycle-day", "1").start()
    s3 = make_client(server.endpoint)
    s3.create_bucket(Bucket="audited")
    s3.put_object(Bucket="audited", Key="k", Body=b"x")
    configure(s3, "audited", {"ID": "a", "Filter": {}, "Expiration": {"Days": 1}})
    wait_until(lambda: keys(s3, "audited") == [], "the object ends")
    assert server.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "data" / "audit.log").read_text().splitlines()]
    assert [(one["user"], one["bucket"], one["key"]) for one in lines if one["operation"] == "Lifecycle:current"] == [
        ("s4-lifecycle", "audited", "k")
    ]

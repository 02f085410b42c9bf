"""Storage classes: names that are taken, kept and shown, all on the same disks; archives are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

import raw
from access.test_forms import post, presigned
from process import ServerProcess, make_client
from s4.s3 import classes, lifecycle, xml
from s4.s3.errors import S3Error


def shown(s3: Any, bucket: str, key: str) -> set[str]:
    """The class of an object by everything that shows one; GET and HEAD leave the standard one out, as S3 does."""
    of = {"Bucket": bucket, "Key": key}
    listings = (
        s3.list_objects_v2(Bucket=bucket)["Contents"],
        s3.list_objects(Bucket=bucket)["Contents"],
        s3.list_object_versions(Bucket=bucket)["Versions"],
    )
    found = {row["StorageClass"] for rows in listings for row in rows if row["Key"] == key}
    found.add(s3.get_object_attributes(**of, ObjectAttributes=["StorageClass"])["StorageClass"])
    answers = {s3.head_object(**of).get("StorageClass"), s3.get_object(**of).get("StorageClass")}
    return found | {answer or "STANDARD" for answer in answers} - ({"STANDARD"} if "STANDARD" in answers else set())


@pytest.mark.parametrize("name", classes.AT_ONCE)
def test_a_class_is_kept_and_shown(s3: Any, bucket: str, name: str) -> None:
    s3.put_object(Bucket=bucket, Key="put", Body=b"x", StorageClass=name)
    s3.put_object(Bucket=bucket, Key="standard", Body=b"x", Metadata={"said": "x-amz-storage-class"})
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "standard"}, StorageClass=name)
    s3.copy_object(
        Bucket=bucket,
        Key="new",
        CopySource={"Bucket": bucket, "Key": "standard"},
        StorageClass=name,
        MetadataDirective="REPLACE",
    )
    s3.copy_object(Bucket=bucket, Key="plain", CopySource={"Bucket": bucket, "Key": "put"})
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", StorageClass=name)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    assert s3.list_parts(Bucket=bucket, Key="parts", UploadId=upload)["StorageClass"] == name
    assert s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["StorageClass"] == name
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert [shown(s3, bucket, key) for key in ("put", "copy", "new", "parts")] == [{name}] * 4
    assert [shown(s3, bucket, key) for key in ("standard", "plain")] == [{"STANDARD"}] * 2


def test_a_copy_to_itself_may_change_the_class(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    itself = {"Bucket": bucket, "Key": "k", "CopySource": {"Bucket": bucket, "Key": "k"}}
    with pytest.raises(ClientError, match="illegal"):
        s3.copy_object(**itself)
    for name in ("STANDARD_IA", "STANDARD"):
        s3.copy_object(**itself, StorageClass=name)
        assert shown(s3, bucket, "k") == {name}


def test_a_presigned_address_and_a_form_say_a_class(server: ServerProcess, s3: Any, bucket: str) -> None:
    assert (
        raw.call(
            server.endpoint, "PUT", f"/{bucket}/k", query="x-amz-storage-class=ONEZONE_IA", presign_s=60, body=b"x"
        ).status
        == 200
    )
    assert shown(s3, bucket, "k") == {"ONEZONE_IA"}
    client = make_client(server.endpoint, signature_version="s3v4")
    said = {"x-amz-storage-class": "GLACIER_IR"}
    sent = post(server.endpoint, bucket, presigned(client, bucket, "f", b"x", said, [said]))
    client.close()
    assert sent.status == 204, sent.body
    assert shown(s3, bucket, "f") == {"GLACIER_IR"}


def test_rules_that_move_objects_are_kept_as_they_came(s3: Any, bucket: str) -> None:
    rules = [
        {
            "ID": "days",
            "Status": "Enabled",
            "Filter": {"Prefix": "a"},
            "Transitions": [{"Days": 30, "StorageClass": "STANDARD_IA"}, {"Days": 60, "StorageClass": "GLACIER_IR"}],
            "NoncurrentVersionTransitions": [
                {"NoncurrentDays": 30, "NewerNoncurrentVersions": 2, "StorageClass": "ONEZONE_IA"}
            ],
            "Expiration": {"Days": 61},
        },
        {
            "ID": "date",
            "Status": "Enabled",
            "Filter": {"Prefix": "b"},
            "Transitions": [{"Date": datetime(2030, 1, 1, tzinfo=UTC), "StorageClass": "INTELLIGENT_TIERING"}],
        },
    ]
    for least in ("varies_by_storage_class", "all_storage_classes_128K"):
        put = s3.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}, TransitionDefaultMinimumObjectSize=least
        )
        got = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
        assert put["TransitionDefaultMinimumObjectSize"] == got["TransitionDefaultMinimumObjectSize"] == least
        assert got["Rules"] == rules


@pytest.mark.parametrize(
    "second",
    [
        {"Days": 60, "StorageClass": "STANDARD_IA"},
        {"Days": 30, "StorageClass": "STANDARD_IA"},
        {"Days": 20, "StorageClass": "GLACIER_IR"},
        {"Days": 40, "StorageClass": "GLACIER_IR"},
    ],
)
def test_a_move_that_nothing_could_make_is_refused(second: dict[str, Any]) -> None:
    """One back to a class that objects have left, or one that comes too late for any."""
    first = {"Days": 30, "StorageClass": "GLACIER_IR" if second["StorageClass"] == "STANDARD_IA" else "STANDARD_IA"}
    for element, days in (("Transition", "Days"), ("NoncurrentVersionTransition", "NoncurrentDays")):
        moves = "".join(
            f"<{element}><{days}>{move['Days']}</{days}><StorageClass>{move['StorageClass']}</StorageClass></{element}>"
            for move in (second, first)
        )
        text = f"<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Filter><Prefix>a</Prefix></Filter>{moves}</Rule></LifecycleConfiguration>"
        root = xml.parse(text.encode(), "LifecycleConfiguration", 20)
        if second["Days"] == 40:
            assert len(lifecycle.from_xml(root, iter(()))) == 1
        else:
            with pytest.raises(S3Error, match=r"InvalidArgument.*must be later"):
                lifecycle.from_xml(root, iter(()))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("GLACIER", "NotImplemented"),
        ("DEEP_ARCHIVE", "NotImplemented"),
        ("EXPRESS_ONEZONE", "InvalidStorageClass"),
        ("OUTPOSTS", "InvalidStorageClass"),
        ("standard_ia", "InvalidStorageClass"),
        ("NEXT_YEARS", "InvalidStorageClass"),
        ("", "InvalidStorageClass"),
    ],
)
def test_archives_and_unknown_classes_are_refused(
    server: ServerProcess, s3: Any, bucket: str, name: str, code: str
) -> None:
    header = {"x-amz-storage-class": name}
    assert raw.call(server.endpoint, "PUT", f"/{bucket}/k", headers=header, body=b"x").code == code
    assert raw.call(server.endpoint, "POST", f"/{bucket}/k", query="uploads=", headers=header).code == code
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert (
        raw.call(server.endpoint, "PUT", f"/{bucket}/k", headers={**header, "x-amz-copy-source": f"/{bucket}/k"}).code
        == code
    )

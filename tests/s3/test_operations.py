"""Every operation of the core through boto3, against a real server process."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from typing import Any

import pytest
from botocore.exceptions import ClientError

SIZES = [0, 1, 4095, 4096, 65536, 65537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_500_000]


def error(call: Any, *arguments: Any, **options: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **options)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("size", SIZES)
def test_put_then_get_gives_the_same_bytes(s3: Any, bucket: str, size: int) -> None:
    data = os.urandom(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=data)
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == data
    assert (got["ContentLength"], got["ETag"]) == (size, put["ETag"])
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentLength"], head["ETag"], head["LastModified"]) == (size, put["ETag"], got["LastModified"])
    ids = {answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"] for answer in (put, got, head)}
    assert len(ids) == 3


@pytest.mark.parametrize("size", [1000, 5000, 2_500_000])
@pytest.mark.parametrize("span", ["0-0", "1-", "-1", "-100000000", "500-999", "700-100000000"])
def test_ranges(s3: Any, bucket: str, size: int, span: str) -> None:
    data = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={span}")
    first, last = span.split("-")
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    assert got["Body"].read() == data[start:stop]
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["ContentRange"] == f"bytes {start}-{stop - 1}/{size}"


def test_headers_and_metadata_come_back(s3: Any, bucket: str) -> None:
    given = {
        "ContentType": "text/x-test",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "CacheControl": "max-age=5",
        "ContentDisposition": 'attachment; filename="a b"',
    }
    s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"x",
        Metadata={"one": "1", "two": "zwei"},
        Expires="Wed, 21 Oct 2037 07:28:00 GMT",
        **given,
    )
    for got in (s3.get_object(Bucket=bucket, Key="k"), s3.head_object(Bucket=bucket, Key="k")):
        assert {name: got[name] for name in given} == given
        assert got["Metadata"] == {"one": "1", "two": "zwei"}
        assert got["ExpiresString"] == "Wed, 21 Oct 2037 07:28:00 GMT"
        assert got["AcceptRanges"] == "bytes"
    got = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="a/b", ResponseCacheControl="no-store")
    assert (got["ContentType"], got["CacheControl"]) == ("a/b", "no-store")


def test_conditional_reads(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"data")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    for call in (s3.get_object, s3.head_object):
        assert call(Bucket=bucket, Key="k", IfMatch=etag)["ETag"] == etag
        assert error(call, Bucket=bucket, Key="k", IfMatch='"other"')[1] == 412
        assert error(call, Bucket=bucket, Key="k", IfNoneMatch=etag)[1] == 304
        assert call(Bucket=bucket, Key="k", IfNoneMatch='"other"')["ETag"] == etag
        assert error(call, Bucket=bucket, Key="k", IfModifiedSince=modified)[1] == 304
        assert call(Bucket=bucket, Key="k", IfUnmodifiedSince=modified)["ETag"] == etag
        assert error(call, Bucket=bucket, Key="k", IfUnmodifiedSince="2001-01-01")[1] == 412
        assert call(Bucket=bucket, Key="k", IfMatch=etag, IfUnmodifiedSince="2001-01-01")["ETag"] == etag


def test_conditional_writes(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    assert error(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert error(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch='"other"') == ("PreconditionFailed", 412)
    assert error(s3.put_object, Bucket=bucket, Key="none", Body=b"2", IfMatch=etag) == ("NoSuchKey", 404)
    newer = s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)["ETag"]
    assert error(s3.delete_object, Bucket=bucket, Key="k", IfMatch=etag) == ("PreconditionFailed", 412)
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=newer)
    assert error(s3.get_object, Bucket=bucket, Key="k") == ("NoSuchKey", 404)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_of_single_objects(s3: Any, bucket: str, algorithm: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=os.urandom(100_000), ChecksumAlgorithm=algorithm)
    field = f"Checksum{algorithm}"
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    got["Body"].read()  # botocore checks it
    assert got[field] == put[field]
    assert got["ChecksumType"] == "FULL_OBJECT"
    attributes = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ETag", "ObjectSize", "StorageClass"]
    )
    assert attributes["Checksum"][field] == put[field]
    assert attributes["ObjectSize"] == 100_000
    wrong = base64.b64encode(bytes(len(base64.b64decode(put[field])))).decode()
    assert error(s3.put_object, Bucket=bucket, Key="k", Body=b"abc", **{field: wrong}) == ("BadDigest", 400)


def parts_of(s3: Any, bucket: str, key: str, upload: str, bodies: list[bytes], **options: Any) -> list[dict[str, Any]]:
    made = []
    for number, body in enumerate(bodies, 1):
        answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **options)
        made.append(
            {
                "PartNumber": number,
                **{name: value for name, value in answer.items() if name == "ETag" or name.startswith("Checksum")},
            }
        )
    return made


def test_multipart(s3: Any, bucket: str) -> None:
    bodies = [os.urandom(5 << 20), os.urandom((5 << 20) + 17), os.urandom(100)]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ContentType="a/b", Metadata={"x": "y"})["UploadId"]
    assert [item["UploadId"] for item in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    parts = parts_of(s3, bucket, "m", upload, bodies)
    listed = s3.list_parts(Bucket=bucket, Key="m", UploadId=upload)
    assert [(part["PartNumber"], part["Size"], part["ETag"]) for part in listed["Parts"]] == [
        (part["PartNumber"], len(body), part["ETag"]) for part, body in zip(parts, bodies, strict=True)
    ]
    page = s3.list_parts(Bucket=bucket, Key="m", UploadId=upload, MaxParts=1, PartNumberMarker=1)
    assert ([part["PartNumber"] for part in page["Parts"]], page["IsTruncated"], page["NextPartNumberMarker"]) == (
        [2],
        True,
        2,
    )
    wanted = {"Parts": [{name: part[name] for name in ("PartNumber", "ETag")} for part in parts]}
    done = s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload=wanted)
    digest = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest()
    assert done["ETag"] == f'"{digest}-3"'
    again = s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload=wanted)
    assert again["ETag"] == done["ETag"]
    got = s3.get_object(Bucket=bucket, Key="m")
    whole = b"".join(bodies)
    assert got["Body"].read() == whole
    assert (got["ContentType"], got["Metadata"]) == ("a/b", {"x": "y"})
    middle = s3.get_object(Bucket=bucket, Key="m", PartNumber=2)
    assert (middle["Body"].read(), middle["PartsCount"]) == (bodies[1], 3)
    edge = s3.get_object(Bucket=bucket, Key="m", Range=f"bytes={(5 << 20) - 10}-{(10 << 20) + 30}")
    assert edge["Body"].read() == whole[(5 << 20) - 10 : (10 << 20) + 31]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_multipart_abort_and_replaced_parts(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    parts_of(s3, bucket, "m", upload, [os.urandom(50_000)])
    parts = parts_of(s3, bucket, "m", upload, [b"small"])
    wrong = {"Parts": [{"PartNumber": 1, "ETag": '"0123456789abcdef0123456789abcdef"'}]}
    assert error(s3.complete_multipart_upload, Bucket=bucket, Key="m", UploadId=upload, MultipartUpload=wrong) == (
        "InvalidPart",
        400,
    )
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="m",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": parts[0]["ETag"]}]},
    )
    assert s3.get_object(Bucket=bucket, Key="m")["Body"].read() == b"small"
    other = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    parts_of(s3, bucket, "m", other, [os.urandom(50_000)])
    s3.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=other)
    assert error(s3.list_parts, Bucket=bucket, Key="m", UploadId=other) == ("NoSuchUpload", 404)
    assert error(s3.abort_multipart_upload, Bucket=bucket, Key="m", UploadId=other) == ("NoSuchUpload", 404)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("CRC32", "FULL_OBJECT"),
        ("CRC32C", "COMPOSITE"),
        ("CRC64NVME", "FULL_OBJECT"),
        ("SHA256", "COMPOSITE"),
        ("SHA1", "COMPOSITE"),
        ("CRC32C", "FULL_OBJECT"),
    ],
)
def test_multipart_checksums(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    bodies = [os.urandom(5 << 20), os.urandom(77_777)]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ChecksumAlgorithm=algorithm, ChecksumType=kind)[
        "UploadId"
    ]
    parts = parts_of(s3, bucket, "m", upload, bodies, ChecksumAlgorithm=algorithm)
    done = s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": parts})
    assert done["ChecksumType"] == kind
    head = s3.head_object(Bucket=bucket, Key="m", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == done[f"Checksum{algorithm}"]
    if algorithm == "CRC32":
        assert base64.b64decode(done["ChecksumCRC32"]) == zlib.crc32(b"".join(bodies)).to_bytes(4, "big")
    if kind == "COMPOSITE":
        assert done[f"Checksum{algorithm}"].endswith("-2")
        listed = s3.get_object_attributes(Bucket=bucket, Key="m", ObjectAttributes=["ObjectParts"])["ObjectParts"]
        assert [part["Size"] for part in listed["Parts"]] == [len(body) for body in bodies]


def test_copy(s3: Any, bucket: str) -> None:
    data = os.urandom(200_000)
    source = s3.put_object(Bucket=bucket, Key="dir/a b+ü", Body=data, Metadata={"m": "1"}, ContentType="a/b")
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "dir/a b+ü"})
    assert copied["CopyObjectResult"]["ETag"] == source["ETag"]
    got = s3.get_object(Bucket=bucket, Key="copy")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (data, {"m": "1"}, "a/b")
    s3.copy_object(
        Bucket=bucket,
        Key="copy",
        CopySource=f"{bucket}/copy",
        MetadataDirective="REPLACE",
        Metadata={"n": "2"},
        ContentType="c/d",
    )
    got = s3.head_object(Bucket=bucket, Key="copy")
    assert (got["Metadata"], got["ContentType"]) == ({"n": "2"}, "c/d")
    assert error(s3.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/copy") == ("InvalidRequest", 400)
    assert error(s3.copy_object, Bucket=bucket, Key="c", CopySource=f"{bucket}/none") == ("NoSuchKey", 404)
    assert (
        error(
            s3.copy_object, Bucket=bucket, Key="c", CopySource=f"{bucket}/copy", CopySourceIfNoneMatch=source["ETag"]
        )[1]
        == 412
    )
    s3.delete_object(Bucket=bucket, Key="dir/a b+ü")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == data


def test_part_copy(s3: Any, bucket: str) -> None:
    data = os.urandom(6 << 20)
    s3.put_object(Bucket=bucket, Key="src", Body=data)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    first = s3.upload_part_copy(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/src")
    second = s3.upload_part_copy(
        Bucket=bucket,
        Key="m",
        UploadId=upload,
        PartNumber=2,
        CopySource=f"{bucket}/src",
        CopySourceRange="bytes=100-2000099",
    )
    parts = [
        {"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]} for number, part in enumerate((first, second), 1)
    ]
    s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="m")["Body"].read() == data + data[100:2000100]


def test_delete_objects(s3: Any, bucket: str) -> None:
    for number in range(5):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"x")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": f"k{number}"} for number in range(4)] + [{"Key": "never"}]}
    )
    assert sorted(item["Key"] for item in answer["Deleted"]) == ["k0", "k1", "k2", "k3", "never"]
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k4"]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k4"}], "Quiet": True})
    assert "Deleted" not in quiet


def test_versioning(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"null")
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    one = s3.put_object(Bucket=bucket, Key="k", Body=b"one")["VersionId"]
    two = s3.put_object(Bucket=bucket, Key="k", Body=b"two")["VersionId"]
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k")
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-delete-marker"] == "true"
    for version, body in ((one, b"one"), (two, b"two"), ("null", b"null")):
        got = s3.get_object(Bucket=bucket, Key="k", VersionId=version)
        assert (got["Body"].read(), got["VersionId"]) == (body, version)
    assert error(s3.get_object, Bucket=bucket, Key="k", VersionId=marker["VersionId"]) == ("MethodNotAllowed", 405)
    listed = s3.list_object_versions(Bucket=bucket)
    assert [item["VersionId"] for item in listed["Versions"]] == [two, one, "null"]
    assert [item["VersionId"] for item in listed["DeleteMarkers"]] == [marker["VersionId"]]
    gone = s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert (gone["DeleteMarker"], gone["VersionId"]) == (True, marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"suspended")["VersionId"] == "null"
    assert [item["VersionId"] for item in s3.list_object_versions(Bucket=bucket)["Versions"]] == ["null", two, one]
    s3.copy_object(Bucket=bucket, Key="back", CopySource={"Bucket": bucket, "Key": "k", "VersionId": one})
    assert s3.get_object(Bucket=bucket, Key="back")["Body"].read() == b"one"
    assert error(s3.delete_bucket, Bucket=bucket) == ("BucketNotEmpty", 409)


def test_buckets(s3: Any, bucket: str) -> None:
    assert bucket in [item["Name"] for item in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    s3.create_bucket(Bucket=bucket)
    s3.delete_bucket(Bucket=bucket)
    assert error(s3.head_bucket, Bucket=bucket) == ("404", 404)
    s3.create_bucket(Bucket=bucket)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_list_buckets_in_pages(s3: Any, bucket: str) -> None:
    names = [f"{bucket}-{number}" for number in range(4)]
    for name in names:
        s3.create_bucket(Bucket=name)
    seen: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = s3.list_buckets(Prefix=f"{bucket}-", MaxBuckets=3, **token)
        seen += [item["Name"] for item in page["Buckets"]]
        if "ContinuationToken" not in page:
            break
        token = {"ContinuationToken": page["ContinuationToken"]}
    assert seen == names


@pytest.mark.parametrize("size", [10, 100_000])
def test_rename_object(s3: Any, bucket: str, size: int) -> None:
    data = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="old", Body=data, Metadata={"a": "b"})
    s3.rename_object(Bucket=bucket, Key="new", RenameSource=f"/{bucket}/old")
    got = s3.get_object(Bucket=bucket, Key="new")
    assert (got["Body"].read(), got["Metadata"]) == (data, {"a": "b"})
    assert error(s3.get_object, Bucket=bucket, Key="old") == ("NoSuchKey", 404)
    s3.put_object(Bucket=bucket, Key="old", Body=b"2")
    assert error(s3.rename_object, Bucket=bucket, Key="new", RenameSource="old", DestinationIfNoneMatch="*") == (
        "PreconditionFailed",
        412,
    )
    assert s3.get_object(Bucket=bucket, Key="old")["Body"].read() == b"2"


def test_an_upload_that_is_renamed_has_its_parts(s3: Any, bucket: str) -> None:
    upload = {
        "Bucket": bucket,
        "Key": "old",
        "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="old")["UploadId"],
    }
    parts = [os.urandom(5 << 20), b"tail"]
    listed = [
        {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=part)["ETag"]}
        for number, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": listed})
    s3.rename_object(Bucket=bucket, Key="new", RenameSource="old")
    got = s3.get_object(Bucket=bucket, Key="new", PartNumber=2)
    assert (got["Body"].read(), got["PartsCount"]) == (parts[1], 2)


def test_a_key_that_begins_as_its_bucket_is_renamed_and_no_other(s3: Any, bucket: str) -> None:
    for key in (f"{bucket}/k", "k"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.rename_object(Bucket=bucket, Key="new", RenameSource=f"{bucket}/k")
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == f"{bucket}/k".encode()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"


@pytest.mark.parametrize(
    "key",
    [
        "..",
        "../x",
        "a//b",
        "/lead",
        "trail/",
        "a\x00b",
        "ü/日本語/😀",
        "a b+c%20d",
        "x" * 1024,
        "?&=#;,:@!$'()*",
        "\x01\x1f",
    ],
)
def test_keys_are_opaque(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    listed = s3.list_objects_v2(Bucket=bucket, EncodingType="url")["Contents"]
    from urllib.parse import unquote

    assert [unquote(item["Key"]) for item in listed] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0

"""Headers, times, ranges and words of answers, as S3 gives them."""

from __future__ import annotations

import hashlib
import os
import time
from email.header import decode_header
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

import raw
from process import ACCESS, REGION, SECRET, ServerProcess
from s4.s3 import sigv4


def test_listings_and_results_have_the_times_of_head(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    head = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["LastModified"] == head
    assert s3.list_objects(Bucket=bucket)["Contents"][0]["LastModified"] == head
    assert s3.list_object_versions(Bucket=bucket)["Versions"][0]["LastModified"] == head
    copied = s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "k"})["CopyObjectResult"]
    assert copied["LastModified"] == s3.head_object(Bucket=bucket, Key="c")["LastModified"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"x")
    times = [
        s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["Initiated"],
        s3.list_parts(Bucket=bucket, Key="m", UploadId=upload)["Parts"][0]["LastModified"],
        next(found["CreationDate"] for found in s3.list_buckets()["Buckets"] if found["Name"] == bucket),
    ]
    assert [time.microsecond for time in times] == [0, 0, 0]


def test_every_answer_about_a_bucket_says_where_it_is(server: ServerProcess, bucket: str) -> None:
    answers = [
        raw.call(server.endpoint, "HEAD", f"/{bucket}"), raw.call(server.endpoint, "GET", f"/{bucket}"),
        raw.call(server.endpoint, "GET", f"/{bucket}", query="policy"), raw.send(server.endpoint, "HEAD", f"/{bucket}", {}),
        raw.call(server.endpoint, "GET", f"/{bucket}", secret="wrong"),
    ]  # fmt: skip
    assert [answer.status for answer in answers] == [200, 200, 404, 403, 403]
    assert {answer.headers.get("x-amz-bucket-region") for answer in answers} == {REGION}
    # what nobody may know is not told: a bucket that is not there has the same refused answer
    assert raw.send(server.endpoint, "HEAD", "/no-such-bucket", {}).headers["x-amz-bucket-region"] == REGION
    assert "x-amz-bucket-region" not in raw.call(server.endpoint, "HEAD", "/no-such-bucket").headers


def test_errors_have_their_headers(server: ServerProcess, s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", CacheControl="max-age=5")
    path = f"/{bucket}/k"
    unchanged = raw.call(server.endpoint, "GET", path, headers={"If-None-Match": put["ETag"]})
    assert (unchanged.status, unchanged.headers["etag"], unchanged.headers["cache-control"]) == (304, put["ETag"], "max-age=5")
    assert unchanged.headers["last-modified"]
    past = raw.call(server.endpoint, "GET", path, headers={"Range": "bytes=5-"})
    assert (past.status, past.headers["content-range"]) == (416, "bytes */1")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    gone = raw.call(server.endpoint, "GET", path)
    assert (gone.code, gone.headers["x-amz-delete-marker"], gone.headers["x-amz-version-id"]) == ("NoSuchKey", "true", marker)
    by_id = raw.call(server.endpoint, "HEAD", path, query=f"versionId={marker}")
    assert (by_id.status, by_id.headers["allow"], by_id.headers["x-amz-delete-marker"]) == (405, "DELETE", "true")
    listed = s3.list_object_versions(Bucket=bucket)["DeleteMarkers"][0]["LastModified"]
    assert parsedate_to_datetime(by_id.headers["last-modified"]) == listed
    assert raw.call(server.endpoint, "PATCH", path).headers["allow"] == "DELETE, GET, HEAD, POST, PUT"


@pytest.mark.parametrize("parts", [0, 1])
def test_ranges_and_parts_of_nothing(server: ServerProcess, s3: Any, bucket: str, parts: int) -> None:
    if parts:
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        etag = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"")["ETag"]
        wanted = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=wanted)
    else:
        s3.put_object(Bucket=bucket, Key="k", Body=b"")
    for span in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        answer = raw.call(server.endpoint, "GET", f"/{bucket}/k", headers={"Range": span})
        assert (answer.status, answer.code, answer.headers["content-range"]) == (416, "InvalidRange", "bytes */0")
    for method in ("GET", "HEAD"):
        answer = raw.call(server.endpoint, method, f"/{bucket}/k", query="partNumber=1")
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
        assert "content-range" not in answer.headers
        assert answer.headers.get("x-amz-mp-parts-count") == ("1" if parts else None)
    assert raw.call(server.endpoint, "GET", f"/{bucket}/k", query="partNumber=2").code == "InvalidPartNumber"
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts", "ObjectSize", "Checksum"])
    assert (attributes["ObjectSize"], attributes.get("ObjectParts", {}).get("TotalPartsCount")) == (0, parts or None)


def test_a_range_that_holds_only_if(server: ServerProcess, s3: Any, bucket: str) -> None:
    data = os.urandom(1000)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=data)["ETag"]
    changed = raw.call(server.endpoint, "HEAD", f"/{bucket}/k").headers["last-modified"]
    for condition, holds in (
        (etag, True), (changed, True), (etag.strip('"'), True), (f"W/{etag}", False), ('"other"', False),
        ("Wed, 21 Oct 2015 07:28:00 GMT", False), ("what", False),
    ):  # fmt: skip
        answer = raw.call(server.endpoint, "GET", f"/{bucket}/k", headers={"Range": "bytes=1-10", "If-Range": condition})
        assert (answer.status, answer.body) == ((206, data[1:11]) if holds else (200, data)), condition


def put_with_word(endpoint: str, path: str, word: bytes) -> raw.Answer:
    """A signed PUT with metadata of any bytes; no SDK sends them."""
    headers = {
        "host": urlsplit(endpoint).netloc, "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "x-amz-content-sha256": hashlib.sha256(b"x").hexdigest(), "x-amz-meta-word": word.decode("utf-8", "surrogateescape"),
    }  # fmt: skip
    headers["authorization"] = sigv4.authorization(ACCESS, SECRET, REGION, "PUT", path, headers)
    sent: dict[str, Any] = headers | {"x-amz-meta-word": word}
    return raw.send(endpoint, "PUT", path, sent, b"x")


@pytest.mark.parametrize("word", [b"gr\xc3\xbc\xc3\x9fe", b"gr\xfc\xdfe"], ids=["utf-8", "latin-1"])
def test_metadata_beyond_ascii(server: ServerProcess, bucket: str, word: bytes) -> None:
    assert put_with_word(server.endpoint, f"/{bucket}/k", word).status == 200
    for method in ("HEAD", "GET"):
        value = raw.call(server.endpoint, method, f"/{bucket}/k").headers["x-amz-meta-word"]
        assert value.isascii()
        ((decoded, charset),) = decode_header(value)
        assert decoded.decode(charset or "") == "gr\u00fc\u00dfe"


def test_spellings_are_the_clients_own(server: ServerProcess, s3: Any, bucket: str) -> None:
    path = f"/{bucket}/k"
    for sent, kept in (
        ("gzip, br", "gzip, br"), ("gzip,br", "gzip,br"), ("aws-chunked", None), ("aws-chunked, gzip", "gzip"), ("gzip,aws-chunked", "gzip"),
        ("GZIP", "GZIP"),
    ):  # fmt: skip
        assert raw.call(server.endpoint, "PUT", path, headers={"Content-Encoding": sent}, body=b"x").status == 200
        assert raw.call(server.endpoint, "HEAD", path).headers.get("content-encoding") == kept
    tagged = raw.call(server.endpoint, "PUT", path, headers={"x-amz-tagging": "a=b&c"}, body=b"x")
    assert tagged.status == 200
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": ""}]


def test_a_plus_in_a_copys_source_is_a_space(server: ServerProcess, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b", Body=b"space")
    s3.put_object(Bucket=bucket, Key="a+b", Body=b"plus")
    for source, body in (("a+b", b"space"), ("a%20b", b"space"), ("a%2Bb", b"plus")):
        copied = raw.call(server.endpoint, "PUT", f"/{bucket}/c", headers={"x-amz-copy-source": f"/{bucket}/{source}"})
        assert copied.status == 200
        assert s3.get_object(Bucket=bucket, Key="c")["Body"].read() == body


def test_settings_that_s4_lacks_read_as_never_set(server: ServerProcess, s3: Any, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    for setting in ("accelerate", "logging", "requestPayment", "replication"):
        for method in ("PUT", "DELETE"):
            assert raw.call(server.endpoint, method, f"/{bucket}", query=setting, body=b"<x/>").code == "NotImplemented"
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 5}}
    put = s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    assert put["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"


def test_attributes_must_be_named(server: ServerProcess, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for headers, code in (({}, "InvalidRequest"), ({"x-amz-object-attributes": ""}, "InvalidRequest"), ({"x-amz-object-attributes": "Owner"}, "InvalidArgument")):
        assert raw.call(server.endpoint, "GET", f"/{bucket}/k", query="attributes=", headers=headers).code == code


def test_writes_to_a_suspended_bucket_name_the_null_version(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"] == "null"
    assert s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "k"})["VersionId"] == "null"
    upload = {"Bucket": bucket, "Key": "m", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]}
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    assert s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})["VersionId"] == "null"

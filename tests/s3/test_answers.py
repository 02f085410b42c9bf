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
from botocore.exceptions import ClientError

import raw
from process import ACCESS, REGION, SECRET, ServerProcess
from s4.s3 import parameters, sigv4
from s4.s3.errors import S3Error


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
        raw.call(server.endpoint, "HEAD", f"/{bucket}"),
        raw.call(server.endpoint, "GET", f"/{bucket}"),
        raw.call(server.endpoint, "GET", f"/{bucket}", query="policy"),
        raw.send(server.endpoint, "HEAD", f"/{bucket}", {}),
        raw.call(server.endpoint, "GET", f"/{bucket}", secret="wrong"),
    ]
    assert [answer.status for answer in answers] == [200, 200, 404, 403, 403]
    assert {answer.headers.get("x-amz-bucket-region") for answer in answers} == {REGION}
    assert answers[0].headers.get("x-amz-access-point-alias") == "false"
    # what nobody may know is not told: a bucket that is not there has the same refused answer
    assert raw.send(server.endpoint, "HEAD", "/no-such-bucket", {}).headers["x-amz-bucket-region"] == REGION
    assert "x-amz-bucket-region" not in raw.call(server.endpoint, "HEAD", "/no-such-bucket").headers


def test_errors_have_their_headers(server: ServerProcess, s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", CacheControl="max-age=5")
    path = f"/{bucket}/k"
    unchanged = raw.call(server.endpoint, "GET", path, headers={"If-None-Match": put["ETag"]})
    assert (unchanged.status, unchanged.headers["etag"], unchanged.headers["cache-control"]) == (
        304,
        put["ETag"],
        "max-age=5",
    )
    assert unchanged.headers["last-modified"]
    past = raw.call(server.endpoint, "GET", path, headers={"Range": "bytes=5-"})
    assert (past.status, past.headers["content-range"]) == (416, "bytes */1")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    gone = raw.call(server.endpoint, "GET", path)
    assert (gone.code, gone.headers["x-amz-delete-marker"], gone.headers["x-amz-version-id"]) == (
        "NoSuchKey",
        "true",
        marker,
    )
    by_id = raw.call(server.endpoint, "HEAD", path, query=f"versionId={marker}")
    assert (by_id.status, by_id.headers["allow"], by_id.headers["x-amz-delete-marker"]) == (405, "DELETE", "true")
    listed = s3.list_object_versions(Bucket=bucket)["DeleteMarkers"][0]["LastModified"]
    assert parsedate_to_datetime(by_id.headers["last-modified"]) == listed
    assert raw.call(server.endpoint, "PATCH", path).headers["allow"] == "DELETE, GET, HEAD, PUT"


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
    attributes = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts", "ObjectSize", "Checksum"]
    )
    assert (attributes["ObjectSize"], attributes.get("ObjectParts", {}).get("TotalPartsCount")) == (0, parts or None)


def test_a_range_that_holds_only_if(server: ServerProcess, s3: Any, bucket: str) -> None:
    data = os.urandom(1000)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=data)["ETag"]
    changed = raw.call(server.endpoint, "HEAD", f"/{bucket}/k").headers["last-modified"]
    for condition, holds in (
        (etag, True),
        (changed, True),
        (etag.strip('"'), True),
        (f"W/{etag}", False),
        ('"other"', False),
        ("Wed, 21 Oct 2015 07:28:00 GMT", False),
        ("what", False),
    ):
        answer = raw.call(
            server.endpoint, "GET", f"/{bucket}/k", headers={"Range": "bytes=1-10", "If-Range": condition}
        )
        assert (answer.status, answer.body) == ((206, data[1:11]) if holds else (200, data)), condition


def put_with_word(endpoint: str, path: str, word: bytes, name: str = "x-amz-meta-word") -> raw.Answer:
    """A signed PUT with a header of any bytes; no SDK sends them."""
    headers = {
        "host": urlsplit(endpoint).netloc,
        "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "x-amz-content-sha256": hashlib.sha256(b"x").hexdigest(),
        name: word.decode("utf-8", "surrogateescape"),
    }
    headers["authorization"] = sigv4.authorization(ACCESS, SECRET, REGION, "PUT", path, headers)
    sent: dict[str, Any] = headers | {name: word}
    return raw.send(endpoint, "PUT", path, sent, b"x")


@pytest.mark.parametrize("word", [b"gr\xc3\xbc\xc3\x9fe", b"gr\xfc\xdfe"], ids=["utf-8", "latin-1"])
def test_metadata_beyond_ascii(server: ServerProcess, bucket: str, word: bytes) -> None:
    assert put_with_word(server.endpoint, f"/{bucket}/k", word).status == 200
    for method in ("HEAD", "GET"):
        value = raw.call(server.endpoint, method, f"/{bucket}/k").headers["x-amz-meta-word"]
        assert value.isascii()
        ((decoded, charset),) = decode_header(value)
        assert decoded.decode(charset or "") == "gr\u00fc\u00dfe"


@pytest.mark.parametrize("name", ["content-disposition", "cache-control", "content-language"])
def test_what_came_as_latin_1_is_text(server: ServerProcess, bucket: str, name: str) -> None:
    assert put_with_word(server.endpoint, f"/{bucket}/k", b"gr\xfc\xdfe", name).status == 200
    told = raw.call(server.endpoint, "HEAD", f"/{bucket}/k").headers[name]
    assert told.encode("latin-1").decode() == "gr\u00fc\u00dfe"


def test_a_tab_is_white_space_as_any(server: ServerProcess, bucket: str) -> None:
    assert put_with_word(server.endpoint, f"/{bucket}/k", b"a\tb").status == 200
    assert raw.call(server.endpoint, "HEAD", f"/{bucket}/k").headers["x-amz-meta-word"] == "a\tb"


def test_spellings_are_the_clients_own(server: ServerProcess, s3: Any, bucket: str) -> None:
    path = f"/{bucket}/k"
    for sent, kept in (
        ("gzip, br", "gzip, br"),
        ("gzip,br", "gzip,br"),
        ("aws-chunked", None),
        ("aws-chunked, gzip", "gzip"),
        ("gzip,aws-chunked", "gzip"),
        ("GZIP", "GZIP"),
    ):
        assert raw.call(server.endpoint, "PUT", path, headers={"Content-Encoding": sent}, body=b"x").status == 200
        assert raw.call(server.endpoint, "HEAD", path).headers.get("content-encoding") == kept
    tagged = raw.call(server.endpoint, "PUT", path, headers={"x-amz-tagging": "a=b&c"}, body=b"x")
    assert tagged.status == 200
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [
        {"Key": "a", "Value": "b"},
        {"Key": "c", "Value": ""},
    ]


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
    assert s3.get_bucket_abac(Bucket=bucket)["AbacStatus"]["Status"] == "Disabled"
    for kind in ("analytics", "intelligent_tiering", "inventory", "metrics"):
        assert getattr(s3, f"list_bucket_{kind}_configurations")(Bucket=bucket)["IsTruncated"] is False
        with pytest.raises(ClientError, match="NoSuchConfiguration"):
            getattr(s3, f"get_bucket_{kind}_configuration")(Bucket=bucket, Id="a")
    for setting in (
        "accelerate",
        "logging",
        "requestPayment",
        "replication",
        "abac",
        "analytics",
        "inventory",
        "metrics",
        "intelligent-tiering",
        "metadataTable",
    ):
        for method in ("PUT", "DELETE"):
            assert raw.call(server.endpoint, method, f"/{bucket}", query=setting, body=b"<x/>").code == "NotImplemented"
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 5}}
    put = s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    assert put["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    assert (
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)["TransitionDefaultMinimumObjectSize"]
        == "all_storage_classes_128K"
    )


def test_attributes_must_be_named(server: ServerProcess, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for headers, code in (
        ({}, "InvalidRequest"),
        ({"x-amz-object-attributes": ""}, "InvalidRequest"),
        ({"x-amz-object-attributes": "Owner"}, "InvalidArgument"),
    ):
        assert raw.call(server.endpoint, "GET", f"/{bucket}/k", query="attributes=", headers=headers).code == code


def test_writes_to_a_suspended_bucket_name_the_null_version(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"] == "null"
    assert s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "k"})["VersionId"] == "null"
    upload = {"Bucket": bucket, "Key": "m", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]}
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    assert (
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})[
            "VersionId"
        ]
        == "null"
    )


def test_errors_tell_what_s3_tells(server: ServerProcess, s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    part = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>0</ETag></Part></CompleteMultipartUpload>"
    source = {"x-amz-copy-source": f"/{bucket}/k"}
    cases: list[tuple[str, dict[str, Any], bytes]] = [
        ("PUT", {"headers": {"If-Match": '"0"'}, "body": b"y"}, b"<Condition>If-Match</Condition>"),
        ("PUT", {"headers": {"If-None-Match": "*"}, "body": b"y"}, b"<Condition>If-None-Match</Condition>"),
        ("GET", {"headers": {"If-Match": '"0"'}}, b"<Condition>If-Match</Condition>"),
        (
            "PUT",
            {"headers": {**source, "x-amz-copy-source-if-none-match": etag}},
            b"<Condition>x-amz-copy-source-If-None-Match</Condition>",
        ),
        ("DELETE", {"headers": {"If-Match": '"0"'}}, b"<Condition>If-Match</Condition>"),
        ("POST", {"query": f"uploadId={upload}", "body": part.encode()}, f"<UploadId>{upload}</UploadId>".encode()),
    ]
    for method, options, told in cases:
        answer = raw.call(server.endpoint, method, f"/{bucket}/{'m' if method == 'POST' else 'k'}", **options)
        assert told in answer.body, (method, options, answer.body)


def test_pages_of_other_origins_may_read_errors(server: ServerProcess, s3: Any, bucket: str) -> None:
    origin, path = "https://a.example", f"/{bucket}/k"
    s3.put_bucket_cors(
        Bucket=bucket, CORSConfiguration={"CORSRules": [{"AllowedOrigins": [origin], "AllowedMethods": ["GET", "PUT"]}]}
    )
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    cases: list[tuple[int, str, dict[str, Any]]] = [
        (304, "GET", {"headers": {"If-None-Match": etag}}),
        (400, "GET", {"query": "versionId="}),
        (403, "GET", {"secret": "wrong"}),
        (404, "GET", {"query": f"versionId={'0' * 24}"}),
        (412, "PUT", {"headers": {"If-None-Match": "*"}, "body": b"y"}),
        (416, "GET", {"headers": {"Range": "bytes=9-"}}),
        (501, "GET", {"query": "torrent"}),
    ]
    for status, method, options in cases:
        answer = raw.call(server.endpoint, method, path, extra={"Origin": origin}, **options)
        assert (answer.status, answer.headers.get("access-control-allow-origin")) == (status, origin), options


def test_a_version_id_that_none_can_be_is_a_version_that_is_not_there(
    server: ServerProcess, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    said = b"<Delete><Object><Key>k</Key><VersionId>abc</VersionId></Object><Object><Key>k</Key><VersionId></VersionId></Object></Delete>"
    answer = raw.call(server.endpoint, "POST", f"/{bucket}", query="delete", body=said)
    assert answer.body.count(b"<Code>NoSuchVersion</Code>") == 2
    assert b"<VersionId>abc</VersionId><Code>" in answer.body
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_keys_are_deleted_by_what_is_vouched_for_in_a_trailer(server: ServerProcess, s3: Any, bucket: str) -> None:
    for mode in ("trailer", "unsigned-trailer"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        said = b"<Delete><Object><Key>k</Key></Object></Delete>"
        answer = raw.call(server.endpoint, "POST", f"/{bucket}", query="delete", body=said, chunked=mode)
        assert b"<Deleted><Key>k</Key></Deleted>" in answer.body, answer.body
        wrong = ("x-amz-checksum-crc32", "AAAAAA==")
        refused = raw.call(
            server.endpoint, "POST", f"/{bucket}", query="delete", body=said, chunked=mode, trailer=wrong
        )
        assert refused.code == "BadDigest"


def test_an_upload_is_begun_only_if(server: ServerProcess, s3: Any, bucket: str) -> None:
    """minio-go says its conditions when it begins an upload, and when it completes it."""
    begin = {"method": "POST", "path": f"/{bucket}/k", "query": "uploads"}
    assert raw.call(server.endpoint, **begin, headers={"If-Match": "*"}).code == "NoSuchKey"
    assert raw.call(server.endpoint, **begin, headers={"If-None-Match": "*"}).status == 200
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    assert raw.call(server.endpoint, **begin, headers={"If-None-Match": "*"}).code == "PreconditionFailed"
    assert raw.call(server.endpoint, **begin, headers={"If-Match": '"0"'}).code == "PreconditionFailed"
    assert raw.call(server.endpoint, **begin, headers={"If-Match": etag}).status == 200


def test_no_parts_are_no_page(server: ServerProcess, s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"x")
    none = raw.call(server.endpoint, "GET", f"/{bucket}/m", query=f"uploadId={upload}&max-parts=0").body
    assert b"<IsTruncated>false</IsTruncated>" in none, "who asks for the next page would ask for ever"
    past = raw.call(server.endpoint, "GET", f"/{bucket}/m", query=f"uploadId={upload}&part-number-marker=70000").body
    assert b"<PartNumberMarker>70000</PartNumberMarker>" in past


def test_buckets_tell_their_region_where_it_was_asked_for(server: ServerProcess, bucket: str) -> None:
    told = f"<BucketRegion>{REGION}</BucketRegion>".encode()
    assert told in raw.call(server.endpoint, "GET", "/", query=f"prefix={bucket}&bucket-region={REGION}").body
    assert told not in raw.call(server.endpoint, "GET", "/").body


def test_a_request_that_is_too_late_is_told_by_how_much() -> None:
    def fields(stamp: str, expires: str) -> dict[str, str]:
        where = {"X-Amz-Expires": expires} if expires else {}
        query = {
            "X-Amz-Algorithm": sigv4.ALGORITHM,
            "X-Amz-Credential": f"a/{stamp[:8]}/{REGION}/s3/aws4_request",
            "X-Amz-Date": stamp,
            "X-Amz-SignedHeaders": "host" if expires else "host;x-amz-content-sha256;x-amz-date",
            "X-Amz-Signature": "0" * 64,
            **where,
        }
        signed = ", ".join(
            f"{name[6:]}={query[name]}" for name in ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature")
        )
        headers = {"host": "h"} | (
            {}
            if expires
            else {
                "authorization": f"{sigv4.ALGORITHM} {signed}",
                "x-amz-date": stamp,
                "x-amz-content-sha256": sigv4.UNSIGNED,
            }
        )
        request = sigv4.Request("GET", "/b/k", list(query.items()) if expires else [], headers)
        claim = sigv4.parse(request)
        assert claim is not None
        with pytest.raises(S3Error) as error:
            sigv4.check(claim, request, "s", REGION, 1_767_225_600 + 3600, 900, 604_800)
        return {"Code": error.value.code, **error.value.fields}

    assert fields("20260101T000000Z", "60") == {
        "Code": "AccessDenied",
        "X-Amz-Expires": "60",
        "Expires": "2026-01-01T00:01:00Z",
        "ServerTime": "2026-01-01T01:00:00Z",
    }
    assert fields("20260101T000000Z", "") == {
        "Code": "RequestTimeTooSkewed",
        "RequestTime": "20260101T000000Z",
        "ServerTime": "2026-01-01T01:00:00Z",
        "MaxAllowedSkewMilliseconds": "900000",
    }


def test_a_parameter_that_would_be_passed_over_is_refused() -> None:
    for operation, query in (
        ("PutObject", {"versionId": "null"}),
        ("UploadPart", {"versionId": "null", "uploadId": "u"}),
        ("ListObjects", {"list-type": "1"}),
        ("GetObjectAcl", {"versionId": ""}),
        ("ListObjectVersions", {"version-id-marker": ""}),
    ):
        with pytest.raises(S3Error, match="InvalidArgument"):
            parameters.check(operation, query)
    for operation, query in (
        ("GetObject", {"versionId": "null"}),
        ("ListObjectsV2", {"list-type": "2"}),
        ("ListObjects", {"marker": ""}),
        ("GetObject", {"version-id-marker": ""}),
    ):
        parameters.check(operation, query)

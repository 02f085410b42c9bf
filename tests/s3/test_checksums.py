"""Every checksum that S3 has: as header, as trailer, of parts, of copies; the default one; and what is wrong is
refused."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

import raw
from access.test_forms import post, presigned
from process import ServerProcess, make_client
from s4.s3 import checksums
from s4.s3.checksums import ALGORITHMS, DIGEST_BYTES, HEADER, Digests, Expected
from s4.s3.errors import S3Error

HASHES = [algorithm for algorithm in ALGORITHMS if not algorithm.startswith("CRC")]
PART = 5 << 20


@pytest.fixture
def s3_plain(server: ServerProcess) -> Iterator[Any]:
    """A client that sends no checksum but where it is told to."""
    client = make_client(server.endpoint, request_checksum_calculation="when_required")
    yield client
    client.close()


def error(call: Any, *arguments: Any, **options: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **options)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def brought(algorithm: str, data: bytes) -> dict[str, str]:
    """How boto3 is told to send it: it computes all but MD5."""
    return {"ChecksumMD5": value_of("MD5", data)} if algorithm == "MD5" else {"ChecksumAlgorithm": algorithm}


def value_of(algorithm: str, data: bytes) -> str:
    digest = checksums.new(algorithm)
    digest.update(data)
    return base64.b64encode(digest.digest()).decode()


# Published test vectors of the empty input: the xxHash specification, FIPS 180-4, RFC 1321.
@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("XXHASH64", "ef46db3751d8e999"),
        ("XXHASH3", "2d06800538d394c2"),
        ("XXHASH128", "99aa06d3014798d86001c324468d497f"),
        ("SHA512", hashlib.sha512().hexdigest()),
        ("MD5", "d41d8cd98f00b204e9800998ecf8427e"),
        ("CRC64NVME", "0" * 16),
    ],
)
def test_algorithms(algorithm: str, digest: str) -> None:
    assert base64.b64decode(value_of(algorithm, b"")).hex() == digest
    assert len(bytes.fromhex(digest)) == DIGEST_BYTES[algorithm]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kept", ["", "CRC64NVME", "SHA256", "MD5"])
def test_one_pass_compares_one_checksum_and_keeps_another(algorithm: str, kept: str) -> None:
    raw = base64.b64decode(value_of(algorithm, b"some bytes"))
    for told, right in ((raw, True), (bytes(len(raw)), False)):
        digests = Digests(Expected(algorithm=algorithm, checksum=told, keep=kept), content=False)
        for piece in (b"some ", b"", b"bytes"):
            digests.update(piece)
        assert digests.checksum() == value_of(kept or algorithm, b"some bytes")
        if right:
            digests.verify({})
        else:
            with pytest.raises(S3Error, match="did not match"):
                digests.verify({})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_put_keeps_it_and_gives_it_back(s3: Any, bucket: str, algorithm: str, size: int) -> None:
    data, field = os.urandom(size), f"Checksum{algorithm}"
    put = s3.put_object(Bucket=bucket, Key="k", Body=data, **brought(algorithm, data))
    assert put[field] == value_of(algorithm, data)
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[field], head["ChecksumType"]) == (put[field], "FULL_OBJECT")
    assert (
        s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum"])["Checksum"][field] == put[field]
    )
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["ChecksumAlgorithm"] == [algorithm]
    wrong = base64.b64encode(bytes(DIGEST_BYTES[algorithm] - 1) + b"\1").decode()
    assert error(s3.put_object, Bucket=bucket, Key="k", Body=data + b"!", **{field: wrong}) == ("BadDigest", 400)


@pytest.mark.parametrize("mode", ["trailer", "unsigned-trailer"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trailers(server: ServerProcess, bucket: str, algorithm: str, mode: str) -> None:
    data, name, path = os.urandom(70_000), HEADER[algorithm], f"/{bucket}/k"
    put = raw.call(server.endpoint, "PUT", path, body=data, chunked=mode, trailer=(name, value_of(algorithm, data)))
    assert (put.status, put.headers[name]) == (200, value_of(algorithm, data))
    for wrong, headers, code in (
        (value_of(algorithm, b"other"), {}, "BadDigest"),
        ("AAAA", {}, "InvalidRequest"),
        (
            value_of(algorithm, data),
            {"x-amz-sdk-checksum-algorithm": "SHA1" if algorithm != "SHA1" else "MD5"},
            "InvalidRequest",
        ),
    ):
        refused = raw.call(
            server.endpoint, "PUT", path, body=data, headers=headers, chunked=mode, trailer=(name, wrong)
        )
        assert refused.code == code, headers
    assert (
        raw.call(server.endpoint, "HEAD", path, headers={"x-amz-checksum-mode": "ENABLED"}).headers[name]
        == put.headers[name]
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_forms(server: ServerProcess, s3: Any, bucket: str, algorithm: str) -> None:
    client = make_client(server.endpoint, signature_version="s3v4")
    for data, status in ((b"the bytes", 204), (b"others", 400)):
        said = {HEADER[algorithm]: value_of(algorithm, b"the bytes")}
        assert post(server.endpoint, bucket, presigned(client, bucket, "f", data, said, [said])).status == status
    assert post(server.endpoint, bucket, presigned(client, bucket, "plain", b"x", {}, [])).status == 204
    client.close()
    head = {key: s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED") for key in ("f", "plain")}
    assert head["f"][f"Checksum{algorithm}"] == value_of(algorithm, b"the bytes")
    assert head["plain"]["ChecksumCRC64NVME"] == value_of("CRC64NVME", b"x")


def test_listings_name_the_algorithm(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumAlgorithm="XXHASH3")
    for rows in (
        s3.list_objects(Bucket=bucket)["Contents"],
        s3.list_objects_v2(Bucket=bucket)["Contents"],
        s3.list_object_versions(Bucket=bucket)["Versions"],
    ):
        assert [(row["ChecksumAlgorithm"], row["ChecksumType"]) for row in rows] == [(["XXHASH3"], "FULL_OBJECT")]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ChecksumAlgorithm="SHA512")["UploadId"]
    for row in (
        s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0],
        s3.list_parts(Bucket=bucket, Key="m", UploadId=upload),
    ):
        assert (row["ChecksumAlgorithm"], row["ChecksumType"]) == ("SHA512", "COMPOSITE")


def test_an_object_without_a_checksum_has_the_default_one(s3_plain: Any, bucket: str) -> None:
    data = os.urandom(5000)
    put = s3_plain.put_object(Bucket=bucket, Key="k", Body=data)
    assert (put["ChecksumCRC64NVME"], put["ChecksumType"]) == (value_of("CRC64NVME", data), "FULL_OBJECT")
    head = s3_plain.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ChecksumCRC64NVME"] == put["ChecksumCRC64NVME"]
    upload = s3_plain.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    bodies = [os.urandom(PART), os.urandom(10)]
    parts = [
        {
            "PartNumber": 1,
            "ETag": s3_plain.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=bodies[0])["ETag"],
        },
        # a part may bring another: it is compared, and the default one is kept
        {
            "PartNumber": 2,
            "ETag": s3_plain.upload_part(
                Bucket=bucket,
                Key="m",
                UploadId=upload,
                PartNumber=2,
                Body=bodies[1],
                ChecksumSHA1=value_of("SHA1", bodies[1]),
            )["ETag"],
        },
    ]
    listed = s3_plain.list_parts(Bucket=bucket, Key="m", UploadId=upload)
    assert [part["ChecksumCRC64NVME"] for part in listed["Parts"]] == [value_of("CRC64NVME", body) for body in bodies]
    whole = {"Bucket": bucket, "Key": "m", "UploadId": upload, "MultipartUpload": {"Parts": parts}}
    for named, code in ((value_of("SHA1", b"other"), "InvalidPart"), (value_of("SHA1", bodies[1]), "")):
        parts[1]["ChecksumSHA1"] = named
        if code:
            assert error(s3_plain.complete_multipart_upload, **whole) == (code, 400)
    assert error(s3_plain.complete_multipart_upload, ChecksumCRC64NVME="AAAAAAAAAAA=", **whole) == ("BadDigest", 400)
    assert error(s3_plain.complete_multipart_upload, ChecksumCRC32="AAAAAA==", **whole) == ("InvalidRequest", 400)
    done = s3_plain.complete_multipart_upload(ChecksumCRC64NVME=value_of("CRC64NVME", b"".join(bodies)), **whole)
    assert (done["ChecksumCRC64NVME"], done["ChecksumType"]) == (value_of("CRC64NVME", b"".join(bodies)), "FULL_OBJECT")


@pytest.mark.parametrize("algorithm", HASHES)
def test_hashes_of_parts_are_composite(s3: Any, bucket: str, algorithm: str) -> None:
    field = f"Checksum{algorithm}"
    full = {"Bucket": bucket, "Key": "m", "ChecksumAlgorithm": algorithm, "ChecksumType": "FULL_OBJECT"}
    assert error(s3.create_multipart_upload, **full) == ("InvalidRequest", 400)
    bodies = [os.urandom(PART), b"the rest"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ChecksumAlgorithm=algorithm)["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        answer = s3.upload_part(
            Bucket=bucket, Key="m", UploadId=upload, PartNumber=number, Body=body, **brought(algorithm, body)
        )
        parts.append({"PartNumber": number, "ETag": answer["ETag"], field: answer[field]})
    whole = {"Bucket": bucket, "Key": "m", "UploadId": upload}
    bare = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
    assert error(s3.complete_multipart_upload, MultipartUpload={"Parts": bare}, **whole) == ("InvalidRequest", 400)
    raw = b"".join(base64.b64decode(part[field]) for part in parts)
    value = value_of(algorithm, raw)
    for wrong in (value_of(algorithm, b"other"), f"{value}-3", f"{value_of(algorithm, b'other')}-2"):
        given = {field: wrong}
        assert error(s3.complete_multipart_upload, MultipartUpload={"Parts": parts}, **whole, **given) == (
            "BadDigest",
            400,
        )
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **whole, **{field: f"{value}-2"})
    assert (done[field], done["ChecksumType"]) == (f"{value}-2", "COMPOSITE")
    for number, body in enumerate(bodies, 1):
        for read in (s3.get_object, s3.head_object):
            got = read(Bucket=bucket, Key="m", PartNumber=number, ChecksumMode="ENABLED")
            assert (got[field], got["ChecksumType"]) == (value_of(algorithm, body), "COMPOSITE")


@pytest.mark.parametrize("algorithm", ["", "CRC32", "SHA512"])
def test_a_repeated_completion_is_compared_as_the_first_was(s3_plain: Any, bucket: str, algorithm: str) -> None:
    """What was completed before is told again to who asks for the same, and for nothing else."""
    chosen, kept = {"ChecksumAlgorithm": algorithm} if algorithm else {}, algorithm or "CRC64NVME"
    upload = {
        "Bucket": bucket,
        "Key": "m",
        "UploadId": s3_plain.create_multipart_upload(Bucket=bucket, Key="m", **chosen)["UploadId"],
    }
    right = {f"Checksum{kept}": value_of(kept, b"x")}
    etag = s3_plain.upload_part(**upload, PartNumber=1, Body=b"x", **(right if algorithm else {}))["ETag"]
    part = {"PartNumber": 1, "ETag": etag, **right}
    done = s3_plain.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
    again = s3_plain.complete_multipart_upload(
        **upload, MultipartUpload={"Parts": [part]}, MpuObjectSize=1, ChecksumType=done["ChecksumType"]
    )
    assert (again["ETag"], again[f"Checksum{kept}"]) == (done["ETag"], done[f"Checksum{kept}"])
    other_type = "FULL_OBJECT" if done["ChecksumType"] == "COMPOSITE" else "COMPOSITE"
    for wrong, parts, code in (
        ({f"Checksum{kept}": value_of(kept, b"other")}, [part], "BadDigest"),
        ({"ChecksumSHA1": value_of("SHA1", b"x")}, [part], "InvalidRequest"),
        ({"MpuObjectSize": 2}, [part], "InvalidRequest"),
        ({"ChecksumType": other_type}, [part], "InvalidRequest"),
        ({}, [{**part, f"Checksum{kept}": value_of(kept, b"other")}], "InvalidPart"),
    ):
        assert error(s3_plain.complete_multipart_upload, **upload, MultipartUpload={"Parts": parts}, **wrong) == (
            code,
            400,
        ), wrong


def test_a_part_of_a_composite_upload_brings_its_checksum(s3_plain: Any, bucket: str) -> None:
    upload = s3_plain.create_multipart_upload(Bucket=bucket, Key="m", ChecksumAlgorithm="SHA256")["UploadId"]
    part = {"Bucket": bucket, "Key": "m", "UploadId": upload, "PartNumber": 1, "Body": b"x"}
    assert error(s3_plain.upload_part, **part) == ("InvalidRequest", 400)
    assert error(s3_plain.upload_part, **part, ChecksumSHA1=value_of("SHA1", b"x")) == ("InvalidRequest", 400)
    # of a full object the server computes what is missing
    upload = s3_plain.create_multipart_upload(
        Bucket=bucket, Key="m", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
    )["UploadId"]
    etag = s3_plain.upload_part(**{**part, "UploadId": upload})["ETag"]
    done = s3_plain.complete_multipart_upload(
        Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    assert base64.b64decode(done["ChecksumCRC32"]) == zlib.crc32(b"x").to_bytes(4, "big")


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_copy_has_the_checksum_that_is_asked_for(s3: Any, bucket: str, size: int) -> None:
    data = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumAlgorithm="CRC32")
    source = {"Bucket": bucket, "Key": "k"}
    for algorithm in ALGORITHMS:
        copied = s3.copy_object(Bucket=bucket, Key="c", CopySource=source, ChecksumAlgorithm=algorithm)[
            "CopyObjectResult"
        ]
        assert copied[f"Checksum{algorithm}"] == value_of(algorithm, data)
        head = s3.head_object(Bucket=bucket, Key="c", ChecksumMode="ENABLED", PartNumber=1)
        assert head[f"Checksum{algorithm}"] == value_of(algorithm, data)
    assert s3.get_object(Bucket=bucket, Key="c")["Body"].read() == data
    kept = s3.copy_object(Bucket=bucket, Key="c", CopySource=source)["CopyObjectResult"]
    assert kept["ChecksumCRC32"] == value_of("CRC32", data)


def test_a_copy_that_asks_for_a_checksum_has_that_of_the_whole_object(s3: Any, bucket: str) -> None:
    """Also where the source has one of its parts', of the same algorithm; without asking that is kept."""
    bodies = [os.urandom(PART), b"the rest"]
    part = {"Bucket": bucket, "Key": "m", "ChecksumAlgorithm": "SHA256"}
    part["UploadId"] = s3.create_multipart_upload(**part)["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        answer = s3.upload_part(**part, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, **{name: answer[name] for name in ("ETag", "ChecksumSHA256")}})
    del part["ChecksumAlgorithm"]
    done = s3.complete_multipart_upload(**part, MultipartUpload={"Parts": parts})
    copied = {"Bucket": bucket, "Key": "c", "CopySource": {"Bucket": bucket, "Key": "m"}}
    for asked, checksum in (
        ({}, (done["ChecksumSHA256"], "COMPOSITE")),
        ({"ChecksumAlgorithm": "SHA256"}, (value_of("SHA256", b"".join(bodies)), "FULL_OBJECT")),
    ):
        s3.copy_object(**copied, **asked)
        head = s3.head_object(Bucket=bucket, Key="c", ChecksumMode="ENABLED")
        assert (head["ChecksumSHA256"], head["ChecksumType"]) == checksum


def test_a_copied_part_says_its_checksum(s3: Any, bucket: str) -> None:
    data = os.urandom(PART)
    s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumAlgorithm="SHA1")
    for algorithm in ("SHA1", "XXHASH3"):  # what its source has, and another
        upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ChecksumAlgorithm=algorithm)["UploadId"]
        part = {"Bucket": bucket, "Key": "m", "UploadId": upload, "CopySource": {"Bucket": bucket, "Key": "k"}}
        copied = s3.upload_part_copy(**part, PartNumber=1)["CopyPartResult"]
        assert copied[f"Checksum{algorithm}"] == value_of(algorithm, data)
        ranged = s3.upload_part_copy(**part, PartNumber=2, CopySourceRange="bytes=0-9")["CopyPartResult"]
        assert ranged[f"Checksum{algorithm}"] == value_of(algorithm, data[:10])


def test_a_checksum_that_s3_lacks_is_refused() -> None:
    for headers in (
        {"x-amz-checksum-md6": "AAAA"},
        {"x-amz-checksum-": "AAAA"},
        {"x-amz-trailer": "x-amz-checksum-md6"},
    ):
        with pytest.raises(S3Error) as caught:
            checksums.expected_of(headers, "")
        assert caught.value.code == "InvalidRequest"
    with pytest.raises(S3Error, match="sdk-checksum-algorithm"):
        checksums.expected_of({"x-amz-trailer": "x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm": "SHA1"}, "")

"""Each wrong input of each operation gets the error of S3, as errors.tsv says."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest

from process import ServerProcess
from raw import call, send
from s4.access.actions import NEEDS
from s4.s3.errors import STATUS

TABLE = Path(__file__).with_name("errors.tsv")
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
_numbers = itertools.count()


@pytest.fixture(scope="module")
def names(s3: Any) -> dict[str, str]:
    """What the table's braces stand for: a bucket with an object `there` and two uploads with small parts."""
    bucket = f"errors-{next(_numbers)}-bucket"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="there", Body=b"hello")
    s3.put_object(Bucket=bucket, Key="mp", Body=b"hello")
    s3.create_bucket(Bucket="locked-" + bucket, ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket="locked-" + bucket, Key="there", Body=b"hello")
    values = {
        "bucket": bucket,
        "locked": "locked-" + bucket,
        "key": "there",
        "long": "k" * 1025,
        "kib3": "m" * 3000,
        "version": "0" * 24,
    }
    for name, key in (("upload", "mp"), ("upload2", "there")):
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        for number in (1, 2):
            values["etag"] = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=b"p")[
                "ETag"
            ]
        values[name] = upload
    whole = s3.create_multipart_upload(Bucket=bucket, Key="whole")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="whole", UploadId=whole, PartNumber=1, Body=b"p")["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket, Key="whole", UploadId=whole, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    values["delete1001"] = "<Delete>" + "<Object><Key>k</Key></Object>" * 1001 + "</Delete>"
    values["deep"] = "<Delete>" + "<a>" * 50 + "</a>" * 50 + "</Delete>"

    def field(name: str, value: str) -> str:
        return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'

    values |= {
        "form": field("key", "k"),
        "file": field("file", "x") + "--b--\r\n",
        "longkey": field("key", "k" * 1025),
        "large": field("x", "x" * 21_000),
    }
    signed = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": "a/20200101/us-east-1/s3/aws4_request",
        "x-amz-date": "20200101T000000Z",
        "x-amz-signature": "0",
    }
    values["badpolicy"] = field("policy", "e30=") + field("key", "k") + "".join(field(*one) for one in signed.items())
    return values


def fill(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['operation']}-{row['input']}" for row in ROWS])
def test_wrong_input_gets_the_error_of_s3(server: ServerProcess, names: dict[str, str], row: dict[str, str]) -> None:
    headers: dict[str, str] = {}
    payload = None
    for piece in filter(None, fill(row["headers"], names).split("|")):
        name, _, value = piece.partition(": ")
        if name == "x-amz-content-sha256":
            payload = value
        else:
            headers[name] = value
    body = fill(row["body"], names).encode()
    if row["operation"] == "PostObject":  # a form is signed in its own fields
        answer = send(server.endpoint, row["method"], fill(row["path"], names), headers, body)
    else:
        answer = call(
            server.endpoint,
            row["method"],
            fill(row["path"], names),
            query=fill(row["query"], names),
            headers=headers,
            body=body,
            payload=payload,
        )
    want = "" if row["code"] == "-" else row["code"]
    assert (answer.code, answer.status) == (want, int(row["status"])), answer.body
    assert answer.headers["x-amz-request-id"]
    if want:
        assert f"<RequestId>{answer.headers['x-amz-request-id']}</RequestId>".encode() in answer.body


def test_the_table_has_every_operation_and_only_known_codes() -> None:
    assert {row["operation"] for row in ROWS} >= set(NEEDS)
    for row in ROWS:
        assert row["code"] == "-" or STATUS[row["code"]][0] == int(row["status"]), row
        assert row["source"]

"""The table of operations in docs/s3.md says what the router does, for every operation of botocore's model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import botocore.session
import pytest

from s4.access.actions import NEEDS
from s4.http import control
from s4.http.operations import OPERATIONS
from s4.s3.errors import S3Error
from s4.s3.routing import BY_ID, route

TABLE = Path(__file__).parents[2] / "docs" / "s3.md"
MODEL = botocore.session.get_session().get_service_model("s3")
# Asked for at another server's name, or told apart by nothing but what botocore calls them.
ALIKE = {
    "ListDirectoryBuckets": "ListBuckets",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
}
COPIES = ("CopyObject", "UploadPartCopy")
MORE = {
    "UploadPart": {"partNumber": "1", "uploadId": "u"},
    "UploadPartCopy": {"partNumber": "1", "uploadId": "u"},
    "ListParts": {"uploadId": "u"},
    "CompleteMultipartUpload": {"uploadId": "u"},
    "AbortMultipartUpload": {"uploadId": "u"},
    **{name: {"id": "i"} for name in BY_ID.values()},
}


def rows() -> Iterator[tuple[str, str]]:
    text = TABLE.read_text().partition("| operation | |\n|---|---|\n")[2].partition("\n\n")[0]
    for line in text.splitlines():
        _, name, done, _ = (part.strip() for part in line.split("|"))
        yield name, done


def test_every_operation_of_the_model_has_a_row() -> None:
    names = [name for name, _ in rows()]
    assert names == sorted(names)
    assert set(names) == set(MODEL.operation_names)
    assert {done for _, done in rows()} == {"yes", "NotImplemented"}


@pytest.mark.parametrize(("name", "done"), list(rows()))
def test_the_router_does_what_the_row_says(name: str, done: str) -> None:
    http = MODEL.operation_model(name).http
    path, query = (
        urlsplit(http["requestUri"]).path,
        dict(parse_qsl(urlsplit(http["requestUri"]).query, keep_blank_values=True)),
    )
    parts = path.replace("{Bucket}", "bucket").replace("{Key+}", "key").split("/", 2)
    bucket, key = parts[1], parts[2].encode() if len(parts) > 2 else b""
    headers = {"x-amz-copy-source": "/a/b"} if name in COPIES else {}
    if done == "yes":
        found = route(http["method"], bucket, key, {**query, **MORE.get(name, {})}, headers)
        assert found == name
        assert name in OPERATIONS
    elif name in ALIKE:
        assert route(http["method"], bucket, key, query, headers) == ALIKE[name]
    else:
        with pytest.raises(S3Error) as refusal:
            route(http["method"], bucket, key, query, headers)
        assert refusal.value.code == "NotImplemented"


def test_every_operation_needs_an_action() -> None:
    assert set(NEEDS) == {*OPERATIONS, *control.OPERATIONS}


@pytest.mark.parametrize(
    ("method", "bucket", "key", "query", "allow"),
    [
        ("DELETE", "b", b"", "acl", "GET, PUT"),
        ("POST", "b", b"", "tagging", "DELETE, GET, PUT"),
        ("PATCH", "b", b"", "", "DELETE, GET, HEAD, POST, PUT"),
        ("DELETE", "b", b"k", "retention", "GET, PUT"),
        ("POST", "b", b"k", "", "DELETE, GET, HEAD, PUT"),
        ("PUT", "", b"", "", "GET"),
    ],
)
def test_what_is_not_allowed_says_what_is(method: str, bucket: str, key: bytes, query: str, allow: str) -> None:
    with pytest.raises(S3Error, match="MethodNotAllowed") as refusal:
        route(method, bucket, key, {query: ""} if query else {}, {})
    assert refusal.value.headers["Allow"] == allow

"""Of equal completions at once one wins, and the others get its answer: asked of one server, and of two gateways of a
cluster."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from access import where
from process import make_client
from server.test_admin import admin

server, s3, bucket = where.server, where.s3, where.bucket

EQUAL, ROUNDS, SIZE = 5, 8, 6000


@pytest.mark.parametrize("versioned", [False, True])
def test_equal_completions_at_once_get_one_answer(server: Any, s3: Any, bucket: str, versioned: bool) -> None:
    """The bucket has room for one such object more, and the completions must find none of that name: what the winner
    did is no reason to refuse the others."""
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    admin(server, "quota", bucket, str(ROUNDS * SIZE))
    clients = [make_client(server.endpoint) for _ in range(EQUAL)]
    with ThreadPoolExecutor(EQUAL) as pool:
        for number in range(ROUNDS):
            key, together = f"key-{number}", threading.Barrier(EQUAL)
            upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
            etag = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=bytes(SIZE))["ETag"]

            def complete(
                client: Any,
                key: str = key,
                upload: str = upload,
                etag: str = etag,
                together: threading.Barrier = together,
            ) -> tuple[str, str]:
                together.wait()
                parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
                done = client.complete_multipart_upload(
                    Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*"
                )
                return done["ETag"], done.get("VersionId", "")

            answers = set(pool.map(complete, clients))
            versions = s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
            assert len(versions) == 1
            assert answers == {(versions[0]["ETag"], versions[0]["VersionId"] if versioned else "")}
    for client in clients:
        client.close()

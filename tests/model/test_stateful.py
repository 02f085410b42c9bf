"""Hypothesis runs random operations on the server and on the model, with restarts and kill -9 among them."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
from botocore.exceptions import ClientError
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from model.reference import Bucket, ModelError, Upload, Version, etag_of
from process import ServerProcess, make_client
from tiers import amount

KEYS = st.sampled_from(["a", "a/b", "a/b/c", "a0", "b", "é", "a/", "z\x01z"])
# Sizes around each boundary: inline, block, stripe. Few contents, so that deduplication happens all the time.
BODIES = st.builds(
    lambda size, seed: bytes([seed]) * size,
    st.sampled_from([0, 1, 4095, 4096, 65536, 65537, (1 << 20) + 1]),
    st.integers(0, 2),
)
_numbers = itertools.count()


class S3Machine(RuleBasedStateMachine):
    """One bucket. The server outlives the machine; each machine has a bucket of its own."""

    server: ClassVar[ServerProcess]
    s3: ClassVar[Any]
    versions = Bundle("versions")
    uploads = Bundle("uploads")

    @initialize()
    def begin(self) -> None:
        self.bucket = f"model-{os.getpid()}-{next(_numbers)}"
        self.model = Bucket()
        self.s3.create_bucket(Bucket=self.bucket)

    def compare(self, real: Any, expected: Any) -> tuple[Any, Any]:
        """Run both; the same error, or (answer, model's answer)."""
        try:
            wanted, code = expected(), None
        except ModelError as error:
            wanted, code = None, error.code
        try:
            answer = real()
        except ClientError as error:
            assert error.response["Error"]["Code"] == code
            return None, None
        assert code is None, f"the model says {code}"
        return answer, wanted

    def name(self, key: str, version: Version, answer: dict[str, Any]) -> Any:
        version.id = answer.get("VersionId", "null")
        return multiple((key, version.id))

    @rule(target=versions, key=KEYS, body=BODIES, metadata=st.sampled_from([{}, {"m": "1"}]))
    def put(self, key: str, body: bytes, metadata: dict[str, str]) -> Any:
        answer, version = self.compare(
            lambda: self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata),
            lambda: self.model.put(key, body, metadata),
        )
        assert answer["ETag"] == f'"{version.etag}"'
        return self.name(key, version, answer)

    @rule(target=versions, key=KEYS, body=BODIES, none_match=st.booleans(), of=BODIES)
    def put_if(self, key: str, body: bytes, none_match: bool, of: bytes) -> Any:
        sent: dict[str, str] = {"IfNoneMatch": "*"} if none_match else {"IfMatch": f'"{etag_of(of)}"'}
        answer, version = self.compare(
            lambda: self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **sent),
            lambda: self.model.put(
                key, body, if_none_match="*" if none_match else None, if_match=None if none_match else etag_of(of)
            ),
        )
        return self.name(key, version, answer) if version else multiple()

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        answer, version = self.compare(
            lambda: self.s3.get_object(Bucket=self.bucket, Key=key), lambda: self.model.get(key)
        )
        if version:
            assert (answer["Body"].read(), answer["Metadata"]) == (version.body, version.metadata)

    @rule(key=KEYS, start=st.integers(0, 70000), length=st.integers(1, 70000))
    def get_range(self, key: str, start: int, length: int) -> None:
        try:
            version = self.model.get(key)
        except ModelError:
            return
        if start >= len(version.body):
            return
        answer = self.s3.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={start}-{start + length - 1}")
        assert answer["Body"].read() == version.body[start : start + length]

    @rule(item=versions)
    def get_version(self, item: tuple[str, str]) -> None:
        key, version = item
        answer, found = self.compare(
            lambda: self.s3.get_object(Bucket=self.bucket, Key=key, VersionId=version),
            lambda: self.model.get(key, version),
        )
        if found:
            assert answer["Body"].read() == found.body

    @rule(target=versions, key=KEYS)
    def delete(self, key: str) -> Any:
        answer, marker = self.compare(
            lambda: self.s3.delete_object(Bucket=self.bucket, Key=key), lambda: self.model.delete(key)
        )
        assert answer.get("DeleteMarker", False) == (marker is not None)
        return self.name(key, marker, answer) if marker else multiple()

    @rule(item=consumes(versions))
    def delete_version(self, item: tuple[str, str]) -> None:
        key, version = item
        self.s3.delete_object(Bucket=self.bucket, Key=key, VersionId=version)
        self.model.delete(key, version)

    @rule(target=versions, source=KEYS, key=KEYS)
    def copy(self, source: str, key: str) -> Any:
        answer, version = self.compare(
            lambda: self.s3.copy_object(Bucket=self.bucket, Key=key, CopySource={"Bucket": self.bucket, "Key": source}),
            lambda: self.model.copy(source, key),
        )
        return self.name(key, version, answer) if version else multiple()

    @precondition(lambda self: not self.model.versioning)
    @rule(source=KEYS, key=KEYS)
    def rename(self, source: str, key: str) -> None:
        self.compare(
            lambda: self.s3.rename_object(Bucket=self.bucket, Key=key, RenameSource=_quoted(source)),
            lambda: self.model.rename(source, key),
        )

    @rule(status=st.sampled_from(["Enabled", "Suspended"]))
    def set_versioning(self, status: str) -> None:
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": status})
        self.model.versioning = status

    @rule(target=uploads, key=KEYS)
    def create_upload(self, key: str) -> str:
        upload: str = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        self.model.uploads[upload] = Upload(key)
        return upload

    @rule(upload=uploads, number=st.integers(1, 2), body=BODIES)
    def upload_part(self, upload: str, number: int, body: bytes) -> None:
        pending = self.model.uploads.get(upload)
        if pending is not None:
            self.s3.upload_part(Bucket=self.bucket, Key=pending.key, UploadId=upload, PartNumber=number, Body=body)
            pending.parts[number] = body

    @rule(target=versions, upload=consumes(uploads), number=st.integers(1, 2))
    def complete(self, upload: str, number: int) -> Any:
        pending = self.model.uploads[upload]
        etag = etag_of(pending.parts.get(number, b"?"))
        parts = {"Parts": [{"PartNumber": number, "ETag": f'"{etag}"'}]}
        answer, version = self.compare(
            lambda: self.s3.complete_multipart_upload(
                Bucket=self.bucket, Key=pending.key, UploadId=upload, MultipartUpload=parts
            ),
            lambda: self.model.complete(upload, [number]),
        )
        if version is None:
            return multiple()
        assert answer["ETag"] == f'"{version.etag}"'
        return self.name(pending.key, version, answer)

    @rule(upload=consumes(uploads))
    def abort(self, upload: str) -> None:
        pending = self.model.uploads.pop(upload)
        self.s3.abort_multipart_upload(Bucket=self.bucket, Key=pending.key, UploadId=upload)

    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        if kill:
            self.server.kill()
        else:
            assert self.server.stop() == 0
        self.server.start()

    @invariant()
    def listings_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        listed = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        current = {key: self.model.current(key) for key in self.model.keys}
        want = [
            (key, one.etag, len(one.body))
            for key, one in sorted(current.items(), key=lambda item: item[0].encode())
            if one
        ]
        assert [(item["Key"], item["ETag"].strip('"'), item["Size"]) for item in listed] == want
        page = self.s3.list_object_versions(Bucket=self.bucket)
        found = {
            (item["Key"], item["VersionId"], item["IsLatest"])
            for name in ("Versions", "DeleteMarkers")
            for item in page.get(name, [])
        }
        wanted = {
            (key, one.id, index == 0) for key, versions in self.model.keys.items() for index, one in enumerate(versions)
        }
        assert found == wanted

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for upload, pending in self.model.uploads.items():
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=pending.key, UploadId=upload)
        page = self.s3.list_object_versions(Bucket=self.bucket)
        for name in ("Versions", "DeleteMarkers"):
            for item in page.get(name, []):
                self.s3.delete_object(Bucket=self.bucket, Key=item["Key"], VersionId=item["VersionId"])
        self.s3.delete_bucket(Bucket=self.bucket)
        check = self.server.admin_cli("--json", "verify", "--deep", check=False)
        assert check.returncode == 0, check.stdout
        assert '"references":0' in check.stdout.replace(" ", ""), check.stdout


def _quoted(key: str) -> str:
    from urllib.parse import quote

    return quote(key)


def test_the_server_agrees_with_the_model() -> None:
    with tempfile.TemporaryDirectory() as directory:
        S3Machine.server = ServerProcess(Path(directory) / "data", "--reserve", "64MiB").start()
        S3Machine.s3 = make_client(S3Machine.server.endpoint, retries={"max_attempts": 2})
        try:
            machine = S3Machine.TestCase
            machine.settings = settings(max_examples=amount("S4_EXAMPLES", 12, 500), stateful_step_count=40)
            machine("runTest").runTest()
        finally:
            S3Machine.s3.close()
            if S3Machine.server.process is not None:
                S3Machine.server.stop()

"""docker's registry (distribution) with its blobs in a bucket: pushed in pieces, pulled by links to S3, deleted,
collected, uploads cancelled.

Its purge of old uploads does what a cancellation does, but begins only up to an hour after its start."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import kept
from addresses import free_ports, own_address
from clients.test_programs import HANGS_S
from compat.made import made
from process import ACCESS, REGION, SECRET, ServerProcess, wait_until


class Registry:
    """docker's registry, with its blobs in a bucket; `ask` speaks its HTTP API."""

    def __init__(self, server: ServerProcess, bucket: str, directory: Path) -> None:
        self.program, self.config, self.log = (
            str(made("distribution") / "registry"),
            directory / "registry.yml",
            directory / "registry.log",
        )
        host = own_address()
        self.address = f"{host}:{free_ports(1, host)[0]}"
        keys = {
            "accesskey": ACCESS,
            "secretkey": SECRET,
            "region": REGION,
            "regionendpoint": server.endpoint,
            "forcepathstyle": True,
            "bucket": bucket,
            "secure": False,
        }
        storage = {"s3": {**keys, "chunksize": 5 << 20}, "delete": {"enabled": True}, "redirect": {"disable": False}}
        self.config.write_text(
            json.dumps({"version": 0.1, "storage": storage, "http": {"addr": self.address, "secret": "s"}})
        )  # JSON is YAML

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
        address = path if path.startswith("http") else f"http://{self.address}{path}"
        request = Request(
            address, body, {name.replace("_", "-"): value for name, value in headers.items()}, method=method
        )
        try:
            with urlopen(request) as answer:
                return answer.status, answer.read(), answer.headers
        except HTTPError as error:
            with error:
                return error.code, error.read(), error.headers

    def push(self, content: bytes) -> str:
        """In pieces, as clients push layers."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        status, said, headers = self.ask("POST", "/v2/app/blobs/uploads/", b"")
        assert status == 202, said
        for first in range(0, len(content), 7 << 20):
            piece = content[first : first + (7 << 20)]
            status, said, headers = self.ask(
                "PATCH",
                headers["Location"],
                piece,
                Content_Type="application/octet-stream",
                Content_Range=f"{first}-{first + len(piece) - 1}",
            )
            assert status == 202, said
        status, said, _ = self.ask("PUT", f"{headers['Location']}&digest={digest}", b"")
        assert status == 201, said
        return digest

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/v2/")[0] == 200
        except OSError:
            return False


@pytest.fixture
def registry(server: ServerProcess, bucket: str, tmp_path: Path) -> Iterator[Registry]:
    made_ = Registry(server, bucket, tmp_path)
    with made_.log.open("wb") as log, kept.started([made_.program, "serve", made_.config], stdout=log, stderr=log):
        wait_until(made_.answers, "the registry answers")
        yield made_


def test_registry(registry: Registry, s3: Any, bucket: str) -> None:
    layer, settings = os.urandom(20_000_000), b"{}"
    digests = [registry.push(content) for content in (settings, layer)]
    entries = [
        {"mediaType": "application/octet-stream", "size": len(content), "digest": digest}
        for content, digest in zip((settings, layer), digests, strict=True)
    ]
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {**entries[0], "mediaType": "application/vnd.oci.image.config.v1+json"},
            "layers": entries[1:],
        }
    ).encode()
    status, said, headers = registry.ask("PUT", "/v2/app/manifests/one", manifest, Content_Type=kind)
    assert status == 201, said
    assert registry.ask("GET", "/v2/app/manifests/one", None, Accept=kind)[1] == manifest
    assert registry.ask("GET", f"/v2/app/blobs/{digests[1]}")[1] == layer  # by a link to S3
    assert json.loads(registry.ask("GET", "/v2/app/tags/list")[1])["tags"] == ["one"]

    assert registry.ask("DELETE", f"/v2/app/manifests/{headers['Docker-Content-Digest']}")[0] == 202
    assert registry.ask("GET", "/v2/app/manifests/one")[0] == 404
    done = kept.run([registry.program, "garbage-collect", registry.config], limit_s=HANGS_S)
    assert done.returncode == 0, done.stderr
    left = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    assert not [key for key in left if digests[1].removeprefix("sha256:") in key and "/blobs/sha256/" in key], left


def test_a_cancelled_upload_leaves_nothing(registry: Registry, s3: Any, bucket: str) -> None:
    headers = registry.ask("POST", "/v2/app/blobs/uploads/", b"")[2]
    for first, size in ((0, 6 << 20), (6 << 20, 6 << 20)):
        status, said, headers = registry.ask(
            "PATCH",
            headers["Location"],
            os.urandom(size),
            Content_Type="application/octet-stream",
            Content_Range=f"{first}-{first + size - 1}",
        )
        assert status == 202, said
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert registry.ask("DELETE", headers["Location"])[0] == 204
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    left = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    assert [key for key in left if "/hashstates/" not in key] == [], (
        "the registry notes how far it had hashed once more when it is done"
    )

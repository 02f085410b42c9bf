"""Programs in Go: s5cmd, kopia and the AWS SDK v2."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clients.test_programs import run, same, tree
from compat.made import made
from process import ACCESS, REGION, SECRET, ServerProcess, wait_until

__all__ = ["tree"]  # a fixture


def test_s5cmd(server: ServerProcess, bucket: str, tree: Path, tmp_path: Path) -> None:
    s5cmd = [str(made("s5cmd") / "s5cmd"), "--endpoint-url", server.endpoint]
    for path in tree.rglob("*"):
        os.utime(path, (10**9, 10**9))  # sync compares them with times in whole seconds
    run(*s5cmd, "cp", f"{tree}/", f"s3://{bucket}/tree/", home=tmp_path)
    assert "same.bin" in run(*s5cmd, "ls", f"s3://{bucket}/tree/*", home=tmp_path)
    run(*s5cmd, "cp", f"s3://{bucket}/tree/*", f"{tmp_path}/back/", home=tmp_path)
    assert same(tree, tmp_path / "back")
    assert run(*s5cmd, "--dry-run", "sync", f"{tree}/", f"s3://{bucket}/tree/", home=tmp_path) == ""
    (tree / "same.bin").unlink()
    run(*s5cmd, "sync", "--delete", f"{tree}/", f"s3://{bucket}/tree/", home=tmp_path)
    run(*s5cmd, "mv", f"s3://{bucket}/tree/*", f"s3://{bucket}/moved/", home=tmp_path)
    run(*s5cmd, "sync", f"s3://{bucket}/moved/*", f"{tmp_path}/moved/", home=tmp_path)
    assert same(tree, tmp_path / "moved")
    run(*s5cmd, "rm", f"s3://{bucket}/*", home=tmp_path)


def test_aws_sdk_go(server: ServerProcess, bucket: str, tmp_path: Path) -> None:
    run(
        str(made("aws-sdk-go") / "aws-sdk-go"),
        server.endpoint,
        bucket,
        home=tmp_path,
        environment={"AWS_REGION": REGION},
    )


def test_kopia(server: ServerProcess, s3: Any, tree: Path, tmp_path: Path) -> None:
    """A repository whose blobs are locked: what is deleted stays as a version, which nothing removes before its
    time."""
    bucket = f"kopia-{os.getpid()}"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    environment = {
        "KOPIA_PASSWORD": "a password",
        "KOPIA_CHECK_FOR_UPDATES": "false",
        "KOPIA_CACHE_DIRECTORY": str(tmp_path / "cache"),
        "KOPIA_LOG_DIR": str(tmp_path / "log"),
    }

    def kopia(*arguments: str) -> str:
        program = str(made("kopia") / "kopia")
        return run(
            program, "--config-file", str(tmp_path / "kopia.config"), *arguments, home=tmp_path, environment=environment
        )

    where = [
        "s3",
        "--bucket",
        bucket,
        "--endpoint",
        server.endpoint.partition("//")[2],
        "--disable-tls",
        "--region",
        REGION,
        "--access-key",
        ACCESS,
        "--secret-access-key",
        SECRET,
    ]
    kopia("repository", "create", *where, "--retention-mode", "COMPLIANCE", "--retention-period", "48h")
    kopia("snapshot", "create", str(tree))
    (tree / "more.bin").write_bytes(os.urandom(3_000_000))
    kopia("snapshot", "create", str(tree))
    kopia("snapshot", "verify", "--verify-files-percent", "100")
    newest = max(json.loads(kopia("snapshot", "list", "--json", "--all")), key=lambda one: one["startTime"])["id"]
    kopia("restore", newest, str(tmp_path / "back"))
    assert same(tree, tmp_path / "back")

    packs = [one for one in s3.list_object_versions(Bucket=bucket, Prefix="p")["Versions"] if one["Size"] > 1_000_000]
    pack = {"Bucket": bucket, "Key": packs[0]["Key"], "VersionId": packs[0]["VersionId"]}
    assert s3.get_object_retention(**pack)["Retention"]["Mode"] == "COMPLIANCE"
    before = int(time.time())
    wait_until(lambda: time.time() >= before + 1, "the next second: versions have times of whole ones")
    kopia("blob", "delete", pack["Key"], "--advanced-commands", "enabled")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=pack["Key"])
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(**pack)
    kopia("repository", "disconnect")
    kopia("repository", "connect", *where, "--point-in-time", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(before)))
    kopia("restore", newest, str(tmp_path / "as it was"))
    assert same(tree, tmp_path / "as it was")

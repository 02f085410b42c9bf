"""Programs in Go: s5cmd and the AWS SDK v2."""

from __future__ import annotations

import os
from pathlib import Path

from clients.test_programs import run, same, tree
from compat.made import made
from process import REGION, ServerProcess

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
    run(str(made("aws-sdk-go") / "aws-sdk-go"), server.endpoint, bucket, home=tmp_path, environment={"AWS_REGION": REGION})

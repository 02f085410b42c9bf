"""The AWS SDK for Rust. It speaks plain HTTP here and builds without TLS and without aws-config, which is most of what
it takes to build."""

from __future__ import annotations

from pathlib import Path

from clients.test_programs import run
from compat.made import made
from process import ServerProcess


def test_aws_sdk_rust(server: ServerProcess, bucket: str, tmp_path: Path) -> None:
    run(str(made("aws-sdk-rust") / "bin" / "aws-sdk-rust"), server.endpoint, bucket, home=tmp_path)

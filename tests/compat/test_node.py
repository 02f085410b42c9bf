"""The AWS SDK for JavaScript v3. Node finds packages above the script, so the script lies beside them."""

from __future__ import annotations

from pathlib import Path

from clients.test_programs import program, run
from compat.made import made
from process import ServerProcess


def test_aws_sdk_js(server: ServerProcess, bucket: str, tmp_path: Path) -> None:
    run(program("node"), str(made("aws-sdk-js") / "main.js"), server.endpoint, bucket, home=tmp_path)

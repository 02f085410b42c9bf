"""A server whose descriptors are all in use: who comes waits or is ended, and nothing is taken for lost or damaged."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from process import own_address, wait_until
from s4.crypto.authority import Authority

LEFT = 24  # descriptors
SILENT = 80


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_out_of_descriptors(own_server: Any, client: Any, tmp_path: Path, secure: bool) -> None:
    """Sockets that say nothing have them all. A connection that was there is served, puts that are acknowledged stay,
    and once descriptors are free again the server is as it was."""
    options = []
    if secure:
        _, certificate, key = Authority(tmp_path).issue(own_address())
        options = ["--certificate", str(certificate), "--key", str(key)]
    server = own_server(*options, drives=4)
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="bbb")
    held = {"before": os.urandom(300_000)}
    s3.put_object(Bucket="bbb", Key="before", Body=held["before"])
    pid, where = server.process.pid, urlsplit(server.endpoint)
    used = Path(f"/proc/{pid}/fd")
    before = len(list(used.iterdir()))
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (before + LEFT, limits[1]))
    with ExitStack() as stack:
        for _ in range(SILENT):
            stack.enter_context(socket.create_connection((where.hostname or "", where.port or 0)))
        wait_until(lambda: len(list(used.iterdir())) >= before + LEFT - 2, "all descriptors are in use")
        for number in range(4):
            data = os.urandom(300_000)
            try:
                s3.put_object(Bucket="bbb", Key=f"then-{number}", Body=data)
            except (ClientError, BotoCoreError):
                continue  # refused or cut off is what it may be
            held[f"then-{number}"] = data
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: len(list(used.iterdir())) < before + LEFT // 2, "they are free again")
    newer = client(server.endpoint)
    for key, data in held.items():
        assert newer.get_object(Bucket="bbb", Key=key)["Body"].read() == data
    newer.put_object(Bucket="bbb", Key="after", Body=b"x")
    said = server.ask("GET", "/status")
    assert said["health"] == "ok", said
    assert "damaged" not in server.log.read_text()

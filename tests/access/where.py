"""Where these tests run: one server, and a cluster of three nodes asked through two gateways in turn.

Both are started once for each worker, with everything on that some test needs (websites, days of a second, keys of a
KMS, a receiver of events); tests have buckets, users and keys of their own.
"""

from __future__ import annotations

import base64
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.dev import DevCluster
from cluster.etcd_process import need_etcd
from process import ACCESS, COVERED, SECRET, ServerProcess, make_client, run

_numbers = itertools.count(1)
WEBSITES = "web.example"
PATIENT = {"S4_TIMING_SCALE": "10"}  # nobody dies here: a node that is starved for seconds is not given up
KINDS = ("one server", "two gateways")
KMS_KEYS = {
    "first": base64.b64encode(bytes(range(32))).decode(),
    "other": base64.b64encode(bytes(range(32, 64))).decode(),
    "theirs": base64.b64encode(bytes(range(64, 96))).decode(),
}
KMS_ALLOW = "first=*;other=*;none=*;theirs=theirs-*;nowhere=theirs-*"


def new_name() -> str:
    return f"access-{os.getpid()}-{next(_numbers)}"


class TwoGateways:
    """Every look at `endpoint` gives the other gateway: clients that are made one after the other ask different
    ones."""

    def __init__(self, directory: Path, options: dict[str, str]) -> None:
        keys = {"S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET, **COVERED, **PATIENT, **options}
        self.cluster = DevCluster(directory, nodes=3, erasure="2+1", partitions=4, gateways=2, environment=keys)
        self._gateways = itertools.cycle(("gateway-1", "gateway-2"))

    @property
    def endpoint(self) -> str:
        return str(self.cluster.lines[next(self._gateways)]["s3"])

    def settle(self) -> None:
        """Return once nothing waits in an outbox."""
        self.cluster.wait(lambda said: said["outbox"] == 0, "the outboxes are empty")

    def admin_cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.cluster.environment}
        return run(["admin", "--endpoint", self.cluster.lines["node-1"]["admin"], *arguments], environment)


@contextmanager
def serving(kind: str, directory: Path, *more: str) -> Iterator[Any]:
    """A server or a cluster, with more options (--name value) than all have."""
    kms = directory.parent / "kms"
    kms.write_text("".join(f"{name}:{key}\n" for name, key in KMS_KEYS.items()))
    options = [
        "--website-domain",
        WEBSITES,
        "--lifecycle-day",
        "1",
        "--kms",
        str(kms),
        "--kms-allow",
        KMS_ALLOW,
        "--bare-keys",
        "on",
        "--signature-v2",
        "all",
        *more,
    ]
    if kind == "one server":
        process = ServerProcess(directory, "--reserve", "64MiB", *options, environment=COVERED).start()
        yield process
        assert process.stop() == 0
        return
    need_etcd()
    made = TwoGateways(
        directory,
        {
            f"S4_{name[2:].replace('-', '_').upper()}": value
            for name, value in zip(options[::2], options[1::2], strict=True)
        },
    )
    try:
        made.cluster.start()
        made.cluster.wait_whole()
        yield made
    finally:
        made.cluster.stop()


@pytest.fixture(params=KINDS, scope="module")
def server(request: pytest.FixtureRequest) -> Any:
    """That one of the two, which all modules share."""
    return request.getfixturevalue({"one server": "open_server", "two gateways": "two_gateways"}[request.param])


@pytest.fixture(scope="module")
def s3(server: Any) -> Iterator[Any]:
    client = make_client(server.endpoint)
    yield client
    client.close()


@pytest.fixture
def bucket(s3: Any) -> str:
    name = new_name()
    s3.create_bucket(Bucket=name)
    return name

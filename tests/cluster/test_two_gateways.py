"""Two gateways without state: what one acknowledged, the other sees; under load, many times, without an exception.

S4_ROUNDS says how often.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from addresses import own_address
from cluster.dev import ACCESS, SECRET, DevCluster
from cluster.etcd_process import needs_etcd
from cluster.test_six_nodes import Load
from process import start, wait_until
from s4.crypto import keyring
from s4.server.cluster import ClusterSettings
from tiers import amount

pytestmark = needs_etcd

ROUNDS = amount("S4_ROUNDS", 80, 3000)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    made = DevCluster(tmp_path_factory.mktemp("two") / "dev", nodes=3, erasure="2+1", gateways=2)
    try:
        made.start().client("gateway-1").create_bucket(Bucket="bucket")
        with Load(made, ["node-1", "node-2"], writers=1, readers=1):
            yield made
    finally:
        made.stop()


def test_contents_do_not_wait_for_the_scrub(cluster: DevCluster) -> None:
    """On disks that take days it came to them days late: either is a job by itself."""
    answer = list(cluster.admin("node-1").call("GET", "/jobs"))[-1]
    assert {"scrub", "contents"} <= {job["name"] for job in answer["jobs"]}


def test_a_read_sees_every_write_before_it(cluster: DevCluster) -> None:
    one, other, chosen = cluster.client("gateway-1"), cluster.client("gateway-2"), random.Random(1)
    for number in range(ROUNDS):
        writer, reader = (one, other) if number % 2 else (other, one)
        key, body = f"rw/{chosen.randrange(20)}", chosen.randbytes(chosen.choice((20, 5000, 50_000)))
        writer.put_object(Bucket="bucket", Key=key, Body=body)
        assert reader.get_object(Bucket="bucket", Key=key)["Body"].read() == body
        if number % 5 == 0:
            writer.delete_object(Bucket="bucket", Key=key)
            with pytest.raises(ClientError, match="NoSuchKey"):
                reader.get_object(Bucket="bucket", Key=key)


def test_a_listing_sees_every_write_before_it(cluster: DevCluster) -> None:
    one, other, kept = cluster.client("gateway-1"), cluster.client("gateway-2"), set[str]()
    chosen = random.Random(2)
    for number in range(ROUNDS):
        writer, reader = (one, other) if number % 2 else (other, one)
        key = f"ls/{chosen.randrange(60):03}"
        if key in kept and chosen.random() < 0.5:
            writer.delete_object(Bucket="bucket", Key=key)
            kept.discard(key)
        else:
            writer.put_object(Bucket="bucket", Key=key, Body=b"x")
            kept.add(key)
        found = reader.list_objects_v2(Bucket="bucket", Prefix="ls/")
        assert [entry["Key"] for entry in found.get("Contents", [])] == sorted(kept)


def test_a_setting_is_obeyed_once_the_call_returned(cluster: DevCluster) -> None:
    one, other = cluster.client("gateway-1"), cluster.client("gateway-2")
    one.create_bucket(Bucket="settings")
    for number in range(ROUNDS):
        setter, user = (one, other) if number % 2 else (other, one)
        status = "Enabled" if number % 2 == 0 else "Suspended"
        setter.put_bucket_versioning(Bucket="settings", VersioningConfiguration={"Status": status})
        written = user.put_object(Bucket="settings", Key="k", Body=str(number).encode())
        assert (written["VersionId"] != "null") == (status == "Enabled"), number


def test_buckets_come_and_go(cluster: DevCluster) -> None:
    one, other = cluster.client("gateway-1"), cluster.client("gateway-2")
    for number in range(max(10, ROUNDS // 10)):
        maker, user = (one, other) if number % 2 else (other, one)
        maker.create_bucket(Bucket="passing")
        user.put_object(Bucket="passing", Key="k", Body=b"x")
        with pytest.raises(ClientError, match="BucketNotEmpty"):
            maker.delete_bucket(Bucket="passing")
        user.delete_object(Bucket="passing", Key="k")
        maker.delete_bucket(Bucket="passing")
        with pytest.raises(ClientError, match="NoSuchBucket"):
            user.put_object(Bucket="passing", Key="k", Body=b"x")


def listens(process: int, port: int) -> bool:
    """Whether a process has a listening socket on a port."""
    lines = Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]
    found = {
        f"socket:[{one[9]}]" for one in map(str.split, lines) if one[3] == "0A" and one[1].endswith(f":{port:04X}")
    }
    return any(str(one.readlink()) in found for one in Path(f"/proc/{process}/fd").iterdir() if one.exists())


def children(process: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def counted(admin: str) -> int:
    """Objects that were put through a gateway, by its metrics."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=60) as answer:
        lines = re.findall(r'^s4_requests_total\{.*"PutObject".*\} ([0-9.]+)$', answer.read().decode(), re.MULTILINE)
    return sum(int(float(one)) for one in lines)


def test_workers_serve_on_the_port_of_their_gateway_and_end_with_it(cluster: DevCluster, tmp_path: Path) -> None:
    """Each process by itself, as connections are shared out by the kernel: counted together, and started again."""
    trust, host, several = cluster.directory / "trust", own_address(), ["--workers", "2"]
    options = ["--coordinator", cluster.coordinator, "--listen", f"{host}:0", "--admin-listen", f"{host}:0"]
    options += ["--authority", trust / "ca.pem", "--master-key", trust / keyring.FILE, "--admin-tls", "off"]
    options += ["--peer-certificate", trust / "gateway-1.pem", "--peer-key", trust / "gateway-1.key", *several]
    with (tmp_path / "gateway.log").open("wb") as log:
        process = start(["gateway", *map(str, options)], {**os.environ, "TMPDIR": str(tmp_path)}, log, ["env"])
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        s3, admin = re.findall(r"http://[0-9.:]+", line)
        workers = children(process.pid)
        assert len(workers) == 2, line
        assert all(listens(one, int(s3.rpartition(":")[2])) for one in (process.pid, *workers))
        config = Config(s3={"addressing_style": "path"}, retries={"mode": "standard"})
        keys = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        for number in range(30):  # a connection of its own each
            boto3.client("s3", endpoint_url=s3, config=config, **keys).put_object(
                Bucket="bucket", Key=f"workers/{number}", Body=b"x"
            )
        wait_until(lambda: counted(admin) == 30, "each process told what it did")
        assert cluster.client("gateway-2").list_objects_v2(Bucket="bucket", Prefix="workers/")["KeyCount"] == 30
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: len(set(children(process.pid)) | {workers[0]}) == 3, "another one is started")
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(Path(f"/proc/{one}/fd").exists() for one in workers), "they end with it")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_worker_that_waits_for_a_map_ends_with_its_gateway(cluster: DevCluster, tmp_path: Path) -> None:
    trust, host = cluster.directory / "trust", own_address()
    settings = ClusterSettings(
        directories=[],
        listen=f"{host}:0",
        coordinator=f"{cluster.coordinator}-that-nobody-made",
        authority=str(trust / "ca.pem"),
        peer_certificate=str(trust / "gateway-1.pem"),
        peer_key=str(trust / "gateway-1.key"),
        master_key=str(trust / keyring.FILE),
    )
    log = tmp_path / "worker.log"
    with log.open("wb") as file:
        worker = subprocess.Popen(
            [sys.executable, "-m", "s4.server.cluster_worker", msgspec.json.encode(settings).decode()],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
        )
    try:
        wait_until(lambda: "waiting for the cluster" in log.read_text(), "it waits")
        assert worker.poll() is None
        worker.stdin.close()  # type: ignore[union-attr]
        wait_until(lambda: worker.poll() is not None, "it ends")
    finally:
        worker.kill()
        worker.wait()

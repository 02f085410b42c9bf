"""A running cluster whose authority is replaced, and which then grows by a node: real processes, because each step is
files that they read again by themselves, restarts, and connections between them (nine processes are started: some
seconds of a processor)."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from addresses import own_address
from cluster.dev import ACCESS, SECRET, DevCluster
from cluster.etcd_process import needs_etcd
from process import run, start, wait_until
from s4.cli.starter import Started

pytestmark = needs_etcd
NODES = ("node-1", "node-2", "node-3")


def admin(cluster: DevCluster, *words: str) -> subprocess.CompletedProcess[str]:
    """`s4 admin cluster`."""
    where = ["admin", "--endpoint", cluster.lines["node-1"]["admin"], "cluster"]
    return run([*where, *words], {**os.environ, **cluster.environment}, check=False)


def times_read(cluster: DevCluster) -> dict[str, int]:
    return {
        name: (cluster.directory / f"{name}.log").read_text().count("the certificate for peers was loaded again")
        for name in NODES
    }


def step(cluster: DevCluster, how: str) -> None:
    """One step of the replacement, until every process has what is new; then each starts again and meets the others."""
    before = times_read(cluster)
    done = admin(cluster, "certificates", str(cluster.directory / "trust"), how)
    assert done.returncode == 0, done.stderr
    wait_until(
        lambda: all(now > before[name] for name, now in times_read(cluster).items()),
        f"all read the files again after {how}",
    )
    for name in NODES:
        cluster.act("stop", name)
        cluster.act("start", name)
        cluster.wait_whole()
        cluster.client(name).put_object(Bucket="bucket", Key=f"{how}/{name}", Body=b"x" * 10_000)


def node_4(cluster: DevCluster, directory: Path, advertise: str) -> subprocess.Popen[bytes] | Started:
    host, trust = own_address(), cluster.directory / "trust"
    at = f"{host if advertise.startswith('127.0.0.99') else advertise.partition(':')[0]}:{advertise.rpartition(':')[2]}"
    files = [
        "--authority",
        trust / "ca.pem",
        "--master-key",
        trust / "master.key",
        "--peer-certificate",
        trust / "node-4.pem",
        "--peer-key",
        trust / "node-4.key",
    ]
    with (cluster.directory / "node-4.log").open("ab") as log:
        started = start(
            [
                "node",
                str(directory),
                "--name",
                "node-4",
                "--coordinator",
                cluster.coordinator,
                "--reserve",
                "64MiB",
                "--listen",
                f"{host}:0",
                "--admin-listen",
                f"{host}:0",
                "--peer-listen",
                at,
                "--advertise",
                advertise,
                *map(str, files),
            ],
            {**os.environ, "S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET},
            log,
        )
    assert started.stdout is not None
    assert b" serves " in started.stdout.readline(), cluster.logs()
    return started


def end(process: subprocess.Popen[bytes] | Started) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert process.stdout is not None
    process.stdout.close()


def free_port(host: str) -> int:
    import socket

    with socket.socket() as held:
        held.bind((host, 0))
        return int(held.getsockname()[1])


def test_an_authority_is_replaced_and_a_node_added_while_a_cluster_runs(tmp_path: Path) -> None:
    cluster, started = DevCluster(tmp_path / "dev", nodes=3, erasure="2+1"), list[subprocess.Popen[bytes] | Started]()
    try:
        cluster.start().client("node-1").create_bucket(Bucket="bucket")
        for how in ("--replace-authority", "--renew", "--forget-authority"):
            step(cluster, how)
        assert admin(cluster, "certificates", str(cluster.directory / "trust"), "node-4").returncode == 0
        host = own_address()
        port = free_port(host)
        started.append(node_4(cluster, tmp_path / "node-4", f"127.0.0.99:{port}"))  # a typing error
        refused = admin(cluster, "add")
        assert refused.returncode == 1
        assert f"node-4 does not answer at 127.0.0.99:{port}" in refused.stderr
        assert [one["state"] for one in cluster.status()["stores"]] == ["serving"] * 3 + ["standby"]
        end(started.pop())
        started.append(node_4(cluster, tmp_path / "node-4", f"{host}:{port}"))
        added = admin(cluster, "add", "node-4")
        assert added.returncode == 0, added.stderr
        cluster.wait(lambda said: said["health"] == "ok" and said["stores"][3]["positions"] > 0, "node-4 has its share")
        keys = {one["Key"] for one in cluster.client("node-2").list_objects_v2(Bucket="bucket")["Contents"]}
        assert keys == {
            f"{how}/{name}" for how in ("--replace-authority", "--renew", "--forget-authority") for name in NODES
        }
    finally:
        for one in started:
            end(one)
        cluster.stop()

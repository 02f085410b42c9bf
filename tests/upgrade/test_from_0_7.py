"""Data that the program of 0.7 made is opened by today's: a server of one drive and of six, and a cluster that is
upgraded node by node under load. All that could be seen of it is seen again, what was begun goes on, and the
independent checker finds nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from access.where import KMS_KEYS
from checker import check, check_cluster
from cluster.dev import DevCluster
from cluster.etcd_process import needs_etcd
from faults.load import BUCKET, Load
from process import ServerProcess, make_client, wait_until
from raw import send
from s4.cluster import growing, shardmap
from s4.metadata.small import OLDEST
from s4.storage.directory import keeps_out
from server.test_drives import whole
from tiers import SOAK
from upgrade import old
from upgrade.corpus import Corpus, compare

GRACE_S = 60.0  # that a node has to end, before it is killed

pytestmark = [pytest.mark.skipif(bool(old.missing()), reason=old.missing()), pytest.mark.timeout(1800)]


def kms(directory: Path) -> str:
    path = directory / "kms"
    path.write_text("".join(f"{name}:{key}\n" for name, key in KMS_KEYS.items()))
    return str(path)


def is_old(admin: str) -> bool:
    """Whether the program of 0.7 answers there: the later one tells of its background work."""
    return "s4_job_runs" not in send(admin, "GET", "/metrics", {}).body.decode()


@pytest.mark.parametrize("drives", [1, pytest.param(6, marks=pytest.mark.soak)])
def test_a_server_opens_what_0_7_left(tmp_path: Path, drives: int) -> None:
    before = {"PYTHONPATH": str(old.program(tmp_path / "old"))}
    server = ServerProcess(
        tmp_path / "data",
        "--reserve",
        "64MiB",
        "--kms",
        kms(tmp_path),
        "--bare-keys",
        "on",
        drives=drives,
        environment=before,
    )
    try:
        server.start()
        corpus = Corpus(server)
        corpus.fill()
        seen = corpus.seen()
        assert is_old(server.admin)
        (server.kill if drives == 1 else server.stop)()
        del server.environment["PYTHONPATH"]
        server.start()
        assert not is_old(server.admin)
        compare(seen, corpus.seen())
        corpus.goes_on()
        wait_until(lambda: whole(server), "all is whole")
        server.ask("POST", "/audit", "age_s=-5")
        server.settle()
        assert server.stop() == 0
    finally:
        if server.process is not None:
            server.kill()
    assert check(server.directories) == []


def test_0_7_refuses_a_server_whose_drives_were_changed(tmp_path: Path) -> None:
    """Its map of drives opens, and grows; what that comes to it refuses in words."""
    made = (
        "from s4.cluster import shardmap; import sys; "
        "sys.stdout.buffer.write(shardmap.encode(shardmap.spread('c' * 32, list('abcdef'), 4, 2, 16)))"
    )
    read = "from s4.cluster import shardmap; import sys; shardmap.decode(sys.stdin.buffer.read())"
    environment = {**os.environ, "PYTHONPATH": str(old.program(tmp_path))}

    def of_0_7(text: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", text], env=environment, input=given, capture_output=True, check=False
        )

    before = shardmap.decode(of_0_7(made).stdout)
    assert of_0_7(read, shardmap.encode(before)).returncode == 0, "as long as nothing was changed"
    after = growing.seated(growing.located(before, [f"/d{number}" for number in range(6)]), "g", "/d6")
    assert growing.planned(after, {}, after.order).order == list("abcdefg")
    said = of_0_7(read, shardmap.encode(after)).stderr.decode()
    assert "the shard map has format 2; this S4 knows 1" in said


@pytest.mark.parametrize("what", ["row", "large"])
def test_0_7_goes_back_to_its_data_and_refuses_what_it_would_misread(tmp_path: Path, what: str) -> None:
    """It looks at a store's format alone: 1 while all that is written there is read rightly by it, 2 from then on, as from
    the first large record, or where rows have content (--small)."""
    server = ServerProcess(tmp_path / "data", "--reserve", "64MiB", environment={"S4_SMALL": "0"}).start()
    client = make_client(server.endpoint)
    client.create_bucket(Bucket="back")
    client.put_object(Bucket="back", Key="k", Body=b"x" * 10_000)
    assert server.stop() == 0
    server.environment["PYTHONPATH"] = str(old.program(tmp_path / "old"))
    server.start()
    assert is_old(server.admin)
    assert client.get_object(Bucket="back", Key="k")["Body"].read() == b"x" * 10_000
    client.close()
    assert server.stop() == 0
    of_0_7 = server.environment.pop("PYTHONPATH")
    if what == "row":
        del server.environment["S4_SMALL"]
    client = make_client(server.start().endpoint)
    size = 8192 if what == "row" else 200_000  # in its blob's row, or in an aligned record: 0.7 cannot read either
    client.put_object(Bucket="back", Key=what, Body=b"y" * size)
    client.close()
    assert server.stop() == 0
    server.environment["PYTHONPATH"] = of_0_7
    with pytest.raises(AssertionError, match=r"has format 2; this S4 knows 1\. Run a newer S4"):
        server.start()
    server.kill()


class Gateways:
    """What Corpus asks: another node for each client."""

    def __init__(self, cluster: DevCluster) -> None:
        self._cluster, self._asked = cluster, 0

    @property
    def endpoint(self) -> str:
        self._asked += 1
        names = list(self._cluster.lines)
        return str(self._cluster.lines[names[self._asked % len(names)]]["s3"])


def stop(cluster: DevCluster, node: str) -> None:
    """As Kubernetes and systemd do: told to end, and killed after a while. A node of 0.7 may wait for ever for something of
    its own under load."""
    stopping = threading.Thread(target=cluster.act, args=("stop", node))
    stopping.start()
    stopping.join(GRACE_S)
    if stopping.is_alive():
        cluster.signal(node, signal.SIGKILL)
    stopping.join()


def marked(cluster: DevCluster, node: str) -> bool:
    """Whether a node's store keeps older programs out."""
    return keeps_out(cluster.directory / node, OLDEST)


def safe(cluster: DevCluster, node: str) -> bool:
    return bool(cluster.ask("GET", "/cluster/safe-to-stop", query=f"store={node}")["safe"])


@needs_etcd
def test_a_cluster_is_upgraded_node_by_node_under_load(tmp_path: Path) -> None:
    """Three nodes; six, 4+2, in the soak."""
    nodes, erasure, partitions = (6, "4+2", 8) if SOAK else (3, "2+1", 4)
    names = [f"node-{number + 1}" for number in range(nodes)]
    still = tmp_path / "still"
    still.write_text(" ".join(["dev", *names]))
    environment = {
        "S4_DEV_FORK": "off",
        "S4_OLD_NODES": str(still),
        "S4_OLD_PROGRAM": str(old.program(tmp_path / "old")),
        "S4_KMS": kms(tmp_path),
        "S4_BARE_KEYS": "on",
        "S4_SMALL": "16KiB",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "choosing"), os.environ.get("PYTHONPATH", "")]),
    }
    cluster = DevCluster(tmp_path / "dev", nodes=nodes, erasure=erasure, partitions=partitions, environment=environment)
    try:
        cluster.start()
        corpus = Corpus(Gateways(cluster))
        corpus.fill()
        seen = corpus.seen()
        cluster.client("node-1").create_bucket(Bucket=BUCKET)
        with Load([cluster.client(name) for name in names], threads=2) as load:
            load.wait_for(20)
            for upgraded, name in enumerate(names, 1):
                if upgraded > 1:  # a node of 0.7 takes no admin calls as they are signed today
                    wait_until(partial(safe, cluster, name), f"{name} may be stopped")
                stop(cluster, name)
                still.write_text(" ".join(["dev", *names[upgraded:]]))
                cluster.act("start", name)
                load.wait_for(20)
                cluster.wait_whole()
                assert [is_old(cluster.lines[one]["admin"]) for one in names] == [False] * upgraded + [True] * (
                    nodes - upgraded
                )
                if upgraded < nodes:  # rows have no content while anybody could not read them
                    assert not any(marked(cluster, one) for one in names)
                if upgraded in (1, nodes):  # both kinds of node serve; then all are today's
                    compare(seen, corpus.seen())
            wait_until(lambda: all(marked(cluster, one) for one in names), "all know that rows may have content")
            load.wait_for(20)
        load.read_back()
        load.listed()
        assert not load.wrong, load.wrong[:5]
        corpus.goes_on()
        current, stores = cluster.at_rest()
    finally:
        cluster.stop()
    assert check_cluster(current, stores) == []

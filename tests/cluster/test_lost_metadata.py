"""Somebody removes a node's metadata for a fresh start, and its store stays who it is: nothing is lost, and it is
filled again (M4)."""

from __future__ import annotations

import shutil
import signal

import pytest

from cluster.dev import DevCluster, cluster_of
from cluster.etcd_process import needs_etcd

NODES = ("node-1", "node-2", "node-3")
KEYS = [f"key-{number}" for number in range(40)]


cluster = cluster_of(nodes=3, erasure="2+1", partitions=8)


@pytest.mark.timeout(300)
@needs_etcd
def test_a_node_whose_metadata_was_removed_is_filled_from_the_others(cluster: DevCluster) -> None:
    s3 = cluster.client("node-2")
    s3.create_bucket(Bucket="bucket")
    for key in KEYS:
        s3.put_object(Bucket="bucket", Key=key, Body=key.encode() * 1000)
    cluster.wait_whole()
    for node in NODES:  # at once, so that nobody goes on without anybody: the map counts on all three
        cluster.signal(node, signal.SIGKILL)
    for node in NODES:
        cluster.act("kill", node)
    shutil.rmtree(cluster.directory / "node-1" / "meta")
    for node in NODES:
        cluster.act("start", node)
    cluster.wait_whole()
    log = (cluster.directory / "node-1.log").read_text()
    assert "the copy of the metadata that the map counts on here is empty" in log
    for node in NODES:
        client = cluster.client(node)
        assert [one["Key"] for one in client.list_objects_v2(Bucket="bucket")["Contents"]] == sorted(KEYS)
        for key in KEYS:
            assert client.get_object(Bucket="bucket", Key=key)["Body"].read() == key.encode() * 1000

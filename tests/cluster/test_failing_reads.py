"""A real cluster of which one node's disk reads no shard any more: strace makes every read of its volumes fail, for
good."""

from __future__ import annotations

import random

import pytest

from cluster.dev import DevCluster, cluster_of
from cluster.etcd_process import needs_etcd
from process import injected, needs_strace

pytestmark = [
    needs_etcd,
    needs_strace,
    pytest.mark.timeout(600),
]


cluster = cluster_of(nodes=4, erasure="2+1", partitions=4)


def test_a_node_that_cannot_read_its_shards_is_done_without_and_healed(cluster: DevCluster) -> None:
    """Every GET is answered through every node; a scrub comes to its end past all of them, and what it found is made
    again once the disk can be read."""
    client = cluster.client("node-1")
    client.create_bucket(Bucket="bucket")
    kept = {
        f"k{number}": random.Random(number).randbytes(150_000) for number in range(90)
    }  # some 65 shards there: more than FAILING places
    for key, body in kept.items():
        client.put_object(Bucket="bucket", Key=key, Body=body)
    cluster.wait_whole()
    volumes = [
        option for path in (cluster.directory / "node-2" / "volumes").glob("*.vol") for option in ("-P", str(path))
    ]
    with injected(cluster.lines["node-2"]["pid"], "preadv,preadv2,pread64", "error=EIO", *volumes):
        for name in cluster.lines:
            reader = cluster.client(name)
            for key, body in kept.items():
                assert reader.get_object(Bucket="bucket", Key=key)["Body"].read() == body
        found = cluster.ask("POST", "/scrub", node="node-2")
        assert found["damaged"] > 10
        assert not found["running"]
        client.put_object(Bucket="bucket", Key="after", Body=b"x" * 200_000)
    told = "fails to read many places"  # by the node itself, where it is heard
    cluster.wait(lambda said: any(told in reason for reason in said["reasons"]), "people are told")
    cluster.wait(lambda said: said["heals"] == 0, "what was found is made again")
    assert cluster.ask("POST", "/scrub", node="node-2")["damaged"] == 0
    deep = [cluster.ask("POST", "/scrub", query="deep=1", node=f"node-{number}") for number in range(1, 5)]
    assert sum(one["contents"]["blobs"] for one in deep) >= len(kept), "each blob by who leads its partition"
    assert not any(one["unhealable"] for one in deep)
    for key, body in kept.items():
        assert cluster.client("node-2").get_object(Bucket="bucket", Key=key)["Body"].read() == body
    assert cluster.alive("node-2")

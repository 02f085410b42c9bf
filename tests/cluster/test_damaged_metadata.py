"""A real cluster of which one node's metadata are damaged on disk: found by a scrub, filled again, nothing lost."""

from __future__ import annotations

import random

import pytest

from cluster.dev import DevCluster, cluster_of
from cluster.etcd_process import needs_etcd
from process import wait_until

pytestmark = [needs_etcd, pytest.mark.timeout(600)]


cluster = cluster_of(nodes=4, erasure="2+1", partitions=4)


def test_a_node_whose_metadata_are_damaged_gets_them_again(cluster: DevCluster) -> None:
    client = cluster.client("node-1")
    client.create_bucket(Bucket="bucket")
    kept = {f"k{number}": random.Random(number).randbytes(2500) for number in range(200)}
    for key, body in kept.items():
        client.put_object(Bucket="bucket", Key=key, Body=body)
    cluster.wait_whole()
    cluster.act("kill", "node-2")
    cluster.act("start", "node-2")  # LevelDB makes a table of its log
    cluster.wait_whole()
    cluster.act("kill", "node-2")
    meta = cluster.directory / "node-2" / "meta"
    flipped = 0
    for table in meta.glob("*.ldb"):
        raw = bytearray(table.read_bytes())
        for body in list(kept.values())[40:60]:
            at = raw.find(body[:1000])
            if at >= 0:
                raw[at + 500] ^= 1
                flipped += 1
        table.write_bytes(raw)
    assert flipped
    cluster.act("start", "node-2")
    cluster.wait_whole()
    cluster.ask("POST", "/scrub", node="node-2")
    log = cluster.directory / "node-2.log"
    wait_until(lambda: "they are filled again by the other copies" in log.read_text(), "the copy is made again", 60)
    cluster.wait_whole()
    for node in ("node-1", "node-3"):  # what node-2 has now is really there
        cluster.act("kill", node)
        cluster.act("start", node)
        cluster.wait_whole()
    cluster.ask("POST", "/scrub", node="node-2")
    assert log.read_text().count("they are filled again") == 1
    for key, body in kept.items():
        assert cluster.client("node-2").get_object(Bucket="bucket", Key=key)["Body"].read() == body

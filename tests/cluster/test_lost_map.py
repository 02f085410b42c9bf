"""The map of a real cluster is lost, and made again of what its stores hold: every object is read back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cluster.dev import DevCluster, cluster_of
from cluster.etcd_process import needs_etcd
from process import wait_until
from s4.cli.admin_client import AdminError
from s4.cluster import clustermap, planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.coordinator import ConflictError
from s4.cluster.keeper import DOCUMENT
from s4.node import held
from s4.server.cluster import open_coordinator

OBJECTS = {f"key-{number}": f"{number}".encode() * (3 if number % 2 else 30_000) for number in range(30)}


cluster = cluster_of(nodes=4, erasure="2+1", partitions=8)


def put(cluster: DevCluster, made: Callable[[ClusterMap], ClusterMap]) -> ClusterMap:
    """Another map is in the place of the newest, which is given back."""

    async def replace() -> ClusterMap:
        opened = open_coordinator(cluster.coordinator)
        try:
            while True:
                value, revision = await opened.read(DOCUMENT)
                old = clustermap.decode(value)
                try:
                    await opened.replace(DOCUMENT, clustermap.encode(made(old)), revision)
                except ConflictError:
                    continue
                return old
        finally:
            await opened.close()

    return asyncio.run(replace())


def begun(old: ClusterMap) -> ClusterMap:
    return planner.new(old.cluster, old.data, old.parity, old.count)


def recovered(cluster: DevCluster) -> None:
    """Made again, and every object is read back."""
    wait_until(lambda: len(cluster.map().stores) == 4, "every node started again, and stands by")
    with pytest.raises(AdminError, match="hold data of a map that was lost"):
        list(cluster.admin("node-1").call("POST", "/cluster/add", {"stores": []}))
    cluster.ask("POST", "/cluster/recover", {"stores": []}, node="node-1")
    cluster.wait_whole()
    for key, body in OBJECTS.items():
        assert cluster.client("node-3").get_object(Bucket="bucket", Key=key)["Body"].read() == body


@pytest.mark.timeout(300)
@needs_etcd
def test_every_object_is_read_back_after_the_map_was_lost_or_is_yesterdays(cluster: DevCluster) -> None:
    """Of one cluster, for its start and end cost most of this."""
    s3 = cluster.client("node-2")
    s3.create_bucket(Bucket="bucket")
    for key, body in OBJECTS.items():
        s3.put_object(Bucket="bucket", Key=key, Body=body)
    cluster.wait_whole()
    kept = [cluster.directory / name / held.NAME for name in cluster.lines if name.startswith("node")]
    wait_until(
        lambda: all(held.read(path) == clustermap.encode(cluster.map()) for path in kept), "every store has a copy"
    )
    old = put(cluster, begun)
    recovered(cluster)
    said = "".join(path.read_text() for path in cluster.directory.glob("*.log"))
    assert "the cluster's map was lost, and another one was begun" in said
    assert "in doubt" not in said, "nothing was"
    yesterday = cluster.map()
    assert [one.config.members for one in yesterday.partitions] == [one.config.members for one in old.partitions]
    with pytest.raises(AdminError, match="nothing is lost"):
        list(cluster.admin("node-1").call("POST", "/cluster/recover", {"stores": []}))
    for node in cluster.lines:
        cluster.act("kill", node)
        cluster.act("start", node)  # each takes a new epoch where it leads
    cluster.wait_whole()
    put(cluster, lambda _: yesterday)
    for node in cluster.lines:
        cluster.act("kill", node)
        cluster.act("start", node)
    said = cluster.wait(lambda said: any("this replica has been at" in one for one in said["reasons"]), "R7")
    assert said["health"] == "down", "and a status says so while nobody serves partition 0"
    put(cluster, begun)
    recovered(cluster)

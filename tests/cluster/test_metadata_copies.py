"""How many copies of its metadata a partition has: by the rule, or as many as people ask for; and what a strict cluster
makes of those that are away.

It starts a cluster: what joins, leaves and refuses are its nodes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from cluster.dev import DevCluster
from cluster.etcd_process import needs_etcd
from process import wait_until
from s4.cli.admin_client import AdminError

pytestmark = needs_etcd

STRICT = {"S4_STRICT": "on"}


def least_in_sync(cluster: DevCluster) -> int:
    return min(len(one.config.in_sync) for one in cluster.map().partitions)


def most_in_sync(cluster: DevCluster) -> int:
    return max(len(one.config.in_sync) for one in cluster.map().partitions)


def written(cluster: DevCluster, node: str, key: str) -> bool:
    """Whether a small object, which is in its row alone, was taken; it was refused in words where not."""
    try:
        cluster.client(node).put_object(Bucket="bucket", Key=key, Body=b"small")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ServiceUnavailable", error
        return False
    return True


def test_copies_come_and_go_and_strict_asks_for_one_more_than_may_be_lost(tmp_path: Path) -> None:
    """2+2 has three copies by the rule, and strict takes no write with two. Of four one may be away."""
    cluster = DevCluster(tmp_path / "dev", nodes=4, erasure="2+2", partitions=4, environment=STRICT)
    try:
        cluster.start()
        cluster.client("node-1").create_bucket(Bucket="bucket")
        assert written(cluster, "node-1", "before")
        assert most_in_sync(cluster) == 3
        for copies in (2, 5):
            with pytest.raises(AdminError, match=f"{copies} copies of the metadata: 2\\+2 has 3 at least.*at most 4"):
                list(cluster.admin("node-1").call("POST", "/cluster/copies", {"copies": copies}))
        cluster.ask("POST", "/cluster/copies", {"copies": 4})
        wait_until(lambda: least_in_sync(cluster) == 4, "every partition has four copies")
        assert cluster.wait_whole()["copies"] == 4
        assert cluster.map().copies == 4

        cluster.act("kill", "node-4")  # three of four are left, which is m+1
        wait_until(lambda: most_in_sync(cluster) == 3, "they go on without it")
        assert all(written(cluster, "node-1", f"three-{number}") for number in range(8))
        cluster.act("kill", "node-3")  # and two are less, though each commit would be on both
        wait_until(lambda: most_in_sync(cluster) == 2, "they go on without it")
        assert not any(written(cluster, "node-1", f"two-{number}") for number in range(8))
        assert cluster.client("node-2").get_object(Bucket="bucket", Key="three-0")["Body"].read() == b"small"
        for node in ("node-3", "node-4"):
            cluster.act("start", node)
        cluster.wait_whole()
        assert written(cluster, "node-3", "after")

        cluster.ask("POST", "/cluster/copies", {"copies": 0})
        wait_until(lambda: (least_in_sync(cluster), most_in_sync(cluster)) == (3, 3), "they are three again")
        assert cluster.wait_whole()["copies"] == 3
        assert cluster.client("node-4").get_object(Bucket="bucket", Key="before")["Body"].read() == b"small"
    finally:
        cluster.stop()

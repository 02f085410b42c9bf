"""Content that is shared across nodes, with a node dying at each step of writing, referring, dropping and freeing it.

At the end an independent checker walks the rows and volumes of all nodes: nothing dangles, and nothing is left over.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import tiers
from checker import check_cluster
from cluster.dev import DevCluster
from cluster.etcd_process import needs_etcd
from process import wait_until

pytestmark = needs_etcd

STEPS = [
    f"{when}:{what}"
    for what in (
        "append",
        "take-shard",
        "TakeReferences",
        "decide-TakeReferences",
        "PutObject",
        "decide-PutObject",
        "outbox-PublishContent",
        "decide-PublishContent",
        "DeleteObject",
        "decide-DeleteObject",
        "outbox-DropReferences",
        "decide-DropReferences",
        "outbox-UnpublishContent",
        "discard",
    )
    for when in ("before", "after")
]

PARTS = 2  # clusters that share the steps


class Work:
    """Puts, copies and deletes of a few contents under a few keys, through all nodes. What a failed call left is
    unknown."""

    def __init__(self, cluster: DevCluster) -> None:
        self.cluster, self.random = cluster, random.Random(1)
        self.contents = [self.random.randbytes(size) for size in (5000, 20_000, 70_000, 300_000)]
        self.may: dict[str, set[bytes | None]] = {}

    def one(self) -> None:
        key, node = f"k{self.random.randrange(12)}", self.random.choice(list(self.cluster.lines))
        body, client = self.random.choice(self.contents), self.cluster.client(node)
        if self.random.random() < 0.7:
            self.call(key, body, lambda: client.put_object(Bucket="bucket", Key=key, Body=body))
        else:
            self.call(key, None, lambda: client.delete_object(Bucket="bucket", Key=key))

    def call(self, key: str, wanted: bytes | None, call: Any) -> None:
        try:
            call()
        except (BotoCoreError, ClientError, OSError):
            self.may.setdefault(key, {None}).add(wanted)
        else:
            self.may[key] = {wanted}

    def check(self) -> None:
        for key, may in self.may.items():
            try:
                got = self.cluster.client("node-1").get_object(Bucket="bucket", Key=key)["Body"].read()
            except ClientError as error:
                assert error.response["Error"]["Code"] == "NoSuchKey"
                got = None
            assert got in may, key


@pytest.mark.parametrize("part", range(PARTS))
def test_a_node_dies_at_each_step(tmp_path: Path, part: int) -> None:
    """`make test` takes every second step, before and after in turn; `make soak` all of them."""
    crash = tmp_path / "crash"
    environment = {
        "S4_CRASH_FILE": str(crash),
        "PYTHONPATH": str(Path(__file__).parent / "crashing"),
        "S4_LIMIT_GHOST_S": "5",
    }
    cluster = DevCluster(tmp_path / "dev", nodes=4, erasure="2+2", environment=environment)
    chosen = STEPS if tiers.SOAK else [step for number, step in enumerate(STEPS) if number % 4 in (0, 3)]
    try:
        cluster.start()
        cluster.client("node-1").create_bucket(Bucket="bucket")
        work = Work(cluster)
        for step in chosen[part::PARTS]:
            crash.write_text(step)
            done = 0
            while crash.exists():
                done += 1
                assert done < 3000, f"nobody came to {step}"
                work.one()
            died = wait_until(lambda: [one for one in cluster.lines if not cluster.alive(one)], f"a node died {step}")
            for node in died:
                cluster.act("start", node)
            cluster.wait_whole()
        work.check()
        current, stores = cluster.at_rest()
    finally:
        cluster.stop()
    assert check_cluster(current, stores) == []

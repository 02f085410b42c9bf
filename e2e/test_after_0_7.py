"""S4_E2E_VARIANT=upgrade: a cluster that the chart and the image of 0.7 made, with its Buckets, keys and certificates,
was upgraded in place under load (conftest.py) before any of the other tests, which then run on it."""

from __future__ import annotations

import json

import pytest
from apps import bucket, bucket_ready, load_lost_nothing
from world import IMAGE, VARIANT, World

pytestmark = [
    pytest.mark.decides,
    pytest.mark.skipif(VARIANT != "upgrade", reason="S4_E2E_VARIANT=upgrade: begins with 0.7"),
]


def test_nothing_of_0_7_is_lost(world: World) -> None:
    """Its load began under 0.7, with the keys of a Bucket of 0.7, and went on through both upgrades."""
    assert {one["spec"]["containers"][0]["image"] for one in world.node_pods()} == {f"{IMAGE}:one"}
    load_lost_nothing(world, "before")
    world.kubectl("delete", "pod", "before", "-n", "app")


def test_its_buckets_are_used_on(world: World) -> None:
    """A setting that 0.7 did not have is taken, and what was there stays."""
    keys = world.get("secret", "before", "app")["data"]
    world.apply(bucket("before", clusterRef={"name": "demo", "namespace": "s4"}, tags={"made-by": "0.7"}))
    bucket_ready(world, "before")
    world.wait(
        "its tags are there",
        lambda: "made-by" in json.dumps(world.get("buckets.s4.dev", "before", "app")["status"]),
    )
    assert world.get("secret", "before", "app")["data"] == keys

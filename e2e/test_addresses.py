"""What S4_E2E_VARIANT varies: the cluster's addresses, IPv4, IPv6 or both, and its zones. All else is tested over it."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from apps import bucket, bucket_ready, ends_well, pod_spec, programs
from world import VARIANT, LocalNodes, Object, World

decides = pytest.mark.decides  # what `.ci/run` runs of this file; the marked tests need none of the others
FAMILIES = {"ipv6": {6}, "dual": {4, 6}}.get(VARIANT, {4})


def versions(addresses: list[str]) -> set[int]:
    return {ipaddress.ip_address(one).version for one in addresses}


def program(world: World, name: str, run: str, endpoint: str = "", host: str = "") -> None:
    """A pod that knows the Bucket `addresses`, where that is, and which host it is to be on."""
    spec = pod_spec("addresses", "program.py")
    container: Object = spec["containers"][0]
    container["command"] = ["python3", "-c", run]
    container["env"] = [{"name": "AWS_ENDPOINT_URL_S3", "value": endpoint}] if endpoint else []
    spec["nodeSelector"] = {"kubernetes.io/hostname": host} if host else {}
    ends_well(world, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "app"}, "spec": spec})


WRITES = "exec(open('/program/program.py').read())"
READS = "import boto3, os; boto3.client('s3').get_object(Bucket=os.environ['BUCKET_NAME'], Key='large')['Body'].read()"


@pytest.fixture(scope="module")
def known(world: World) -> Iterator[World]:
    """The cluster with the Bucket."""
    programs(world, "app")
    world.apply(bucket("addresses", deletionPolicy="Delete"))
    bucket_ready(world, "addresses")
    yield world
    world.kubectl("delete", "buckets.s4.dev/addresses", "-n", "app", "--timeout=300s")


@decides
def test_s3_is_reached_by_every_address_that_its_service_has(known: World) -> None:
    world = known
    for pod in world.node_pods():
        assert versions([one["ip"] for one in pod["status"]["podIPs"]]) == FAMILIES
    addresses = world.get("service", "demo", "s4")["spec"]["clusterIPs"]
    assert versions(addresses) == FAMILIES
    assert versions([world.get("pod", "demo-node-0", "s4")["status"]["hostIP"]]) <= FAMILIES
    for number, address in enumerate(addresses):
        host = f"[{address}]" if ":" in address else address
        program(world, f"address-{number}", WRITES, f"http://{host}:9000")
    program(world, "by-name", WRITES)


def zones(world: World) -> dict[str, str]:
    """The zone of each host."""
    listed = json.loads(world.kubectl("get", "nodes", "-o", "json"))["items"]
    return {one["metadata"]["name"]: one["metadata"]["labels"]["topology.kubernetes.io/zone"] for one in listed}


@decides
@pytest.mark.skipif(VARIANT != "zones", reason="every host is a zone by itself")
def test_a_zone_dies_and_everything_is_read(known: World, local: LocalNodes) -> None:
    """Two of its hosts at once: of no object are more shards there than may be lost."""
    world = known
    at = zones(world)
    assert Counter(at.values()) == dict.fromkeys(("zone1", "zone2", "zone3"), 2)
    hosts = {one["metadata"]["name"]: one["spec"]["nodeName"] for one in world.node_pods()}
    shards = world.get("shardmap", "demo", "s4")
    node = [at[hosts[one["node"]]] for one in shards["status"]["stores"]]
    for one in shards["status"]["partitions"]:
        assert max(Counter(node[store] for store in one["members"]).values()) <= 2
        assert len({node[store] for store in one["inSync"]}) == 3
    (operator,) = world.list("pods", "s4", "app.kubernetes.io/name=s4-operator")
    chosen = next(zone for zone in sorted(set(at.values())) if zone != at[operator["spec"]["nodeName"]])
    lost = [host for host, zone in at.items() if zone == chosen]
    alive = next(host for host in at if host not in lost)
    for host in lost:
        local.act("kill", host.removeprefix("node"))
    listed = ("get", "nodes", "--no-headers")
    world.wait("Kubernetes knows", lambda: world.kubectl(*listed).count("NotReady") == 2)  # and its Service of the pods
    program(world, "reads", READS, host=alive)
    for host in lost:
        local.act("start", host.removeprefix("node"))
    world.wait("the hosts are back", lambda: "NotReady" not in world.kubectl(*listed))
    world.whole(4)

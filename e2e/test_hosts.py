"""Hosts with two disks each, on a real Kubernetes under load: six of them with 4+2, a seventh that joins and leaves.
Each test begins where the one before it ended; a verified load runs from the first to the last but one."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from apps import begin_load, load_lost_nothing
from world import (
    IMAGE,
    STORAGE_CLASS,
    KubectlError,
    LocalNodes,
    Object,
    World,
    operator_dies,
    s4cluster,
    storage,
    volume,
)

NAME, CLASS, DISKS, NODES = "disks", "two-disks", (3, 4), 12
STORAGE = storage(CLASS, disksPerHost=2)
CLUSTER = s4cluster(
    NAME,
    {
        "nodes": NODES,
        "erasure": {"data": 4, "parity": 2},
        "allowedNamespaces": ["app"],
        "storage": STORAGE,
        "failure": {"replaceAfter": "60s"},
        "upgrade": {"unit": "host"},
    },
)


@pytest.fixture(scope="module")
def six(world: World, local: LocalNodes) -> World:
    """Six hosts with two free disks each, and the operator, alone."""
    world.install_operator()
    world.kubectl("delete", "s4clusters", "demo", "-n", "s4", "--ignore-not-found", "--timeout=300s")
    grows = {**STORAGE_CLASS, "metadata": {"name": CLASS}, "allowVolumeExpansion": True}
    world.apply(grows, *(one for host in range(1, 7) for one in disks(host)))
    return world


def disks(host: int, size: str = "10Gi") -> list[Object]:
    return [volume(host, number, storageClassName=CLASS, capacity={"storage": size}) for number in DISKS]


def whole(world: World, nodes: int = NODES) -> None:
    world.wait(f"{nodes} nodes are whole", lambda: world.is_whole(nodes, NAME))


def pods_by_host(world: World) -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = {}
    for pod in world.node_pods(NAME):
        found.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
    return found


def stores(world: World) -> dict[str, str]:
    return {one["name"]: one["store"] for one in world.cluster(NAME)["status"]["nodes"]}


def gone(world: World) -> set[str]:
    return {one["id"] for one in world.get("shardmap", NAME, "s4")["spec"]["stores"] if one["state"] == "gone"}


def victim(world: World) -> str:
    """A host without the load, to do something to."""
    load = world.get("pod", "load-disks", "app")["spec"]["nodeName"]
    return next(host for host in sorted(pods_by_host(world)) if host not in ("", load))


def test_six_hosts_of_two_disks_serve(six: World) -> None:
    started = time.monotonic()
    six.apply(CLUSTER)
    six.wait("Ready by a real write", lambda: six.condition("Ready", NAME).get("status") == "True")
    six.figures["seconds to Ready, six hosts x 2 disks, 4+2"] = time.monotonic() - started
    whole(six)
    assert sorted(len(one) for one in pods_by_host(six).values()) == [2] * 6
    assert six.condition("SurvivesHostLoss", NAME)["message"].startswith("4+2 on 6 hosts: 2 hosts may be lost at once")
    hosts = {pod["metadata"]["name"]: host for host, pods in pods_by_host(six).items() for pod in pods}
    shards = six.get("shardmap", NAME, "s4")
    at = [hosts[one["node"]] for one in shards["status"]["stores"]]
    for one in shards["status"]["partitions"]:
        assert len({at[store] for store in one["members"]}) == 6, "each shard on a host of its own"
        assert len({at[store] for store in one["inSync"]}) == 3
    begin_load(six, "load-disks", NAME)


def test_a_host_is_drained_with_both_of_its_pods(six: World) -> None:
    host = victim(six)
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in six.node_pods(NAME)}
    own = {pod["metadata"]["name"] for pod in pods_by_host(six)[host]}
    started = time.monotonic()
    selector = "--pod-selector=app.kubernetes.io/name=s4"
    six.kubectl("drain", host, "--ignore-daemonsets", "--delete-emptydir-data", selector, "--timeout=500s")
    six.figures["seconds for kubectl drain of a host with two"] = time.monotonic() - started
    assert six.condition("Ready", NAME)["status"] == "True"
    after = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in six.node_pods(NAME)}
    assert {name for name, uid in before.items() if after.get(name) != uid} == own
    six.kubectl("uncordon", host)
    whole(six)
    assert {pod["metadata"]["name"] for pod in pods_by_host(six)[host]} == own


def test_an_upgrade_takes_host_by_host(six: World) -> None:
    started = time.monotonic()
    six.patch({"image": f"{IMAGE}:two"}, NAME)
    six.wait(
        "every node runs the new version",
        lambda: {one["spec"]["containers"][0]["image"] for one in six.node_pods(NAME)} == {f"{IMAGE}:two"},
    )
    whole(six)
    six.figures["seconds for an upgrade of six hosts by host"] = time.monotonic() - started
    made = sorted((pod["metadata"]["creationTimestamp"], pod["spec"]["nodeName"]) for pod in six.node_pods(NAME))
    order = [host for _, host in made]
    assert all(order[place] == order[place + 1] for place in range(0, NODES, 2)), made


def test_a_broken_image_stops_at_the_first_host_and_rolls_back(six: World) -> None:
    with operator_dies(six):
        six.patch({"image": f"{IMAGE}:none"}, NAME)
        six.wait("the upgrade is blocked", lambda: six.condition("UpgradeBlocked", NAME).get("status") == "True")
        assert "ErrImageNeverPull" in six.condition("UpgradeBlocked", NAME)["message"]
        broken = [pod for pod in six.node_pods(NAME) if pod["spec"]["containers"][0]["image"] == f"{IMAGE}:none"]
        assert len({pod["spec"]["nodeName"] for pod in broken}) == 1
        assert six.condition("Ready", NAME)["status"] == "True"
        six.patch({"image": f"{IMAGE}:two"}, NAME)
        whole(six)
    assert {one["spec"]["containers"][0]["image"] for one in six.node_pods(NAME)} == {f"{IMAGE}:two"}


def claims(world: World) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in world.list("pvc", "s4", f"s4.dev/cluster={NAME}")}


def test_volumes_of_hosts_grow_one_at_a_time(six: World) -> None:
    """Nobody provides volumes here: the test gives each what its claim asks for, and only then the next one asks."""
    before = {pod["metadata"]["uid"] for pod in six.node_pods(NAME)}
    six.patch({"storage": {**STORAGE, "size": "12Gi"}}, NAME)
    for number in range(NODES):
        name = f"data-{NAME}-node-{number}"

        def asked() -> list[str]:
            wants = {name: one["spec"]["resources"]["requests"]["storage"] for name, one in claims(six).items()}
            return sorted(name for name, size in wants.items() if size == "12Gi")

        six.wait(f"{name} asks", lambda asked=asked, name=name: name in asked())
        assert len(asked()) == number + 1
        if number == 3:
            words = six.wait(
                "what did not grow is said",
                lambda name=name: next(
                    (one for one in [six.condition("VolumesSmaller", NAME)["message"]] if f"{name} has 10" in one), ""
                ),
            )
            assert f"data-{NAME}-node-2 " not in words
        size = {"capacity": {"storage": "12Gi"}}
        volume_name = claims(six)[name]["spec"]["volumeName"]
        six.kubectl("patch", "pv", volume_name, "--type=merge", "-p", json.dumps({"spec": size}))
        status = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": size}))
        six.kubectl("patch", "pvc", name, "-n", "s4", *status)
    six.wait("all have grown", lambda: six.condition("VolumesSmaller", NAME)["status"] == "False")
    whole(six)
    assert {pod["metadata"]["uid"] for pod in six.node_pods(NAME)} == before, "none was restarted"
    (template,) = six.get("statefulset", f"{NAME}-node", "s4")["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "12Gi"


def test_what_cannot_be_changed_is_refused(six: World) -> None:
    for spec, words in (
        ({"erasure": {"data": 3}}, "erasure cannot be changed"),
        ({"storage": {"disksPerHost": 5}}, "nodes must be a multiple of storage.disksPerHost"),
        ({"storage": {"size": "1Gi"}}, "storage.size may grow"),
    ):
        with pytest.raises(KubectlError, match=words):
            six.patch(spec, NAME)


def test_a_disk_dies_on_a_host_that_lives(six: World) -> None:
    """Another one is in its place, empty: a store of its own, which is filled, while the host's other one serves."""
    host, before, lost = victim(six), stores(six), gone(six)
    pod, other = sorted(pod["metadata"]["name"] for pod in pods_by_host(six)[host])
    claim = six.get("pvc", f"data-{pod}", "s4")
    started = time.monotonic()
    for part in Path(six.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"]).iterdir():
        shutil.rmtree(part)
    six.kubectl("delete", "pod", pod, "-n", "s4", "--grace-period=0", "--force")
    six.wait(
        "another store", lambda: gone(six) - lost == {before[pod]} and stores(six).get(pod) not in ("", before[pod])
    )
    whole(six)
    six.figures["seconds from a disk's death to whole again"] = time.monotonic() - started
    after = stores(six)
    assert {name for name in before if after[name] != before[name]} == {pod}
    assert {one["metadata"]["name"] for one in pods_by_host(six)[host]} == {pod, other}


def test_a_host_dies_with_both_of_its_disks(six: World, local: LocalNodes) -> None:
    """A seventh one has room for both."""
    local.act("start", 7)
    local.act("copy", 1, 7, *(f"{IMAGE}:{tag}" for tag in ("one", "two")))
    six.apply(*disks(7, "12Gi"))
    host, before, lost = victim(six), stores(six), gone(six)
    own = {pod["metadata"]["name"] for pod in pods_by_host(six)[host]}
    number = int(host.removeprefix("node"))
    started = time.monotonic()
    local.act("kill", number)
    local.act("wipe", number)
    six.wait("both stores are given up", lambda: gone(six) - lost == {before[name] for name in own})
    six.figures["seconds from a host's death to its two new stores"] = time.monotonic() - started
    whole(six)
    six.figures["seconds from a host's death to whole again, two disks"] = time.monotonic() - started
    assert {name for name in before if stores(six)[name] != before[name]} == own
    assert {pod["metadata"]["name"] for pod in pods_by_host(six)["node7"]} == own
    local.act("start", number)
    six.wait("the host is back", lambda: "NotReady" not in six.kubectl("get", "nodes", "--no-headers"))


def test_a_seventh_host_joins_while_an_upgrade_is_stuck(six: World) -> None:
    """Its pods would be made with the image that does not come up: who is added waits for nobody, and the image goes
    back."""
    six.recycle()
    six.patch({"image": f"{IMAGE}:none"}, NAME)
    six.wait("the upgrade is blocked", lambda: six.condition("UpgradeBlocked", NAME).get("status") == "True")
    started = time.monotonic()
    six.kubectl("scale", f"s4clusters/{NAME}", "-n", "s4", "--replicas=14")
    six.wait("both of its nodes serve", lambda: six.cluster(NAME)["status"]["nodesReady"] == "14/14")
    assert f"{IMAGE}:none was rolled back" in six.condition("UpgradeBlocked", NAME)["message"]
    assert {one["spec"]["containers"][0]["image"] for one in six.node_pods(NAME)} == {f"{IMAGE}:two"}
    six.patch({"image": f"{IMAGE}:two"}, NAME)
    whole(six, 14)
    six.figures["seconds until a seventh host has its share"] = time.monotonic() - started
    status = six.cluster(NAME)["status"]
    assert [one["ready"] for one in status["hosts"]] == ["2/2"] * 7
    assert all(one["positions"] > 0 for one in status["nodes"])
    refused = six.kubectl("scale", f"s4clusters/{NAME}", "-n", "s4", "--replicas=15", check=False)
    assert "nodes must be a multiple of storage.disksPerHost" in refused


def test_a_host_is_taken_out(six: World) -> None:
    """The one that came last: what it held is on the others before it goes."""
    started = time.monotonic()
    six.kubectl("scale", f"s4clusters/{NAME}", "-n", "s4", f"--replicas={NODES}")
    whole(six)
    six.figures["seconds until a host of two is taken out"] = time.monotonic() - started
    assert set(claims(six)) == {f"data-{NAME}-node-{number}" for number in range(NODES)}
    assert sorted(len(one) for one in pods_by_host(six).values()) == [2] * 6


def test_the_load_on_hosts_lost_nothing(six: World) -> None:
    load_lost_nothing(six, "load-disks")


def test_a_cluster_of_hosts_goes_once_nobody_uses_it(six: World) -> None:
    goes = ("delete", f"s4clusters/{NAME}", "-n", "s4", "--timeout=300s")
    with pytest.raises(KubectlError, match="is used by 1 Buckets"):
        six.kubectl(*goes)
    six.kubectl("delete", "buckets.s4.dev/load-disks", "-n", "app", "--timeout=300s")
    six.wait("nobody uses it", lambda: six.cluster(NAME)["status"]["buckets"] == 0)
    six.kubectl(*goes)
    six.wait("its pods are gone", lambda: not six.list("pods", "s4", f"s4.dev/cluster={NAME}"))
    six.wait("its claims are gone, as reclaim says", lambda: not claims(six))

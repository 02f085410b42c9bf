"""Volumes that move to another class on a real Kubernetes, under a verified load: six nodes, one disk of each class on
every host."""

from __future__ import annotations

import shutil
import time

import pytest
from apps import begin_load, load_lost_nothing
from world import STATE, STORAGE_CLASS, LocalNodes, Object, World, s4cluster, storage, volume

NAME, NODES = "classes", 6
DISKS = {"slow": 6, "fast": 7}
STORAGE = storage("slow")
CLUSTER = s4cluster(NAME, {"nodes": NODES, "allowedNamespaces": ["app"], "storage": STORAGE})


def disks(kind: str) -> list[Object]:
    return [volume(host, DISKS[kind], storageClassName=kind) for host in range(1, 7)]


@pytest.fixture(scope="module")
def slow(world: World, local: LocalNodes) -> World:
    """A cluster on the one class, with the other one there, and the operator, alone."""
    disk = shutil.disk_usage(STATE)
    assert disk.free > 0.16 * disk.total, f"S4 drains nobody onto volumes that are 85 % full, as {STATE} is: make room"
    world.install_operator()
    world.kubectl("delete", "s4clusters", "demo", "disks", "-n", "s4", "--ignore-not-found", "--timeout=300s")
    for kind in DISKS:
        world.apply({**STORAGE_CLASS, "metadata": {"name": kind}}, *disks(kind))
    world.apply(CLUSTER)
    world.wait("six nodes are whole", lambda: world.is_whole(NODES, NAME))
    return world


def classes(world: World) -> dict[str, str]:
    claims = world.list("pvc", "s4", f"s4.dev/cluster={NAME}")
    return {one["metadata"]["name"]: one["spec"]["storageClassName"] for one in claims}


def moved(world: World) -> int:
    return list(classes(world).values()).count("fast")


def test_volumes_move_to_another_class(slow: World) -> None:
    """One after the other, with the operator killed on the way, and nothing lost."""
    assert set(classes(slow).values()) == {"slow"}
    begin_load(slow, "load-classes", NAME)
    before = {one["metadata"]["name"]: one["metadata"]["uid"] for one in slow.node_pods(NAME)}
    refused = slow.kubectl(
        *("patch", "s4clusters", NAME, "-n", "s4", "--type=merge"),
        *("-p", '{"spec": {"storage": {"storageClassName": "fast"}}}'),
        check=False,
    )
    assert "with storage.migrate: true" in refused
    started = time.monotonic()
    slow.patch({"storage": {**STORAGE, "storageClassName": "fast", "size": "5Gi", "migrate": True}}, NAME)
    for number in (2, 4):
        slow.wait(f"{number} have moved", lambda number=number: moved(slow) >= number)
        assert slow.condition("Ready", NAME)["status"] == "True", slow.condition("Ready", NAME)
        assert "on class fast" in slow.condition("VolumesOtherClass", NAME)["message"]
        slow.kubectl(
            "delete", "pod", "-n", "s4", "-l", "app.kubernetes.io/name=s4-operator", "--grace-period=0", "--force"
        )
    slow.wait("all have moved", lambda: moved(slow) == NODES)
    slow.wait("six nodes are whole", lambda: slow.is_whole(NODES, NAME))
    slow.figures["seconds until six volumes have moved to another class"] = time.monotonic() - started
    assert slow.condition("VolumesOtherClass", NAME)["status"] == "False"
    after = {one["metadata"]["name"]: one["metadata"]["uid"] for one in slow.node_pods(NAME)}
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    told = [one["message"] for one in slow.list("events", "s4") if one["involvedObject"]["name"] == NAME]
    anew = sorted(one for one in told if "to be made anew on another class" in one)
    assert len(anew) == NODES, told
    load_lost_nothing(slow, "load-classes")

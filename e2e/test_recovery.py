"""docs/recovery.md on a real Kubernetes, step by step: each time every object is read back byte for byte.

An S4Cluster with a namespace and volumes of its own; each test begins where the one before it ended.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from apps import ends_well, pod_spec, programs
from world import STORAGE_CLASS, LocalNodes, Object, World, s4cluster, storage, volume

NAME, HOME, CLASS, DISK, NODES = "lost", "vault", "kept", 5, 4
PASSPHRASE = "a passphrase that nobody guesses"
CLUSTER = s4cluster(
    NAME, {"nodes": NODES, "storage": storage(CLASS, reclaim="Retain"), "failure": {"replaceAfter": "60s"}}, HOME
)


def disks() -> list[Object]:
    kept = {"storageClassName": CLASS, "persistentVolumeReclaimPolicy": "Retain"}
    return [volume(host, DISK, **kept) for host in range(1, 7)]


def namespace(world: World) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME, "labels": labels}})


def run(world: World, goal: str) -> None:
    """keeper.py, as the cluster's administrator."""
    programs(world, HOME)
    spec = pod_spec("unused", "keeper.py")
    secret = {"name": f"{NAME}-credentials"}
    keys = {"AWS_ACCESS_KEY_ID": "accessKey", "AWS_SECRET_ACCESS_KEY": "secretKey"}
    told = {"GOAL": goal, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": f"http://{NAME}.{HOME}.svc:9000"}
    environment: list[Object] = [{"name": name, "value": value} for name, value in told.items()]
    environment += [{"name": name, "valueFrom": {"secretKeyRef": {**secret, "key": key}}} for name, key in keys.items()]
    spec["containers"][0] |= {"envFrom": [], "env": environment}
    ends_well(world, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": goal, "namespace": HOME}, "spec": spec})


def ready(world: World, what: str) -> float:
    """Seconds until it serves again; it is whole some time after that."""
    started = time.monotonic()
    world.wait(what, lambda: serves_its_map(world))
    took = time.monotonic() - started
    world.wait(f"{NODES} nodes are whole", lambda: world.is_whole(NODES, NAME, HOME))
    return took


def serves_its_map(world: World) -> bool:
    planned = world.get("shardmap", NAME, HOME)["spec"].get("partitions")
    value = world.cluster(NAME, HOME)["status"]
    return (
        bool(planned)
        and world.condition("Ready", NAME, HOME).get("status") == "True"
        and value["phase"] != "Recovering"
    )


@pytest.fixture(scope="module")
def kept(world: World, local: LocalNodes) -> World:
    """A cluster that holds something."""
    world.install_operator()
    namespace(world)
    world.apply({**STORAGE_CLASS, "metadata": {"name": CLASS}, "reclaimPolicy": "Retain"}, *disks())
    world.apply(CLUSTER)
    world.wait("Ready by a real write", lambda: world.condition("Ready", NAME, HOME).get("status") == "True")
    run(world, "write")
    world.wait(f"{NODES} nodes are whole", lambda: world.is_whole(NODES, NAME, HOME))
    return world


def test_a_namespace_with_its_secrets_and_its_shardmap_is_deleted(kept: World) -> None:
    before = kept.get("shardmap", NAME, HOME)
    sealed = kept.kubectl(
        "exec",
        "-i",
        "-n",
        HOME,
        f"{NAME}-node-0",
        "--",
        "s4",
        "admin",
        "backup-keys",
        "--passphrase-file",
        "-",
        stdin=PASSPHRASE,
    )
    assert sealed.startswith("s4 keys 1\n")
    kept.kubectl("delete", "namespace", HOME, "--timeout=300s")

    def released() -> list[Object]:
        found = json.loads(kept.kubectl("get", "pv", "-o", "json"))["items"]
        return [one for one in found if one["spec"].get("claimRef", {}).get("namespace") == HOME]

    kept.wait("the volumes are there", lambda: [one["status"]["phase"] for one in released()] == ["Released"] * NODES)
    namespace(kept)
    words = ("deploy/s4-operator", "--", "s4", "admin", "restore-keys", "-", "--passphrase-file", "-")
    manifest = kept.kubectl("exec", "-i", "-n", "s4", *words, stdin=f"{PASSPHRASE}\n{sealed}")
    kept.kubectl("apply", "-f", "-", stdin=manifest)
    for one in released():
        unbound = '[{"op": "remove", "path": "/spec/claimRef/uid"}]'
        kept.kubectl("patch", "pv", one["metadata"]["name"], "--type=json", "-p", unbound)
    kept.apply(CLUSTER)
    kept.figures["seconds from an S4Cluster over old volumes to serving"] = ready(kept, "it serves what it had")
    after = kept.get("shardmap", NAME, HOME)
    assert after["spec"]["cluster"] == before["spec"]["cluster"]
    ids = [{one["id"] for one in found["spec"]["stores"]} for found in (before, after)]
    assert ids[0] == ids[1]
    run(kept, "read")


def test_a_shardmap_is_deleted(kept: World) -> None:
    kept.kubectl("delete", "shardmap", NAME, "-n", HOME)
    kept.figures["seconds from a ShardMap's deletion to serving"] = ready(kept, "the map is made again")
    run(kept, "read")


def test_a_shardmap_of_yesterday_is_put_in_place(kept: World) -> None:
    """What an etcd from a backup does to it: it has epochs that its replicas have left behind."""
    yesterday = kept.get("shardmap", NAME, HOME)
    kept.kubectl("delete", "pod", "-n", HOME, f"{NAME}-node-1", f"{NAME}-node-2")  # others lead meanwhile
    ready(kept, "pods are back")
    now = kept.get("shardmap", NAME, HOME)
    assert now["status"] != yesterday["status"]
    for part in ((), ("--subresource=status",)):
        kept.kubectl("scale", "deploy/s4-operator", "-n", "s4", "--replicas=0")
        version = kept.get("shardmap", NAME, HOME)["metadata"]["resourceVersion"]
        old = {**yesterday, "metadata": {**yesterday["metadata"], "resourceVersion": version}}
        kept.kubectl("replace", *part, "-f", "-", stdin=json.dumps(old))
    kept.kubectl("delete", "pod", "-n", HOME, "-l", f"s4.dev/cluster={NAME}")
    kept.kubectl("scale", "deploy/s4-operator", "-n", "s4", "--replicas=1")

    def refused() -> bool:
        look = ("sh", "-c", "s4 admin cluster status || true")  # which ends with 3: it is down
        return "this replica has been at" in kept.kubectl(
            "exec", "-n", HOME, f"{NAME}-node-0", "--", *look, check=False
        )

    kept.wait("replicas refuse an old map (R7)", refused)
    kept.kubectl("delete", "shardmap", NAME, "-n", HOME)
    kept.kubectl("delete", "pod", "-n", HOME, "-l", f"s4.dev/cluster={NAME}")
    kept.figures["seconds from the way out of an old map to serving"] = ready(kept, "the map is made again")
    run(kept, "read")


def test_a_disk_is_lost_together_with_the_map(kept: World) -> None:
    """The store that was on it must be given up by its id; what it held is made again on the disk that is there now."""
    pod = f"{NAME}-node-2"
    stores = kept.get("shardmap", NAME, HOME)["status"]["stores"]
    claim = kept.get("pvc", f"data-{pod}", HOME)
    folder = Path(kept.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    (lost,) = (one["id"] for one in stores if (folder / "store" / "s4.json").read_text().count(one["id"]))
    kept.kubectl("scale", "deploy/s4-operator", "-n", "s4", "--replicas=0")
    kept.kubectl("delete", "shardmap", NAME, "-n", HOME)
    for part in folder.iterdir():
        shutil.rmtree(part)
    kept.kubectl("delete", "pod", "-n", HOME, pod)
    kept.kubectl("scale", "deploy/s4-operator", "-n", "s4", "--replicas=1")
    said = kept.wait(
        "it is asked for by its id",
        lambda: (one := kept.condition("DataAtRisk", NAME, HOME)).get("status") == "True" and one["message"],
    )
    assert f"do not tell what they hold: {pod} (store {lost})" in said
    assert kept.cluster(NAME, HOME)["status"]["phase"] == "Recovering"
    kept.kubectl("annotate", "s4c", NAME, "-n", HOME, f"s4.dev/confirm-data-loss={lost}", "--overwrite")
    kept.figures["seconds from giving a store up to serving"] = ready(kept, "the map is made again without it")
    gone = [one["id"] for one in kept.get("shardmap", NAME, HOME)["spec"]["stores"] if one["state"] == "gone"]
    assert gone == [lost]
    run(kept, "read")

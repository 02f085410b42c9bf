"""S4 on a real Kubernetes under load, in the order in which people meet it. One cluster lives through all of it, and
before it through test_buckets.py.

From `test_load_begins` on a verified load runs: every acknowledged object is read back and compared at the end, and no
call may have failed that the SDK's own retries did not absorb.
"""

from __future__ import annotations

import json
import time

import pytest
from apps import bucket, bucket_ready, pod_spec, programs
from world import IMAGE, STATE, LocalNodes, World, operator_dies

decides = pytest.mark.decides  # what `.ci/run` runs of this file; the marked tests need none of the others


@decides
def test_load_begins(world: World) -> None:
    programs(world, "app")
    world.apply(bucket("load"))
    bucket_ready(world, "load")
    spec = pod_spec("load", "load.py")
    taken = {one["spec"]["nodeName"] for one in world.node_pods()}  # one of these hosts will lose its power
    host = next(name for name in (f"node{number}" for number in range(1, 7)) if name not in taken)
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "load", "namespace": "app"},
            "spec": {**spec, "nodeSelector": {"kubernetes.io/hostname": host}},
        }
    )
    world.certificate = certificate(world)
    world.wait("the load runs", lambda: "running" in world.kubectl("logs", "-n", "app", "load"))


def images(world: World) -> set[str]:
    return {one["spec"]["containers"][0]["image"] for one in world.node_pods()}


@decides
def test_rolling_upgrade_with_an_operator_that_dies(world: World) -> None:
    started = time.monotonic()
    with operator_dies(world):
        world.patch({"image": f"{IMAGE}:two"})
        world.wait(
            "every node runs the new version", lambda: images(world) == {f"{IMAGE}:two"} and len(world.node_pods()) == 4
        )
        world.whole(4)
    world.figures["seconds for a rolling upgrade of four nodes"] = time.monotonic() - started


def test_a_broken_image_stops_at_the_first_node_and_rolls_back(world: World) -> None:
    with operator_dies(world):
        world.patch({"image": f"{IMAGE}:none"})
        blocked = world.wait(
            "the upgrade is blocked",
            lambda: world.condition("UpgradeBlocked").get("status") == "True" and world.condition("UpgradeBlocked"),
        )
        assert f"{IMAGE}:none" in blocked["message"]
        assert "ErrImageNeverPull" in blocked["message"]
        assert len([one for one in world.node_pods() if one["spec"]["containers"][0]["image"] == f"{IMAGE}:none"]) == 1
        assert world.condition("Ready")["status"] == "True"
        world.patch({"image": f"{IMAGE}:two"})
        world.whole(4)
        assert images(world) == {f"{IMAGE}:two"}


def test_automatic_roll_back(world: World) -> None:
    with operator_dies(world):
        world.patch({"image": f"{IMAGE}:none", "upgrade": {"strategy": "Automatic"}})
        world.wait("it was rolled back", lambda: world.cluster()["status"].get("blockedImage") == f"{IMAGE}:none")
        world.wait(
            "every node serves",
            lambda: world.cluster()["status"]["nodesReady"] == "4/4" and images(world) == {f"{IMAGE}:two"},
        )
        assert "was rolled back" in world.condition("UpgradeBlocked")["message"]
        world.patch({"image": f"{IMAGE}:two", "upgrade": {"strategy": "Supervised"}})
        world.whole(4)


def host_of(world: World, pod: str) -> str:
    return str(world.get("pod", pod, "s4")["spec"]["nodeName"])


def test_kubectl_drain_and_back(world: World) -> None:
    with operator_dies(world):
        host = host_of(world, "demo-node-1")
        started = time.monotonic()
        world.kubectl(
            "drain",
            host,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--pod-selector=app.kubernetes.io/name=s4",
            "--timeout=300s",
        )
        world.figures["seconds for kubectl drain"] = time.monotonic() - started
        assert world.condition("Ready")["status"] == "True", world.condition("Ready")
        other = next(
            host_of(world, one["metadata"]["name"])
            for one in world.node_pods()
            if one["metadata"]["name"] == "demo-node-2"
        )
        world.wait(
            "no second pod may leave", lambda: world.get("pdb", "demo-node", "s4")["status"]["disruptionsAllowed"] == 0
        )
        world.kubectl("cordon", other)
        world.wait("that is said", lambda: world.condition("DrainBlocked").get("status") == "True")
        world.kubectl("uncordon", host)
        world.kubectl("uncordon", other)
        world.whole(4)
        assert world.condition("DrainBlocked")["status"] == "False"


@decides
def test_a_dead_host_with_its_disk_is_made_again_elsewhere(world: World, local: LocalNodes) -> None:
    host = host_of(world, "demo-node-2")
    before = {one["name"]: one["store"] for one in world.cluster()["status"]["nodes"]}
    number = int(host.removeprefix("node"))
    started = time.monotonic()
    local.act("kill", number)
    local.act("wipe", number)
    with operator_dies(world):
        world.wait(
            "another store",
            lambda: (
                {one["name"]: one["store"] for one in world.cluster()["status"]["nodes"]}.get("demo-node-2")
                not in ("", None, before["demo-node-2"])
            ),
        )
    world.figures["seconds from a host's death to a new store"] = time.monotonic() - started
    world.whole(4)
    world.figures["seconds from a host's death to whole again"] = time.monotonic() - started
    assert host_of(world, "demo-node-2") != host
    gone = [one for one in world.get("shardmap", "demo", "s4")["spec"]["stores"] if one["state"] == "gone"]
    assert [one["id"] for one in gone] == [before["demo-node-2"]]
    local.act("start", number)
    world.wait(
        "the host is back",
        lambda: (
            f"{host} " in world.kubectl("get", "nodes", "--no-headers")
            and "NotReady" not in world.kubectl("get", "nodes", "--no-headers")
        ),
    )


def test_scale_out_by_two_and_in_by_two(world: World) -> None:
    world.recycle()
    with operator_dies(world):
        started = time.monotonic()
        world.kubectl("scale", "s4clusters/demo", "-n", "s4", "--replicas=6")
        world.whole(6)
        world.figures["seconds to scale out by two"] = time.monotonic() - started
        assert all(one["positions"] > 0 for one in world.cluster()["status"]["nodes"])
        started = time.monotonic()
        world.kubectl("scale", "s4clusters/demo", "-n", "s4", "--replicas=4")
        world.whole(4)
        world.figures["seconds to scale in by two"] = time.monotonic() - started
    names = {one["metadata"]["name"] for one in world.list("pvc", "s4", "s4.dev/cluster=demo")}
    assert names == {f"data-demo-node-{number}" for number in range(4)}


def test_the_api_server_is_away_for_a_minute(world: World, local: LocalNodes) -> None:
    """Nobody is given up for it: kubelets may be late to speak again, while what they run serves."""
    before = {one["metadata"]["uid"] for one in world.node_pods()}
    world.audit += audited()
    local.act("stop-api")
    time.sleep(60)  # the minute of the test's name
    local.act("start-api")
    world.whole(4)
    assert {one["metadata"]["uid"] for one in world.node_pods()} == before


def test_the_administrators_secret_changes(world: World) -> None:
    def check(access: str, secret: str) -> str:
        return world.kubectl(
            "exec",
            "-n",
            "s4",
            "demo-node-0",
            "--",
            "env",
            "-u",
            "S4_ROOT_ACCESS_KEY",
            "-u",
            "S4_ROOT_SECRET_KEY",
            f"AWS_ACCESS_KEY_ID={access}",
            f"AWS_SECRET_ACCESS_KEY={secret}",
            "s4",
            "admin",
            "check",
            "--s3",
            "http://127.0.0.1:9000",
            check=False,
        )

    from base64 import b64decode

    other = f"another{time.time():.0f}"
    held = {
        name: b64decode(value).decode() for name, value in world.get("secret", "demo-credentials", "s4")["data"].items()
    }
    assert "ms" in check(held["accessKey"], held["secretKey"])
    world.kubectl(
        "patch",
        "secret",
        "demo-credentials",
        "-n",
        "s4",
        "-p",
        json.dumps({"stringData": {"accessKey": other, "secretKey": "another-secret"}}),
    )
    world.wait("the new keys work", lambda: "ms" in check(other, "another-secret"))
    world.wait("the old ones do not", lambda: "InvalidAccessKeyId" in check(held["accessKey"], held["secretKey"]))
    assert world.condition("Ready")["status"] == "True"


def test_certificates_were_rotated_while_serving(world: World) -> None:
    """They are good for four minutes, and the load has run for longer."""
    world.wait("another certificate", lambda: certificate(world) != world.certificate)
    world.whole(4)


def certificate(world: World) -> str:
    return str(world.get("secret", "demo-peers", "s4")["data"]["tls.crt"])


@decides
def test_load_lost_nothing(world: World) -> None:
    world.kubectl("exec", "-n", "app", "load", "--", "touch", "/tmp/stop")
    world.wait("the load ends", lambda: world.get("pod", "load", "app")["status"]["phase"] in ("Succeeded", "Failed"))
    said = json.loads(world.kubectl("logs", "-n", "app", "load").splitlines()[-1])
    print(f"\nload: {said['calls']} calls, {said['acknowledged']} objects read back, slowest {said['slowest_s']} s")
    world.figures["slowest call under all of it, seconds"] = said["slowest_s"]
    assert said["acknowledged"] > 100
    assert said["wrong"] == []
    assert said["failed"] == []


# -- the end

# Rules for what this cluster has not, or that only a person's change makes necessary.
UNUSED = (
    {("servicemonitors", verb) for verb in ("get", "create", "patch", "delete")}
    | {("prometheusrules", verb) for verb in ("get", "create", "patch", "delete")}
    | {("certificates", verb) for verb in ("create", "patch", "delete")}
    | {
        ("ingresses", "create"),
        ("ingresses", "patch"),
        ("ingresses", "delete"),
        ("configmaps", "delete"),
        ("s4clusters", "get"),
        ("persistentvolumeclaims", "patch"),  # volumes that grow
        ("statefulsets", "delete"),  # made anew around their pods, with what its claims are to be
    }
)


def audited() -> str:
    """What the API server that runs has written of the operator's requests."""
    return "".join(path.read_text() for path in sorted((STATE / "log").glob("audit*.json")))


def test_the_chart_gives_the_rights_that_the_operator_uses(world: World, local: LocalNodes) -> None:
    """seaweedfs-operator 231: nothing was denied, and nothing is given that is not used. From the API server's audit
    log."""
    world.patch({"gateway": {"replicas": 1}, "networkPolicy": {"enabled": False}})
    world.wait(
        "a gateway serves", lambda: world.get("deploy", "demo-gateway", "s4")["status"].get("readyReplicas") == 1
    )
    world.patch({"gateway": {"replicas": 0}, "networkPolicy": {"enabled": True}})
    world.wait(
        "it is gone", lambda: "NotFound" in world.kubectl("get", "deploy", "demo-gateway", "-n", "s4", check=False)
    )
    used, allowed, denied = set(), set(), {}
    for line in (world.audit + audited()).splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # it was being written when the server was stopped
        if event["user"]["username"] != "system:serviceaccount:s4:s4-operator" or "objectRef" not in event:
            continue
        reference = event["objectRef"]
        kind = reference["resource"] + (f"/{reference['subresource']}" if "subresource" in reference else "")
        if event["responseStatus"]["code"] == 403:
            denied[kind, event["verb"]] = event["responseStatus"].get("message")
        else:
            allowed.add((kind, event["verb"]))
        used.add((kind, event["verb"]))
    assert not {right: why for right, why in denied.items() if right not in allowed}, (
        "one that just started knows no roles yet"
    )
    rules = world.get("clusterrole", "s4-s4-operator")["rules"]
    given = {(kind, verb) for one in rules for kind in one.get("resources", ()) for verb in one["verbs"]}
    made = {(kind, "create") for kind, verb in used if verb == "patch"}  # what is applied may be new
    assert sorted(given - used - made - UNUSED) == []


def test_a_namespace_goes_while_the_operator_runs(world: World) -> None:
    """One of its Buckets keeps what it made, the other's is removed; nothing hangs on either."""
    world.patch({"allowedNamespaces": ["app", "going"]})
    world.kubectl("create", "namespace", "going")
    for name, policy in (("stays", "Retain"), ("goes", "Delete")):
        world.apply(bucket(f"e2e-{name}", "going", bucketName=f"e2e-going-{name}", deletionPolicy=policy))
        bucket_ready(world, f"e2e-{name}", "going")
    world.kubectl("delete", "namespace", "going", "--timeout=300s")


def test_a_namespace_goes_without_an_operator(world: World) -> None:
    world.kubectl("scale", "deploy/s4-operator", "-n", "s4", "--replicas=0")
    world.kubectl("delete", "namespace", "app", "--timeout=300s")
    world.kubectl("scale", "deploy/s4-operator", "-n", "s4", "--replicas=1")
    world.wait("the cluster knows that nobody uses it", lambda: world.cluster()["status"]["buckets"] == 0)


def test_a_cluster_goes_with_its_volumes_and_its_namespace(world: World) -> None:
    world.kubectl("delete", "s4clusters", "demo", "-n", "s4", "--timeout=300s")
    world.wait("its pods are gone", lambda: not world.list("pods", "s4", "s4.dev/cluster=demo"))
    world.wait("its claims are gone, as reclaim says", lambda: not world.list("pvc", "s4", "s4.dev/cluster=demo"))
    world.helm("uninstall", "s4", "-n", "s4", "--wait")
    assert "s4clusters.s4.dev" in world.kubectl("get", "crd", "-o", "name"), "CRDs stay"
    world.kubectl("delete", "namespace", "s4", "--timeout=300s")

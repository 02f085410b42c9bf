"""What applications in the cluster are made of: Buckets, and pods that run a program of this folder."""

from __future__ import annotations

import json
from typing import Any

from world import CLIENT, HANGS_S, ROOT, Object, World

RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Object = {"runAsNonRoot": True, "runAsUser": 10002, "seccompProfile": {"type": "RuntimeDefault"}}


def bucket(name: str, namespace: str = "app", **spec: Any) -> Object:
    reference = {"name": "demo", "namespace": "s4"}
    return {
        "apiVersion": "s4.dev/v1alpha1",
        "kind": "Bucket",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterRef": reference, **spec},
    }


def pod_spec(name: str, program: str) -> Object:
    """A pod that runs a program of e2e/, knowing only a Bucket's Secret and ConfigMap."""
    mounts = [{"name": "program", "mountPath": "/program"}, {"name": "tmp", "mountPath": "/tmp"}]
    container = {
        "name": "main",
        "image": CLIENT,
        "imagePullPolicy": "Never",
        "command": ["python3", "-u", f"/program/{program}"],
        "volumeMounts": mounts,
        "envFrom": [{"secretRef": {"name": name}}, {"configMapRef": {"name": name}}],
        "securityContext": RESTRICTED,
    }
    volumes = [{"name": "program", "configMap": {"name": "programs"}}, {"name": "tmp", "emptyDir": {}}]
    return {"restartPolicy": "Never", "securityContext": POD_SECURITY, "containers": [container], "volumes": volumes}


def programs(world: World, *namespaces: str) -> None:
    data = {
        name: (ROOT / "e2e" / name).read_text()
        for name in ("program.py", "load.py", "settings.py", "identity.py", "tenant.py", "caller.py", "keeper.py")
    }
    world.apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "programs", "namespace": namespace},
                "data": data,
            }
            for namespace in namespaces
        )
    )


def bucket_ready(world: World, name: str, namespace: str = "app") -> None:
    world.kubectl("wait", "--for=condition=Ready", f"buckets.s4.dev/{name}", "-n", namespace, "--timeout=300s")


def ends_well(world: World, pod: Object, hangs_s: float = HANGS_S) -> None:
    """Run a pod to its end, and take it away."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    world.apply(pod)
    phase = world.wait(
        "the program ends",
        lambda: next(
            (one for one in [world.get("pod", name, namespace)["status"]["phase"]] if one in ("Succeeded", "Failed")),
            "",
        ),
        hangs_s,
    )
    assert phase == "Succeeded", world.kubectl("logs", "-n", namespace, name)
    world.kubectl("delete", "pod", name, "-n", namespace)


def begin_load(world: World, name: str, cluster: str) -> None:
    """load.py on node1, with a Bucket of a cluster; both are called `name`."""
    programs(world, "app")
    world.apply(bucket(name, clusterRef={"name": cluster, "namespace": "s4"}))
    bucket_ready(world, name)
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "app"},
            "spec": {**pod_spec(name, "load.py"), "nodeSelector": {"kubernetes.io/hostname": "node1"}},
        }
    )
    world.wait("the load runs", lambda: "running" in world.kubectl("logs", "-n", "app", name))


def load_lost_nothing(world: World, name: str) -> None:
    """End it, and have everything read back that was acknowledged."""
    world.kubectl("exec", "-n", "app", name, "--", "touch", "/tmp/stop")
    world.wait("the load ends", lambda: world.get("pod", name, "app")["status"]["phase"] in ("Succeeded", "Failed"))
    said = json.loads(world.kubectl("logs", "-n", "app", name).splitlines()[-1])
    print(f"\nload: {said['calls']} calls, {said['acknowledged']} objects read back, slowest {said['slowest_s']} s")
    assert said["acknowledged"] > 100
    assert (said["wrong"], said["failed"]) == ([], []), said

"""What the tests of a real cluster use: kubectl, waiting, resources as dictionaries, and the provider of the
cluster."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("S4_E2E_CACHE", Path.home() / ".cache" / "s4-e2e"))
BIN = Path(os.environ.get("S4_E2E_BIN", CACHE / "bin"))
STATE = Path(os.environ.get("S4_E2E_STATE", "/var/lib/s4-e2e"))
VARIANT = os.environ.get("S4_E2E_VARIANT", "")  # e2e/cluster/addresses.py; upgrade: of a cluster that 0.7 made
BEFORE = "fef1eea"  # 0.7
CHART = ROOT / "charts/s4"
IMAGE = "localhost/s4"
CLIENT = "localhost/s4-e2e/client:1"
HANGS_S = 600.0
Object = dict[str, Any]


class KubectlError(Exception):
    """kubectl failed; its message says why."""


class World:
    """A Kubernetes cluster. `kubeconfig` is an administrator's."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.figures: dict[str, float] = {}
        self.audit = ""  # of API servers that were stopped
        self.certificate = ""  # of peers, when the load began

    def run(self, program: str, *words: object, stdin: str | None = None, check: bool = True) -> str:
        path = BIN / program
        done = subprocess.run(
            [str(path if path.exists() else program), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            input=stdin,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            timeout=600,
        )
        if check and done.returncode:
            raise KubectlError(f"{program} {' '.join(map(str, words))}: {done.stdout}{done.stderr}")
        return done.stdout if done.returncode == 0 else done.stderr

    def kubectl(self, *words: object, stdin: str | None = None, check: bool = True) -> str:
        return self.run("kubectl", *words, stdin=stdin, check=check)

    def helm(self, *words: object) -> str:
        return self.run("helm", *words)

    def apply(self, *values: Object) -> str:
        return self.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(values)})
        )

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        found: Object = json.loads(
            self.kubectl("get", kind, name, *(("-n", namespace) if namespace else ()), "-o", "json")
        )
        return found

    def list(self, kind: str, namespace: str, labels: str = "") -> list[Object]:
        found: list[Object] = json.loads(self.kubectl("get", kind, "-n", namespace, "-l", labels, "-o", "json"))[
            "items"
        ]
        return found

    def wait(self, what: str, check: Callable[[], Any], hangs_s: float = HANGS_S) -> Any:
        """What `check` gives once it is true. Errors of kubectl count as not yet. The limit is for what hangs."""
        until, last = time.monotonic() + hangs_s, ""
        while time.monotonic() < until:
            try:
                if found := check():
                    return found
            except (KubectlError, KeyError, IndexError) as error:
                last = str(error)
            time.sleep(0.5)  # between two looks at another machine
        raise AssertionError(f"{what}: not within {hangs_s:.0f} s {last}\n{self.diagnosis()}")

    def diagnosis(self) -> str:
        """What one would look at first."""
        looks = [
            ("get", "s4clusters,buckets.s4.dev,pods,pvc", "-A", "-o", "wide"),
            ("get", "s4clusters", "-A", "-o", "jsonpath={.items[*].status}"),
            ("logs", "-n", "s4", "deploy/s4-operator", "--tail=40"),
            ("get", "events", "-A", "--sort-by=.lastTimestamp"),
        ]
        return "\n".join(self.kubectl(*words, check=False)[-6000:] for words in looks)

    # -- S4

    def install_operator(self, chart: Path = CHART, tag: str = "one") -> None:
        """The chart, new or over what is there, and the namespaces of S4 and of applications."""
        for name in ("s4", "app"):
            self.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
                }
            )
        settings = (
            f"image.repository={IMAGE}",
            f"image.tag={tag}",
            "image.pullPolicy=Never",
            "certificates.validSeconds=240",
            "test.cluster=demo",
        )
        chosen = [word for one in settings for word in ("--set", one)]
        self.helm("upgrade", "--install", "s4", chart, "-n", "s4", "--wait", "--timeout", "3m", *chosen)

    def recycle(self) -> None:
        """Volumes that were released can be used again, as a provisioner would make new ones."""
        for one in json.loads(self.kubectl("get", "pv", "-o", "json"))["items"]:
            if one["status"]["phase"] == "Released":
                unclaimed = '[{"op": "remove", "path": "/spec/claimRef"}]'
                self.kubectl("patch", "pv", one["metadata"]["name"], "--type=json", "-p", unclaimed)

    def cluster(self, name: str = "demo", namespace: str = "s4") -> Object:
        return self.get("s4clusters", name, namespace)

    def condition(self, kind: str, name: str = "demo", namespace: str = "s4") -> Object:
        """A condition of an S4Cluster; {} while it has none."""
        found = self.cluster(name, namespace).get("status", {}).get("conditions", [])
        return next((one for one in found if one["type"] == kind), {})

    def is_whole(self, nodes: int, name: str = "demo", namespace: str = "s4") -> bool:
        """Whether everything asked for is there: as many nodes, nothing to do, no shard to be made again."""
        value = self.cluster(name, namespace)
        status = value.get("status", {})
        return (
            status.get("phase") == "Ready"
            and status["observedGeneration"] == value["metadata"]["generation"]
            and status["replicas"] == nodes
            and status["nodesReady"] == f"{nodes}/{nodes}"
            and not status["partitions"]["moving"]
            and not status["partitions"]["degraded"]
        )

    def whole(self, nodes: int) -> None:
        self.wait(f"{nodes} nodes are whole", lambda: self.is_whole(nodes))

    def patch(self, spec: Object, name: str = "demo", namespace: str = "s4", **metadata: Any) -> str:
        change: Object = {"spec": spec}
        if metadata:
            change["metadata"] = metadata
        return self.kubectl("patch", "s4clusters", name, "-n", namespace, "--type=merge", "-p", json.dumps(change))

    def node_pods(self, name: str = "demo", namespace: str = "s4") -> list[Object]:
        return self.list("pods", namespace, f"s4.dev/cluster={name},app.kubernetes.io/component=node")


@contextmanager
def operator_dies(world: World) -> Iterator[None]:
    """The operator's pod is killed at random moments after it began to work: on a busy machine its start alone takes
    longer than seconds given beforehand, and it would never come to anything."""
    ended = threading.Event()
    chosen = random.Random(5)

    def works() -> bool:
        pods = json.loads(
            world.kubectl(
                "get", "pods", "-n", "s4", "-l", "app.kubernetes.io/name=s4-operator", "-o", "json", check=False
            )
            or '{"items": []}'
        )
        told = [
            one
            for pod in pods["items"]
            if "deletionTimestamp" not in pod["metadata"]
            for one in pod["status"].get("conditions", ())
        ]
        return any((one["type"], one["status"]) == ("Ready", "True") for one in told)

    def work() -> None:
        while not ended.wait(1):
            if works() and not ended.wait(chosen.uniform(1, 15)):
                world.kubectl(
                    "delete",
                    "pod",
                    "-n",
                    "s4",
                    "-l",
                    "app.kubernetes.io/name=s4-operator",
                    "--grace-period=0",
                    "--force",
                    check=False,
                )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class LocalNodes:
    """Acts on the machines of the local cluster (e2e/cluster/local.py)."""

    def act(self, *words: object) -> None:
        done = subprocess.run(
            [sys.executable, str(ROOT / "e2e" / "cluster" / "local.py"), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def s4cluster(name: str, spec: Object, namespace: str = "s4") -> Object:
    """An S4Cluster of this program, 2+2 where its spec does not say otherwise."""
    usual: Object = {"image": f"{IMAGE}:one", "erasure": {"data": 2, "parity": 2}, "partitions": 16}
    return {
        "apiVersion": "s4.dev/v1alpha1",
        "kind": "S4Cluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**usual, "imagePullPolicy": "Never", **spec},
    }


def storage(storage_class: str, **more: object) -> Object:
    return {"storageClassName": storage_class, "size": "10Gi", "reserve": "100Mi", "reclaim": "Delete", **more}


def volume(node: int, number: int, **spec: object) -> Object:
    """A local volume on a disk of a node."""
    folder = STATE / f"node{node}/disks/{number}"
    folder.mkdir(parents=True, exist_ok=True)
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [f"node{node}"]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"node{node}-{number}"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "local",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            **spec,
        },
    }


STORAGE_CLASS: Object = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "local"},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}


def have(program: str) -> bool:
    return shutil.which(program) is not None

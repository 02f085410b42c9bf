"""The operator at rest: its memory, and its requests to the Kubernetes API, with many resources on a bare etcd and
kube-apiserver. Run: `python -m bench.operator [--clusters 50] [--buckets 1000]`; needs `make e2e-programs`.

There are no nodes, so a stub answers for the daemons: one process on many loopback addresses, which says that all is
well. The operator is the real one, in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from bench.load import command, commit, machine
from s4.cluster import clustermap, planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.keeper import DOCUMENT
from s4.cluster.kubernetes import KubernetesCoordinator
from s4.cluster.status import Said, status
from s4_operator.kube import Kube
from s4_operator.pods import labels, names

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
NODES, PORT = 4, 18080


class Resolver(AbstractResolver):
    """Services have the addresses of their cluster's stub: c17 is 127.0.1.17."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        address = f"127.0.1.{int(host.partition('.')[0][1:])}"
        return [ResolveResult(hostname=host, host=address, port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None: ...


def run_operator() -> None:
    """The operator with that resolver, as `kopf run` does it."""
    import kopf  # noqa: PLC0415

    from s4_operator import main  # noqa: PLC0415

    main.new_session = lambda: aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver()))  # type: ignore[assignment, misc]
    kopf.run(standalone=True, clusterwide=True)


class Stub:
    """Daemons of all clusters: users are remembered, objects too, and everything is up."""

    def __init__(self) -> None:
        self.maps: dict[str, ClusterMap] = {}
        self.users: dict[str, dict[str, set[str]]] = {}
        self.objects: dict[str, bytes] = {}
        self.calls = 0

    async def admin(self, request: web.Request) -> web.Response:
        self.calls += 1
        where = request.host.partition(":")[0]
        users, path = self.users.setdefault(where, {}), request.path.removeprefix("/admin/v1")
        parts = path.strip("/").split("/")
        if path == "/status":
            current = self.maps[where]
            told: dict[str, Said | None] = dict.fromkeys(current.stores, Said(range(current.count), 0, version="1"))
            return web.json_response(msgspec.to_builtins(status(current, told)))
        if parts[0] == "users" and len(parts) == 1:
            return web.json_response(
                {"users": [{"name": name, "access_keys": sorted(held)} for name, held in users.items()]}
            )
        if request.method == "PUT":
            users.setdefault(parts[1], set())
        elif request.method == "POST":
            users.setdefault(parts[1], set()).add((await request.json())["access_key"])
        return web.json_response({})

    async def s3(self, request: web.Request) -> web.Response:
        self.calls += 1
        key = f"{request.host}{request.path}"
        if request.method == "PUT":
            self.objects[key] = await request.read()
        return web.Response(body=self.objects.get(key, b"") if request.method == "GET" else b"")

    async def start(self) -> None:
        for port, handler in ((9001, self.admin), (9000, self.s3)):
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "0.0.0.0", port).start()


def cluster(number: int) -> dict[str, Any]:
    spec = {"nodes": NODES, "erasure": {"data": 2, "parity": 2}, "partitions": 16}
    return {
        "apiVersion": "s4.dev/v1alpha1",
        "kind": "S4Cluster",
        "metadata": {"name": f"c{number}", "namespace": "default"},
        "spec": spec,
    }


def bucket(number: int, clusters: int) -> dict[str, Any]:
    spec = {"clusterRef": {"name": f"c{number % clusters + 1}"}}
    return {
        "apiVersion": "s4.dev/v1alpha1",
        "kind": "Bucket",
        "metadata": {"name": f"b{number}", "namespace": "default"},
        "spec": spec,
    }


async def settle(kube: Kube, stub: Stub, number: int) -> None:
    """What Kubernetes and the daemons of one cluster would have done: pods that are ready, stores that said where they
    are."""
    name = f"c{number}"
    called, coordinator = names(name), KubernetesCoordinator("default", name, kube.api)
    while (value := await coordinator.read(DOCUMENT))[1] == 0:
        await asyncio.sleep(0.2)
    current = clustermap.decode(value[0])
    for ordinal in range(NODES):
        pod = f"{called['node']}-{ordinal}"
        current = planner.registered(
            current, f"{number:016x}{ordinal:016x}", pod, f"{pod}:9002", f"host-{ordinal}", 1.0
        )
        await kube.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": pod,
                    "namespace": "default",
                    "labels": {**labels(name, "node"), "controller-revision-hash": "r1"},
                },
                "spec": {"containers": [{"name": "s4", "image": "s4:1"}], "terminationGracePeriodSeconds": 0},
            }
        )
        ready = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        await kube.patch(
            "Pod",
            "default",
            pod,
            {
                "status": {
                    "podIP": f"127.0.1.{number}",
                    "podIPs": [{"ip": f"127.0.1.{number}"}],
                    "phase": "Running",
                    "conditions": ready,
                }
            },
            status=True,
        )
    stub.maps[f"127.0.1.{number}"] = current
    await coordinator.replace(DOCUMENT, clustermap.encode(current), value[1])
    await kube.patch(
        "StatefulSet",
        "default",
        called["node"],
        {"status": {"observedGeneration": 99, "updateRevision": "r1", "replicas": NODES}},
        status=True,
    )


async def refresh(kube: Kube, stub: Stub) -> None:
    for one in await kube.list("ShardMap", "default"):
        found = KubernetesCoordinator("default", one["metadata"]["name"], kube.api)
        stub.maps[f"127.0.1.{int(one['metadata']['name'][1:])}"] = clustermap.decode((await found.read(DOCUMENT))[0])


def metric(name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
        lines = dict(line.split() for line in answer.read().decode().splitlines())
    return float(lines[name])


def requests(api: Any) -> float:
    """Requests that the API server has had from the operator's kind of clients, watches among them."""
    text = api.kubectl("get", "--raw", "/metrics").stdout
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("apiserver_request_total")
    )


def memory_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


async def measure(api: Any, clusters: int, buckets: int, seconds: float) -> None:
    kube, stub = await Kube.connect(str(api.kubeconfig)), Stub()
    await stub.start()
    environment = {**os.environ, "KUBECONFIG": str(api.kubeconfig), "S4_OPERATOR_PORT": str(PORT), "S4_IMAGE": "s4:1"}
    with (api.directory / "operator.log").open("ab") as log:
        operator = subprocess.Popen(
            [sys.executable, "-c", "from bench.operator import run_operator; run_operator()"],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )
    try:
        started = time.monotonic()
        for number in range(1, clusters + 1):
            await kube.create(cluster(number))
        await asyncio.gather(*(settle(kube, stub, number) for number in range(1, clusters + 1)))
        for number in range(buckets):
            await kube.create(bucket(number, clusters))
        while True:
            await refresh(kube, stub)
            done = [
                one for one in await kube.list("Bucket", "default") if one.get("status", {}).get("phase") == "Ready"
            ]
            whole = [
                one for one in await kube.list("S4Cluster", "default") if one.get("status", {}).get("phase") == "Ready"
            ]
            if len(done) == buckets and len(whole) == clusters:
                break
            if operator.poll() is not None or time.monotonic() - started > 900:
                raise SystemExit(
                    f"{len(whole)} clusters and {len(done)} buckets are ready; see {api.directory}/operator.log"
                )
            await asyncio.sleep(2)
        print(
            f"- {clusters} S4Clusters and {buckets} Buckets ready after {time.monotonic() - started:.0f} s, {memory_mib(operator.pid):.0f} MiB then"
        )
        await asyncio.sleep(30)  # what it has still to say of them
        before, at, used = metric("s4_operator_api_requests_total"), requests(api), time.monotonic()
        await asyncio.sleep(seconds)
        minutes = (time.monotonic() - used) / 60
        calls = metric("s4_operator_api_requests_total") - before
        print(
            f"- at rest: {calls / minutes:.0f} requests of the operator a minute, {(requests(api) - at) / minutes:.0f} at the API server from everybody, "
            f"{memory_mib(operator.pid):.0f} MiB"
        )
    finally:
        operator.terminate()
        operator.wait(30)
        await kube.close()


def main() -> None:
    parser = command("operator", __doc__)
    parser.add_argument("--clusters", type=int, default=50)
    parser.add_argument("--buckets", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=360.0, help="how long to look at it at rest")
    arguments = parser.parse_args()
    from kube.apiserver import started  # noqa: PLC0415

    print(f"Commit {commit()}, {machine()}.\n")
    api = started()
    try:
        api.install_crds()
        asyncio.run(measure(api, arguments.clusters, arguments.buckets, arguments.seconds))
    finally:
        api.stop()
    print(json.dumps({"log": str(api.directory / "operator.log")}))


if __name__ == "__main__":
    main()

"""The operator's work on Buckets over a real API server and a real S4 server: two tenants' namespaces, one cluster in
a third."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from kube.apiserver import RESOURCES, ApiServer
from process import ACCESS, REGION, SECRET, ServerProcess, make_client
from s4_operator.bounds import Bounds
from s4_operator.buckets import Buckets
from s4_operator.cache import Cache
from s4_operator.clusters import Clusters
from s4_operator.daemons import Daemons
from s4_operator.kube import Kube
from s4_operator.people import Policies, Users
from s4_operator.roles import Roles
from s4_operator.secrets_of import Secrets
from s4_operator.sweep import BUCKET_USER

HOME, ONE, OTHER = "tenants-s4", "tenant-one", "tenant-other"


S4 = "/apis/s4.dev/v1alpha1"
OURS = ("S4Cluster", "ShardMap", "Bucket", "S4User", "S4Policy", "S4Role")


def _path(kind: str, namespace: str, name: str = "") -> str:
    start = S4 if kind in OURS else "/api/v1"
    plural = "s4policies" if kind == "S4Policy" else f"{kind.lower()}s"
    return f"{start}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


class OneServer(Clusters):
    """Clusters whose daemons are one server."""

    def __init__(self, server: ServerProcess, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._server = server

    def daemons(self, *_: Any) -> Daemons:
        return Daemons(
            self._session, [self._server.admin.partition("//")[2]], self._server.endpoint, REGION, ACCESS, SECRET
        )


class Tenants:
    """`bucket` and `cluster` are what people write, `look` is one round of the operator, which may just have been
    started."""

    def __init__(self, api: ApiServer, server: ServerProcess) -> None:
        self.api, self.server = api, server
        for name in (HOME, ONE, OTHER):
            if not api.get(f"/api/v1/namespaces/{name}"):
                api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            for plural in ("secrets", "configmaps"):
                api.call("DELETE", f"/api/v1/namespaces/{name}/{plural}")
            for plural in RESOURCES:
                for one in api.get(f"{S4}/namespaces/{name}/{plural}")["items"]:  # nobody else ends what they wait for
                    api.change(
                        f"{S4}/namespaces/{name}/{plural}/{one['metadata']['name']}", {"metadata": {"finalizers": []}}
                    )
                api.call("DELETE", f"{S4}/namespaces/{name}/{plural}")
        self.cluster()

    def cluster(self, **spec: Any) -> None:
        chosen = {
            "nodes": 4,
            "erasure": {"data": 2, "parity": 2},
            "partitions": 16,
            "allowedNamespaces": [ONE, OTHER],
            "adoptions": [],
            **spec,
        }
        self._write("S4Cluster", HOME, "c", chosen)

    def bucket(self, namespace: str, name: str, **spec: Any) -> None:
        self._write("Bucket", namespace, name, {"clusterRef": {"name": "c", "namespace": HOME}, **spec})

    def write(self, kind: str, namespace: str, name: str, **spec: Any) -> None:
        """A resource that uses the cluster."""
        self._write(kind, namespace, name, {"clusterRef": {"name": "c", "namespace": HOME}, **spec})

    def _write(self, kind: str, namespace: str, name: str, spec: dict[str, Any]) -> None:
        value = {
            "apiVersion": "s4.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        if self.get(kind, namespace, name):
            self.api.change(_path(kind, namespace, name), {"spec": spec})
        else:
            self.api.call("POST", _path(kind, namespace), value)

    def make(self, kind: str, namespace: str, name: str, **parts: Any) -> None:
        """Somebody else's object."""
        self.api.call(
            "POST", _path(kind, namespace), {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **parts}
        )

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """{} where there is none."""
        return self.api.get(_path(kind, namespace, name))

    def status(self, namespace: str, name: str, kind: str = "Bucket") -> dict[str, Any]:
        return dict(self.get(kind, namespace, name).get("status", {}))

    def reason(self, namespace: str, name: str, kind: str = "Bucket") -> str:
        """Why a resource is as it is: Ready, or what stands against it."""
        listed = self.status(namespace, name, kind)["conditions"]
        return next((one["reason"] for one in listed if one["type"] == "Ready"), "")

    def user(self, namespace: str, name: str) -> str:
        return BUCKET_USER + str(self.get("Bucket", namespace, name)["metadata"]["uid"])

    def keys(self, namespace: str, name: str) -> tuple[str, str]:
        """What a Bucket's Secret has."""
        data = self.get("Secret", namespace, name)["data"]
        return b64decode(data["AWS_ACCESS_KEY_ID"]).decode(), b64decode(data["AWS_SECRET_ACCESS_KEY"]).decode()

    def client(self, namespace: str, name: str) -> Any:
        return make_client(self.server.endpoint, *self.keys(namespace, name))

    def server_client(self) -> Any:
        """S3 as the server's root."""
        return make_client(self.server.endpoint, ACCESS, SECRET)

    def known_keys(self, user: str) -> list[str] | None:
        """The access keys that S4 knows of a user; None where it does not know the user."""
        listed = self.server.ask("GET", "/users")["users"]
        return next((list(one["access_keys"]) for one in listed if one["name"] == user), None)

    def set_status(self, namespace: str, name: str, **status: Any) -> None:
        """As somebody would who may write the status."""
        self.api.change(_path("Bucket", namespace, name) + "/status", {"status": status})

    def delete(self, namespace: str, name: str, kind: str = "Bucket") -> None:
        self.api.call("DELETE", _path(kind, namespace, name))

    def set_data(self, namespace: str, name: str, **data: str) -> None:
        """Change a Secret, as its namespace's people may."""
        coded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
        self.api.change(_path("Secret", namespace, name), {"data": coded})

    def annotate(self, kind: str, namespace: str, name: str, **notes: str) -> None:
        self.api.change(
            _path(kind, namespace, name),
            {"metadata": {"annotations": {key.replace("_", "-"): value for key, value in notes.items()}}},
        )

    def look(self, *which: tuple[str, str]) -> None:
        """One round for each Bucket, by an operator that remembers nothing."""

        async def work(buckets: Buckets, _: Daemons) -> None:
            for namespace, name in which:
                await buckets.reconcile(namespace, name)

        self.run(work)

    def look_at_cluster(self) -> None:
        """One round for the S4Cluster."""

        async def work(buckets: Buckets, _: Daemons) -> None:
            await buckets._clusters.reconcile(HOME, "c")

        self.run(work)

    def run(self, work: Callable[[Buckets, Daemons], Awaitable[None]]) -> None:
        async def run(made: Reconcilers) -> None:
            await work(made.buckets, made.daemons)

        self.operate(run)

    def rounds(self, *which: tuple[str, str, str]) -> None:
        """One round for each (kind, namespace, name), in this order, by an operator that remembers nothing."""

        async def work(made: Reconcilers) -> None:
            for kind, namespace, name in which:
                await made.rounds[kind](namespace, name)
                await made.cache.refresh(made.kube)

        self.operate(work)

    def operate(self, work: Callable[[Reconcilers], Awaitable[None]]) -> None:
        async def run() -> None:
            kube = await Kube.connect(str(self.api.kubeconfig))
            try:
                async with aiohttp.ClientSession() as session:
                    cache, secrets = Cache(), Secrets(kube)
                    await cache.refresh(kube)
                    clusters = OneServer(self.server, kube, cache, session, "s4:1", secrets)
                    await work(Reconcilers(kube, cache, clusters))
            finally:
                await kube.close()

        asyncio.run(run())


class Reconcilers:
    """All of the operator but for what watches and waits."""

    def __init__(self, kube: Kube, cache: Cache, clusters: OneServer) -> None:
        self.kube, self.cache, self.clusters, self.daemons = kube, cache, clusters, clusters.daemons()
        common, bounds = (kube, cache, clusters), Bounds(cache)
        self.buckets = Buckets(*common, bounds)
        self.rounds = {
            "S4Cluster": clusters.reconcile,
            "Bucket": self.buckets.reconcile,
            "S4User": Users(*common, bounds).reconcile,
            "S4Policy": Policies(*common).reconcile,
            "S4Role": Roles(*common, bounds).reconcile,
        }

"""The wiring: kopf watches, the cache takes in what it says, the queue works. Run with `kopf run -m s4_operator.main
--all-namespaces`; or with `--namespace` for each, and S4_OPERATOR_NAMESPACES with the same names.

kopf's daemons and timers would put a finalizer on every resource, with which a namespace cannot be deleted while no
operator runs. Event handlers put none; the queue here is what makes it level-triggered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

import aiohttp
import kopf
from aiohttp import web

from s4.base.jobs import Job, Jobs
from s4_operator import certificates, touched
from s4_operator.bounds import Bounds
from s4_operator.buckets import Buckets
from s4_operator.cache import OF_S4, Cache
from s4_operator.clusters import Clusters
from s4_operator.kube import Kube, KubeError, Object
from s4_operator.people import Policies, Users
from s4_operator.queue import Key, Queue
from s4_operator.resources import reference_of
from s4_operator.roles import Roles
from s4_operator.secrets_of import Secrets

log = logging.getLogger(__name__)

REFRESH_S = 300.0
RETRY_S = 2.0
ISSUER_S = 60.0
RESOURCES = ("S4Cluster", "Bucket", "S4User", "S4Policy", "S4Role", "ShardMap")
STUCK_S = 900.0  # later than due that the loop which looks at every cluster comes round: the process is started again
WORKERS = 16


class Operator:
    """All parts of a running operator."""

    def __init__(
        self, kube: Kube, session: aiohttp.ClientSession, apis: frozenset[str], environment: dict[str, str]
    ) -> None:
        self.kube, self.session, self.cache = kube, session, Cache()
        leaf_s = float(environment.get("S4_CERTIFICATE_SECONDS", certificates.LEAF_S))
        secrets = Secrets(kube, leaf_s)
        self.clusters = Clusters(
            kube,
            self.cache,
            session,
            environment.get("S4_IMAGE", "s4:latest"),
            secrets,
            apis,
            environment.get("S4_OPERATOR_NAMESPACE", ""),
        )
        bounds = Bounds(self.cache)
        common = kube, self.cache, self.clusters
        self.roles = Roles(*common, bounds)
        self.rounds = {
            "S4Cluster": self.clusters.reconcile,
            "Bucket": Buckets(*common, bounds).reconcile,
            "S4User": Users(*common, bounds).reconcile,
            "S4Policy": Policies(*common).reconcile,
            "S4Role": self.roles.reconcile,
        }
        self.queue = Queue(self._work, WORKERS)
        self.beat_at, self._filled = time.monotonic(), False
        self.jobs = Jobs()
        self.jobs.start(Job("refresh", 0.0, REFRESH_S, self._refresh, (KubeError,), RETRY_S))
        self.jobs.start(Job("issuer", ISSUER_S, ISSUER_S, self._read_issuer, (KubeError,), ISSUER_S))

    async def _work(self, key: Key) -> float:
        kind, namespace, name = key
        return await self.rounds[kind](namespace, name)

    async def _refresh(self) -> None:
        """Read again what is cached."""
        self.beat_at = time.monotonic()
        before = self._generations() if self._filled else {}
        await self.cache.refresh(self.kube)
        self._filled = True
        for key, generation in self._generations().items():  # what a watch that was lost did not tell
            if key[0] == "S4Cluster" or before.get(key) != generation:
                self.queue.add(key)
            if key[0] == "S4Cluster" and key in before and before[key] != generation:
                self._allowed_others(key[1], key[2])

    async def _read_issuer(self) -> None:
        """The keys of Kubernetes' tokens may have been changed: clusters are told."""
        if any(self.cache.list("S4Role")) and await self.roles.read_issuer():
            self._look([touched.key_of(one) for one in self.cache.list("S4Role")])

    def _generations(self) -> dict[Key, tuple[Any, ...]]:
        return {
            (kind, one["metadata"]["namespace"], one["metadata"]["name"]): _asked(one)
            for kind in self.rounds
            for one in self.cache.list(kind)
        }

    def _allowed_others(self, namespace: str, name: str) -> None:
        """A cluster was changed: whose resources it takes, and which buckets they may have, may be other ones now."""
        self._look(touched.of_cluster(self.cache, namespace, name))

    def _look(self, keys: list[Key]) -> None:
        for key in keys:
            if key[0] in self.rounds:
                self.queue.add(key)

    def see(self, kind: str, value: Object, *, deleted: bool) -> None:
        """Take in what a watch says, and look at what it concerns: once all is known, since what is not there yet
        would be taken for gone."""
        before = self.cache.get(kind, value["metadata"].get("namespace", ""), value["metadata"]["name"])
        if not self.cache.see(kind, {**value, "kind": kind}, deleted=deleted) or not self._filled:
            return
        metadata = value["metadata"]
        if kind in self.rounds:
            asked = before is None or deleted or _asked(before) != _asked(value)
            if asked:
                self.queue.add((kind, metadata["namespace"], metadata["name"]))
            if kind in touched.OF_CLUSTER and (
                asked or before is None or touched.state_of(before) != touched.state_of(value)
            ):
                self._look(touched.by_asking(self.cache, {**value, "kind": kind}))
            if kind in touched.OF_CLUSTER and (deleted or before is None):
                self._of_cluster(kind, value, deleted=deleted)
            if kind == "S4Cluster" and before is not None and _asked(before) != _asked(value):
                self._allowed_others(metadata["namespace"], metadata["name"])
        elif kind in ("Node", "PersistentVolume"):
            if kind == "Node" and (before is None or _node_state(before) != _node_state(value)):
                for one in self.cache.list("S4Cluster"):
                    self.queue.add(("S4Cluster", one["metadata"]["namespace"], one["metadata"]["name"]))
        elif name := metadata.get("labels", {}).get("s4.dev/cluster", metadata["name"] if kind == "ShardMap" else ""):
            self.queue.add(("S4Cluster", metadata["namespace"], name))

    def _of_cluster(self, kind: str, value: Object, *, deleted: bool) -> None:
        """A resource came or went: the cluster counts its Buckets, and what is left of others is swept."""
        namespace, name = reference_of(value)
        if deleted:
            self.clusters.sweep(namespace, name)
        if deleted or kind == "Bucket":
            self.queue.add(("S4Cluster", namespace, name))

    def health(self) -> str:
        """What is wrong with this process, or nothing."""
        if time.monotonic() - self.beat_at > REFRESH_S + STUCK_S:
            return "nothing was looked at for long"
        return ""

    async def close(self) -> None:
        await self.jobs.close()
        await self.queue.close()
        await self.session.close()
        await self.kube.close()


def _asked(value: Object) -> tuple[Any, ...]:
    """What of a resource people change; its status is ours."""
    metadata = value["metadata"]
    return metadata["uid"], metadata.get("generation"), metadata.get("annotations"), metadata.get("deletionTimestamp")


def _node_state(value: Object) -> tuple[Any, ...]:
    ready = [one["status"] for one in value.get("status", {}).get("conditions", ()) if one["type"] == "Ready"]
    return ready, value["spec"].get("unschedulable", False)


running: Operator | None = None
new_session = aiohttp.ClientSession  # what calls daemons
_servers: list[web.AppRunner] = []


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    global running  # noqa: PLW0603 - kopf's handlers are functions of a module
    settings.persistence.finalizer = "s4.dev/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="operator.s4.dev")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="operator.s4.dev")
    settings.watching.server_timeout, settings.watching.client_timeout = 600, 660
    for where in (("v1", "pods"), ("v1", "persistentvolumeclaims"), ("apps", "v1", "statefulsets")):
        settings.watching.label_selectors[where] = OF_S4  # those of all others would be read, and held, for nothing
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 60
    settings.execution.default_backoff = 15
    settings.queueing.worker_limit = 50
    settings.posting.level = logging.WARNING
    settings.process.ultimate_exiting_timeout = 60
    settings.peering.standalone = True
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # it tells of every event that was handled
    namespaces = tuple(os.environ.get("S4_OPERATOR_NAMESPACES", "").split())
    settings.scanning.disabled = bool(
        namespaces
    )  # kopf would ask for a minute to list all namespaces before it serves these
    kube = await Kube.connect(namespaces=namespaces)
    running = Operator(kube, new_session(), await _first_look(kube), dict(os.environ))
    app = web.Application()
    app.router.add_get("/healthz", _health)
    app.router.add_get("/metrics", _metrics)
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    await web.TCPSite(server, None, int(os.environ.get("S4_OPERATOR_PORT", "8080"))).start()
    _servers.append(server)


async def _first_look(kube: Kube) -> frozenset[str]:
    """The optional kinds that this Kubernetes has, once it answers and has ours."""
    while True:
        try:
            if not all([await kube.has_api(kind) for kind in RESOURCES]):
                raise KubeError(404, "there are no CRDs of s4.dev yet")
            return frozenset([kind for kind in ("ServiceMonitor", "PrometheusRule") if await kube.has_api(kind)])
        except KubeError as error:
            log.warning("the Kubernetes API cannot be used yet: %s", error)
            await asyncio.sleep(RETRY_S)


async def _health(_: web.Request) -> web.Response:
    reason = running.health() if running is not None else "starting"
    return web.Response(text=(reason or "ok") + "\n", status=503 if reason else 200)


async def _metrics(_: web.Request) -> web.Response:
    if running is None:
        return web.Response(status=503)
    lines = [
        f"s4_operator_turns_total {running.queue.turns}",
        f"s4_operator_failures_total {running.queue.failures}",
        f"s4_operator_api_requests_total {running.kube.calls}",
        *(
            f's4_operator_job_failures_total{{job="{one.labels["job"]}"}} {one.value:.0f}'
            for one in running.jobs.metrics()
            if one.name == "s4_job_failures"
        ),
    ]
    return web.Response(text="\n".join(lines) + "\n")


@kopf.on.cleanup()
async def stop(**_: Any) -> None:
    for server in _servers:
        await server.cleanup()
    if running is not None:
        await running.close()


def _see(kind: str, event: Any) -> None:
    if running is not None and event["object"].get("metadata", {}).get("name"):
        running.see(kind, dict(event["object"]), deleted=event["type"] == "DELETED")


@kopf.on.event("s4.dev", "v1alpha1", "s4clusters")
async def on_cluster(event: Any, **_: Any) -> None:
    _see("S4Cluster", event)


@kopf.on.event("s4.dev", "v1alpha1", "buckets")
async def on_bucket(event: Any, **_: Any) -> None:
    _see("Bucket", event)


@kopf.on.event("s4.dev", "v1alpha1", "s4users")
async def on_user(event: Any, **_: Any) -> None:
    _see("S4User", event)


@kopf.on.event("s4.dev", "v1alpha1", "s4policies")
async def on_policy(event: Any, **_: Any) -> None:
    _see("S4Policy", event)


@kopf.on.event("s4.dev", "v1alpha1", "s4roles")
async def on_role(event: Any, **_: Any) -> None:
    _see("S4Role", event)


@kopf.on.event("s4.dev", "v1alpha1", "shardmaps")
async def on_map(event: Any, **_: Any) -> None:
    _see("ShardMap", event)


@kopf.on.event("v1", "nodes")
async def on_node(event: Any, **_: Any) -> None:
    _see("Node", event)


@kopf.on.event("v1", "persistentvolumes")
async def on_volume(event: Any, **_: Any) -> None:
    _see("PersistentVolume", event)


@kopf.on.event("v1", "pods")
async def on_pod(event: Any, **_: Any) -> None:
    _see("Pod", event)


@kopf.on.event("v1", "persistentvolumeclaims")
async def on_claim(event: Any, **_: Any) -> None:
    _see("PersistentVolumeClaim", event)


@kopf.on.event("apps", "v1", "statefulsets")
async def on_set(event: Any, **_: Any) -> None:
    _see("StatefulSet", event)

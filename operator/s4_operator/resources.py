"""What all resources that use a cluster share: which cluster they may use, what is said of them, what they own.

Buckets, S4Users, S4Policies and S4Roles name a cluster, which may be in another namespace and then has to allow
theirs. Nothing is asked of daemons before that is known, and what stands against a resource is told in its Ready
condition, in the same words for all kinds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from s4_operator.bucket_models import ClusterRef, ResourceState
from s4_operator.cache import Cache
from s4_operator.clusters import Clusters, write_status
from s4_operator.daemons import DaemonError, Daemons
from s4_operator.kube import Kube, Object, TakenError
from s4_operator.manifests import Builder
from s4_operator.models import GROUP, VERSION, ClusterSpec
from s4_operator.observe import stamp
from s4_operator.ownership import RefusedError
from s4_operator.report import conditions
from s4_operator.secrets_of import Secrets

S = TypeVar("S", bound=ResourceState)

AT_REST_S, SOON_S, LATER_S, LONG_S = 600.0, 3.0, 30.0, 60.0


class UnmetError(Exception):
    """What a resource asks for cannot be yet: (reason, message) for its Ready condition. What it has stays."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def place(resource: Object) -> tuple[str, str]:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def full_name(resource: Object) -> str:
    return "/".join(place(resource))


def is_going(resource: Object) -> bool:
    return bool(resource["metadata"].get("deletionTimestamp"))


def reference_of(resource: Object) -> tuple[str, str]:
    """(namespace, name) of the cluster that a resource names."""
    named = resource["spec"]["clusterRef"]
    return named.get("namespace") or resource["metadata"]["namespace"], named["name"]


def cluster_of(cache: Cache, resource: Object) -> Object | None:
    return cache.get("S4Cluster", *reference_of(resource))


def cluster_for(cache: Cache, resource: Object, reference: ClusterRef) -> Object:
    """The cluster that a resource may use. Raises RefusedError."""
    here = resource["metadata"]["namespace"]
    namespace = reference.namespace or here
    found = cluster_of(cache, resource)
    if found is None:
        raise RefusedError("NoSuchCluster", f"there is no S4Cluster {reference.name} in the namespace {namespace}")
    allowed = ClusterSpec(**found["spec"]).allowedNamespaces
    if here != namespace and here not in allowed and "*" not in allowed:
        raise RefusedError(
            "NotAllowed",
            f"the S4Cluster {namespace}/{reference.name} does not take {resource['kind']}s of the namespace {here}: add it to allowedNamespaces",
        )
    return found


async def connect(clusters: Clusters, secrets: Secrets, cluster: Object) -> tuple[Builder, Daemons]:
    """How to speak to a cluster. Raises KubeError."""
    metadata = cluster["metadata"]
    builder = Builder(metadata["namespace"], metadata["name"], metadata["uid"], ClusterSpec(**cluster["spec"]))
    trusted = await secrets.ensure(builder, time.time())
    return builder, clusters.daemons(builder, trusted)


def reason_of(error: Exception) -> str:
    if isinstance(error, RefusedError | UnmetError):
        return error.reason
    if isinstance(error, TakenError):
        return f"{error.kind}Exists"
    if isinstance(error, DaemonError):
        return "RefusedByCluster" if 400 <= error.status < 500 else "ClusterNotReachable"
    return ""


def say(resource: Object, state: ResourceState, before: ResourceState, reason: str, message: str) -> None:
    """Put (reason, message) into a status: Ready, or what stands against it."""
    ready, deleting = reason == "Ready", is_going(resource)
    blocked = ("True", reason, message) if deleting else ("False", "Free", "")
    listed = [("Ready", "True" if ready else "False", reason, message), ("DeletionBlocked", *blocked)]
    state.conditions = conditions(before.conditions, listed, time.time(), resource["metadata"]["generation"])
    state.phase = "Ready" if ready else ("Deleting" if deleting else "Pending")
    state.message = "" if ready else message[:500]
    state.observedGeneration = resource["metadata"]["generation"]


def again_s(state: ResourceState) -> float:
    """When to look again at what is not Ready: soon at first."""
    return SOON_S if time.time() - stamp(state.conditions[0].lastTransitionTime) < LONG_S else LATER_S


async def one_round(
    kube: Kube,
    cache: Cache,
    resource: Object,
    before: S,
    work: Callable[[], Awaitable[tuple[S | None, float]]],
    take_back: Callable[[], Awaitable[None]],
) -> float:
    """Do `work`, which gives the status and the seconds until the next round, and write that; or write why it could
    not be done. A resource that may not be what it is loses what it was given, and its status says so only once that
    is so. Raises KubeError."""
    try:
        state, wait_s = await work()
    except (RefusedError, UnmetError, DaemonError, TakenError) as error:
        state, message = before.model_copy(), str(error)
        if isinstance(error, RefusedError | TakenError):
            try:
                await take_back()
                fresh = type(before)()
                lost: dict[str, Any] = {
                    name: getattr(fresh, name) for name in ("keys", "owned") if name in type(before).model_fields
                }
                state = before.model_copy(update=lost)
            except DaemonError as why:
                message = f"{error}; what it was given could not be taken back yet: {why}"
        say(resource, state, before, reason_of(error), message)
        wait_s = again_s(state)
    if state is not None:
        await write_status(kube, cache, resource, before, state)
    return wait_s


async def set_finalizer(kube: Kube, cache: Cache, resource: Object, name: str, *, wanted: bool) -> None:
    metadata = resource["metadata"]
    held = metadata.get("finalizers", [])
    if wanted == (name in held):
        return
    kept = [one for one in held if one != name] + ([name] if wanted else [])
    change: Object = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
    found = await kube.patch(resource["kind"], metadata["namespace"], metadata["name"], change)
    if kept or not found["metadata"].get("deletionTimestamp"):  # else it is gone, and the watch may have said so before
        cache.see(resource["kind"], {"kind": resource["kind"], **found})


LABELS = {"Bucket": "s4.dev/bucket", "S4User": "s4.dev/user", "S4Role": "s4.dev/role"}


def owned(resource: Object, kind: str, name: str, **parts: Any) -> Object:
    """A Secret or ConfigMap that goes with a resource."""
    metadata = resource["metadata"]
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": resource["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    labels = {
        "app.kubernetes.io/name": "s4",
        "app.kubernetes.io/managed-by": "s4-operator",
        LABELS[resource["kind"]]: metadata["name"],
    }
    head = {"name": name, "namespace": metadata["namespace"], "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": kind, "metadata": head, **parts}


def name_of(bucket: Object) -> str:
    """What the bucket of a Bucket is called: chosen, or made of what nobody can change. Not what a status says."""
    metadata = bucket["metadata"]
    made = f"{metadata['namespace'][:20]}-{metadata['name'][:20]}-{metadata['uid'][:8]}".strip("-.")
    return str(bucket["spec"].get("bucketName") or made)

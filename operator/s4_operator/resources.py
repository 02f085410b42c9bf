"""What all resources that use a cluster share: which cluster they may use, what is said of them, what they own.

Buckets, S4Users, S4Policies and S4Roles name a cluster, which may be in another namespace and then has to allow
theirs. Nothing is asked of daemons before that is known, and what stands against a resource is told in its Ready
condition, in the same words for all kinds.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

from s4_operator.bucket_models import ClusterRef, ResourceState
from s4_operator.cache import Cache
from s4_operator.daemons import DaemonError
from s4_operator.kube import KubeError, Object, TakenError
from s4_operator.models import GROUP, VERSION, ClusterSpec
from s4_operator.observe import stamp
from s4_operator.ownership import RefusedError
from s4_operator.report import conditions

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


def reason_of(error: Exception) -> str:
    if isinstance(error, RefusedError | UnmetError):
        return error.reason
    if isinstance(error, TakenError):
        return f"{error.kind}Exists"
    if isinstance(error, KubeError):
        return "RefusedByKubernetes"
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

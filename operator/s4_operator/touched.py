"""Which resources a change of another one concerns: pure, from what is cached. main.py has them looked at again.

What is missing here is only late: every resource is looked at every ten minutes.
"""

from __future__ import annotations

from s4_operator.cache import Cache
from s4_operator.kube import Object
from s4_operator.queue import Key
from s4_operator.resources import reference_of
from s4_operator.rights import names

OF_CLUSTER = ("Bucket", "S4User", "S4Policy", "S4Role")  # kinds that name an S4Cluster
HOLDERS = ("S4User", "S4Role")


def key_of(resource: Object) -> Key:
    metadata = resource["metadata"]
    return resource["kind"], metadata["namespace"], metadata["name"]


def of_cluster(cache: Cache, namespace: str, name: str) -> list[Key]:
    """Resources that name a cluster: whom it lets in may be others after a change of it."""
    return [key_of(one) for kind in OF_CLUSTER for one in cache.list(kind) if reference_of(one) == (namespace, name)]


def by_asking(cache: Cache, resource: Object) -> list[Key]:
    """What is to be looked at besides, after somebody made, changed or deleted a resource that names a cluster."""
    here, cluster = resource["metadata"]["namespace"], reference_of(resource)
    others = [one for kind in OF_CLUSTER for one in cache.list(kind) if reference_of(one) == cluster]
    if (
        resource["kind"] == "Bucket"
    ):  # whose buckets are a namespace's own, or granted to it; the cluster's has no bound
        near = {here, *(one.get("namespace") or here for one in resource["spec"].get("grants", ()))} - {cluster[0]}
        return [key_of(one) for one in others if one["kind"] in HOLDERS and one["metadata"]["namespace"] in near]
    if resource["kind"] == "S4Policy":
        return [key_of(one) for one in others if one["kind"] in HOLDERS and names(one, resource)]
    policies = [key_of(one) for one in others if one["kind"] == "S4Policy" and names(resource, one)]
    return policies + [key_of(one) for one in others if one["kind"] == "Bucket" and _grants(one, resource)]


def _grants(bucket: Object, user: Object) -> bool:
    here, metadata = bucket["metadata"]["namespace"], user["metadata"]
    named = [(one.get("namespace") or here, one["user"]) for one in bucket["spec"].get("grants", ())]
    return user["kind"] == "S4User" and (metadata["namespace"], metadata["name"]) in named


def state_of(resource: Object) -> tuple[object, ...]:
    """What of a status others go by."""
    status = resource.get("status") or {}
    return status.get("phase"), status.get("bucketName"), status.get("arn")

"""From Kubernetes objects to the values of observed.py: pure but for what the caller has read."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from s4.cluster.clustermap import ClusterMap
from s4.cluster.kubernetes_map import joined
from s4.cluster.recovery import Recovery
from s4.cluster.status import ClusterStatus
from s4_operator.cache import Cache
from s4_operator.models import ClusterSpec, size
from s4_operator.observed import Claim, Host, Observed, Pod
from s4_operator.pods import HOST, names
from s4_operator.state_models import ClusterState

Object = dict[str, Any]
CONFIRM = "s4.dev/confirm-data-loss"


def stamp(text: str | None) -> float:
    """Seconds since 1970 of a Kubernetes time; 0 for none."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


def _condition(value: Object, kind: str) -> Object:
    found = value.get("status", {}).get("conditions") or ()
    return next((dict(one) for one in found if one["type"] == kind), {})


def pod(value: Object) -> Pod:
    metadata, status = value["metadata"], value.get("status", {})
    return Pod(
        metadata["name"],
        _ordinal(metadata["name"]),
        metadata["uid"],
        status.get("podIP", ""),
        value["spec"].get("nodeName", ""),
        _condition(value, "Ready").get("status") == "True" and not metadata.get("deletionTimestamp"),
        metadata.get("labels", {}).get("controller-revision-hash", ""),
        value["spec"]["containers"][0]["image"],
        bool(metadata.get("deletionTimestamp")),
        _broken(status),
        stamp(metadata.get("creationTimestamp")),
        _alone(value),
        stamp(_condition(value, "Ready").get("lastTransitionTime")),
    )


def _alone(value: Object) -> bool:
    """Whether a pod lets none of its kind onto its host: what of anti-affinity is a wish only, or about others, does
    not."""
    apart = (value["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    return any(
        term["topologyKey"] == HOST and _selects(term.get("labelSelector"), value["metadata"].get("labels", {}))
        for term in apart.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    )


def _selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector does; none selects nothing, an empty one everything."""
    tests = {
        "In": lambda one: labels.get(one["key"]) in one["values"],
        "NotIn": lambda one: labels.get(one["key"]) not in one["values"],
        "Exists": lambda one: one["key"] in labels,
        "DoesNotExist": lambda one: one["key"] not in labels,
    }
    return (
        selector is not None
        and all(labels.get(name) == value for name, value in (selector.get("matchLabels") or {}).items())
        and all(tests[one["operator"]](one) for one in selector.get("matchExpressions") or ())
    )


def _broken(status: Object) -> str:
    """Why a pod's container does not run, where it will not by itself."""
    for one in status.get("containerStatuses") or ():
        waiting = one.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in (
            "ImagePullBackOff",
            "ErrImagePull",
            "InvalidImageName",
            "ErrImageNeverPull",
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
        ):
            return f"{waiting['reason']}: {waiting.get('message', '')}"[:300]
        if waiting.get("reason") == "CrashLoopBackOff" or (one.get("restartCount", 0) >= 3 and not one.get("ready")):
            last = (one.get("lastState") or {}).get("terminated") or {}
            return f"it crashes: exit code {last.get('exitCode', 'unknown')} {last.get('message', '')}".strip()[:300]
    return ""


def is_of_set(value: Object, cluster: str) -> bool:
    """Whether a pod or claim is one of the cluster's StatefulSet: others may carry its labels, and are not counted
    on."""
    return (
        re.fullmatch(rf"(data-)?{re.escape(names(cluster)['node'])}-(0|[1-9][0-9]{{0,8}})", value["metadata"]["name"])
        is not None
    )


def _ordinal(name: str) -> int:
    return int(name.rpartition("-")[2])


def claim(value: Object, volumes: dict[str, Object], hostnames: Mapping[str, str]) -> Claim:
    """`hostnames` are the names of Kubernetes nodes by their label of that name, which may be another."""
    metadata, volume, status = value["metadata"], value["spec"].get("volumeName", ""), value.get("status") or {}
    waits, stuck = _growth(status)
    return Claim(
        metadata["name"],
        _ordinal(metadata["name"]),
        metadata["uid"],
        volume,
        _bound_host(volumes.get(volume, {}), hostnames),
        bool(metadata.get("deletionTimestamp")),
        _bytes(value["spec"].get("resources", {}).get("requests", {})),
        _bytes(status.get("capacity") or {}),
        waits,
        stuck,
        value["spec"].get("storageClassName", ""),
    )


def _bytes(quantities: Object) -> int:
    """0 where nothing is said, or in a way that none of our claims has."""
    try:
        return size(str(quantities.get("storage", "0")))
    except ValueError:
        return 0


def _growth(status: Object) -> tuple[str, bool]:
    """(why a volume has not grown, whether it will not by itself)."""
    stuck = [one for one in (status.get("allocatedResourceStatuses") or {}).values() if one.endswith("Infeasible")]
    for one in status.get("conditions") or ():
        if one["status"] == "True" and one["type"] in ("ControllerResizeError", "NodeResizeError"):
            return str(one.get("message") or one["type"])[:200], True
        if one["status"] == "True" and one["type"] == "FileSystemResizePending":
            return "its file system grows once its pod has started again", True
    return ("the size cannot be had" if stuck else ""), bool(stuck)


def _bound_host(volume: Object, hostnames: Mapping[str, str]) -> str:
    """The host that a volume is on, where it can be nowhere else."""
    required = volume.get("spec", {}).get("nodeAffinity", {}).get("required", {})
    for term in required.get("nodeSelectorTerms", ()):
        for one in (*term.get("matchExpressions", ()), *term.get("matchFields", ())):
            if one["key"] in (HOST, "metadata.name") and one["operator"] == "In" and len(one["values"]) == 1:
                named = str(one["values"][0])
                return hostnames.get(named, named) if one["key"] == HOST else named
    return ""


def host(value: Object) -> Host:
    metadata, ready = value["metadata"], _condition(value, "Ready")
    since_s = stamp(ready.get("lastTransitionTime"))
    gone = None if ready.get("status") == "True" else since_s
    zone = metadata.get("labels", {}).get("topology.kubernetes.io/zone", "")
    return Host(metadata["name"], gone, not value["spec"].get("unschedulable", False), zone, since_s)


def shard_map(value: Object | None) -> ClusterMap | None:
    return joined(value["spec"], value.get("status") or {}) if value is not None else None


def confirmed(cluster: Object) -> frozenset[str]:
    """Stores whose loss a person has confirmed by name."""
    said = cluster["metadata"].get("annotations", {}).get(CONFIRM, "")
    return frozenset(one.strip() for one in said.split(",") if one.strip())


def observe(
    cache: Cache,
    cluster: Object,
    *,
    now_s: float,
    default_image: str,
    status: ClusterStatus | None,
    served: str,
    certificates: str,
    buckets: int,
    sees_all: bool = True,
    refused: Mapping[str, str] | None = None,
    recovery: Recovery | None = None,
) -> Observed:
    """One cluster as the cache and its daemons have it."""
    namespace, name = cluster["metadata"]["namespace"], cluster["metadata"]["name"]
    called, spec = names(name), ClusterSpec(**cluster["spec"])
    volumes = {one["metadata"]["name"]: one for one in cache.list("PersistentVolume")}
    hostnames = {one["metadata"].get("labels", {}).get(HOST, ""): one["metadata"]["name"] for one in cache.list("Node")}
    found = cache.get("StatefulSet", namespace, called["node"])
    state = (found or {}).get("status", {})
    shards = cache.get("ShardMap", namespace, called["map"])
    own = [
        one
        for one in cache.list("Pod", namespace, name)
        if one["metadata"]["labels"].get("app.kubernetes.io/component") == "node" and is_of_set(one, name)
    ]
    return Observed(
        name,
        spec,
        ClusterState(**(cluster.get("status") or {})),
        now_s,
        image(spec, default_image),
        found["spec"]["replicas"] if found is not None else None,
        state.get("updateRevision", ""),
        found is None or state.get("observedGeneration", 0) >= found["metadata"]["generation"],
        tuple(sorted((pod(one) for one in own), key=lambda one: one.ordinal)),
        tuple(
            claim(one, volumes, hostnames)
            for one in cache.list("PersistentVolumeClaim", namespace, name)
            if is_of_set(one, name)
        ),
        {one["metadata"]["name"]: host(one) for one in cache.list("Node")},
        shard_map(shards),
        status,
        confirmed(cluster),
        served,
        certificates,
        buckets,
        sees_all,
        refused or {},
        recovery,
        {one["id"]: one.get("domain", "") for one in ((shards or {}).get("status") or {}).get("stores") or ()},
        claims_of(found).get("storageClassName", "") if found is not None else "",
        found["spec"]["template"]["spec"]["containers"][0]["image"] if found is not None else "",
    )


def claims_of(found: Object) -> Object:
    """What a StatefulSet asks for each of its claims."""
    (claim,) = found["spec"]["volumeClaimTemplates"]
    spec: Object = claim["spec"]
    return spec


def image(spec: ClusterSpec, default: str) -> str:
    """The image that a spec asks for."""
    chosen = spec.image or default
    if not spec.version:
        return chosen
    repository, colon, tag = chosen.partition("@")[0].rpartition(":")
    return f"{repository if colon and '/' not in tag else chosen.partition('@')[0]}:{spec.version}"

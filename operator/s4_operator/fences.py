"""What is asked of the API server once more before something is let go: the cache may be late, or a watch may hang."""

from __future__ import annotations

from collections.abc import Iterable

from s4_operator.cache import Cache
from s4_operator.kube import Kube
from s4_operator.observe import host
from s4_operator.observed import Observed
from s4_operator.steps import Step, host_of


async def is_newest(kube: Kube, cache: Cache, namespace: str, name: str) -> bool:
    """Whether the cache has a ShardMap as it is. Raises KubeError."""
    cached, found = cache.get("ShardMap", namespace, name), await kube.get("ShardMap", namespace, name)
    if cached is None or found is None:
        return False
    cache.see("ShardMap", {"kind": "ShardMap", **found})
    return bool(cached["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"])


async def are_as_seen(kube: Kube, cache: Cache, seen: Observed, steps: Iterable[Step]) -> bool:
    """Whether the hosts that steps take for gone are as they were seen. Raises KubeError."""
    for name in sorted({host_of(step) for step in steps} - {""}):
        found, cached = await kube.get("Node", "", name), cache.get("Node", "", name)
        if found is not None:
            cache.see("Node", {"kind": "Node", **found})
        elif cached is not None:
            cache.see("Node", cached, deleted=True)
        if (host(found) if found is not None else None) != seen.hosts.get(name):
            return False
    return True

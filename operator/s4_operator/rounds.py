"""One round of a resource that uses a cluster: the same for Buckets, S4Users, S4Policies and S4Roles.

What a round does is read anew each time from the resource, the cluster and its daemons; nothing is left over from the
round before but its status. A resource that may not be what it is (refused, or its names are somebody else's) loses
what it was given before its status says so; one that cannot be yet keeps what it has. One that is deleted goes only
once its daemons let go of it: its finalizer, which stands from the moment that there is anything to let go, is taken
away last. A cluster that is gone has nothing to let go of.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from s4_operator.bucket_models import ResourceState
from s4_operator.cache import Cache
from s4_operator.clusters import Clusters, write_status
from s4_operator.daemons import DaemonError, Daemons
from s4_operator.kube import Kube, KubeError, Object, TakenError
from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec
from s4_operator.ownership import RefusedError
from s4_operator.resources import UnmetError, again_s, cluster_of, is_going, reason_of, reference_of, say
from s4_operator.secrets_of import LostError

REFUSALS = (400, 403, 413, 422)  # of something of a resource's own, by a quota or a policy: people are to know
Spec = TypeVar("Spec", bound=BaseModel)
State = TypeVar("State", bound=ResourceState)


class Reconciler(Generic[Spec, State]):
    """Reconciles the resources of one kind."""

    kind: ClassVar[str]
    finalizer: ClassVar[str]
    models: ClassVar[tuple[Any, Any]]  # Spec and State

    def __init__(self, kube: Kube, cache: Cache, clusters: Clusters) -> None:
        self._kube, self._cache, self._clusters = kube, cache, clusters

    async def reconcile(self, namespace: str, name: str) -> float:
        """One round; seconds until the next, 0 where the resource is no more. Raises KubeError."""
        resource = self._cache.get(self.kind, namespace, name)
        if resource is None:
            self._forget(namespace, name)
            return 0.0
        spec: Spec = self.models[0](**resource["spec"])
        before: State = self.models[1](**(resource.get("status") or {}))
        try:
            if is_going(resource):
                await self._delete(resource, before)
                return 0.0
            state, wait_s = await self._ensure(resource, spec, before)
        except (RefusedError, UnmetError, DaemonError, KubeError) as error:
            if isinstance(error, KubeError) and not (isinstance(error, TakenError) or error.status in REFUSALS):
                raise
            state, message = before.model_copy(), str(error)
            if isinstance(error, RefusedError | TakenError):
                try:
                    await self._take_back(resource, before)
                    state = before.model_copy(update=self._given_nothing(before))
                except DaemonError as why:
                    message = f"{error}; what it was given could not be taken back yet: {why}"
            say(resource, state, before, reason_of(error), message)
            wait_s = again_s(state)
        await write_status(self._kube, self._cache, resource, before, state)
        return wait_s

    def _given_nothing(self, before: State) -> dict[str, Any]:
        fresh = self.models[1]()
        return {name: getattr(fresh, name) for name in ("keys", "owned") if name in type(before).model_fields}

    async def _delete(self, resource: Object, before: State) -> None:
        if self.finalizer not in resource["metadata"].get("finalizers", []):
            return
        cluster = cluster_of(self._cache, resource) or await self._kube.get("S4Cluster", *reference_of(resource))
        if cluster is not None and not is_going(cluster):
            _, daemons = await self._connect(cluster)
            await self._drop(resource, before, cluster, daemons)
        await self._set_finalizer(resource, wanted=False)
        self._forget(resource["metadata"]["namespace"], resource["metadata"]["name"])

    async def _connect(self, cluster: Object) -> tuple[Builder, Daemons]:
        """How to speak to a cluster. Raises DaemonError where that is not known, KubeError."""
        metadata = cluster["metadata"]
        builder = Builder(metadata["namespace"], metadata["name"], metadata["uid"], ClusterSpec(**cluster["spec"]))
        try:
            trusted = await self._clusters.trusted(builder)
        except LostError as error:
            raise DaemonError(0, "", str(error)) from error
        builder = self._clusters.served(builder, trusted)
        return builder, self._clusters.daemons(builder, trusted)

    async def _set_finalizer(self, resource: Object, *, wanted: bool) -> None:
        metadata, kind = resource["metadata"], self.kind
        held = metadata.get("finalizers", [])
        if wanted == (self.finalizer in held):
            return
        kept = [name for name in held if name != self.finalizer] + ([self.finalizer] if wanted else [])
        change: Object = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
        found = await self._kube.patch(kind, metadata["namespace"], metadata["name"], change)
        # else it is gone, and the watch may have said so before
        if kept or not found["metadata"].get("deletionTimestamp"):
            self._cache.see(kind, {"kind": kind, **found})

    # -- what is each kind's own; each raises RefusedError, UnmetError, DaemonError, KubeError

    async def _ensure(self, resource: Object, spec: Spec, before: State) -> tuple[State, float]:
        """Have what a resource asks for: its status, and the seconds until the next round."""
        raise NotImplementedError

    async def _take_back(self, resource: Object, before: State) -> None:
        """Have it have nothing of what it was given; it stays. What of that its status says is taken out of
        `before`."""

    async def _drop(self, resource: Object, before: State, cluster: Object, daemons: Daemons) -> None:
        """Have nothing of it be left."""
        raise NotImplementedError

    def _forget(self, namespace: str, name: str) -> None:
        """What this process knows of one that is no more."""

"""Brings one S4Cluster from what is to what is asked for: look, plan, act, report; again and again.

It keeps in memory only what saves work: when things were checked last, and what was applied. All else is read, so it
may be killed at any moment. What takes something away is fenced: a deletion names the uid that was seen, a change
of the map is one compare-and-swap from the map that it was made for, and a daemon is asked whether a store may stop
right before its pod goes, with the other pods looked at once more.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
import time
from typing import Any

import aiohttp
import msgspec

from s4.cluster import clustermap, planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.coordinator import ConflictError, CoordinatorError
from s4.cluster.keeper import DOCUMENT, MapKeeper
from s4.cluster.kubernetes import KubernetesCoordinator
from s4.cluster.planner import PlanError
from s4.cluster.recovery import Recovery
from s4.cluster.status import ClusterStatus
from s4_operator import events, fences, issued
from s4_operator.cache import Cache
from s4_operator.daemons import DaemonError, Daemons, Door
from s4_operator.kube import Kube, KubeError, Object, TakenError
from s4_operator.manifests import Builder
from s4_operator.memory import CHECK_S, CHECK_SOON_S, Memory
from s4_operator.models import ClusterSpec, size
from s4_operator.observe import claims_of, confirmed, is_of_set, observe, pod, shard_map
from s4_operator.observed import Observed
from s4_operator.plan import Plan, plan
from s4_operator.pods import ADMIN
from s4_operator.report import blocked, report
from s4_operator.secrets_of import Keys, LostError, Secrets, Trusted, trusted_by
from s4_operator.state_models import ClusterState
from s4_operator.steps import TAKES, DeleteClaim, DeletePod, GrowClaim, MakeMap, RetainVolume, Step, changed, in_words
from s4_operator.sweep import sweep

log = logging.getLogger(__name__)

APPLY_AGAIN_S, REJECTED_AGAIN_S = 600.0, 30.0
AT_REST_S, AT_WORK_S = 15.0, 2.0
REFUSALS = (400, 403, 404, 413, 422)  # of one object: the next one may be taken
ADMIN_USER = "admin"


class Clusters:
    """Reconciles S4Clusters. `apis` are the kinds of optional APIs that this Kubernetes has."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        session: aiohttp.ClientSession,
        default_image: str,
        secrets: Secrets,
        apis: frozenset[str] = frozenset(),
        home: str = "",
    ) -> None:
        self._kube, self._cache, self._session, self._image = kube, cache, session, default_image
        self._secrets, self._apis, self._home = secrets, apis, home
        self._memory: dict[tuple[str, str], Memory] = {}

    def sweep(self, namespace: str, name: str) -> None:
        """Have users of Buckets that are no more removed soon."""
        if (namespace, name) in self._memory:
            self._memory[namespace, name].sweep = True

    async def reconcile(self, namespace: str, name: str) -> float:
        """One round; seconds until the next, 0 where the cluster is no more. Raises KubeError, DaemonError."""
        cluster = self._cache.get("S4Cluster", namespace, name)
        if cluster is None or cluster["metadata"].get("deletionTimestamp"):
            self._memory.pop((namespace, name), None)
            return 0.0
        memory = self._memory.setdefault((namespace, name), Memory.of(cluster))
        builder = Builder(namespace, name, cluster["metadata"]["uid"], ClusterSpec(**cluster["spec"]), self._home)
        now_s = time.time()
        try:
            trusted = await self.trusted(builder, self._cache.get("ShardMap", namespace, name))
        except KubeError as error:
            if not (isinstance(error, TakenError | LostError) or error.status in REFUSALS):
                raise
            before = ClusterState(**(cluster.get("status") or {}))
            state = blocked(before, str(error), now_s, cluster["metadata"]["generation"])
            await write_status(self._kube, self._cache, cluster, before, state)
            return AT_REST_S
        await self._reclaim(builder)
        builder = self.served(builder, trusted)
        daemons = self.daemons(builder, trusted)
        status = await _status(daemons)
        await self._check(daemons, memory, status)
        old = time.monotonic() - APPLY_AGAIN_S
        memory.refused = {claim: one for claim, one in memory.refused.items() if one[0] > old}
        memory.cluster = trusted.cluster
        seen = observe(
            self._cache,
            cluster,
            recovery=await _recovery(daemons, shard_map(self._cache.get("ShardMap", namespace, name)), cluster),
            now_s=now_s,
            default_image=self._image,
            status=status,
            served=memory.served,
            certificates=trusted.problem,
            buckets=len(buckets_of(self._cache, namespace, name)),
            sees_all=self._kube.sees({namespace, *builder.spec.allowedNamespaces}),
            refused={claim: why for claim, (_, why) in memory.refused.items()},
        )
        made = plan(seen)
        fewer = seen.replicas is not None and made.replicas < seen.replicas
        lets_go = fewer or any(isinstance(step, DeleteClaim) for step in made.steps)
        if lets_go and not await fences.is_newest(self._kube, self._cache, namespace, builder.names["map"]):
            return AT_WORK_S  # planned for another map: look again before a node, or what is on a volume, is let go
        if not await fences.are_as_seen(self._kube, self._cache, seen, made.steps):
            return AT_WORK_S
        trouble = await self._act(builder, daemons, seen, made, memory)
        up = status is not None and status.health != "down" and seen.map is not None and bool(seen.map.partitions)
        if not trouble and up:
            trouble = await self._users(namespace, name, daemons, trusted, memory)
        await self._report(cluster, seen, made, memory, trouble)
        return AT_WORK_S if made.steps or made.doing or trouble or memory.failing_since else AT_REST_S

    async def _reclaim(self, builder: Builder) -> None:
        """The ShardMap goes with the S4Cluster, or outlives it, as the volumes do."""
        found = self._cache.get("ShardMap", builder.namespace, builder.names["map"])
        change = builder.reclaimed(found) if found is not None else None
        if change is not None:
            found = await self._kube.patch("ShardMap", builder.namespace, builder.names["map"], change)
            self._cache.see("ShardMap", {"kind": "ShardMap", **found})

    async def trusted(self, builder: Builder, shards: Object | None = None) -> Trusted:
        """What the operator needs to talk to a cluster. Raises KubeError."""
        mounted = frozenset(filter(None, (issued.mounted(one["spec"]) for one in self._pods(builder))))
        return await self._secrets.ensure(builder, time.time(), shards, mounted)

    def served(self, builder: Builder, trusted: Trusted) -> Builder:
        """With the certificate that pods have, while the one that they are to have is not there."""
        if not trusted.waits:
            return builder
        found = self._cache.get("StatefulSet", builder.namespace, builder.names["node"])
        pods = [found["spec"]["template"]] if found is not None else self._pods(builder)
        spec = issued.as_served(builder.spec, pods[0]["spec"] if pods else None)
        return Builder(builder.namespace, builder.name, builder.uid, spec, builder.home)

    def _pods(self, builder: Builder) -> list[Object]:
        """A cluster's storage pods."""
        pods = self._cache.list("Pod", builder.namespace, builder.name)
        return [one for one in pods if _is_node(one) and is_of_set(one, builder.name)]

    def daemons(self, builder: Builder, trusted: Trusted) -> Daemons:
        """The daemons of a cluster, as its pods are now."""
        running = sorted(map(pod, self._pods(builder)), key=lambda one: not one.ready)
        admins = [f"[{one.ip}]:{ADMIN}" if ":" in one.ip else f"{one.ip}:{ADMIN}" for one in running if one.ip]
        trust = trusted_by(trusted) if builder.spec.gateway.tls.enabled else None
        return Daemons(
            self._session,
            admins,
            builder.endpoint,
            builder.spec.region,
            trusted.root.access,
            trusted.root.secret,
            trust,
            self._door(builder, trusted),
        )

    def _door(self, builder: Builder, trusted: Trusted) -> Door:
        cluster = self._cache.get("S4Cluster", builder.namespace, builder.name) or {}
        said = (cluster.get("status") or {}).get("version", "").split(" and ")
        # once every node is newer, nothing is said in the clear
        old = any(not one or one.startswith(("0.6.", "0.7.")) for one in said)
        return Door(
            ssl.create_default_context(cadata=trusted.authority),
            f"node.{builder.names['nodes']}.{builder.namespace}.svc",
            old,
        )

    async def _check(self, daemons: Daemons, memory: Memory, status: ClusterStatus | None) -> None:
        """Write and read an object now and then: Ready means that this works."""
        if status is None or not status.stores or status.health in ("down", "at risk"):
            reason = (
                "no daemon answers" if status is None else "; ".join(status.reasons) or "the cluster has no stores yet"
            )
        elif time.monotonic() - memory.checked_at < (CHECK_SOON_S if memory.failing_since else CHECK_S):
            return
        else:
            reason, memory.checked_at = "", time.monotonic()
            try:
                await daemons.check()
            except DaemonError as error:
                reason = str(error)
        memory.heard(reason, time.monotonic())

    # -- acting

    async def _act(self, builder: Builder, daemons: Daemons, seen: Observed, made: Plan, memory: Memory) -> str:
        """What went wrong, in words; the rest is done all the same."""
        trouble = []
        try:
            if rejected := await self._apply(builder, seen, made, memory):
                trouble.append(rejected)
        except KubeError as error:
            trouble.append(str(error))
            memory.guarded = False
        for step in made.steps:
            if isinstance(step, TAKES) and not memory.guarded:
                trouble.append("no pod or claim is deleted until the disruption budget is as it should be")
                break
            try:
                done = await self._step(builder, daemons, seen, step)
            except (KubeError, DaemonError, CoordinatorError, PlanError) as error:
                log.warning("%s/%s: %s: %s", builder.namespace, builder.name, step, error)
                trouble.append(str(error))
                break
            if done:
                log.info("%s/%s: %s", builder.namespace, builder.name, done)
                memory.done.append((step, done))
        return "; ".join(trouble)

    async def _apply(self, builder: Builder, seen: Observed, made: Plan, memory: Memory) -> str:
        """What is somebody else's and was left alone, and what the API server refuses, in words; the rest is as it
        should be. Raises KubeError where it does not answer."""
        objects = [
            one
            for one in builder.all(
                replicas=made.replicas,
                image=made.image,
                max_unavailable=made.max_unavailable,
                leaving=made.leaving,
            )
            if one["kind"] not in ("ServiceMonitor", "PrometheusRule") or one["kind"] in self._apis
        ]
        digest = hashlib.sha256(json.dumps(objects, sort_keys=True).encode()).hexdigest()
        again_s = REJECTED_AGAIN_S if memory.rejected else APPLY_AGAIN_S
        if digest == memory.applied and time.monotonic() - memory.applied_at < again_s:
            return memory.rejected
        memory.applied, memory.guarded, rejected = "", True, []
        for one in objects:
            try:
                if one["kind"] == "StatefulSet" and not (memory.guarded or made.replicas >= (seen.replicas or 0)):
                    continue  # it would take a pod
                if one["kind"] == "StatefulSet" and not await self._may_have(one):
                    digest = ""  # it is gone in a moment, and made anew then
                    continue
                scaled = one["kind"] == "Deployment" and builder.spec.gateway.autoscaled
                value = await (self._have_scaled(one) if scaled else self._kube.have(one))
            except KubeError as error:
                if error.status not in REFUSALS and not isinstance(error, TakenError):
                    raise
                rejected.append(str(error))
                if one["metadata"]["name"] == builder.names["node"] and one["kind"] == "PodDisruptionBudget":
                    memory.guarded = False
                continue
            if one["kind"] == "StatefulSet":
                self._cache.see("StatefulSet", {"kind": "StatefulSet", **value})
        await self._prune(builder, {(one["kind"], one["metadata"]["name"]) for one in objects})
        memory.applied, memory.applied_at, memory.rejected = digest, time.monotonic(), "; ".join(rejected)
        return memory.rejected

    async def _have_scaled(self, wanted: Object) -> Object:
        """A Deployment with as many pods as it has, for a HorizontalPodAutoscaler to say; that field left out, they
        would be one for a moment, as a field that nobody owns any more is. Looked at again where somebody changed it
        meanwhile: what the autoscaler just said would be taken back."""
        while (found := await self._kube.ours(wanted)) is not None:
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            spec = {**wanted["spec"], "replicas": found["spec"].get("replicas") or wanted["spec"]["replicas"]}
            try:
                return await self._kube.have({**wanted, "metadata": {**wanted["metadata"], **version}, "spec": spec})
            except KubeError as error:
                if error.status != 409:
                    raise
        return await self._kube.have(wanted)

    async def _may_have(self, wanted: Object) -> bool:
        """Whether a StatefulSet can become what it is to be. Its claims' size and class can not: the set goes, and
        leaves its pods and claims to the next (volumes.py, migration.py)."""
        found = await self._kube.ours(wanted)
        if found is None:
            return True
        metadata = found["metadata"]
        if metadata.get("deletionTimestamp"):
            return False
        if _claims(found) == _claims(wanted):
            return True
        await self._kube.delete("StatefulSet", metadata["namespace"], metadata["name"], metadata["uid"], orphans=True)
        log.info("%s/%s: made anew around its pods, for its claims", metadata["namespace"], metadata["name"])
        return False

    async def _grow(self, namespace: str, step: GrowClaim, memory: Memory) -> str:
        """Ask for a larger volume. A class that has none says so, and is not asked again for a while."""
        try:
            change = {"metadata": {"uid": step.claim.uid}, "spec": {"resources": {"requests": {"storage": step.size}}}}
            await self._kube.patch("PersistentVolumeClaim", namespace, step.claim.name, change)
        except KubeError as error:
            if error.status not in (403, 422):
                raise
            memory.refused[step.claim.name] = time.monotonic(), str(error)
            log.info("%s/%s cannot grow to %s: %s", namespace, step.claim.name, step.size, error)
            return ""  # the condition VolumesSmaller says so
        return f"{step.claim.name} is to have {step.size}"

    async def _prune(self, builder: Builder, kept: set[tuple[str, str]]) -> None:
        """Remove what a setting that is off now had made."""
        optional = [("Ingress", "s3"), ("NetworkPolicy", "s3"), ("Deployment", "gateway"), ("Service", "gateways")]
        optional += [("PodDisruptionBudget", "gateway"), ("ConfigMap", "dashboard")]
        if builder.spec.gateway.tls.issuerRef is None:
            optional.append(("Certificate", "issued"))
        optional += [(kind, "s3") for kind in ("ServiceMonitor", "PrometheusRule") if kind in self._apis]
        for kind, part in optional:
            if (kind, builder.names[part]) not in kept:
                found = await self._kube.get(kind, builder.namespace, builder.names[part])
                owners = found["metadata"].get("ownerReferences", ()) if found is not None else ()
                if found is not None and any(one["uid"] == builder.uid for one in owners):
                    await self._kube.delete(kind, builder.namespace, builder.names[part], found["metadata"]["uid"])

    async def _step(self, builder: Builder, daemons: Daemons, seen: Observed, step: Step) -> str:
        """What was done, in words; empty where it has to wait."""
        if isinstance(step, MakeMap):
            return await self._make_map(builder)
        if isinstance(step, DeletePod):
            return await self._delete_pod(builder, daemons, step)
        if isinstance(step, RetainVolume):
            await self._kube.patch(
                "PersistentVolume", "", step.volume, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
            )
            return f"the volume {step.volume} is kept"
        if isinstance(step, DeleteClaim):
            await self._kube.delete("PersistentVolumeClaim", builder.namespace, step.claim.name, step.claim.uid)
            return f"the claim {step.claim.name} was deleted"
        if isinstance(step, GrowClaim):
            return await self._grow(builder.namespace, step, self._memory[builder.namespace, builder.name])
        keeper = await MapKeeper.open(self._coordinator(builder))
        if seen.map is None or keeper.current.stores != seen.map.stores or keeper.current.freeze != seen.map.freeze:
            return ""  # the plan was made for another map: look again
        before = keeper.current
        made = await asyncio.to_thread(changed, step, before)  # the first plan of thousands of stores takes seconds
        after = await keeper.change(lambda old: made if old == before else changed(step, old))
        return "" if after == before else in_words(step, after)

    def _coordinator(self, builder: Builder) -> KubernetesCoordinator:
        return KubernetesCoordinator(builder.namespace, builder.names["map"], self._kube.api, planner=True)

    async def _make_map(self, builder: Builder) -> str:
        spec, coordinator = builder.spec, self._coordinator(builder)
        identity = self._memory[builder.namespace, builder.name].cluster
        shape = spec.erasure.data, spec.erasure.parity, spec.partitions, spec.metadataReplicas or 0
        made = planner.new(identity, *shape)
        try:
            await coordinator.replace(DOCUMENT, clustermap.encode(made), 0)
        except ConflictError:
            return ""  # it is there, and the cache will know; or it was kept from a cluster of that name
        return "the shard map was made"

    async def _delete_pod(self, builder: Builder, daemons: Daemons, step: DeletePod) -> str:
        namespace = builder.namespace
        if step.stores:
            others = await self._kube.list(
                "Pod", namespace, f"s4.dev/cluster={builder.name},app.kubernetes.io/component=node"
            )
            away = [
                one.name
                for one in map(pod, (one for one in others if is_of_set(one, builder.name)))
                if not one.ready and one.name not in (step.pod.name, *step.besides)
            ]
            reasons = [f"{', '.join(away)} is not ready"] if away else await daemons.is_safe_to_stop(*step.stores)
            if reasons:
                log.info("%s/%s: %s stays for now: %s", namespace, builder.name, step.pod.name, "; ".join(reasons))
                return ""
        await self._kube.delete("Pod", namespace, step.pod.name, step.pod.uid, 0 if step.force else None)
        return f"the pod {step.pod.name} was deleted"

    # -- users

    async def _users(self, namespace: str, name: str, daemons: Daemons, trusted: Trusted, memory: Memory) -> str:
        """The administrator's keys are those of its Secret, and users of Buckets that are no more are gone."""
        wanted = repr(trusted.admin)
        try:
            if trusted.admin is None:
                return "the Secret of credentialsSecretRef needs accessKey and secretKey"
            if wanted != memory.keys or time.monotonic() - memory.keys_at > APPLY_AGAIN_S:
                await ensure_user(daemons, ADMIN_USER, ["SuperUser"], [trusted.admin])
                memory.keys, memory.keys_at = wanted, time.monotonic()
                memory.sweep = True
            if memory.sweep:
                cluster = self._cache.get("S4Cluster", namespace, name)
                allowed = ClusterSpec(**cluster["spec"]).allowedNamespaces if cluster is not None else ["*"]
                await sweep(self._kube, daemons, f"{namespace}/{name}", {namespace, *allowed})
                memory.sweep = False
        except (DaemonError, KubeError) as error:
            return str(error)
        return ""

    # -- reporting

    async def _report(self, cluster: Object, seen: Observed, made: Plan, memory: Memory, trouble: str) -> None:
        filled = seen.status.filled if seen.status is not None else 1.0
        at, before = memory.filled
        remaining = None
        if filled < 1.0 and filled > before and at:
            remaining = int((1.0 - filled) * (time.monotonic() - at) / (filled - before))
        if filled >= 1.0 or not at or filled < before:
            memory.filled = (time.monotonic(), filled)
        state = report(seen, made, cluster["metadata"]["generation"], remaining, trouble)
        await write_status(self._kube, self._cache, cluster, seen.before, state)
        told = events.of_steps(memory.done) + events.of_conditions(memory.said, state.conditions)
        memory.said = events.known(memory.said, state.conditions)
        memory.done.clear()
        for one, stamp_s in zip(told, events.stamps(len(told), seen.now_s, memory.told_s), strict=True):
            await self._kube.tell(cluster, one.reason, one.message, events.text(stamp_s), warning=one.warning)
            memory.told_s = stamp_s


async def write_status(kube: Kube, cache: Cache, resource: Object, before: Any, state: Any) -> None:
    """Write a status where it differs. Fields that are null are left out, as the API server keeps them."""
    if state == before:
        return
    metadata = resource["metadata"]
    value = {name: _over(part, getattr(before, name)) for name, part in state.model_dump().items()}
    found = await kube.patch(resource["kind"], metadata["namespace"], metadata["name"], {"status": value}, status=True)
    cache.see(resource["kind"], {"kind": resource["kind"], **found})


def _over(part: Any, before: Any) -> Any:
    """What a merge makes `part` of `before`: a mapping loses what is not named only where that is said."""
    return {**dict.fromkeys(before), **part} if isinstance(part, dict) and isinstance(before, dict) else part


async def ensure_user(daemons: Daemons, name: str, grants: list[str], keys: list[Keys]) -> None:
    """A user with these keys and no others; new keys are there before old ones go."""
    await daemons.put_user(name, grants)
    for one in keys:
        await daemons.put_key(name, one.access, one.secret)
    for access in (await daemons.users()).get(name, []):
        if access not in {one.access for one in keys}:
            await daemons.delete_key(name, access)


def buckets_of(cache: Cache, namespace: str, name: str) -> list[Object]:
    """Buckets that name a cluster."""
    found = []
    for one in cache.list("Bucket"):
        reference = one["spec"]["clusterRef"]
        if reference["name"] == name and (reference.get("namespace") or one["metadata"]["namespace"]) == namespace:
            found.append(one)
    return found


def _claims(found: Object) -> tuple[int, str | None]:
    """Bytes and class that a StatefulSet asks for each of its claims."""
    asked = claims_of(found)
    return size(asked["resources"]["requests"]["storage"]), asked.get("storageClassName")


def _is_node(value: Object) -> bool:
    return bool(value["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "node")


async def _recovery(daemons: Daemons, current: ClusterMap | None, cluster: Object) -> Recovery | None:
    """What stores hold of a map that was lost; nothing where the map plans with stores, None where nobody says."""
    if current is None or current.partitions:
        return Recovery()
    try:
        return await daemons.recovery(confirmed(cluster))
    except (DaemonError, msgspec.ValidationError) as error:
        log.info("no daemon says what its stores hold: %s", error)
        return None


async def _status(daemons: Daemons) -> ClusterStatus | None:
    try:
        return await daemons.status()
    except (DaemonError, msgspec.ValidationError) as error:
        log.info("no daemon says how the cluster is: %s", error)
        return None

"""A model of Kubernetes and of the daemons, as far as the plan sees them, with faults: hosts that die and come back,
disks that are wiped, images that do not start, people who change their minds."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from msgspec.structs import replace

from s4.cluster import planner
from s4.cluster.clustermap import ClusterMap, Partition
from s4.cluster.placement import GONE, SERVING
from s4.cluster.planner import PlanError
from s4.cluster.status import ClusterStatus, StoreStatus
from s4_operator.models import ClusterSpec, ClusterState
from s4_operator.observed import Claim, Host, Observed, Pod
from s4_operator.plan import Plan, plan
from s4_operator.steps import DeleteClaim, DeletePod, MakeMap, RetainVolume, Step, changed, in_words

HOSTS = 8


class UnsafeError(AssertionError):
    """A step took away what had to stay."""


@dataclass
class ModelPod:
    uid: int
    ordinal: int
    revision: str
    host: str = ""
    store: str = ""
    created: float = 0.0


@dataclass
class ModelHost:
    alive: bool = True
    since: float = 0.0
    disk: dict[int, str] = field(default_factory=dict)  # store by claim uid


class Model:
    """One cluster. `broken` are images whose pods do not become ready."""

    def __init__(self, seed: int, nodes: int = 4) -> None:
        self.random, self.now = random.Random(seed), 0.0
        self.spec = ClusterSpec(
            nodes=nodes,
            erasure={"data": 2, "parity": 2},
            partitions=4,
            failure={"replaceAfter": "30s"},
            image="one",
            upgrade={"progressDeadline": "60s"},
        )
        self.hosts = {f"h{number}": ModelHost() for number in range(HOSTS)}
        self.pods: dict[int, ModelPod] = {}
        self.claims: dict[int, tuple[int, str]] = {}  # (uid, host)
        self.deleting: set[int] = set()
        self.replicas: int | None = None
        self.revision = ""
        self.map: ClusterMap | None = None
        self.state, self.numbers, self.broken = ClusterState(), 0, {"none"}
        self.heals: set[int] = set()  # positions that a store lost, by partition
        self.log: list[str] = []

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # -- what the plan sees

    def runs(self, pod: ModelPod) -> bool:
        return bool(pod.host) and self.hosts[pod.host].alive and pod.revision not in self.broken

    def up(self) -> set[str]:
        return {pod.store for pod in self.pods.values() if pod.store and self.runs(pod)}

    def seen(self) -> Observed:
        pods = tuple(
            Pod(
                f"c-node-{pod.ordinal}",
                pod.ordinal,
                str(pod.uid),
                "ip",
                pod.host,
                self.runs(pod),
                pod.revision,
                pod.revision,
                False,
                "ErrImagePull" if pod.host and pod.revision in self.broken else "",
                pod.created,
            )
            for pod in sorted(self.pods.values(), key=lambda one: one.ordinal)
        )
        claims = tuple(
            Claim(
                f"data-c-node-{ordinal}", ordinal, str(uid), f"pv{uid}" if host else "", host, ordinal in self.deleting
            )
            for ordinal, (uid, host) in self.claims.items()
        )
        hosts = {name: Host(name, None if one.alive else one.since) for name, one in self.hosts.items()}
        return Observed(
            "c",
            self.spec,
            self.state,
            self.now,
            self.spec.image or "",
            self.replicas,
            self.revision,
            True,
            pods,
            claims,
            hosts,
            self.map,
            self.status(),
        )

    def status(self) -> ClusterStatus | None:
        up = self.up()
        if not up or self.map is None:
            return None
        stores = [
            StoreStatus(name, one.node, one.state, name in up, one.domain, one.address, "1", 0, 0, 0, 0, 0, 0, 0)
            for name, one in self.map.stores.items()
            if one.state != GONE
        ]
        return ClusterStatus("c", "2+2", 4, "ok", [], self.map.freeze, 0, len(self.heals), 0, 1.0, stores)

    # -- one round of everybody

    def operate(self) -> Plan:
        """The operator looks, plans and acts; it may die between any two steps."""
        made = plan(self.seen())
        self.replicas = made.replicas
        self.revision = made.image
        for step in made.steps:
            if self.random.random() < 0.1:
                break
            before = self.lowest()
            self.step(step)
            if self.lowest() < min(before, (3, 2)):
                raise UnsafeError(f"{step} took the least of any partition from {before} to {self.lowest()}")
        whole = len(self.pods) >= self.spec.nodes and all(map(self.runs, self.pods.values())) and not made.outdated
        images = {pod.revision for pod in self.pods.values()}
        self.state = ClusterState(
            image=images.pop() if whole and len(images) == 1 else self.state.image, blockedImage=made.blocked_image
        )
        return made

    def lowest(self) -> tuple[int, int]:
        """The least of live shards, and of live copies of metadata, that any partition has."""
        if self.map is None or not self.map.partitions:
            return (9, 9)
        up = self.up()
        return (
            min(sum(one in up for one in part.config.members) for part in self.map.partitions),
            min(sum(one in up for one in part.config.in_sync) for part in self.map.partitions),
        )

    def step(self, step: Step) -> None:
        self.log.append(f"{self.now:.0f} {step}")
        if isinstance(step, MakeMap):
            self.map = self.map or planner.new("c", 2, 2, 4)
        elif isinstance(step, DeletePod):
            if str(self.pods.get(step.pod.ordinal, ModelPod(-1, 0, "")).uid) == step.pod.uid:
                del self.pods[step.pod.ordinal]
        elif isinstance(step, DeleteClaim):
            if str(self.claims.get(step.claim.ordinal, (-1, ""))[0]) == step.claim.uid:
                self.deleting.add(step.claim.ordinal)  # it is there until its pod is gone
        elif not isinstance(step, RetainVolume):
            assert self.map is not None
            try:
                self.map = changed(step, self.map)
                words = in_words(step, self.map)
                assert type(step).__name__ not in words and not set("='(") & set(words), "events are read by people"
                self.log.append(f"   {words}")
            except PlanError as error:
                self.log.append(f"   {error}")

    def kubernetes(self) -> None:
        """StatefulSet controller, scheduler and kubelets."""
        for ordinal in [one for one in self.pods if one >= (self.replicas or 0)]:
            del self.pods[ordinal]
        for ordinal in range(self.replicas or 0):
            if ordinal not in self.pods:
                if ordinal in self.deleting:
                    self.deleting.remove(ordinal)
                    self.claims.pop(ordinal, None)
                self.pods[ordinal] = ModelPod(self.number(), ordinal, self.revision, created=self.now)
                self.claims.setdefault(ordinal, (self.number(), ""))
        taken = {pod.host for pod in self.pods.values()}
        for pod in self.pods.values():
            if pod.host or self.random.random() < 0.3:
                continue
            uid, host = self.claims.setdefault(pod.ordinal, (self.number(), ""))
            free = [
                name
                for name, one in self.hosts.items()
                if one.alive and name not in taken and (not host or name == host)
            ]
            if free:
                pod.host = self.random.choice(free)
                taken.add(pod.host)
                self.claims[pod.ordinal] = (uid, pod.host)
        for pod in self.pods.values():
            if self.runs(pod) and self.map is not None:
                disk, uid = self.hosts[pod.host].disk, self.claims[pod.ordinal][0]
                pod.store = disk.setdefault(uid, f"s{self.number()}")
                self.map = planner.registered(self.map, pod.store, f"c-node-{pod.ordinal}", "a:1", pod.host, 1.0)

    def daemons(self) -> None:
        """Primaries follow the plan where they can: one position of a partition at a time."""
        if self.map is None or not self.map.partitions:
            return
        up, gone, partitions = self.up(), set(self.map.in_state(GONE)), list(self.map.partitions)
        for number, one in enumerate(partitions):
            live = [store for store in one.config.members if store in up]
            if len(live) < 2 or self.random.random() < 0.3 or not any(store in up for store in one.config.in_sync):
                continue
            partitions[number] = self._tended(one, up, gone)
        self.map = replace(self.map, partitions=tuple(partitions))

    def _tended(self, one: Partition, up: set[str], gone: set[str]) -> Partition:
        assert self.map is not None
        members = ["" if store in gone else store for store in one.config.members]
        for place, (held, wanted) in enumerate(zip(members, one.wanted, strict=True)):
            if held != wanted and wanted in up and not (self.map.freeze and held in up):
                members[place] = wanted
                break
        keep = [
            store
            for store in one.config.in_sync
            if store not in gone and (store in up or len([s for s in one.config.in_sync if s in up]) < 2)
        ]
        in_sync = [*keep, *(store for store in one.wanted[:3] if store in up and store not in keep)]
        surplus = [store for store in in_sync if store not in one.wanted[:3]]
        if surplus and len(in_sync) > 3:
            in_sync.remove(surplus[0])
        config = replace(one.config, members=tuple(members), in_sync=tuple(in_sync), eligible=())
        if config == one.config:
            return one
        return replace(one, revision=one.revision + 1, config=replace(config, epoch=config.epoch + 1))

    # -- faults, within what is promised

    def trouble(self) -> None:
        kind = self.random.choice(("die", "wipe", "return", "scale", "image", "image", "vanish"))
        names = list(self.hosts)
        dead = [name for name, one in self.hosts.items() if not one.alive]
        whole = self.map is not None and bool(self.map.partitions) and self.lowest() >= (4, 3)
        if kind in ("die", "wipe") and not dead and whole:
            host = self.hosts[self.random.choice(names)]
            host.alive, host.since = False, self.now
            if kind == "wipe":
                host.disk.clear()
            self.log.append(f"{self.now:.0f} {kind} {[name for name, one in self.hosts.items() if one is host]}")
        elif kind == "return" and dead:
            self.hosts[dead[0]].alive = True
        elif kind == "scale":
            self.spec = self.spec.model_copy(update={"nodes": self.random.randrange(4, 7)})
        elif kind == "image":
            self.spec = self.spec.model_copy(update={"image": self.random.choice(("one", "two", "three", "none"))})
        elif kind == "vanish" and self.pods and whole:
            del self.pods[self.random.choice(list(self.pods))]

    def round(self, *, troubled: bool) -> Plan:
        self.now += 5.0
        if troubled and self.random.random() < 0.25:
            self.trouble()
        made = self.operate() if self.random.random() < 0.8 else Plan(0, "")
        self.kubernetes()
        self.daemons()
        return made

    def is_as_wanted(self) -> bool:
        if self.map is None or not self.map.partitions:
            return False
        return (
            self.revision == self.spec.image
            and self.replicas == self.spec.nodes
            and len(self.pods) == self.spec.nodes
            and all(self.runs(pod) and pod.revision == self.spec.image for pod in self.pods.values())
            and {pod.store for pod in self.pods.values()} == set(self.map.in_state(SERVING))
            and not self.map.freeze
            and all(one.config.members == one.wanted for one in self.map.partitions)
        )

"""A model of Kubernetes and of the daemons, as far as the plan sees them, with faults: hosts that die and come back,
disks that are wiped, images that do not start, people who drain hosts and change their minds. A host may have several
disks."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from msgspec.structs import replace

from kube.machines import ModelHost, ModelPod, UnsafeError, tended
from s4.cluster import planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.placement import DRAINING, GONE, SERVING
from s4.cluster.planner import PlanError
from s4.cluster.status import ClusterStatus, StoreStatus
from s4_operator import migration
from s4_operator.models import ClusterSpec, size
from s4_operator.observed import Claim, Host, Observed, Pod
from s4_operator.plan import Plan, plan
from s4_operator.state_models import ClusterState
from s4_operator.steps import (
    AddStores,
    DeleteClaim,
    DeletePod,
    GrowClaim,
    MakeMap,
    RetainVolume,
    Step,
    changed,
    in_words,
)

HOSTS = 8


class Model:
    """One cluster. `broken` are images whose pods do not become ready, `lacking` shards that wait for a store. With
    `copies` people change their minds about the copies of the metadata, too."""

    def __init__(self, seed: int, nodes: int = 4, disks: int = 1, unit: str = "node", *, copies: bool = False) -> None:
        self.random, self.now = random.Random(seed), 0.0
        self.spec = ClusterSpec(
            nodes=nodes,
            erasure={"data": 2, "parity": 2},
            partitions=4,
            failure={"replaceAfter": "30s"},
            image="one",
            upgrade={"progressDeadline": "60s", "unit": unit},
            storage={"disksPerHost": disks},
        )
        self.copies, self.version = copies, "0.8.0"
        self.budget, self.leaving, self.budget_is_new = 0, frozenset[str](), False
        self.lacking = Counter[str]()
        self.sizes, self.used = dict[str, int](), dict[str, int]()
        self.hosts = {f"h{number}": ModelHost() for number in range(HOSTS)}
        self.pods: dict[int, ModelPod] = {}
        self.claims: dict[int, tuple[int, str]] = {}  # (uid, host)
        self.deleting: set[int] = set()
        self.asked, self.grown = dict[int, int](), dict[int, int]()  # bytes of volumes, by their claims' uids
        self.classes, self.template_class = dict[int, str](), ""  # of volumes, and of those that the StatefulSet makes
        self.migrates = False
        self.replicas: int | None = None
        self.revision = ""
        self.map: ClusterMap | None = None
        self.state, self.numbers, self.broken = ClusterState(), 0, {"none", "mute"}
        self.heals: set[int] = set()  # positions that a store lost, by partition
        self.remade: dict[str, str] = {}  # hosts of lost stores that are made again elsewhere
        self.log: list[str] = []

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # -- what the plan sees

    def runs(self, pod: ModelPod) -> bool:
        host = self.hosts[pod.host] if pod.host else ModelHost(alive=False)
        return host.alive and pod.image not in self.broken and not (pod.ending and not host.silent)

    def ready(self, pod: ModelPod) -> bool:
        """As Kubernetes has it."""
        return self.runs(pod) and not self.hosts[pod.host].silent and not pod.ending

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
                self.ready(pod),
                pod.revision,
                pod.image,
                pod.ending,
                "ErrImagePull" if pod.host and pod.image == "none" else "",
                pod.created,
                pod.company == 1,
            )
            for pod in sorted(self.pods.values(), key=lambda one: one.ordinal)
        )
        claims = tuple(
            Claim(
                f"data-c-node-{ordinal}",
                ordinal,
                str(uid),
                f"pv{uid}" if host else "",
                host,
                ordinal in self.deleting,
                self.asked.setdefault(uid, self.volume_bytes),
                self.grown.setdefault(uid, self.asked[uid]) if host else 0,
                storage_class=self.classes.setdefault(uid, self.template_class),
            )
            for ordinal, (uid, host) in self.claims.items()
        )
        hosts = {
            name: Host(name, None if one.alive and not one.silent else one.since, not one.cordoned, "", one.since)
            for name, one in self.hosts.items()
        }
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
            said={name: one.domain for name, one in self.map.stores.items()} if self.map is not None else {},
            template_class=self.template_class,
            template_image=self.revision.partition("+")[0],
        )

    def space(self, store: str) -> tuple[int, int, int]:
        """Bytes used, free, and in all; nobody says where `sizes` has none."""
        total, used = self.sizes.get(store, 0), self.used.get(store, 0)
        return used, total - used, total

    def status(self) -> ClusterStatus | None:
        up = self.up()
        if not up or self.map is None:
            return None
        stores = [
            StoreStatus(
                name,
                one.node,
                one.state,
                name in up,
                one.domain,
                one.address,
                self.version,
                0,
                0,
                0,
                0,
                *self.space(name),
            )
            for name, one in self.map.stores.items()
            if one.state != GONE
        ]
        lacking = dict(self.lacking)
        heals = len(self.heals) + self.lacking.total()
        return ClusterStatus("c", "2+2", 4, "ok", [], self.map.freeze, 0, heals, 0, 1.0, stores, heals_of=lacking)

    # -- one round of everybody

    def operate(self) -> Plan:
        """The operator looks, plans and acts; it may die between any two steps."""
        made = plan(self.seen())
        self.replicas = made.replicas
        if self.template_class != (self.spec.storage.storageClassName or ""):
            self.replicas, self.template_class = None, self.spec.storage.storageClassName or ""  # made anew in a while
        self.write_budget(made)
        disks = self.spec.storage.disksPerHost
        self.revision = made.image + (f"+{disks}" if disks != 1 else "")
        for step in made.steps:
            if self.random.random() < 0.1:
                break
            before = self.lowest()
            self.step(step)
            if self.lowest() < min(before, (3, 2)):
                raise UnsafeError(f"{step} took the least of any partition from {before} to {self.lowest()}")
        whole = len(self.pods) >= self.spec.nodes and all(map(self.runs, self.pods.values())) and not made.outdated
        images = {pod.image for pod in self.pods.values()}
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
                self.end(step.pod.ordinal, force=step.force)
        elif isinstance(step, DeleteClaim):
            if str(self.claims.get(step.claim.ordinal, (-1, ""))[0]) == step.claim.uid:
                self.lets_go(step)
                self.makes_again(step)
                self.deleting.add(step.claim.ordinal)  # it is there until its pod is gone
        elif isinstance(step, GrowClaim):
            growing = [uid for uid, had in self.grown.items() if had < self.asked[uid]]
            assert not growing or growing == [int(step.claim.uid)], "one volume after the other"
            self.asked[int(step.claim.uid)] = size(step.size)
        elif not isinstance(step, RetainVolume):
            assert self.map is not None
            self.is_kept(step)
            try:
                self.map = changed(step, self.map)
                words = in_words(step, self.map)
                assert type(step).__name__ not in words and not set("='(") & set(words), "events are read by people"
                self.log.append(f"   {words}")
            except PlanError as error:
                self.log.append(f"   {error}")

    def end(self, ordinal: int, *, force: bool = False) -> None:
        """Delete a pod, as Kubernetes does: it is there until its kubelet has ended it, or nobody asks that."""
        if force:
            del self.pods[ordinal]
        else:
            self.pods[ordinal].ending = True

    def is_kept(self, step: Step) -> None:
        """Nothing comes to be on a volume whose claim goes with its pod."""
        stores = step.stores if isinstance(step, AddStores) else (getattr(step, "instead", ""),)
        for one in self.deleting:
            if one in self.pods and self.pods[one].store and self.pods[one].store in stores:
                raise UnsafeError(f"{step} puts something on a volume that goes with c-node-{one}")

    def lets_go(self, step: DeleteClaim) -> None:
        """A claim whose store answers goes once nothing is on it, with everything whole elsewhere."""
        store = next((pod.store for pod in self.pods.values() if pod.ordinal == step.claim.ordinal), "")
        if self.map is None or store not in self.up():
            return
        for one in self.map.partitions:
            if store in (*one.config.members, *one.config.in_sync, *one.wanted):
                raise UnsafeError(f"{step.claim.name} was let go with what is on it")
        if self.lowest() < (4, 3) or self.lacking or self.heals:
            raise UnsafeError(f"{step.claim.name} was let go while the least of any partition is {self.lowest()}")
        held = [one for one in self.claims if one != step.claim.ordinal and one in self.deleting]
        if any(self.pods[one].store in self.up() for one in held if one in self.pods):
            raise UnsafeError(f"{step.claim.name} was let go beside {held}")

    def makes_again(self, step: DeleteClaim) -> None:
        """Hosts that are dead are made again one after the other (failure.maxConcurrent)."""
        host = self.claims[step.claim.ordinal][1]
        store = self.hosts[host].disk.get(int(step.claim.uid), "") if host else ""
        if self.map is None or not store or self.hosts[host].alive:
            return
        held = self.map.in_state(SERVING, DRAINING)
        there = {f"c-node-{one}": at for one, (_, at) in self.claims.items() if one not in self.deleting}
        self.remade = {  # but those whose new volume is where the old one was: nobody can tell
            one: at for one, at in self.remade.items() if one in held and there.get(self.map.stores[one].node) != at
        }
        if others := set(self.remade.values()) - {host}:
            raise UnsafeError(f"{step.claim.name} of {host} is made again while that of {others} is")
        if store in held:
            self.remade[store] = host

    @property
    def volume_bytes(self) -> int:
        return size(self.spec.storage.size)

    def kubernetes(self) -> None:
        """StatefulSet controller, scheduler and kubelets; who provides volumes."""
        for ordinal, pod in list(self.pods.items()):
            host = self.hosts[pod.host] if pod.host else ModelHost()
            if pod.ending and host.alive and not host.silent and self.random.random() < 0.6:
                del self.pods[ordinal]
        for uid, wanted in self.asked.items():
            if uid in self.grown and self.random.random() < 0.5:
                self.grown[uid] = wanted
        if self.replicas is None:  # the set is gone, and its pods are nobody's
            return
        for ordinal in [one for one in self.pods if one >= (self.replicas or 0)]:
            self.end(ordinal)
        for ordinal in range(self.replicas or 0):
            if ordinal not in self.pods:
                if ordinal in self.deleting:
                    if self.random.random() < 0.3:
                        continue  # somebody holds the claim for a while, and no pod is made beside it
                    self.deleting.remove(ordinal)
                    self.claims.pop(ordinal, None)
                company = int(self.revision.partition("+")[2] or 1)
                self.pods[ordinal] = ModelPod(self.number(), ordinal, self.revision, created=self.now, company=company)
                self.claims.setdefault(ordinal, (self.number(), ""))
        for pod in self.pods.values():
            if pod.host or self.random.random() < 0.3:
                continue
            uid, host = self.claims.setdefault(pod.ordinal, (self.number(), ""))
            free = [
                name
                for name, one in self.hosts.items()
                if one.alive
                and not one.silent
                and not one.cordoned
                and (not host or name == host)
                and self.has_room(name, pod)
            ]
            if free:
                least = min(self.count(name) for name in free)
                pod.host = self.random.choice([name for name in free if self.count(name) == least])
                self.claims[pod.ordinal] = (uid, pod.host)
        for pod in self.pods.values():
            if self.runs(pod) and self.map is not None:
                disk, uid = self.hosts[pod.host].disk, self.claims[pod.ordinal][0]
                pod.store = disk.setdefault(uid, f"s{self.number()}")
                self.map = planner.registered(self.map, pod.store, f"c-node-{pod.ordinal}", "a:1", pod.host, 1.0)

    def count(self, host: str) -> int:
        return sum(pod.host == host for pod in self.pods.values())

    def has_room(self, host: str, pod: ModelPod) -> bool:
        others = [one for one in self.pods.values() if one.host == host]
        return all(len(others) < one.company for one in (pod, *others) if one is pod or one.company == 1)

    def write_budget(self, made: Plan) -> None:
        self.budget, self.leaving, self.budget_is_new = made.max_unavailable, frozenset(made.leaving), True

    def evict(self) -> None:
        """`kubectl drain` of what is cordoned: what the disruption budget, as it was written last, lets go. What was lost
        since then comes on top: everything stays readable."""
        for pod in list(self.pods.values()):
            if not pod.host or not self.hosts[pod.host].cordoned or pod.ending or not self.runs(pod):
                continue
            name = f"c-node-{pod.ordinal}"
            others = [one for one in self.pods.values() if f"c-node-{one.ordinal}" not in self.leaving]
            healthy = sum(self.runs(one) and one.ordinal < (self.replicas or 0) for one in others)
            if name not in self.leaving and (self.replicas is None or healthy <= self.replicas - self.budget):
                continue  # of pods without a StatefulSet no budget lets any go
            before = self.lowest()
            self.end(pod.ordinal)
            self.log.append(f"{self.now:.0f} {name} was evicted from {pod.host}")
            if self.lowest() < min(before, (3, 2) if self.budget_is_new else (2, 1)):
                raise UnsafeError(f"an eviction took the least of any partition from {before} to {self.lowest()}")

    def writes(self) -> None:
        """What is written leaves shards that wait for stores that are away, and is made good when they are back."""
        if self.map is None or not self.map.partitions:
            return
        up, held = self.up(), {store for one in self.map.partitions for store in one.config.members}
        for store, one in self.map.stores.items():
            if one.state == GONE or store not in held or store in up:
                if one.state == GONE or self.random.random() < 0.5:
                    self.lacking.pop(store, None)
            elif self.random.random() < 0.3:
                self.lacking[store] += 1

    def daemons(self) -> None:
        """Primaries follow the plan where they can: one position of a partition at a time."""
        if self.map is None or not self.map.partitions:
            return
        up, gone, partitions = self.up(), set(self.map.in_state(GONE)), list(self.map.partitions)
        for number, one in enumerate(partitions):
            live = [store for store in one.config.members if store in up]
            if len(live) < 2 or self.random.random() < 0.3 or not any(store in up for store in one.config.in_sync):
                continue
            partitions[number] = tended(self.map, one, up, gone)
        self.map = replace(self.map, partitions=tuple(partitions))

    # -- faults, within what is promised

    def trouble(self) -> None:
        kinds = ["die", "wipe", "return", "scale", "image", "image", "vanish", "silent", "upgrade"]
        disks = self.disks
        kinds += ["drain", "drain", "uncordon", "disk"] * (disks > 1) + ["class", "class", "migrate"] * self.migrates
        kind = self.random.choice(kinds + ["copies"] * self.copies)
        names = list(self.hosts)
        dead = [name for name, one in self.hosts.items() if not one.alive]
        whole = self.map is not None and bool(self.map.partitions) and self.lowest() >= (4, 3)
        self.budget_is_new = False
        if kind in ("die", "wipe") and not dead and whole:
            lost = self.random.sample(names, self.random.choice((1, 1, 2)) if kind == "die" else 1)
            for host in map(self.hosts.__getitem__, lost):
                host.alive, host.since = False, self.now
                if kind == "wipe":
                    host.disk.clear()
            self.log.append(f"{self.now:.0f} {kind} {lost}")
        elif kind == "return":
            for name, host in self.hosts.items():
                if host.alive or name == (dead or names)[0]:
                    host.comes_back(self.now)
        elif kind == "silent":
            for host in self.random.sample(list(self.hosts.values()), self.random.randrange(1, HOSTS + 1)):
                host.silent, host.since = True, self.now if host.alive else host.since
        elif kind == "scale":
            self.spec = self.spec.model_copy(update={"nodes": disks * self.random.randrange(4, 7)})
        elif kind == "image":
            self.spec = self.spec.model_copy(
                update={"image": self.random.choice(("one", "two", "three", "none", "mute"))}
            )
        elif kind == "upgrade":
            strategy, pause = self.random.choice(("Supervised", "Automatic")), self.random.random() < 0.3
            self.upgrades(strategy=strategy, pause=pause)
        elif kind == "class":
            self.change(storageClassName=self.random.choice(("slow", "fast")), migrate=True)
        elif kind == "migrate":
            self.change(migrate=False)
        elif kind == "copies":
            self.spec = self.spec.model_copy(update={"metadataReplicas": self.random.choice((None, 3, 4))})
        elif kind == "drain":
            self.hosts[self.random.choice(names)].cordoned = True
        elif kind == "uncordon":
            for host in self.hosts.values():
                host.cordoned = False
        elif kind == "disk" and whole and self.pods:  # another one in its place, empty
            lost = self.random.choice(list(self.pods.values()))
            if lost.host:
                self.hosts[lost.host].disk.pop(self.claims[lost.ordinal][0], None)
                del self.pods[lost.ordinal]
        elif kind == "vanish" and self.pods and whole:
            del self.pods[self.random.choice(list(self.pods))]

    def change(self, **storage: object) -> None:
        """Another `storage` of the spec."""
        self.spec = self.spec.model_copy(update={"storage": self.spec.storage.model_copy(update=storage)})

    def upgrades(self, **upgrade: object) -> None:
        """Another `upgrade` of the spec."""
        self.spec = self.spec.model_copy(update={"upgrade": self.spec.upgrade.model_copy(update=upgrade)})

    def round(self, *, troubled: bool) -> Plan:
        self.now += 5.0
        if troubled and self.random.random() < 0.25:
            self.trouble()
        made = self.operate() if self.random.random() < 0.8 else Plan(0, "")
        self.evict()
        self.kubernetes()
        self.daemons()
        if self.disks > 1:
            self.writes()
        return made

    @property
    def disks(self) -> int:
        disks = self.spec.storage.disksPerHost
        assert isinstance(disks, int)
        return disks

    def rounds(self, count: int, *, troubled: bool) -> None:
        for _ in range(count):
            self.round(troubled=troubled)

    def recover(self, **spec: Any) -> None:
        """The trouble is over, and somebody asks for another image, and whatever else of the spec."""
        for host in self.hosts.values():
            host.comes_back(self.now)
            host.cordoned = False
        self.spec = self.spec.model_copy(update={"image": "two", **spec})
        self.upgrades(pause=False)

    def is_as_wanted(self) -> bool:
        if self.map is None or not self.map.partitions:
            return False
        return (
            self.revision.partition("+")[0] == self.spec.image
            and self.replicas == self.spec.nodes
            and len(self.pods) == self.spec.nodes
            and all(self.runs(pod) and pod.revision == self.revision for pod in self.pods.values())
            and {pod.store for pod in self.pods.values()} == set(self.map.in_state(SERVING))
            and not self.map.freeze
            and all(one.config.members == one.wanted for one in self.map.partitions)
            and self.map.replicas == (self.spec.metadataReplicas or 3)
            and all(len(one.config.in_sync) == self.map.replicas for one in self.map.partitions)
            and not self.lacking
            and not planner.crowded(self.map)
            and all(self.grown.get(uid) == self.volume_bytes for uid, _ in map(self.claims.__getitem__, self.pods))
            and not migration.others(self.seen())
        )

"""A cluster in the simulator: nodes with a store each, gateways without one, the map in the coordinator.

A node is put together here as `s4.serve_cluster` does it, without what has sockets of its own: the S3 and admin
endpoints.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import plyvel

from s4.base.jobs import Job, Jobs
from s4.cluster import clustermap, planner
from s4.cluster.coordinator import CoordinatorError
from s4.cluster.keeper import DOCUMENT, MapKeeper, NoMapError
from s4.cluster.placement import GONE
from s4.cluster.status import status
from s4.erasure.codec import stripes_of
from s4.gateway.context import Gateway, Readers
from s4.http.admin_cluster import said as told
from s4.metadata import keys
from s4.metadata.rows import Blob, decode
from s4.node.member import Location, Member, open_member
from s4.peer.router import Router
from s4.replica.terms import Timing
from s4.server.metrics import member_metrics
from s4.server.parts import make_gateway
from s4.storage.records import Shard
from s4.upkeep.compaction import Compactor
from s4.upkeep.confirm import confirm_doubtful
from s4.upkeep.leader import Leader
from s4.upkeep.lifecycle import Lifecycle
from s4.upkeep.mend import Mender
from s4.upkeep.ownstore import OwnStore
from s4.upkeep.renames import Renames
from s4.upkeep.small import LOOK_S, SmallRows
from whole.coordinator import Client
from whole.disks import Disk
from whole.loop import Process
from whole.threads import StuckError
from whole.world import (
    AUDIT_S,
    COMPACT_S,
    COMPARE_S,
    LIFECYCLE_S,
    LIMITS,
    ROOT,
    SCRUB_S,
    SETTINGS,
    STORE,
    Machine,
    World,
)

PORT = 9002
QUIET = (
    "s4_heal_failed",
    "s4_fills",
    "s4_partition_alarm",
    "s4_partition_heal",
    "s4_partition_lag",
    "s4_partition_outbox",
    "s4_clock_apart_seconds",
)


def _credentials() -> Any:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    return SimpleNamespace(server=server, client=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


CREDENTIALS = _credentials()


class Node(Machine):
    """A machine of the cluster with its disk; a gateway has none that counts."""

    world: ClusterWorld

    def __init__(self, world: ClusterWorld, number: int, *, store: bool = True) -> None:
        super().__init__(world, f"node-{number}" if store else f"gateway-{number}")
        self.has_store, self.store = store, ""
        self.disk = Disk(world.loop, world.root / self.name, self.name)
        self.member: Member | None = None
        self.metrics: Callable[[], Any] = lambda: ()

    def disks(self) -> list[Disk]:
        return [self.disk]

    def ended(self, process: Process) -> None:
        self.member = None
        super().ended(process)

    async def _map(self, client: Client) -> MapKeeper:
        while True:
            try:
                return await MapKeeper.open(client)
            except (NoMapError, CoordinatorError):
                await asyncio.sleep(0.5)

    async def run(self, process: Process) -> None:
        readers, jobs = Readers(), Jobs()
        process.kept.append(jobs)
        keeper = await self._map(Client(self.world.documents, process))
        if self.has_store:
            place = Location(self.name, f"0.0.0.0:{PORT}", f"{self.name}:{PORT}", self.name)

            def horizon() -> float:
                local = readers.oldest()
                return min(local, self.member.peers.oldest_reader()) if self.member is not None else local

            one = await open_member(
                self.disk.root,
                place,
                keeper,
                CREDENTIALS,
                STORE,
                LIMITS,
                root=ROOT,
                horizon=horizon,
                oldest=readers.oldest,
                fatal=process.fatal,
                jobs=jobs,
                timing=Timing(),
            )
            self.member, self.store, router = one, one.node.store, one.router
        else:
            router = Router(keeper, CREDENTIALS.client, readers.oldest, jobs)
            router.start()
            process.kept.append(asyncio.create_task(keeper.follow(print)))
        gateway = make_gateway(router, await router.layout(), SETTINGS, readers)
        gateway.commit_syncs, gateway.far = False, True
        gateway.stripe_bytes = gateway.layout.data * 8192
        self.renames = Renames(gateway, jobs)
        small = SmallRows(gateway, router, self.member, self.world.small)
        if self.world.small:
            jobs.start(Job("content in rows", 0.0, LOOK_S, small.look))
            process.kept.append(small)
        if self.member is not None:
            self._upkeep(process, jobs, self.member, gateway, self.renames, horizon)
        self.gateway = gateway
        self.world.loop.note(f"{process.name} is up")

    def _upkeep(
        self,
        process: Process,
        jobs: Jobs,
        one: Member,
        gateway: Gateway,
        renames: Renames,
        horizon: Callable[[], float],
    ) -> None:
        """As `ClusterServer._start_upkeep`, with days and pauses that fit a simulated minute."""
        node = one.node
        mender, leads, own = Mender(node, 0), Leader(node, gateway, renames), OwnStore(node)
        lifecycle = Lifecycle(gateway, node.host, node.led, node.clocks_agree)
        node.figures = lambda: (mender.repair.failed, mender.repair.made_bytes, mender.filled)
        self.metrics = lambda: member_metrics(one, mender, own, (lifecycle, jobs))

        compactor = Compactor(lambda: [own.shards], SETTINGS.garbage_ratio, horizon, node.router.report)

        async def audit() -> None:
            await own.audit(self.world.age_s)

        async def scrub() -> None:
            begun = self.world.loop.now
            await own.scrub(0)
            self.scrubs.append(begun)

        leads.start(jobs)
        jobs.start(
            Job("heal", 0.0, 0.3, mender.run),
            Job("leave", 2.0, 2.0, own.leave),
            Job("renew", 2.0, 2.0, node.copy.renew),
            Job("comparison", 0.0, COMPARE_S, partial(confirm_doubtful, node, node.router)),
            Job("audit", AUDIT_S, AUDIT_S, audit),
            Job("compaction", COMPACT_S, COMPACT_S, compactor.run),
            Job("lifecycle", LIFECYCLE_S, LIFECYCLE_S, lifecycle.run),
            Job("scrub", SCRUB_S, SCRUB_S, scrub),
        )
        process.kept.append((leads, mender, own, lifecycle))


class ClusterWorld(World):
    """`nodes` of these have a store; `gateways` more have none."""

    def __init__(
        self,
        seed: int,
        root: Path,
        *,
        nodes: int = 3,
        data: int = 2,
        parity: int = 1,
        gateways: int = 1,
        partitions: int = 2,
        keep_trace: bool = False,
    ) -> None:
        super().__init__(seed, root, keep_trace=keep_trace)
        self.data, self.parity = data, parity
        made = planner.new(self.loop.entropy.randbytes(16).hex(), data, parity, partitions)
        self.documents.kept[DOCUMENT] = clustermap.encode(made), 1
        self.nodes = [Node(self, number) for number in range(nodes)]
        self.machines = self.nodes + [Node(self, number, store=False) for number in range(gateways)]

    def map(self) -> clustermap.ClusterMap:
        return clustermap.decode(self.documents.kept[DOCUMENT][0])

    def begin(self) -> None:
        for machine in self.machines:
            machine.start()
        self.wait(30.0, lambda: len(self.map().stores) == len(self.nodes) and all(one.up for one in self.nodes))
        self.admin.spawn(self._add(list(self.map().stores)))
        if not self.wait(60.0, lambda: self.whole() == ""):
            raise StuckError(f"no cluster comes about: {self.whole()}")

    async def _add(self, stores: list[str]) -> None:
        keeper = await MapKeeper.open(Client(self.documents, self.admin))
        await keeper.change(lambda old: planner.added(old, stores))

    async def change(self, made: Callable[[clustermap.ClusterMap], clustermap.ClusterMap]) -> None:
        """What an administrator does to the map, repeated until it is done."""
        while True:
            try:
                keeper = await MapKeeper.open(Client(self.documents, self.admin))
                await keeper.change(made)
                return
            except CoordinatorError:
                await asyncio.sleep(1.0)

    async def replace(self, node: Node, lost: str) -> None:
        """The planner's part after a disk was replaced: its new store takes the place of the one that is gone."""
        while node.store in ("", lost) or node.store not in self.map().stores:
            await asyncio.sleep(0.5)
        await self.change(lambda old: planner.swapped(old, lost, node.store))

    def store_of(self, node: Node) -> str:
        return node.store

    def primary(self, partition: int) -> Node | None:
        """The node that the map calls primary, if it runs."""
        config = self.map().partitions[partition].config
        found = next((one for one in self.nodes if one.store == config.primary), None)
        return found if found is not None and found.member is not None and found.process is not None else None

    def is_there(self, partition: int, blob: bytes) -> bool:
        node = self.primary(partition)
        if node is None or not self.loop.ask(node.process, partial(node.member.node.host.group.serves, partition)):
            return False
        return (
            self.loop.ask(node.process, partial(node.member.node.host.get, keys.blob_row(partition, blob))) is not None
        )

    def must_be_stored(self, partition: int, blob: bytes) -> None:
        current, leader, nodes = self.map(), self.primary(partition), {one.store: one for one in self.nodes}
        if leader is None or leader.disk.databases[str(leader.disk.root / "meta")].damaged:  # nobody has met it yet
            return
        value = leader.member.node.host.get(keys.blob_row(partition, blob))
        row = decode(Blob, value) if value is not None else Blob(0, 0, 0, 0, b"", 0)
        for position in set(range(row.k + row.m)) - set(row.missing):
            config = current.partitions[partition].config
            holders = [nodes.get(one) for one in (config.members[position], current.target(partition, position))]
            stores = [one.member.node.shards for one in holders if one is not None and one.up]
            shards = [Shard(partition, blob, position, stripe) for stripe, _ in stripes_of(row)]
            if len(stores) == 2 and not any(
                one.in_doubt or all(one.locate(shard) is not None for shard in shards) for one in stores
            ):
                self.watch.found.append(f"{self.loop.now:.3f} {shards[0]} was committed and is not there")

    def is_whole_here(self, shard: Shard) -> bool:
        node = next((one for one in self.nodes if one.name == self.loop.here().host), None)
        config = self.map().partitions[shard.partition].config
        primary = next((one for one in self.nodes if one.store == config.primary), None)
        if node is None or primary is None or config.members[shard.position] != node.store:
            return False
        kept = primary.disk.databases.get(str(primary.disk.root / "meta"))
        value = kept.durable.get(keys.blob_row(shard.partition, shard.blob)) if kept is not None else None
        return value is not None and shard.position not in decode(Blob, value).missing

    def whole(self) -> str:
        current = self.map()
        if not current.partitions:
            return "no partitions yet"
        for one in self.machines:
            if not one.up:
                return f"{one.name} is not up"
        lost = set(current.in_state(GONE))
        there = {one.store for one in self.nodes}
        for number, part in enumerate(current.partitions):
            config = part.config
            if config.joining or list(config.members) != list(part.wanted):
                return f"partition {number} moves: {config}"
            if not there.issuperset((*config.members, *config.in_sync)):
                return f"partition {number} counts on a disk that was replaced"
            if len(config.in_sync) < min(current.replicas, len(self.nodes)) or lost & set(config.in_sync):
                return f"partition {number} has {len(config.in_sync)} in sync"
            node = self.primary(number)
            if node is None:
                return f"partition {number} has no primary"
            if not self.loop.ask(node.process, partial(node.member.node.host.group.serves, number)):
                return f"partition {number} is not served"
            host = node.member.node.host
            for table, name in ((keys.HEAL, "heals"), (keys.OUTBOX, "outbox"), (keys.GONE, "what was removed")):
                try:
                    if next(host.scan(keys.table(number, table)), None) is not None:
                        return f"partition {number} has {name}"
                except plyvel.CorruptionError:  # nobody has met it yet
                    return f"partition {number} has a damaged block where its {name} are"
        return ""

    def still(self) -> bool:
        groups = [one.member.node.host.group for one in self.nodes if one.member is not None]
        logs = (group.replica(number).state.log for group in groups for number in range(len(self.map().partitions)))
        return not any(group.committed.rows for group in groups) and not any(logs)

    def unwell(self) -> list[str]:
        answer = self.ask(lambda gateway: gateway.node.censuses())
        if answer is None:
            return ["the nodes do not say how they are"]
        said = {store: told(one) if one is not None else None for store, one in answer.items()}
        shown = status(self.map(), said)
        found = [f"the status is {shown.health}: {reason}" for reason in shown.reasons] if shown.health != "ok" else []
        found += [f"the status has heals {shown.heals}, moves {shown.moves}"] if shown.heals or shown.moves else []
        for one in said.values():
            found += [f"an alarm is left: {alarm}" for alarm in one.alarms] if one is not None else []
        for node in self.nodes:
            for one in self.loop.ask(node.process, lambda node=node: list(node.metrics())):
                if (one.name in QUIET or one.name == "s4_job_failing") and one.value:
                    found.append(f"{node.name}: {one.name} {' '.join(one.labels.values())} is {one.value}")
        return found

    def sums(self) -> tuple[int, int]:
        answer = self.ask(lambda gateway: gateway.node.stats()) or {}
        return int(answer.get("objects_count", -1)), int(answer.get("logical_bytes", -1))

    def rows(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for number in range(len(self.map().partitions)):
            node = self.primary(number)
            if node is not None:
                found.update(
                    self.loop.ask(
                        node.process,
                        lambda node=node, number=number: list(node.member.node.host.scan(number.to_bytes(2, "big"))),
                    )
                )
        return found

"""A whole cluster in one thread: machines with disks, the network between them, a coordinator, the real code on top.

A node is put together here as `s4.serve_cluster` does it, without what has sockets of its own: the S3 and admin endpoints.
Clients call the gateway's verbs in the process that they reach, and lose it when that dies. Processes that end start again by
themselves, as a supervisor has it.

For editors: what is drawn here is drawn from `random.Random("... seed")` of its own purpose, so that taking a fault away
changes nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from s4 import embedded, member
from s4.cluster import clustermap, planner
from s4.cluster.coordinator import CoordinatorError
from s4.cluster.keeper import DOCUMENT, MapKeeper, NoMapError
from s4.cluster.placement import GONE
from s4.gateway.context import Gateway, Readers
from s4.jobs import Job, Jobs
from s4.limits import Limits
from s4.member import Member, Place, open_member
from s4.metadata import keys
from s4.metadata.rows import Blob, decode
from s4.peer.router import Router
from s4.replica.terms import Timing
from s4.serve import ServerSettings, make_gateway
from s4.settings import RootKeys, StoreSettings
from s4.storage import index, shards
from s4.storage.records import Shard
from s4.upkeep import compaction, leader
from s4.upkeep.leader import Leader
from s4.upkeep.lifecycle import Lifecycle
from s4.upkeep.mend import Mender
from s4.upkeep.ownstore import OwnStore
from s4.upkeep.renames import Renames
from whole import files, leveldb
from whole.coordinator import Client, Documents
from whole.files import Disk
from whole.loop import Loop, Process, StuckError
from whole.network import Network

T = TypeVar("T")

PORT = 9002
ROOT = RootKeys("root-access", "root-secret-key")
STORE = StoreSettings(reserve_bytes=1 << 20, volume_bytes=192 * 1024, preallocate_bytes=48 * 1024)
LIMITS = Limits(part_min_bytes=4096, open_volumes=4, blob_cache_bytes=96 * 1024, row_cache_bytes=1 << 20, ghost_s=8.0)
SETTINGS = ServerSettings([], lifecycle_day_s=40.0, limits=LIMITS)
AUDIT_S, SCRUB_S, COMPACT_S, LIFECYCLE_S = 4.0, 10.0, 4.0, 10.0
ORPHAN_AGE_S, CALM_AGE_S = 90.0, 3.0
RESTART_S, TRIM_S, PUNCH_MIN = 0.5, 2.0, 4096


class UnreachableError(Exception):
    """Nobody listens there: nothing was done."""


class LostError(Exception):
    """The connection broke, or the client has waited long enough: what was asked may have happened."""


def install() -> None:
    """Put the models in the places of what they stand for."""
    files.install()
    shards.PUNCH_MIN = PUNCH_MIN
    leader.TRIM_S = TRIM_S
    for module in (member, index, embedded):
        module.Database = leveldb.Database  # type: ignore[misc,assignment]


def _credentials() -> Any:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    return SimpleNamespace(server=server, client=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


CREDENTIALS = _credentials()


class Node:
    """A machine of the cluster with its disk, and the process that runs on it, if one does."""

    def __init__(self, world: World, number: int, *, store: bool = True) -> None:
        self.world, self.name, self.has_store = world, f"node-{number}" if store else f"gateway-{number}", store
        self.disk = Disk(world.loop, world.root / self.name, self.name)
        self.process: Process | None = None
        self.member: Member | None = None
        self.gateway: Gateway | None = None
        self.router: Router | None = None
        self.wall_s, self.rate = 0.0, 1.0
        self.starts = 0
        self.down = False  # the host is off, or its supervisor waits
        self.store = ""
        self.renames: Renames | None = None

    @property
    def up(self) -> bool:
        return self.process is not None and self.process.alive and self.gateway is not None

    def start(self) -> None:
        if self.process is not None and self.process.alive:
            return
        self.starts += 1
        self.down = False
        self.world.network.off.discard(self.name)
        process = self.process = Process(self.world.loop, f"{self.name}.{self.starts}", self.name)
        process.wall_s, process.rate = self.wall_s, self.rate
        process.on_death.append(lambda: self._ended(process))
        process.spawn(self._main(process))

    def _ended(self, process: Process) -> None:
        self.gateway = self.router = self.member = self.renames = None
        files.close_all(process)
        self.world.ended(self, process)

    def kill(self) -> None:
        """kill -9: what was written is in the page cache."""
        if self.process is not None:
            self.process.die()

    def lose_power(self) -> None:
        self.world.network.off.add(self.name)
        self.kill()
        self.disk.lose_power()

    async def _main(self, process: Process) -> None:
        try:
            await self._run(process)
        except Exception as error:
            process.fatal(error)

    async def _map(self, client: Client) -> MapKeeper:
        while True:
            try:
                return await MapKeeper.open(client)
            except (NoMapError, CoordinatorError):
                await asyncio.sleep(0.5)

    async def _run(self, process: Process) -> None:
        readers, jobs = Readers(), Jobs()
        process.kept.append(jobs)
        keeper = await self._map(Client(self.world.documents, process))
        if self.has_store:
            place = Place(self.name, f"0.0.0.0:{PORT}", f"{self.name}:{PORT}", self.name)

            def horizon() -> float:
                local = readers.oldest()
                return min(local, self.member.peers.oldest_reader()) if self.member is not None else local

            one = await open_member(
                self.disk.root, place, keeper, CREDENTIALS, STORE, LIMITS, root=ROOT, horizon=horizon,
                oldest=readers.oldest, fatal=process.fatal, jobs=jobs, timing=Timing(),
            )  # fmt: skip
            self.member, self.store, router = one, one.node.store, one.router
        else:
            router = Router(keeper, CREDENTIALS.client, readers.oldest, jobs)
            router.start()
            process.kept.append(asyncio.create_task(keeper.follow()))
        gateway = make_gateway(router, await router.layout(), SETTINGS, readers)
        gateway.commit_syncs = False
        gateway.stripe_bytes = gateway.layout.data * 8192
        self.renames = Renames(gateway, jobs)
        if self.member is not None:
            self._upkeep(process, jobs, self.member, gateway, self.renames, horizon)
        self.router, self.gateway = router, gateway
        self.world.loop.note(f"{process.name} is up")

    def _upkeep(self, process: Process, jobs: Jobs, one: Member, gateway: Gateway, renames: Renames, horizon: Callable[[], float]) -> None:
        """As `ClusterServer._start_upkeep`, with days and pauses that fit a simulated minute."""
        node = one.node
        mender, leads, own = Mender(node, 0), Leader(node, gateway, renames), OwnStore(node)
        lifecycle = Lifecycle(gateway, node.host, node.led, node.clocks_agree)
        node.figures = lambda: (mender.failed, mender.made_bytes, mender.filled)

        async def compact() -> None:
            for number in compaction.candidates(own.shards, SETTINGS.garbage_ratio):
                await compaction.compact_one(own.shards, number, horizon)

        async def audit() -> None:
            await own.audit(CALM_AGE_S if self.world.calm else ORPHAN_AGE_S)

        async def scrub() -> None:
            await own.scrub(0)

        leads.start(jobs)
        jobs.start(
            Job("heal", 0.0, 1.0, mender.run), Job("leave", 2.0, 2.0, own.leave), Job("renew", 2.0, 2.0, own.renew_copy),
            Job("audit", AUDIT_S, AUDIT_S, audit), Job("compaction", COMPACT_S, COMPACT_S, compact),
            Job("lifecycle", LIFECYCLE_S, LIFECYCLE_S, lifecycle.run), Job("scrub", SCRUB_S, SCRUB_S, scrub),
        )  # fmt: skip
        process.kept.append((leads, mender, own, lifecycle))


class Watch(logging.Handler):
    """Notes shards that the store finds damaged though they were committed there, whole, and nothing took data."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world, self.found = world, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if not record.msg.startswith("damaged:") or not isinstance(record.args, tuple):
            return
        shard = record.args[0]
        if isinstance(shard, Shard) and self._world.is_whole_here(shard):
            self.found.append(f"{self._world.loop.now:.3f} {record.getMessage()} on {self._world.loop.here().host}, which was whole there")


class World:
    """The machines of one seed."""

    def __init__(self, seed: int, root: Path, *, nodes: int = 3, data: int = 2, parity: int = 1, gateways: int = 1,
                 partitions: int = 2, keep_trace: bool = False) -> None:  # fmt: skip
        self.seed, self.root = seed, root
        self.loop = Loop(seed, keep_trace=keep_trace)
        self.loop.root = str(root)
        self.network = Network(self.loop)
        self.documents = Documents(self.loop, self.network)
        self.random = random.Random(f"world {seed}")
        self.calm = False
        self.problems: list[str] = []
        self.counts: dict[str, int] = {}
        self.data, self.parity = data, parity
        cluster = self.loop.entropy.randbytes(16).hex()
        made = planner.new(cluster, data, parity, partitions)
        self.documents.kept[DOCUMENT] = clustermap.encode(made), 1
        self.nodes = [Node(self, number) for number in range(nodes)]
        self.machines = self.nodes + [Node(self, number, store=False) for number in range(gateways)]
        self.admin = Process(self.loop, "admin", "admin")
        self._watch()

    def _watch(self) -> None:
        self.watch = Watch(self)
        logging.getLogger("s4.storage.shards").addHandler(self.watch)

    def is_whole_here(self, shard: Shard) -> bool:
        """Whether a shard was committed, and on the store of the process that looks."""
        node = next((one for one in self.nodes if one.name == self.loop.here().host), None)
        config = self.map().partitions[shard.partition].config
        primary = next((one for one in self.nodes if one.store == config.primary), None)
        if node is None or primary is None or config.members[shard.position] != node.store:
            return False
        kept = primary.disk.databases.get(str(primary.disk.root / "meta"))
        value = kept.durable.get(keys.blob_row(shard.partition, shard.blob)) if kept is not None else None
        return value is not None and shard.position not in decode(Blob, value).missing

    def map(self) -> clustermap.ClusterMap:
        return clustermap.decode(self.documents.kept[DOCUMENT][0])

    def begin(self) -> None:
        """Start all machines and make them a cluster. Raises StuckError where that does not come about."""
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

    def settle(self) -> None:
        """What people do once the faults are over, and nobody else would."""

    def wait(self, limit_s: float, done: Callable[[], bool]) -> bool:
        """Run until something holds; whether it did within the limit."""
        end = self.loop.now + limit_s
        while not done():
            if self.loop.now >= end:
                return False
            self.loop.run(min(end, self.loop.now + 0.25))
        return True

    # -- machines

    def ended(self, node: Node, process: Process) -> None:
        """A process ended: its supervisor starts it again, if the host is on."""
        self.counts["process ended"] = self.counts.get("process ended", 0) + 1
        if not node.down:
            self.loop.at(RESTART_S, node.start)

    # -- what is whole

    def whole(self) -> str:
        """Why the cluster is not whole; empty where it is: everybody serves, is in sync, and nothing is left to be done."""
        current = self.map()
        if not current.partitions:
            return "no partitions yet"
        for one in self.machines:
            if not one.up:
                return f"{one.name} is not up"
        lost = set(current.in_state(GONE))
        by_store = {one.store: one for one in self.nodes}
        for number, part in enumerate(current.partitions):
            config = part.config
            if config.joining or list(config.members) != list(part.wanted):
                return f"partition {number} moves: {config}"
            if len(config.in_sync) < min(current.replicas, len(self.nodes)) or lost & set(config.in_sync):
                return f"partition {number} has {len(config.in_sync)} in sync"
            node = by_store.get(config.primary)
            if node is None or node.member is None or node.process is None:
                return f"partition {number} has no primary"
            if not self.loop.ask(node.process, partial(node.member.node.host.group.serves, number)):
                return f"partition {number} is not served"
            host = node.member.node.host
            for table, name in ((keys.HEAL, "heals"), (keys.OUTBOX, "outbox")):
                if next(host.scan(keys.table(number, table)), None) is not None:
                    return f"partition {number} has {name}"
        return ""

    # -- clients

    async def call(self, machine: Node, work: Callable[[Gateway], Awaitable[T]], limit_s: float = 70.0) -> T:
        """Ask a machine's gateway, from outside. Raises UnreachableError, LostError, and what the gateway raises."""
        process, gateway = machine.process, machine.gateway
        if process is None or gateway is None or not process.alive or (process.paused and self.random.random() < 0.5):
            await asyncio.sleep(0.01)
            raise UnreachableError(machine.name)
        task = self.loop.create_task(work(gateway), context=process.context.copy())
        ended = self.loop.create_future()

        def end(*_: object) -> None:
            if not ended.done():
                ended.set_result(None)

        task.add_done_callback(end, context=self.loop.outside.context)
        process.on_death.append(end)
        try:
            async with asyncio.timeout(limit_s):
                await ended
        except TimeoutError:
            self.loop.call_soon(task.cancel, context=process.context)
            raise LostError(f"{machine.name} does not answer") from None
        finally:
            if end in process.on_death:
                process.on_death.remove(end)
        if not task.done():
            process.kept.append(task)
            raise LostError(f"{machine.name} died")
        if task.cancelled():
            raise LostError(f"{machine.name} gave it up")
        return task.result()  # type: ignore[no-any-return]

"""The single server in the simulator: one process, one store on each of its drives, the map in a file on every drive.

Put together as `s4.serve.Server` does it, without its ports and workers. `Drive` has the face that the atlas knows of nodes:
what ends a process ends the server, what takes power takes that of all drives, what befalls a disk befalls that one.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from s4.cluster.shardmap import ShardMap
from s4.embedded import OpenStore, open_store
from s4.gateway.buckets import resume_deletes
from s4.gateway.context import Gateway, Readers
from s4.jobs import Job, Jobs
from s4.metadata import keys
from s4.metadata.rows import Blob, decode
from s4.restart import DRIVE_FAILURES, WITHIN_S
from s4.serve import make_gateway
from s4.settings import StoreSettings
from s4.storage.directory import DriveError
from s4.storage.records import Shard
from s4.upkeep import compaction, orphans
from s4.upkeep.heal import Healer
from s4.upkeep.lifecycle import Lifecycle
from s4.upkeep.renames import Renames
from s4.upkeep.scrub import Scrubber
from whole import files
from whole.coordinator import Documents
from whole.files import Disk
from whole.loop import Loop, Process, StuckError
from whole.network import Network
from whole.world import (
    AUDIT_S,
    CALM_AGE_S,
    COMPACT_S,
    LIFECYCLE_S,
    LIMITS,
    ORPHAN_AGE_S,
    RESTART_S,
    ROOT,
    SCRUB_S,
    SETTINGS,
    STORE,
    World,
)

HEAL_S = 0.5


class Drive:
    """One drive, as the atlas sees machines."""

    def __init__(self, server: Server, number: int) -> None:
        self.server, self.name = server, f"drive-{number}"
        self.disk = Disk(server.world.loop, server.world.root / self.name, self.name)
        self.wall_s, self.rate, self.member = 0.0, 1.0, None

    @property
    def process(self) -> Process | None:
        return self.server.process

    @property
    def gateway(self) -> Gateway | None:
        return self.server.gateway

    @property
    def renames(self) -> Renames | None:
        return self.server.renames

    @property
    def down(self) -> bool:
        return self.server.down

    @down.setter
    def down(self, value: bool) -> None:
        self.server.down = value

    @property
    def store(self) -> str:
        return self.name

    def kill(self) -> None:
        self.server.kill()

    def lose_power(self) -> None:
        if self.server.powered:
            self.server.powered = False
            self.server.kill()
            for one in self.server.drives:
                one.disk.lose_power()

    def start(self) -> None:
        self.server.start()


class Server:
    """The machine, and the process that runs on it, if one does."""

    has_store = True

    def __init__(self, world: ServerWorld, drives: int, geometry: tuple[int, int] | None) -> None:
        self.world, self.name, self.geometry = world, "server", geometry
        self.drives = [Drive(self, number) for number in range(drives)]
        self.process: Process | None = None
        self.gateway: Gateway | None = None
        self.opened: OpenStore | None = None
        self.renames: Renames | None = None
        self.failures: list[tuple[float, Path]] = []
        self.starts, self.down, self.powered = 0, False, True

    @property
    def up(self) -> bool:
        return self.process is not None and self.process.alive and self.gateway is not None

    def start(self) -> None:
        if self.process is not None and self.process.alive:
            return
        self.starts += 1
        self.down, self.powered = False, True
        process = self.process = Process(self.world.loop, f"server.{self.starts}", "server")
        process.wall_s = self.drives[0].wall_s
        process.on_death.append(lambda: self._ended(process))
        process.spawn(self._main(process))

    def kill(self) -> None:
        if self.process is not None:
            self.process.die()

    def _ended(self, process: Process) -> None:
        self.gateway = self.opened = self.renames = None
        files.close_all(process)
        self.world.counts["process ended"] = self.world.counts.get("process ended", 0) + 1
        if not self.down:
            self.world.loop.at(RESTART_S, self.start)

    def _fatal(self, process: Process, error: BaseException) -> None:
        if isinstance(error, DriveError):
            self.failures.append((self.world.loop.now, error.directory))
        process.fatal(error)

    def failed(self) -> frozenset[Path]:
        named = [directory for at, directory in self.failures if at > self.world.loop.now - WITHIN_S and len(self.drives) > 1]
        return frozenset(one for one in named if named.count(one) >= DRIVE_FAILURES)

    async def _main(self, process: Process) -> None:
        try:
            await self._run(process)
        except Exception as error:
            process.fatal(error)

    async def _run(self, process: Process) -> None:
        readers, jobs, failed = Readers(), Jobs(), self.failed()
        store = self.opened = await open_store([one.disk.root for one in self.drives], StoreSettings(
            "sync", STORE.reserve_bytes, STORE.volume_bytes, STORE.preallocate_bytes, partitions=2, geometry=self.geometry,
            degraded=bool(failed), failed=failed,
        ), LIMITS, horizon=readers.oldest, fatal=lambda error: self._fatal(process, error), jobs=jobs,
            environment={"S4_ROOT_ACCESS_KEY": ROOT.access_key, "S4_ROOT_SECRET_KEY": ROOT.secret_key})  # fmt: skip
        gateway = make_gateway(store.node, await store.node.layout(), SETTINGS, readers)
        gateway.stripe_bytes = gateway.layout.data * 8192
        healer, lifecycle = Healer(store.node, store.joiners), Lifecycle(gateway, store.host, lambda: range(store.node.partitions))
        scrubber = Scrubber(store.node, 0, lambda error: self._fatal(process, error))
        await resume_deletes(gateway)
        self.renames = Renames(gateway, jobs)
        await self.renames.resume()

        async def compact() -> None:
            for one in store.drives.stores:
                for number in compaction.candidates(one, SETTINGS.garbage_ratio):
                    await compaction.compact_one(one, number, readers.oldest)

        async def audit() -> None:
            await orphans.audit(store.node, age_s=CALM_AGE_S if self.world.calm else ORPHAN_AGE_S)

        async def scrub() -> None:
            await scrubber.run(deep=True)

        jobs.start(
            Job("compaction", COMPACT_S, COMPACT_S, compact), Job("audit", AUDIT_S, AUDIT_S, audit), Job("heal", 0.0, HEAL_S, healer.work),
            Job("scrub", SCRUB_S, SCRUB_S, scrub), Job("lifecycle", LIFECYCLE_S, LIFECYCLE_S, lifecycle.run),
        )  # fmt: skip
        process.kept += [jobs, (store.node, healer, scrubber, lifecycle)]
        self.gateway = gateway
        self.world.loop.note(f"{process.name} is up")


class ServerWorld(World):
    """One server and its drives. `nodes` are the drives, `machines` has the server."""

    def __init__(self, seed: int, root: Path, *, drives: int, geometry: tuple[int, int] | None = None, keep_trace: bool = False) -> None:
        self.seed, self.root = seed, root
        self.loop = Loop(seed, keep_trace=keep_trace)
        self.loop.root = str(root)
        self.network = Network(self.loop)
        self.documents = Documents(self.loop, self.network)
        self.random = random.Random(f"world {seed}")
        self.calm = False
        self.problems: list[str] = []
        self.counts: dict[str, int] = {}
        self.server = Server(self, drives, geometry)
        self.nodes: list[Any] = list(self.server.drives)
        self.machines: list[Any] = [self.server]
        self.parity = 0 if drives == 1 else (geometry or (2, 1))[1]
        self.admin = Process(self.loop, "admin", "admin")
        self._watch()

    def map(self) -> ShardMap:  # type: ignore[override]
        opened = self.server.opened
        if opened is None:
            raise StuckError("the server is not up")
        return opened.membership.current

    def begin(self) -> None:
        self.server.start()
        if not self.wait(60.0, lambda: self.whole() == ""):
            raise StuckError(f"no server comes about: {self.whole()}")

    def settle(self) -> None:
        """A drive that failed twice is left out until somebody starts the server again."""
        if self.server.failures:
            self.server.failures.clear()
            self.server.kill()

    def whole(self) -> str:
        opened = self.server.opened
        if not self.server.up or opened is None:
            return "the server is not up"
        current = opened.membership.current
        for number, one in enumerate(current.status):
            if not all(one.members) or one.joining or len(one.in_sync) < current.spec.replicas:
                return f"partition {number} is {one}"
            for table, name in ((keys.HEAL, "heals"), (keys.OUTBOX, "outbox")):
                if next(opened.host.scan(keys.table(number, table)), None) is not None:
                    return f"partition {number} has {name}"
        if self.server.failed():
            return "a drive is left out for some minutes"
        return ""

    def is_whole_here(self, shard: Shard) -> bool:
        for one in self.nodes:
            kept = one.disk.databases.get(str(one.disk.root / "meta"))
            value = kept.durable.get(keys.blob_row(shard.partition, shard.blob)) if kept is not None else None
            if value is not None:
                return shard.position not in decode(Blob, value).missing
        return False

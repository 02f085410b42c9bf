"""The single server in the simulator: one process, one store on each of its drives, the map in a file on every drive.

Put together as `s4.serve.Server` does it, without its ports and workers. The atlas takes each `Drive` for a node: what
befalls a disk befalls that drive, what befalls a process or a machine befalls the server.

A process that ends by its own error leaves what failed to the one that it becomes (server/restart.py), as it does where
it ships; one that is killed leaves nothing. A drive that is well again is taken in by itself (upkeep/returning.py), and
once the faults are over a person says so of one that is not.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from s4.base.jobs import Job, Jobs
from s4.cluster.shardmap import ShardMap
from s4.config.settings import StoreSettings
from s4.gateway.context import Gateway, Readers
from s4.metadata import keys
from s4.metadata.rows import Blob, decode
from s4.node.local import OpenStore, open_store
from s4.s3.errors import S3Error
from s4.server.metrics import store_metrics
from s4.server.parts import make_gateway
from s4.server.restart import DRIVE_RENEWALS, MOST_RESTARTS, VARIABLE, History
from s4.storage.files import Files
from s4.storage.records import Shard
from s4.upkeep import deletions, orphans
from s4.upkeep.compaction import Compactor
from s4.upkeep.confirm import confirm_doubtful
from s4.upkeep.heal import Healer
from s4.upkeep.lifecycle import Lifecycle
from s4.upkeep.renames import Renames
from s4.upkeep.returning import FAILED, Returning
from s4.upkeep.scrub import Scrubber
from whole.disks import Disk
from whole.loop import Process
from whole.threads import DeadError, StuckError
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
    LostError,
    Machine,
    UnreachableError,
    World,
)

HEAL_S, LOOK_S = 0.5, 1.0


class RenewedError(Exception):
    """The process takes its own place, to take a drive in."""


class Drive:
    """One drive, as the atlas sees nodes."""

    def __init__(self, server: Server, number: int) -> None:
        self.machine, self.name = server, f"drive-{number}"
        self.disk = Disk(server.world.loop, server.world.root / self.name, self.name)


class Server(Machine):
    """The machine, with its drives."""

    world: ServerWorld

    def __init__(self, world: ServerWorld, drives: int, geometry: tuple[int, int] | None) -> None:
        super().__init__(world, "server")
        self.geometry = geometry
        self.drives = [Drive(self, number) for number in range(drives)]
        self.opened: OpenStore | None = None
        self.metrics: Any = lambda: ()
        self.returning: Returning | None = None
        self.left: dict[str, str] = {}  # the environment that the last process left to the next

    def disks(self) -> list[Disk]:
        return [one.disk for one in self.drives]

    def ended(self, process: Process) -> None:
        self.opened = self.returning = None
        if process.died_of is None:  # killed: its supervisor starts another, which knows nothing of it
            self.left = {}
        super().ended(process)

    # -- what `restart` is to the real process

    def history(self) -> History:
        return History.read(self.left, time.time())

    def _leave(self, history: History) -> None:
        if self.opened is not None:
            history.map = max(history.map, self.opened.membership.revision)
        self.left = {VARIABLE: msgspec.json.encode(history).decode()}

    def _fatal(self, process: Process, error: BaseException) -> NoReturn:
        """`restart.die`: the first that calls it ends the process, whatever others would say meanwhile."""
        if process.alive:
            history = self.history()
            history.blame(error, time.time())
            self._leave(history if len(history.failures) < MOST_RESTARTS else History())
            process.fatal(error)
        raise DeadError

    def _renew(self, process: Process, directory: Path) -> NoReturn:
        """`restart.renew`."""
        if process.alive:
            history = self.history()
            history.failures = [failure for failure in history.failures if failure[1] != str(directory)]
            history.renewals.append((time.time(), str(directory)))
            self._leave(history)
            self.world.loop.effects["drive taken in again"] += 1
            process.fatal(RenewedError(directory))
        raise DeadError

    def may_renew(self, directory: Path) -> bool:
        """`restart.may_renew`."""
        return [named for _, named in self.history().renewals].count(str(directory)) < DRIVE_RENEWALS

    async def run(self, process: Process) -> None:
        readers, jobs, history = Readers(), Jobs(), self.history()
        store = self.opened = await open_store(
            [one.disk.root for one in self.drives],
            StoreSettings(
                "sync",
                STORE.reserve_bytes,
                STORE.volume_bytes,
                STORE.preallocate_bytes,
                partitions=2,
                geometry=self.geometry,
                known=history.map if history.failures else 0,
                failed=history.failed(),
                small=self.world.small > 0,
            ),
            LIMITS,
            horizon=readers.oldest,
            fatal=lambda error: self._fatal(process, error),
            jobs=jobs,
            environment={"S4_ROOT_ACCESS_KEY": ROOT.access_key, "S4_ROOT_SECRET_KEY": ROOT.secret_key},
        )
        gateway = make_gateway(store.node, await store.node.layout(), SETTINGS, readers)
        gateway.stripe_bytes = gateway.layout.data * 8192
        gateway.small_bytes = self.world.small if store.small else 0
        healer, lifecycle = (
            Healer(store.node, store.joiners),
            Lifecycle(gateway, store.host, lambda: range(store.node.partitions)),
        )
        scrubber = Scrubber(store.node, 0, lambda error: self._fatal(process, error))
        returning = self.returning = Returning(
            store.node,
            STORE.reserve_bytes,
            lambda directory: self._renew(process, directory),
            self.may_renew,
            Files(),
            lambda: len(self.world.in_flight),
        )
        self.renames = Renames(gateway, jobs)
        await self.renames.resume()

        compactor = Compactor(lambda: store.drives.stores, SETTINGS.garbage_ratio, readers.oldest, store.node.found)

        async def audit() -> None:
            await orphans.audit(store.node, store.node, age_s=self.world.age_s)

        async def scrub() -> None:
            begun = self.world.loop.now
            await scrubber.run(deep=True)
            self.scrubs.append(begun)

        jobs.start(
            Job("compaction", COMPACT_S, COMPACT_S, compactor.run),
            Job("comparison", 0.0, COMPARE_S, partial(confirm_doubtful, store.node, store.node)),
            Job("audit", AUDIT_S, AUDIT_S, audit),
            Job("heal", 0.0, HEAL_S, healer.work),
            Job("scrub", SCRUB_S, SCRUB_S, scrub),
            Job(
                "deletions of buckets", 0.0, deletions.LOOK_S, deletions.Deletions(gateway, alone=True).look, (S3Error,)
            ),
            Job("lifecycle", LIFECYCLE_S, LIFECYCLE_S, lifecycle.run),
        )
        if len(self.drives) > 1:
            jobs.start(Job("drives that come back", 0.0, LOOK_S, returning.look))
        self.metrics = lambda: store_metrics(store, healer, scrubber, (lifecycle, jobs))
        process.kept += [jobs, (store.node, healer, scrubber, lifecycle)]
        self.gateway = gateway
        self.world.loop.note(f"{process.name} is up")


class ServerWorld(World):
    """One server and its drives: these are its `nodes`, the server is its one machine."""

    def __init__(
        self, seed: int, root: Path, *, drives: int, geometry: tuple[int, int] | None = None, keep_trace: bool = False
    ) -> None:
        super().__init__(seed, root, keep_trace=keep_trace)
        self.server = Server(self, drives, geometry)
        self.nodes, self.machines = list(self.server.drives), [self.server]
        if drives > 1:
            self.data, self.parity = geometry or (2, 1)

    def map(self) -> ShardMap:
        opened = self.server.opened
        if opened is None:
            raise StuckError("the server is not up")
        return opened.membership.current

    def begin(self) -> None:
        self.server.start()
        if not self.wait(60.0, lambda: self.whole() == ""):
            raise StuckError(f"no server comes about: {self.whole()}")

    def settle(self) -> None:
        """A drive that failed twice while the server ran, or whenever it was taken in, is left out until somebody says
        that it is well: `s4 admin drives retry`."""
        self.admin.spawn(self._retry())

    async def _retry(self) -> None:
        async def work(_: Gateway) -> None:
            opened, returning = self.server.opened, self.server.returning
            for drive in opened.drives.all if opened is not None else ():
                left = drive.reason.startswith(FAILED) or not self.server.may_renew(drive.directory)
                if returning is not None and drive.shards is None and left:
                    with suppress(ValueError):  # it says why: tried again
                        returning.retry(str(drive.directory))

        while self.whole():
            with suppress(LostError, UnreachableError):
                await self.call(self.server, work)
            await asyncio.sleep(1.0)

    def store_of(self, node: Drive) -> str:
        return node.name

    async def replace(self, node: Drive, lost: str) -> None:
        """Nothing is to be said: a start finds the empty drive."""

    def whole(self) -> str:
        opened = self.server.opened
        if not self.server.up or opened is None:
            return "the server is not up"
        current = opened.membership.current
        for number, one in enumerate(current.status):
            if not all(one.members) or one.joining or len(one.in_sync) < current.spec.replicas:
                return f"partition {number} is {one}"
            for table, name in ((keys.HEAL, "heals"), (keys.OUTBOX, "outbox"), (keys.GONE, "what was removed")):
                if next(opened.host.scan(keys.table(number, table)), None) is not None:
                    return f"partition {number} has {name}"
        return ""

    def _figures(self) -> dict[str, float]:
        said = self.loop.ask(self.server.process, lambda: list(self.server.metrics()))
        return {" ".join((one.name, *one.labels.values())): one.value for one in said}

    def unwell(self) -> list[str]:
        said, found = self._figures(), []
        wanted = {
            "s4_drives": len(self.nodes),
            "s4_drives_online": len(self.nodes),
            "s4_metadata_copies": self.map().spec.replicas,
        }
        wanted |= dict.fromkeys(
            (
                "s4_drives_filling",
                "s4_heal_waiting",
                "s4_heal_failed",
                "s4_fill_blobs_left",
                "s4_commands_waiting",
                "s4_freeing_blobs",
            ),
            0,
        )
        wanted |= {name: 0 for name in said if name.startswith("s4_job_failing")}
        for name, value in wanted.items():
            if said[name] != value:
                found.append(f"the metrics say {name} {said[name]}, not {value}")
        return found

    def sums(self) -> tuple[int, int]:
        said = self._figures()
        return int(said["s4_objects"]), int(said["s4_logical_bytes"])

    def rows(self) -> dict[bytes, bytes]:
        opened = self.server.opened
        return dict(opened.host.scan(b"\x00", b"\x00")) if opened is not None else {}

    def is_whole_here(self, shard: Shard) -> bool:
        for one in self.nodes:
            kept = one.disk.databases.get(str(one.disk.root / "meta"))
            value = kept.durable.get(keys.blob_row(shard.partition, shard.blob)) if kept is not None else None
            if value is not None:
                return shard.position not in decode(Blob, value).missing
        return False

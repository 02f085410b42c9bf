"""What every simulated world has: machines whose processes start again, disks, the network, a coordinator, clients'
way in.

`cluster.py` and `server.py` put the real code on top. Clients call the gateway's verbs in the process that they reach,
and lose it when that dies. Processes that end start again by themselves, as a supervisor has it.

For editors: what is drawn here is drawn from `random.Random("... seed")` of its own purpose, so that taking a fault
away changes nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from s4.config.limits import Limits
from s4.config.settings import RootKeys, StoreSettings
from s4.gateway.context import Gateway
from s4.metadata import commands, gone
from s4.node import local, member
from s4.node import rows as node_rows
from s4.peer import client
from s4.replica import snapshot
from s4.server.parts import ServerSettings
from s4.storage import index, shards
from s4.storage.records import Shard
from s4.upkeep import deletions, leader
from s4.upkeep.renames import Renames
from whole import files, leveldb
from whole.coordinator import Documents
from whole.disks import Disk
from whole.loop import Loop, Process, running
from whole.network import Network
from whole.threads import DeadError

T = TypeVar("T")

ROOT = RootKeys("root-access", "root-secret-key")
STORE = StoreSettings(reserve_bytes=1 << 20, volume_bytes=192 * 1024, preallocate_bytes=48 * 1024)
LIMITS = Limits(part_min_bytes=4096, open_volumes=4, blob_cache_bytes=96 * 1024, row_cache_bytes=1 << 20, ghost_s=8.0)
DAY_S = 8.0
SETTINGS = ServerSettings([], lifecycle_day_s=DAY_S, limits=LIMITS)
AUDIT_S, SCRUB_S, COMPACT_S, LIFECYCLE_S = 4.0, 10.0, 4.0, DAY_S / 4
COMPARE_S = 2.0
ORPHAN_AGE_S, CALM_AGE_S = 90.0, 3.0
RESTART_S, TRIM_S, DELETE_S, PUNCH_MIN = 0.5, 2.0, 12.0, 4096


class UnreachableError(Exception):
    """Nobody listens there: nothing was done."""


class LostError(Exception):
    """The connection broke, or the client has waited long enough: what was asked may have happened."""


def small_of(seed: int) -> int:
    """`--small` of a seed: 0 in most; all kinds of worlds are among the others (run.world_of)."""
    drawn = seed % 4 == 0 or seed % 16 == 5 or (seed % 16 in (3, 7, 15) and seed // 16 % 3 == 0)
    return random.Random(f"small {seed}").choice((8192, 65_536)) if drawn else 0


def install() -> None:
    """Put the models in the places of what they stand for."""
    files.install()
    shards.PUNCH_MIN = PUNCH_MIN
    leader.TRIM_S, deletions.DELETE_S = TRIM_S, DELETE_S
    snapshot.PART_ROWS = 40  # so that a copy is filled in several parts
    gone.AT_ONCE = 1  # so that what is removed is let go of later, whoever leads by then
    for module in (member, index, local):
        module.Database = leveldb.Database  # type: ignore[misc,assignment]
    execute = node_rows.RowNode.execute

    async def answering(self: Any, partition: int, command: Any, command_id: bytes = b"", again: bool = False) -> Any:
        answer = await execute(self, partition, command, command_id, again)
        if isinstance(command, commands.PutObject | commands.PutPart) and isinstance(answer, commands.Written):
            for new in command.blobs:
                running().world.must_be_stored(partition, new.blob)
        running().here().answers(type(command).__name__)
        return answer

    ask, discard = client.RemoteNode.execute, node_rows.RowNode.discard

    async def discarding(self: Any, partition: int, blob: bytes) -> None:
        loop = running()
        if loop.world.is_there(partition, blob):
            loop.world.problems.append(
                f"{loop.now:.3f} {loop.here().name} discards blob {blob.hex()}, which is committed"
            )
        await discard(self, partition, blob)

    async def asking(self: Any, partition: int, command: Any, command_id: bytes = b"", again: bool = False) -> Any:
        running().here().asks(self._stream.transport)
        return await ask(self, partition, command, command_id, again)

    node_rows.RowNode.discard = discarding  # type: ignore[method-assign]
    node_rows.RowNode.execute, client.RemoteNode.execute = answering, asking  # type: ignore[method-assign]


class Machine:
    """A host, and the process that runs on it, if one does. `down`: it is off, or its supervisor waits."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.machine = world, name, self
        self.process: Process | None = None
        self.gateway: Gateway | None = None
        self.renames: Renames | None = None
        self.wall_s, self.rate = 0.0, 1.0
        self.starts, self.down = 0, False
        self.scrubs: list[float] = []  # when those began that ended

    @property
    def up(self) -> bool:
        return self.process is not None and self.process.alive and self.gateway is not None

    def disks(self) -> list[Disk]:
        return []

    def start(self) -> None:
        if self.process is not None and self.process.alive:
            return
        self.starts += 1
        self.down = False
        self.world.network.off.discard(self.name)
        process = self.process = Process(self.world.loop, f"{self.name}.{self.starts}", self.name)
        process.wall_s, process.rate = self.wall_s, self.rate
        process.on_death.append(lambda: self.ended(process))
        process.spawn(self._main(process))

    async def _main(self, process: Process) -> None:
        try:
            await self.run(process)
        except Exception as error:
            process.fatal(error)

    async def run(self, process: Process) -> None:
        """Put the program together, as it is put together where it ships."""
        raise NotImplementedError

    def ended(self, process: Process) -> None:
        """Its supervisor starts it again, if the host is on."""
        self.gateway = self.renames = None
        files.close_all(process)
        self.world.loop.effects["process ended"] += 1
        if not self.down:
            self.world.loop.at(RESTART_S, self.start)

    def kill(self) -> None:
        """kill -9: what was written is in the page cache."""
        if self.process is not None:
            self.process.die()

    def lose_power(self) -> None:
        self.world.network.off.add(self.name)
        self.kill()
        for disk in self.disks():
            disk.lose_power()


class Watch(logging.Handler):
    """Notes shards that the store finds damaged though they were committed there, whole, and nothing took data."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world, self.found = world, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if not record.msg.startswith("damaged:") or not isinstance(record.args, tuple):
            return
        self._world.loop.effects["damaged shard"] += 1
        shard = record.args[0]
        if isinstance(shard, Shard) and self._world.is_whole_here(shard):
            self.found.append(
                f"{self._world.loop.now:.3f} {record.getMessage()} on {self._world.loop.here().host}, which was whole there"
            )


class World:
    """One seed's machines. `nodes` are what has a disk each, `machines` what has a process each."""

    nodes: list[Any]
    machines: list[Any]
    data, parity = 1, 0

    def __init__(self, seed: int, root: Path, *, keep_trace: bool = False) -> None:
        self.seed, self.root, self.small = seed, root, small_of(seed)
        self.loop = Loop(seed, keep_trace=keep_trace)
        self.loop.root, self.loop.world = str(root), self
        self.network = Network(self.loop)
        self.documents = Documents(self.loop, self.network)
        self.random = random.Random(f"world {seed}")
        self.calm = False
        self.orphan_age_s = self.least_age_s = ORPHAN_AGE_S  # now, and when it was least
        self.alone: Machine | None = None  # cut off, and still under a lease of who led the settings before
        self.whole_at = 0.0  # when, after the last fault, all was whole
        self.in_flight: set[Any] = set()  # tasks that clients wait for
        self.most_off = 0  # nodes whose clocks were off at once
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()  # answers, by their code
        self.admin = Process(self.loop, "admin", "admin")
        self.watch = Watch(self)
        logging.getLogger("s4.storage.shards").addHandler(self.watch)

    # -- what the kinds of worlds say

    def begin(self) -> None:
        """Start all machines. Raises StuckError where nothing comes about."""
        raise NotImplementedError

    def settle(self) -> None:
        """What people do once the faults are over, and nobody else would."""

    def whole(self) -> str:
        """Why it is not whole; empty where it is: everybody serves, is in sync, and nothing is left to be done."""
        raise NotImplementedError

    def still(self) -> bool:
        """Whether all that was committed is in every copy."""
        return True

    def unwell(self) -> list[str]:
        """What statuses and metrics say that is not as it should be, of a world that is whole."""
        raise NotImplementedError

    def sums(self) -> tuple[int, int]:
        """(objects, bytes) as the metrics have them."""
        raise NotImplementedError

    def rows(self) -> dict[bytes, bytes]:
        """All committed rows, of a world that is whole."""
        raise NotImplementedError

    def is_there(self, partition: int, blob: bytes) -> bool:
        """Whether who leads the partition has the blob's row; False where nobody can tell."""
        return False

    def must_be_stored(self, partition: int, blob: bytes) -> None:
        """Note what a store that runs lacks of a blob that has just been committed (D1, D2)."""

    def is_whole_here(self, shard: Shard) -> bool:
        """Whether a shard was committed, and on the store of the process that looks."""
        raise NotImplementedError

    def store_of(self, node: Any) -> str:
        """The id of a node's store, empty where it has none yet."""
        raise NotImplementedError

    # -- time

    @property
    def age_s(self) -> float:
        """How old an orphan must be for the auditor."""
        return CALM_AGE_S if self.calm else self.orphan_age_s

    def wait(self, limit_s: float, done: Callable[[], bool]) -> bool:
        """Run until something holds; whether it did within the limit."""
        end = self.loop.now + limit_s
        while not done():
            if self.loop.now >= end:
                return False
            self.loop.run(min(end, self.loop.now + 0.25))
        return True

    # -- clients

    def ask(self, work: Callable[[Gateway], Awaitable[T]]) -> T | None:
        """What the last machine's gateway answers to somebody who waits for it; None where it does not."""
        asked = self.admin.spawn(self.call(self.machines[-1], work))
        return asked.result() if self.wait(30.0, asked.done) else None

    async def call(self, machine: Machine, work: Callable[[Gateway], Awaitable[T]], limit_s: float = 70.0) -> T:
        """Ask a machine's gateway, from outside. Raises UnreachableError, LostError, and what the gateway raises."""
        process, gateway = machine.process, machine.gateway
        if process is None or gateway is None or not process.alive or (process.paused and self.random.random() < 0.5):
            await asyncio.sleep(0.01)
            raise UnreachableError(machine.name)
        task: Any = self.loop.create_task(work(gateway), context=process.context.copy())
        task.asked = self.loop.now
        self.in_flight.add(task)
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
            self.in_flight.discard(task)
            if end in process.on_death:
                process.on_death.remove(end)
        if not task.done():
            process.kept.append(task)
            raise LostError(f"{machine.name} died")
        if task.cancelled():
            raise LostError(f"{machine.name} gave it up")
        if isinstance(task.exception(), DeadError):  # what was asked is what it died of
            raise LostError(f"{machine.name} died")
        return task.result()

"""A member of a cluster: one store with its replicas and shards, as `peer.server` serves it.

It adds to node/rows.py what only a cluster has: commands are decided against the newest map (D3), a shard counts
only with the name of the process that took it (D2), and the outbox is for the partitions that this store leads. It
owns the store's databases and volumes; the map belongs to `cluster.keeper`, work on lost shards to `upkeep/mend.py`.

Order at start: lock and identity, then volumes past the mark, then this store says in the map where it is, then
replicas, then peers may call. A store that the map does not know stands by until somebody adds it. What a crash
leaves between two of these the next start finds and goes on from.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from s4 import __version__
from s4.base.clock import boot_clock
from s4.base.jobs import Failures, Job, Jobs
from s4.base.text import parse_endpoint
from s4.cluster import planner
from s4.cluster.clocks import Clocks
from s4.cluster.clustermap import ClusterMap
from s4.cluster.keeper import MapKeeper
from s4.cluster.messages import AnyMessage
from s4.cluster.placement import GONE
from s4.config.limits import MIB, Limits
from s4.config.settings import RootKeys, StoreSettings
from s4.metadata import commands, keys
from s4.metadata.commands import AnyAnswer, AnyCommand, NewBlob
from s4.metadata.rows import Blob, Grant
from s4.metadata.small import OLDEST, UNABLE, VERSION
from s4.node.accounts import ROOT_USER
from s4.node.held import must_be_known
from s4.node.metadata_copy import OwnCopy, open_copy
from s4.node.rows import RowNode
from s4.peer.api import Census, Identity, UnavailableError
from s4.peer.links import Links
from s4.peer.router import Router
from s4.peer.server import PeerServer, new_incarnation
from s4.peer.trust import Credentials
from s4.replica.group import Group
from s4.replica.pieces import count, pieces
from s4.replica.replicated import ReplicatedHost
from s4.replica.terms import Timing
from s4.storage.directory import DirectoryError, aligning, format_directory, keeps_out, note_opened, open_directory
from s4.storage.directory import Identity as StoreIdentity
from s4.storage.drives import Drive, Drives
from s4.storage.files import Files
from s4.storage.leveldb import Database
from s4.storage.records import OfflineError, Shard
from s4.storage.shards import Fatal, ShardSettings, ShardStore

LEAVE_S = 3.0
CLOCKS_EVERY_S, CLOCKS_FIRST_S = 10.0, 0.5  # the latter until somebody answered
TOLD_S = 10.0  # for that, where a command needs it


@dataclass(frozen=True, slots=True)
class Location:
    """Who and where a node is: a name that people use, the addresses that it listens on and that others reach, and
    what it fails together with."""

    node: str
    listen: str
    advertise: str
    domain: str
    weight: float = 1.0


class OneStore(Drives):
    """The one store of a member: any shard that it is sent is for it; which are is the map's to say."""

    def __init__(self, drive: Drive, shards: ShardStore) -> None:
        super().__init__([drive], [])
        self.store = shards

    def at(self, partition: int, position: int) -> ShardStore | None:
        return self.store

    async def free(self, partition: int, blob: bytes) -> int:
        return await self.store.free(partition, blob)


class MapView:
    """The map as `RowNode` asks for it."""

    def __init__(self, keeper: MapKeeper, is_up: Callable[[str], bool]) -> None:
        self._keeper, self._is_up = keeper, is_up

    @property
    def geometry(self) -> tuple[int, int]:
        return self._keeper.current.data, self._keeper.current.parity

    @property
    def partitions(self) -> int:
        return self._keeper.current.count

    def copies(self, partition: int) -> int:
        return self._keeper.current.in_sync(partition)

    def copies_needed(self, strict: bool) -> int:
        return self._keeper.current.parity + 1 if strict else 0  # the replicas see to R2 themselves

    def is_whole(self, partition: int) -> bool:
        """Whether every position has its store, which answers and is not gone (C4)."""
        members, gone = self._keeper.current.partitions[partition].config.members, self._keeper.current.in_state(GONE)
        return all(one and self._is_up(one) and one not in gone for one in members)

    def is_held(self, partition: int, position: int, store: str) -> bool:
        """Whether a store is to have every shard of a position: a shard that it lacks is lost."""
        parts = self._keeper.current.partitions
        return bool(parts) and parts[partition].config.members[position] == store

    def is_joining(self, store: str) -> bool:
        """Whether a store is being filled with anything."""
        return any(one.config.joining == store for one in self._keeper.current.partitions)


class MemberNode(RowNode):
    """The node of one store of a cluster. `process` is the store's name with its process's (D2), `alarms` what else
    its process has to say."""

    def __init__(
        self,
        store: str,
        keeper: MapKeeper,
        host: ReplicatedHost,
        drives: OneStore,
        view: MapView,
        *,
        horizon: Callable[[], float],
        root: RootKeys,
        strict: bool,
        clocks: Clocks,
        router: Router,
        copy: OwnCopy,
        process: str,
        alarms: Callable[[], list[str]],
    ) -> None:
        owner = Identity(ROOT_USER, root.secret_key, [Grant("SuperUser")])
        super().__init__(host, drives, view, horizon=horizon, root=owner, root_key=root.access_key, strict=strict)
        self.host, self.membership, self.store, self.keeper = host, view, store, keeper
        self.shards = drives.store
        self.asked: dict[int, float] = {}  # when somebody last relied on what we have of a partition
        self.clocks, self._told = clocks, asyncio.Event()
        self.router, self.copy, self.process, self._alarms = router, copy, process, alarms
        self._unheard: dict[str, Failures] = {}
        self.figures: Callable[[], tuple[int, int, float]] = lambda: (0, 0, 1.0)
        self.small: Callable[[], int] = lambda: UNABLE
        self.held: Callable[[], bytes] = bytes

    def clocks_agree(self) -> bool:
        return clocks_agree(self.clocks, self.keeper)

    async def execute(
        self, partition: int, command: AnyCommand, command_id: bytes = b"", again: bool = False
    ) -> AnyAnswer:
        settings: commands.Settings | None = getattr(command, "settings", None)
        if settings is not None and settings.lock_mode and not time_is_known(self.clocks, self.keeper):
            with contextlib.suppress(TimeoutError):  # just started: whoever decides says no where nobody answers
                await asyncio.wait_for(self._told.wait(), TOLD_S)
        return await super().execute(partition, command, command_id, again)

    def horizon(self) -> float:
        """Start of the oldest request that may still read shards, peers' reads here among them (D6)."""
        return min(self._horizon(), self.shards.oldest_use())

    def led(self) -> list[int]:
        return [partition for partition in range(self.partitions) if self.host.group.serves(partition)]

    # -- shards

    async def append(self, shard: Shard, payload: memoryview | bytes, sync: bool) -> str:
        await self.shards.append(shard, [payload], sync=sync)
        return self.process

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview:
        if self.shards.locate(shard) is None and not self.membership.is_held(
            shard.partition, shard.position, self.store
        ):
            raise OfflineError(f"{shard} is not on store {self.store[:8]}, which does not hold its position")
        return await self.shards.read(shard, offset, length)

    async def lacking(self, partition: int, position: int, blobs: list[tuple[bytes, Blob]]) -> list[bytes]:
        self.asked[partition] = self._clock()  # whatever the map says here, nothing of it may be dropped now (D3)
        return await super().lacking(partition, position, blobs)

    async def compare_clocks(self) -> None:
        """Ask every other store what time it has; soon again while nobody told."""
        while True:
            others = [
                one for one, store in self.keeper.current.stores.items() if one != self.store and store.state != GONE
            ]
            self.clocks.keep(others)
            await asyncio.gather(*(self._compare(one) for one in others))
            if not others or self.clocks.time(boot_clock(), time.time()) is not None:
                return
            await asyncio.sleep(CLOCKS_FIRST_S)

    async def _compare(self, store: str) -> None:
        failures, what = self._unheard.setdefault(store, Failures()), f"asking store {store[:8]} for its time"
        try:
            asked = time.time()
            async with asyncio.timeout(CLOCKS_EVERY_S):
                told = await (await self.router.node(store)).wall_clock()
            self.clocks.heard(store, told, asked, time.time(), boot_clock())
            self._told.set()
        except (UnavailableError, TimeoutError):
            return
        except Exception as error:  # the others are heard all the same
            failures.add(what, error)
        else:
            failures.end(what)

    async def deliver(self, sender: str, messages: list[tuple[int, AnyMessage]]) -> None:
        if self.host.group.deliver(sender, messages):
            await self.host.group.written()  # the next part comes when this one is on the disk

    # -- what this node says of itself

    async def stats(self) -> dict[str, float]:
        return await self.router.stats()

    async def census(self) -> Census:
        led, group = self.led(), self.host.group
        waiting = dict.fromkeys((keys.OUTBOX, keys.GONE), 0)
        for table in waiting:
            for one in led:
                waiting[table] += await count(self.host, keys.table(one, table))
        heals = await self._heals(led)
        free, total = self.shards.space()
        volumes = self.shards.usage().values()
        used = sum(volume.used - volume.dead for volume in volumes) + self.host.group.database.size_bytes()
        alarms = [f"partition {one}: {alarm}" for one in range(self.partitions) if (alarm := group.replica(one).alarm)]
        apart = max(self.clocks.apart(boot_clock(), time.time()).values(), default=0.0)
        if apart and not self.clocks_agree():
            alarms.append(f"its clock differs from its peers' by {apart:.0f} s: nothing expires there, no lock ends")
        alarms += [self.copy.alarm] if self.copy.alarm else []
        alarms += [f"its disk {alarm}" for alarm in self.shards.watch.alarms()] + self._alarms()
        failed, made, filled = self.figures()
        return Census(
            self.store,
            __version__,
            round(self._clock() - self._started, 3),
            free,
            total,
            used,
            self.shards.settings.reserve_bytes,
            led,
            self.counters(),
            heals.total(),
            failed,
            waiting[keys.OUTBOX] + waiting[keys.GONE],
            sum(group.replica(one).lag for one in led),
            made,
            filled,
            alarms,
            self.router.unreached(),
            dict(heals),
            self.small(),
            self.held(),
        )

    async def _heals(self, led: list[int]) -> Counter[str]:
        """Heal rows of partitions by the store that lacks the shard; by nobody's name where the position has none."""
        found = Counter[str]()
        for one in led:
            async for key, _ in pieces(self.host, keys.table(one, keys.HEAL)):
                found[self.keeper.current.target(one, keys.split_heal(key)[2])] += 1
        return found


def adjusted(current: ClusterMap, partition: int, command: AnyCommand, *, strict: bool = False) -> AnyCommand:
    """A command as the map has it when it is decided: a shard on a store that is not its position's any more, or not
    the one that is being filled, is missing (D3)."""
    if isinstance(command, commands.PutObject | commands.PutPart) and command.blobs:
        return replace(command, blobs=[_with_missing(current, partition, new, strict) for new in command.blobs])
    if isinstance(command, commands.Healed) and command.stores:
        there = [
            position
            for position, store in zip(command.positions, command.stores, strict=True)
            if current.target(partition, position) == store
        ]
        return replace(command, positions=there, stores=[])
    return command


def _with_missing(current: ClusterMap, partition: int, new: NewBlob, strict: bool) -> NewBlob:
    if not new.k:
        return new
    wrong = {at for at, store in enumerate(new.stores) if store != (current.target(partition, at) or None)}
    needed = current.shards if strict else current.data + (1 if current.parity > 1 else 0)
    return replace(new, missing=sorted(wrong | set(new.missing)), stores=[], needed=needed)


def has_room_for_rows(shards: ShardStore) -> bool:
    """Rows are small: they may use half of the reserve, so that a full disk stops no writes that go elsewhere."""
    free, _ = shards.files.free_bytes(shards.directory)
    return free > shards.settings.reserve_bytes // 2


@dataclass(slots=True)
class Member:
    """A running member. `router` reaches the whole cluster; `jobs` are the work of its process, with what others
    added."""

    node: MemberNode
    router: Router
    keeper: MapKeeper
    peers: PeerServer
    links: Links
    following: asyncio.Task[None]
    jobs: Jobs
    lock: int

    def only(self, least: int) -> None:
        """Speak with nobody who speaks less than a version of the peer protocol."""
        for one in (self.peers, self.router, self.links):
            one.only(least)

    async def close(self) -> None:
        """Let others lead, take no more calls, then stop. What was acknowledged is durable anyway."""
        await self.node.host.group.leave(LEAVE_S)
        await self.peers.close()
        self.following.cancel()
        await self.router.close()
        await self.node.host.close()
        await self.links.close()
        await self.jobs.close()
        await self.node.shards.close()
        self.node.host.group.database.close()
        os.close(self.lock)


async def _open_shards(
    files: Files, directory: Path, identity: StoreIdentity, settings: StoreSettings, limits: Limits, fatal: Fatal
) -> ShardStore:
    sizes = ShardSettings(
        volume_bytes=settings.volume_bytes,
        preallocate_bytes=settings.preallocate_bytes,
        reserve_bytes=settings.reserve_bytes,
        open_volumes=limits.open_volumes,
        slow_s=limits.slow_drive_s,
        mark=aligning(files, directory),
    )
    return await ShardStore.open(files, directory, identity.store_bytes, sizes, fatal)


def _make_host(
    group: Group, keeper: MapKeeper, clocks: Clocks, shards: ShardStore, view: MapView, limits: Limits, *, strict: bool
) -> ReplicatedHost:
    return ReplicatedHost(
        group,
        keeper.current.count,
        cache_bytes=limits.row_cache_bytes,
        max_waiting=limits.waiting_commands,
        prepare=lambda partition, command: adjusted(keeper.current, partition, command, strict=strict),
        clock=lambda: time_of_most(clocks),
        agrees=lambda: clocks_agree(clocks, keeper),
        timed=lambda: time_is_known(clocks, keeper),
        room=lambda: has_room_for_rows(shards),
        whole=view.is_whole,
    )


async def open_member(
    directory: Path,
    location: Location,
    keeper: MapKeeper,
    credentials: Credentials,
    settings: StoreSettings,
    limits: Limits,
    *,
    root: RootKeys,
    horizon: Callable[[], float],
    oldest: Callable[[], float],
    fatal: Callable[[BaseException], None],
    jobs: Jobs,
    timing: Timing | None = None,
    alarms: Callable[[], list[str]] = list,
) -> Member:
    """Open or format a directory as a store of the cluster. Raises DirectoryError, PlanError, CoordinatorError."""
    files = Files()
    known = keeper.current
    identity, lock = _own_store(files, directory, known)
    store = identity.store
    must_be_known(directory, known, store)
    shards = await _open_shards(files, directory, identity, settings, limits, fatal)
    await keeper.change(
        lambda old: planner.registered(old, store, location.node, location.advertise, location.domain, location.weight)
    )
    following = asyncio.ensure_future(keeper.follow(fatal))
    links = Links(store, known.cluster, _Addresses(keeper), credentials.client, jobs)

    def open_database(path: Path) -> Database:
        return Database(path, cache_bytes=64 * MIB, write_buffer_bytes=16 * MIB, open_files=limits.open_tables)

    database, damage = await open_copy(directory / "meta", store, keeper, open_database)
    database.times = shards.times
    router = Router(keeper, credentials.client, oldest, jobs)
    group = Group(
        store, database, keeper, links.send, partitions=known.count,
        clock=boot_clock, fatal=fatal, timing=timing, send_bulk=_bulk(router, store),
    )  # fmt: skip
    clocks, view = Clocks(), MapView(keeper, router.is_up)
    host = _make_host(group, keeper, clocks, shards, view, limits, strict=settings.strict)
    drives = OneStore(Drive(0, directory, store, shards), shards)
    incarnation = new_incarnation()
    node = MemberNode(
        store, keeper, host, drives, view,
        horizon=horizon, root=root, strict=settings.strict, clocks=clocks, router=router,
        copy=OwnCopy(store, keeper, group, fatal, damage), process=f"{store}.{incarnation:x}", alarms=alarms,
    )  # fmt: skip
    router.serve(store, node)
    peers = PeerServer(
        node, parse_endpoint(location.listen), incarnation,
        cluster=known.cluster, store=store, context=credentials.server, ghost_s=limits.ghost_s,
    )  # fmt: skip
    for one in (peers, router, links) if keeps_out(directory, OLDEST) else ():  # as before this start
        one.only(VERSION)
    await peers.start()
    await group.start()
    router.start()
    jobs.start(Job("comparing clocks", 0.0, CLOCKS_EVERY_S, node.compare_clocks))
    return Member(node, router, keeper, peers, links, following, jobs, lock)


def _bulk(router: Router, store: str) -> Callable[[str, int, AnyMessage], Awaitable[None]]:
    async def send(to: str, partition: int, message: AnyMessage) -> None:
        await (await router.node(to)).deliver(store, [(partition, message)])

    return send


def _own_store(files: Files, directory: Path, known: ClusterMap) -> tuple[StoreIdentity, int]:
    """The identity of the directory's store, made where there is none, and its lock. Raises DirectoryError."""
    identity, lock = open_directory(directory, make=True)
    if identity is None:
        identity = format_directory(files, directory, known.cluster, known.count)
    if identity.cluster != known.cluster:
        raise DirectoryError(
            f"{directory} belongs to cluster {identity.cluster[:8]}, and this is {known.cluster[:8]}; "
            "give an empty directory, or the coordinator of its own cluster"
        )
    note_opened(files, directory, identity)
    return identity, lock


class _Addresses(dict[str, tuple[str, int]]):
    """Where the map says that stores are which are not gone."""

    def __init__(self, keeper: MapKeeper) -> None:
        super().__init__()
        self._keeper = keeper

    def __contains__(self, store: object) -> bool:
        known = self._keeper.current.stores.get(str(store))
        return known is not None and known.state != GONE

    def __getitem__(self, store: str) -> tuple[str, int]:
        return parse_endpoint(self._keeper.current.stores[store].address)


def is_alone(keeper: MapKeeper) -> bool:
    return sum(store.state != GONE for store in keeper.current.stores.values()) <= 1


def clocks_agree(clocks: Clocks, keeper: MapKeeper) -> bool:
    """Whether this process's wall clock may end anything (R13)."""
    return clocks.agree(boot_clock(), time.time(), alone=is_alone(keeper))


def time_of_most(clocks: Clocks) -> float:
    """What is put on rows: the wall clock, or the peers' where it is apart from theirs (R13)."""
    now_s = time.time()
    known = clocks.time(boot_clock(), now_s)
    return known if known is not None else now_s


def time_is_known(clocks: Clocks, keeper: MapKeeper) -> bool:
    """Whether a promise can be made that ends at a time: somebody told us what time it is, or nobody else is there."""
    return is_alone(keeper) or clocks.time(boot_clock(), time.time()) is not None

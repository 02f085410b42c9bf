"""A member whose copy of the metadata is damaged: it leaves the sets that count on it, is emptied and filled again; one
that is needed stays, with an alarm. Three replicas over real databases, on a map in memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cluster.memory import MemoryCoordinator
from cluster.test_map import made
from inprocess import until
from s4.cluster import clustermap, planner
from s4.cluster.keeper import DOCUMENT, MapKeeper
from s4.cluster.messages import Config, Document, Plan, State
from s4.node import metadata_copy
from s4.node.metadata_copy import LOST, OwnCopy, counted, needed, open_copy
from s4.peer.api import UnknownResultError
from s4.replica.core import Replica
from s4.replica.group import Group
from s4.replica.keptrows import STATE, load
from s4.replica.terms import NotServingError, Timing, TooFewError
from s4.storage.leveldb import AnyDatabaseError, Database, DatabaseError
from storage.test_index import NoTable

STORES = ("s0", "s1", "s2")
TIMING = Timing(beacon=0.1, lease=1.0, grace=1.5, resend=0.1)
PARTITIONS = 2


def opened(path: Path) -> Database:
    return Database(path, cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=50)


def key(partition: int, number: int) -> bytes:
    return partition.to_bytes(2, "big") + b"k%05d" % number


def value(number: int) -> bytes:
    return random.Random(number).randbytes(300)


class Cluster:
    """Groups by store; `ended` are those whose process would have ended."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.coordinator = directory, MemoryCoordinator()
        self.groups: dict[str, Group] = {}
        self.copies: dict[str, OwnCopy] = {}
        self.keepers: dict[str, MapKeeper] = {}
        self.ended: list[str] = []
        self._following: dict[str, asyncio.Task[None]] = {}

    async def keeper(self, store: str) -> MapKeeper:
        if store not in self.keepers:
            self.keepers[store] = await MapKeeper.open(self.coordinator)
            self._following[store] = asyncio.ensure_future(self.keepers[store].follow(print))
        return self.keepers[store]

    def path(self, store: str) -> Path:
        (self.directory / store).mkdir(exist_ok=True)
        return self.directory / store / "meta"

    async def start(self, store: str) -> None:
        keeper = await self.keeper(store)
        database, alarm = await open_copy(self.path(store), store, keeper, opened)

        def send(to: str, partition: int, message: Any) -> None:
            if to in self.groups and store in self.groups:
                asyncio.get_running_loop().call_soon(self.groups[to].deliver, store, [(partition, message)])

        def fatal(error: BaseException) -> None:
            self.ended.append(store)

        group = Group(
            store, database, keeper, send, partitions=PARTITIONS, clock=time.monotonic, fatal=fatal, timing=TIMING
        )
        self.groups[store] = group
        self.copies[store] = OwnCopy(store, keeper, group, fatal, alarm)
        await group.start()

    async def stop(self, store: str) -> None:
        group = self.groups.pop(store)
        await group.close()
        group.database.close()

    def leader(self, partition: int) -> Group:
        return next(group for group in self.groups.values() if group.serves(partition))

    async def write(self, count: int) -> None:
        """Put rows into each partition, through whoever leads it, however often that changes: a row twice is once."""
        for partition in range(PARTITIONS):
            rows = [(key(partition, number), value(number)) for number in range(count)]
            while True:
                await until(lambda partition=partition: any(group.serves(partition) for group in self.groups.values()))
                with contextlib.suppress(NotServingError, TooFewError, UnknownResultError):
                    await self.leader(partition).write(partition, lambda _, rows=rows: rows)
                    break
                await asyncio.sleep(0.01)  # it may be refused without ever having waited

    def whole(self) -> bool:
        current = self.keepers["s1"].current
        return all(set(one.config.in_sync) == set(STORES) for one in current.partitions) and all(
            any(group.serves(partition) for group in self.groups.values()) for partition in range(PARTITIONS)
        )

    async def close(self) -> None:
        for store in list(self.groups):
            await self.stop(store)
        for task in self._following.values():
            task.cancel()
        await asyncio.gather(*self._following.values(), return_exceptions=True)


@asynccontextmanager
async def running(directory: Path, count: int = 400) -> AsyncIterator[Cluster]:
    cluster = Cluster(directory)
    await cluster.coordinator.replace(DOCUMENT, clustermap.encode(made(3, 2, 1, PARTITIONS)), 0)
    for store in STORES:
        await cluster.start(store)
    await until(cluster.whole)
    await cluster.write(count)
    try:
        yield cluster
    finally:
        await cluster.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


async def damage(cluster: Cluster, store: str, number: int = 7) -> None:
    """Stop a store, flip a bit in one of its rows, and start it again."""
    for partition in range(PARTITIONS):  # a secondary has them as an entry of its log for a moment
        await until(lambda partition=partition: cluster.groups[store].database.get(key(partition, number)))
    await cluster.stop(store)
    assert flip(cluster.path(store), value(number), lambda: True), "the row is in no table"
    await cluster.start(store)


def flip(path: Path, content: bytes, enough: Callable[[], bool]) -> bool:
    """Flip a bit of what has this content in the tables of a database, where that is `enough`; or nothing."""
    database = opened(path)
    database._db.compact_range()  # tables of rows that are there, and none of entries that are gone
    database.close()
    for table in path.glob("*.ldb"):
        raw, at = table.read_bytes(), -1
        while (at := raw.find(content, at + 1)) >= 0:
            table.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
            if enough():
                return True
            table.write_bytes(raw)
    return False


def rows_of(database: Database) -> dict[bytes, bytes]:
    return dict(database.scan(b"\x00", b"\x00\x10"))


@pytest.mark.parametrize("found", ["by a scrub", "by a read"])
@pytest.mark.parametrize("leads", [True, False])
def test_a_damaged_copy_leaves_the_set_and_joins_again(tmp_path: Path, leads: bool, found: str) -> None:
    """A primary fails over. In the end every copy has every row, the one that was damaged too, and nobody is
    missing."""

    async def test() -> None:
        async with running(tmp_path) as cluster:
            primary = cluster.keepers["s1"].current.partitions[0].config.primary
            store = primary if leads else next(one for one in STORES if one != primary)
            await damage(cluster, store)
            await until(cluster.whole)
            if found == "by a scrub":
                await cluster.copies[store].scrub()
            else:
                with pytest.raises(Exception, match="Corruption"):
                    cluster.groups[store].committed.get(key(0, 7))
            assert cluster.copies[store].alarm
            assert cluster.path(store).with_name("meta.damaged").exists()
            for other in STORES:
                if other != store:
                    await cluster.copies[other].scrub()
                    assert not cluster.copies[other].alarm
            assert not cluster.ended
            await cluster.copies[store].renew()
            assert cluster.ended == [store]
            await until(lambda: not counted(cluster.keepers["s1"].current, store))
            await cluster.stop(store)
            await cluster.write(50)  # the others go on
            await cluster.start(store)
            assert load(cluster.groups[store].database, 0).joining == LOST
            assert not cluster.path(store).with_name("meta.damaged").exists()
            await until(cluster.whole)
            assert not cluster.copies[store].alarm
            for group in cluster.groups.values():
                await group.settled()
            await until(
                lambda: len({frozenset(rows_of(group.database).items()) for group in cluster.groups.values()}) == 1
            )
            assert rows_of(cluster.groups[store].database)[key(0, 7)] == value(7)
            await cluster.copies[store].scrub()
            assert not cluster.copies[store].alarm

    run(test)


def test_a_scrub_of_a_process_out_of_descriptors_finds_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said so and ended, and the next start emptied a copy that was whole."""

    async def test() -> None:
        async with running(tmp_path) as cluster:
            copy = cluster.copies["s0"]
            with monkeypatch.context() as patch:
                patch.setattr(cluster.groups["s0"].database, "_db", NoTable())
                with pytest.raises(DatabaseError, match="Too many open files"):
                    await copy.scrub()
            assert copy.alarm == ""
            await copy.scrub()
            assert copy.alarm == ""

    run(test)


def test_a_copy_that_a_replica_cannot_begin_with_joins_again(tmp_path: Path) -> None:
    """The database opens, and each start ended at the first row that was read, without a word of damage beside it."""

    async def test() -> None:
        async with running(tmp_path) as cluster:
            database = cluster.groups["s2"].database
            state = database.get(STATE + bytes(2))
            behind = [(STATE + bytes([255, one]), random.Random(one).randbytes(20_000)) for one in range(2)]
            database.write(behind)  # the last block is looked at anyway
            await cluster.stop("s2")
            path = cluster.path("s2")

            def hit() -> bool:
                try:
                    database = opened(path)
                except DatabaseError:
                    return False
                try:
                    load(database, 0)
                except AnyDatabaseError:
                    return True
                finally:
                    database.close()
                return False

            assert flip(path, state, hit)
            await cluster.start("s2")
            await until(cluster.whole)
            await until(lambda: load(cluster.groups["s2"].database, 0).joining is None)
            assert rows_of(cluster.groups["s2"].database)[key(0, 7)] == value(7)
            assert not cluster.path("s2").with_name("meta.damaged").exists()

    run(test)


def test_a_copy_that_is_needed_stays_with_an_alarm(tmp_path: Path) -> None:
    """Another copy is away: rows that can be read are better than none, and writes go on. Then it is back."""

    async def test() -> None:
        async with running(tmp_path) as cluster:
            await damage(cluster, "s0")
            await until(cluster.whole)
            await cluster.copies["s0"].scrub()
            await cluster.stop("s2")
            await until(lambda: all("s2" not in one.config.in_sync for one in cluster.keepers["s1"].current.partitions))
            await cluster.copies["s0"].renew()
            assert not cluster.ended
            assert cluster.copies["s0"].alarm
            await cluster.stop("s0")
            await cluster.start("s0")
            assert "cannot be done without" in cluster.copies["s0"].alarm
            await cluster.write(20)
            await cluster.start("s2")
            await until(cluster.whole)
            await cluster.copies["s0"].renew()
            assert cluster.ended == ["s0"]

    run(test)


async def leads(cluster: Cluster, store: str) -> None:
    """A store is the primary of partition 0, whoever was."""
    while not cluster.groups[store].serves(0):
        for group in list(cluster.groups.values()):
            group.replica(0).hand_over(time.monotonic(), {one for one in STORES if one != store})
        await asyncio.sleep(0.05)  # until it is asked again


async def _a_damaged_primary_that_is_needed(cluster: Cluster) -> None:
    """s0 leads, and knows that its copy is damaged; s1 has the only whole one."""
    await damage(cluster, "s0")
    await until(cluster.whole)
    await leads(cluster, "s0")
    await cluster.copies["s0"].scrub()
    await cluster.stop("s2")
    await until(lambda: all("s2" not in one.config.in_sync for one in cluster.keepers["s1"].current.partitions))


def test_a_damaged_primary_that_is_needed_lets_a_whole_copy_lead(tmp_path: Path) -> None:
    """It cannot fill the third, for a row that it cannot read: no other ever joined, and so it was needed for ever."""

    async def test() -> None:
        async with running(tmp_path) as cluster:
            await _a_damaged_primary_that_is_needed(cluster)
            shutil.rmtree(cluster.path("s2"))
            await cluster.start("s2")
            await asyncio.sleep(20 * TIMING.resend)  # in which it would have joined
            assert "s2" not in cluster.keepers["s1"].current.partitions[0].config.in_sync
            await until(lambda: cluster.groups["s0"].serves(0))
            await cluster.copies["s0"].renew()
            assert not cluster.ended
            assert cluster.copies["s0"].alarm == "its copy of the metadata is damaged, and cannot be done without"
            await until(cluster.whole)
            assert not cluster.groups["s0"].serves(0)
            await cluster.copies["s0"].renew()
            assert cluster.ended == ["s0"]

    run(test)


def test_a_hand_over_that_another_change_of_the_map_overtakes_is_asked_for_again(tmp_path: Path) -> None:
    """The swap never happened, and the only whole copy was taken for one that had led and given it back."""

    async def test() -> None:
        async with running(tmp_path) as cluster:
            await _a_damaged_primary_that_is_needed(cluster)
            await until(lambda: cluster.groups["s0"].serves(0))
            epoch = cluster.groups["s0"].replica(0).state.epoch
            await cluster.copies["s0"].renew()  # and before it is sent, the plan is looked at again
            await cluster.keepers["s1"].change(lambda old: planner._touched(old, ["s0"]))
            core = cluster.groups["s0"].replica(0)
            await until(lambda: core.swap is None)
            assert (core.leading, core.state.epoch) == (True, epoch)
            await cluster.copies["s0"].renew()
            assert "can lead" not in cluster.copies["s0"].alarm
            await until(lambda: cluster.groups["s1"].serves(0))

    run(test)


def test_a_copy_that_moves_leaves_once_the_new_one_is_in_sync(tmp_path: Path) -> None:
    """It left at once: a strict cluster took no write while the new one was filled, however long that was."""

    async def test() -> None:
        async with running(tmp_path) as cluster:
            keeper = cluster.keepers["s1"]
            await keeper.change(lambda old: planner.registered(old, "s3", "node-3", "h3:1", "zone-3", 1.0))
            moved = planner.drained(planner.added(keeper.current, ["s3"]), ["s2"])
            await keeper.change(lambda _: moved)
            await until(lambda: all("s3" in cluster.groups["s1"].replica(n).document.plan.replicas for n in (0, 1)))
            epochs = [one.config.epoch for one in keeper.current.partitions]
            await asyncio.sleep(10 * TIMING.beacon)  # in which it left
            assert [one.config.epoch for one in keeper.current.partitions] == epochs
            assert cluster.whole()
            await cluster.start("s3")
            await until(lambda: all(set(one.config.in_sync) == {"s0", "s1", "s3"} for one in keeper.current.partitions))
            await until(lambda: all(cluster.groups["s3"].committed.get(key(n, 7)) == value(7) for n in (0, 1)))

    run(test)


def test_a_damaged_primary_without_a_whole_copy_serves_what_it_can_read(tmp_path: Path) -> None:
    """Two copies, both damaged: each lets the other lead once, and no more. One alone goes on as it is."""

    async def test() -> None:
        async with running(tmp_path) as cluster:
            for store in ("s0", "s1"):
                await damage(cluster, store)
                await until(cluster.whole)
                await cluster.copies[store].scrub()
            await leads(cluster, "s0")
            await cluster.stop("s2")
            await until(lambda: all("s2" not in one.config.in_sync for one in cluster.keepers["s1"].current.partitions))
            led = []
            for _ in range(4):
                for store in ("s0", "s1"):
                    await until(lambda: any(group.serves(0) for group in cluster.groups.values()))
                    led.append(next(one for one, group in cluster.groups.items() if group.serves(0)))
                    await cluster.copies[store].renew()
            assert led == ["s0", "s1", *["s0"] * 6]
            said = "no other copy of partition 0"
            assert said in cluster.copies["s0"].alarm
            assert cluster.groups["s0"].read(0, key(0, 300)) == value(300)
            with pytest.raises(Exception, match="Corruption"):
                cluster.groups["s0"].read(0, key(0, 7))
            assert not cluster.ended

    run(test)


@pytest.mark.parametrize("at", ["removed", "made", "marked"])
def test_a_crash_while_it_is_made_again(tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two steps: the next start finds the word beside it, and ends with every partition marked."""

    class CrashError(Exception):
        pass

    def crash(*_: object) -> Any:
        raise CrashError

    async def test() -> None:
        coordinator = MemoryCoordinator()
        await coordinator.replace(DOCUMENT, clustermap.encode(made(4, 2, 1, PARTITIONS)), 0)
        keeper = await MapKeeper.open(coordinator)
        path = tmp_path / "meta"
        database = opened(path)
        database.write([(key(0, 1), b"old")])
        database.close()
        (tmp_path / "meta.damaged").touch()
        with monkeypatch.context() as patched:
            if at == "made":
                patched.setattr(Database, "write", crash)
            elif at == "marked":
                patched.setattr(metadata_copy, "unmark", crash)
            with pytest.raises(CrashError):
                await open_copy(path, "elsewhere", keeper, crash if at == "removed" else opened)
        gc.collect()  # what a process that ended has open
        database, alarm = await open_copy(path, "elsewhere", keeper, opened)
        assert not alarm
        assert not (tmp_path / "meta.damaged").exists()
        assert [load(database, partition).joining for partition in range(PARTITIONS)] == [LOST] * PARTITIONS
        assert rows_of(database) == {}
        database.close()

    run(test)


def test_a_copy_that_does_not_open_waits_until_nobody_counts_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_copy, "LOOK_S", 0.05)

    async def test() -> None:
        async with running(tmp_path, 50) as cluster:
            await cluster.stop("s0")
            (cluster.path("s0") / "CURRENT").write_bytes(b"no database")
            with pytest.raises(DatabaseError):
                opened(cluster.path("s0"))
            await cluster.start("s0")  # which returns once the others went on without it
            await until(cluster.whole)

    run(test)


def test_who_is_needed() -> None:
    current = made(3, 2, 1, PARTITIONS)
    assert needed(current, "s0") == []
    first = current.partitions[0]
    fewer = replace(first, config=replace(first.config, in_sync=first.config.in_sync[:2]))
    alone = replace(current, partitions=(fewer, *current.partitions[1:]))
    assert needed(alone, fewer.config.in_sync[0]) == [0]
    left = replace(
        first, config=replace(first.config, in_sync=first.config.in_sync[:2], eligible=first.config.in_sync[2:])
    )
    assert needed(replace(current, partitions=(left, *current.partitions[1:])), first.config.in_sync[2]) == [0]


def test_what_is_marked_never_leads_though_a_late_change_names_it() -> None:
    """A change that added it was on its way when it was emptied."""
    replica = Replica("a", State(5, 0, [], LOST), TIMING, 0.0)
    replica.see(Document(Config(6, "b", ("b", "a")), Plan(("a", "b", "c"), 2)), 1, 0.0)
    for tick in range(100):
        replica.tick(tick / 10)
        assert replica.swap is None
    assert replica.state.joining == LOST

"""The router between a moving map and stores that answer, refuse, or are silent: with made-up stores, for control of
both."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from cluster.memory import MemoryCoordinator
from cluster.test_map import made
from inprocess import until
from s4.base.clock import boot_clock
from s4.cluster import clustermap, planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.keeper import DOCUMENT, MapKeeper
from s4.cluster.placement import GONE
from s4.metadata import commands, keys
from s4.metadata.commands import Done
from s4.metadata.listing import Page, Query, Version
from s4.metadata.rows import Blob, Summary
from s4.peer.api import ForgottenError, LostError, StaleError, UnavailableError, UnknownResultError
from s4.peer.client import RemoteNode
from s4.peer.frames import VERSIONS
from s4.peer.router import Router
from s4.storage.records import DamagedError, OfflineError, Shard

QUERY = Query(limit=100)


class Store:
    """A store that serves what the test says, and keeps what it was asked."""

    gone, version, closed = False, VERSIONS[1], 0

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.then: Callable[..., Any] = lambda *_: None

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            self.asked.append((name, *arguments))
            found = self.then(name, *arguments)
            if isinstance(found, Exception):
                raise found
            return found

        return call

    def known_bucket(self, name: str) -> None:
        return None

    async def close(self) -> None:
        self.closed += 1


class Fixture:
    """A router over six stores, of which none is real."""

    def __init__(self, router: Router, coordinator: MemoryCoordinator, stores: dict[str, Store]) -> None:
        self.router, self.coordinator, self.stores = router, coordinator, stores

    async def change(self, made_of: Callable[[ClusterMap], ClusterMap]) -> None:
        """Somebody else changes the map; this process does not know it yet."""
        value, revision = await self.coordinator.read(DOCUMENT)
        await self.coordinator.replace(DOCUMENT, clustermap.encode(made_of(clustermap.decode(value))), revision)

    def primary(self, partition: int) -> Store:
        return self.stores[self.router.map.partitions[partition].config.primary]


def moved(partition: int, store: str) -> Callable[[ClusterMap], ClusterMap]:
    def change(old: ClusterMap) -> ClusterMap:
        one = old.partitions[partition]
        config = replace(one.config, epoch=one.config.epoch + 1, primary=store)
        parts = [*old.partitions]
        parts[partition] = replace(one, revision=one.revision + 1, config=config)
        return replace(old, partitions=tuple(parts))

    return change


def routed(test: Callable[[Fixture], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
    async def whole() -> None:
        coordinator = MemoryCoordinator()
        await coordinator.replace(DOCUMENT, clustermap.encode(made()), 0)
        router = Router(await MapKeeper.open(coordinator), ssl.create_default_context(), boot_clock, clock=clock)
        stores = {store: Store() for store in router.map.stores}
        router._remotes = dict(stores)  # type: ignore[arg-type]
        await test(Fixture(router, coordinator, stores))
        await router.close()

    asyncio.run(whole())


def test_a_cluster_before_its_first_store_is_added_counts_nothing() -> None:
    """What `s4 admin cluster status` shows of objects, after `cluster init` and before `cluster add`."""

    async def test() -> None:
        coordinator = MemoryCoordinator()
        await coordinator.replace(DOCUMENT, clustermap.encode(planner.new("c" * 32, 2, 1, 4)), 0)
        router = Router(await MapKeeper.open(coordinator), ssl.create_default_context(), boot_clock)
        told = await router.stats()
        assert (told["objects_count"], told["logical_bytes"], told["storage_used_bytes"], told["buckets_count"]) == (
            0,
            0,
            0,
            0,
        )

    asyncio.run(test())


def test_who_speaks_too_little_is_left_though_the_connection_was_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have been called for good: content in rows is asked for of a store that cannot read any."""

    async def test(fixture: Fixture) -> None:
        old, asked, answers = Store(), asyncio.Event(), asyncio.Event()
        old.version = 1

        async def connect(*_: Any, **__: Any) -> Store:
            asked.set()
            await answers.wait()
            return old

        monkeypatch.setattr(RemoteNode, "connect", connect)
        del fixture.router._remotes["s1"]
        waiting = asyncio.ensure_future(fixture.router.node("s1"))
        await asked.wait()
        fixture.router.only(2)
        answers.set()
        with pytest.raises(UnavailableError, match="version 1"):
            await waiting
        assert not fixture.router.is_up("s1")
        assert old.closed == 1

    routed(test)


def test_a_command_that_may_have_happened_is_sent_again_under_its_id() -> None:
    """R12: `stale` was not done, a broken connection leaves it open; the id stays, and the store is told that it may
    know it."""

    async def test(fixture: Fixture) -> None:
        failures = [
            StaleError("not here"),
            LostError("x", "cut"),
            UnknownResultError("cut off while it was on its way"),
        ]
        first = fixture.primary(3)
        first.then = lambda *_: failures.pop(0) if failures else Done()
        assert (
            await fixture.router.execute(3, commands.AbortUpload(commands.Settings(1, 1, ""), b"k", b"u" * 16))
            == Done()
        )
        ids = {call[3] for call in first.asked}
        assert len(ids) == 1
        assert [call[4] for call in first.asked] == [False, False, True, True]

    routed(test)


def test_who_has_too_much_to_do_says_nothing_of_what_was_sent_before() -> None:
    """R12: a deletion got there and its answer was lost; told that nothing was done, DeleteObjects would delete once
    more, under another id, what was written since."""

    async def test(fixture: Fixture) -> None:
        failures = [LostError("x", "cut"), UnavailableError("SlowDown", "too much to do")]
        first = fixture.primary(3)
        first.then = lambda *_: failures.pop(0) if failures else Done()
        deletion = commands.DeleteObject(commands.Settings(1, 1, ""), b"k")
        assert await fixture.router.execute(3, deletion) == Done()
        assert len({call[3] for call in first.asked}) == 1
        assert [call[4] for call in first.asked] == [False, True, True]

    routed(test)


ABORT = commands.AbortUpload(commands.Settings(1, 1, ""), b"k", b"u" * 16)


def test_what_the_own_store_leads_or_holds_is_asked_without_a_connection() -> None:
    """Neither a row nor a shard of this process's store goes over a socket, nor is another store asked for it."""

    async def test(fixture: Fixture) -> None:
        router, local = fixture.router, Store()
        router.serve(router.map.partitions[3].config.primary, local)  # type: ignore[arg-type]
        own = fixture.primary(3)
        local.root_identity = lambda _: None  # type: ignore[attr-defined]
        await router.execute(3, ABORT)
        await router.find_object(3, 1, b"k", "")
        await router.find_whole(3, 1, b"k", "")
        await router.find_content(3, bytes(32))
        await router.find_upload(3, 1, b"k", b"u" * 16, 0, 10)
        local.then = lambda *_: Blob(1, 1, 2, 1, bytes(32), 1)
        await router.find_blob(3, b"b" * 16)
        held = [
            one
            for one in range(len(router.map.partitions[3].config.members))
            if router.map.target(3, one) == router._me
        ]
        shard = Shard(3, b"b" * 16, held[0], 0)
        await router.append(shard, b"x", True)
        await router.read(shard, 0, 1)
        assert [call[0] for call in local.asked] == [
            "execute", "find_object", "find_whole", "find_content", "find_upload", "find_blob", "append", "read",
        ]  # fmt: skip
        assert own.asked == []
        assert all(not store.asked for store in fixture.stores.values())

    routed(test)


def test_patience_ends_though_the_machine_slept() -> None:
    """R12: an answer is kept for so long; a machine that was suspended does not ask for it hours later."""
    now = [0.0]

    async def test(fixture: Fixture) -> None:
        def sleeps(*_: Any) -> LostError:
            now[0] += 3600.0
            return LostError("x", "cut while the machine slept")

        fixture.primary(3).then = sleeps
        with pytest.raises(LostError):
            await fixture.router.execute(3, ABORT)
        assert len(fixture.primary(3).asked) == 1

    routed(test, lambda: now[0])


def test_patience_is_of_a_clock_that_goes_on_in_suspend() -> None:
    assert inspect.signature(Router).parameters["clock"].default is boot_clock


def test_what_may_have_happened_and_is_forgotten_is_not_made_anew() -> None:
    async def test(fixture: Fixture) -> None:
        failures = [LostError("x", "cut"), ForgottenError("too old", 1)]
        fixture.primary(3).then = lambda *_: failures.pop(0)
        with pytest.raises(LostError, match="too old"):
            await fixture.router.execute(3, ABORT)
        assert len({call[3] for call in fixture.primary(3).asked}) == 1

    routed(test)


def test_a_gateway_whose_clock_is_behind_learns_from_what_stores_forgot() -> None:
    """What was sent once and not decided is sent under a newer id, and so is what follows, at the first try."""
    floor = int(time.time() * 1000) + 3_600_000

    async def test(fixture: Fixture) -> None:
        first = fixture.primary(3)
        first.then = lambda _, partition, command, named, again: (
            Done() if keys.command_ms(named) > floor else ForgottenError("too old", floor)
        )
        assert await fixture.router.execute(3, ABORT) == Done()
        assert await fixture.router.execute(3, ABORT) == Done()
        assert len(first.asked) == 3
        assert not any(call[4] for call in first.asked)

    routed(test)


def test_what_a_store_says_itself_is_not_repeated() -> None:
    async def test(fixture: Fixture) -> None:
        fixture.primary(3).then = lambda *_: UnavailableError("SlowDown", "too much to do")
        with pytest.raises(UnavailableError, match="too much to do"):
            await fixture.router.find_content(3, bytes(32))
        assert len(fixture.primary(3).asked) == 1

    routed(test)


def test_a_call_follows_its_partition_to_another_primary() -> None:
    async def test(fixture: Fixture) -> None:
        old, new = fixture.primary(3), fixture.stores["s5"]
        old.then, new.then = lambda *_: StaleError("moved"), lambda *_: None
        await fixture.change(moved(3, "s5"))
        assert await fixture.router.find_content(3, bytes(32)) is None
        assert new.asked[-1][0] == "find_content"

    routed(test)


def test_calls_that_wait_for_one_primary_read_the_map_together() -> None:
    """While a failover is under way hundreds wait, in the process that is to lead, too: each read the map ten times a
    second by itself, which is a request to the API server in Kubernetes."""

    async def test(fixture: Fixture) -> None:
        calls, reads = 200, 0
        old, new, read = fixture.primary(3), fixture.stores["s5"], fixture.coordinator.read

        async def counted(document: str) -> tuple[bytes, int]:
            nonlocal reads
            reads += 1
            await asyncio.sleep(0)
            return await read(document)

        fixture.coordinator.read = counted  # type: ignore[method-assign]
        old.then, new.then = lambda *_: StaleError("moved"), lambda *_: None
        waiting = [asyncio.ensure_future(fixture.router.find_content(3, bytes(32))) for _ in range(calls)]
        await until(lambda: len(old.asked) >= 4 * calls)
        assert reads < calls
        await fixture.change(moved(3, "s5"))
        assert await asyncio.gather(*waiting) == [None] * calls
        assert len(new.asked) == calls

    routed(test)


def test_a_listing_asks_for_every_partition_exactly_once() -> None:
    """L1: partition 3 moves between two answers. What was asked at its old epoch is thrown away, and all are asked
    again."""

    async def test(fixture: Fixture) -> None:
        old = fixture.router.map.partitions[3].config.primary
        new = next(store for store in fixture.stores if store != old)
        row = Summary(1, 1, "e", False, False, "root", "", "")

        def answer(store: str) -> Callable[..., Any]:
            def then(name: str, bucket: int, query: Query, where: list[tuple[int, int]]) -> Any:
                served = {
                    number: part.config.epoch
                    for number, part in enumerate(truth().partitions)
                    if part.config.primary == store
                }
                if any(served.get(number) != epoch for number, epoch in where):
                    return StaleError("not here at that epoch")
                return Page([Version(b"%02d" % number, b"", row, True) for number, _ in where])

            return then

        def truth() -> ClusterMap:
            return clustermap.decode(fixture.coordinator._documents[DOCUMENT][0])

        for store, one in fixture.stores.items():
            one.then = answer(store)
        await fixture.change(moved(3, new))
        page = await fixture.router.list_objects(1, QUERY)
        assert [item.key for item in page.items if isinstance(item, Version)] == [
            b"%02d" % number for number in range(8)
        ]

    routed(test)


def test_a_shard_is_read_from_the_store_that_is_filled_or_else_from_the_one_before() -> None:
    async def test(fixture: Fixture) -> None:
        part = fixture.router.map.partitions[0]
        old, new = (
            part.config.members[2],
            next(
                store
                for store in fixture.stores
                if store not in part.config.members[:2] and store != part.config.members[2]
            ),
        )
        wanted = tuple(new if at == 2 else store for at, store in enumerate(part.wanted))
        changed = replace(
            part, revision=2, wanted=wanted, config=replace(part.config, epoch=2, joining=new, position=2)
        )
        await fixture.change(lambda known: replace(known, partitions=(changed, *known.partitions[1:])))
        await fixture.router.keeper.refresh()
        fixture.stores[new].then = lambda *_: OfflineError("not there yet")
        fixture.stores[old].then = lambda *_: memoryview(b"shard")
        assert bytes(await fixture.router.read(Shard(0, bytes(16), 2, 0), 0, 5)) == b"shard"
        fixture.stores[new].then = lambda *_: "new.1"
        assert await fixture.router.append(Shard(0, bytes(16), 2, 0), b"x", True) == "new.1"
        # once it is gone it takes nothing, and what was written meanwhile is on it alone
        await fixture.change(
            lambda known: replace(known, stores={**known.stores, new: replace(known.stores[new], state=GONE)})
        )
        await fixture.router.keeper.refresh()
        with pytest.raises(OfflineError):
            await fixture.router.append(Shard(0, bytes(16), 2, 0), b"x", True)
        fixture.stores[old].then = lambda *_: OfflineError("it was on the other")
        fixture.stores[new].then = lambda *_: memoryview(b"newer")
        assert bytes(await fixture.router.read(Shard(0, bytes(16), 2, 0), 0, 5)) == b"newer"

    routed(test)


def test_damage_is_reported_to_the_primary_once() -> None:
    async def test(fixture: Fixture) -> None:
        shard = Shard(0, bytes(16), 4, 0)
        fixture.stores[fixture.router.map.partitions[0].config.members[4]].then = lambda *_: DamagedError("flipped")
        for _ in range(3):
            with pytest.raises(DamagedError):
                await fixture.router.read(shard, 0, 5)
        primary = fixture.primary(0)
        await until(lambda: primary.asked)
        told = [call for call in primary.asked if call[0] == "execute"]
        assert [call[2] for call in told] == [commands.NeedHeal(bytes(16), [4])]

    routed(test)

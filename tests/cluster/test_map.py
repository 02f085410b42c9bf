"""The cluster's map: its bytes, changes of the plan, what people are told, and swaps of many replicas at once."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.memory import MemoryCoordinator
from s4.cluster import clustermap, planner
from s4.cluster.clustermap import STANDBY, ClusterMap
from s4.cluster.coordinator import ConflictError, UnknownOutcomeError
from s4.cluster.keeper import DOCUMENT, MapKeeper, NoMapError
from s4.cluster.messages import decode_document, encode_document
from s4.cluster.placement import DRAINING, GONE, SERVING
from s4.cluster.planner import PlanError
from s4.cluster.status import Said, any_may_stop, safe_to_stop, status, uncounted


def made(nodes: int = 6, data: int = 4, parity: int = 2, partitions: int = 8) -> ClusterMap:
    """A map with stores s0, s1, … that serve."""
    new = planner.new("c" * 32, data, parity, partitions)
    for number in range(nodes):
        new = planner.registered(new, f"s{number}", f"node-{number}", f"h{number}:1", f"zone-{number}", 1.0)
    return planner.added(new, new.in_state(STANDBY))


def test_the_map_byte_by_byte() -> None:
    """Golden bytes of format 1. A change of them is a new format, with a reader for both."""
    small = planner.added(planner.registered(planner.new("c1", 1, 0, 1), "s0", "n", "h:1", "z", 2.0), ["s0"])
    raw = (
        b'{"format":1,"cluster":"c1","data":1,"parity":0,"count":1,"freeze":false,"stores":[["s0","n","h:1","z",2.0,"serving"]],'
        b'"partitions":[[1,1,0,[0],[],[0],-1,-1,[0]]]}'
    )
    assert clustermap.encode(small) == raw
    assert clustermap.decode(raw) == small
    with pytest.raises(ValueError, match="format 2; this S4 knows 1"):
        clustermap.decode(raw.replace(b'"format":1', b'"format":2'))


def test_every_map_comes_back() -> None:
    one = planner.frozen(planner.gone(made(8), ["s3"]), True)
    parts = list(one.partitions)
    parts[0] = replace(
        parts[0],
        config=replace(
            parts[0].config, joining="s7", position=3, members=("", *parts[0].config.members[1:]), eligible=("s1",)
        ),
    )
    one = replace(one, partitions=tuple(parts))
    assert clustermap.decode(clustermap.encode(one)) == one
    assert len(clustermap.encode(made(6, partitions=256))) < 256 * 120


def test_copies_that_were_asked_for_are_in_the_map_and_its_bytes_stay_as_they_were_without() -> None:
    """The least is what a map of 0.7 has, and says nothing of it. Every partition's revision rises: its replicas look
    at the plan again."""
    plain = made()
    assert planner.copied(plain, 3) is plain
    assert b"copies" not in clustermap.encode(plain)
    more = planner.copied(plain, 5)
    assert clustermap.decode(clustermap.encode(more)) == more == planner.copied(more, 5)
    assert (more.replicas, len(more.document(0).plan.replicas), more.minimum) == (5, 5, 2)
    assert [one.revision for one in more.partitions] == [one.revision + 1 for one in plain.partitions]
    assert planner.copied(more, 3) == planner.copied(more, 0), "the least, by its number or without"
    assert planner.copied(more, 0).copies == 0
    assert planner.new("c", 4, 2, 8, 6).replicas == 6


@pytest.mark.parametrize(("data", "parity", "least"), [(4, 2, 3), (1, 1, 2), (1, 0, 1), (2, 4, 5)])
def test_copies_are_as_many_as_may_be_lost_and_one_more(data: int, parity: int, least: int) -> None:
    one = made(8, data, parity)
    assert one.replicas == least
    for copies in (least - 1, data + parity + 1):
        if copies:
            with pytest.raises(
                PlanError, match=f"{copies} copies of the metadata: {data}\\+{parity} has {least} at least"
            ):
                planner.copied(one, copies)
    assert planner.copied(one, data + parity).replicas == data + parity


@pytest.mark.parametrize("partitions", [0, 3, 8192])
def test_partitions_are_a_power_of_two(partitions: int) -> None:
    with pytest.raises(PlanError, match="give a power of two up to 4096"):
        planner.new("c", 4, 2, partitions)


@given(
    st.lists(st.sampled_from(["add", "drain", "gone", "swap", "rebalance"]), max_size=8),
    st.randoms(use_true_random=False),
)
def test_a_plan_only_names_stores_that_may_hold_data(actions: list[str], chosen: random.Random) -> None:
    """And each change made twice is made once; a store that is gone stays gone."""
    one, count = made(8), 8
    for action in actions:
        serving, before = one.in_state(SERVING), one
        try:
            if action == "swap":
                one = planner.registered(one, f"s{count}", f"node-{count}", "h:1", f"zone-{count}", 1.0)
                count += 1
                lost, instead = chosen.choice(serving), f"s{count - 1}"
                one = planner.swapped(one, lost, instead)
                again = planner.swapped(one, lost, instead)
            elif action == "rebalance":
                one = planner.rebalanced(one)
                again = planner.rebalanced(one)
            else:
                change = {"add": planner.added, "drain": planner.drained, "gone": planner.gone}[action]
                stores = chosen.sample(serving, 1) if action != "add" else one.in_state(STANDBY, DRAINING)[:1]
                one = change(one, stores)
                again = change(one, stores)
        except PlanError as error:
            assert "add others first" in str(error)
            one = before
            continue
        assert [part.wanted for part in again.partitions] == [part.wanted for part in one.partitions]
        for part in one.partitions:
            assert len(set(part.wanted)) == 6
            assert all(one.stores[store].state == SERVING for store in part.wanted)
        assert set(before.in_state(GONE)) <= set(one.in_state(GONE))


def test_what_waits_for_a_store_does_not_keep_it_from_stopping() -> None:
    """Two stores of a host that is drained: one has left, and what is written waits for it; the other may follow, nobody
    else may."""
    one = planner.new("c", 4, 2, 16)
    for number in range(12):
        one = planner.registered(one, f"s{number}", f"node-{number}", "h:1", f"host-{number // 2}", 1.0)
    one = planner.added(one, list(one.stores))
    told = said(one, "s2", heals=5)
    assert any("5 shards wait" in reason for reason in safe_to_stop(one, told, ["s2", "s3"])), "it may be anybody's"
    known = told["s0"]
    assert known is not None
    told["s0"] = msgspec.structs.replace(known, heals_of={"s2": 5})
    assert safe_to_stop(one, told, ["s2", "s3"]) == []
    assert any("5 shards wait" in reason for reason in safe_to_stop(one, told, ["s4"]))
    told["s0"] = msgspec.structs.replace(known, heals=6, heals_of={"s2": 5, "s7": 1})
    assert any("1 shards wait" in reason for reason in safe_to_stop(one, told, ["s2", "s3"]))


def test_what_nobody_counts_just_now_may_wait_to_be_healed() -> None:
    """A primary that has just started serves nothing yet: of what waits in its partitions nobody told, and another
    store was said to be safe to stop."""
    one = made()
    told = said(one, heals=5)
    assert (uncounted(one, told), safe_to_stop(one, told, ["s1"])) == ([], ["5 shards wait to be made again"])
    led = sum(part.config.primary == "s0" for part in one.partitions)
    told["s0"] = Said((), 0)
    assert safe_to_stop(one, told, ["s1"]) == []
    assert uncounted(one, told) == [
        f"{led} partitions have no primary just now, which knows what waits to be made again"
    ]


@given(st.randoms(use_true_random=False), st.sampled_from([(4, 2), (2, 1), (2, 4), (1, 1)]))
def test_whether_each_may_stop_is_asked_at_once(chosen: random.Random, shape: tuple[int, int]) -> None:
    data, parity = shape
    one = made(data + parity + 2, data, parity)
    down = [store for store in one.stores if chosen.random() < 0.1]
    parts = list(one.partitions)
    if chosen.random() < 0.3:
        config = replace(parts[0].config, joining=chosen.choice(list(one.stores)))
        parts[0] = replace(parts[0], config=config)
    if chosen.random() < 0.3:
        parts[1] = replace(parts[1], config=replace(parts[1].config, in_sync=parts[1].config.in_sync[1:]))
    one = replace(one, partitions=tuple(parts))
    told = said(one, *down, heals=chosen.choice((0, 0, 1)))
    if (known := told["s0"]) is not None and chosen.random() < 0.5:
        told["s0"] = msgspec.structs.replace(known, heals_of={chosen.choice(list(one.stores)): known.heals})
    asked = [store for store in one.stores if store not in down and chosen.random() < 0.8]
    assert any_may_stop(one, told, asked) == all(not safe_to_stop(one, told, [store]) for store in asked)


def test_a_store_that_is_gone_cannot_come_back() -> None:
    one = planner.gone(made(7), ["s3"])
    with pytest.raises(PlanError, match="declared gone, which is for good"):
        planner.registered(one, "s3", "node-3", "h:1", "z", 1.0)
    with pytest.raises(PlanError, match="gone, which is for good"):
        planner.added(one, ["s3"])


def test_too_few_stores_are_refused_with_what_to_do() -> None:
    with pytest.raises(PlanError, match=r"4\+2 needs 6 serving stores, and there would be 5; add others first"):
        planner.drained(made(6), ["s1"])


def said(one: ClusterMap, *down: str, heals: int = 0) -> dict[str, Said | None]:
    led = {
        store: [at for at, part in enumerate(one.partitions) if part.config.primary == store] for store in one.stores
    }
    return {
        store: None if store in down else Said(led[store], heals if store == "s0" else 0)
        for store in one.stores
        if one.stores[store].state != GONE
    }


def test_what_people_are_told() -> None:
    one = made()
    assert status(one, said(one)).health == "ok"
    assert status(one, said(one, heals=3)).reasons == ["3 shards wait to be made again"]
    down = status(one, said(one, "s1"))
    assert down.health == "down"  # its partitions have no primary yet
    assert "node-1 does not answer" in down.reasons
    emptied = planner.registered(one, "s9", "node-1", "h:1", "z", 1.0)  # its disk was exchanged
    assert any(
        "node-1 does not answer; its node has an empty store" in reason
        and "`s4 admin cluster replace node-1`" in reason
        for reason in status(emptied, said(emptied, "s1")).reasons
    )
    assert not any("replace" in reason for reason in status(emptied, said(emptied, "s2")).reasons)


def test_what_may_be_stopped() -> None:
    one = made()
    assert safe_to_stop(one, said(one), ["s1"]) == []
    assert any("copies of their metadata" in reason for reason in safe_to_stop(one, said(one), ["s1", "s2"]))
    assert any("shards' stores" in reason for reason in safe_to_stop(one, said(one, "s0"), ["s1"]))
    assert safe_to_stop(one, said(one, heals=1), ["s1"]) == ["1 shards wait to be made again"]
    parts = (replace(one.partitions[0], config=replace(one.partitions[0].config, joining="s1")), *one.partitions[1:])
    assert any("being moved" in reason for reason in safe_to_stop(replace(one, partitions=parts), said(one), ["s1"]))


async def swap(keeper: MapKeeper, number: int, chosen: random.Random) -> bool:
    """As a replica does it: from what was read, and the same again until the outcome is known (R4)."""
    value, revision = await keeper.read(f"partition/{number}")
    document = decode_document(value)
    wanted = encode_document(replace(document, config=replace(document.config, epoch=document.config.epoch + 1)))
    while True:
        try:
            await keeper.replace(f"partition/{number}", wanted, revision)
        except ConflictError:
            value, newer = await keeper.read(f"partition/{number}")
            return newer == revision + 1 and value == wanted
        except UnknownOutcomeError:
            await asyncio.sleep(chosen.random() / 1000)
            continue
        return True


@pytest.mark.parametrize("seed", range(20))
def test_swaps_of_many_replicas_go_into_one_write_and_none_is_lost(seed: int) -> None:
    """Three processes change partitions and the plan at once, over a coordinator that loses and delays: every change
    that is known to have happened raised its partition's epoch by one."""

    async def whole() -> None:
        coordinator = MemoryCoordinator(seed, faults=0.15)
        calm = MemoryCoordinator()
        with pytest.raises(NoMapError):
            await MapKeeper.open(calm)
        await coordinator._set(DOCUMENT, clustermap.encode(made()), 0)
        value, revision = coordinator._documents[DOCUMENT]
        keepers = [MapKeeper(coordinator, clustermap.decode(value), revision) for _ in range(3)]
        chosen, happened = random.Random(seed), [0] * 8

        async def work(keeper: MapKeeper) -> None:
            for _ in range(10):
                number = chosen.randrange(8)
                try:
                    happened[number] += await swap(keeper, number, chosen)
                except Exception as error:
                    assert "lost" in str(error)  # a read got lost: the replica tries again later

        await asyncio.gather(*(work(keeper) for keeper in keepers for _ in range(3)))
        coordinator._faults = 0.0
        found = await keepers[0].refresh()
        for part, count in zip(found.partitions, happened, strict=True):
            assert part.config.epoch == part.revision
            assert part.config.epoch >= 1 + count

    asyncio.run(whole())


def test_one_store_s_death_is_one_write() -> None:
    async def whole() -> None:
        coordinator = MemoryCoordinator()
        await coordinator.replace(DOCUMENT, clustermap.encode(made(partitions=64)), 0)
        keeper = await MapKeeper.open(coordinator)
        chosen = random.Random(1)
        assert all(await asyncio.gather(*(swap(keeper, number, chosen) for number in range(64))))
        assert keeper.revision <= 3

    asyncio.run(whole())

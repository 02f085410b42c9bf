"""The map in two halves: whatever happens to it, the halves are the map, and nobody writes the other's."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from s4.cluster import planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.coordinator import CoordinatorError, NotPlannerError
from s4.cluster.kubernetes_map import Half, joined, split

STORES = [f"{number:032x}" for number in range(8)]


def formed(nodes: int) -> ClusterMap:
    current = planner.new("c", 2, 2, 4)
    for number, store in enumerate(STORES[:nodes]):
        current = planner.registered(current, store, f"n{number}", f"n{number}:9002", f"d{number}", 1.0)
    return planner.added(current, STORES[:nodes])


def planned(current: ClusterMap, chosen: random.Random) -> ClusterMap:
    """What a planner may do."""
    serving = current.in_state("serving")
    kind = chosen.choice(("add", "drain", "gone", "swap", "freeze", "copies"))
    try:
        if kind == "add":
            return planner.added(current, current.in_state("standby", "draining")[:1])
        if kind == "drain":
            return planner.drained(current, [chosen.choice(serving)])
        if kind == "gone":
            return planner.gone(current, [chosen.choice(serving)])
        if kind == "swap":
            return planner.swapped(current, chosen.choice(serving), current.in_state("standby")[0])
        if kind == "copies":
            return planner.copied(current, chosen.choice((0, 3, 4)))
        return planner.frozen(current, not current.freeze)
    except (planner.PlanError, IndexError):
        return current


def held(current: ClusterMap, chosen: random.Random) -> ClusterMap:
    """What daemons may do: another configuration, or a store that says where it is."""
    if chosen.random() < 0.3:
        store = chosen.choice(STORES)
        number = STORES.index(store)
        try:
            return planner.registered(
                current, store, f"n{number}", f"moved{chosen.randrange(9)}:9002", f"d{number}", 1.0
            )
        except planner.PlanError:
            return current
    partitions = list(current.partitions)
    place = chosen.randrange(len(partitions))
    one = partitions[place]
    members = list(one.config.members)
    members[chosen.randrange(4)] = chosen.choice(["", *current.stores])
    config = replace(
        one.config, epoch=one.config.epoch + 1, primary=chosen.choice(list(current.stores)), members=tuple(members)
    )
    partitions[place] = replace(one, revision=one.revision + 1, config=config)
    return replace(current, partitions=tuple(partitions))


@given(st.integers(0, 2**32))
def test_halves_are_the_map_whatever_happens(seed: int) -> None:
    chosen = random.Random(seed)
    current = formed(chosen.randrange(4, 8))
    spec, status = split(current, {}, {}, plans=True)
    assert joined(spec, status) == current
    for _ in range(20):
        plans = chosen.random() < 0.5
        wanted = planned(current, chosen) if plans else held(current, chosen)
        new_spec, new_status = split(wanted, spec, status, plans=plans)
        if plans:
            assert joined(new_spec, status) == wanted, "a plan is in the spec alone"
            spec = new_spec
        else:
            assert joined(spec, new_status) == wanted, "what is held is in the status alone"
            status = new_status
        current = wanted


def test_a_plan_whose_first_status_was_never_written_is_no_plan() -> None:
    spec, _ = split(formed(4), {}, {}, plans=True)
    assert joined(spec, {}).partitions == ()


def test_a_domain_that_the_planner_gave_counts() -> None:
    current = formed(4)
    spec, status = split(current, {}, {}, plans=True)
    spec, status = split(planner.placed(current, {STORES[0]: "zone-a"}), spec, status, plans=True)
    assert joined(spec, status).stores[STORES[0]].domain == "zone-a"
    assert joined(spec, status).stores[STORES[0]].host not in ("", "zone-a"), "what its node said of itself is not lost"
    again = planner.registered(joined(spec, status), STORES[0], "n0", "elsewhere:9002", "other", 1.0)
    _, status = split(again, spec, status, plans=False)
    assert joined(spec, status).stores[STORES[0]].domain == "zone-a"
    assert joined(spec, status).stores[STORES[0]].address == "elsewhere:9002"


def test_a_store_that_was_let_go_stands_by() -> None:
    current = planner.drained(formed(5), [STORES[4]])
    halves = split(current, {}, {}, plans=True)
    with pytest.raises(planner.PlanError, match="still holds"):
        planner.released(joined(*halves), STORES[4])
    empty = replace(
        current,
        partitions=tuple(
            replace(one, config=replace(one.config, members=one.wanted, in_sync=one.wanted[:3], eligible=()))
            for one in current.partitions
        ),
    )
    assert joined(*split(planner.released(empty, STORES[4]), {}, {}, plans=True)).stores[STORES[4]].state == "standby"


def test_nobody_writes_the_others_half() -> None:
    current = formed(5)
    halves: tuple[Half, Half] = split(current, {}, {}, plans=True)
    with pytest.raises(NotPlannerError, match="the operator plans"):
        split(planner.drained(current, [STORES[0]]), *halves, plans=False)
    one = current.partitions[0]
    other = replace(one, revision=2, config=replace(one.config, epoch=2))
    with pytest.raises(CoordinatorError, match="for the daemons"):
        split(replace(current, partitions=(other, *current.partitions[1:])), *halves, plans=True)


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(CoordinatorError, match="format 9"):
        joined({"format": 9}, {})

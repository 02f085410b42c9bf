"""Which store is not used, because it and the others do not reach each other."""

from __future__ import annotations

from s4.cluster import planner, reach
from s4.cluster.clustermap import ClusterMap
from s4.cluster.placement import DRAINING
from s4.cluster.status import Said


def stores(count: int) -> ClusterMap:
    made = planner.new("c" * 32, 2, 1, 4)
    for number in range(count):
        made = planner.registered(made, f"s{number}", f"node-{number}", f"node-{number}:9002", f"z{number}", 1.0)
    return made


def said(current: ClusterMap, **unreached: dict[str, str]) -> dict[str, Said | None]:
    return {store: Said((), 0, unreached=unreached.get(store, {})) for store in current.stores}


def test_who_is_new() -> None:
    standing = stores(4)
    serving = planner.added(standing, ["s0", "s1", "s2"])
    assert reach.newcomers(standing, serving) == ["s0", "s1", "s2"]
    assert reach.newcomers(serving, planner.added(serving, ["s3"])) == ["s3"]
    assert reach.newcomers(serving, planner.swapped(serving, "s0", "s3")) == ["s3"]
    draining = planner.drained(planner.added(serving, ["s3"]), ["s3"])
    assert draining.stores["s3"].state == DRAINING
    assert reach.newcomers(draining, planner.added(draining, ["s3"])) == []
    assert reach.newcomers(serving, planner.frozen(serving, True)) == []


def test_each_way_counts() -> None:
    current = planner.added(stores(5), ["s0", "s1", "s2"])
    assert reach.obstacles(current, said(current), ["s3"], {}) == []
    assert reach.obstacles(current, said(current, s1={"s3": "timed out"}), ["s3"], {}) == [
        "node-1 cannot reach node-3 at node-3:9002 (timed out)"
    ]
    assert reach.obstacles(current, said(current, s3={"s0": "no such host"}), ["s3"], {}) == [
        "node-3 cannot reach node-0 at node-0:9002 (no such host)"
    ]
    assert reach.obstacles(current, said(current, s3={"s4": "x"}), ["s3"], {}) == [], "s4 is used by nobody"
    assert reach.obstacles(current, said(current, s3={"s4": "x"}), ["s3", "s4"], {}) == [
        "node-3 cannot reach node-4 at node-4:9002 (x)"
    ]
    assert reach.obstacles(current, said(current, s0={"s1": "x"}), ["s3"], {}) == [], "not of its making"


def test_who_does_not_answer() -> None:
    current = planner.added(stores(4), ["s0", "s1", "s2"])
    told = said(current, s3={"s1": "refused"})
    told["s1"] = None
    assert reach.obstacles(current, told, ["s3"], {}) == [], "a node that is down keeps nobody out"
    assert reach.obstacles(current, {**said(current), "s3": None}, ["s3"], {"s3": "refused"}) == [
        "node-3 does not answer at node-3:9002 (refused)"
    ]

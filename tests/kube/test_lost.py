"""What the operator does when a cluster's shard map was lost and its stores are there: nothing is formed over them."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from kube.worlds import Model
from s4.cluster import clustermap, planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.kubernetes_map import joined, split
from s4.cluster.placement import GONE
from s4.cluster.recovery import Recovery
from s4_operator.observed import Observed
from s4_operator.plan import plan
from s4_operator.report import report
from s4_operator.steps import AddStores, RestoreMap, SetDomains, changed, in_words


def lost(recovery: Recovery | None, *, nodes: int = 4) -> tuple[Observed, ClusterMap]:
    """A cluster of four whose map was begun anew, with `nodes` of its pods there; and the map that it had."""
    model = Model(1)
    while model.map is None or not model.map.partitions:
        model.round(troubled=False)
    old = model.map
    begun = planner.new(old.cluster, old.data, old.parity, old.count)
    for store, one in list(old.stores.items())[:nodes]:
        begun = planner.registered(begun, store, one.node, one.address, one.domain, 1.0)
    model.map = begun
    return replace(model.seen(), recovery=recovery), old


def told(old: ClusterMap) -> Recovery:
    return Recovery(sorted(old.stores), map=clustermap.encode(old))


def test_the_map_that_was_is_put_in_place_and_nothing_is_formed() -> None:
    seen, old = lost(None)
    seen = replace(seen, recovery=told(old))
    made = plan(seen)
    assert made.steps == [RestoreMap(old)]
    assert "the shard map was lost: it is made again of what 4 stores hold" in made.doing
    assert seen.map is not None
    after = changed(made.steps[0], seen.map)
    assert after.partitions == old.partitions
    assert in_words(made.steps[0], after) == "the lost shard map was made again of what 4 stores hold"
    assert report(seen, made, 1, None).phase == "Recovering"


def test_nothing_is_formed_while_nobody_says_what_stores_hold() -> None:
    seen, _ = lost(None)
    made = plan(seen)
    assert made.steps == []
    assert made.doing[-1] == "waiting for a daemon to say what its stores hold"
    formed = plan(replace(seen, recovery=Recovery()))
    assert [type(step) for step in formed.steps] == [AddStores], "stores that hold nothing are a new cluster's"


def test_a_store_that_does_not_tell_is_waited_for_and_then_asked_about_by_name() -> None:
    seen, old = lost(None, nodes=3)
    (away,) = set(old.stores) - set(seen.map.stores if seen.map else ())
    why = f"these stores of it do not tell what they hold: c-node-3 (store {away})"
    seen = replace(seen, recovery=Recovery(sorted(set(old.stores) - {away}), {away: "c-node-3"}, [why]))
    made = plan(replace(seen, now_s=0.0))
    assert (made.steps, made.at_risk) == ([], "")
    assert why in made.doing[-1]
    stopped = replace(
        seen, pods=tuple(replace(pod, ready=pod.ordinal != 3) for pod in seen.pods), now_s=seen.now_s + 3600
    )
    made = plan(stopped)
    assert made.at_risk == "", "it may tell in a moment"
    stopped = replace(stopped, before=report(stopped, made, 1, None))
    made = plan(stopped)
    assert made.steps == []
    assert made.at_risk.endswith(f"annotate the S4Cluster with s4.dev/confirm-data-loss={away}")
    assert report(stopped, made, 1, None).message == made.at_risk[:500]
    assert plan(replace(stopped, before=report(stopped, made, 1, None))).at_risk == made.at_risk


def test_a_restored_map_is_written_as_the_first_is_and_a_crash_between_its_halves_leaves_none() -> None:
    seen, old = lost(None)
    assert seen.map is not None
    spec, status = split(seen.map, {}, {}, plans=True)
    wanted = changed(RestoreMap(old), joined(spec, status))
    new_spec, new_status = split(wanted, spec, status, plans=True)
    assert joined(new_spec, new_status) == wanted
    assert not joined(new_spec, status).partitions, "the spec alone counts as none"
    again = changed(RestoreMap(old), joined(new_spec, status))
    assert joined(*split(again, new_spec, status, plans=True)) == wanted, "and is written again"


def test_zones_are_known_before_the_map_is_made_again() -> None:
    seen, old = lost(None)
    spec = seen.spec.model_copy(update={"placement": seen.spec.placement.model_copy(update={"failureDomain": "none"})})
    made = plan(replace(seen, spec=spec, recovery=told(old)))
    assert [type(step) for step in made.steps] == [SetDomains, RestoreMap]


def test_a_disk_that_was_lost_with_the_map_is_replaced_by_the_one_that_is_there() -> None:
    seen, old = lost(None, nodes=3)
    assert seen.map is not None
    (away,) = set(old.stores) - set(seen.map.stores)
    stores = {**old.stores, away: structs.replace(old.stores[away], state=GONE)}
    begun = planner.registered(seen.map, "f" * 32, old.stores[away].node, "a:1", old.stores[away].domain, 1.0)
    after = changed(RestoreMap(structs.replace(old, stores=stores)), begun)
    assert seen.status is not None
    told_of = [*seen.status.stores, structs.replace(seen.status.stores[0], store="f" * 32, up=True)]
    status = structs.replace(seen.status, stores=told_of)
    made = plan(replace(seen, map=after, recovery=Recovery(), status=status))
    assert made.steps == [AddStores(("f" * 32,))]
    filled = changed(made.steps[0], after)
    assert not any(away in one.wanted for one in filled.partitions)

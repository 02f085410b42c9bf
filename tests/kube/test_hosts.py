"""Hosts with several disks, by the plan alone: they are drained, lost, upgraded and joined as one, and no partition ever
has less than must stay up. tests/kube/test_plan.py has what does not depend on hosts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from kube.test_plan import settled
from kube.worlds import Model, UnsafeError
from s4.cluster import planner
from s4.cluster.kubernetes_map import joined, split
from s4_operator import hosts
from s4_operator.hosts import survives
from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec
from s4_operator.observe import pod
from s4_operator.observed import Pod
from s4_operator.plan import Plan, plan
from s4_operator.report import report
from s4_operator.steps import DeleteClaim, DeletePod, Freeze, RetainVolume, SetDomains, Spread, changed


def test_every_state_of_hosts_leads_to_what_is_wanted() -> None:
    for seed in range(12):
        disks = 2 + seed % 2
        model = settled(Model(seed, nodes=disks * (4 + seed % 3), disks=disks, unit=("node", "host")[seed % 2]))
        model.rounds(150, troubled=True)
        model.recover()
        settled(model)
        made = plan(model.seen())
        assert (made.steps, made.doing, made.at_risk, made.leaving) == ([], [], "", ()), seed
        assert model.map is not None
        assert max(Counter(pod.host for pod in model.pods.values()).values()) <= disks


@pytest.mark.parametrize(("nodes", "disks"), [(6, 1), (8, 2), (10, 2), (12, 3)])
def test_who_comes_back_leaves_no_room_for_another_to_go(nodes: int, disks: int) -> None:
    """Until somebody has looked it may lack what was written, or have nothing."""
    for seed in range(0, 60, 2):
        settled(Model(seed, nodes=nodes, disks=disks)).rounds(150, troubled=True)


def host_with_two(model: Model, besides: str = "") -> str:
    return next(name for name in model.hosts if name != besides and model.count(name) == 2)


def names_on(model: Model, host: str) -> set[str]:
    return {f"c-node-{pod.ordinal}" for pod in model.pods.values() if pod.host == host}


def six_hosts(seed: int, unit: str = "node", nodes: int = 12) -> Model:
    model = Model(seed, nodes=nodes, disks=2, unit=unit)
    for name in ("h6", "h7"):
        del model.hosts[name]
    return settled(model)


def test_a_drained_host_leaves_as_one_and_no_other_meanwhile() -> None:
    model = six_hosts(1)
    first = host_with_two(model)
    second = host_with_two(model, besides=first)
    model.hosts[first].cordoned = True
    made = plan(model.seen())
    assert (set(made.leaving), made.max_unavailable, made.drain_blocked) == (names_on(model, first), 0, "")
    gone = next(one for one in model.pods.values() if one.host == first)
    del model.pods[gone.ordinal]
    model.kubernetes()
    model.lacking[gone.store] = 7
    made = plan(model.seen())
    assert set(made.leaving) == names_on(model, first), "what waits for the one that left does not keep the other"
    assert made.max_unavailable == 0
    model.hosts[second].cordoned = True
    made = plan(model.seen())
    assert set(made.leaving) == names_on(model, first)
    assert second in made.drain_blocked
    model.write_budget(made)
    model.evict()
    model.rounds(20, troubled=False)
    assert names_on(model, second), "they stay until the first are back"
    model.hosts[first].cordoned = False
    model.rounds(40, troubled=False)
    assert not names_on(model, second)
    model.hosts[second].cordoned = False
    settled(model)


def test_nobody_leaves_while_others_wait_or_nobody_answers() -> None:
    model = six_hosts(2)
    host = host_with_two(model)
    model.hosts[host].cordoned = True
    model.lacking[next(pod.store for pod in model.pods.values() if pod.host != host)] = 1
    made = plan(model.seen())
    assert (made.leaving, made.max_unavailable) == ((), 0)
    assert "1 shards wait to be made again" in made.drain_blocked
    made = plan(replace(model.seen(), status=None))
    assert (made.leaving, made.max_unavailable) == ((), 0)
    assert "no daemon answers" in made.drain_blocked


def test_evictions_that_ask_nobody_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test."""
    monkeypatch.setattr(hosts, "safe_to_stop", lambda *_: [])
    with pytest.raises(UnsafeError):
        for seed in range(20):
            model = settled(Model(seed, nodes=8, disks=2))
            model.rounds(150, troubled=True)


def deleted(made: Plan) -> set[int]:
    return {step.claim.ordinal for step in made.steps if isinstance(step, DeleteClaim)}


def test_a_dead_host_is_made_again_with_all_of_its_stores() -> None:
    """failure.maxConcurrent counts hosts, also between the new claim and the new store."""
    model = settled(Model(3, nodes=12, disks=2))
    dead = sorted({pod.host for pod in model.pods.values() if model.count(pod.host) == 2})[:2]
    lost = [{pod.ordinal for pod in model.pods.values() if pod.host == name} for name in dead]
    for name in dead:
        model.hosts[name].alive, model.hosts[name].since = False, model.now
    model.now += 60
    made = plan(model.seen())
    assert deleted(made) in lost
    assert {type(step) for step in made.steps} == {RetainVolume, DeleteClaim, DeletePod}
    first = deleted(made)
    for step in made.steps:
        model.step(step)
    assert deleted(plan(model.seen())) <= first
    model.kubernetes()
    for ordinal in first:  # new pods and claims, which nobody has scheduled yet
        model.pods[ordinal].host, model.claims[ordinal] = "", (model.number(), "")
    assert not deleted(plan(model.seen())) - first
    model.rounds(100, troubled=False)
    assert not {pod.host for pod in model.pods.values()} & set(dead)


def test_a_host_that_dies_while_it_takes_anothers_place_is_replaced_too() -> None:
    model = settled(Model(4, nodes=12, disks=2))
    name = host_with_two(model)
    model.hosts[name].alive, model.hosts[name].since = False, model.now
    lost = {pod.ordinal for pod in model.pods.values() if pod.host == name}
    model.now += 60
    for _ in range(50):
        model.operate()
        model.kubernetes()
        if all(model.pods[one].store and model.runs(model.pods[one]) for one in lost) and model.map is not None:
            swapped = {model.pods[one].store for one in lost} <= set(model.map.in_state("serving"))
            if swapped:
                break
    other = model.pods[min(lost)].host
    model.hosts[other].alive, model.hosts[other].since = False, model.now
    model.now += 60
    assert min(lost) in deleted(plan(model.seen())), "it is the same repair, and waits for no other"


def templated(alone: dict[str, Any]) -> Pod:
    """A pod as the operator's own templates have it with such a placement."""
    spec = Model(1).spec.model_dump()
    builder = Builder("s4", "c", "uid", ClusterSpec(**{**spec, "placement": alone}))
    (found,) = [one for one in builder.all(replicas=1, image="one", max_unavailable=0) if one["kind"] == "StatefulSet"]
    template = found["spec"]["template"]
    return pod({**template, "metadata": {**template["metadata"], "name": "c-node-0", "uid": "1"}})


APART = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": {"matchExpressions": [{"key": "s4.dev/cluster", "operator": "In", "values": ["c"]}]},
}


@pytest.mark.parametrize(
    ("placement", "apart"),
    [
        ({}, True),
        ({"failureDomain": "zone"}, True),
        ({"failureDomain": "none"}, False),
        ({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [APART]}}}, True),
        ({"affinity": {"nodeAffinity": {}}}, False),
        (
            {
                "affinity": {
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {**APART, "topologyKey": "topology.kubernetes.io/zone"},
                            {**APART, "labelSelector": {"matchLabels": {"app": "noisy"}}},
                        ]
                    }
                }
            },
            False,
        ),
    ],
)
def test_a_pod_that_waits_is_displaced_only_where_pods_may_not_share_its_host(
    placement: dict[str, Any], apart: bool
) -> None:
    """It was made again elsewhere, its volume given up, where another one beside it kept it from nothing."""
    model = settled(Model(3, nodes=5))
    first, second = model.pods[0], model.pods[1]
    model.claims[0] = (model.claims[0][0], second.host)
    first.host, first.created = "", model.now
    alone = templated(placement).alone
    assert alone == apart
    model.now += 60
    seen = replace(model.seen(), pods=tuple(replace(one, alone=alone) for one in model.seen().pods))
    assert deleted(plan(seen)) == ({0} if apart else set())


def test_a_bound_that_people_wrote_themselves_is_not_known() -> None:
    model = six_hosts(1)
    seen, host = model.seen(), host_with_two(model)
    waits = replace(next(one for one in seen.pods if one.host != host), host="")
    assert set(hosts.is_taken(seen, host, waits).split(", ")) == names_on(model, host)
    own = seen.spec.placement.model_copy(update={"topologySpread": [{"maxSkew": 9}]})
    assert not hosts.is_taken(replace(seen, spec=seen.spec.model_copy(update={"placement": own})), host, waits)


def test_a_host_starts_again_as_one_where_that_is_asked_for() -> None:
    model = six_hosts(5, unit="host")
    model.spec = model.spec.model_copy(update={"image": "two"})
    model.operate()
    made = plan(model.seen())
    if made.steps == [Freeze(True)]:
        model.step(Freeze(True))
        made = plan(model.seen())
    together = {step.pod.name for step in made.steps if isinstance(step, DeletePod)}
    assert together == names_on(model, model.pods[11].host)
    assert len({step.stores for step in made.steps if isinstance(step, DeletePod)}) == 1, "all are asked about"
    model.step(made.steps[0])  # and the operator dies
    model.kubernetes()
    assert not [step for step in plan(model.seen()).steps if isinstance(step, DeletePod)] or all(
        map(model.runs, model.pods.values())
    )
    settled(model)


def test_a_host_that_cannot_be_spared_starts_again_node_by_node() -> None:
    """Four hosts with three disks each: 2+2 on them has one shard on each; on two of them it has two."""
    model = Model(6, nodes=4, disks=2, unit="host")
    model.spec = model.spec.model_copy(update={"placement": model.spec.placement})
    for name in list(model.hosts)[2:]:
        del model.hosts[name]
    settled(model)
    model.spec = model.spec.model_copy(update={"image": "two"})
    model.rounds(100, troubled=False)
    settled(model)


def test_more_disks_and_nodes_in_one_edit() -> None:
    """New pods wait for old ones, which want their hosts for themselves, to start again, and those do not wait for
    them."""
    model = Model(7, nodes=4)
    for name in list(model.hosts)[4:]:
        del model.hosts[name]
    settled(model)
    storage = model.spec.storage.model_copy(update={"disksPerHost": 2})
    model.spec = model.spec.model_copy(update={"storage": storage, "nodes": 8})
    settled(model)
    assert set(Counter(pod.host for pod in model.pods.values()).values()) == {2}


def test_what_came_up_beside_another_is_spread_again() -> None:
    """A replacement takes the places of who it replaces, wherever it is; the bound of a host is kept by the next plan."""
    model = Model(8, nodes=8, disks=2)
    for name in list(model.hosts)[5:]:
        del model.hosts[name]
    settled(model)
    dead = host_with_two(model)
    model.hosts[dead].alive, model.hosts[dead].since = False, model.now
    model.rounds(200, troubled=False)
    assert model.map is not None
    domains = {store: one.domain for store, one in model.map.stores.items()}
    for one in model.map.partitions:
        assert max(Counter(domains[store] for store in one.wanted).values()) == 1


def test_hosts_that_are_the_failure_domains_again_are_what_stores_say() -> None:
    """Two positions of a partition stayed on one host for good: the domains that none, or zones, had set went on."""
    model = Model(8, nodes=8, disks=2)
    for name in list(model.hosts)[4:]:
        del model.hosts[name]
    settled(model)
    assert model.map is not None
    said = {store: one.domain for store, one in model.map.stores.items()}
    first, *others = sorted(said, key=lambda store: (said[store] != "h0", store))
    one = model.map.partitions[0]
    held = (first, others[0], *others[-2:])
    one = structs.replace(one, wanted=held, config=structs.replace(one.config, members=held, in_sync=held[:3]))
    together = structs.replace(model.map, partitions=(one, *model.map.partitions[1:]))
    alone = planner.placed(together, {store: one.node for store, one in model.map.stores.items()})
    halves = split(alone, *split(together, {}, {}, plans=True), plans=True)
    seen = replace(model.seen(), map=joined(*halves), said=said)
    none = seen.spec.placement.model_copy(update={"failureDomain": "none"})
    assert not plan(replace(seen, spec=seen.spec.model_copy(update={"placement": none}))).steps
    (step,) = plan(seen).steps
    assert step == SetDomains(tuple((model.pods[number].store, model.pods[number].host) for number in range(8)))
    halves = split(changed(step, joined(*halves)), *halves, plans=True)
    assert {store: one.domain for store, one in joined(*halves).stores.items()} == said
    assert not any("domain" in one for one in halves[0]["stores"])
    assert plan(replace(seen, map=joined(*halves))).steps == [Spread()]
    assert not planner.crowded(changed(Spread(), joined(*halves)))


@pytest.mark.parametrize(
    ("disks", "left", "wanted"),
    [
        (2, 6, (True, "2+2 on 6 hosts: 2 hosts may be lost at once, or any 2 disks")),
        (
            4,
            3,
            (
                True,
                "2+2 on 3 hosts: one host may be lost, or any 2 disks; while one is away writes are refused, and none can be "
                "drained: add hosts",
            ),
        ),
        (
            12,
            1,
            (
                False,
                "2+2 on 1 hosts: the loss of one host would lose data, for a host has up to 4 of an object's 4 shards, and 2 "
                "may be lost; add hosts",
            ),
        ),
    ],
)
def test_what_a_loss_costs_is_said(disks: int, left: int, wanted: tuple[bool, str]) -> None:
    model = Model(9, nodes=12, disks=disks)
    for name in list(model.hosts)[left:]:
        del model.hosts[name]
    settled(model)
    assert model.map is not None
    assert survives(model.seen(), model.map) == wanted


def test_the_status_speaks_of_hosts_and_disks() -> None:
    model = six_hosts(10)
    first = host_with_two(model)
    second = host_with_two(model, besides=first)
    model.hosts[first].alive = False
    lost = next(pod for pod in model.pods.values() if pod.host == second)
    lost.revision = "none+2"
    seen = model.seen()
    state = report(seen, plan(seen), 1, None)
    by_name = {one.name: one for one in state.hosts}
    assert (by_name[first].state, by_name[first].ready) == ("Away", "0/2")
    assert (by_name[second].state, by_name[second].ready) == ("Partly", "1/2")
    assert set(by_name[first].nodes) == names_on(model, first)
    degraded = "; ".join(hosts.away(seen))
    assert f"host {first} is away with its 2 stores ({', '.join(sorted(names_on(model, first)))})" in degraded
    assert f"1 of the 2 stores of host {second} are away (c-node-{lost.ordinal})" in degraded
    told = {one.type: one for one in state.conditions}
    assert told["SurvivesHostLoss"].message.startswith("2+2 on 6 hosts: 2 hosts may be lost at once")

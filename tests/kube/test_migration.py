"""Volumes that are made anew on another class, node by node, by the plan alone: whatever else happens, in any order, no
claim goes that something is on, or while anything is not whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from kube.test_plan import settled
from kube.worlds import Model, UnsafeError
from s4.cluster import planner
from s4_operator import migration
from s4_operator.plan import plan
from s4_operator.report import report
from s4_operator.steps import AddStores, DeleteClaim, DeletePod, DrainStores, RetainVolume, in_words

GIB = 1 << 30
LONG = 3000  # rounds: each node is drained and filled again


def on_slow(seed: int, nodes: int = 6, disks: int = 1, **more: object) -> Model:
    model = Model(seed, nodes=nodes, disks=disks)
    model.change(storageClassName="slow", **more)
    return settled(model)


def to_fast(model: Model) -> Model:
    model.change(storageClassName="fast", migrate=True)
    model.operate()  # the StatefulSet is made anew
    while model.replicas is None:
        model.operate()
    return model


def rounds(model: Model, until: str, after: int = 0) -> None:
    """Rounds until a step of a kind was made."""
    for _ in range(LONG):
        model.round(troubled=False)
        if any(until in line for line in model.log[after:]):
            return
    raise AssertionError(f"no {until}: {plan(model.seen())}")


@pytest.mark.parametrize("first", range(0, 24, 3))
def test_every_state_leads_to_the_new_class(first: int) -> None:
    """With one, two and three disks a host; hosts die, images fail, nodes come and go, people change their minds."""
    for seed in range(first, first + 3):
        disks = 1 + seed % 3
        model = on_slow(seed, nodes=disks * 5, disks=disks)
        model.migrates = True
        model.rounds(120, troubled=True)
        model.recover(nodes=disks * 5)
        model.change(storageClassName="fast", migrate=True)
        settled(model, LONG)
        made = plan(model.seen())
        assert (made.steps, made.doing, made.at_risk, made.upgrade_blocked) == ([], [], "", ""), seed
        assert {model.classes[model.claims[one][0]] for one in model.pods} == {"fast"}


def test_a_claim_that_goes_before_all_is_whole_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test."""
    monkeypatch.setattr(migration, "is_whole", lambda *_: True)
    with pytest.raises(UnsafeError, match="was let go while"):
        for seed in range(40):
            model = on_slow(seed, nodes=10, disks=2)
            model.migrates = True
            model.rounds(200, troubled=True)


def test_a_claim_that_goes_before_its_store_is_drained_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "store_of", lambda *_: "")
    with pytest.raises(UnsafeError, match="with what is on it"):
        model = to_fast(on_slow(1))
        model.rounds(LONG, troubled=False)


def test_one_node_after_the_other_highest_first() -> None:
    model = to_fast(on_slow(2, nodes=12, disks=2))
    order = []
    for _ in range(LONG):
        model.round(troubled=False)
        current = model.map
        assert current is not None
        assert len(current.in_state("draining")) <= 1
        fast = {one for one, (uid, _) in model.claims.items() if model.classes.get(uid) == "fast"}
        order += sorted(fast - set(order), reverse=True)
        if model.is_as_wanted():
            break
    assert order == list(range(11, -1, -1))


def test_how_far_it_is_is_said() -> None:
    model = to_fast(on_slow(3))
    made = plan(model.seen())
    (step,) = made.steps
    assert isinstance(step, DrainStores)
    assert model.map is not None
    assert in_words(step, model.map) == (
        "c-node-5 is drained, to be made anew on another class: 0 of 6 nodes are on class fast"
    )
    for _ in range(LONG):
        model.round(troubled=False)
        if "c-node-4 is drained" in "".join(plan(model.seen()).doing) and model.map.in_state("draining"):
            break
    seen = model.seen()
    assert "1 of 6 nodes is on class fast; c-node-4 is drained" in plan(seen).doing
    state = report(seen, plan(seen), 1, None)
    (said,) = [one for one in state.conditions if one.type == "VolumesOtherClass"]
    assert (said.status, said.reason, said.message) == ("True", "Moving", "1 of 6 nodes is on class fast")
    model.change(migrate=False)
    seen = model.seen()
    (back,) = [one for one in plan(seen).steps if isinstance(one, AddStores)]
    assert back.stores == (model.pods[4].store,), "who was on the way out is taken back"
    (said,) = [one for one in report(seen, plan(seen), 1, None).conditions if one.type == "VolumesOtherClass"]
    assert said.message == "1 of 6 nodes is on class fast; the others are made anew with storage.migrate: true"


def drained(model: Model) -> Model:
    rounds(to_fast(model), "ReleaseStore")
    return model


def test_a_claim_goes_only_once_everything_is_whole_and_its_volume_is_kept() -> None:
    model = drained(on_slow(4))
    steps = plan(model.seen()).steps
    assert [type(one) for one in steps] == [RetainVolume, DeleteClaim, DeletePod]
    model.heals.add(1)
    made = plan(model.seen())
    assert made.steps == []
    assert "c-node-5 is made anew once every partition is whole" in made.doing[-1]
    model.heals.clear()
    host = model.hosts[model.pods[0].host]
    host.alive, host.since = False, model.now
    assert plan(model.seen()).steps == []
    host.alive = True
    model.change(reclaim="Delete")
    assert [type(one) for one in plan(model.seen()).steps] == [DeleteClaim, DeletePod]
    old = replace(model.seen(), template_class="slow")
    assert plan(old).steps == [], "the StatefulSet would make it of the old class again"


def test_a_new_store_is_waited_for_not_the_old_one_of_its_pod() -> None:
    """What was let go is in the map still, standing by under the same name: it must not be taken for the new one."""
    model = drained(on_slow(5))
    for step in plan(model.seen()).steps:
        model.step(step)
    model.deleting.clear()
    model.claims[5] = (model.number(), "")
    model.classes[model.claims[5][0]] = "fast"
    made = plan(model.seen())
    assert made.steps == []
    assert "waiting for c-node-5, whose store does not answer yet" in made.doing
    settled(model, LONG)


def test_other_changes_come_first() -> None:
    model = on_slow(6)
    model.spec = model.spec.model_copy(update={"image": "two", "nodes": 5})
    model.change(storageClassName="fast", migrate=True)
    for _ in range(LONG):
        model.round(troubled=False)
        if any("to be made anew" in line for line in model.log):
            break
    assert {pod.image for pod in model.pods.values()} == {"two"}
    assert model.replicas == 5
    settled(model, LONG)


def test_no_node_is_drained_that_the_others_cannot_do_without() -> None:
    model = to_fast(on_slow(7, nodes=4))
    made = plan(model.seen())
    assert made.steps == []
    assert made.doing == [
        "0 of 4 nodes are on class fast; c-node-3 stays: 2+2 needs 4 others that serve; add nodes, which may go "
        "afterwards (nodes: 5)"
    ]
    model.spec = model.spec.model_copy(update={"nodes": 5})
    settled(model, LONG)
    model.spec = model.spec.model_copy(update={"nodes": 4})
    settled(model, LONG)


def test_no_node_is_drained_for_which_the_others_have_no_room() -> None:
    model = to_fast(on_slow(8))
    assert model.map is not None
    stores = model.map.in_state("serving")
    model.sizes.update(dict.fromkeys(stores, 100 * GIB))
    model.used.update(dict.fromkeys(stores, 80 * GIB))
    made = plan(model.seen())
    assert made.steps == []
    assert "the others have room for 25.0 GiB of the 80.0 GiB that it holds; add nodes" in made.doing[-1]
    model.used.update(dict.fromkeys(stores, 60 * GIB))
    assert [type(one) for one in plan(model.seen()).steps] == [DrainStores]


def test_pause_makes_nobody_anew() -> None:
    model = to_fast(on_slow(9))
    upgrade = model.spec.upgrade.model_copy(update={"pause": True})
    model.spec = model.spec.model_copy(update={"upgrade": upgrade})
    made = plan(model.seen())
    assert made.steps == []
    assert "c-node-5 is next, once upgrade.pause is off again" in made.doing[-1]


def test_a_host_that_dies_while_it_is_drained_is_replaced_on_the_new_class() -> None:
    model = to_fast(on_slow(10))
    model.operate()
    rounds(model, "DrainStores")
    host = model.hosts[model.pods[5].host]
    host.alive, host.since = False, model.now
    settled(model, LONG)
    assert not [line for line in model.log if "ReleaseStore" in line and model.pods[5].store in line]


@pytest.mark.parametrize("change", [{"migrate": False}, {"storageClassName": "slow", "migrate": True}])
def test_nothing_comes_to_a_volume_whose_claim_is_being_deleted(change: dict[str, object]) -> None:
    """The operator ended, or was refused, between claim and pod, and people changed their minds: the claim would go at
    the pod's next start, with all that was put on it till then."""
    model = drained(on_slow(11))
    for step in plan(model.seen()).steps[:2]:
        model.step(step)
    assert model.deleting == {5}
    model.change(**change)
    made = plan(model.seen())
    assert [type(one) for one in made.steps] == [DeletePod]
    assert "c-node-5 is made anew: its claim is being deleted" in made.doing
    rounds(model, "AddStores", after=len(model.log))
    assert not model.deleting


def test_volumes_without_a_class_move_too_from_there_and_to_there() -> None:
    model = settled(Model(12, nodes=6))
    model.change(storageClassName="")
    assert migration.progress(model.seen()) == ""
    model = to_fast(model)
    assert [type(one) for one in plan(model.seen()).steps] == [DrainStores]
    settled(model, LONG)
    model.change(storageClassName="")
    settled(model, LONG)
    assert {model.classes[model.claims[one][0]] for one in model.pods} == {""}
    model.change(storageClassName="fast", migrate=False)
    assert migration.progress(model.seen()) == "0 of 6 nodes are on class fast"
    model.classes = dict.fromkeys(model.classes, "fast")
    model.change(storageClassName="")
    assert migration.progress(model.seen()) == "0 of 6 nodes are on volumes without a class"


def test_no_node_is_drained_that_keeps_a_zone_from_having_too_much() -> None:
    model = to_fast(on_slow(13))
    assert model.map is not None
    zones = {store: "one" if one.node < "c-node-4" else "other" for store, one in model.map.stores.items()}
    placed = planner.rebalanced(planner.placed(model.map, zones))
    held = [
        structs.replace(
            one, config=structs.replace(one.config, members=one.wanted, in_sync=one.wanted[: placed.replicas])
        )
        for one in placed.partitions
    ]
    model.map = structs.replace(placed, partitions=tuple(held))
    spec = model.spec.model_copy(
        update={"placement": model.spec.placement.model_copy(update={"failureDomain": "zone"})}
    )
    made = plan(replace(model.seen(), spec=spec))
    assert made.steps == []
    assert made.doing == [
        "0 of 6 nodes are on class fast; c-node-5 stays: without it a zone would have 3 of an object's 4 shards, and 2 "
        "may be lost; add nodes, which may go afterwards (nodes: 7)"
    ]

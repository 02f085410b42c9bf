"""The plan by itself: from any state, finitely many steps reach what is asked for, and no step takes a partition below
what must stay up; and each behaviour by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from kube.worlds import Model, UnsafeError
from s4.cluster import planner
from s4_operator import plan as planned
from s4_operator.plan import plan
from s4_operator.state_models import ClusterState
from s4_operator.steps import AddStores, DeleteClaim, DeletePod, DrainStores, Freeze, RetainVolume, SetCopies, SwapStore

ROUNDS = 400


def settled(model: Model, rounds: int = ROUNDS) -> Model:
    for _ in range(rounds):
        model.round(troubled=False)
        if model.is_as_wanted():
            return model
    raise AssertionError(f"not as wanted after {rounds} rounds: {plan(model.seen())}\n" + "\n".join(model.log[-30:]))


@pytest.mark.parametrize("first", range(0, 300, 20))
def test_every_state_leads_to_what_is_wanted(first: int) -> None:
    for seed in range(first, first + 20):
        model = settled(Model(seed, nodes=4 + seed % 3))
        model.rounds(150, troubled=True)
        model.recover()
        settled(model)
        made = plan(model.seen())
        assert (made.steps, made.doing, made.at_risk, made.upgrade_blocked) == ([], [], "", ""), seed


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_copies_of_the_metadata_become_what_is_wanted_whatever_else_happens(first: int) -> None:
    for seed in range(first, first + 20):
        model = settled(Model(seed, nodes=4 + seed % 3, copies=True))
        model.rounds(150, troubled=True)
        model.recover()
        settled(model)


def test_copies_grow_in_one_step_and_go_in_another() -> None:
    model = settled(Model(1, nodes=5))
    model.spec = model.spec.model_copy(update={"metadataReplicas": 4})
    assert plan(model.seen()).steps == [SetCopies(4)]
    model.version = "0.7.0"
    made = plan(model.seen())
    assert (made.steps, made.max_unavailable) == ([], 1), "a node of 0.7 would take the number out again"
    assert "copies of the metadata wait until c-node-0, c-node-1, c-node-2" in "; ".join(made.doing)
    model.version = "0.8.0"
    model.step(SetCopies(4))
    assert plan(model.seen()).doing == ["4 of 4 partitions do not have their 4 copies of the metadata yet"]
    settled(model)
    assert plan(model.seen()).doing == []
    model.spec = model.spec.model_copy(update={"metadataReplicas": 3})
    assert plan(model.seen()).steps == [SetCopies(3)]
    model.step(SetCopies(3))
    settled(model)


def test_a_plan_that_asks_nobody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: without the question whether a store may stop, some step takes too much."""
    monkeypatch.setattr(planned, "safe_to_stop", lambda *_: [])
    monkeypatch.setattr(planned, "_wait", lambda *_: "")
    with pytest.raises(UnsafeError):
        for seed in range(60):
            model = settled(Model(seed))
            model.rounds(150, troubled=True)


def test_losing_without_asking_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = settled(Model(1))
    for host in {pod.host for pod in list(model.pods.values())[:3]}:
        model.hosts[host].alive, model.hosts[host].since = False, model.now
    model.now += 60
    made = plan(model.seen())
    assert "too few shards" in made.at_risk
    assert not [step for step in made.steps if isinstance(step, DeleteClaim | SwapStore)]
    monkeypatch.setattr(planned, "_cannot_lose", lambda *_: "")
    assert [step for step in plan(model.seen()).steps if isinstance(step, DeleteClaim)]


def test_a_loss_that_a_person_confirmed_is_taken() -> None:
    model = settled(Model(1))
    lost = list(model.pods.values())[:3]
    for pod in lost:
        model.hosts[pod.host].alive, model.hosts[pod.host].since = False, model.now
    model.now += 60
    made = plan(replace(model.seen(), confirmed=frozenset({lost[0].store})))
    assert [step.claim.ordinal for step in made.steps if isinstance(step, DeleteClaim)] == [lost[0].ordinal]


def test_a_volume_is_kept_before_its_claim_goes() -> None:
    """M1: where Kubernetes deletes first, the volume was set to Retain."""
    model = settled(Model(2))
    host = model.hosts[model.pods[1].host]
    host.alive, host.since = False, model.now
    assert not plan(model.seen()).steps, "not before replaceAfter"
    model.now += 31
    steps = plan(model.seen()).steps
    assert [type(step) for step in steps] == [RetainVolume, DeleteClaim, DeletePod]


def test_one_host_after_the_other() -> None:
    """failure.maxConcurrent, though both could be lost."""
    model = settled(Model(3, nodes=6))
    for pod in list(model.pods.values())[:2]:
        model.hosts[pod.host].alive, model.hosts[pod.host].since = False, model.now
    model.now += 60
    made = plan(model.seen())
    assert len([step for step in made.steps if isinstance(step, DeleteClaim)]) <= 1


def test_who_answers_is_not_made_again_however_long_kubernetes_hears_nothing() -> None:
    """An API server was away for a minute, and two kubelets were late to speak again: two of four stores, all of them
    in use, were given up for new ones within six seconds."""
    model = settled(Model(3))
    for host in model.hosts.values():
        host.silent, host.since = True, model.now
    model.now += 600
    made = plan(model.seen())
    assert not made.steps
    assert "c-node-0 answers, though Kubernetes has lost" in "; ".join(made.doing)
    model.hosts[model.pods[0].host].alive = False
    claims = [step.claim.ordinal for step in plan(model.seen()).steps if isinstance(step, DeleteClaim)]
    assert claims == [0], "it answers no more"


def test_a_claim_that_is_being_deleted_counts_as_one_that_is_made_again() -> None:
    """It stays as long as its pod, or whatever else holds it; its host came back, and the next one was begun."""
    model = settled(Model(3, nodes=6))
    first, second = (model.hosts[model.pods[number].host] for number in (0, 1))
    for host in (first, second):
        host.alive, host.since = False, model.now
    model.now += 60
    for step in plan(model.seen()).steps:
        model.step(step)
    assert model.deleting == {0}
    first.alive = True
    made = plan(model.seen())
    assert [step.claim.ordinal for step in made.steps if isinstance(step, DeleteClaim)] == []
    assert "c-node-1 was on" in "; ".join(made.doing)


def test_of_two_hosts_that_are_made_again_at_once_neither_waits_for_the_other() -> None:
    model = settled(Model(4, nodes=6))
    for number in (0, 1):
        model.hosts[model.pods[number].host].alive = False
        del model.pods[number], model.claims[number]
    model.rounds(3, troubled=False)
    settled(model)


def test_repair_does_not_wait_for_an_upgrade_that_is_stuck() -> None:
    """rook 4910: nodes are added, and lost ones replaced, while the first node of an upgrade does not come up."""
    model = settled(Model(4, nodes=5))
    model.spec = model.spec.model_copy(update={"image": "none"})
    model.rounds(60, troubled=False)
    assert plan(model.seen()).upgrade_blocked
    model.spec = model.spec.model_copy(update={"nodes": 6, "image": "two"})
    settled(model)


@pytest.mark.parametrize("image", ["none", "mute"])
@pytest.mark.parametrize("change", ["a node joins", "a disk is lost"])
def test_who_is_made_while_an_upgrade_is_stuck_starts(image: str, change: str) -> None:
    """With the image that the others have, though nobody has said anything: pods are made from one template."""
    model = settled(Model(4, nodes=5))
    model.spec = model.spec.model_copy(update={"image": image})
    model.rounds(100, troubled=False)
    assert plan(model.seen()).upgrade_blocked
    assert sum(pod.image == image for pod in model.pods.values()) == 1
    if change == "a node joins":
        model.spec = model.spec.model_copy(update={"nodes": 6})
    else:
        lost = next(pod for pod in model.pods.values() if pod.image != image)
        model.hosts[lost.host].disk.pop(model.claims[lost.ordinal][0])
        del model.pods[lost.ordinal]
    model.rounds(300, troubled=False)
    assert {pod.image for pod in model.pods.values()} == {"one"}
    assert model.map is not None
    assert {pod.store for pod in model.pods.values()} == set(model.map.in_state("serving"))
    made = plan(model.seen())
    assert made.upgrade_blocked.startswith(f"{image} was rolled back")
    assert (made.replicas, made.steps) == (6 if change == "a node joins" else 5, [])
    model.recover()
    settled(model)


def test_a_broken_pod_of_an_old_template_is_replaced() -> None:
    """kubernetes 67250: rolling back works, though the pod that is broken never becomes ready."""
    model = settled(Model(5))
    model.spec = model.spec.model_copy(update={"image": "none"})
    model.rounds(60, troubled=False)
    assert sum(pod.revision == "none" for pod in model.pods.values()) == 1, "it stops at the first"
    model.spec = model.spec.model_copy(update={"image": "one"})
    settled(model)


def test_automatic_roll_back_remembers_the_image() -> None:
    model = settled(Model(6))
    model.spec = model.spec.model_copy(
        update={"image": "none", "upgrade": model.spec.upgrade.model_copy(update={"strategy": "Automatic"})}
    )
    model.rounds(120, troubled=False)
    assert model.state.blockedImage == "none"
    assert {pod.revision for pod in model.pods.values()} == {"one"}


def test_who_starts_again_for_a_moment_does_not_stop_an_upgrade() -> None:
    """It was made long ago, and has served since."""
    model = settled(Model(6))
    model.spec = model.spec.model_copy(update={"image": "two"})
    while not any(pod.image == "two" and model.ready(pod) for pod in model.pods.values()):
        model.round(troubled=False)
    model.now += 3600.0
    seen = model.seen()
    for since_s, words in ((model.now - 1, ""), (0.0, "does not come up with two: it is not ready in time")):
        pods = [replace(pod, ready=False, since_s=since_s) if pod.image == "two" else pod for pod in seen.pods]
        assert plan(replace(seen, pods=tuple(pods))).upgrade_blocked.endswith(words)
        assert bool(words) == bool(plan(replace(seen, pods=tuple(pods))).upgrade_blocked)


def half_upgraded(count: int = 2, **upgrade: object) -> Model:
    """That many of five nodes run `two` well."""
    model = settled(Model(6, nodes=5))
    model.upgrades(**upgrade)
    model.spec = model.spec.model_copy(update={"image": "two"})
    while sum(pod.image == "two" and model.ready(pod) for pod in model.pods.values()) < count:
        model.round(troubled=False)
    return model


@pytest.mark.parametrize("strategy", ["Supervised", "Automatic"])
def test_hosts_that_were_off_for_long_are_not_the_versions_fault(strategy: str) -> None:
    """They are back, and their pods do not serve yet: these were not ready all the time."""
    model = half_upgraded(strategy=strategy)
    hosts = [model.hosts[pod.host] for pod in model.pods.values() if pod.image == "two"]
    for host in hosts:
        host.alive, host.since = False, model.now
    model.now += 25.0
    for host in hosts:
        host.comes_back(model.now)
    seen, known = model.seen(), [one for one in model.pods.values() if one.image == "two"]
    status = seen.status
    assert status is not None
    silent = structs.replace(
        status,
        stores=[structs.replace(one, up=one.store not in {pod.store for pod in known}) for one in status.stores],
    )
    pods = tuple(replace(pod, ready=pod.image != "two", created_s=0.0) for pod in seen.pods)
    made = plan(replace(seen, pods=pods, status=silent))
    assert (made.blocked_image, made.upgrade_blocked, made.steps) == ("", "", [])


def test_nodes_that_are_added_where_a_good_version_cannot_start_do_not_take_it_back() -> None:
    model = half_upgraded()
    seen = model.seen()
    new = [
        replace(seen.pods[0], name=f"c-node-{number}", ordinal=number, host="h7", ready=False, image="two")
        for number in (5, 6)
    ]
    new = [replace(pod, revision=seen.revision, broken="ImagePullBackOff", uid=pod.name) for pod in new]
    made = plan(replace(seen, replicas=7, pods=(*seen.pods, *new)))
    assert made.blocked_image == ""
    assert made.upgrade_blocked.startswith("c-node-5 does not come up with two")


def test_who_hung_with_a_setting_is_made_again_once_that_is_set_back() -> None:
    """It has the image that all have, and no reason that Kubernetes names: nothing else would end it."""
    model = settled(Model(6, nodes=5))
    model.now += 1000.0
    seen = model.seen()
    assert seen.status is not None
    hung = replace(seen.pods[4], ready=False, revision="with the setting", since_s=model.now - 100.0)
    others = seen.pods[:4]
    answers = plan(replace(seen, pods=(*others, hung)))
    assert [(step.pod.name, bool(step.stores)) for step in answers.steps if isinstance(step, DeletePod)] == [
        ("c-node-4", True)
    ], "it is asked whether it may stop"
    lost = model.pods[4].store
    stores = [structs.replace(one, up=one.up and one.store != lost) for one in seen.status.stores]
    silent = replace(seen, status=structs.replace(seen.status, stores=stores))
    for pod in (hung, replace(hung, host="")):
        made = plan(replace(silent, pods=(*others, pod)))
        assert [step.pod.name for step in made.steps if isinstance(step, DeletePod)] == ["c-node-4"]
    early = plan(replace(silent, pods=(*others, replace(hung, since_s=model.now - 10.0))))
    assert not [step for step in early.steps if isinstance(step, DeletePod)]


def test_a_version_that_answers_and_is_never_ready_is_rolled_back_too() -> None:
    model = half_upgraded(1, strategy="Automatic")
    model.now += 1000.0
    seen = model.seen()
    made = plan(replace(seen, pods=tuple(replace(pod, ready=pod.image != "two") for pod in seen.pods)))
    assert (made.blocked_image, made.image) == ("two", "one")


def test_who_ran_a_version_well_goes_back_with_it() -> None:
    model = half_upgraded()
    model.state = model.state.model_copy(update={"image": "one", "blockedImage": "two"})
    model.revision = "one"
    for _ in range(100):
        model.round(troubled=False)
    assert {pod.image for pod in model.pods.values()} == {"one"}
    assert plan(model.seen()).upgrade_blocked.startswith("two was rolled back")


def test_an_image_that_comes_after_a_broken_one_is_tried() -> None:
    """It was taken for what had failed, where nobody had looked between."""
    model = settled(Model(6))
    upgrade = model.spec.upgrade.model_copy(update={"strategy": "Automatic"})
    model.spec = model.spec.model_copy(update={"image": "none", "upgrade": upgrade})
    while not any(pod.image == "none" and pod.host for pod in model.pods.values()):
        model.round(troubled=False)
    model.spec = model.spec.model_copy(update={"image": "two"})
    assert plan(model.seen()).blocked_image == ""
    settled(model)


def test_pause_restarts_nobody() -> None:
    model = settled(Model(7))
    model.spec = model.spec.model_copy(
        update={"image": "two", "upgrade": model.spec.upgrade.model_copy(update={"pause": True})}
    )
    model.rounds(60, troubled=False)
    assert {pod.revision for pod in model.pods.values()} == {"one"}


def test_an_upgrade_freezes_what_is_planned_and_asks_first() -> None:
    model = settled(Model(8))
    model.spec = model.spec.model_copy(update={"image": "two"})
    model.operate()
    (step,) = plan(model.seen()).steps
    if step == Freeze(True):
        model.step(step)
        (step,) = plan(model.seen()).steps
    assert isinstance(step, DeletePod)
    assert step.stores, "the daemons are asked about it once more"
    model.heals.add(1)
    assert not [one for one in plan(model.seen()).steps if isinstance(one, DeletePod)], "a queue is not empty"


def test_a_freeze_is_lifted_from_a_move_that_it_caught_half_way() -> None:
    """Two positions were on one store, nobody could be spared, and what would have ended that was frozen: for ever."""
    model = settled(Model(7))
    assert model.map is not None
    one = model.map.partitions[0]
    first, *others, _ = one.wanted
    half = structs.replace(one, config=structs.replace(one.config, members=(first, *others, first)))
    model.map = structs.replace(model.map, freeze=True, partitions=(half, *model.map.partitions[1:]))
    model.revision = "two"
    model.spec = model.spec.model_copy(update={"image": "two"})
    assert plan(model.seen()).steps == [Freeze(False)]
    settled(model)


def test_scale_in_drains_the_highest_first_and_waits_for_the_word_of_the_data() -> None:
    model = settled(Model(9, nodes=6))
    model.spec = model.spec.model_copy(update={"nodes": 4})
    made = plan(model.seen())
    (step,) = [one for one in made.steps if isinstance(one, DrainStores)]
    assert {model.map.stores[one].node for one in step.stores} == {"c-node-4", "c-node-5"}  # type: ignore[union-attr]
    assert made.replicas == 6, "not before they are empty"
    model.step(step)
    model.heals.add(1)
    for _ in range(40):
        model.daemons()
    assert plan(model.seen()).replicas == 6, "something is still to be healed"
    model.heals.clear()
    settled(model)


def test_scale_in_that_is_taken_back() -> None:
    model = settled(Model(10, nodes=6))
    model.spec = model.spec.model_copy(update={"nodes": 4})
    model.operate()
    model.spec = model.spec.model_copy(update={"nodes": 6})
    assert [one for one in plan(model.seen()).steps if isinstance(one, AddStores)] or not model.map.in_state("draining")  # type: ignore[union-attr]
    settled(model)


def test_the_budget_lets_one_go_where_all_serve_and_else_by_name() -> None:
    """rook 14730: a host that is long dead, its data made again elsewhere, blocks nobody who is drained."""
    model = settled(Model(11, nodes=6))
    assert plan(model.seen()).max_unavailable == 1
    model.heals.add(1)
    assert plan(model.seen()).max_unavailable == 0
    model.heals.clear()
    assert model.map is not None
    store = model.pods[5].store
    model.map = planner.drained(model.map, [store])
    for _ in range(60):
        model.daemons()
    model.broken.add("gone")
    model.pods[5].revision = "gone"
    model.hosts[model.pods[1].host].cordoned = True
    made = plan(model.seen())
    assert (made.max_unavailable, made.leaving) == (0, ("c-node-1",))
    model.hosts[model.pods[1].host].cordoned = False
    assert plan(model.seen()).max_unavailable == 0, "who is away is Ready before anybody has looked what it holds"


def test_a_pod_that_was_scheduled_with_a_claim_that_went_is_scheduled_again() -> None:
    """Found on the real cluster: the pod was made between the deletion of its claim and the end of it, and stayed on
    its host with a claim that nobody binds."""
    model = settled(Model(15))
    seen = model.seen()
    pods = tuple(replace(pod, ready=False, created_s=model.now) if pod.ordinal == 1 else pod for pod in seen.pods)
    claims = tuple(replace(claim, volume="", host="") if claim.ordinal == 1 else claim for claim in seen.claims)
    early = replace(seen, pods=pods, claims=claims)
    assert not [step for step in plan(early).steps if isinstance(step, DeletePod)]
    (step,) = [step for step in plan(replace(early, now_s=model.now + 30)).steps if isinstance(step, DeletePod)]
    assert step.pod.ordinal == 1


def test_a_store_that_was_left_behind_before_it_was_used_holds_up_nobody() -> None:
    """The new store's host died before the plan had put it in the lost one's place: the next one takes that."""
    model = settled(Model(16))
    old = model.pods[1].store
    assert model.map is not None
    model.map = planner.registered(model.map, "left-behind", "c-node-1", "a:1", "h9", 1.0)
    model.hosts[model.pods[1].host].disk.clear()
    del model.pods[1]
    settled(model)
    assert model.pods[1].store not in (old, "left-behind")


def test_nobody_answers_means_wait() -> None:
    model = settled(Model(12))
    model.spec = model.spec.model_copy(update={"image": "two"})
    model.operate()
    made = plan(replace(model.seen(), status=None))
    assert not [step for step in made.steps if isinstance(step, DeletePod | DeleteClaim | SwapStore)]
    assert made.max_unavailable == 0


def test_an_empty_disk_under_the_same_name_is_another_store() -> None:
    model = settled(Model(13))
    pod = model.pods[2]
    old = pod.store
    model.hosts[pod.host].disk.clear()
    del model.pods[2]
    settled(model)
    assert model.pods[2].store != old
    assert model.map is not None
    assert model.map.stores[old].state == "gone"


def test_state_is_kept_out_of_memory() -> None:
    """All that the plan knows is in what it sees."""
    model = settled(Model(14))
    assert plan(model.seen()) == plan(model.seen())
    assert ClusterState() == ClusterState(**ClusterState().model_dump())


def test_a_node_that_is_let_go_while_it_is_away_lets_no_other_go_in_its_place() -> None:
    """Its StatefulSet has one fewer from now on; a budget that counted it would let two of the others be evicted."""
    model = settled(Model(17, nodes=6))
    assert model.map is not None
    model.spec = model.spec.model_copy(update={"nodes": 5})
    for _ in range(60):
        model.operate()
        model.daemons()
        if model.pods[5].store in model.map.in_state("standby"):
            break
    model.hosts[model.pods[5].host].alive = False
    made = plan(replace(model.seen(), replicas=6))
    assert (made.replicas, made.max_unavailable) == (5, 0)

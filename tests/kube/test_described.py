"""What people read of a cluster: events in sentences and in order, one for a fact; columns that fit a terminal."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from kube.apiserver import ApiServer, missing
from s4.cluster import planner
from s4_operator.events import GOOD_IF_TRUE, REASONS, WELL, Told, known, of_conditions, of_steps, stamps, text
from s4_operator.kube import Kube, why
from s4_operator.memory import PATIENCE_S, Memory
from s4_operator.observed import Claim, Pod
from s4_operator.report import COLUMN, summary
from s4_operator.state_models import ClusterState, Condition
from s4_operator.steps import (
    AddStores,
    DeleteClaim,
    DeletePod,
    Freeze,
    RetainVolume,
    Step,
    SwapStore,
    changed,
    few,
    in_words,
)

STORES = tuple(f"{number:02d}" * 16 for number in range(6))


def pod(number: int) -> Pod:
    return Pod(f"c-node-{number}", number, f"uid-{number}")


def claim(number: int) -> Claim:
    return Claim(f"data-c-node-{number}", number, f"uid-{number}", f"pv-{number}")


def test_six_stores_were_added_to_the_plan() -> None:
    current = planner.new("ab" * 16, 4, 2, 8)
    for number, store in enumerate(STORES):
        current = planner.registered(current, store, f"c-node-{number}", "a:1", f"h{number}", 1.0)
    step = AddStores(STORES)
    words = in_words(step, changed(step, current))
    assert words == "6 stores were added to the plan and will be filled: c-node-0, c-node-1, c-node-2 and 3 others"
    assert of_steps([(step, words)]) == [Told("StoresAdded", words)]
    one = AddStores(STORES[:1])
    assert in_words(one, current) == "1 store was added to the plan and will be filled: c-node-0"
    swap = SwapStore(STORES[0], STORES[1])
    assert in_words(swap, current) == (
        f"store {STORES[0][:8]} of c-node-0 is lost for good; what it held is made again on c-node-1"
    )


def test_names_in_a_sentence() -> None:
    assert [few(list("abcdef"[:count])) for count in range(6)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
        "a, b, c and d",
        "a, b, c and 2 others",
    ]


def test_what_a_round_does_to_several_is_one_event() -> None:
    done: list[tuple[Step, str]] = [
        (RetainVolume("pv-1"), "the volume pv-1 is kept"),
        (DeleteClaim(claim(1)), "the claim was deleted"),
        (DeletePod(pod(1), force=True), "the pod was deleted"),
    ]
    assert of_steps(done) == [
        Told("ClaimDeleted", "data-c-node-1 was deleted; the data on pv-1 stays"),
        Told("PodDeleted", "c-node-1 was deleted without waiting for the host, which is away"),
    ]
    host = [(DeletePod(pod(number), STORES[:2], ("c-node-0", "c-node-1")), "deleted") for number in (0, 1)]
    assert of_steps(host) == [
        Told(
            "PodRestarted", "c-node-0 and c-node-1 are started again: everything stays readable and writable meanwhile"
        )
    ]
    assert [one.reason for one in of_steps([(Freeze(True), "a"), (Freeze(False), "b")])] == [
        "MovesHeld",
        "MovesResumed",
    ]


def test_every_step_has_a_reason_and_every_end_of_a_condition_has_words() -> None:
    kinds = {kind.__name__ for kind in Step.__args__}
    assert kinds - set(REASONS) == {"RetainVolume"}
    for kind, (reason, words) in WELL.items():
        good, bad = ("True", "False") if kind in GOOD_IF_TRUE else ("False", "True")
        ended = of_conditions({kind: bad}, [condition(kind, good)])
        assert ended == [Told(reason, words)]
        (began,) = of_conditions({kind: good}, [condition(kind, bad, "because")])
        assert (began.warning, began.message) == (True, "because")
        assert not of_conditions({}, [condition(kind, bad)]), "an operator that just started tells nothing again"
        assert not of_conditions({kind: bad}, [condition(kind, bad)])
        away = [condition(kind, "Unknown")]
        assert not of_conditions({kind: bad}, away), "while no daemon says anything nothing has changed"
        assert known({kind: bad}, away) == {kind: bad}


def condition(kind: str, status: str, message: str = "") -> Condition:
    return Condition(
        type=kind,
        status=status,
        reason="R",
        message=message,
        lastTransitionTime="2026-01-01T00:00:00Z",
        observedGeneration=1,
    )


def test_each_event_has_a_second_of_its_own() -> None:
    assert stamps(3, 100.7, 0.0) == [98.0, 99.0, 100.0]
    assert stamps(2, 101.2, 100.0) == [101.0, 102.0], "later than what was told"
    assert stamps(0, 100.0, 0.0) == []


def test_a_summary_ends_with_a_word() -> None:
    assert summary("waiting for nodes: 3 of 4 have a store") == "waiting for nodes: 3 of 4 have a…"
    assert summary("short") == "short"
    assert summary("x" * 100) == "…"
    assert all(len(summary("some words " * count)) <= COLUMN for count in range(9))


def test_why_a_call_got_no_answer_is_no_repr() -> None:
    assert why(TimeoutError(), 10.0) == "nothing came within 10 s"
    refused = OSError(111, "Connection refused")
    assert why(refused, 10.0) == "Connection refused"
    key = ConnectionKey("10.0.0.1", 9001, True, True, None, None, None)  # type: ignore[arg-type]
    assert why(aiohttp.ClientConnectorError(key, refused), 10.0) == "Connection refused"
    assert why(aiohttp.ServerDisconnectedError(), 10.0) == "Server disconnected"


# -- as kubectl shows it

needs_api = pytest.mark.skipif(missing(), reason="no kube-apiserver: make e2e-programs")


def cluster_with(api: ApiServer, name: str, state: ClusterState) -> dict[str, Any]:
    spec = {"nodes": 12, "erasure": {"data": 4, "parity": 2}}
    value = {
        "apiVersion": "s4.dev/v1alpha1",
        "kind": "S4Cluster",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }
    api.kubectl("apply", "-f", "-", text=json.dumps(value))
    path = f"/apis/s4.dev/v1alpha1/namespaces/default/s4clusters/{name}"
    api.change(f"{path}/status", {"status": state.model_dump(exclude_none=True)})
    return api.get(path)


@pytest.mark.parametrize("said", ["True", "False"])
def test_a_new_operator_has_patience_with_what_was_ready(said: str) -> None:
    """One look that fails, in a failover, made a cluster not Ready when the operator had just been started."""
    ready = condition("Ready", said).model_dump()
    memory = Memory.of({"status": {"conditions": [ready]}})
    memory.heard("no shards", 100.0)
    assert memory.served == ("" if said == "True" else "no shards")
    memory.heard("no shards", 101.0 + PATIENCE_S)
    assert memory.served == "no shards"
    memory.heard("", 200.0)
    memory.heard("no shards", 201.0)
    assert not memory.served
    assert Memory.of({}).served


@needs_api
def test_columns_fit_a_terminal(api: ApiServer) -> None:
    """The longest that each has in an upgrade that something keeps from going on."""
    said = "registry/s4:0.8.0 was rolled back: a node did not come up with it; set another image"
    state = ClusterState(
        phase="UpgradeBlocked",
        message=said,
        summary=summary(said),
        conditions=[condition("Ready", "False")],
        nodesReady="11/12",
        version="0.7.0 and 0.8.0",
        filled="100%",
        used="100.5 GiB of 12.3 TiB",
        epoch=10321,
    )
    cluster_with(api, "production", state)
    try:
        shown = api.kubectl("get", "s4c", "-n", "default", "-o", "wide").stdout
        assert max(map(len, shown.splitlines())) <= 120, shown
        assert shown.split() == [
            *["NAME", "PHASE", "READY", "NODES", "VERSION", "USED", "EPOCH", "MESSAGE", "AGE"],
            *f"production UpgradeBlocked False 11/12 0.7.0 and 0.8.0 100% 10321 {summary(said)}".split(),
            shown.split()[-1],
        ]
    finally:
        api.remove("s4clusters")


@needs_api
def test_describe_tells_the_last_hour_in_order(api: ApiServer) -> None:
    resource = cluster_with(api, "told", ClusterState(phase="Ready"))
    about = {"kind": "S4Cluster", **resource}
    rounds = [
        [Told("PodRestarted", f"round {number}, first"), Told("Degraded", f"round {number}, second", True)]
        for number in range(4)
    ]

    async def tell() -> None:
        kube = await Kube.connect(str(api.kubeconfig))
        last = 0.0
        try:
            for number, told in enumerate(rounds):
                for one, stamp_s in zip(told, stamps(len(told), 1_900_000_000.0 + number / 2, last), strict=True):
                    await kube.tell(about, one.reason, one.message, text(stamp_s), warning=one.warning)
                    last = stamp_s
        finally:
            await kube.close()

    asyncio.run(tell())
    try:
        shown = api.kubectl("describe", "s4c", "told", "-n", "default").stdout
        found = re.findall(r"(Normal|Warning)\s+(\w+)\s+\S+.*?s4-operator\s+(round.*)", shown)
        wanted = [("Warning" if one.warning else "Normal", one.reason, one.message) for told in rounds for one in told]
        assert found == wanted, shown
    finally:
        api.remove("s4clusters")

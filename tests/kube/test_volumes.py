"""Volumes that grow: the plan by itself, and the operator's process on a real API server, where a test stands in for
who provides volumes and for the controllers of StatefulSets and garbage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kube.apiserver import ApiServer
from kube.test_operator import OperatorProcess, cluster, get, status
from kube.test_plan import settled
from kube.worlds import Model
from process import wait_until
from s4_operator import report, volumes
from s4_operator.plan import plan
from s4_operator.steps import GrowClaim, Weigh

GIB = 1 << 30
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
SETS = "/apis/apps/v1/namespaces/default/statefulsets"
MERGE = "application/merge-patch+json"


def larger(model: Model, quantity: str = "200Gi") -> Model:
    storage = model.spec.storage.model_copy(update={"size": quantity})
    model.spec = model.spec.model_copy(update={"storage": storage})
    return model


@pytest.mark.parametrize("seed", range(10))
def test_all_volumes_grow_one_after_the_other(seed: int) -> None:
    """Whatever else happens; and a StatefulSet that is gone for a while costs no pod (the world asserts one at a time)."""
    model = larger(settled(Model(seed, nodes=4 + seed % 3)))
    for number in range(120):
        model.round(troubled=True)
        if number % 15 == 14:
            model.replicas = None
            assert plan(model.seen()).replicas >= len(model.pods)
    model.recover()
    settled(model)
    assert all(model.grown[model.claims[ordinal][0]] == 200 * GIB for ordinal in model.pods)


def test_nodes_that_are_drained_stay_while_the_set_is_made_anew() -> None:
    model = settled(Model(1, nodes=6))
    model.spec = model.spec.model_copy(update={"nodes": 4})
    model.operate()
    assert len(model.pods) == 6
    model.replicas = None
    del model.pods[5]  # it is being moved just then
    assert plan(model.seen()).replicas == 6


def test_one_that_cannot_grow_holds_up_no_other_and_is_named() -> None:
    model = larger(settled(Model(2)))
    seen = replace(model.seen(), refused={"data-c-node-0": "the class says no"})
    (step,) = plan(seen).steps
    assert isinstance(step, GrowClaim)
    assert step.claim.name == "data-c-node-1"
    stuck = [replace(one, requested=200 * GIB, stuck=True, waits="no room") for one in seen.claims[1:2]]
    seen = replace(seen, claims=(seen.claims[0], *stuck, *seen.claims[2:]))
    (step,) = plan(seen).steps
    assert isinstance(step, GrowClaim)
    assert step.claim.name == "data-c-node-2"
    (said,) = [one for one in report.report(seen, plan(seen), 1, None).conditions if one.type == "VolumesSmaller"]
    assert said.status == "True"
    assert "data-c-node-0 has 100.0 GiB (the class says no), data-c-node-1 has 100.0 GiB (no room)" in said.message
    assert "data-c-node-2 has 100.0 GiB (its turn comes)" in said.message


def test_shares_follow_once_all_have_grown() -> None:
    model = settled(Model(3, nodes=12, disks=2))
    assert model.map is not None
    stores = model.map.in_state("serving")
    model.sizes.update(dict.fromkeys(stores, 100 * GIB))
    larger(model)
    model.sizes[stores[0]] = 200 * GIB
    assert volumes.is_growing(model.seen())
    assert not [step for step in plan(model.seen()).steps if isinstance(step, Weigh)]
    model.asked.update(dict.fromkeys(model.asked, 200 * GIB))
    model.grown.update(model.asked)
    assert [step for step in plan(model.seen()).steps if isinstance(step, Weigh)]


def storage_class(api: ApiServer, *, grows: bool) -> None:
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "grows" if grows else "stays"},
        "provisioner": "test",
        "allowVolumeExpansion": grows,
    }
    api.kubectl("apply", "-f", "-", text=json.dumps(made))


def bound_claim(api: ApiServer, number: int, kind: str) -> None:
    """As the StatefulSet's controller makes it, and who provides volumes binds it."""
    name = f"data-c-node-{number}"
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": {"s4.dev/cluster": "c", "app.kubernetes.io/name": "s4"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": kind,
            "volumeName": f"pv-{number}",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    found = get_set(api)
    made["metadata"]["labels"] |= found["spec"]["volumeClaimTemplates"][0]["metadata"]["labels"]
    api.call("POST", CLAIMS, made)
    has(api, number, "1Gi")


def has(api: ApiServer, number: int, quantity: str) -> None:
    body = {"status": {"phase": "Bound", "capacity": {"storage": quantity}}}
    api.call("PATCH", f"{CLAIMS}/data-c-node-{number}/status", body, MERGE)


def get_set(api: ApiServer) -> dict[str, Any]:
    return api.get(f"{SETS}/c-node")


def asked(api: ApiServer, number: int) -> str:
    found = api.call("GET", f"{CLAIMS}/data-c-node-{number}")
    return str(found["spec"]["resources"]["requests"]["storage"])


def condition(api: ApiServer) -> str:
    return next((one["message"] for one in status(api)["conditions"] if one["type"] == "VolumesSmaller"), "")


def test_on_a_real_api_server(api: ApiServer, tmp_path: Path) -> None:
    """Claims one by one, one whose class has no larger ones, and the StatefulSet made anew with what it owns left alone."""
    api.kubectl("delete", "statefulsets,persistentvolumeclaims", "-n", "default", "-l", "s4.dev/cluster=c")
    storage_class(api, grows=True)
    storage_class(api, grows=False)
    operator = OperatorProcess(api, tmp_path).start()
    try:
        api.kubectl("apply", "-f", "-", text=cluster(storage={"size": "1Gi"}))
        wait_until(lambda: get_set(api), "a StatefulSet")
        for number, kind in enumerate(("stays", "grows", "grows")):
            bound_claim(api, number, kind)
        before = get_set(api)["metadata"]["uid"]
        api.kubectl("apply", "-f", "-", text=cluster(storage={"size": "2Gi"}))
        wait_until(
            lambda: "orphan" in (get_set(api)["metadata"].get("finalizers") or ()), "the set leaves its pods alone"
        )
        api.call("PATCH", f"{SETS}/c-node", {"metadata": {"finalizers": None}}, MERGE)
        wait_until(lambda: get_set(api).get("metadata", {}).get("uid", before) != before, "a new set")
        claim = get_set(api)["spec"]["volumeClaimTemplates"][0]
        assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
        wait_until(lambda: asked(api, 1) == "2Gi", "the first that can is asked")
        assert (asked(api, 0), asked(api, 2)) == ("1Gi", "1Gi")
        has(api, 1, "2Gi")
        wait_until(lambda: asked(api, 2) == "2Gi", "the next is asked")
        has(api, 2, "2Gi")
        wait_until(lambda: condition(api).count("has 1.0 GiB") == 1, "what did not grow is named")
        assert "data-c-node-0 has 1.0 GiB (" in condition(api)
        assert "only dynamically provisioned pvc can be resized" in condition(api)
        assert get(api, "s4clusters", "c")["metadata"]["name"] == "c"
    finally:
        operator.stop()
        api.kubectl("delete", "s4clusters", "c", "-n", "default", "--wait=false", check=False)
        api.kubectl("delete", "persistentvolumeclaims", "-n", "default", "-l", "s4.dev/cluster=c", "--wait=false")
        api.kubectl("delete", "storageclasses", "grows", "stays")

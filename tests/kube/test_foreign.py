"""Objects that a cluster would make and somebody else has: they stay as they are, the cluster says so, and the rest is
made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kube.apiserver import ApiServer
from kube.tenants import HOME, S4, Tenants
from process import ServerProcess

SERVICES, SETS, SECRETS, BUDGETS = (
    f"{start}/namespaces/{HOME}/{plural}"
    for start, plural in (
        ("/api/v1", "services"),
        ("/apis/apps/v1", "statefulsets"),
        ("/api/v1", "secrets"),
        ("/apis/policy/v1", "poddisruptionbudgets"),
    )
)
POD = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "theirs"}]}}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "Service": (SERVICES, {"metadata": {"name": "c"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}),
    "StatefulSet": (
        SETS,
        {
            "metadata": {"name": "c-node"},
            "spec": {"serviceName": "x", "selector": {"matchLabels": {"a": "b"}}, "template": POD},
        },
    ),
    "Secret": (
        SECRETS,
        {"metadata": {"name": "c-root"}, "stringData": {"accessKey": "known", "secretKey": "to somebody"}},
    ),
}


@pytest.fixture
def home(one_api: ApiServer, server: ServerProcess) -> Iterator[Tenants]:
    made = Tenants(one_api, server)
    clear(one_api)
    yield made
    clear(one_api)


def clear(api: ApiServer) -> None:
    for path in (SERVICES, SETS, BUDGETS):
        for one in api.get(path)["items"]:
            api.call("DELETE", f"{path}/{one['metadata']['name']}")


def names(api: ApiServer, path: str) -> set[str]:
    return {one["metadata"]["name"] for one in api.get(path)["items"]}


@pytest.mark.parametrize("kind", list(THEIRS))
def test_what_is_somebody_elses_stays_and_is_said(home: Tenants, kind: str) -> None:
    path, value = THEIRS[kind]
    name = value["metadata"]["name"]
    home.api.call("POST", path, {"kind": kind, "apiVersion": "apps/v1" if kind == "StatefulSet" else "v1", **value})
    before = home.api.get(f"{path}/{name}")
    home.look_at_cluster()
    assert home.api.get(f"{path}/{name}") == before
    said = home.api.get(f"{S4}/namespaces/{HOME}/s4clusters/c")["status"]["message"]
    assert f"there is a {kind} {name} in the namespace {HOME} that belongs to somebody else" in said
    if kind == "Secret":
        assert not names(home.api, SETS), "no daemon starts with keys that somebody knows"
    else:
        assert {"c", "c-nodes"} <= names(home.api, SERVICES)
        assert "c-node" in names(home.api, SETS)
    home.api.call("DELETE", f"{path}/{name}")
    home.look_at_cluster()
    now = home.api.get(f"{path}/{name}")
    assert now["metadata"]["labels"]["s4.dev/cluster"] == "c", "once it is gone, it is made"
    assert "belongs to somebody else" not in str(home.api.get(f"{S4}/namespaces/{HOME}/s4clusters/c")["status"])


def test_a_pod_without_an_ordinal_does_not_stop_a_reconcile(home: Tenants) -> None:
    """Nor a claim: whoever may make them in the cluster's namespace may give them its labels."""
    labels = {"app.kubernetes.io/name": "s4", "app.kubernetes.io/component": "node", "s4.dev/cluster": "c"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    theirs: dict[str, dict[str, Any]] = {
        "pods": {"kind": "Pod", "spec": POD["spec"]},
        "persistentvolumeclaims": {"kind": "PersistentVolumeClaim", "spec": claim},
    }
    for plural, value in theirs.items():
        for name in ("c-node-first", "stranger"):
            head = {"name": name, "labels": labels}
            home.api.call(
                "POST", f"/api/v1/namespaces/{HOME}/{plural}", {"apiVersion": "v1", "metadata": head, **value}
            )
    home.look_at_cluster()
    assert "c-node" in names(home.api, SETS)
    for plural in theirs:
        path = f"/api/v1/namespaces/{HOME}/{plural}"
        assert names(home.api, path) == {"c-node-first", "stranger"}
        for name in names(home.api, path):
            home.api.call("DELETE", f"{path}/{name}")


def test_no_pod_is_deleted_under_a_budget_that_is_not_the_clusters(home: Tenants) -> None:
    """One that was refused, or is somebody else's: what it lets go would come on top. The rest is made."""
    pods = f"/api/v1/namespaces/{HOME}/pods"
    theirs = {"metadata": {"name": "c-node"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}}
    home.api.call("POST", BUDGETS, {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", **theirs})
    home.look_at_cluster()
    newest = {"status": {"observedGeneration": 1, "updateRevision": "newest", "replicas": 4}}
    home.api.call("PATCH", f"{SETS}/c-node/status", newest, "application/merge-patch+json")
    labels = {"app.kubernetes.io/name": "s4", "app.kubernetes.io/component": "node", "s4.dev/cluster": "c"}
    head = {"name": "c-node-0", "labels": {**labels, "controller-revision-hash": "older"}}
    home.api.call("POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": POD["spec"]})
    home.look_at_cluster()
    said = home.api.get(f"{S4}/namespaces/{HOME}/s4clusters/c")["status"]["message"]
    assert "there is a PodDisruptionBudget c-node" in said
    assert "no pod or claim is deleted until the disruption budget is as it should be" in said
    assert "c-node-0" in names(home.api, pods)
    home.api.call("DELETE", f"{BUDGETS}/c-node")
    home.look_at_cluster()
    assert "c-node-0" not in names(home.api, pods)
    assert home.api.get(f"{BUDGETS}/c-node")["metadata"]["labels"]["s4.dev/cluster"] == "c"

"""A host that the cache has for gone, and that is not: it is asked for once more before what it has is let go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kube.apiserver import ApiServer
from kube.tenants import HOME, S4, Reconcilers, Tenants
from kube.test_lost_keys import form
from process import ServerProcess

NODE = "/api/v1/nodes/lost"
LONG_AGO = "2020-01-01T00:00:00Z"


def say_ready(api: ApiServer, ready: str) -> None:
    said = [{"type": "Ready", "status": ready, "lastTransitionTime": LONG_AGO}]
    api.change(f"{NODE}/status", {"status": {"conditions": said}})


@pytest.fixture
def home(one_api: ApiServer, server: ServerProcess) -> Iterator[Tenants]:
    """A cluster that plans with stores, one of whose pods is on a host that Kubernetes lost."""
    made = Tenants(one_api, server)
    made.look_at_cluster()
    form(one_api)
    one_api.call("POST", "/api/v1/nodes", {"metadata": {"name": "lost"}})
    say_ready(one_api, "Unknown")
    labels = {"app.kubernetes.io/name": "s4", "app.kubernetes.io/component": "node", "s4.dev/cluster": "c"}
    spec = {"nodeName": "lost", "containers": [{"name": "s4", "image": "s4:1"}]}
    made.make("Pod", HOME, "c-node-0", metadata={"name": "c-node-0", "labels": labels}, spec=spec)
    yield made
    one_api.call("DELETE", NODE)
    one_api.call("DELETE", f"/api/v1/namespaces/{HOME}/pods?gracePeriodSeconds=0")
    one_api.call("DELETE", f"{S4}/namespaces/{HOME}/shardmaps")


def reconcile_once(home: Tenants, **meanwhile: Any) -> None:
    """One round of an operator that saw everything before something happened."""

    async def work(made: Reconcilers) -> None:
        if meanwhile:
            say_ready(home.api, **meanwhile)
        await made.rounds["S4Cluster"](HOME, "c")

    home.operate(work)


def test_a_host_that_is_back_keeps_its_pod_though_no_watch_said_so(home: Tenants) -> None:
    reconcile_once(home, ready="True")
    assert home.get("Pod", HOME, "c-node-0"), "the cache alone had it for gone"
    say_ready(home.api, "Unknown")
    reconcile_once(home)
    assert not home.get("Pod", HOME, "c-node-0"), "it is gone"


def test_a_host_that_is_no_more_keeps_nothing(home: Tenants) -> None:
    home.api.call("DELETE", NODE)
    reconcile_once(home)
    assert not home.get("Pod", HOME, "c-node-0")
    home.api.call("POST", "/api/v1/nodes", {"metadata": {"name": "lost"}})

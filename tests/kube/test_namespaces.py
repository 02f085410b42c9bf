"""The operator with exactly the chart's rights, on a real API server: everywhere, or only in namespaces that are
named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from addresses import port_of_all_addresses
from kube.apiserver import ApiServer
from kube.test_chart import needs_helm, rendered
from process import wait_until

pytestmark = needs_helm
SERVED, OTHER = "served-of-two", "other-of-two"
RIGHTS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@contextmanager
def installed(api: ApiServer, log: Path, *options: str) -> Iterator[None]:
    """What the chart makes: the rights, here of the user `operator`, and the Deployment's container as a process."""
    objects = rendered(*options)
    given = [one for one in objects if one["kind"] in RIGHTS]
    for one in given:
        if "subjects" in one:
            one["subjects"] = [{"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": given})
    api.kubectl("apply", "-f", "-", text=text)
    (container,) = next(one for one in objects if one["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"]
    own = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    environment = {
        **os.environ,
        **own,
        "KUBECONFIG": str(api.kubeconfig_of("operator")),
        "S4_OPERATOR_PORT": str(port_of_all_addresses()),
    }
    with log.open("wb") as to:
        process = subprocess.Popen([sys.executable, "-m", *container["command"]], stdout=to, stderr=to, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(300)
        api.kubectl("delete", "-f", "-", text=text)


def make(api: ApiServer, namespace: str) -> None:
    if not api.get(f"/api/v1/namespaces/{namespace}"):
        api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    spec = {"nodes": 4, "erasure": {"data": 2, "parity": 2}, "partitions": 16, "gateway": {"replicas": 1}}
    policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}
    uses: dict[str, dict[str, Any]] = {
        "Bucket": {},
        "S4User": {},
        "S4Policy": {"document": policy},
        "S4Role": {"serviceAccounts": [{"name": "default"}]},
    }
    users = [
        {
            "kind": kind,
            "metadata": {"name": "b", "namespace": namespace},
            "spec": {"clusterRef": {"name": "c"}, **spec},
        }
        for kind, spec in uses.items()
    ]
    cluster = {"kind": "S4Cluster", "metadata": {"name": "c", "namespace": namespace}, "spec": spec}
    api.kubectl(
        "apply",
        "-f",
        "-",
        text="".join(f"---\n{json.dumps({'apiVersion': 's4.dev/v1alpha1', **one})}\n" for one in (cluster, *users)),
    )


def status(api: ApiServer, kind: str, namespace: str) -> dict[str, Any]:
    (found,) = api.get(f"/apis/s4.dev/v1alpha1/namespaces/{namespace}/{kind}")["items"]
    return dict(found.get("status", {}))


@pytest.fixture
def both(api: ApiServer) -> Iterator[ApiServer]:
    """Two namespaces, each with a cluster and a Bucket."""
    for one in (SERVED, OTHER):
        make(api, one)
    yield api
    for one in (SERVED, OTHER):
        api.kubectl(
            "delete",
            "statefulsets,deployments,services,secrets,poddisruptionbudgets,networkpolicies,configmaps,roles,rolebindings,serviceaccounts",
            "-n",
            one,
            "-l",
            "s4.dev/cluster=c",
        )


@pytest.mark.parametrize("named", [False, True], ids=["everywhere", "named"])
def test_the_charts_rights_are_enough(both: ApiServer, tmp_path: Path, named: bool) -> None:
    log = tmp_path / "operator.log"
    served = [SERVED] if named else [SERVED, OTHER]
    with installed(both, log, *(["--set", f"namespaces={{{SERVED}}}"] if named else [])):
        for one in served:
            wait_until(
                lambda one=one: "waiting for nodes: 0 of 4" in status(both, "s4clusters", one).get("message", ""),
                "the cluster forms",
            )
            wait_until(lambda one=one: status(both, "s4clusters", one).get("buckets") == 1, "it knows who uses it")
            for kind in ("buckets", "s4users", "s4policies", "s4roles"):
                wait_until(
                    lambda one=one, kind=kind: re.search(
                        "does not answer|no daemon that runs", status(both, kind, one).get("message", "")
                    ),
                    f"{kind} wait for the cluster",
                )
            assert both.get(f"/apis/apps/v1/namespaces/{one}/deployments/c-gateway")
            assert both.get(f"/apis/s4.dev/v1alpha1/namespaces/{one}/shardmaps/c")
            assert both.get(f"/apis/policy/v1/namespaces/{one}/poddisruptionbudgets/c-node"), "what comes last is there"
    said = log.read_text()
    assert not re.search(r"(?i)forbidden|cannot (get|list|watch|create|patch|update|delete) resource", said), said
    if named:
        assert not status(both, "s4clusters", OTHER), "it is not seen"
        assert not status(both, "buckets", OTHER)
        assert not both.get(f"/apis/apps/v1/namespaces/{OTHER}/statefulsets")["items"]

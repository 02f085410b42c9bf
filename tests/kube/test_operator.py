"""The operator's process on a real API server without nodes: what it makes, leaves alone, takes back, and says."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from addresses import port_of_all_addresses
from kube import apiserver
from kube.apiserver import ApiServer
from process import wait_until
from s4.crypto.roles import S3, uri
from s4_operator import certificates

RESOURCES = {
    "/apis/apps/v1": ("statefulsets", "deployments"),
    "/apis/policy/v1": ("poddisruptionbudgets",),
    "/api/v1": ("services", "configmaps", "serviceaccounts", "secrets"),
    "/apis/networking.k8s.io/v1": ("networkpolicies", "ingresses"),
    "/apis/rbac.authorization.k8s.io/v1": ("roles", "rolebindings"),
    "/apis/s4.dev/v1alpha1": apiserver.RESOURCES,
}
GROUPS = {resource: group for group, resources in RESOURCES.items() for resource in resources}
KINDS = ",".join(resource for resource, group in GROUPS.items() if "s4.dev" not in group)


class OperatorProcess:
    """`kopf run` as in the chart; `log` is what it wrote."""

    def __init__(self, api: ApiServer, directory: Path) -> None:
        self.api, self.log = api, directory / "operator.log"
        self.port = port_of_all_addresses()

    def start(self, **environment: str) -> OperatorProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kopf", "run", "-m", "s4_operator.main", "--all-namespaces"],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "KUBECONFIG": str(self.api.kubeconfig),
                    "S4_OPERATOR_PORT": str(self.port),
                    "S4_IMAGE": "registry/s4:1",
                    **environment,
                },
            )
        return self

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(300)


@pytest.fixture
def operator(api: ApiServer, tmp_path: Path) -> Iterator[OperatorProcess]:
    api.kubectl("delete", KINDS, "-n", "default", "-l", "s4.dev/cluster=c")
    process = OperatorProcess(api, tmp_path).start()
    try:
        yield process
    finally:
        process.stop()
        assert "Patching failed with inconsistencies" not in process.log.read_text(), (
            "a field of the status that the CRD does not have"
        )
        assert "Traceback" not in process.log.read_text()


def cluster(**spec: Any) -> str:
    chosen = {"nodes": 4, "erasure": {"data": 2, "parity": 2}, "partitions": 16, **spec}
    return json.dumps(
        {
            "apiVersion": "s4.dev/v1alpha1",
            "kind": "S4Cluster",
            "metadata": {"name": "c", "namespace": "default"},
            "spec": chosen,
        }
    )


def get(api: ApiServer, resource: str, name: str) -> dict[str, Any]:
    return api.call("GET", f"{GROUPS[resource]}/namespaces/default/{resource}/{name}")


def made_by_it(api: ApiServer) -> list[dict[str, Any]]:
    """Of all kinds, each with its kind."""
    query = "labelSelector=s4.dev%2Fcluster%3Dc"
    lists = [
        api.call("GET", f"{GROUPS[resource]}/namespaces/default/{resource}?{query}") for resource in KINDS.split(",")
    ]
    return [{**one, "kind": found["kind"].removesuffix("List")} for found in lists for one in found["items"]]


def status(api: ApiServer) -> dict[str, Any]:
    found: dict[str, Any] = get(api, "s4clusters", "c").get("status", {})
    return found


def versions(api: ApiServer) -> dict[str, str]:
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in made_by_it(api)}


def test_a_map_is_begun_anew_under_the_id_that_its_volumes_know(api: ApiServer, operator: OperatorProcess) -> None:
    """Of another S4Cluster of that name, too: the Secret of the master key keeps the id (M3, M5)."""

    def of_map() -> str:
        path = "/apis/s4.dev/v1alpha1/namespaces/default/shardmaps/c"
        return str(api.get(path).get("spec", {}).get("cluster", ""))

    def of_secret() -> str:
        path = "/api/v1/namespaces/default/secrets/c-master"
        return base64.b64decode(api.get(path).get("data", {}).get("cluster", "")).decode()

    api.kubectl("delete", "s4m", "c", "-n", "default", "--ignore-not-found")
    api.kubectl("apply", "-f", "-", text=cluster())
    wait_until(lambda: of_map() and of_map() == of_secret(), "the Secret has the map's id")
    known = of_map()
    api.kubectl("delete", "s4c", "c", "-n", "default")
    api.kubectl("delete", "s4m", "c", "-n", "default")
    api.kubectl("apply", "-f", "-", text=cluster())
    wait_until(of_map, "another map")
    assert of_map() == known
    api.change("/api/v1/namespaces/default/secrets/c-master", {"data": {"cluster": None}})
    wait_until(lambda: of_secret() == known, "a Secret of an older operator is told the map's id")


def test_gateways_are_as_many_as_an_autoscaler_says(api: ApiServer, operator: OperatorProcess) -> None:
    def replicas() -> int:
        return int(get(api, "deployments", "c-gateway")["spec"]["replicas"])

    api.kubectl("apply", "-f", "-", text=cluster(gateway={"replicas": 2, "autoscaled": True}))
    wait_until(lambda: "Deployment/c-gateway" in versions(api), "gateways")
    assert replicas() == 2
    api.kubectl("scale", "deploy/c-gateway", "--replicas=5", "-n", "default")
    api.kubectl("apply", "-f", "-", text=cluster(gateway={"replicas": 2, "autoscaled": True}, region="eu-west-1"))

    def region() -> str:
        (container,) = get(api, "deployments", "c-gateway")["spec"]["template"]["spec"]["containers"]
        return next(one["value"] for one in container["env"] if one["name"] == "S4_REGION")

    wait_until(lambda: region() == "eu-west-1", "it was applied again")
    assert replicas() == 5
    api.kubectl("apply", "-f", "-", text=cluster(gateway={"replicas": 3}))
    wait_until(lambda: replicas() == 3, "without an autoscaler the S4Cluster says how many")
    refused = api.kubectl("apply", "-f", "-", text=cluster(gateway={"replicas": 0, "autoscaled": True}), check=False)
    assert "gateway.autoscaled needs gateway.replicas" in refused.stderr


def test_what_is_made_is_owned_and_made_once(api: ApiServer, operator: OperatorProcess) -> None:
    api.kubectl("apply", "-f", "-", text=cluster(gateway={"replicas": 1, "tls": {"enabled": True}}))
    wait_until(lambda: "waiting for nodes: 0 of 4" in status(api).get("message", ""), "the cluster forms")
    wait_until(lambda: "Deployment/c-gateway" in versions(api), "a gateway")
    made = versions(api)
    assert {
        "StatefulSet/c-node",
        "Service/c",
        "Service/c-nodes",
        "PodDisruptionBudget/c-node",
        "Secret/c-peers",
        "Secret/c-tls",
        "Role/c-daemon",
    } <= set(made)
    items = made_by_it(api)
    loose = {one["metadata"]["name"] for one in items if "ownerReferences" not in one["metadata"]}
    assert loose == {"c-master", "c-root"}, "with Retain keys outlive the resource, as the volumes that know them do"
    assert all(
        one["metadata"]["ownerReferences"][0]["kind"] == "S4Cluster"
        for one in items
        if one["metadata"]["name"] not in loose
    )
    assert "ownerReferences" not in get(api, "shardmaps", "c")["metadata"], "and so does the map"
    assert not get(api, "s4clusters", "c")["metadata"].get("finalizers"), "nothing holds its namespace"
    operator.stop()
    operator.start()
    wait_until(lambda: operator.log.read_text().count("Initial authentication has finished") == 2, "it runs again")
    api.kubectl("annotate", "s4clusters", "c", "-n", "default", "look=again")
    api.kubectl("apply", "-f", "-", text=cluster(gateway={"replicas": 0, "tls": {"enabled": True}}))
    wait_until(lambda: "Deployment/c-gateway" not in versions(api), "what is not asked for any more goes")
    after = versions(api)
    same = {name for name in after if after[name] == made.get(name)}
    assert {
        "StatefulSet/c-node",
        "Secret/c-peers",
        "Secret/c-root",
        "Secret/c-master",
        "Secret/c-authority",
        "Role/c-daemon",
    } <= same, "nothing is done twice"


def test_certificates_name_who_they_are_for(api: ApiServer, operator: OperatorProcess) -> None:
    """minio/operator 2485: nodes that come later are covered too."""
    from base64 import b64decode

    api.kubectl("apply", "-f", "-", text=cluster(gateway={"tls": {"enabled": True}}))
    wait_until(lambda: "Secret/c-tls" in versions(api), "the certificate")
    data = {name: b64decode(value).decode() for name, value in get(api, "secrets", "c-tls")["data"].items()}
    hosts = [
        "c.default.svc",
        "c.default.svc.cluster.local",
        "c.default",
        "c",
        "*.c-nodes.default.svc",
        "*.c-nodes.default.svc.cluster.local",
        "localhost",
        uri(S3),
    ]
    import time

    assert not certificates.is_due(data["tls.crt"], time.time(), hosts, data["ca.pem"])
    api.kubectl(
        "apply", "-f", "-", text=cluster(gateway={"tls": {"enabled": True}, "ingress": {"host": "s3.example.com"}})
    )
    wait_until(
        lambda: (
            not certificates.is_due(
                b64decode(get(api, "secrets", "c-tls")["data"]["tls.crt"]).decode(),
                time.time(),
                [*hosts, "s3.example.com"],
                data["ca.pem"],
            )
        ),
        "another name",
    )


def test_a_secret_that_somebody_deleted_is_made_again(api: ApiServer, operator: OperatorProcess) -> None:
    api.kubectl("apply", "-f", "-", text=cluster())
    wait_until(lambda: "Secret/c-peers" in versions(api), "the certificate")
    api.kubectl("delete", "secret", "c-peers", "-n", "default")
    wait_until(lambda: "Secret/c-peers" in versions(api), "the certificate, again")


def test_a_bucket_says_why_it_is_not_ready(api: ApiServer, operator: OperatorProcess) -> None:
    def message() -> str:
        return str(get(api, "buckets", "b").get("status", {}).get("message", ""))

    def bucket(**reference: str) -> str:
        return json.dumps(
            {
                "apiVersion": "s4.dev/v1alpha1",
                "kind": "Bucket",
                "metadata": {"name": "b", "namespace": "default"},
                "spec": {"clusterRef": reference},
            }
        )

    api.kubectl("apply", "-f", "-", text=bucket(name="nobody"))
    wait_until(lambda: "there is no S4Cluster nobody in the namespace default" in message(), "a reason")
    api.kubectl("delete", "buckets.s4.dev", "b", "-n", "default", "--timeout=300s")
    api.kubectl("apply", "-f", "-", text=cluster())
    api.kubectl("apply", "-f", "-", text=bucket(name="c"))
    wait_until(lambda: "does not answer" in message(), "another reason")
    wait_until(lambda: status(api).get("buckets") == 1, "the cluster knows that it is used")
    assert api.kubectl("delete", "buckets.s4.dev", "b", "-n", "default", "--timeout=300s").returncode == 0, (
        "nothing holds it"
    )


def test_it_says_that_it_lives(api: ApiServer, operator: OperatorProcess) -> None:
    import urllib.error
    import urllib.request

    def answer(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}{path}", timeout=5) as said:
                return str(said.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    wait_until(lambda: answer("/healthz") == "ok\n", "it is healthy")
    assert "s4_operator_turns_total" in answer("/metrics")

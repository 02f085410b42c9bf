"""The objects of a cluster by themselves: what its daemons are told, and where they run. Who may come to
their ports: test_comers.py."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from s4.cli.cluster import cluster_settings
from s4.cli.main import build_parser, common_arguments
from s4.config.limits import Limits, with_settings
from s4.crypto.kms import allowed_of
from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec, GatewaySpec, Kms, KmsUse, Monitoring, Rates
from s4_operator.pods import Object

SAMPLES = Path(__file__).parents[2] / "operator" / "samples"


def pods(spec: ClusterSpec) -> list[Object]:
    """The templates of nodes and gateways."""
    made = Builder("ns", "c", "uid", spec).all(replicas=4, image="s4:1", max_unavailable=1)
    return [one["spec"]["template"]["spec"] for one in made if one["kind"] in ("StatefulSet", "Deployment")]


ALLOW = [KmsUse(key="payroll", buckets=["hr-*", "pay"]), KmsUse(key="first", buckets=["*"])]


@pytest.mark.parametrize(
    ("spec", "name", "read", "wanted"),
    [
        ({"newBuckets": "aws"}, "S4_NEW_BUCKETS", lambda told: told.new_buckets, "aws"),
        ({"newBuckets": "open"}, "S4_NEW_BUCKETS", lambda told: told.new_buckets, "open"),
        ({}, "S4_SIGNATURE_V2", lambda told: told.signature_v2, "query"),
        ({"signatureV2": "all"}, "S4_SIGNATURE_V2", lambda told: told.signature_v2, "all"),
        ({"signatureV2": "off"}, "S4_SIGNATURE_V2", lambda told: told.signature_v2, "off"),
        ({}, "S4_BUCKET_METRICS", lambda told: told.bucket_metrics, "off"),
        ({"monitoring": Monitoring(bucketMetrics=True)}, "S4_BUCKET_METRICS", lambda told: told.bucket_metrics, "on"),
        ({"kms": Kms(secretName="k")}, "S4_KMS_ALLOW", lambda told: allowed_of(told.kms_allow), None),
        (
            {"kms": Kms(secretName="k", allow=ALLOW)},
            "S4_KMS_ALLOW",
            lambda told: allowed_of(told.kms_allow),
            {"payroll": ("hr-*", "pay"), "first": ("*",)},
        ),
    ],
)
def test_nodes_and_gateways_are_told_what_a_cluster_says(
    spec: dict[str, Any], name: str, read: Callable[[Any], Any], wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the daemons' command line reads what is said to them."""
    templates = pods(ClusterSpec(**spec, gateway=GatewaySpec(replicas=1)))
    assert len(templates) == 2
    for one in templates:
        monkeypatch.delenv(name, raising=False)
        for variable in one["containers"][0]["env"]:
            if variable["name"] == name:
                monkeypatch.setenv(variable["name"], variable["value"])
        parser = argparse.ArgumentParser()
        common_arguments(parser)
        assert read(parser.parse_args([])) == wanted


def test_nodes_and_gateways_are_told_the_rates_of_a_cluster() -> None:
    """By the names that limits have, in the words that they take."""
    rates = Rates(userRequests=100, userBytes="10Mi", bucketRequests=200)
    for one in pods(ClusterSpec(rates=rates, gateway=GatewaySpec(replicas=1))):
        start = "S4_LIMIT_"
        told = {
            each["name"].removeprefix(start).lower(): each["value"]
            for each in one["containers"][0]["env"]
            if each["name"].startswith(start)
        }
        limits = with_settings(Limits(), told)
        assert (limits.user_requests_per_s, limits.user_bytes_per_s, limits.bucket_requests_per_s) == (
            100,
            10 << 20,
            200,
        )
        assert limits == replace(
            Limits(), user_requests_per_s=100, user_bytes_per_s=10 << 20, bucket_requests_per_s=200
        )
    assert not [each for each in pods(ClusterSpec())[0]["containers"][0]["env"] if each["name"].startswith("S4_LIMIT_")]


def test_a_default_that_is_new_changes_no_pod() -> None:
    """A pod's template that an update of the operator changes has every pod start again."""
    (template,) = pods(ClusterSpec())
    told = {one["name"] for one in template["containers"][0]["env"]}
    assert not told & {"S4_NEW_BUCKETS", "S4_BUCKET_METRICS", "S4_KMS_ALLOW", "S4_SIGNATURE_V2"}


def test_what_a_pod_has_besides_is_as_it_was_written() -> None:
    """Variables, volumes and mounts of one's own, for nodes and gateways; what S4 says itself comes last, and counts."""
    written = {
        "environment": [
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "S4_LIMIT_REQUESTS", "value": "300"},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "volumes": [{"name": "tokens", "projected": {"sources": []}}],
        "volumeMounts": [{"name": "tokens", "mountPath": "/tokens"}],
        "authorities": {"name": "our-ca"},
        "placement": {"priorityClassName": "storage"},
        "gateway": {"replicas": 1},
    }
    plain, templates = pods(ClusterSpec(gateway=GatewaySpec(replicas=1))), pods(ClusterSpec.model_validate(written))
    assert len(templates) == 2
    for one, before in zip(templates, plain, strict=True):
        container, old = one["containers"][0], before["containers"][0]
        assert [each for each in container["env"] if each not in old["env"]] == [
            *written["environment"],  # type: ignore[misc]
            {"name": "SSL_CERT_FILE", "value": "/etc/s4/authorities/ca.crt"},
        ]
        assert [each for each in one["volumes"] if each not in before["volumes"]] == [
            {"name": "authorities", "configMap": {"name": "our-ca"}},
            {"name": "tokens", "projected": {"sources": []}},
        ]
        assert {"name": "tokens", "mountPath": "/tokens"} in container["volumeMounts"]
        assert (one["priorityClassName"], "priorityClassName" in before) == ("storage", False)


def test_secrets_that_daemons_read_are_where_they_are_told_that_they_are() -> None:
    """Of the KMS and of receivers, in nodes and gateways: whole Secrets, for what is named there lies beside it."""
    spec = ClusterSpec.model_validate(
        {"kms": {"secretName": "keys"}, "receivers": {"name": "whom"}, "gateway": {"replicas": 1}}
    )
    for one in pods(spec):
        (container,) = one["containers"]
        told = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        mounts = {each["name"]: each for each in container["volumeMounts"]}
        volumes = {each["name"]: each.get("secret") for each in one["volumes"]}
        for name, secret, file in (("kms", "keys", told["S4_KMS"]), ("receivers", "whom", told["S4_RECEIVERS"])):
            assert volumes[name]["secretName"] == secret
            assert (Path(file).parent, mounts[name]["readOnly"]) == (Path(mounts[name]["mountPath"]), True)


def test_the_sample_of_an_autoscaler_is_of_what_the_operator_makes() -> None:
    """The Deployment by its name, with a request that shares are counted of."""
    (sample,) = yaml.safe_load_all((SAMPLES / "autoscaler.yaml").read_text())
    spec = ClusterSpec(gateway=GatewaySpec(replicas=3, autoscaled=True, workers=2))
    (gateways,) = (one for one in Builder("s4", "s4", "uid", spec).gateways("s4:1") if one["kind"] == "Deployment")
    target = sample["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == (gateways["apiVersion"], gateways["kind"])
    assert (target["name"], sample["metadata"]["namespace"]) == (gateways["metadata"]["name"], "s4")
    (metric,) = (one["resource"]["name"] for one in sample["spec"]["metrics"])
    assert metric in gateways["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]


@pytest.mark.parametrize(
    ("domain", "digest"),
    [("hostname", "9f0e14ef6fb0b3a4"), ("zone", "c22b8cac7d933284"), ("none", "a3876d1554347fca")],
)
def test_pods_of_a_disk_a_host_stay_as_they_were(domain: str, digest: str) -> None:
    """To the letter, as before hosts could have several: who updates the operator restarts nobody."""
    written = {"placement": {"failureDomain": domain}, "gateway": {"replicas": 1}}
    for more in ({}, {"storage": {"disksPerHost": 1}, "upgrade": {"unit": "host"}}):
        spec = ClusterSpec.model_validate({**written, **more})
        made = Builder("ns", "c", "uid", spec).all(replicas=6, image="s4:1", max_unavailable=1)
        kept = [one for one in made if one["kind"] in ("StatefulSet", "Deployment", "PodDisruptionBudget")]
        kept.append(kept.pop(0))  # the budget came last then
        assert hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("resources", "requests"),
    [
        ({}, {"cpu": "3", "memory": "1536Mi"}),
        ({"requests": {"cpu": "1500m"}}, {"cpu": "1500m", "memory": "1536Mi"}),
        ({"limits": {"cpu": "2", "memory": "1Gi"}}, {"cpu": "2", "memory": "1Gi"}),
    ],
)
def test_processes_of_a_gateway_are_asked_for_with_what_they_use(
    resources: dict[str, Any], requests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request above a limit would be refused; what is limited and not requested Kubernetes requests as much of."""
    nodes, gateways = pods(ClusterSpec(gateway=GatewaySpec(replicas=1, workers=3, resources=resources)))
    assert gateways["containers"][0]["resources"] == {**resources, "requests": requests}
    assert "S4_WORKERS" not in {one["name"] for one in nodes["containers"][0]["env"]}
    for one in gateways["containers"][0]["env"]:
        monkeypatch.setenv(one["name"], one.get("value", ""))
    told = build_parser().parse_args(["gateway"])
    assert cluster_settings(told, {}).workers == 2, "beside the first"


def test_pods_of_a_host_with_several_disks_share_it() -> None:
    """As many as it has disks, no more; evenly is a wish, for a host without any must not keep others' pods from theirs."""
    written = {"nodes": 12, "storage": {"disksPerHost": 2}, "placement": {"failureDomain": "zone"}}
    (nodes,) = pods(ClusterSpec.model_validate(written))
    assert nodes["affinity"] == {}
    spread = [
        (one["topologyKey"], one["maxSkew"], one["whenUnsatisfiable"]) for one in nodes["topologySpreadConstraints"]
    ]
    assert spread == [
        ("topology.kubernetes.io/zone", 1, "ScheduleAnyway"),
        ("kubernetes.io/hostname", 1, "ScheduleAnyway"),
        ("kubernetes.io/hostname", 2, "DoNotSchedule"),
    ]
    assert nodes["topologySpreadConstraints"][2]["minDomains"] > 5000, "so that the skew is what a host has"
    (nodes,) = pods(ClusterSpec.model_validate({**written, "storage": {"disksPerHost": "all"}}))
    assert {one["whenUnsatisfiable"] for one in nodes["topologySpreadConstraints"]} == {"ScheduleAnyway"}


def test_a_budget_lets_a_host_go_and_keeps_the_others() -> None:
    made = Builder("ns", "c", "uid", ClusterSpec()).budget(1, ("c-node-3", "c-node-1"))
    assert made["spec"]["maxUnavailable"] == 1
    (names,) = made["spec"]["selector"]["matchExpressions"]
    assert names == {
        "key": "statefulset.kubernetes.io/pod-name",
        "operator": "NotIn",
        "values": ["c-node-1", "c-node-3"],
    }


@pytest.mark.parametrize(("replicas", "names"), [(0, ["c-nodes", "c"]), (2, ["c-nodes", "c-gateways", "c"])])
def test_there_is_a_service_of_gateways_while_there_are_gateways(replicas: int, names: list[str]) -> None:
    made = Builder("ns", "c", "uid", ClusterSpec(gateway=GatewaySpec(replicas=replicas))).services()
    assert [one["metadata"]["name"] for one in made] == names

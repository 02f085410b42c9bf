"""The chart by itself: its CRDs are those of crds/, its values are checked, and what it makes is restricted."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.apiserver import PROGRAMS
from s4 import __version__

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "s4"
needs_helm = pytest.mark.skipif(not (PROGRAMS / "helm").exists(), reason="no helm: make e2e-programs")


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROGRAMS / "helm"), *words], capture_output=True, text=True, check=False, timeout=600)


def rendered(*options: str) -> list[dict[str, Any]]:
    done = helm("template", "s4", str(CHART), "-n", "s4", "--kube-version", "1.34.0", *options)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def test_crds_of_the_chart_are_those_of_the_models() -> None:
    for path in (ROOT / "crds").glob("*.yaml"):
        assert (CHART / "files" / "crds" / path.name).read_text() == path.read_text(), "make crds"


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert {chart["version"], chart["appVersion"]} == {__version__}


@needs_helm
def test_crds_stay_when_the_chart_goes_and_can_be_left_out() -> None:
    crds = [one for one in rendered() if one["kind"] == "CustomResourceDefinition"]
    assert len(crds) == len(list((ROOT / "crds").glob("*.yaml")))
    assert all(one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for one in crds), "rook 17336"
    assert not [one for one in rendered("--set", "crds.enabled=false") if one["kind"] == "CustomResourceDefinition"]


@needs_helm
def test_the_operator_runs_once_and_restricted() -> None:
    (deployment,) = (one for one in rendered() if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    assert pod["containers"][0]["resources"]["limits"]["memory"], "rook 14051"


@needs_helm
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("logLevel=loud", "logLevel"),
        ("nodes=3", "nodes"),
        ("certificates.validSeconds=5", "validSeconds"),
        ("namespaces={*}", "namespaces"),
        ("namespaces={a,a}", "namespaces"),
    ],
)
def test_values_are_checked(value: str, words: str) -> None:
    done = helm("template", "s4", str(CHART), "--kube-version", "1.34.0", "--set", value)
    assert done.returncode != 0
    assert words in done.stderr


@needs_helm
def test_prometheus_is_led_to_the_operator() -> None:
    """By a port that its pod has, and rules about the job that a PodMonitor's targets belong to."""
    objects = {one["kind"]: one for one in rendered("--set", "serviceMonitor.enabled=true,serviceMonitor.labels.a=b")}
    monitor, rule = objects["PodMonitor"], objects["PrometheusRule"]
    template = objects["Deployment"]["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (port,) = template["spec"]["containers"][0]["ports"]
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": port["name"], "path": "/metrics"}]
    metadata = monitor["metadata"]
    job = f'job="{metadata["namespace"]}/{metadata["name"]}"'
    assert all(job in one["expr"] for one in rule["spec"]["groups"][0]["rules"])
    assert monitor["metadata"]["labels"]["a"] == rule["metadata"]["labels"]["a"] == "b"
    assert not [one for one in rendered() if one["kind"] in ("PodMonitor", "PrometheusRule")]


@needs_helm
def test_openshift_chooses_the_user() -> None:
    (deployment,) = (one for one in rendered("--set", "podSecurity.runAsUser=null") if one["kind"] == "Deployment")
    assert "runAsUser" not in deployment["spec"]["template"]["spec"]["securityContext"]


def rights(objects: list[dict[str, Any]], kind: str) -> dict[str, set[tuple[str, str, str]]]:
    """What roles of a kind give, by their namespace."""
    return {
        one["metadata"].get("namespace", ""): {
            (group, what, verb)
            for rule in one["rules"]
            if "apiGroups" in rule
            for group in rule["apiGroups"]
            for what in rule["resources"]
            for verb in rule["verbs"]
        }
        for one in objects
        if one["kind"] == kind
    }


@needs_helm
def test_namespaces_that_are_named_narrow_its_rights() -> None:
    everywhere, named = rendered(), rendered("--set", "namespaces={one,two}")
    whole, rest, roles = rights(everywhere, "ClusterRole")[""], rights(named, "ClusterRole")[""], rights(named, "Role")
    assert {what for _, what, _ in rest} == {"nodes", "persistentvolumes"}, "what is in no namespace"
    inside = {one for one in whole - rest if one[1] != "customresourcedefinitions"}
    assert roles == {"one": inside, "two": inside}
    assert not rights(everywhere, "Role")
    for one in named:
        if one["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            assert one["roleRef"]["kind"] == one["kind"].removesuffix("Binding")
            assert one["subjects"] == [{"kind": "ServiceAccount", "name": "s4-operator", "namespace": "s4"}]
    assert {one["metadata"].get("namespace") for one in named if one["kind"] == "RoleBinding"} == {"one", "two"}

"""Who may reach which port of a cluster's pods: the NetworkPolicies as Kubernetes reads them, evaluated over the
objects that the operator and the chart really make.

`may_come` is what the API's reference says of ingress: a pod that no policy selects is open; else some rule of some
policy that does has to let the caller in; a rule without `from` or `ports` means all, and a selector of pods alone
those of the policy's own namespace. Addresses (`ipBlock`) are no pods. Kubelets, which probe, are let in always.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kube.test_chart import needs_helm, rendered
from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec, GatewaySpec, NetworkPolicySpec
from s4_operator.pods import ADMIN, PEER, S3, Object

HOME, NAMESPACE = "operators", "storage"
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
WEB = {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web", "api"]}]}}


@dataclass(frozen=True)
class Caller:
    """A pod, with the labels that every namespace has."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector does; an empty one selects everything."""
    tests = {
        "In": lambda one: labels.get(one["key"]) in one["values"],
        "NotIn": lambda one: labels.get(one["key"]) not in one["values"],
        "Exists": lambda one: one["key"] in labels,
        "DoesNotExist": lambda one: one["key"] not in labels,
    }
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()) and all(
        tests[one["operator"]](one) for one in selector.get("matchExpressions", ())
    )


def is_meant(peer: Object, caller: Caller, home: str) -> bool:
    """Whether a peer of a policy in the namespace `home` means a caller."""
    if "ipBlock" in peer:
        return False
    assert peer
    assert set(peer) <= {"podSelector", "namespaceSelector"}
    if "namespaceSelector" in peer:
        where = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": caller.namespace})
    else:
        where = caller.namespace == home
    return where and selects(peer.get("podSelector", {}), caller.labels)


def may_come(policies: list[Object], caller: Caller, pod: Object, port: int) -> bool:
    """Whether a caller reaches a TCP port of a pod (its template, in NAMESPACE)."""
    names = {one["name"]: one["containerPort"] for each in pod["spec"]["containers"] for one in each["ports"]}
    about = [
        one
        for one in policies
        if one["metadata"]["namespace"] == NAMESPACE
        and "Ingress" in one["spec"]["policyTypes"]
        and selects(one["spec"]["podSelector"], pod["metadata"]["labels"])
    ]

    def is_port(one: Object) -> bool:
        first = names.get(one["port"], one["port"])
        return one.get("protocol", "TCP") == "TCP" and first <= port <= one.get("endPort", first)

    return not about or any(
        (not rule.get("ports") or any(map(is_port, rule["ports"])))
        and (not rule.get("from") or any(is_meant(peer, caller, NAMESPACE) for peer in rule["from"]))
        for one in about
        for rule in one["spec"].get("ingress", ())
    )


def made(policy: NetworkPolicySpec, name: str = "c") -> tuple[list[Object], dict[str, Object]]:
    """What the operator makes of a cluster with a gateway: policies, and the templates of pods by component."""
    spec = ClusterSpec(gateway=GatewaySpec(replicas=1), networkPolicy=policy)
    objects = Builder(NAMESPACE, name, "uid", spec, HOME).all(replicas=6, image="s4:1", max_unavailable=1)
    templates = [one["spec"]["template"] for one in objects if one["kind"] in ("StatefulSet", "Deployment")]
    pods = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in templates}
    return [one for one in objects if one["kind"] == "NetworkPolicy"], pods


def operator() -> dict[str, str]:
    """The labels of its pod, by the chart."""
    (deployment,) = (one for one in rendered() if one["kind"] == "Deployment")
    found: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return found


def callers() -> dict[str, Caller]:
    own, other = made(NetworkPolicySpec())[1], made(NetworkPolicySpec(), "d")[1]
    label = {name: pod["metadata"]["labels"] for name, pod in own.items()}
    return {
        "a node": Caller(NAMESPACE, label["node"]),
        "a gateway": Caller(NAMESPACE, label["gateway"]),
        "the operator": Caller(HOME, operator()),
        "Prometheus": Caller("monitoring", {"app.kubernetes.io/name": "prometheus"}),
        "a web pod beside it": Caller(NAMESPACE, {"tier": "web"}),
        "a web pod elsewhere": Caller("app", {"tier": "web"}),
        "a pod beside it": Caller(NAMESPACE),
        "a pod elsewhere": Caller("app"),
        "a node of another cluster": Caller(NAMESPACE, other["node"]["metadata"]["labels"]),
        "who calls itself a node elsewhere": Caller("app", label["node"]),
        "who calls itself the operator elsewhere": Caller("app", operator()),
    }


# Who may come to S3 (s), the admin port (a), the peers' port (p): as it is by itself; with adminFrom Prometheus; with
# s3From pods of the tiers web and api in its namespace.
WHO = {
    "a node": ("sap", "sap", "sap"),
    "a gateway": ("sap", "sap", "sap"),
    "the operator": ("sa", "sa", "sa"),
    "Prometheus": ("s", "sa", ""),
    "a web pod beside it": ("s", "s", "s"),
    "a web pod elsewhere": ("s", "s", ""),
    "a pod beside it": ("s", "s", ""),
    "a pod elsewhere": ("s", "s", ""),
    "a node of another cluster": ("s", "s", ""),
    "who calls itself a node elsewhere": ("s", "s", ""),
    "who calls itself the operator elsewhere": ("s", "s", ""),
}
POLICIES = (NetworkPolicySpec(), NetworkPolicySpec(adminFrom=[MONITORING]), NetworkPolicySpec(s3From=[WEB]))


@needs_helm
@pytest.mark.parametrize("component", ["node", "gateway"])
def test_who_may_reach_which_port(component: str) -> None:
    named = callers()
    assert set(named) == set(WHO)
    found: dict[str, tuple[str, ...]] = dict.fromkeys(named, ())
    for wanted in POLICIES:
        policies, pods = made(wanted)
        assert set(pods) == {"node", "gateway"}
        for name, caller in named.items():
            ports = [
                letter
                for letter, port in (("s", S3), ("a", ADMIN), ("p", PEER))
                if may_come(policies, caller, pods[component], port)
            ]
            found[name] = (*found[name], "".join(ports))
    assert found == WHO


def test_nothing_else_is_open() -> None:
    """A port that nobody speaks of is nobody's, not even the cluster's own pods'; switched off, all are everybody's."""
    policies, pods = made(NetworkPolicySpec())
    node, stranger = Caller(NAMESPACE, pods["node"]["metadata"]["labels"]), Caller("app")
    assert not may_come(policies, node, pods["node"], 22)
    policies, pods = made(NetworkPolicySpec(enabled=False))
    assert policies == []
    assert all(may_come(policies, stranger, pods["node"], port) for port in (S3, ADMIN, PEER))


def test_one_cluster_s_policy_is_about_its_own_pods() -> None:
    """What another one lets in is let in there alone."""
    policies = made(NetworkPolicySpec(), "d")[0]
    pods = made(NetworkPolicySpec())[1]
    assert may_come(policies, Caller("app"), pods["node"], PEER), "no policy is about this one"
    both = policies + made(NetworkPolicySpec())[0]
    assert not may_come(both, Caller(NAMESPACE, {"s4.dev/cluster": "d"}), pods["node"], PEER)

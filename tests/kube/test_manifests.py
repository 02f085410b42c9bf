"""Who may come to the ports of a cluster, as its NetworkPolicy says."""

from __future__ import annotations

from typing import Any

from s4_operator.manifests import ADMIN, PEER, Builder
from s4_operator.models import ClusterSpec, NetworkPolicySpec


def comers(spec: ClusterSpec, port: int) -> list[Any]:
    """Who is named for a port; everybody is None."""
    (policy,) = Builder("ns", "c", "uid", spec, "operators").network_policy()
    listed = [one.get("from") for one in policy["spec"]["ingress"] if {"port": port} in one["ports"]]
    return [peer for one in listed for peer in (one if one is not None else [None])]


def test_admin_and_peer_ports_are_for_those_that_are_named() -> None:
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    spec = ClusterSpec(networkPolicy=NetworkPolicySpec(adminFrom=[prometheus]))
    own, operator, named = comers(spec, ADMIN)
    assert "namespaceSelector" not in own
    assert operator["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "operators"}}, "a pod of that label elsewhere is none"
    assert named == prometheus
    assert comers(spec, PEER) == [own]

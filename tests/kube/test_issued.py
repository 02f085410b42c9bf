"""A certificate by cert-manager: what it is asked for, and what a cluster does and says until it is there.

The CRDs are cert-manager's own, of its Go module. Its controller is not: that is a module within the module, which no
proxy has. What it does is written here as it does: conditions of the Certificate, then its Secret.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kube.apiserver import ApiServer
from kube.test_operator import OperatorProcess, cluster, get, operator, status
from process import wait_until
from s4_operator import certificates, issued
from s4_operator.cache import Cache
from s4_operator.certificates import Pair
from s4_operator.clusters import Clusters
from s4_operator.kube import Kube
from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec
from s4_operator.secrets_of import Secrets, Trusted, trusted_by

__all__ = ["operator"]  # the fixture

MODULE = "github.com/cert-manager/cert-manager@v1.19.1"
PATH = "/apis/cert-manager.io/v1/namespaces/default/certificates/c-issued-tls"
ISSUED = {"tls": {"enabled": True, "issuerRef": {"name": "ours"}}}


def crds() -> list[str]:
    """The files of cert-manager's CRDs; the test is skipped where Go or its proxy is not."""
    if shutil.which("go") is None:
        pytest.skip("no Go")
    done = subprocess.run(["go", "mod", "download", "-json", MODULE], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no cert-manager: {done.stdout}")
    return [str(one) for one in Path(json.loads(done.stdout)["Dir"], "deploy", "crds").glob("cert-manager.io_*.yaml")]


def condition(api: ApiServer, kind: str = "CertificatesReady") -> tuple[str, str]:
    """(status, message) of a cluster's condition."""
    found = {one["type"]: one for one in status(api).get("conditions", ())}.get(kind, {})
    return found.get("status", ""), found.get("message", "")


def mounted(api: ApiServer) -> str:
    """The Secret of TLS in the template of pods; empty where there is none."""
    volumes = get(api, "statefulsets", "c-node")["spec"]["template"]["spec"]["volumes"]
    return next((str(one["secret"]["secretName"]) for one in volumes if one["name"] == "tls"), "")


def say(api: ApiServer, *conditions: tuple[str, str, str, str]) -> None:
    """The Certificate's conditions, as the controller writes them: (type, status, reason, message)."""
    names = "type", "status", "reason", "message"
    listed = [
        {**dict(zip(names, one, strict=True)), "lastTransitionTime": "2026-01-01T00:00:00Z"} for one in conditions
    ]
    api.call("PATCH", f"{PATH}/status", {"status": {"conditions": listed}}, "application/merge-patch+json")


def make_secret(api: ApiServer, names: list[str]) -> Pair:
    """The Secret as the controller writes it; returns the authority."""
    authority = certificates.make("another authority", time.time(), 86400)
    made = certificates.make("c", time.time(), 3600, names, authority)
    parts = {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": authority.certificate}
    data = {name: base64.b64encode(text.encode()).decode() for name, text in parts.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c-issued-tls"}, "type": "kubernetes.io/tls"}
    api.call("POST", "/api/v1/namespaces/default/secrets", {**secret, "data": data})
    return authority


def test_pods_wait_for_what_cert_manager_makes_and_the_status_says_for_what(
    api: ApiServer, operator: OperatorProcess
) -> None:
    """Each step: cert-manager is not there; nobody looks; refused; made. Pods that serve are left alone till then."""
    files = [word for path in crds() for word in ("-f", path)]
    api.kubectl("delete", "--ignore-not-found", "secret", "c-issued-tls", "-n", "default")
    api.kubectl("apply", "-f", "-", text=cluster())
    wait_until(lambda: api.get("/apis/apps/v1/namespaces/default/statefulsets/c-node"), "the cluster forms")
    assert mounted(api) == ""
    try:
        api.kubectl("apply", "-f", "-", text=cluster(gateway=ISSUED))
        needs = "needs cert-manager, and this Kubernetes has no cert-manager.io/v1: install it"
        wait_until(lambda: needs in condition(api)[1], "cert-manager is not there")
        assert mounted(api) == ""
        api.kubectl("apply", "--server-side", *files)
        wait_until(lambda: "has not looked at the Certificate c-issued-tls" in condition(api)[1], "nobody looks")
        asked = api.get(PATH)["spec"]
        assert asked["issuerRef"] == {"name": "ours", "kind": "Issuer", "group": "cert-manager.io"}
        assert {"c.default.svc", "*.c-nodes.default.svc"} <= set(asked["dnsNames"])

        refused = "The certificate request has failed to complete and will be retried: no such issuer"
        absent = "Issuing certificate as Secret does not exist"
        say(api, ("Ready", "False", "DoesNotExist", absent), ("Issuing", "False", "Failed", refused))
        wait_until(lambda: f"{refused}; {absent}" in condition(api)[1], "its own words")
        assert condition(api)[0] == "False"
        assert mounted(api) == "", "whoever serves goes on with what it has"

        make_secret(api, asked["dnsNames"])
        say(api, ("Ready", "True", "Ready", "Certificate is up to date and has not expired"))
        wait_until(lambda: mounted(api) == "c-issued-tls", "pods are to mount it")
        wait_until(lambda: condition(api) == ("True", ""), "it is valid")

        api.kubectl("apply", "-f", "-", text=cluster(gateway={"tls": {"enabled": True}}))
        wait_until(lambda: mounted(api) == "c-tls", "by the cluster's own authority again")
        wait_until(lambda: not api.get(PATH), "what is not asked for any more goes")
    finally:
        api.kubectl("delete", "--ignore-not-found", *files)


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([], "has not looked at the Certificate n yet"),
        ([{"type": "Ready", "status": "True", "observedGeneration": 2}], ""),
        ([{"type": "Ready", "status": "True"}], ""),
        ([{"type": "Ready", "status": "True", "observedGeneration": 1}], "it says nothing more"),
        ([{"type": "Ready", "status": "False", "reason": "Expired"}], "has no certificate for n yet: Expired"),
    ],
)
def test_a_certificate_says_why_it_is_not_there(conditions: list[dict[str, Any]], words: str) -> None:
    found = {"metadata": {"name": "n", "generation": 2}, "status": {"conditions": conditions}}
    assert words in issued.waits(found)
    assert bool(words) == bool(issued.waits(found))


@pytest.mark.parametrize("had", [{}, {"enabled": True}, {"enabled": True, "secretName": "brought"}])
def test_a_cluster_serves_with_what_its_pods_have_until_the_other_is_there(had: dict[str, Any]) -> None:
    """To the letter: no pod starts again for a certificate that is not there."""
    before, after = (ClusterSpec.model_validate({"gateway": {"tls": tls}}) for tls in (had, ISSUED["tls"]))
    found = Builder("ns", "c", "uid", before).nodes(6, "s4:1")
    served = Builder("ns", "c", "uid", issued.as_served(after, found["spec"]["template"]["spec"]))
    assert served.nodes(6, "s4:1") == found
    assert served.endpoint == Builder("ns", "c", "uid", before).endpoint
    assert issued.as_served(after, None) == after, "new pods may wait"
    assert Builder("ns", "c", "uid", after).nodes(6, "s4:1") != found


def test_the_set_that_is_made_anew_meanwhile_has_what_its_pods_have() -> None:
    """As their volumes grow, or move to another class: there is none for a moment."""
    before, after = (ClusterSpec.model_validate({"gateway": {"tls": tls}}) for tls in ({}, ISSUED["tls"]))
    found, cache = Builder("ns", "c", "uid", before).nodes(6, "s4:1"), Cache()
    metadata = {"namespace": "ns", "name": "c-node-0", "labels": found["spec"]["template"]["metadata"]["labels"]}
    cache.see("Pod", {"kind": "Pod", "metadata": metadata, "spec": found["spec"]["template"]["spec"]})
    clusters = Clusters(None, cache, None, "s4:1", None)  # type: ignore[arg-type]
    trusted = Trusted(None, "", None, waits=True)  # type: ignore[arg-type]
    assert clusters.served(Builder("ns", "c", "uid", after), trusted).nodes(6, "s4:1") == found


def believed(trusted: Trusted) -> set[str]:
    """Names of authorities, of those that are made here."""
    names = {part[0][1] for found in trusted_by(trusted).get_ca_certs() for part in found["subject"]}
    return names & {"one", "other", "another authority"}


def test_the_operator_believes_the_authority_that_is_in_the_secret() -> None:
    """And not any other; what is no certificate is left out, for the system's are there, and so are remarks."""
    one, other = (certificates.make(name, time.time(), 3600) for name in ("one", "other"))
    trusted = Trusted(None, one.certificate, None, ca=("# Autorité\n" + other.certificate,))  # type: ignore[arg-type]
    assert believed(trusted) == {"one"}
    assert believed(replace(trusted, others=True)) == {"one", "other"}
    assert believed(replace(trusted, others=True, ca=("none", other.certificate))) == {"one", "other"}


@pytest.fixture
def namespace(api: ApiServer) -> Iterator[ApiServer]:
    """Where `operator` may have Secrets, but nothing of cert-manager."""
    secrets = "/api/v1/namespaces/default/secrets"
    api.call("DELETE", secrets)
    api.kubectl("create", "role", "issued", "-n", "default", "--verb=*", "--resource=secrets,shardmaps.s4.dev")
    api.kubectl("create", "rolebinding", "issued", "-n", "default", "--role=issued", "--user=operator")
    yield api
    api.kubectl("delete", "-n", "default", "role,rolebinding", "issued")
    api.call("DELETE", secrets)


def looked(api: ApiServer, tls: dict[str, Any], mounted: tuple[str, ...] = (), later_s: float = 0.0) -> Trusted:
    """What the operator finds in the Secrets of a cluster, as one who may nothing of cert-manager."""

    async def look() -> Trusted:
        kube = await Kube.connect(str(api.kubeconfig_of("operator")))
        try:
            builder = Builder("default", "c", "uid", ClusterSpec.model_validate({"gateway": {"tls": tls}}))
            return await Secrets(kube).ensure(builder, time.time() + later_s, None, frozenset(mounted))
        finally:
            await kube.close()

    return asyncio.run(look())


def test_what_keeps_cert_manager_from_being_asked_keeps_a_cluster_from_nothing_else(namespace: ApiServer) -> None:
    """A webhook of its own that is away, a right that is missing: said, and pods that have its certificate are
    believed."""
    found = looked(namespace, ISSUED["tls"])
    assert found.waits
    assert "cert-manager cannot be asked: certificates.cert-manager.io" in found.problem
    make_secret(namespace, ["c.default.svc"])
    assert believed(looked(namespace, ISSUED["tls"])) == {"another authority"}


def test_certificates_that_pods_still_have_are_kept_and_believed(namespace: ApiServer) -> None:
    """While they start again with another one, and while that is waited for."""
    other, binary = certificates.make("other", time.time(), 3600), base64.b64encode(b"\x30\xff").decode()
    data = {"ca.crt": base64.b64encode(other.certificate.encode()).decode(), "keystore.p12": binary}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "brought"}, "data": data}
    namespace.call("POST", "/api/v1/namespaces/default/secrets", secret)
    for tls in ({"enabled": True}, ISSUED["tls"], {"enabled": True, "secretName": "absent"}):
        assert believed(looked(namespace, tls, mounted=("brought",))) == {"other"}, tls

    def own() -> str:
        return str(namespace.get("/api/v1/namespaces/default/secrets/c-tls")["data"]["tls.crt"])

    before = own()
    looked(namespace, ISSUED["tls"], ("c-tls",), later_s=0.5 * certificates.LEAF_S)
    assert own() == before
    looked(namespace, ISSUED["tls"], ("c-tls",), later_s=0.9 * certificates.LEAF_S)
    assert own() != before, "it would end while another one is waited for"

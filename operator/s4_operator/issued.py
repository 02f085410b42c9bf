"""The certificate of S3 by cert-manager (gateway.tls.issuerRef): what it is asked for, and what it says. Pure.

Only that of the S3 port: clients know the issuer's authority. Certificates of peers and of the admin port stay with the
cluster's own, for who has one is let in by the role in its name (s4/crypto/roles.py): an issuer that signs for others
too could let them in.

Pods wait for the Secret that they mount, so those that serve are not started again for one that is not there: until
cert-manager has made it, the template of pods stays with what it had (`as_served`). Renewals are files that change, and
daemons read them again by themselves.
"""

from __future__ import annotations

from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec
from s4_operator.pods import Object

ABSENT = "gateway.tls.issuerRef needs cert-manager, and this Kubernetes has no cert-manager.io/v1: install it"


def certificate(builder: Builder) -> Object:
    """What cert-manager is asked for. Raises ValueError without an issuer."""
    issuer = builder.spec.gateway.tls.issuerRef
    if issuer is None:
        raise ValueError("no issuer is named")
    spec = {
        "secretName": builder.names["issued"],
        "dnsNames": builder.hosts(),
        "issuerRef": issuer.model_dump(),
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "usages": ["digital signature", "server auth"],
    }
    return builder.object("cert-manager.io/v1", "Certificate", builder.names["issued"], spec=spec)


def is_asked(found: Object | None, wanted: Object) -> bool:
    """Whether a Certificate says what is wanted; what others added stays."""
    return found is not None and all(found["spec"].get(name) == value for name, value in wanted["spec"].items())


def waits(found: Object) -> str:
    """Why cert-manager has not made the certificate, in its own words; empty where it has."""
    said = {one["type"]: one for one in (found.get("status") or {}).get("conditions") or ()}
    name, ready = found["metadata"]["name"], said.get("Ready", {})
    if ready.get("status") == "True" and ready.get("observedGeneration", 0) in (
        0,
        found["metadata"].get("generation", 0),
    ):
        return ""
    if not said:
        return f"cert-manager has not looked at the Certificate {name} yet: does its controller run?"
    words = [one.get("message") or one.get("reason", "") for one in (said.get("Issuing", {}), ready)]
    told = "; ".join(dict.fromkeys(filter(None, words))) or "it says nothing more"
    return f"cert-manager has no certificate for {name} yet: {told}"


def mounted(pod: Object) -> str | None:
    """The Secret that a pod, by its spec, has the certificate of S3 from; None where it serves without."""
    volumes = pod.get("volumes") or ()
    return next((str(one["secret"]["secretName"]) for one in volumes if one["name"] == "tls"), None)


def as_served(spec: ClusterSpec, pod: Object | None) -> ClusterSpec:
    """The spec with the certificate that its pods serve S3 with now, by the spec of one; as it is where there is none,
    and pods may wait."""
    if pod is None:
        return spec
    found = mounted(pod)
    tls = spec.gateway.tls.model_copy(update={"enabled": found is not None, "secretName": found})
    return spec.model_copy(update={"gateway": spec.gateway.model_copy(update={"tls": tls})})

"""Who is who in the local cluster: its authority, the certificates of its programs, and what they connect with."""

from __future__ import annotations

from pathlib import Path

import yaml
from processes import STATE, sh

from addresses import FAMILIES, HOST, url

KUBECONFIG = STATE / "admin.conf"


def certificate(name: str, common: str, organization: str = "", hosts: str = "") -> None:
    pki = STATE / "pki"
    subject = (f"/O={organization}" if organization else "") + f"/CN={common}"
    sh(
        "openssl",
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        pki / f"{name}.key",
        "-out",
        pki / f"{name}.csr",
        "-subj",
        subject,
    )
    extra = pki / f"{name}.ext"
    extra.write_text("extendedKeyUsage=serverAuth,clientAuth\n" + (f"subjectAltName={hosts}\n" if hosts else ""))
    sh(
        "openssl",
        "x509",
        "-req",
        "-in",
        pki / f"{name}.csr",
        "-CA",
        pki / "ca.crt",
        "-CAkey",
        pki / "ca.key",
        "-CAcreateserial",
        "-days",
        "365",
        "-extfile",
        extra,
        "-out",
        pki / f"{name}.crt",
    )


def kubeconfig(name: str, path: Path) -> None:
    pki = STATE / "pki"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "s4",
                "clusters": [
                    {
                        "name": "s4",
                        "cluster": {"server": url(HOST, 6443), "certificate-authority": str(pki / "ca.crt")},
                    }
                ],
                "users": [
                    {
                        "name": name,
                        "user": {
                            "client-certificate": str(pki / f"{name}.crt"),
                            "client-key": str(pki / f"{name}.key"),
                        },
                    }
                ],
                "contexts": [{"name": "s4", "context": {"cluster": "s4", "user": name}}],
            }
        )
    )


def authority() -> None:
    """Make the authority, and what the control plane's own programs show and ask with."""
    pki = STATE / "pki"
    sh(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        pki / "ca.key",
        "-out",
        pki / "ca.crt",
        "-subj",
        "/CN=s4-e2e",
        "-days",
        "365",
    )
    sh("openssl", "genrsa", "-out", pki / "sa.key", "2048")
    (pki / "sa.pub").write_text(sh("openssl", "rsa", "-in", pki / "sa.key", "-pubout"))
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    certificate(
        "apiserver",
        "kube-apiserver",
        hosts=",".join(
            [
                "IP:127.0.0.1",
                *(f"IP:{one.host},IP:{one.api}" for one in FAMILIES),
                *(f"DNS:{name}" for name in names),
            ]
        ),
    )
    certificate("admin", "admin", "system:masters")
    for name, common in (
        ("controllers", "kube-controller-manager"),
        ("scheduler", "kube-scheduler"),
        ("proxy", "kube-proxy"),
    ):
        certificate(name, f"system:{common}")
        kubeconfig(name, STATE / f"{name}.conf")
    kubeconfig("admin", KUBECONFIG)

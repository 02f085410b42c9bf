"""A real Kubernetes API without nodes: etcd and kube-apiserver as processes, for tests of what is stored and
watched."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from addresses import free_ports, own_address
from process import wait_until

PROGRAMS = Path(os.environ.get("S4_E2E_BIN", Path.home() / ".cache" / "s4-e2e" / "bin"))
ROOT = Path(__file__).parents[2]
RESOURCES = ("s4users", "s4roles", "s4policies", "buckets", "s4clusters", "shardmaps")  # of ours, in s4.dev/v1alpha1
UNVERIFIED = ssl._create_unverified_context()


def missing() -> bool:
    return not all((PROGRAMS / name).exists() for name in ("etcd", "kube-apiserver", "kubectl"))


class ApiServer:
    """`kubeconfig` is an administrator's; `kubeconfig_of(user)` somebody's with the rights that RBAC gives them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = own_address()
        self.client, peer, self.port = free_ports(3, self.host)
        self.peer = peer
        self.kubeconfig = directory / "admin.conf"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> ApiServer:
        here = self.directory
        subprocess.run(["openssl", "genrsa", "-out", here / "sa.key", "2048"], check=True, capture_output=True)
        (here / "tokens").write_text(
            "admin,admin,1,system:masters\n"
            + "".join(f"{user},{user},{user}\n" for user in ("daemon", "operator", "nobody"))
        )
        etcd = f"http://{self.host}:{self.client}"
        self._run(
            "etcd",
            PROGRAMS / "etcd",
            "--data-dir",
            here / "etcd",
            "--listen-client-urls",
            etcd,
            "--advertise-client-urls",
            etcd,
            "--listen-peer-urls",
            f"http://{self.host}:{self.peer}",
            "--unsafe-no-fsync",
        )
        self.serve()
        return self

    def serve(self) -> None:
        here = self.directory
        self._run(
            "apiserver",
            PROGRAMS / "kube-apiserver",
            f"--etcd-servers=http://{self.host}:{self.client}",
            f"--bind-address={self.host}",
            f"--secure-port={self.port}",
            f"--cert-dir={here}/certs",
            f"--token-auth-file={here}/tokens",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://test",
            f"--service-account-key-file={here}/sa.key",
            f"--service-account-signing-key-file={here}/sa.key",
            "--service-cluster-ip-range=10.97.0.0/16",
            "--disable-admission-plugins=ServiceAccount",
        )
        for user in ("admin", "daemon", "operator", "nobody"):
            self.kubeconfig_of(user)
        wait_until(
            lambda: self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, "the API server is ready"
        )

    def kubeconfig_of(self, user: str) -> Path:
        path = self.directory / f"{user}.conf"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {"server": f"https://{self.host}:{self.port}", "insecure-skip-tls-verify": True},
                        }
                    ],
                    "users": [{"name": "u", "user": {"token": user}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                }
            )
        )
        return path

    def _run(self, name: str, *command: object) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes.append(subprocess.Popen([str(word) for word in command], stdout=log, stderr=log))

    def kubectl(self, *words: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(PROGRAMS / "kubectl"), f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True, input=text, timeout=600)
        assert not check or done.returncode == 0, done.stderr
        return done

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        """One request of the administrator, without a program of its own. Raises HTTPError."""
        headers = {"Authorization": "Bearer admin", "Content-Type": kind}
        request = urllib.request.Request(
            f"https://{self.host}:{self.port}{path}",
            json.dumps(body).encode() if body is not None else None,
            headers,
            method=method,
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60, context=UNVERIFIED) as answer:
                    return dict(json.loads(answer.read()))
            except urllib.error.HTTPError as error:
                if error.code != 429:
                    raise
                time.sleep(1)  # what it asks for while the storage of a new CRD begins

    def get(self, path: str) -> dict[str, Any]:
        """{} where there is nothing."""
        try:
            return self.call("GET", path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return {}
            raise

    def remove(self, resource: str) -> None:
        """All there is of a resource of ours, in every namespace; returns once it is gone."""
        start = "/apis/s4.dev/v1alpha1"
        for one in self.get(f"{start}/{resource}")["items"]:
            with suppress(urllib.error.HTTPError):  # who watches it may have been first
                self.call(
                    "DELETE", f"{start}/namespaces/{one['metadata']['namespace']}/{resource}/{one['metadata']['name']}"
                )
        wait_until(lambda: not self.get(f"{start}/{resource}")["items"], f"there are no {resource}")

    def remove_at_once(self, resource: str) -> None:
        """As `remove`, where nobody ends what finalizers wait for."""
        start = "/apis/s4.dev/v1alpha1"
        for one in self.get(f"{start}/{resource}")["items"]:
            path = f"{start}/namespaces/{one['metadata']['namespace']}/{resource}/{one['metadata']['name']}"
            self.change(path, {"metadata": {"finalizers": []}})
        self.remove(resource)

    def change(self, path: str, change: dict[str, Any]) -> None:
        self.call("PATCH", path, change, "application/merge-patch+json")

    def install_crds(self) -> None:
        self.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        self.kubectl("wait", "--for=condition=Established", "--timeout=300s", "crd", "--all")
        for plural in RESOURCES:
            self.get(f"/apis/s4.dev/v1alpha1/{plural}")  # returns once their storage has begun

    def stop_api(self) -> None:
        """The API server is away; etcd keeps what there is. `serve` brings it back."""
        api = self._processes.pop()
        api.kill()
        api.wait()

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

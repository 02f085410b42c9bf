"""A real etcd, of one member or several, on loopback. The program comes from S4_ETCD or the PATH."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from addresses import free_ports, own_address
from process import wait_until


def program() -> str | None:
    return os.environ.get("S4_ETCD") or shutil.which("etcd")


NO_ETCD = "no etcd: install etcd-server or set S4_ETCD"
needs_etcd = pytest.mark.skipif(program() is None, reason=NO_ETCD)


def need_etcd() -> None:
    """For fixtures: skip what asks for one."""
    if program() is None:
        pytest.skip(NO_ETCD)


class EtcdCluster:
    """`endpoints` are HOST:PORT of the members. Where `tls` makes (authority, certificate, key) for the host, both
    sides show one."""

    def __init__(
        self, directory: Path, members: int = 1, tls: Callable[[str], tuple[Path, Path, Path]] | None = None
    ) -> None:
        found = program()
        assert found is not None
        self._program, self._directory = found, directory
        self.host = own_address()
        self._scheme, self._context, self._more = "http", None, list[str]()
        if tls is not None:
            authority, certificate, key = tls(self.host)
            self._scheme, self._context = "https", ssl.create_default_context(cafile=str(authority))
            self._context.load_cert_chain(certificate, key)
            self._more = [
                "--cert-file",
                str(certificate),
                "--key-file",
                str(key),
                "--trusted-ca-file",
                str(authority),
                "--client-cert-auth",
            ]
        ports = free_ports(2 * members, self.host)
        self._clients, self._peers = ports[:members], ports[members:]
        self.endpoints = [f"{self.host}:{port}" for port in self._clients]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * members
        for number in range(members):
            self.start(number)
        self.wait()

    def start(self, number: int) -> None:
        peers = ",".join(f"m{at}=http://{self.host}:{port}" for at, port in enumerate(self._peers))
        client, peer = (
            f"{self._scheme}://{self.host}:{self._clients[number]}",
            f"http://{self.host}:{self._peers[number]}",
        )
        with (self._directory / f"etcd{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [
                    self._program,
                    "--name",
                    f"m{number}",
                    "--data-dir",
                    str(self._directory / f"etcd{number}"),
                    "--listen-client-urls",
                    client,
                    "--advertise-client-urls",
                    client,
                    "--listen-peer-urls",
                    peer,
                    "--initial-advertise-peer-urls",
                    peer,
                    "--initial-cluster",
                    peers,
                    "--heartbeat-interval",
                    "50",
                    "--election-timeout",
                    "500",
                    *self._more,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )

    def wait(self) -> None:
        """Until every running member says that it is healthy."""
        for endpoint, process in zip(self.endpoints, self._processes, strict=True):
            if process is not None:
                wait_until(partial(self._is_healthy, endpoint), f"the etcd at {endpoint} is healthy")

    def _is_healthy(self, endpoint: str) -> bool:
        try:
            with urllib.request.urlopen(
                f"{self._scheme}://{endpoint}/health", timeout=2, context=self._context
            ) as answer:
                return b'"true"' in answer.read()
        except OSError:
            return False

    def kill(self, number: int) -> None:
        process = self._processes[number]
        assert process is not None
        process.kill()
        process.wait(10)
        self._processes[number] = None

    def stop(self) -> None:
        for number, process in enumerate(self._processes):
            if process is not None:
                self.kill(number)

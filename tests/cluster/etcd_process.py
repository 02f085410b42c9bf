"""A real etcd, of one member or several, on loopback. The program comes from S4_ETCD or the PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from addresses import free_ports, own_address


def program() -> str | None:
    return os.environ.get("S4_ETCD") or shutil.which("etcd")


class EtcdCluster:
    """`endpoints` are HOST:PORT of the members."""

    def __init__(self, directory: Path, members: int = 1) -> None:
        found = program()
        assert found is not None
        self._program, self._directory = found, directory
        self.host = own_address()
        ports = free_ports(2 * members, self.host)
        self._clients, self._peers = ports[:members], ports[members:]
        self.endpoints = [f"{self.host}:{port}" for port in self._clients]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * members
        for number in range(members):
            self.start(number)
        self.wait()

    def start(self, number: int) -> None:
        peers = ",".join(f"m{at}=http://{self.host}:{port}" for at, port in enumerate(self._peers))
        client, peer = (f"http://{self.host}:{ports[number]}" for ports in (self._clients, self._peers))
        with (self._directory / f"etcd{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [self._program, "--name", f"m{number}", "--data-dir", str(self._directory / f"etcd{number}"), "--listen-client-urls", client,
                 "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", peers,
                 "--heartbeat-interval", "50", "--election-timeout", "500"],
                stdout=log, stderr=log, env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )  # fmt: skip

    def wait(self, limit_s: float = 300.0) -> None:
        """Until every running member says that it is healthy."""
        deadline = time.monotonic() + limit_s
        for number, process in enumerate(self._processes):
            while process is not None:
                try:
                    with urllib.request.urlopen(f"http://{self.endpoints[number]}/health", timeout=2) as answer:
                        if b'"true"' in answer.read():
                            break
                except OSError:
                    pass
                if time.monotonic() > deadline:
                    raise AssertionError(f"etcd member {number} never became healthy")
                time.sleep(0.05)

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

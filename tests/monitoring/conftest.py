"""One cluster with a gateway, and a Prometheus that looks at it, for all tests here. Each ends as it began: whole, with
nothing that fires."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.dev import DevCluster
from cluster.etcd_process import need_etcd
from events.processes import Webhook, said
from monitoring.watching import PROGRAMS, Prometheus

MIB = 1 << 20
SMALL = "node-3"  # whose disk is a file system of its own, where one can be mounted


@dataclass
class World:
    """`hook` is the receiver that the cluster knows, and does not run; `pods` are their admin addresses."""

    cluster: DevCluster
    prometheus: Prometheus
    hook: Webhook
    small: bool

    @property
    def pods(self) -> dict[str, str]:
        return {name: line["admin"] for name, line in self.cluster.lines.items()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (PROGRAMS / "promtool").exists():
        for item in items:
            if "/monitoring/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="no Prometheus: make prometheus builds one, with Go"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    need_etcd()
    directory = tmp_path_factory.mktemp("watched")
    hook = Webhook(directory / "hook")
    told = {"S4_RECEIVERS": said([hook], directory / "receivers"), "S4_LIMIT_LOOK_S": "1"}
    cluster = DevCluster(directory / "dev", nodes=4, erasure="2+1", partitions=4, gateways=1, environment=told)
    cluster.options += ["--reserve", "8MiB"]
    disk = directory / "dev" / SMALL
    disk.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(disk)]
    small = os.geteuid() == 0 and subprocess.run(words, check=False).returncode == 0
    try:
        cluster.start()
        pods = {name: line["admin"] for name, line in cluster.lines.items()}
        prometheus = Prometheus(directory / "prometheus", pods)
        try:
            yield World(cluster, prometheus, hook, small)
        finally:
            prometheus.stop()
            hook.kill()
    finally:
        cluster.stop()
        if small:
            subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """Nothing fires when a test begins: what fires in it is by what it did."""
    shared.cluster.settled()
    shared.prometheus.is_quiet()
    yield shared


def room(directory: Path) -> tuple[int, int]:
    """(free bytes, all bytes) of a file system."""
    told = os.statvfs(directory)
    return told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize

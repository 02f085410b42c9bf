"""A real cluster for tests: `s4 dev` with its nodes and etcd, S3 clients of each node, and what to wait for."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from addresses import own_address
from process import run, start, wait_until
from s4.cli.admin_client import AdminClient, AdminError
from s4.cli.starter import has_ended
from s4.cluster import clustermap
from s4.cluster.clustermap import ClusterMap
from s4.cluster.keeper import DOCUMENT
from s4.server.cluster import open_coordinator

ACCESS, SECRET = "testroot", "testrootsecret"


class DevCluster:
    """`lines` is what `s4 dev` said of each node, by name."""

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 6,
        erasure: str = "4+2",
        partitions: int = 8,
        gateways: int = 0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.options = [
            "--nodes",
            str(nodes),
            "--erasure",
            erasure,
            "--partitions",
            str(partitions),
            "--gateways",
            str(gateways),
            "--listen",
            f"{own_address()}:0",
            "--reserve",
            "64MiB",
        ]
        self.environment = {"S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET, **(environment or {})}
        self.lines: dict[str, dict[str, Any]] = {}
        self.coordinator = ""
        self._clients: dict[tuple[Any, ...], Any] = {}

    def start(self) -> DevCluster:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("S4_") or name == "S4_ETCD"}
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self.process = start(["dev", str(self.directory), *self.options], {**clean, **self.environment}, log)
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = json.loads(raw)
            if "ready" in line:
                self.coordinator = line["coordinator"]
                return self
            self.lines[line["node"]] = line
        raise AssertionError(f"the cluster did not start: {self.logs()}")

    def logs(self) -> str:
        texts = [
            path.read_text()[-1500:]
            for path in (self.directory.parent / f"{self.directory.name}.log", *self.directory.glob("*.log"))
        ]
        return "\n".join(texts)

    def stop(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def act(self, act: str, node: str) -> dict[str, Any]:
        done = run(["dev", str(self.directory), act, node], dict(os.environ), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        if "pid" in answer:
            self.lines[node] = answer
        return answer

    def wipe(self, *nodes: str) -> None:
        """Kill nodes, empty their disks and start them again, all at once; have the new stores take the places."""
        for node in nodes:
            self.act("kill", node)
        for node in nodes:
            shutil.rmtree(self.directory / node)
        for node in nodes:
            self.act("start", node)
        for node in nodes:
            self.ask("POST", "/cluster/replace", {"stores": [node]})

    def alive(self, node: str) -> bool:
        """Whether a node's process runs; one that just died may not have been waited for yet."""
        pid = self.lines[node]["pid"]
        return bool(pid) and not has_ended(pid)

    def signal(self, node: str, number: signal.Signals) -> None:
        os.kill(self.lines[node]["pid"], number)

    def client(self, node: str, **options: Any) -> Any:
        """A client of a node that asks twice (`attempts`); the same one each time, for any number of threads. Whoever
        judges what each call did asks once: the second try of a conditional write finds what the first one wrote."""
        key = (self.lines[node]["s3"], *sorted(options.items()))
        if key not in self._clients:
            self._clients[key] = self._client(node, **options)
        return self._clients[key]

    def _client(self, node: str, attempts: int = 2, **options: Any) -> Any:
        config = Config(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            s3={"addressing_style": "path"},
            connect_timeout=2,
            max_pool_connections=20,
            **{"read_timeout": 30, **options},
        )
        return boto3.client(
            "s3",
            endpoint_url=self.lines[node]["s3"],
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=config,
        )

    def admin(self, node: str = "") -> AdminClient:
        name = node or next(name for name, line in self.lines.items() if line["pid"] and self.alive(name))
        return AdminClient(self.lines[name]["admin"], ACCESS, SECRET, "us-east-1")

    def ask(self, method: str, path: str, body: Any = None, query: str = "", node: str = "") -> dict[str, Any]:
        """An admin call, repeated while nobody answers."""
        found: list[dict[str, Any]] = []

        def try_once() -> bool:
            try:
                found.append(list(self.admin(node).call(method, path, body, query))[-1])
            except AdminError as error:
                assert "Unavailable" in str(error) or "reach" in str(error), error
                return False
            return True

        wait_until(try_once, f"{method} {path}")
        return found[0]

    def status(self) -> dict[str, Any]:
        return self.ask("GET", "/status")

    def wait(self, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        last: dict[str, Any] = {}

        def look() -> bool:
            nonlocal last
            last = self.status()
            return bool(condition(last))

        try:
            wait_until(look, what, 0.3)  # every node is asked each time
        except AssertionError as error:
            raise AssertionError(
                f"{error}: {last['health']} {last['reasons']} {last['stores']}\n{self.map().partitions}\n{self.logs()[-3000:]}"
            ) from None
        return last

    def wait_whole(self) -> dict[str, Any]:
        """Until every shard is where it belongs, every heal queue is empty and every replica is in sync."""
        return self.wait(lambda said: said["health"] == "ok", "the cluster is whole")

    def settled(self) -> None:
        """Until it is whole, and nothing waits in an outbox or to be let go of."""
        self.wait(
            lambda said: said["outbox"] == 0 and said["health"] == "ok", "it is whole, and the outboxes are empty"
        )

    def at_rest(self) -> tuple[ClusterMap, dict[str, Path]]:
        """Once all is done, freed and audited: the map, and the directories of the stores."""
        self.wait(lambda said: said["outbox"] == 0, "the outboxes are empty")
        wait_until(lambda: not self.audited(), "nothing is left to audit")
        self.settled()
        return self.map(), {line["store"]: self.directory / name for name, line in self.lines.items()}

    def audited(self) -> int:
        """Orphans that the auditors of all nodes found and dropped."""
        found = [self.ask("POST", "/audit", query="age_s=-5", node=name) for name in self.lines]
        return sum(one["orphan_blobs"] + one["orphan_references"] for one in found)

    def map(self) -> ClusterMap:
        async def read() -> ClusterMap:
            opened = open_coordinator(self.coordinator)
            try:
                return clustermap.decode((await opened.read(DOCUMENT))[0])
            finally:
                await opened.close()

        return asyncio.run(read())


def cluster_of(**options: Any) -> Any:
    """A fixture: a cluster of a test's own, which serves."""

    @pytest.fixture
    def cluster(tmp_path: Path) -> Iterator[DevCluster]:
        made = DevCluster(tmp_path / "dev", **options)
        try:
            yield made.start()
        finally:
            made.stop()

    return cluster

"""`python -m bench.cluster`: what a cluster of six nodes (4+2, 32 partitions) on one machine costs at rest, and
does when a node dies, stops, or loses its disk.

    python -m bench.cluster [--gib 1]

At rest: processor time of each node while nobody asks for anything. Failover: clients put and get small objects through
another node while one is killed (and, apart, told to stop): the longest time that any request took, and how many
failed. Rebuild: a node's disk is emptied; how fast its shards are made again, and what GETs of 4 KiB through another
node feel of it. Figures are the nodes' own metrics.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bench.load import Report, Work, command, commit, machine, run
from bench.peers import ACCESS, SECRET, Peer, start_cluster
from s4.cli.admin_client import AdminClient, AdminError

GETS = Work("get", 4096, 8, 500)


def act(directory: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "s4.cli", "dev", str(directory), *words], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def admins(directory: Path) -> list[str]:
    return [one["admin"] for one in act(directory, "status")["nodes"]]


def metric(directory: Path, name: str, but: str) -> float:
    """A metric's sum over nodes and labels, but for one node, which starts again."""
    total = 0.0
    for admin in [one["admin"] for one in act(directory, "status")["nodes"] if one["node"] != but]:
        text = urllib.request.urlopen(f"{admin}/metrics", timeout=30).read().decode()
        total += sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))
    return total


def wait_whole(directory: Path) -> float:
    """Until the cluster says that it is; the seconds that took."""
    started = time.monotonic()
    client = AdminClient(admins(directory)[0], ACCESS, SECRET, "us-east-1")
    while True:
        try:
            if next(client.call("GET", "/status"))["health"] == "ok":
                return time.monotonic() - started
        except AdminError:
            pass
        time.sleep(0.1)


class Calls:
    """Clients that put and get all the time: the slowest call, and failures."""

    def __init__(self, endpoint: str) -> None:
        self.slowest = {"PUT": 0.0, "GET": 0.0}
        self.count, self.failed, self.ended = 0, 0, False
        self._endpoint = endpoint
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(8)]

    def __enter__(self) -> Calls:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=60)
        client = boto3.client(
            "s3",
            endpoint_url=self._endpoint,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=config,
        )
        turn = 0
        while not self.ended:
            turn += 1
            key = f"failover/{number}/{turn % 64}"
            for kind, call in (
                ("PUT", lambda key=key: client.put_object(Bucket="s3load", Key=key, Body=b"x" * 1024)),
                ("GET", lambda key=key: client.get_object(Bucket="s3load", Key=key)["Body"].read()),
            ):
                started = time.monotonic()
                try:
                    call()
                except (BotoCoreError, ClientError):
                    self.failed += 1
                self.slowest[kind] = max(self.slowest[kind], time.monotonic() - started)
                self.count += 1


def run_s(pid: int) -> float:
    """Seconds of a processor that a process took so far. Ticks, as spent_s has, miss most of who runs briefly."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def at_rest(directory: Path, seconds: float = 20.0) -> None:
    pids = [one["pid"] for one in act(directory, "status")["nodes"]]
    time.sleep(60)  # what a start brings: each node looks whether shards of others are left on its disk
    before, started = [run_s(pid) for pid in pids], time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - started
    parts = [100 * (run_s(pid) - old) / took for pid, old in zip(pids, before, strict=True)]
    print(f"- at rest a node takes {min(parts):.2f} to {max(parts):.2f} % of a core", flush=True)


def failover(directory: Path, peer: Peer) -> None:
    for how, said in (("kill", "killed"), ("stop", "told to stop")):
        for node in ("node-3", "node-5"):
            with Calls(peer.endpoint) as calls:
                time.sleep(2)  # first calls, which do not count
                calls.slowest = {"PUT": 0.0, "GET": 0.0}
                act(directory, how, node)
                time.sleep(8)  # longer than others take to lead
            print(
                f"- {node} {said}: slowest PUT {calls.slowest['PUT']:.2f} s, slowest GET {calls.slowest['GET']:.2f} s, {calls.failed} of {calls.count} calls failed",
                flush=True,
            )
            act(directory, "start", node)
            wait_whole(directory)


def rebuild(directory: Path, peer: Peer, gib: float) -> None:
    run(peer, Work("get", 16 << 20, 2, int(gib * 64)), 0.1)
    before = run(peer, GETS, 5)
    for node, busy in (("node-4", False), ("node-6", True)):
        made, read = (
            metric(directory, "s4_healed_bytes_total", node),
            metric(directory, "s4_heal_read_bytes_total", node),
        )
        during: list[Report] = []
        thread = threading.Thread(target=lambda during=during: during.append(run(peer, GETS, 5)))
        started = time.monotonic()
        act(directory, "wipe", node)
        if busy:
            thread.start()
        wait_whole(directory)
        took = time.monotonic() - started
        made, read = (
            metric(directory, "s4_healed_bytes_total", node) - made,
            metric(directory, "s4_heal_read_bytes_total", node) - read,
        )
        print(
            f"- rebuild {'beside GETs' if busy else 'alone'}: {made / 1e6:.0f} MB made from {read / 1e6:.0f} MB in {took:.1f} s, the node's start with it: {read / 1e6 / took:.0f} MB/s of source, {made / 1e6 / took:.0f} MB/s made",
            flush=True,
        )
        if busy:
            thread.join()
            after = during[0]
            print(
                f"- GET 4 KiB (8): p50 {before.p50_ms:.1f} ms before, {after.p50_ms:.1f} ms beside the rebuild; "
                f"p99 {before.p99_ms:.1f} and {after.p99_ms:.1f} ms"
            )


def main() -> None:
    parser = command("cluster", __doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="data to put before the rebuild")
    arguments = parser.parse_args()
    print(f"Commit {commit()}, {machine()}.\n")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "dev"
        peer = start_cluster(directory, 6)
        try:
            at_rest(directory)
            run(peer, Work("put", 1024, 4), 1)
            failover(directory, peer)
            rebuild(directory, peer, arguments.gib)
        finally:
            peer.stop()


if __name__ == "__main__":
    main()

"""What faults strike: a server of six drives, and a cluster of six nodes with etcd, as real processes.

A world has one method for each kind of fault. It strikes once, somewhere, lets the load go on under it where anything
can be answered at all, and takes the fault away. `whole` then waits until nothing is missing any more, and `judged`
ends the world and has the independent checker read what it left.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Protocol

from checker import check, check_cluster
from cluster.dev import DevCluster
from faults.load import BUCKET, Load
from faults.network import Network, in_network
from process import ServerProcess, injected, make_client, wait_until
from s4.cli.admin_client import AdminError
from server.test_drives import whole

READS = "preadv,preadv2,pread64"
FAULTS = ("kill", "pause", "cut", "unreadable")
CALLS = 25  # that the load does under a fault, and after it


class World(Protocol):
    ways: list[Any]

    def start(self) -> None: ...

    def kill(self, chosen: random.Random, load: Load) -> str: ...

    def pause(self, chosen: random.Random, load: Load) -> str: ...

    def cut(self, chosen: random.Random, load: Load) -> str: ...

    def unreadable(self, chosen: random.Random, load: Load) -> str: ...

    def whole(self) -> None: ...

    def judged(self) -> list[str]: ...

    def end(self) -> None: ...


def every_read_of(directory: Path) -> list[str]:
    """strace's options for the files that are there now."""
    return [option for path in directory.rglob("*") if path.is_file() for option in ("-P", str(path))]


def how_often(chosen: random.Random) -> str:
    return chosen.choice(("error=EIO", "error=EIO:when=1+2", "error=EIO:when=5+"))


class Drives:
    """`s4 server` over six drives, with two gateways beside it."""

    def __init__(self, directory: Path, fault: str) -> None:
        self.server = ServerProcess(
            directory / "data", "--reserve", "64MiB", "--workers", "2", "--volume-size", "8MiB", drives=6
        )
        self.ways: list[Any] = []
        self._failed = False  # a drive, to be read

    def start(self) -> None:
        self.server.start()
        self.ways = [make_client(self.server.endpoint, read_timeout=20, connect_timeout=5) for _ in range(4)]
        self.ways[0].create_bucket(Bucket=BUCKET)

    @property
    def _pid(self) -> int:
        assert self.server.process is not None
        return self.server.process.pid

    def kill(self, chosen: random.Random, load: Load) -> str:
        self.server.kill()
        time.sleep(chosen.choice((0.0, 0.0, 1.0)))  # it is away for so long
        self.server.start()
        return "kill"

    def pause(self, chosen: random.Random, load: Load) -> str:
        """The server, or one of its gateways, for longer than gateways hold leases."""
        gateways = subprocess.run(
            ["pgrep", "-P", str(self._pid), "-f", "s4.server.worker"], capture_output=True, text=True, check=True
        ).stdout.split()
        target, long_s = chosen.choice([self._pid, *map(int, gateways)]), chosen.uniform(2.5, 6.0)
        os.kill(target, signal.SIGSTOP)
        time.sleep(long_s)
        os.kill(target, signal.SIGCONT)
        return f"pause of {'the server' if target == self._pid else 'a gateway'} for {long_s:.1f} s"

    def cut(self, chosen: random.Random, load: Load) -> str:
        """A drive, or two, are taken away while it runs; sooner or later it is started without them, and later with
        them. Never two of the three copies of the metadata: then nothing is written (R9), and the load soon has
        nothing to ask."""
        away = chosen.sample(self.server.directories, chosen.choice((1, 1, 2)))
        while sum((one / "meta").exists() for one in away) > 1:
            away = chosen.sample(self.server.directories, 2)
        unplugged = [(one, one.parent / f"unplugged-{one.name}") for one in away]
        if first := chosen.random() < 0.5:
            self.server.kill()
        for one, other in unplugged:
            one.rename(other)
        if not first:
            load.wait_for(CALLS)
            self.server.kill()
        self.server.start()
        load.wait_for(CALLS)
        self.server.stop()
        for one, other in unplugged:
            if one.exists():
                raise AssertionError(f"{one} was made anew, though the drive was only away: {list(one.iterdir())}")
            other.rename(one)
        self.server.start()
        return f"{[one.name for one in away]} were away"

    def unreadable(self, chosen: random.Random, load: Load) -> str:
        """A drive that fails too often is put aside, sooner or later, until somebody starts the server anew."""
        self._failed = True
        drive = chosen.choice(self.server.directories)
        with injected(self._pid, READS, how := how_often(chosen), *every_read_of(drive)):
            load.wait_for(CALLS)
            load.read_back(newest=60)
            load.wait_for(CALLS)
        return f"{drive.name}: {how}"

    def _status(self) -> Any:
        found: list[Any] = []

        def ask() -> bool:
            with contextlib.suppress(AdminError):  # it starts again by itself
                found.append(self.server.ask("GET", "/status"))
            return bool(found)

        wait_until(ask, "its status")
        return found[0]

    def whole(self) -> None:
        def is_whole() -> bool:
            if self._failed and any(one["state"] == "away" for one in self._status()["drives"]):
                assert self.server.stop() == 0
                self.server.start()
            return whole(self.server)

        self._status()
        wait_until(is_whole, "every drive is there and whole")

    def judged(self) -> list[str]:
        def left() -> int:
            found = self.server.ask("POST", "/audit", "age_s=-5")
            return int(found["orphan_blobs"] + found["orphan_references"])

        wait_until(lambda: not left(), "nothing is left to audit")
        self.server.settle()
        self.whole()
        self.server.ask("POST", "/scrub", "deep=1")  # one that a restart cut off goes on, and tells what it found then
        found = self.server.ask("POST", "/scrub", "deep=1")
        assert self.server.stop() == 0
        return [f"the scrub found {found}"] * bool(found["damaged"] or found["unhealable"]) + check(
            self.server.directories
        )

    def end(self) -> None:
        if self.server.process is not None:
            self.server.kill()


class Nodes:
    """Nodes with etcd; `cut` needs each in a namespace of its own."""

    def __init__(self, directory: Path, fault: str, nodes: int = 6, erasure: str = "4+2", partitions: int = 8) -> None:
        self._stack = contextlib.ExitStack()
        environment = {"S4_LIMIT_GHOST_S": "5"}
        if fault == "cut":
            self._network = self._stack.enter_context(Network([f"node-{number + 1}" for number in range(nodes)]))
            self.cluster = in_network(self._network, directory / "dev", erasure, partitions, environment)
        else:
            self.cluster = DevCluster(
                directory / "dev", nodes=nodes, erasure=erasure, partitions=partitions, environment=environment
            )
        self.ways: list[Any] = []

    def start(self) -> None:
        self.cluster.start()
        self._stack.callback(self.cluster.stop)
        self.ways = [self.cluster.client(name, read_timeout=12, attempts=1) for name in self.cluster.lines]
        self.ways[0].create_bucket(Bucket=BUCKET)
        self.whole()

    def _one(self, chosen: random.Random) -> str:
        return chosen.choice(list(self.cluster.lines))

    def kill(self, chosen: random.Random, load: Load) -> str:
        node = self._one(chosen)
        self.cluster.act("kill", node)
        if under := chosen.random() < 0.7:
            load.wait_for(CALLS)
        self.cluster.act("start", node)
        return f"kill of {node}{', the load went on without it' if under else ''}"

    def pause(self, chosen: random.Random, load: Load) -> str:
        """For longer than its leases."""
        node, long_s = self._one(chosen), chosen.uniform(3.5, 8.0)
        self.cluster.signal(node, signal.SIGSTOP)
        time.sleep(long_s)
        load.wait_for(CALLS)
        self.cluster.signal(node, signal.SIGCONT)
        return f"pause of {node} for {long_s:.1f} s at least"

    def cut(self, chosen: random.Random, load: Load) -> str:
        node, long_s = self._one(chosen), chosen.uniform(1.0, 8.0)
        with self._network.cut(node, chosen) as way:
            time.sleep(long_s)
            load.wait_for(CALLS)
        return f"{node} cut off, {way}, for {long_s:.1f} s at least"

    def unreadable(self, chosen: random.Random, load: Load) -> str:
        node = self._one(chosen)
        with injected(
            self.cluster.lines[node]["pid"],
            READS,
            how := how_often(chosen),
            *every_read_of(self.cluster.directory / node),
        ):
            load.wait_for(CALLS)
            load.read_back(newest=60)
            load.wait_for(CALLS)
        if any("fails to read" in reason for reason in self.cluster.status()["reasons"]):  # its disk is well again
            self.cluster.act("stop", node)
            self.cluster.act("start", node)
        return f"{node}: {how}"

    def whole(self) -> None:
        self.cluster.wait_whole()

    def judged(self) -> list[str]:
        current, stores = self.cluster.at_rest()
        self.end()
        return check_cluster(current, stores)

    def end(self) -> None:
        self._stack.close()

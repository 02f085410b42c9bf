"""Replication with nothing made up: three processes with LevelDB, TCP and TLS, and etcd, under kill -9, pauses, cut
links and restarts of the coordinator. Histories are judged for linearizability; at the end all replicas are equal."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from addresses import free_ports
from cluster.etcd_process import EtcdCluster, needs_etcd
from s4.cluster.etcd import EtcdCoordinator
from s4.cluster.messages import Config, Document, Plan, encode_document
from s4.crypto.authority import Authority
from sim.linear import FOREVER, Call, is_linearizable
from tiers import amount

PARTITIONS = 4
STORES = ("a" * 32, "b" * 32, "c" * 32)
KEYS = 12  # at a time: after each fault others, so that no history is too long to be judged
PATIENCE_S = 6.0


class Cluster:
    """Three register processes and an etcd."""

    def __init__(self, directory: Path, *, stale: bool = False) -> None:
        self.directory, self.stale = directory, stale
        (directory / "etcd").mkdir()
        self.etcd = EtcdCluster(directory / "etcd")
        Authority(directory / "trust").issue("node")
        host = self.etcd.host
        ports = free_ports(2 * len(STORES), host)
        self.addresses = {store: (host, ports[number]) for number, store in enumerate(STORES)}
        self.http = {store: f"http://{host}:{ports[len(STORES) + number]}" for number, store in enumerate(STORES)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    async def begin(self) -> None:
        coordinator = EtcdCoordinator(self.etcd.endpoints, "s4/register")
        for partition in range(PARTITIONS):
            order = STORES[partition % 3 :] + STORES[: partition % 3]
            document = Document(Config(1, order[0], order), Plan(order, 2))
            await coordinator.replace(f"partition/{partition}", encode_document(document), 0)
        await coordinator.close()
        for store in STORES:
            self.start(store)

    def start(self, store: str) -> None:
        settings = {
            "store": store,
            "directory": str(self.directory / store),
            "partitions": PARTITIONS,
            "trust": str(self.directory / "trust"),
            "addresses": self.addresses,
            "etcd": self.etcd.endpoints,
            "http": [self.etcd.host, int(self.http[store].rpartition(":")[2])],
            "stale": self.stale,
        }
        with (self.directory / f"{store[0]}.log").open("ab") as log:
            self.processes[store] = subprocess.Popen(
                [sys.executable, "-m", "cluster.register", json.dumps(settings)],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[1],
            )

    def kill(self, store: str) -> None:
        self.processes[store].kill()
        self.processes[store].wait(10)

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)
        self.etcd.stop()


class Clients:
    """Writers and readers; every call is kept with its times."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster, self.random = cluster, random.Random(seed)
        self.history: dict[str, list[Call]] = defaultdict(list)
        self.round = 0
        self.likely: dict[int, str] = {}
        self.count = 0
        self.ended = False

    def answered(self) -> int:
        return sum(call.end != FOREVER for calls in self.history.values() for call in calls)

    async def work(self, session: aiohttp.ClientSession) -> None:
        while not self.ended:
            key = f"key-{self.round}-{self.random.randrange(KEYS)}"
            kind = self.random.choices(("put", "create", "delete", "get"), (3, 2, 1, 4))[0]
            self.count += 1
            named, value, begin = f"c{self.count}", f"v{self.count}", time.monotonic()
            result = await self.ask(session, named, kind, key, value, begin)
            if result is None:
                self.history[key].append(Call(kind, value, begin, FOREVER))
            else:
                self.history[key].append(Call(kind, value, begin, time.monotonic(), result[0]))
            await asyncio.sleep(self.random.uniform(0.0, 0.05))  # calls meet in other ways each time

    async def ask(
        self, session: aiohttp.ClientSession, named: str, kind: str, key: str, value: str, begin: float
    ) -> list[Any] | None:
        """[result] of the command, tried again under its id; None where that stayed unknown."""
        partition, attempt = zlib.crc32(key.encode()) % PARTITIONS, 0
        while time.monotonic() - begin < PATIENCE_S:
            attempt += 1
            store = self.likely.get(partition) or self.random.choice(STORES)
            told = {"id": named, "attempt": attempt, "kind": kind, "key": key, "value": value}
            try:
                async with session.post(
                    f"{self.cluster.http[store]}/do", json=told, timeout=aiohttp.ClientTimeout(1.0)
                ) as answer:
                    found = await answer.json()
            except (aiohttp.ClientError, TimeoutError, OSError):
                found = {}
            if "result" in found:
                self.likely[partition] = store
                return [found["result"]]
            self.likely.pop(partition, None)
            await asyncio.sleep(0.03)  # before another store is asked
        return None


async def states(cluster: Cluster, session: aiohttp.ClientSession) -> dict[str, Any]:
    found = {}
    for store, url in cluster.http.items():
        try:
            async with session.get(f"{url}/state", timeout=aiohttp.ClientTimeout(2)) as answer:
                found[store] = await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            found[store] = None
    return found


async def until(condition: Callable[[], Awaitable[Any]], what: str, limit_s: float = 300.0) -> None:
    deadline = time.monotonic() + limit_s
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never: {what}")
        await asyncio.sleep(0.1)


def whole(found: dict[str, Any]) -> bool:
    """Every replica in sync, nothing pending, all rows equal, one primary that serves."""
    if any(one is None for one in found.values()):
        return False
    for partition in range(PARTITIONS):
        ones = [found[store][partition] for store in STORES]
        if any(len(one["in_sync"]) != 3 or one["commit"] != one["last"] for one in ones):
            return False
        if len({json.dumps(one["rows"]) for one in ones}) != 1 or sum(one["serves"] for one in ones) != 1:
            return False
    return True


def short(found: dict[str, Any]) -> dict[str, Any]:
    """States without their rows."""
    return {
        store[0]: ones
        and [
            {name: value for name, value in one.items() if name != "rows"}
            | {"in_sync": [store[0] for store in one["in_sync"]]}
            for one in ones
        ]
        for store, ones in found.items()
    }


async def trouble(
    cluster: Cluster, session: aiohttp.ClientSession, clients: Clients, faults: int, chosen: random.Random
) -> list[str]:
    """One fault after the other, with calls answered in between; returns what was done."""
    done: list[str] = []

    async def goes_on(answered: int) -> bool:
        return clients.answered() > answered + 20

    for _ in range(faults):
        store, kind = chosen.choice(STORES), chosen.choice(("kill", "kill", "pause", "cut", "coordinator"))
        done.append(f"{kind} {store[0]}")
        if kind == "kill":
            cluster.kill(store)
            await asyncio.sleep(chosen.uniform(0.1, 2.0))  # it is away for so long, as below
            cluster.start(store)
        elif kind == "pause":
            cluster.processes[store].send_signal(signal.SIGSTOP)
            await asyncio.sleep(chosen.uniform(0.3, 3.0))
            cluster.processes[store].send_signal(signal.SIGCONT)
        elif kind == "cut":
            others = [one for one in STORES if one != store]
            for away in ([*others, "etcd"] if chosen.random() < 0.6 else others, []):
                try:
                    async with session.post(f"{cluster.http[store]}/cut", json=away, timeout=aiohttp.ClientTimeout(2)):
                        pass
                except (aiohttp.ClientError, TimeoutError, OSError):
                    break
                await asyncio.sleep(chosen.uniform(0.5, 3.0) if away else 0)
        else:
            cluster.etcd.kill(0)
            await asyncio.sleep(chosen.uniform(0.1, 2.0))
            cluster.etcd.start(0)
        await until(partial(goes_on, clients.answered()), f"calls are answered after {done[-1]}")
        clients.round += 1
    return done


async def histories(cluster: Cluster, seed: int, faults: int) -> tuple[dict[str, list[Call]], list[str]]:
    """What clients saw while there was trouble, and what it was; all replicas have come together after it."""

    async def all_whole() -> bool:
        return whole(await states(cluster, session))

    await cluster.begin()
    async with aiohttp.ClientSession() as session:
        await until(all_whole, "all partitions serve")
        clients = Clients(cluster, seed)
        working = [asyncio.create_task(clients.work(session)) for _ in range(8)]
        done = await trouble(cluster, session, clients, faults, random.Random(seed))
        clients.ended = True
        await asyncio.gather(*working)
        try:
            await until(all_whole, "all replicas came together")
        except AssertionError as never:
            raise AssertionError(f"after {done}: {short(await states(cluster, session))}") from never
        alarms = [one["alarm"] for found in (await states(cluster, session)).values() for one in found if one["alarm"]]
        assert not alarms
    return clients.history, done


@needs_etcd
def test_histories_of_real_processes_are_linearizable(tmp_path: Path) -> None:
    """S4_SEED and S4_FAULTS search elsewhere and longer."""
    seed = int(os.environ.get("S4_SEED", "1"))
    cluster = Cluster(tmp_path)
    try:
        history, done = asyncio.run(histories(cluster, seed, amount("S4_FAULTS", 8, 100)))
    finally:
        cluster.stop()
    assert any("kill" in one for one in done)
    for key, calls in history.items():
        assert is_linearizable(calls), f"{key}, after {done}: {sorted(calls, key=lambda call: call.begin)}"


@needs_etcd
def test_a_planted_stale_read_is_caught(tmp_path: Path) -> None:
    """The test of the test: reads that any replica answers from what it happens to have. On a busy machine a few
    faults may meet too few such reads: then there are more."""
    for seed in range(10, 20):
        directory = tmp_path / str(seed)
        directory.mkdir()
        cluster = Cluster(directory, stale=True)
        try:
            history, _ = asyncio.run(histories(cluster, seed, 5))
        finally:
            cluster.stop()
        if not all(is_linearizable(calls) for calls in history.values()):
            return
    raise AssertionError("ten rounds of faults, and no stale read was seen")

"""Six nodes, 4+2, as real processes: what may be lost, stopped and changed while clients write and read."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from cluster.dev import DevCluster
from cluster.etcd_process import needs_etcd
from process import Crew, wait_until
from tiers import SOAK, amount

pytestmark = needs_etcd

SIZES = (10, 5_000, 40_000, 300_000, 2_500_000)  # the last has three stripes


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    made = DevCluster(tmp_path_factory.mktemp("six") / "dev")
    try:
        made.start().client("node-1").create_bucket(Bucket="bucket")
        yield made
    finally:
        made.stop()


@pytest.fixture
def cluster(six: DevCluster) -> Iterator[DevCluster]:
    """The six nodes, which each test leaves whole, but for nodes that it killed: these are whole again once they are
    back."""
    yield six
    for name in names(six):
        if not six.alive(name):
            six.act("start", name)
    six.wait_whole()


def fill(client: Any, count: int, seed: int, prefix: str = "o") -> dict[str, bytes]:
    """Objects of all sizes, some with the same content."""
    chosen = random.Random(seed)
    kept: dict[str, bytes] = {}
    for number in range(count):
        body = kept[f"{prefix}/{number - 5}"] if number % 10 == 9 else chosen.randbytes(SIZES[number % len(SIZES)])
        client.put_object(Bucket="bucket", Key=f"{prefix}/{number}", Body=body)
        kept[f"{prefix}/{number}"] = body
    return kept


def check(client: Any, kept: dict[str, bytes]) -> None:
    for key, body in kept.items():
        got = client.get_object(Bucket="bucket", Key=key)["Body"].read()
        assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest(), key


def names(cluster: DevCluster) -> list[str]:
    return list(cluster.lines)


def test_any_two_stores_wiped_at_once(cluster: DevCluster) -> None:
    kept = fill(cluster.client("node-1"), amount("S4_OBJECTS", 20, 40), 1)
    cluster.wait_whole()
    chosen = random.Random(2)
    for round_number in range(amount("S4_WIPES", 1, 4)):
        lost = chosen.sample(names(cluster), 2)
        cluster.wipe(*lost)
        reader = next(name for name in names(cluster) if name not in lost)
        check(cluster.client(reader), kept)
        cluster.wait(lambda said: "writes are refused" not in str(said["reasons"]), "five of six stores take shards")
        kept |= fill(cluster.client(lost[0]), 10, 10 + round_number, f"r{round_number}")
        cluster.wait_whole()


def test_any_two_stores_away_at_once_under_load(cluster: DevCluster) -> None:
    """All that was acknowledged is read, what was written last, too: the last of three copies of the metadata cannot
    tell whether others had it (R9). After the test above it tells, too, that what was made again is really there."""
    kept = fill(cluster.client("node-5"), 10, 7, "away")
    cluster.wait_whole()
    with Load(cluster, ["node-5", "node-6"], writers=6) as load:
        load.wait_for(200)
        for node in names(cluster)[:2]:
            cluster.act("kill", node)
    check(cluster.client("node-5"), kept | load.kept)


_loads = itertools.count(1)
PACE_S = 0.05  # between two calls of a client: what is tested is what happens under load, not how much of it fits


class Load(Crew):
    """Clients that write and read all the time, and note every failure with its time."""

    def __init__(self, cluster: DevCluster, through: list[str], writers: int = 2, readers: int = 2) -> None:
        write, read = (
            [partial(one, number) for number in range(count)]
            for one, count in ((self._write, writers), (self._read, readers))
        )
        super().__init__(*write, *read)
        self.cluster, self.through, self.name = cluster, through, f"load-{next(_loads)}"
        self.kept: dict[str, bytes] = {}
        self.failures: list[tuple[float, str, str]] = []
        self.done: list[tuple[float, str]] = []
        self.slowest = 0.0
        self._lock = threading.Lock()

    def _call(self, kind: str, call: Any) -> Any:
        started = time.monotonic()
        try:
            found = call()
        except (BotoCoreError, ClientError, OSError) as error:
            self.failures.append((started, kind, repr(error)))
            time.sleep(PACE_S)
            return None
        self.done.append((started, kind))
        self.slowest = max(self.slowest, time.monotonic() - started)
        time.sleep(PACE_S)
        return found

    def _write(self, number: int) -> None:
        client, chosen, count = self.cluster.client(self.through[number % len(self.through)]), random.Random(number), 0
        while not self.ended:
            count += 1
            key, body = f"{self.name}/{number}/{count}", chosen.randbytes(chosen.choice((100, 6000, 200_000)))
            if self._call("put", lambda key=key, body=body: client.put_object(Bucket="bucket", Key=key, Body=body)):
                with self._lock:
                    self.kept[key] = body

    def _read(self, number: int) -> None:
        client, chosen = (
            self.cluster.client(self.through[(number + 1) % len(self.through)]),
            random.Random(100 + number),
        )
        while not self.ended:
            with self._lock:
                known = list(self.kept)
            if not known:
                time.sleep(PACE_S)  # until something is written
                continue
            key = chosen.choice(known)
            got = self._call("get", lambda key=key: client.get_object(Bucket="bucket", Key=key)["Body"].read())
            assert got is None or got == self.kept[key], key

    def wait_for(self, count: int) -> None:
        start = len(self.done)
        wait_until(lambda: len(self.done) >= start + count, f"{count} more calls")


def test_a_node_dies_under_load(cluster: DevCluster) -> None:
    alive = [name for name in names(cluster) if name != "node-3"]
    with Load(cluster, alive) as load:
        load.wait_for(200)
        store = cluster.lines["node-3"]["store"]
        cluster.act("kill", "node-3")
        wait_until(
            lambda: all(store != one.config.primary for one in cluster.map().partitions), "others lead what it led", 0.3
        )
        cluster.wait(lambda said: said["health"] != "down", "they serve it")
        failed_over = time.monotonic()
        load.wait_for(200)
        cluster.act("start", "node-3")
        cluster.wait_whole()
    late = [one for one in load.failures if one[0] > failed_over]
    assert not late, late[:5]
    assert not [one for one in load.failures if one[1] == "get"], load.failures[:5]
    assert any(kind == "put" and failed_over < when for when, kind in load.done)
    check(cluster.client("node-3"), load.kept)


def test_nodes_are_restarted_one_after_the_other(cluster: DevCluster) -> None:
    """As an upgrade does it: a node that is told to stop hands its partitions over, and no request fails."""
    with Load(cluster, ["node-1"]) as load:
        load.wait_for(50)
        for node in names(cluster)[1 : amount("S4_RESTARTS", 2, 5) + 1]:
            wait_until(
                lambda node=node: cluster.ask("GET", "/cluster/safe-to-stop", query=f"store={node}")["safe"],
                f"{node} may be stopped",
            )
            cluster.act("stop", node)
            load.wait_for(100)
            cluster.act("start", node)
        cluster.wait_whole()
    assert not load.failures, load.failures[:5]
    check(cluster.client("node-3"), load.kept)


def test_membership_changes_while_nodes_die(tmp_path: Path) -> None:
    """Six nodes and two more in the soak; a smaller cluster, of the same kind, otherwise."""
    nodes, erasure = (8, "4+2") if SOAK else (5, "2+1")
    last = f"node-{nodes}"
    cluster = DevCluster(tmp_path / "dev", nodes=nodes, erasure=erasure)
    try:
        cluster.start()
        client = cluster.client("node-1")
        client.create_bucket(Bucket="bucket")
        kept = fill(client, amount("S4_OBJECTS", 20, 40), 3)
        cluster.wait_whole()
        with Load(cluster, ["node-1", "node-2"]) as load:
            cluster.ask("POST", "/cluster/drain", {"stores": [last]})
            for node in ("node-4", last, "node-3"):
                load.wait_for(50)
                cluster.act("kill", node)
                load.wait_for(20)
                cluster.act("start", node)
            said = cluster.wait_whole()
            drained = next(one for one in said["stores"] if one["node"] == last)
            assert (drained["state"], drained["positions"], drained["copies"]) == ("draining", 0, 0)
            cluster.ask("POST", "/cluster/add", {"stores": [last]})
            cluster.act("kill", "node-4")
            load.wait_for(50)
            cluster.act("start", "node-4")
            said = cluster.wait_whole()
            assert next(one for one in said["stores"] if one["node"] == last)["positions"] > 0
        check(cluster.client("node-2"), kept | load.kept)
    finally:
        cluster.stop()


def test_a_full_disk_on_one_node(cluster: DevCluster) -> None:
    """The others take what it cannot; what it lacks is made once there is room."""
    client = cluster.client("node-1")
    kept = fill(client, 10, 4)
    free = next(one["free_bytes"] for one in cluster.status()["stores"] if one["node"] == "node-2")
    reserve(cluster, "node-2", str(free * 5 // 4))  # below it for data; rows may use half of it
    kept |= fill(client, 20, 5, "full")
    assert cluster.status()["heals"] > 0
    for node in names(cluster):
        check(cluster.client(node), {key: kept[key] for key in list(kept)[-5:]})
    client.delete_object(Bucket="bucket", Key="o/3")
    del kept["o/3"]
    reserve(cluster, "node-2", "64MiB")
    cluster.wait_whole()
    for node in ("node-4", "node-5"):
        cluster.act("kill", node)
    check(cluster.client("node-2"), kept)


def reserve(cluster: DevCluster, node: str, size: str) -> None:
    """Start a node anew with another reserve: with one above what its disk has free it takes no data."""
    cluster.act("stop", node)
    path = cluster.directory / "dev.json"
    plan = json.loads(path.read_text())
    plan["members"][node]["reserve"] = size
    path.write_text(json.dumps(plan))
    cluster.act("start", node)


def writes_go_on(acknowledged: dict[str, int], before: dict[str, int]) -> None:
    wait_until(lambda: all(acknowledged[key] > before[key] for key in before), "writes go on")


def test_a_node_that_stood_still_answers_nothing_old(cluster: DevCluster) -> None:
    """A counter is written through one node while others stand still for longer than their leases, one after the
    other; readers through those nodes never see less than what was acknowledged before they asked."""
    keys, ended = [f"counter-{number}" for number in range(8)], threading.Event()
    acknowledged, faults = dict.fromkeys(keys, 0), list[str]()

    def write() -> None:
        client, number = cluster.client("node-1"), 0
        while not ended.is_set():
            number += 1
            for key in keys:
                try:
                    client.put_object(Bucket="bucket", Key=key, Body=str(number).encode())
                except (BotoCoreError, ClientError):
                    continue
                acknowledged[key] = number
                time.sleep(PACE_S)

    def ask(node: str, client: Any, key: str) -> None:
        least = acknowledged[key]
        try:
            got = int(client.get_object(Bucket="bucket", Key=key)["Body"].read())
        except (BotoCoreError, ClientError):
            return
        if got < least:
            faults.append(f"{node} said {got} of {key} when {least} was acknowledged")

    def read(node: str) -> None:
        client, chosen = cluster.client(node), random.Random(node)
        while not ended.is_set():
            ask(node, client, chosen.choice(keys))
            time.sleep(PACE_S)

    threads = [
        threading.Thread(target=write),
        *(threading.Thread(target=read, args=(node,)) for node in ("node-2", "node-3", "node-4")),
    ]
    wait_for_first = threads[0]
    wait_for_first.start()
    wait_until(lambda: all(acknowledged.values()), "every counter was written")
    for thread in threads[1:]:
        thread.start()
    try:
        for node in ("node-2", "node-3", "node-4"):
            cluster.signal(node, signal.SIGSTOP)
            stopped = time.monotonic()
            writes_go_on(acknowledged, dict(acknowledged))
            wait_until(lambda stopped=stopped: time.monotonic() > stopped + 4, "leases have run out")
            late = [threading.Thread(target=ask, args=(node, cluster.client(node), key)) for key in keys * 3]
            for thread in late:  # these lie in its sockets when it goes on, before it hears that others lead now
                thread.start()
            sent = time.monotonic()
            wait_until(lambda sent=sent: time.monotonic() > sent + 1, "they were sent")
            cluster.signal(node, signal.SIGCONT)
            for thread in late:
                thread.join(60)
            cluster.wait_whole()
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert not faults, faults[:5]


def test_a_coordinator_that_does_not_answer_is_seen(cluster: DevCluster) -> None:
    """Nothing fails without it, and so nothing but the status, the metric and the exit status tells."""
    cluster.wait_whole()
    cluster.act("stop", "etcd")
    try:
        cluster.wait(
            lambda said: any(
                "the coordinator etcd://" in reason and "does not answer" in reason for reason in said["reasons"]
            ),
            "people are told",
        )
        assert cluster.ask("GET", "/status")["health"] == "degraded"
        cluster.client("node-2").list_buckets()
    finally:
        cluster.act("start", "etcd")
    cluster.wait_whole()

"""Histories of real S3 clients of a real cluster, under kill -9, pauses and restarts of the coordinator, are
linearizable for each key: with conditional writes, small objects in rows and larger ones in shards. S4_FAULTS says how
many.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from cluster.dev import DevCluster
from cluster.etcd_process import needs_etcd
from process import Crew, wait_until
from sim.linear import FOREVER, Call, is_linearizable
from tiers import amount

pytestmark = needs_etcd

FAULTS = amount("S4_FAULTS", 6, 100)
KEYS = 6  # at a time: after each fault others, so that no history is too long to be judged
PADDING = "." * 9000  # above what is kept in rows


class Clients(Crew):
    """Threads that write and read through all of some ways in, and note every call."""

    def __init__(self, ways: Sequence[Any], threads: int = 6) -> None:
        super().__init__(*(partial(self._work, number) for number in range(threads)))
        self.ways, self.count = ways, 0
        self.history: dict[str, list[Call]] = defaultdict(list)
        self.round = 0
        self._lock = threading.Lock()

    def answered(self) -> int:
        return sum(call.end != FOREVER for calls in list(self.history.values()) for call in list(calls))

    def judge(self, when: str) -> None:
        for key, calls in list(self.history.items()):
            assert is_linearizable(calls), f"{key} {when}: {sorted(calls, key=lambda call: call.begin)}"

    def _work(self, number: int) -> None:
        chosen = random.Random(number)
        while not self.ended:
            key, kind = (
                f"key-{self.round}-{chosen.randrange(KEYS)}",
                chosen.choices(("put", "create", "delete", "get"), (3, 2, 1, 4))[0],
            )
            with self._lock:
                self.count += 1
                value = f"v{self.count}"
            body, s3 = value + (PADDING if chosen.random() < 0.4 else ""), chosen.choice(self.ways)
            calls: dict[str, Callable[[], object]] = {
                "put": lambda s3=s3, key=key, body=body: s3.put_object(Bucket="bucket", Key=key, Body=body.encode()),
                "create": lambda s3=s3, key=key, body=body: s3.put_object(
                    Bucket="bucket", Key=key, Body=body.encode(), IfNoneMatch="*"
                ),
                "delete": lambda s3=s3, key=key: s3.delete_object(Bucket="bucket", Key=key),
                "get": lambda s3=s3, key=key: (
                    s3.get_object(Bucket="bucket", Key=key)["Body"].read().decode().rstrip(".")
                ),
            }
            begin = time.monotonic()
            end, result = self._call(kind, calls[kind])
            if end != FOREVER or kind != "get":
                self.history[key].append(Call(kind, value, begin, end, result))
            time.sleep(chosen.uniform(0.0, 0.1))  # so that calls of several clients meet in other ways each time

    def _call(self, kind: str, call: Callable[[], object]) -> tuple[float, object]:
        """(when it ended, its result). One whose outcome is not known may still happen."""
        try:
            result = call()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "NoSuchKey":
                return time.monotonic(), None
            if code == "PreconditionFailed":
                return time.monotonic(), False
            return FOREVER, None
        except (BotoCoreError, OSError):
            return FOREVER, None
        return time.monotonic(), result if kind == "get" else True


def trouble(cluster: DevCluster, clients: Clients) -> list[str]:
    """One fault after the other, a node or etcd at a time, with calls answered in between; what was done."""
    chosen, done = random.Random(7), list[str]()
    for _ in range(FAULTS):
        node, kind = chosen.choice(list(cluster.lines)), chosen.choice(("kill", "pause", "coordinator"))
        done.append(f"{kind} {node}")
        if kind == "kill":
            cluster.act("kill", node)
            time.sleep(chosen.uniform(0.1, 4.0))  # it is away for so long, as below
            cluster.act("start", node)
        elif kind == "pause":
            cluster.signal(node, signal.SIGSTOP)
            time.sleep(chosen.uniform(0.5, 5.0))
            cluster.signal(node, signal.SIGCONT)
        else:
            cluster.act("kill", "etcd")
            time.sleep(chosen.uniform(0.1, 2.0))
            cluster.act("start", "etcd")
        answered = clients.answered()
        wait_until(lambda answered=answered: clients.answered() > answered + 20, f"calls are answered after {done[-1]}")
        clients.round += 1
    return done


def test_histories_of_a_cluster_are_linearizable(tmp_path: Path) -> None:
    cluster = DevCluster(tmp_path / "dev", nodes=3, erasure="2+1", partitions=4)
    try:
        cluster.start().client("node-1").create_bucket(Bucket="bucket")
        with Clients([cluster.client(node, attempts=1) for node in cluster.lines]) as clients:
            done = trouble(cluster, clients)
        cluster.wait_whole()
    finally:
        cluster.stop()
    clients.judge(f"after {done}")

"""What a large cluster's plans cost, on paper: a map of so many hosts with so many disks each, made, joined by a host,
without one, and drained of one; with the time of a processor for each, and what the map and one plan of the operator take.

    python -m bench.hosts [--hosts 100] [--disks 12] [--partitions 256 4096] [--data 4] [--parity 2]

No server runs. The ShardMap is an object of the Kubernetes API: etcd takes 1.5 MiB of a request unless told otherwise.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable

from bench.load import command
from s4.cluster import clustermap, planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.kubernetes_map import split
from s4.cluster.placement import GONE, SERVING
from s4.cluster.status import ClusterStatus, StoreStatus
from s4_operator.models import ClusterSpec
from s4_operator.observed import Claim, Host, Observed, Pod
from s4_operator.plan import plan
from s4_operator.report import report
from s4_operator.state_models import ClusterState


def with_host(old: ClusterMap, host: int, disks: int) -> ClusterMap:
    for disk in range(disks):
        name = f"s4-node-{host * disks + disk}"
        store = hashlib.sha256(name.encode()).hexdigest()[:32]
        old = planner.registered(old, store, name, f"{name}.s4-nodes.s4.svc:9002", f"host-{host:03}.example.com", 1.0)
    return old


def on(made: ClusterMap, host: int) -> list[str]:
    return [store for store, one in made.stores.items() if one.domain == f"host-{host:03}.example.com"]


def timed(made: Callable[[], ClusterMap]) -> tuple[ClusterMap, float]:
    started = time.process_time()
    return made(), time.process_time() - started


def worst(made: ClusterMap) -> tuple[int, int]:
    """The most shards of a partition, and copies of its metadata, that a host has."""

    def most(stores: Iterable[str]) -> int:
        return max(Counter(made.stores[store].domain for store in stores).values())

    return max(most(one.wanted) for one in made.partitions), max(
        most(one.wanted[: made.replicas]) for one in made.partitions
    )


def seen(made: ClusterMap, disks: int) -> Observed:
    """The cluster at rest, as the operator sees it."""
    stores = [(name, one) for name, one in made.stores.items() if one.state != GONE]
    hosts = {one.domain: Host(one.domain) for _, one in stores}
    pods = [
        Pod(one.node, number, str(number), "ip", one.domain, True, "r", "s4:1")
        for number, (_, one) in enumerate(stores)
    ]
    claims = [
        Claim(f"data-{one.node}", number, str(number), f"pv{number}", one.domain)
        for number, (_, one) in enumerate(stores)
    ]
    states = [
        StoreStatus(name, one.node, SERVING, True, one.domain, one.address, "1", 0, 0, 0, 0, 0, 1 << 40, 1 << 40)
        for name, one in stores
    ]
    spec = ClusterSpec.model_validate({"nodes": len(stores), "storage": {"disksPerHost": disks}})
    status = ClusterStatus("c", "", made.count, "ok", [], False, 0, 0, 0, 1.0, states)
    said = {name: one.domain for name, one in made.stores.items()}
    return Observed(
        "s4",
        spec,
        ClusterState(),
        0.0,
        "s4:1",
        len(stores),
        "r",
        True,
        tuple(pods),
        tuple(claims),
        hosts,
        made,
        status,
        said=said,
    )


def row(what: str, made: ClusterMap, took_s: float, before: ClusterMap | None = None) -> None:
    moved = ""
    if before is not None:
        pairs = zip(before.partitions, made.partitions, strict=True)
        moved = str(sum(old != new for one, other in pairs for old, new in zip(one.wanted, other.wanted, strict=True)))
    shards, copies = worst(made)
    print(f"| {made.count} | {what} | {took_s:.2f} | {moved} | {shards}, {copies} |", flush=True)


def main() -> None:
    parser = command("hosts", __doc__)
    for name, value in (("hosts", 100), ("disks", 12), ("data", 4), ("parity", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--partitions", type=int, nargs="+", default=[256, 4096])
    told = parser.parse_args()
    print(
        "| partitions | plan | seconds of a processor | positions moved | most shards, copies on a host |\n|---|---|---|---|---|"
    )
    for count in told.partitions:
        empty = planner.new("c" * 32, told.data, told.parity, count)
        for host in range(told.hosts):
            empty = with_host(empty, host, told.disks)
        made, took_s = timed(lambda empty=empty: planner.added(empty, list(empty.stores)))
        row("made", made, took_s)
        joined = with_host(made, told.hosts, told.disks)
        more, took_s = timed(lambda joined=joined: planner.added(joined, on(joined, told.hosts)))
        row("a host joins", more, took_s, made)
        less, took_s = timed(lambda made=made: planner.drained(made, on(made, 7)))
        row("a host is drained", less, took_s, made)
        dead, took_s = timed(lambda made=made: planner.gone(made, on(made, 7)))
        row("a host is dead", dead, took_s, made)
        looked = seen(made, told.disks)
        started = time.process_time()
        report(looked, plan(looked), 1, None)
        round_s = time.process_time() - started
        spec, status = split(made, {}, {}, plans=True)
        size = len(json.dumps({"spec": spec, "status": status}, separators=(",", ":")))
        print(
            f"\n{count} partitions: a round of the operator {round_s:.2f} s; ShardMap {size:,} bytes, in etcd's form {len(clustermap.encode(made)):,}\n"
        )


if __name__ == "__main__":
    main()

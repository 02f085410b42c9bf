"""How a cluster is, from its map and from what its nodes say: for people, programs, and whoever wants to stop nodes.

Pure. A store that does not answer counts as down. `safe_to_stop` errs on the side of no: what is not known to be whole
is taken for not whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from s4.cluster.clustermap import STANDBY, ClusterMap
from s4.cluster.placement import GONE


class Said(msgspec.Struct, frozen=True):
    """What a store that answers said of itself, as far as it matters here. `led` are partitions that it serves."""

    led: Collection[int]
    heals: int
    outbox: int = 0
    version: str = ""
    free_bytes: int = 0
    total_bytes: int = 0
    used_bytes: int = 0
    filled: float = 1.0
    alarms: Collection[str] = ()


class StoreStatus(msgspec.Struct, frozen=True):
    """`positions` are those that it holds, `wanted` those that the plan gives it."""

    store: str
    node: str
    state: str
    up: bool
    domain: str
    address: str
    version: str
    primaries: int
    copies: int
    positions: int
    wanted: int
    used_bytes: int
    free_bytes: int
    total_bytes: int


class ClusterStatus(msgspec.Struct, frozen=True):
    """`health` is ok, degraded, at risk or down; `reasons` say why it is not ok."""

    cluster: str
    erasure: str
    partitions: int
    health: str
    reasons: list[str]
    frozen: bool
    moves: int
    heals: int
    outbox: int
    filled: float
    stores: list[StoreStatus]


def status(current: ClusterMap, said: Mapping[str, Said | None]) -> ClusterStatus:
    """The cluster at a glance. `said` has an entry for each store that is not gone; None where it does not answer."""
    up = {store for store, one in said.items() if one is not None}
    served = {partition for one in said.values() if one is not None for partition in one.led}
    heals = sum(one.heals for one in said.values() if one is not None)
    moves = sum(
        have != want for one in current.partitions for have, want in zip(one.config.members, one.wanted, strict=True)
    )
    worst, reasons = _health(current, up, served, heals, moves)
    alarms = [f"{store[:8]}: {alarm}" for store, one in said.items() if one is not None for alarm in one.alarms]
    if alarms:
        worst, reasons = ("degraded" if worst == "ok" else worst), reasons + alarms
    filled = min((one.filled for one in said.values() if one is not None), default=1.0)
    return ClusterStatus(
        current.cluster, f"{current.data}+{current.parity}", current.count, worst, reasons, current.freeze, moves, heals,
        sum(one.outbox for one in said.values() if one is not None), filled, _stores(current, said),
    )  # fmt: skip


def _health(current: ClusterMap, up: set[str], served: set[int], heals: int, moves: int) -> tuple[str, list[str]]:
    needed = current.data + (1 if current.parity > 1 else 0)
    counts: Counter[str] = Counter()
    for number, one in enumerate(current.partitions):
        config = one.config
        live = sum(store in up for store in config.members)
        counts["have no primary that serves"] += number not in served
        counts[f"have fewer than {current.data} of their shards' stores: objects cannot be read"] += live < current.data
        counts[f"have fewer than {needed} of their shards' stores: writes are refused"] += live < needed
        counts[f"have fewer than {current.minimum} copies of the metadata: writes are refused"] += (
            len(config.in_sync) < current.minimum
        )
        counts["have fewer copies of the metadata than they should"] += len(config.in_sync) < current.replicas
    names = list(counts)
    reasons = [f"{count} of {current.count} partitions {name}" for name, count in counts.items() if count]
    if not current.partitions:
        return "down", ["no stores were added yet: `s4 admin cluster add`"]
    down = [store for store, one in current.stores.items() if store not in up and one.state not in (GONE, STANDBY)]
    reasons += [f"{current.stores[store].node or store[:8]} does not answer" for store in down]
    if heals:
        reasons.append(f"{heals} shards wait to be made again")
    if moves:
        reasons.append(f"{moves} positions are on their way to where the plan wants them")
    if any(counts[name] for name in names[:2]):
        return "down", reasons
    if any(counts[name] for name in names[2:4]):
        return "at risk", reasons
    return ("degraded" if reasons else "ok"), reasons


def _stores(current: ClusterMap, said: Mapping[str, Said | None]) -> list[StoreStatus]:
    copies, positions, wanted = Counter[str](), Counter[str](), Counter[str]()
    for one in current.partitions:
        copies.update(one.config.in_sync)
        positions.update(store for store in one.config.members if store)
        wanted.update(one.wanted)
    listed = []
    for store, member in current.stores.items():
        if member.state == GONE and not positions[store]:
            continue
        told = said.get(store)
        known = told or Said((), 0)
        listed.append(StoreStatus(
            store, member.node, member.state, told is not None, member.domain, member.address, known.version, len(known.led),
            copies[store], positions[store], wanted[store], known.used_bytes, known.free_bytes, known.total_bytes,
        ))  # fmt: skip
    return sorted(listed, key=lambda one: (one.node, one.store))


def safe_to_stop(current: ClusterMap, said: Mapping[str, Said | None], stores: Collection[str]) -> list[str]:
    """Why these stores may not be stopped together now, as sentences; empty where they may.

    They may where everything stays readable and writable without them, and stays so until they are back.
    """
    left = {store for store, one in said.items() if one is not None} - set(stores)
    needed = current.data + (1 if current.parity > 1 else 0)
    copies = shards = moving = 0
    for one in current.partitions:
        config = one.config
        copies += sum(store in left for store in config.in_sync) < current.minimum
        shards += sum(store in left for store in config.members) < needed
        moving += bool(config.joining) and bool({config.joining, *config.members} & set(stores))
    reasons = []
    if copies:
        reasons.append(f"{copies} partitions would have fewer than {current.minimum} copies of their metadata in sync")
    if shards:
        reasons.append(f"{shards} partitions would have fewer than {needed} of their shards' stores")
    heals = sum(one.heals for one in said.values() if one is not None)
    if heals:
        reasons.append(f"{heals} shards wait to be made again")
    if moving:
        reasons.append(f"{moving} partitions that these stores hold are being moved or filled")
    return reasons

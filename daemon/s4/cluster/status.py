"""How a cluster is, from its map and from what its nodes say: for people, programs, and whoever wants to stop nodes.

Pure. A store that does not answer counts as down. `safe_to_stop` errs on the side of no: what is not known to be whole
is taken for not whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from s4.base.health import DOWN, Health, Part, Shape, full, judge, storable, told
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
    reserve_bytes: int = 0
    unreached: Mapping[str, str] = {}  # stores that it has no connection to, and what it met
    heals_of: Mapping[str, int] = {}  # of `heals`, by the store that lacks the shard, where that is known


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
    alarms: list[str] = []


class ClusterStatus(msgspec.Struct, frozen=True):
    """`health` is ok, degraded, at risk or down; `reasons` say why it is not ok (base/health.py). `storable_bytes` is
    what clients can still store, before the first store is full: of content in shards, and of what lives in rows."""

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
    storable_bytes: int = 0
    heals_of: dict[str, int] = {}
    copies: int = 0  # of each partition's metadata, as planned
    storable_rows_bytes: int = 0


def status(
    current: ClusterMap, said: Mapping[str, Said | None], alarms: Mapping[str, Collection[str]] | None = None
) -> ClusterStatus:
    """The cluster at a glance. `said` has an entry for each store that is not gone; None where it does not answer.
    `alarms` are those of processes without a store, by what people call these."""
    heals = sum(one.heals for one in said.values() if one is not None)
    moves = sum(
        have != want for one in current.partitions for have, want in zip(one.config.members, one.wanted, strict=True)
    )
    found = _health(current, said, heals, moves, alarms or {})
    shards, rows = _storable(current, said)
    filled = min((one.filled for one in said.values() if one is not None), default=1.0)
    return ClusterStatus(
        current.cluster,
        f"{current.data}+{current.parity}",
        current.count,
        found.level,
        found.reasons,
        current.freeze,
        moves,
        heals,
        sum(one.outbox for one in said.values() if one is not None),
        filled,
        _stores(current, said),
        shards,
        dict(_heals_of(said)),
        current.replicas,
        rows,
    )


def _heals_of(said: Mapping[str, Said | None]) -> Counter[str]:
    found = Counter[str]()
    for one in said.values():
        if one is not None and one.heals_of:
            found.update(one.heals_of)
    return found


def _health(
    current: ClusterMap, said: Mapping[str, Said | None], heals: int, moves: int, alarms: Mapping[str, Collection[str]]
) -> Health:
    if not current.partitions:
        return Health(DOWN, ["no stores were added yet: `s4 admin cluster add`"])
    up = {store for store, one in said.items() if one is not None}
    served = {partition for one in said.values() if one is not None for partition in one.led}
    down = [store for store, one in current.stores.items() if store not in up and one.state not in (GONE, STANDBY)]
    names = {store: current.stores[store].node or store[:8] for store in current.stores}
    standing = {names[store] for store, one in current.stores.items() if store in up and one.state == STANDBY}
    answers = {store: one for store, one in said.items() if one is not None and store in current.stores}
    used = {store: one for store, one in answers.items() if current.stores[store].state not in (GONE, STANDBY)}
    no_room = [(store, full(one.free_bytes, one.reserve_bytes, one.total_bytes)) for store, one in used.items()]
    crowded = {store for store, text in no_room if text}
    parts = (
        Part(
            sum(store in up for store in one.config.members),
            len(one.config.in_sync),
            number in served,
            sum(store in crowded for store in one.config.members),
        )
        for number, one in enumerate(current.partitions)
    )
    return judge(
        Shape(current.data, current.parity, current.minimum, current.replicas),
        parts,
        away=[_away(names[store], names[store] in standing) for store in down],
        heals=heals,
        moves=moves,
        full=[f"{names[store]} {text}" for store, text in no_room if text],
        alarms=told([*((names[store], one.alarms) for store, one in answers.items()), *alarms.items()]),
    )


def _away(name: str, standing: bool) -> str:
    """What is said of a store that is not there. Where its node has another one now, on an empty disk, people have to
    say so."""
    hint = f"; its node has an empty store, which stands by: `s4 admin cluster replace {name}` puts that in its place"
    return f"{name} does not answer{hint if standing else ''}"


def _storable(current: ClusterMap, said: Mapping[str, Said | None]) -> tuple[int, int]:
    """Bytes that can still be stored on the stores that answer, in shards and in rows."""
    positions = Counter(store for one in current.partitions for store in one.config.members if store)
    copies = Counter(store for one in current.partitions for store in one.config.in_sync)
    room = {
        store: one.free_bytes - one.reserve_bytes for store, one in said.items() if one is not None and one.total_bytes
    }
    shards, rows = ([(free, held[store]) for store, free in room.items()] for held in (positions, copies))
    return storable(current.data, current.count, shards), storable(1, current.count, rows)


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
        listed.append(
            StoreStatus(
                store,
                member.node,
                member.state,
                told is not None,
                member.domain,
                member.address,
                known.version,
                len(known.led),
                copies[store],
                positions[store],
                wanted[store],
                known.used_bytes,
                known.free_bytes,
                known.total_bytes,
                list(known.alarms),
            )
        )
    return sorted(listed, key=lambda one: (one.node, one.store))


def safe_to_stop(current: ClusterMap, said: Mapping[str, Said | None], stores: Collection[str]) -> list[str]:
    """Why these stores may not be stopped together now, as sentences; empty where they may.

    They may where everything stays readable and writable without them, and stays so until they are back. A shard that
    waits to be made again keeps the others from stopping, not the store that lacks it: so what is left of a host that
    is half away may follow, while what is written meanwhile waits for it.
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
    own = _heals_of(said)
    heals = sum(one.heals for one in said.values() if one is not None) - sum(own[store] for store in stores)
    if heals:
        reasons.append(f"{heals} shards wait to be made again")
    if moving:
        reasons.append(f"{moving} partitions that these stores hold are being moved or filled")
    return reasons


def uncounted(current: ClusterMap, said: Mapping[str, Said | None]) -> list[str]:
    """Why more may wait to be made again than anybody tells: a partition's heals are counted by who serves it."""
    served = {partition for one in said.values() if one is not None for partition in one.led}
    missing = len(current.partitions) - len(served.intersection(range(len(current.partitions))))
    return (
        [f"{missing} partitions have no primary just now, which knows what waits to be made again"] if missing else []
    )


def any_may_stop(current: ClusterMap, said: Mapping[str, Said | None], stores: Collection[str]) -> bool:
    """Whether each of some stores, that answer, may be stopped alone: `safe_to_stop` of each, looked at once for all."""
    up, asked = {store for store, one in said.items() if one is not None}, set(stores)
    needed, minimum = current.data + (1 if current.parity > 1 else 0), current.minimum
    for one in current.partitions:
        config = one.config
        copies, shards = up.intersection(config.in_sync), sum(store in up for store in config.members)
        if len(copies) - bool(copies & asked) < minimum or shards - (not asked.isdisjoint(config.members)) < needed:
            return not asked
        if config.joining and not asked.isdisjoint((config.joining, *config.members)):
            return False
    heals, own = sum(one.heals for one in said.values() if one is not None), _heals_of(said)
    return all(heals == own[store] for store in asked)

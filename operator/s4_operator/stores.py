"""What the map, the pods and the daemons say together of a cluster's stores: questions of plan.py. Pure."""

from __future__ import annotations

from collections.abc import Collection

from s4.cluster.clustermap import STANDBY, ClusterMap
from s4.cluster.messages import Config
from s4.cluster.placement import GONE
from s4.cluster.status import Said
from s4_operator.observed import Observed

FOREIGN = 1 << 30  # stands for the ordinal of a store that is not of this StatefulSet


def said(seen: Observed) -> dict[str, Said | None] | None:
    """What every store that is not gone says, as far as `safe_to_stop` needs it; None where nobody answers."""
    if seen.status is None or seen.map is None:
        return None
    up = {one.store: one for one in seen.status.stores if one.up}
    found: dict[str, Said | None] = {}
    for store, member in seen.map.stores.items():
        if member.state != GONE:
            found[store] = Said((), 0) if store in up else None
    first = next((store for store, one in found.items() if one is not None), "")
    if first:
        found[first] = Said((), seen.status.heals, heals_of=seen.status.heals_of)
    return found


def store_of(current: ClusterMap, pod: str, *states: str) -> str:
    """The store of a pod in one of some states, or empty."""
    return next((store for store, one in current.stores.items() if one.node == pod and one.state in states), "")


def fresh_of(current: ClusterMap, known: dict[str, Said | None] | None, pod: str) -> str:
    """The store of a pod that stands by: the one that answers, else the newest. A pod that was made anew twice has left
    others behind."""
    found = [store for store, one in current.stores.items() if one.node == pod and one.state == STANDBY]
    up = [store for store in found if known is not None and known.get(store) is not None]
    return (up or found or [""])[-1]


def pod_name(cluster: str, ordinal: int) -> str:
    return f"{cluster}-node-{ordinal}"


def ordinal_of(seen: Observed, current: ClusterMap, store: str) -> int:
    """The ordinal of a store's pod; very large for one that is not of this StatefulSet."""
    node = current.stores[store].node
    prefix = f"{seen.name}-node-"
    return int(node[len(prefix) :]) if node.startswith(prefix) and node[len(prefix) :].isdigit() else FOREIGN


def replacing(current: ClusterMap) -> set[str]:
    """Stores that are on their way to hold what a lost one did."""
    gone = set(current.in_state(GONE))
    return {
        want
        for one in current.partitions
        for have, want in zip(one.config.members, one.wanted, strict=True)
        if (not have or have in gone) and want != have
    }


def half_moved(current: ClusterMap) -> bool:
    """Whether a store has two positions of a partition, between two steps of a planned move. A freeze would keep them
    so, and nobody could be spared."""
    return any(
        one.config.members != one.wanted and len(set(one.config.members)) < len(one.config.members)
        for one in current.partitions
    )


def is_empty(seen: Observed, current: ClusterMap, store: str) -> bool:
    """Whether nothing is on a store that others do not have: the primaries, who say in the map who holds what, name it
    nowhere, and nothing is to be healed. The store itself may be down by then."""
    for one in current.partitions:
        config = one.config
        if store in (*config.in_sync, *config.eligible, *config.members, config.joining, *one.wanted):
            return False
    return seen.status is not None and seen.status.heals == 0


def lacking_shards(seen: Observed, stores: Collection[str]) -> set[str]:
    """Those of some stores on which shards wait to be made again; where nobody says on which they do, it may be any."""
    heals_of = seen.status.heals_of if seen.status is not None else {}
    unnamed = seen.status is None or seen.status.heals > sum(heals_of.values())
    return {store for store in stores if unnamed or heals_of.get(store)}


def whole_positions(config: Config, whole: Collection[str]) -> int:
    """How many positions of a partition have every shard on these stores: of one that is being filled what was written
    meanwhile is on the store that joins alone, and the rest on the one that it had."""
    filled = config.position if config.joining else -1
    return sum(store in whole and (at != filled or config.joining in whole) for at, store in enumerate(config.members))


def is_whole(seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None) -> bool:
    """Whether every partition has all of its shards' stores and copies of its metadata where the plan wants them, all
    of them answer, and nothing is to be healed."""
    if known is None or seen.status is None or seen.status.heals:
        return False
    up = {store for store, one in known.items() if one is not None}
    return all(
        one.config.members == one.wanted
        and not one.config.joining
        and up.issuperset(one.wanted)
        and len(up.intersection(one.config.in_sync)) >= current.replicas
        for one in current.partitions
    )

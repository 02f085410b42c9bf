"""What people ask of a cluster, as changes of its map: from a map to a map. Making a change twice is making it once.

Only the plan is changed here, and the state of stores; who really holds what is for the partitions' primaries to say,
who follow the plan (docs/kubernetes.md). The one exception is a partition's first configuration, which begins empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from s4.base.said import SaidError
from s4.cluster.clustermap import STANDBY, ClusterMap, Member, Partition
from s4.cluster.messages import Config
from s4.cluster.placement import DRAINING, GONE, SERVING, Store, domain_limit, place

BEFORE_COPIES = ("0.6.", "0.7.")  # versions whose programs write a map without `copies`


class PlanError(SaidError):
    """What was asked cannot be done; the message says why and what to do."""


def new(cluster: str, data: int, parity: int, partitions: int, copies: int = 0) -> ClusterMap:
    """A cluster without stores; `copies` as in `copied`. Raises PlanError."""
    if partitions & (partitions - 1) or not 1 <= partitions <= 4096:
        raise PlanError(f"{partitions} partitions: give a power of two up to 4096; it can never be changed")
    return copied(ClusterMap(cluster, data, parity, partitions, {}), copies)


def copied(old: ClusterMap, copies: int) -> ClusterMap:
    """The plan with so many copies of each partition's metadata; 0 is the least. Raises PlanError."""
    least = old.least_replicas
    if copies and not least <= copies <= old.shards:
        raise PlanError(
            f"{copies} copies of the metadata: {old.data}+{old.parity} has {least} at least, three and one more "
            f"than may be lost at once as far as there are shards, and at most {old.shards}, one beside each shard"
        )
    kept = 0 if copies == least else copies
    if kept == old.copies:
        return old
    made = replace(old, copies=kept)
    if not old.partitions:
        return made
    partitions = tuple(
        replace(new, revision=one.revision + 1)
        for one, new in zip(old.partitions, _planned(made).partitions, strict=True)
    )
    return replace(made, partitions=partitions)  # revisions rise, so that everybody looks at the plan again


def registered(old: ClusterMap, store: str, node: str, address: str, domain: str, weight: float) -> ClusterMap:
    """The map once a store's node has said where it is. An unknown store waits until it is added. Raises PlanError."""
    known = old.stores.get(store)
    if known is not None and known.state == GONE:
        raise PlanError(f"store {store[:8]} was declared gone, which is for good; empty its directory to use it again")
    state = known.state if known is not None else STANDBY
    weight = known.weight if known is not None else weight
    return replace(old, stores={**old.stores, store: Member(node, address, domain, weight, state)})


def find(old: ClusterMap, name: str) -> str:
    """The store of a node's name, a store id or its beginning. Raises PlanError."""
    alive = [store for store, one in old.stores.items() if one.state != GONE]
    for found in (
        [one for one in alive if old.stores[one].node == name],
        [one for one in alive if one.startswith(name)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"{one[:8]} ({old.stores[one].state})" for one in found)
            raise PlanError(f"{name} is the name of several stores: {listed}; give the store's id")
    raise PlanError(f"there is no store named {name}; `s4 admin cluster status` lists them")


def added(old: ClusterMap, stores: Iterable[str]) -> ClusterMap:
    """The plan with more stores, or with stores that were to be drained. Raises PlanError."""
    return _planned(_with_state(old, stores, SERVING))


def drained(old: ClusterMap, stores: Iterable[str]) -> ClusterMap:
    """The plan without some stores, which hold what they have until others do. Raises PlanError."""
    return _planned(_with_state(old, stores, DRAINING))


def gone(old: ClusterMap, stores: Iterable[str]) -> ClusterMap:
    """Stores are lost for good: others are to make their shards again. Raises PlanError."""
    lost = list(stores)
    marked = _with_state(old, lost, GONE)
    return _planned(_touched(marked, lost))


def swapped(old: ClusterMap, lost: str, instead: str) -> ClusterMap:
    """A store is gone for good, and another takes all of its places. Raises PlanError."""
    if old.stores[lost].state == GONE and old.stores[instead].state == SERVING:
        return old
    if old.stores[instead].state != STANDBY:
        raise PlanError(f"{instead[:8]} is {old.stores[instead].state}; a replacement is a store that is standing by")
    stores = {**old.stores, lost: replace(old.stores[lost], state=GONE)}
    stores[instead] = replace(old.stores[instead], state=old.stores[lost].state, weight=old.stores[lost].weight)
    wanted = [[instead if one == lost else one for one in part.wanted] for part in old.partitions]
    return _touched(_with_wanted(replace(old, stores=stores), wanted), [lost])


def released(old: ClusterMap, store: str) -> ClusterMap:
    """A store that was drained and is empty stands by: it is planned with no more, and may be gone. Raises
    PlanError."""
    if old.stores[store].state == STANDBY:
        return old
    for one in old.partitions:
        config = one.config
        if store in (*config.in_sync, *config.eligible, *config.members, config.joining, *one.wanted):
            raise PlanError(f"store {store[:8]} still holds something")
    return replace(old, stores={**old.stores, store: replace(old.stores[store], state=STANDBY)})


def placed(old: ClusterMap, domains: Mapping[str, str]) -> ClusterMap:
    """Stores are in other failure domains than they say. What that moves, the next plan does."""
    named = {store: replace(one, domain=domains.get(store, one.domain)) for store, one in old.stores.items()}
    return replace(old, stores=named)


def weighted(old: ClusterMap, weights: Mapping[str, float]) -> ClusterMap:
    """Stores have other weights. What that moves, the next plan does."""
    return replace(
        old, stores={store: replace(one, weight=weights.get(store, one.weight)) for store, one in old.stores.items()}
    )


def frozen(old: ClusterMap, freeze: bool) -> ClusterMap:
    return replace(old, freeze=freeze)


def rebalanced(old: ClusterMap) -> ClusterMap:
    """The plan once more for the stores as they are. Raises PlanError."""
    return _planned(old)


def crowded(old: ClusterMap) -> int:
    """Partitions of which a failure domain is to hold more shards, or more copies of the metadata, than it must: stores
    may have come up elsewhere than those that they replace."""
    serving = [Store(name, old.stores[name].domain) for name in old.in_state(SERVING)]
    if not old.partitions or len(serving) < old.shards:
        return 0
    domains = {store.id: store.domain for store in serving}

    def most(stores: Sequence[str]) -> int:
        return max(Counter(domains.get(store, store) for store in stores).values())

    shards, copies = domain_limit(serving, old.shards), domain_limit(serving, old.replicas)
    return sum(most(one.wanted) > shards or most(one.wanted[: old.replicas]) > copies for one in old.partitions)


def _with_state(old: ClusterMap, stores: Iterable[str], state: str) -> ClusterMap:
    known = dict(old.stores)
    for store in stores:
        if known[store].state == GONE != state:
            raise PlanError(f"store {store[:8]} is gone, which is for good")
        known[store] = replace(known[store], state=state)
    return replace(old, stores=known)


def _planned(old: ClusterMap) -> ClusterMap:
    states = {SERVING: SERVING, DRAINING: DRAINING}
    stores = [
        Store(name, one.domain, one.weight, states.get(one.state, GONE), one.host) for name, one in old.stores.items()
    ]
    serving = len(old.in_state(SERVING))
    if serving < old.shards:
        raise PlanError(
            f"{old.data}+{old.parity} needs {old.shards} serving stores, and there would be {serving}; add others first"
        )
    previous: list[Sequence[str]] = [one.wanted for one in old.partitions] or [()] * old.count
    return _with_wanted(old, place(stores, previous, old.shards, old.replicas))


def _with_wanted(old: ClusterMap, wanted: Sequence[Sequence[str]]) -> ClusterMap:
    """The map with other members wanted. Revisions rise where something changed."""
    if not old.partitions:
        return replace(old, partitions=tuple(_first(wanted, old.replicas)))
    partitions = [
        one if one.wanted == tuple(members) else replace(one, revision=one.revision + 1, wanted=tuple(members))
        for one, members in zip(old.partitions, wanted, strict=True)
    ]
    return replace(old, partitions=tuple(partitions))


def _first(wanted: Sequence[Sequence[str]], replicas: int) -> Iterable[Partition]:
    """The first configuration of each partition, with primaries spread evenly."""
    primaries: Counter[str] = Counter()
    for members in wanted:
        copies = tuple(members[:replicas])
        primary = min(copies, key=lambda one: primaries[one])
        primaries[primary] += 1
        yield Partition(1, Config(1, primary, copies, members=tuple(members)), tuple(members))


def _touched(old: ClusterMap, lost: Sequence[str]) -> ClusterMap:
    """Revisions rise where a lost store is named, so that the replicas there look at the plan again."""
    partitions = tuple(
        replace(one, revision=one.revision + 1)
        if any(store in (*one.config.in_sync, *one.config.eligible, *one.config.members) for store in lost)
        else one
        for one in old.partitions
    )
    return replace(old, partitions=partitions)

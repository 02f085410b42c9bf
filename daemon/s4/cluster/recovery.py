"""A lost map, made again of what stores keep of it. Values in, values out.

The map is in one place only, the coordinator, and may be deleted, or be restored from yesterday. Each store keeps, of
every partition, the configuration of the newest epoch that it has seen (replica/keptrows.py: in the same synced batch
as the epoch, before anything is done in it), and a copy of the whole map (node/held.py), for what is in no
configuration: geometry, what stores are called, which are gone. A map is begun without partitions under the old
cluster's id; the stores start, find that it plans nothing, and stand by: none leads, none follows, none drops anything.
`recovery` then makes the map that was, as far as anybody has seen it; all rules of replication go on from there as
after any restart.

What must hold, and why it does:
- **All or gone (M5).** Every store that the old map counts has told, or a person has given it up by its id: then it is
  gone for good (M1). So no configuration that anybody has acted in is newer than the newest that was told, and nobody
  comes back later who knows better.
- **Nobody serves meanwhile.** Only a process that started under the map without partitions is asked: a process that
  knows the old one ends when it sees the new one (`LostMapError`), and one that has not seen it is not registered
  there.
- **A new epoch.** Each partition goes on at the newest epoch that was told and one more: R3 and R7 see to the rest.
- **No older copy leads.** A replica that lacks what any other has committed, or that is not whole, is not in sync (R2,
  R7, M4): it joins again as any other. Where nobody is left who lacks nothing, nothing is made: the words say so.
- **Two clusters' disks are not mixed.** The id of the cluster is in each store (M3), and another's is refused before it
  is asked. Geometry and number of partitions must be those of the old map.

A crash at any point leaves the map without partitions, or the whole one: it is written by one compare-and-swap from the
map without partitions (in Kubernetes spec first, then status; a spec alone counts as none, and is written again).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec.structs import replace

from s4.cluster import clustermap
from s4.cluster.clustermap import STANDBY, ClusterMap, Member, Partition
from s4.cluster.messages import LOST, Config
from s4.cluster.placement import GONE, SERVING

NOBODY = Member("", "", "", 1.0, STANDBY)


class Replica(msgspec.Struct, array_like=True, frozen=True):
    """What a store has of a partition's metadata. `config` is of the newest epoch that it has seen, None where the copy
    of the map says the same, or nothing does; `joining` as in messages.State."""

    epoch: int
    commit: int
    last: int
    joining: int | None = None
    config: Config | None = None


class Held(msgspec.Struct, array_like=True, frozen=True):
    """What a store keeps of the map: its newest copy, encoded, empty where it has none, and each partition's
    replica."""

    seen: bytes
    replicas: list[Replica]

    @property
    def anything(self) -> bool:
        """Whether the store was ever planned with."""
        return bool(self.seen) or any(one.epoch for one in self.replicas)


class Recovery(msgspec.Struct, frozen=True):
    """`map` is the lost one, encoded, empty where it cannot be made yet: then `reasons` say why. `holding` are stores
    that were of a cluster whose map is lost; `missing` those that were and do not tell, by id, and what they were
    called."""

    holding: list[str] = []
    missing: dict[str, str] = {}
    reasons: list[str] = []
    map: bytes = b""


_decoder = msgspec.msgpack.Decoder(Held)


def pack(held: Held) -> bytes:
    return msgspec.msgpack.encode(held)


def unpack(raw: bytes) -> Held:
    """Raises ValueError for what is none."""
    return _decoder.decode(raw)


def recovery(current: ClusterMap, told: Mapping[str, bytes | None], given_up: Collection[str]) -> Recovery:
    """What can be made of what stores told, each as `pack` gave it; None of one that does not answer. `given_up` are
    stores that a person has said are lost for good."""
    if current.partitions:
        return Recovery()
    held = {store: unpack(raw) for store, raw in told.items() if raw}
    holding = {store: one for store, one in held.items() if one.anything}
    if not holding:
        return Recovery()
    seen = {store: clustermap.decode(one.seen) for store, one in holding.items() if one.seen}
    if not seen:
        return _no(holding, {}, "no store has a copy of the map: none has run S4 0.8 or newer with it")
    old = max(seen.values(), key=age)
    stores = _stores(current, seen.values(), old, holding.values(), given_up)
    counted = {store for store, one in stores.items() if one.state not in (GONE, STANDBY)}
    missing = {store: stores[store].node for store in sorted(counted - set(holding))}
    reasons = _differs(current, old)
    if missing:
        named = ", ".join(f"{node or 'a node'} (store {store})" for store, node in missing.items())
        reasons.append(f"these stores of it do not tell what they hold: {named}")
    if not reasons:
        there = {store: one for store, one in holding.items() if stores[store].state != GONE}
        partitions, reasons = _partitions(old, seen, there, stores)
    if reasons:
        return _no(holding, missing, *reasons)
    made = replace(old, stores=stores, partitions=partitions, freeze=False)
    return Recovery(sorted(holding), map=clustermap.encode(made))


def restored(current: ClusterMap, made: ClusterMap) -> ClusterMap:
    """The map made again, with where its stores are by now; `current` if it plans with stores already."""
    if current.partitions:
        return current
    return replace(made, stores={name: _here(one, current.stores.get(name)) for name, one in _all(current, made)})


def _all(current: ClusterMap, made: ClusterMap) -> Iterable[tuple[str, Member]]:
    return {**current.stores, **made.stores}.items()


def _no(holding: Collection[str], missing: dict[str, str], *reasons: str) -> Recovery:
    return Recovery(sorted(holding), missing, list(reasons))


def age(one: ClusterMap) -> tuple[int, int]:
    """What rises as a map goes on: epochs with every change of who holds what, revisions with every plan."""
    return sum(part.config.epoch for part in one.partitions), sum(part.revision for part in one.partitions)


def _differs(current: ClusterMap, old: ClusterMap) -> list[str]:
    had, asked = (f"{one.data}+{one.parity} with {one.count} partitions" for one in (old, current))
    return (
        []
        if had == asked
        else [f"what stores hold is {had}, and the map was begun anew with {asked}: begin it as it was"]
    )


def _stores(
    current: ClusterMap,
    seen: Iterable[ClusterMap],
    old: ClusterMap,
    holding: Iterable[Held],
    given_up: Collection[str],
) -> dict[str, Member]:
    """Every store that any copy of the map or any configuration knows. What one copy calls gone is gone, and so is what
    was given up (M1)."""
    maps = list(seen)
    gone = {name for one in maps for name in one.in_state(GONE)} | set(given_up)
    stores = {name: member for one in maps for name, member in one.stores.items()} | old.stores
    configs = [one.config for held in holding for one in held.replicas if one.config is not None]
    named = {name for one in configs for name in _named(one)} - set(stores)  # since the copies were made
    stores |= {name: replace(current.stores.get(name, NOBODY), state=SERVING) for name in sorted(named)}
    found = {name: replace(one, state=GONE) if name in gone else one for name, one in stores.items()}
    return {name: _here(one, current.stores.get(name)) for name, one in {**current.stores, **found}.items()}


def _here(one: Member, now: Member | None) -> Member:
    """A store of the old map where it says, or the planner, that it is by now."""
    return one if now is None else replace(now, weight=one.weight, state=one.state)


def _named(config: Config) -> set[str]:
    return {config.primary, *config.in_sync, *config.eligible, *config.members, config.joining} - {""}


def _partitions(
    old: ClusterMap, seen: Mapping[str, ClusterMap], holding: Mapping[str, Held], stores: Mapping[str, Member]
) -> tuple[tuple[Partition, ...], list[str]]:
    """Every partition, and why one cannot be made. What is gone is no witness: it may have gone on by itself (R9)."""
    made, reasons = [], []
    for number in range(old.count):
        replicas = {store: one.replicas[number] for store, one in holding.items() if number < len(one.replicas)}
        told = [one.partitions[number].config for one in seen.values() if number < len(one.partitions)]
        told += [one.config for one in replicas.values() if one.config is not None]
        config, why = _config(number, max(told, key=lambda one: one.epoch), replicas, stores)
        if why:
            reasons.append(why)
        revision = max(one.partitions[number].revision for one in seen.values() if number < len(one.partitions))
        made.append(Partition(revision + 1, config, old.partitions[number].wanted))
    return tuple(made), reasons[:3] + ([f"and {len(reasons) - 3} partitions more"] if len(reasons) > 3 else [])


def _config(
    number: int, newest: Config, replicas: Mapping[str, Replica], stores: Mapping[str, Member]
) -> tuple[Config, str]:
    """A partition's configuration to go on with, and why there is none."""
    ahead = [store for store, one in replicas.items() if one.epoch > newest.epoch]
    if ahead:
        return (
            newest,
            f"partition {number}: store {ahead[0][:8]} has been in an epoch of which nobody knows who was in it",
        )
    committed = max((one.commit for one in replicas.values() if one.joining != LOST), default=0)

    def good(store: str) -> bool:
        one = replicas.get(store)
        if one is None or stores[store].state == GONE:
            return False
        whole = one.joining is None or (one.joining != LOST and newest.epoch > one.joining)  # as in Replica.see
        return whole and one.last >= committed

    lost = {store for store in newest.in_sync if stores[store].state == GONE}
    in_sync = tuple(store for store in newest.in_sync if good(store) or store in lost)
    eligible = tuple(store for store in newest.eligible if good(store) or stores[store].state == GONE)
    able = [store for store in in_sync if store not in lost]
    if not able and not (lost and set(newest.in_sync) == lost):  # all are given up: it is down until R9's way out
        return newest, f"partition {number}: every copy of its metadata lacks something that was committed"
    primary = newest.primary
    if able and primary not in able:
        primary = max(able, key=lambda store: replicas[store].last)
    return replace(newest, epoch=newest.epoch + 1, primary=primary, in_sync=in_sync, eligible=eligible), ""

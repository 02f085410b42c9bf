"""The cluster's map: every store, the geometry, and for each partition what is wanted and who holds it. Values only.

One document, so that what one event changes is one write, and a gateway needs one watch. A partition's part has a
revision of its own, which rises with every change of its configuration or plan: that is what a replica's
compare-and-swap names (rule R4). Format 1 is JSON; partitions name stores by their place in `stores`, -1 for nobody,
about 110 bytes for each. Stores that are gone stay in the list for good (rule M1). What a later S4 added is left out
where nobody asked for it: a program that does not know it goes by the rule that holds without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from s4.cluster.messages import Config, Document, Plan, Value
from s4.cluster.placement import GONE, replicas_wanted

FORMAT = 1
STANDBY = "standby"


class Member(Value, frozen=True):
    """A store of the cluster. `state` is standby, serving, draining or gone; `address` is HOST:PORT of its peer port,
    `domain` what fails together with it, `weight` its share relative to others. `host` is where it is if that is not its
    domain, as far as the coordinator tells: in Kubernetes."""

    node: str
    address: str
    domain: str
    weight: float
    state: str
    host: str = ""


class Partition(Value, frozen=True):
    """`wanted` are the members that the plan names, by position."""

    revision: int
    config: Config
    wanted: tuple[str, ...]


class ClusterMap(Value, frozen=True):
    """`partitions` is empty until stores were added; `count` is how many there are or will be. `copies` of each
    partition's metadata were asked for, more than the least; 0 is the least."""

    cluster: str
    data: int
    parity: int
    count: int
    stores: dict[str, Member]
    partitions: tuple[Partition, ...] = ()
    freeze: bool = False
    copies: int = 0

    @property
    def shards(self) -> int:
        return self.data + self.parity

    @property
    def replicas(self) -> int:
        """Copies of the metadata."""
        return max(self.copies, self.least_replicas)

    @property
    def least_replicas(self) -> int:
        """Copies of the metadata that every cluster has: three, and one more than may be lost at once (D1)."""
        return replicas_wanted(self.shards, self.parity)

    @property
    def minimum(self) -> int:
        """Copies that a commit needs (R2)."""
        return 2 if self.replicas >= 3 else 1

    def in_sync(self, number: int) -> int:
        """Copies of a partition's metadata that are in sync; 0 before stores were added."""
        return len(self.partitions[number].config.in_sync) if self.partitions else 0

    def in_state(self, *states: str) -> list[str]:
        return [name for name, one in self.stores.items() if one.state in states]

    def document(self, number: int) -> Document:
        """A partition as its replicas see it."""
        one = self.partitions[number]
        named = {*one.config.in_sync, *one.config.eligible, *one.config.members, one.config.joining}
        gone = tuple(name for name in self.in_state(GONE) if name in named)
        return Document(one.config, Plan(one.wanted[: self.replicas], self.minimum, gone, one.wanted))

    def target(self, number: int, position: int) -> str:
        """The store that new shards of a position go to: who is being filled for it, else who holds it; or empty. One
        that is gone is empty at once: what a commit counts on must be there after it (M1)."""
        one = self.partitions[number].config
        store = one.joining if one.joining and one.position == position else one.members[position]
        return store if store and self.stores[store].state != GONE else ""


_Packed = tuple[int, int, int, list[int], list[int], list[int], int, int, list[int]]


class _Kept(msgspec.Struct, omit_defaults=True):
    format: int
    cluster: str
    data: int
    parity: int
    count: int
    freeze: bool
    stores: list[tuple[str, str, str, str, float, str]]
    partitions: list[_Packed]
    copies: int = 0
    hosts: dict[str, str] = {}  # of stores whose domain is another; only Kubernetes tells, and nobody keeps it


def encode(kept: ClusterMap) -> bytes:
    places = {name: number for number, name in enumerate(kept.stores)} | {"": -1}
    stores = [(name, one.node, one.address, one.domain, one.weight, one.state) for name, one in kept.stores.items()]
    partitions = [_pack(one, places) for one in kept.partitions]
    hosts = {name: one.host for name, one in kept.stores.items() if one.host}
    return msgspec.json.encode(
        _Kept(
            FORMAT,
            kept.cluster,
            kept.data,
            kept.parity,
            kept.count,
            kept.freeze,
            stores,
            partitions,
            kept.copies,
            hosts,
        )
    )


def _pack(one: Partition, places: Mapping[str, int]) -> _Packed:
    def named(stores: Iterable[str]) -> list[int]:
        return [places[store] for store in stores]

    config = one.config
    return (
        one.revision,
        config.epoch,
        places[config.primary],
        named(config.in_sync),
        named(config.eligible),
        named(config.members),
        places[config.joining],
        config.position,
        named(one.wanted),
    )


def decode(raw: bytes) -> ClusterMap:
    """Raises ValueError for what is no map, or one of a newer format."""
    kept = msgspec.json.decode(raw, type=_Kept)
    if kept.format != FORMAT:
        raise ValueError(f"the cluster's map has format {kept.format}; this S4 knows {FORMAT}")
    names = [name for name, *_ in kept.stores]
    stores = {one[0]: Member(*one[1:], kept.hosts.get(one[0], "")) for one in kept.stores}
    partitions = tuple(_unpack(one, names) for one in kept.partitions)
    return ClusterMap(kept.cluster, kept.data, kept.parity, kept.count, stores, partitions, kept.freeze, kept.copies)


def _unpack(one: _Packed, names: list[str]) -> Partition:
    def named(places: list[int]) -> tuple[str, ...]:
        return tuple(names[place] if place >= 0 else "" for place in places)

    revision, epoch, primary, in_sync, eligible, members, joining, position, wanted = one
    config = Config(
        epoch,
        names[primary],
        named(in_sync),
        named(eligible),
        named(members),
        names[joining] if joining >= 0 else "",
        position,
    )
    return Partition(revision, config, named(wanted))

"""The shard map: which stores are meant to hold a partition (spec), and which do (status). Values only.

Spec is written by the planner, status by the partition's primary. Version 1 of the document is this struct as
JSON; fields are only added, with defaults. A position whose store is away, or is not filled yet, has an empty
name in `members`; a store that is being filled is in `joining`. A position that moves has the store that it comes from
in status and the one that it goes to in spec: what was written before is on the first, what came since on the second.
Version 2 is a map whose drives were changed (cluster/growing.py): programs that do not know of moves refuse it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from msgspec.structs import replace

from s4.cluster.placement import GONE, SERVING, replicas_wanted

FORMAT, GROWN = FORMATS = (1, 2)


class PartitionStatus(msgspec.Struct, frozen=True):
    """`epoch` rises with every change of configuration (rule R4); stores are ids in hexadecimal."""

    epoch: int
    primary: str
    in_sync: list[str]
    members: list[str]
    joining: list[str] = []


class Spec(msgspec.Struct, frozen=True):
    """`order` is the stores as the server's directories name them; `stores` is the state of each: serving, draining or
    gone. `directories`, in that order, are where they were last, once drives were added or taken away; `later` is that
    the plan is to be made once more when nothing moves."""

    data: int
    parity: int
    replicas: int
    members: list[list[str]]
    stores: dict[str, str]
    freeze: bool = False
    order: list[str] = []
    directories: list[str] = []
    later: bool = False


class ShardMap(msgspec.Struct, frozen=True):
    cluster: str
    spec: Spec
    status: list[PartitionStatus]
    format: int = FORMAT

    @property
    def partitions(self) -> int:
        return len(self.status)

    @property
    def order(self) -> list[str]:
        """Stores in the order of the server's directories."""
        return self.spec.order or list(self.spec.stores)

    @property
    def copies(self) -> list[str]:
        """Stores that are meant to have the metadata: the first that stay."""
        return [store for store in self.order if self.spec.stores[store] == SERVING][: self.spec.replicas]

    def moving(self, partition: int) -> bool:
        """Whether any position of a partition is on its way from one store to another."""
        held, wanted = self.status[partition].members, self.spec.members[partition]
        return any(have not in ("", want) for have, want in zip(held, wanted, strict=True))

    def live(self, partition: int, there: Collection[str]) -> int:
        """Positions of which every shard can be read while the stores in `there` are: of one that moves, both."""
        held, wanted = self.status[partition].members, self.spec.members[partition]
        return sum(have in there and want in there for have, want in zip(held, wanted, strict=True))


def spread(cluster: str, stores: Sequence[str], data: int, parity: int, partitions: int) -> ShardMap:
    """A new map: partition p keeps its shards on k+m stores from the p-th on, metadata is on the first stores."""
    shards = data + parity
    members = [[stores[(first + at) % len(stores)] for at in range(shards)] for first in range(partitions)]
    replicas = replicas_wanted(len(stores), parity)
    spec = Spec(data, parity, replicas, members, dict.fromkeys(stores, SERVING), order=list(stores))
    copies = list(stores[:replicas])
    return ShardMap(cluster, spec, [PartitionStatus(0, copies[0], copies, kept) for kept in members])


def single(cluster: str, store: str, partitions: int) -> ShardMap:
    """The map of one store that holds everything: 1+0."""
    return spread(cluster, [store], 1, 0, partitions)


def replaced(shard_map: ShardMap, old: str, new: str) -> ShardMap:
    """The map once store `new`, which is empty, stands where `old` was; `old` is gone for good (rule M1). What a
    position that moved to it was written since is lost with it: no store has all of that position then."""

    def other(store: str) -> str:
        return new if store == old else store

    spec = shard_map.spec
    status = [
        replace(
            one,
            members=["" if old in both else both[0] for both in zip(one.members, wanted, strict=True)],
            in_sync=[store for store in one.in_sync if store != old],
        )
        for one, wanted in zip(shard_map.status, spec.members, strict=True)
    ]
    members = [[other(store) for store in kept] for kept in spec.members]
    stores = {**spec.stores, old: GONE, new: spec.stores[old]}
    order = [other(store) for store in shard_map.order]
    return replace(shard_map, spec=replace(spec, members=members, stores=stores, order=order), status=status)


def restarted(shard_map: ShardMap, online: Collection[str], in_sync: Sequence[str], newest: int = 0) -> ShardMap:
    """The map once the process with the stores `online` has restarted: a new epoch for each partition (rule R10).

    `in_sync` are the copies of metadata that are level, the primary first. Stores that are away lose their
    positions until they were filled again, and what a position moves to is being filled. `newest` is the highest epoch
    in the rows: where the map was lost or restored, the new one is above it too, or later versions would sort below
    earlier ones (R13).
    """
    status = []
    for old, wanted in zip(shard_map.status, shard_map.spec.members, strict=True):
        members = [store if store in online else "" for store in old.members]
        joining = [store for store, kept in zip(wanted, members, strict=True) if store != kept and store in online]
        epoch = max(old.epoch, newest) + 1
        status.append(PartitionStatus(epoch, in_sync[0], list(in_sync), members, joining))
    return replace(shard_map, status=status)


def filled(shard_map: ShardMap, partition: int, store: str) -> ShardMap:
    """The map once `store` holds every shard of its position in the partition (rule D3)."""
    old = shard_map.status[partition]
    wanted = shard_map.spec.members[partition]
    members = [store if want == store else have for want, have in zip(wanted, old.members, strict=True)]
    joining = [one for one in old.joining if one != store]
    status = list(shard_map.status)
    status[partition] = replace(old, epoch=old.epoch + 1, members=members, joining=joining)
    return replace(shard_map, status=status)


def joined(shard_map: ShardMap, store: str) -> ShardMap:
    """The map once `store` has all metadata and gets every turn (rule R8)."""
    status = [
        replace(old, epoch=old.epoch + 1, in_sync=[*(one for one in old.in_sync if one != store), store])
        for old in shard_map.status
    ]
    return replace(shard_map, status=status)


def encode(shard_map: ShardMap) -> bytes:
    return msgspec.json.format(msgspec.json.encode(shard_map), indent=1)


def decode(raw: bytes) -> ShardMap:
    """Raises ValueError for what is no map, or one of a newer format."""
    shard_map = msgspec.json.decode(raw, type=ShardMap)
    if shard_map.format not in FORMATS:
        raise ValueError(f"the shard map has format {shard_map.format}; this S4 knows {FORMATS[-1]}")
    return shard_map

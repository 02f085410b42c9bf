"""The shard map: which stores are meant to hold a partition (spec), and which do (status). Values only.

Spec is written by the planner, status by the partition's primary. Version 1 of the document is this struct as
JSON; fields are only added, with defaults.
"""

from __future__ import annotations

import msgspec

FORMAT = 1


class PartitionStatus(msgspec.Struct, frozen=True):
    """`epoch` rises with every change of configuration (rule R4); stores are ids in hexadecimal."""

    epoch: int
    primary: str
    in_sync: list[str]
    members: list[str]


class Spec(msgspec.Struct, frozen=True):
    data: int
    parity: int
    replicas: int
    members: list[list[str]]
    stores: dict[str, str]
    freeze: bool = False


class ShardMap(msgspec.Struct, frozen=True):
    cluster: str
    spec: Spec
    status: list[PartitionStatus]
    format: int = FORMAT

    @property
    def partitions(self) -> int:
        return len(self.status)


def single(cluster: str, store: str, partitions: int) -> ShardMap:
    """The map of one store that holds everything: 1+0."""
    status = [PartitionStatus(0, store, [store], [store])] * partitions
    return ShardMap(cluster, Spec(1, 0, 1, [[store]] * partitions, {store: "serving"}), status)


def restarted(shard_map: ShardMap, store: str, newest: int = 0) -> ShardMap:
    """The map once the primary on `store` has restarted: a new epoch for each of its partitions (rule R10).

    `newest` is the highest epoch in its rows: where the map was lost or restored, the new one is above it too,
    or later versions would sort below earlier ones (R13).
    """
    status = [
        PartitionStatus(max(old.epoch, newest) + 1, old.primary, old.in_sync, old.members)
        if old.primary == store
        else old
        for old in shard_map.status
    ]
    return ShardMap(shard_map.cluster, shard_map.spec, status, shard_map.format)


def encode(shard_map: ShardMap) -> bytes:
    return msgspec.json.format(msgspec.json.encode(shard_map), indent=1)


def decode(raw: bytes) -> ShardMap:
    """Raises ValueError for what is no map, or one of a newer format."""
    shard_map = msgspec.json.decode(raw, type=ShardMap)
    if shard_map.format != FORMAT:
        raise ValueError(f"the shard map has format {shard_map.format}; this S4 knows {FORMAT}")
    return shard_map

"""What a store is told, whoever opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from s4.config.limits import MIB

PARTITIONS = 16


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """`reserve_bytes` is kept free; `small` where rows may have content (metadata/small.py); `durability` is sync,
    interval (each second) or none; `geometry` is (k, m). Fewer drives than a majority do with `degraded`, or where one
    of them has the map of revision `known`, or a newer one: the newest that the process before this one had."""

    durability: str = "sync"
    reserve_bytes: int = 1 << 30
    volume_bytes: int = 1 << 30
    preallocate_bytes: int = 64 * MIB
    partitions: int = PARTITIONS
    geometry: tuple[int, int] | None = None
    degraded: bool = False
    known: int = 0
    failed: frozenset[Path] = frozenset()
    strict: bool = False
    small: bool = False


class RootKeys(msgspec.Struct, frozen=True):
    access_key: str
    secret_key: str

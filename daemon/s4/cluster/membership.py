"""The map as this process knows it, and the changes that it makes to it while it runs.

One task at a time changes the map; a change counts once the coordinator took it (rule R4), and only then do
others see it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from s4.cluster import shardmap
from s4.cluster.coordinator import Coordinator
from s4.cluster.shardmap import ShardMap

DOCUMENT = "map"


class Membership:
    """`current` is the newest map that the coordinator took from us."""

    def __init__(self, coordinator: Coordinator, current: ShardMap, revision: int) -> None:
        self.current = current
        self._coordinator, self._revision = coordinator, revision
        self._lock = asyncio.Lock()

    @property
    def partitions(self) -> int:
        return self.current.partitions

    @property
    def geometry(self) -> tuple[int, int]:
        """(k, m) of new blobs."""
        return self.current.spec.data, self.current.spec.parity

    def copies(self) -> int:
        """Copies of the metadata that are level."""
        return len(self.current.status[0].in_sync)

    def copies_needed(self, strict: bool) -> int:
        """Copies without which nothing is written (rules R2, R9)."""
        wanted = self.current.spec.replicas
        if strict:
            return min(wanted, self.current.spec.parity + 1)
        return 2 if wanted >= 3 else 1

    def is_whole(self, partition: int) -> bool:
        """Whether every position of a partition has its store, filled (rule C4)."""
        return all(self.current.status[partition].members)

    async def change(self, made: Callable[[ShardMap], ShardMap]) -> ShardMap:
        """Replace the map by what `made` makes of it. Raises ConflictError, QuorumError: the process must end."""
        async with self._lock:
            changed = made(self.current)
            self._revision = await self._coordinator.replace(DOCUMENT, shardmap.encode(changed), self._revision)
            self.current = changed
            return changed

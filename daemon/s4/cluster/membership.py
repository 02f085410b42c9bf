"""The map as this process knows it, and the changes that it makes to it while it runs.

One task at a time changes the map; a change counts once the coordinator took it (rule R4), and only then do
others see it here. Where it is not known whether it was taken, since some drives have it and too few said so, it is
repeated as it is until that is known, before anything else is decided: a process that went on with the map before it
would neither know what it had said nor be able to say anything more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from s4.base.jobs import Failures
from s4.cluster import shardmap
from s4.cluster.coordinator import ConflictError, Coordinator, UnknownOutcomeError
from s4.cluster.shardmap import ShardMap

log = logging.getLogger(__name__)

DOCUMENT = "map"
RETRY_S = 1.0


class Membership:
    """`current` is the newest map that the coordinator took from us, of `revision`."""

    def __init__(self, coordinator: Coordinator, current: ShardMap, revision: int) -> None:
        self.current = current
        self._coordinator, self.revision = coordinator, revision
        self._lock = asyncio.Lock()

    @property
    def partitions(self) -> int:
        return self.current.partitions

    @property
    def geometry(self) -> tuple[int, int]:
        """(k, m) of new blobs."""
        return self.current.spec.data, self.current.spec.parity

    def copies(self, _: int = 0) -> int:
        """Copies of the metadata that are level: each has all partitions."""
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

    def is_held(self, partition: int, position: int, store: str) -> bool:
        """Whether a store is to have every shard of a position: a shard that it lacks is lost. Of one that moves away
        what is written now is elsewhere, and whoever fills that finds what is lost."""
        held, wanted = self.current.status[partition].members, self.current.spec.members[partition]
        return held[position] == wanted[position] == store

    def is_joining(self, store: str) -> bool:
        """Whether a store is being filled with anything."""
        return any(store in one.joining for one in self.current.status)

    async def change(self, made: Callable[[ShardMap], ShardMap]) -> ShardMap:
        """Replace the map by what `made` makes of the newest; on return that counts. Waits for as long as it takes.

        `made` may be called several times: where another map was found in place of ours it is decided again (R4).
        """
        async with self._lock:
            while True:
                changed = made(self.current)
                try:
                    await self._replace(changed)
                except ConflictError as error:
                    log.error("the map was changed by somebody else: %s", error)
                    value, self.revision = await self._coordinator.read(DOCUMENT)
                    self.current = shardmap.decode(value)
                    continue
                return changed

    async def _replace(self, changed: ShardMap) -> None:
        """Raises ConflictError."""
        failures, value = Failures(), shardmap.encode(changed)
        while True:
            try:
                self.revision = await self._coordinator.replace(DOCUMENT, value, self.revision)
            except UnknownOutcomeError as error:
                failures.add("writing the map", error, (UnknownOutcomeError,))
                await asyncio.sleep(RETRY_S)
            else:
                failures.end("writing the map")
                self.current = changed
                return

"""Shards of positions that moved to other drives of this server are dropped where they came from (D3).

That is once no position of their partition moves, none of its shards waits to be made, and every request has ended that
may read them there (D6). What a crash leaves is dropped after the next start, which takes every drive for one that may
have some. Of a server whose drives were never changed nothing is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import groupby

from s4.base.clock import boot_clock
from s4.cluster import shardmap
from s4.metadata import keys
from s4.node.base import Node

log = logging.getLogger(__name__)

LEAVE_S = 10.0
PAUSE_EVERY = 1000


class Leaving:
    """`horizon` is when the oldest request began that may read shards."""

    def __init__(
        self,
        node: Node,
        horizon: Callable[[], float],
        clock: Callable[[], float] = boot_clock,
        settle_s: float = LEAVE_S,
    ) -> None:
        self._node, self._horizon, self._clock, self._settle_s = node, horizon, clock, settle_s
        grown = node.membership.current.format != shardmap.FORMAT
        self._left = set(range(node.partitions) if grown else ())  # partitions that are to be looked at
        self._since: dict[int, float] = {}  # when each was first seen with nothing on its way

    async def run(self) -> None:
        """One round."""
        horizon = min(self._horizon(), self._node.drives.oldest_use()) - self._settle_s
        for partition in sorted(self._left):
            if not self._at_rest(partition):
                self._since.pop(partition, None)
            elif self._since.setdefault(partition, self._clock()) < horizon:
                await self._drop(partition)

    def _at_rest(self, partition: int) -> bool:
        current = self._node.membership.current
        held, wanted = current.status[partition].members, current.spec.members[partition]
        heal = next(self._node.host.scan(keys.table(partition, keys.HEAL)), None)
        return list(held) == list(wanted) and heal is None

    async def _drop(self, partition: int) -> None:
        kept, dropped = self._node.membership.current.spec.members[partition], 0
        for drive, shards in self._node.drives.online():
            records = groupby(shards.records(partition), lambda one: (one[0].blob, one[0].position))
            for number, ((blob, position), _) in enumerate(records):
                if number % PAUSE_EVERY == 0:
                    await asyncio.sleep(0)
                if position >= len(kept) or kept[position] != drive.store:
                    dropped += await shards.free_position(partition, blob, position)
            await shards.flush()
        self._left.discard(partition)
        self._node.drives.settled(partition)
        if dropped:
            log.info("partition %d: %d bytes were dropped that moved to other drives", partition, dropped)

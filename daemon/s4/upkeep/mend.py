"""Repair in a cluster: what the primary of a partition does for its shards, and how it follows the plan.

The map is followed one position at a time: the store that the plan wants is listed as joining, from then on new shards go
to it (`member.adjusted`), everything else is copied to it or made of the others, and then the position flips (D3). A
primary that dies leaves that to the next one, which asks the store what it has, and goes on. What is alike on one
server is in upkeep/shard_repair.py.
"""

from __future__ import annotations

import asyncio
import logging
import time

from s4.base.jobs import each
from s4.cluster.messages import Config
from s4.cluster.placement import GONE
from s4.erasure.codec import Buffer
from s4.node.member import MemberNode
from s4.peer.api import UnavailableError
from s4.storage.records import DamagedError, Shard
from s4.upkeep.shard_repair import Blobs, Failed, Fill, ShardRepair

log = logging.getLogger(__name__)

WORK_S = 1.0
FILLS = 2  # partitions that are filled at the same time
RETRY_S = 5.0


class Stores:
    """The stores of a cluster as a target of repair."""

    retry_s = RETRY_S

    def __init__(self, node: MemberNode) -> None:
        self._keeper, self._router = node.keeper, node.router
        self.is_up, self.read = node.router.is_up, node.router.read

    def store_for(self, partition: int, position: int) -> str:
        store = self._keeper.current.target(partition, position)
        return store if store and self._router.is_up(store) else ""

    def there(self, partition: int) -> frozenset[str]:
        config = self._keeper.current.partitions[partition].config
        return frozenset(store for store in (*config.members, config.joining) if store and self._router.is_up(store))

    async def is_whole(self, shard: Shard, length: int) -> bool:
        return False  # what can be read there may not be on its disk yet: all of a blob is made in one process (D2)

    async def copied(self, shard: Shard, length: int, store: str) -> Buffer | None:
        held = self._keeper.current.partitions[shard.partition].config.members[shard.position]
        if not held or held == store or not self._router.is_up(held):
            return None
        try:
            return await (await self._router.node(held)).read(shard, 0, length)
        except (DamagedError, UnavailableError):
            return None

    async def discard(self, store: str, partition: int, blob: bytes, position: int) -> None:
        await self._router.discard_at(store, partition, [blob])

    async def append(self, store: str, shard: Shard, data: Buffer, last: bool) -> str:
        return await self._router.append_to(store, shard, bytes(data), last)

    async def flush(self) -> None:
        return  # the last shard of each blob was written to its disk with those before it

    async def lacking(self, store: str, partition: int, position: int, blobs: Blobs) -> list[bytes]:
        return await (await self._router.node(store)).lacking(partition, position, blobs)


class Mender:
    """Heals and fills what the partitions need that this node leads. No more than `bytes_per_s` are read for that; 0
    is no bound."""

    def __init__(self, node: MemberNode, bytes_per_s: float) -> None:
        self._node, self._router = node, node.router
        self.repair = ShardRepair(node.host, Stores(node), bytes_per_s)
        self._filling: dict[int, asyncio.Task[None]] = {}
        self._retry: dict[int, float] = {}
        self.fills: dict[int, Fill] = {}

    @property
    def filled(self) -> float:
        """The share of blob rows that the fills under way have come to; 1 where there are none."""
        total = sum(fill.total for fill in self.fills.values())
        return min(1.0, sum(fill.done for fill in self.fills.values()) / total) if total else 1.0

    async def run(self) -> None:
        """One round over all that this node leads. What fails keeps no other partition waiting, and is the job's to
        tell."""
        led = self._node.led()
        self.repair.leads(led)
        await each(led, self._partition)

    async def _partition(self, partition: int) -> None:
        try:
            self._follow_plan(partition)
            await self.repair.heal_queue(partition)
        except Failed as error:
            log.info("partition %d: upkeep is tried again: %s", partition, error)

    async def close(self) -> None:
        tasks = list(self._filling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the plan

    def _follow_plan(self, partition: int) -> None:
        """Begin the next move of a partition, or fill the one that is under way."""
        current = self._node.keeper.current
        one = current.partitions[partition]
        config, group = one.config, self._node.host.group
        gone = set(current.in_state(GONE))
        members = tuple("" if store in gone else store for store in config.members)
        if config.joining:
            self._begin_fill(partition)
        elif members != config.members:
            group.seat(partition, members)
        else:
            for position, (held, wanted) in enumerate(zip(members, one.wanted, strict=True)):
                planned = bool(held) and self._router.is_up(held)
                if held != wanted and self._router.is_up(wanted) and not (current.freeze and planned):
                    group.seat(partition, members, wanted, position)
                    return

    def _begin_fill(self, partition: int) -> None:
        if (
            partition not in self._filling
            and len(self._filling) < FILLS
            and time.monotonic() >= self._retry.get(partition, 0.0)
        ):
            self._filling[partition] = asyncio.ensure_future(self._fill(partition))

    async def _fill(self, partition: int) -> None:
        try:
            await self._fill_position(partition)
        except Failed as error:
            log.warning("partition %d: a store cannot be filled now: %s", partition, error)
            self._retry[partition] = time.monotonic() + RETRY_S
        except Exception:
            log.exception("partition %d: filling failed", partition)
            self._retry[partition] = time.monotonic() + RETRY_S
        finally:
            self.fills.pop(partition, None)
            del self._filling[partition]

    async def _fill_position(self, partition: int) -> None:
        """Have every shard of a position made on the store that joins, then let it hold the position (D3).

        A store that joins is filled to the end though the plan may want another by now: shards that were written
        meanwhile are on it alone. Where it is gone itself, what the store before it lacks of these is queued first.
        """
        current = self._node.keeper.current
        config = current.partitions[partition].config
        store, position, gone = config.joining, config.position, current.in_state(GONE)
        held, left = config.members[position], store in gone
        await self._node.host.group.propose(partition, [])  # what was decided under the map before this is committed
        self.fills[partition] = fill = Fill(self.repair.blobs(partition))
        holds = held if left else store
        work = self.repair.queue if left else self.repair.fill
        if holds and holds not in gone:
            await work(partition, position, holds, fill, lambda: self._still(partition, config))
        if not self._still(partition, config):
            return
        members = tuple(holds if at == position else one for at, one in enumerate(config.members))
        if self._node.host.group.seat(partition, members):
            log.info("partition %d: store %s holds position %d now", partition, holds[:8] or "none", position)

    def _still(self, partition: int, config: Config) -> bool:
        """Whether this is the partition's configuration: in another one whoever leads begins again, and passes over
        what is there."""
        return self._node.keeper.current.partitions[partition].config == config

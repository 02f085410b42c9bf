"""What a member does for its own store: shards that it need not keep any more, and a check of every byte.

A shard of a position that moved away is dropped here only once its partition's primary said that nothing of the
partition waits to be healed (D3).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from itertools import islice

import msgspec

from s4.base.clock import boot_clock
from s4.cluster.coordinator import CoordinatorError
from s4.cluster.messages import Config
from s4.metadata import commands
from s4.node.member import MemberNode
from s4.peer.api import CallError
from s4.storage.index import index_key, parse_index_key
from s4.storage.records import DamagedError, OfflineError, Shard
from s4.storage.volumes import Location
from s4.upkeep.confirm import confirm
from s4.upkeep.headers import read_whole
from s4.upkeep.orphans import Audit, audit
from s4.upkeep.progress import ProgressFile, is_due

log = logging.getLogger(__name__)

LEAVE_S = 10.0
ASKED_S = 60.0
BATCH = 256
PAUSE_EVERY = 1000
ALL = set(range(256))  # positions


class Scrubbed(msgspec.Struct):
    """What a scrub has read and found so far. `after` is the index key of the last shard that was read, in hexadecimal;
    times are seconds since 1970."""

    running: bool = False
    shards: int = 0
    bytes_read: int = 0
    damaged: int = 0
    started_s: float = 0.0
    ended_s: float = 0.0
    after: str = ""


class OwnStore:
    """Work on one member's shards."""

    def __init__(self, node: MemberNode, clock: Callable[[], float] = time.time) -> None:
        self._node, self.shards, self._clock = node, node.shards, clock
        self._held: dict[int, set[int]] = {}  # our positions of each partition, as last seen
        self._moved: dict[int, float] = {}  # partitions of which there may be shards here that others hold
        self._left: set[int] = set()  # those of them of which there are some
        self._place = ProgressFile(node.shards.files, node.shards.directory, Scrubbed)
        self._scrubbing = asyncio.Lock()
        self.scrubbed = self._place.load()
        self.read_bytes = self.damaged = 0  # by scrubs, since this process started

    # -- positions that moved away

    async def leave(self) -> None:
        """One round: drop shards of positions that other stores hold now."""
        current = self._node.keeper.current
        for partition, one in enumerate(current.partitions):
            ours = {at for at, store in enumerate(one.config.members) if store == self._node.store}
            if self._held.get(partition, ALL) - ours:  # after a start: whatever may be here
                self._moved[partition] = boot_clock()
            self._held[partition] = ours
        for partition, since in list(self._moved.items()):
            if since < self._node.horizon() - LEAVE_S and await self._leave(partition):
                self._moved.pop(partition, None)
                self._left.discard(partition)

    async def _leave(self, partition: int) -> bool:
        """Whether nothing is left here of the partition that others hold. Nobody is asked where nothing is, as of most
        after a start: who leads may have very many heals to count, for as long as any store is away."""
        config = self._node.keeper.current.partitions[partition].config
        if partition not in self._left and await anext(self._of_others(partition, config), None) is None:
            return True
        self._left.add(partition)
        try:
            current = await self._node.keeper.refresh()
            config = current.partitions[partition].config
            if config.joining or await self._node.router.heals_of(partition):
                return False
        except (CallError, CoordinatorError):
            return False
        dropped = 0
        async for shard in self._of_others(partition, config):
            if self._node.keeper.current.partitions[partition].config != config or self._is_asked(partition):
                return False
            dropped += await self._node.shards.free_position(partition, shard.blob, shard.position)
        if dropped:
            log.info("partition %d: %d bytes were dropped, which other stores hold", partition, dropped)
        await self._node.shards.flush()
        return True

    async def _of_others(self, partition: int, config: Config) -> AsyncIterator[Shard]:
        """Shards here of positions that other stores hold."""
        others = [at for at, store in enumerate(config.members) if store not in (self._node.store, "")]
        for number, (shard, _) in enumerate(self._node.shards.records(partition)):
            if number % PAUSE_EVERY == 0:
                await asyncio.sleep(0)
            if shard.position in others:
                yield shard

    def _is_asked(self, partition: int) -> bool:
        """Whether somebody fills us with this partition again, which our map may not know yet."""
        return boot_clock() - self._node.asked.get(partition, float("-inf")) < ASKED_S

    async def audit(self, age_s: float) -> Audit:
        """Drop orphans older than `age_s` seconds (upkeep/orphans.py)."""
        return await audit(self._node, self._node.router, age_s=age_s, may_forget=self._node.clocks_agree)

    # -- scrub

    def due(self, every_s: float) -> bool:
        """Whether it is time for a scrub; 0 is never."""
        return is_due(self.scrubbed, every_s, self._clock())

    async def scrub_when_due(self, every_s: float, bytes_per_s: float) -> None:
        if self.due(every_s):
            await self.scrub(bytes_per_s)

    async def scrub(self, bytes_per_s: float, *, anew: bool = False) -> Scrubbed:
        """Read every shard here that this store holds, and every row; damaged and missing ones are queued for healing,
        and damaged metadata are made again (node/metadata_copy.py). One that was cut off is gone on with, unless
        `anew`; one at a time."""
        async with self._scrubbing:
            await self._node.copy.scrub(bytes_per_s)
            if anew or not self.scrubbed.running:
                self.scrubbed = Scrubbed(True, started_s=self._clock(), ended_s=self.scrubbed.ended_s)
            place = self.scrubbed
            await self._node.shards.flush()
            await self._node.shards.drop_deleted()
            last = parse_index_key(bytes.fromhex(place.after)) if place.after else None
            while run := list(
                islice(self._node.shards.records(after=last), BATCH)
            ):  # an iterator kept open holds tables
                for shard, location in run:
                    if self._node.membership.is_held(shard.partition, shard.position, self._node.store):
                        await self._check(shard, location, place)
                        await asyncio.sleep(location.length / bytes_per_s if bytes_per_s else 0)
                last = run[-1][0]
                place.after = index_key(last).hex()
                self._place.save_sometimes(place)
                await asyncio.sleep(0)
            missing = await confirm(self._node, self._node.router, self._node.shards)
            place.damaged += missing
            self.damaged += missing
            place.running, place.ended_s, place.after = False, self._clock(), ""
            self._place.save(place)
            return place

    async def _check(self, shard: Shard, location: Location, place: Scrubbed) -> None:
        """Read one shard. Whatever is wrong with it, the scrub goes on behind it."""
        try:
            await read_whole(self._node.shards, shard, location.length)
        except OfflineError as error:  # this process could not; nothing is known of the shard
            log.warning("%s was not scrubbed: %s", shard, error)
        except DamagedError:
            if self._node.shards.locate(shard) is not None:
                place.damaged += 1
                self.damaged += 1
                await self._report(shard)
        place.shards += 1
        place.bytes_read += location.length
        self.read_bytes += location.length

    async def _report(self, shard: Shard) -> None:
        try:
            await self._node.router.execute(shard.partition, commands.NeedHeal(shard.blob, [shard.position]))
        except Exception as error:
            log.warning("%s is damaged, which could not be reported: %s", shard, error)

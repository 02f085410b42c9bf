"""Making lost shards again in a cluster, and following the plan: what the primary of a partition does for its shards.

What is to be done is on disk: heal rows name single shards, and the map names the store that is being filled. The
map is followed one position at a time: the store that the plan wants is listed as joining, from then on new shards go
to it (`member.adjusted`), everything else is copied to it or made of the others, and then the position flips (D3). A
primary that dies leaves that to the next one, which asks the store what it has, and goes on.

Shards are durable on one process's disk before a heal row goes or a position flips (D2). A blob that is freed
meanwhile leaves orphans at worst.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from s4.base.jobs import each
from s4.cluster.messages import Config
from s4.cluster.placement import GONE
from s4.erasure.codec import Buffer, ErasureError, codec, stripes_of
from s4.metadata import commands, keys
from s4.metadata.commands import Taken
from s4.metadata.rows import Blob, decode
from s4.metadata.rows import Counters as CountersRow
from s4.node.member import MemberNode
from s4.peer.api import StaleError, UnavailableError, UnknownResultError
from s4.storage.records import DamagedError, DiskFullError, OfflineError, Shard
from s4.upkeep.sources import sources

log = logging.getLogger(__name__)

WORK_S = 0.3
BATCH = 64
CONCURRENT = 4  # shards that are made at the same time
FILLS = 2  # partitions that are filled at the same time
RETRY_S = 5.0

T = TypeVar("T")
Failed = (DamagedError, ErasureError, DiskFullError, UnavailableError, UnknownResultError, StaleError)


@dataclass(slots=True)
class Fill:
    """How far the filling of one position is, in blob rows."""

    store: str
    total: int
    done: int = 0
    started_s: float = field(default_factory=time.time)


class Mender:
    """Heals and fills what the partitions need that this node leads. No more than `bytes_per_s` are read for that; 0
    is no bound."""

    def __init__(self, node: MemberNode, bytes_per_s: float) -> None:
        self._node, self._router, self._bytes_per_s = node, node.router, bytes_per_s
        self._limit = asyncio.Semaphore(CONCURRENT)
        self._later: dict[bytes, float] = {}  # heal rows that failed, and when they are tried again
        self._waits: dict[int, float] = {}  # partitions whose queue cannot be worked on now
        self._filling: dict[int, asyncio.Task[None]] = {}
        self._retry: dict[int, float] = {}
        self.fills: dict[int, Fill] = {}
        self.made_shards = self.made_bytes = self.read_bytes = 0

    @property
    def failed(self) -> int:
        """Shards that could not be made again when last tried."""
        return len(self._later)

    @property
    def filled(self) -> float:
        """The share of blob rows that the fills under way have come to; 1 where there are none."""
        total = sum(fill.total for fill in self.fills.values())
        return min(1.0, sum(fill.done for fill in self.fills.values()) / total) if total else 1.0

    async def run(self) -> None:
        """One round over all that this node leads. What fails keeps no other partition waiting, and is the job's to
        tell."""
        await each(self._node.led(), self._partition)

    async def _partition(self, partition: int) -> None:
        try:
            self._follow_plan(partition)
            await self._heal_queue(partition)
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
        self.fills[partition] = fill = Fill(store, self._blobs(partition))
        table = start = keys.table(partition, keys.BLOB)
        holds = held if left else store
        while holds and holds not in gone and (rows := list(islice(self._node.host.scan(table, start), BATCH))):
            start = rows[-1][0] + b"\x00"
            blobs = {key[3:]: decode(Blob, value) for key, value in rows}
            lacking = await (await self._router.node(holds)).lacking(partition, position, list(blobs.items()))
            if left:
                need = [commands.NeedHeal(blob, [position]) for blob in lacking]
                await _all(self._node.host.submit(partition, one, own=True) for one in need)
            else:
                await _all(self._confirm(partition, blob, blobs[blob], position, store) for blob in lacking)
            fill.done += len(rows)
            if not self._still(partition, config):
                return
        if not self._still(partition, config):
            return
        members = tuple(holds if at == position else one for at, one in enumerate(config.members))
        if self._node.host.group.seat(partition, members):
            log.info("partition %d: store %s holds position %d now", partition, holds[:8] or "none", position)

    def _still(self, partition: int, config: Config) -> bool:
        """Whether this is the partition's configuration: in another one whoever leads begins again, and passes over
        what is there."""
        return self._node.keeper.current.partitions[partition].config == config

    def _blobs(self, partition: int) -> int:
        value = self._node.host.get(keys.counters_row(partition, 0))
        return decode(CountersRow, value).blobs if value is not None else 0

    async def _confirm(self, partition: int, blob: bytes, row: Blob, position: int, store: str) -> None:
        if position >= row.k + row.m:
            return
        try:
            await self._make(partition, blob, row, position, store)
        except (DamagedError, ErasureError) as error:
            if isinstance(error, OfflineError) and not self._router.is_up(store):
                raise
            log.error("blob %s, position %d cannot be made: %s", blob.hex(), position, error)
            await self._node.host.submit(partition, commands.NeedHeal(blob, [position]), own=True)
        if self._node.host.get(keys.blob_row(partition, blob)) is None:
            await self._router.discard(partition, blob)

    # -- the queue

    async def _heal_queue(self, partition: int) -> None:
        """One round. Where nothing could be done the next one waits, for a store may be away for long."""
        now = time.monotonic()
        if now < self._waits.get(partition, 0.0):
            return
        table = start = keys.table(partition, keys.HEAL)
        rows_seen = done = 0
        while rows := [key for key, _ in islice(self._node.host.scan(table, start), BATCH)]:
            start = rows[-1] + b"\x00"
            rows_seen += len(rows)
            done += sum(await _all(self._heal(row) for row in rows if self._later.get(row, 0.0) <= now))
        if rows_seen and not done:
            self._waits[partition] = time.monotonic() + RETRY_S
        self._later = {row: when for row, when in self._later.items() if self._node.host.get(row) is not None}

    async def _heal(self, row: bytes) -> bool:
        """Whether the shard that a heal row names is whole now, or not wanted any more."""
        partition, blob, position = keys.split_heal(row)
        store = self._node.keeper.current.target(partition, position)
        if not store or not self._router.is_up(store):
            return False
        value = self._node.host.get(keys.blob_row(partition, blob))
        try:
            if value is not None:
                await self._make(partition, blob, decode(Blob, value), position, store)
        except Failed as error:
            self._later[row] = time.monotonic() + RETRY_S
            log.error("blob %s, position %d cannot be healed: %s", blob.hex(), position, error)
            return False
        except Exception:  # what is behind it in the queue is healed all the same
            self._later[row] = time.monotonic() + RETRY_S
            log.exception("blob %s, position %d cannot be healed", blob.hex(), position)
            return False
        healed = commands.Healed(blob, [position], [store])
        answer = await self._node.host.submit(partition, healed, own=True)
        if isinstance(answer, Taken) and not answer.granted:
            await self._router.discard(partition, blob)
        return True

    # -- making shards

    async def _make(self, partition: int, blob: bytes, row: Blob, position: int, store: str) -> None:
        """Make a blob's shards of a position on a store, durable on return, all of them: what can be read there may
        not be on its disk yet."""
        taken: set[str] = set()
        async with self._limit:
            stripes = list(stripes_of(row))
            for number, length in stripes:
                shard = Shard(partition, blob, position, number)
                data = await self._copied(shard, length, store) or await self._reconstructed(shard, row, length)
                taken.add(await self._router.append_to(store, shard, bytes(data), number == stripes[-1][0]))
                self.made_shards += 1
                self.made_bytes += length
                if self._bytes_per_s:
                    await asyncio.sleep(CONCURRENT * length * row.k / self._bytes_per_s)
        if len(taken) > 1:
            raise OfflineError(f"store {store[:8]} started again while shards were made on it")

    async def _copied(self, shard: Shard, length: int, store: str) -> Buffer | None:
        """The shard as the store has it that holds the position until now, if there is one."""
        held = self._node.keeper.current.partitions[shard.partition].config.members[shard.position]
        if not held or held == store or not self._router.is_up(held):
            return None
        try:
            data = await (await self._router.node(held)).read(shard, 0, length)
        except (DamagedError, UnavailableError):
            return None
        self.read_bytes += length
        return data

    async def _reconstructed(self, shard: Shard, row: Blob, length: int) -> Buffer:
        found = await sources(self._router.read, shard, row, length)
        self.read_bytes += length * row.k
        return codec(row.k, row.m).reconstruct(found, [shard.position])[shard.position]


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    """All results; raises the first failure once all have ended."""
    found: list[T] = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found

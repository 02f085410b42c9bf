"""Making lost shards again: the same for the drives of one server and for the stores of a cluster.

It works off heal rows and confirms what a store has that is being filled. Where a shard is due and how it is written is
its target's to say: a drive of this process (upkeep/heal.py) or a store that is reached over the network
(upkeep/mend.py). Who decides that a store is filled, and what the map says then, is theirs too.

What is to be done is on disk: heal rows name single shards, and the map names the store that is being filled. So after a
crash what is there is passed over, and work is where it was. Rules that an editor must not break: shards are durable, all
of one blob in one process, before a heal row goes or a position flips (D1, D2); every blob row is confirmed on the store
that is filled or queued as a heal row (D3); the blob row is looked at first, and once more afterwards, for what is freed
meanwhile leaves orphans at worst (D6). What fails is left for later, and hinders nothing behind it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from typing import Protocol, TypeVar

from s4.erasure.codec import Buffer, ErasureError, codec, stripes_of
from s4.metadata import commands, keys
from s4.metadata.commands import AnyAnswer, AnyCommand, Taken
from s4.metadata.rows import Blob, decode
from s4.metadata.rows import Counters as CountersRow
from s4.peer.api import CallError
from s4.storage.records import DamagedError, DiskFullError, OfflineError, Shard

log = logging.getLogger(__name__)

BATCH = 64
CONCURRENT = 4  # shards that are made at the same time
WAIT_S, MOST_WAIT_S = 5.0, 60.0  # for a partition of whose queue nothing could be done, first and again and again

T = TypeVar("T")
Failed = (DamagedError, ErasureError, DiskFullError, CallError)
Blobs = list[tuple[bytes, Blob]]


class Target(Protocol):
    """Where shards are written. `retry_s` is how long a shard waits that could not be made."""

    retry_s: float

    def store_for(self, partition: int, position: int) -> str:
        """The store to which a shard of a position goes now; empty where there is none, or it is away."""
        ...

    def there(self, partition: int) -> frozenset[str]:
        """The stores of a partition that can be asked now."""
        ...

    def is_up(self, store: str) -> bool: ...

    async def is_whole(self, shard: Shard, length: int) -> bool:
        """Whether a shard is there, durable and good, so that it need not be made."""
        ...

    async def copied(self, shard: Shard, length: int, store: str) -> Buffer | None:
        """The shard as another than `store` has it which holds the position until now, if there is one."""
        ...

    async def read(self, shard: Shard, offset: int, length: int) -> Buffer:
        """Raises DamagedError."""
        ...

    async def append(self, store: str, shard: Shard, data: Buffer, last: bool) -> str:
        """Who took it; `last` of its blob. Durable once `flush` has returned."""
        ...

    async def flush(self) -> None: ...

    async def lacking(self, store: str, partition: int, position: int, blobs: Blobs) -> list[bytes]:
        """Those of the blobs of which a store lacks a shard."""
        ...

    async def discard(self, store: str, partition: int, blob: bytes, position: int) -> None:
        """Drop what a store has of a position. Its blob died while it was made; the others' go once nobody reads them
        (D6)."""


class AnyRows(Protocol):
    """The rows of the partitions that are served here."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...

    def check(self, partition: int) -> None:
        """Raises StaleError where another may lead by now."""
        ...

    def submit(self, partition: int, command: AnyCommand, *, own: bool = False) -> Awaitable[AnyAnswer]: ...


@dataclass(slots=True)
class Fill:
    """How far the filling of a store is, in blob rows."""

    total: int = 0
    done: int = 0
    made_bytes: int = 0
    started_s: float = field(default_factory=time.time)


@dataclass(slots=True)
class Wait:
    """Until when a partition's queue is left alone, and for how long that is. `there` are the stores that were there
    all the time: another one ends it."""

    until: float
    seconds: float
    there: frozenset[str]


class ShardRepair:
    """No more than `bytes_per_s` are read to make shards again; 0 is no bound."""

    def __init__(self, rows: AnyRows, target: Target, bytes_per_s: float) -> None:
        self._rows, self.target, self._bytes_per_s = rows, target, bytes_per_s
        self._limit = asyncio.Semaphore(CONCURRENT)
        self.later: dict[bytes, float] = {}  # heal rows that failed, and when they are tried again
        self.waits: dict[int, Wait] = {}  # partitions whose queue cannot be worked on now
        self.made_shards = self.made_bytes = self.read_bytes = 0

    @property
    def failed(self) -> int:
        """Shards that could not be made again when last tried."""
        return len(self.later)

    def leads(self, partitions: Container[int]) -> None:
        """Others work on the rest now: what failed there is theirs to try, and to tell."""
        self.later = {row: when for row, when in self.later.items() if keys.split_heal(row)[0] in partitions}
        self.waits = {partition: wait for partition, wait in self.waits.items() if partition in partitions}

    def blobs(self, partition: int) -> int:
        value = self._rows.get(keys.counters_row(partition, 0))
        return decode(CountersRow, value).blobs if value is not None else 0

    # -- the queue

    async def heal_queue(self, partition: int) -> None:
        """One round. Where nothing could be done the next one waits, each time longer, for a store may be away for
        long; not once one comes."""
        now, there, wait = time.monotonic(), self.target.there(partition), self.waits.get(partition)
        if wait is not None and there <= wait.there:
            wait.there = there
            if now < wait.until:
                return
        else:
            wait = None
        store_for = cache(partial(self.target.store_for, partition))  # of each position asked once, not for each row
        table = start = keys.table(partition, keys.HEAL)
        seen = done = 0
        while rows := [key for key, _ in islice(self._rows.scan(table, start), BATCH)]:
            start = rows[-1] + b"\x00"
            seen += len(rows)
            due = [row for row in rows if self.later.get(row, 0.0) <= now and store_for(keys.split_heal(row)[2])]
            if not due:
                await asyncio.sleep(0)
                continue
            healed = await _all(self._heal(row) for row in due)
            if any(healed):
                await self.target.flush()
            done += len(await _all(self._forget(*keys.split_heal(row), store) for row, store in filter(None, healed)))
        if seen and not done:
            seconds = min(2 * wait.seconds, MOST_WAIT_S) if wait is not None else WAIT_S
            self.waits[partition] = Wait(time.monotonic() + seconds, seconds, there)
        else:
            self.waits.pop(partition, None)
        self.later = {row: when for row, when in self.later.items() if self._rows.get(row) is not None}

    async def _heal(self, row: bytes) -> tuple[bytes, str] | None:
        """A heal row whose shard is whole now, or not wanted any more, and the store that has it."""
        partition, blob, position = keys.split_heal(row)
        store = self.target.store_for(partition, position)
        if not store:
            return None
        value = self._rows.get(keys.blob_row(partition, blob))
        try:
            if value is not None:
                await self.make(partition, blob, decode(Blob, value), position, store)
            else:
                self._rows.check(partition)  # as in _confirm
        except Failed as error:
            log.error("blob %s, position %d cannot be healed: %s", blob.hex(), position, error)
        except Exception:  # what is behind it in the queue is healed all the same
            log.exception("blob %s, position %d cannot be healed", blob.hex(), position)
        else:
            return row, store
        self.later[row] = time.monotonic() + self.target.retry_s
        return None

    async def _forget(self, partition: int, blob: bytes, position: int, store: str) -> None:
        answer = await self._rows.submit(partition, commands.Healed(blob, [position], [store]), own=True)
        if isinstance(answer, Taken) and not answer.granted:
            await self.target.discard(store, partition, blob, position)

    # -- filling

    async def fill(
        self, partition: int, position: int, store: str, fill: Fill, still: Callable[[], bool] = lambda: True
    ) -> bool:
        """Have every shard of a position made on a store. False where `still` said that it is not wanted any more."""

        async def confirm(blob: bytes, row: Blob) -> None:
            # In two lines: many are made at a time, and each would add to what it read before it waited.
            made = await self._confirm(partition, blob, row, position, store)
            fill.made_bytes += made

        return await self._over_lacking(partition, position, store, fill, still, confirm)

    async def queue(self, partition: int, position: int, store: str, fill: Fill, still: Callable[[], bool]) -> bool:
        """Have every shard of a position queued that a store lacks."""

        async def need(blob: bytes, _: Blob) -> None:
            await self._rows.submit(partition, commands.NeedHeal(blob, [position]), own=True)

        return await self._over_lacking(partition, position, store, fill, still, need)

    async def _over_lacking(
        self,
        partition: int,
        position: int,
        store: str,
        fill: Fill,
        still: Callable[[], bool],
        work: Callable[[bytes, Blob], Awaitable[None]],
    ) -> bool:
        table = start = keys.table(partition, keys.BLOB)
        while rows := list(islice(self._rows.scan(table, start), BATCH)):
            start = rows[-1][0] + b"\x00"
            blobs = {key[len(table) :]: decode(Blob, value) for key, value in rows}
            lacking = await self.target.lacking(store, partition, position, list(blobs.items()))
            await _all(work(blob, blobs[blob]) for blob in lacking if position < blobs[blob].k + blobs[blob].m)
            fill.done += len(rows)
            if not still():
                return False
        await self.target.flush()
        return still()

    async def _confirm(self, partition: int, blob: bytes, row: Blob, position: int, store: str) -> int:
        """Make what a blob lacks at a position, or queue it; returns the bytes."""
        made = 0
        try:
            made = await self.make(partition, blob, row, position, store)
        except (DamagedError, ErasureError) as error:
            if isinstance(error, OfflineError) and not self.target.is_up(store):
                raise
            log.error("blob %s, position %d cannot be made: %s", blob.hex(), position, error)
            await self._rows.submit(partition, commands.NeedHeal(blob, [position]), own=True)
        if self._rows.get(keys.blob_row(partition, blob)) is None:
            # A copy that leads no more loses its rows before it is filled anew: nothing is dead by that.
            self._rows.check(partition)
            await self.target.discard(store, partition, blob, position)
        return made

    # -- making shards

    async def make(self, partition: int, blob: bytes, row: Blob, position: int, store: str) -> int:
        """Make a blob's shards of a position on a store which are not whole there; returns their bytes. Durable after
        the target's next flush. Raises what is in Failed."""
        taken: set[str] = set()
        made = 0
        async with self._limit:
            stripes = list(stripes_of(row))
            for number, length in stripes:
                shard = Shard(partition, blob, position, number)
                if await self.target.is_whole(shard, length):
                    continue
                data = await self.target.copied(shard, length, store)
                self.read_bytes += length if data is not None else 0
                if data is None:
                    found = await sources(self.target.read, shard, row, length)
                    self.read_bytes += length * row.k
                    data = codec(row.k, row.m).reconstruct(found, [position])[position]
                taken.add(await self.target.append(store, shard, data, number == stripes[-1][0]))
                made += length
                self.made_shards += 1
                self.made_bytes += length
                if self._bytes_per_s:  # each of those that run at once takes its part of the rate
                    await asyncio.sleep(CONCURRENT * length * row.k / self._bytes_per_s)
        if len(taken) > 1:
            raise OfflineError(f"store {store[:8]} started again while shards were made on it")
        return made


async def sources(
    read: Callable[[Shard, int, int], Awaitable[Buffer]], shard: Shard, row: Blob, length: int
) -> dict[int, Buffer]:
    """`row.k` other shards of a shard's stripe by position, each `length` bytes: more are asked only where some fail.

    `read(shard, offset, length)` raises `DamagedError` for one that cannot be had; any other error is passed on.
    Raises `DamagedError` where fewer than k can be read.
    """
    others = [position for position in range(row.k + row.m) if position != shard.position]
    found: dict[int, Buffer] = {}
    while len(found) < row.k and others:
        group, others = others[: row.k - len(found)], others[row.k - len(found) :]
        reads = [read(Shard(shard.partition, shard.blob, one, shard.stripe), 0, length) for one in group]
        for one, result in zip(group, await asyncio.gather(*reads, return_exceptions=True), strict=True):
            if not isinstance(result, BaseException):
                found[one] = result
            elif not isinstance(result, DamagedError):
                raise result
    if len(found) < row.k:
        raise DamagedError(f"stripe {shard.stripe} has {len(found)} good shards of which {row.k} are needed")
    return found


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    """All results; raises the first failure once all have ended."""
    found: list[T] = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found

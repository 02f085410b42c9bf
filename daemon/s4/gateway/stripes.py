"""Reading stripes of a blob: the data shards that a range touches, or what can be made of the others.

A shard that is missing, damaged or slow is done without: the same range is read from k other shards and
reconstructed. Reads of shards run at the same time; one that has not come after `hedge_s` counts as slow, and
the next one is asked beside it. Finding damage queues the shard for healing, which the node does (node/base.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from s4.erasure.codec import codec, shard_length
from s4.gateway.context import Gateway
from s4.metadata.rows import Blob
from s4.storage.records import DamagedError, OfflineError, Shard


class Stripe:
    """One stripe of a blob."""

    def __init__(self, gateway: Gateway, partition: int, blob: bytes, row: Blob, number: int) -> None:
        self._gateway, self._partition, self._blob, self._row, self._number = gateway, partition, blob, row, number
        self._length = shard_length(min(row.stripe, row.size - number * row.stripe), row.k)
        self._away = False  # whether a store or drive could not be reached

    def _read(self, position: int, start: int, length: int) -> asyncio.Task[memoryview]:
        shard = Shard(self._partition, self._blob, position, self._number)
        return asyncio.ensure_future(self._gateway.node.read(shard, start, length))

    async def read(self, start: int, length: int) -> list[memoryview]:
        """Bytes [start, start + length) of the stripe, in pieces. Raises DamagedError where too much is lost."""
        if self._row.k + self._row.m == 1:
            shard = Shard(self._partition, self._blob, 0, self._number)
            return [await self._gateway.node.read(shard, start, length)]
        wanted: dict[int, tuple[int, int]] = {}  # position to its range
        for position in range(start // self._length, (start + length - 1) // self._length + 1):
            base = position * self._length
            first, last = max(start - base, 0), min(start + length - base, self._length)
            wanted[position] = (first, last)
        found = self._at_hand(wanted)
        waiting = {position: span for position, span in wanted.items() if position not in found}
        if not waiting:
            return [found[position] for position in wanted]
        tasks = {position: self._read(position, first, last - first) for position, (first, last) in waiting.items()}
        try:
            await asyncio.wait(tasks.values(), timeout=self._gateway.hedge_s)
            found.update({position: task.result() for position, task in tasks.items() if self._came(task)})
            lost = [position for position in wanted if position not in found]
            if lost:
                slow = [position for position in lost if not tasks[position].done()]
                found.update(await self._without(lost, slow, wanted))
        finally:
            _drop(tasks.values())
        return [found[position] for position in wanted]

    def _at_hand(self, wanted: dict[int, tuple[int, int]]) -> dict[int, memoryview]:
        """The ranges that need no waiting for a disk or a peer, read where we stand: tasks cost more than such
        reads."""
        found = {}
        for position, (first, last) in wanted.items():
            shard = Shard(self._partition, self._blob, position, self._number)
            data = self._gateway.node.read_now(shard, first, last - first)
            if data is not None:
                found[position] = data
        return found

    async def _without(
        self, lost: Sequence[int], slow: Sequence[int], wanted: dict[int, tuple[int, int]]
    ) -> dict[int, memoryview]:
        """The wanted ranges of lost shards, made from k others; slow ones are asked last."""
        first, last = min(wanted[one][0] for one in lost), max(wanted[one][1] for one in lost)
        others = [position for position in range(self._row.k + self._row.m) if position not in lost]
        shards = await self._any(self._row.k, [*others, *slow], first, last - first)
        made = codec(self._row.k, self._row.m).reconstruct(shards, [one for one in lost if one not in shards])
        whole = {**shards, **made}
        return {one: memoryview(whole[one])[wanted[one][0] - first : wanted[one][1] - first] for one in lost}

    def _came(self, task: asyncio.Task[memoryview]) -> bool:
        """Whether a read gave bytes; DamagedError is why it may not. Raises any other error."""
        if not task.done():
            return False
        error = task.exception()
        if error is not None and not isinstance(error, DamagedError):
            raise error
        self._away |= isinstance(error, OfflineError)
        return error is None

    async def _any(self, count: int, positions: Sequence[int], start: int, length: int) -> dict[int, memoryview]:
        """The same range of `count` shards, the first that come. Raises DamagedError where so many are not left, and
        OfflineError where some of the others are only out of reach."""
        left = list(positions)
        running = {self._read(one, start, length): one for one in left[:count]}
        del left[:count]
        found: dict[int, memoryview] = {}
        try:
            while len(found) < count:
                if not running:
                    raise (OfflineError if self._away else DamagedError)(
                        f"stripe {self._number} of blob {self._blob.hex()} has {len(found)} good shards "
                        f"of which {count} are needed"
                    )
                done, _ = await asyncio.wait(
                    running, timeout=self._gateway.hedge_s if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    position = running.pop(task)
                    if self._came(task):
                        found[position] = task.result()
                if left and len(found) < count and (not done or len(running) + len(found) < count):
                    another = left.pop(0)
                    running[self._read(another, start, length)] = another
            return found
        finally:
            _drop(running)


def _drop(tasks: Iterable[asyncio.Task[memoryview]]) -> None:
    for task in tasks:
        if task.done():
            if not task.cancelled():
                task.exception()  # seen, or dealt with by what went on without it
        else:
            task.cancel()

"""Compaction: copies what is live out of a sealed volume that is mostly garbage, then unlinks it.

Order (rule D5): the copies are synced, the index that points to them is synced, every reader that could hold the old
place has ended (rule D6), be it a client's, a peer's or a punch that is late, then the file goes. A crash before the
unlink leaves a volume whose records are all dead; the next run removes it. A record that cannot be read is reported
and passed over: what stands behind it is copied all the same, and the volume stays until a heal has made that record
again elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable

from s4.base.clock import boot_clock
from s4.storage.records import DamagedError, DiskFullError, FormatError, OfflineError, Shard
from s4.storage.shards import ShardStore

log = logging.getLogger(__name__)

HEADERS = 4096
EVERY_S, BYTES_PER_S = 30.0, float(64 << 20)


def candidates(shards: ShardStore, ratio: float) -> list[int]:
    """Sealed volumes whose share of dead bytes is at least `ratio`, the most garbage first."""
    use = shards.usage()
    found = [
        (volume.dead / volume.used, number)
        for number in shards.sealed()
        if (volume := use.get(number)) is not None and volume.used and volume.dead / volume.used >= ratio
    ]
    return [number for _, number in sorted(found, reverse=True)]


async def compact_volume(
    shards: ShardStore,
    number: int,
    horizon: Callable[[], float],
    *,
    bytes_per_s: float = 0.0,
    damaged: Callable[[Shard], None] = lambda _: None,
) -> int:
    """Rewrite one sealed volume; returns the bytes that it gave back. Raises DamagedError where something has to
    stay."""
    use = shards.usage().get(number)
    before = use.dead if use else 0
    copied = start = 0
    while headers := await shards.read_headers(number, start, HEADERS):
        for offset, record in headers:
            start = offset + record.size
            location = shards.locate(record.shard)
            if location is None or (location.volume, location.offset) != (number, offset):
                continue
            try:
                data = await shards.read(record.shard, 0, record.length)
            except DamagedError as error:
                if not isinstance(error, OfflineError) and shards.locate(record.shard) == location:
                    damaged(record.shard)
                continue
            await shards.append(record.shard, [data], sync=False, replaces=location)
            copied += record.size
            if bytes_per_s:
                await asyncio.sleep(record.size / bytes_per_s)
    left = shards.usage().get(number)
    await shards.flush()
    if (
        left is not None and left.used > left.dead
    ):  # a live record is damaged, or its header, and the scan passed it over
        raise DamagedError(f"{left.used - left.dead} live bytes could not be read, or were not found by their headers")
    moved = boot_clock()
    while min(horizon(), shards.oldest_use()) < moved:  # noqa: ASYNC110 - readers end in any process, which no event here tells
        await asyncio.sleep(0.05)
    await shards.forget_volume(number)
    log.info("volume %08x compacted: %d bytes copied, %d given back", number, copied, before)
    return before


async def compact_one(
    shards: ShardStore,
    number: int,
    horizon: Callable[[], float],
    *,
    bytes_per_s: float = 0.0,
    damaged: Callable[[Shard], None] = lambda _: None,
) -> int:
    """As `compact_volume`, but a volume that cannot be compacted is left as it is, and logged; one that was, or is, by
    somebody else, is passed over."""
    if number in shards.compacting or number not in shards.sealed():
        return 0
    shards.compacting.add(number)
    try:
        return await compact_volume(shards, number, horizon, bytes_per_s=bytes_per_s, damaged=damaged)
    except (DamagedError, DiskFullError, FormatError, OSError) as error:
        log.error("volume %08x is left as it is: %s", number, error)
        return 0
    finally:
        shards.compacting.discard(number)


class Compactor:
    """Of all stores of a process. `damaged` is told of each shard that was found so."""

    def __init__(
        self,
        stores: Callable[[], Iterable[ShardStore]],
        ratio: float,
        horizon: Callable[[], float],
        damaged: Callable[[Shard], None],
    ) -> None:
        self._stores, self._ratio, self._horizon, self._damaged = stores, ratio, horizon, damaged

    async def steps(self, ratio: float, *, bytes_per_s: float = 0.0) -> AsyncIterator[dict[str, int]]:
        """What is done before each volume, and at the end."""
        numbers = [(store, number) for store in self._stores() for number in candidates(store, ratio)]
        freed = 0
        for done, (store, number) in enumerate(numbers):
            yield {"done": done, "total": len(numbers), "freed_bytes": freed}
            freed += await compact_one(store, number, self._horizon, bytes_per_s=bytes_per_s, damaged=self._damaged)
        yield {"done": len(numbers), "total": len(numbers), "freed_bytes": freed}

    async def run(self) -> None:
        async for _ in self.steps(self._ratio, bytes_per_s=BYTES_PER_S):
            pass

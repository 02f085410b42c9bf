"""Reading what a lost shard is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from s4.erasure.codec import Buffer
from s4.metadata.rows import Blob
from s4.storage.records import DamagedError, Shard

Read = Callable[[Shard, int, int], Awaitable[Buffer]]


async def sources(read: Read, shard: Shard, row: Blob, length: int) -> dict[int, Buffer]:
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

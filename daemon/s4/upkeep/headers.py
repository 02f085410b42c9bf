"""What a scrub reads of a shard: its bytes, and the header of its record.

Reads go by the index and need no header. A start that has lost its index does, and so does compaction, which keeps a
volume for ever where it does not find all that is live. So a record whose header alone is damaged is written anew while
its bytes are there, as compaction would: the new one counts only if the shard is still at the old place, and a crash
before that is durable leaves the old one.
"""

from __future__ import annotations

import logging

from s4.storage.records import DiskFullError, FormatError, OfflineError, Shard
from s4.storage.shards import ShardStore

log = logging.getLogger(__name__)


async def read_whole(store: ShardStore, shard: Shard, length: int) -> memoryview:
    """All bytes of a shard. Raises DamagedError."""
    location = store.locate(shard)
    data = await store.read(shard, 0, length)
    if location is None or store.locate(shard) != location:  # compaction, or a heal, has just written it
        return data
    try:
        found = await store.read_headers(location.volume, location.offset, 1)
    except (FormatError, OSError) as error:
        raise OfflineError(f"{shard}: volume {location.volume:08x} cannot be read now: {error}") from error
    if not found or found[0][0] != location.offset or found[0][1].shard != shard:
        log.error("damaged: the header of %s in volume %08x at %d", shard, location.volume, location.offset)
        try:
            await store.append(shard, [data], sync=False, replaces=location)
        except DiskFullError as error:  # the next scrub finds it again
            log.error("%s cannot be written anew: %s", shard, error)
    return data

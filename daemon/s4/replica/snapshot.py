"""A snapshot of a partition on its way from the one that leads to one that joins: all committed rows, in parts.

Neither side holds more of it than a part: it may be millions of rows, and rows may have content (metadata/small.py).
The sender walks a snapshot of its database and sends the next part once the one before is on the other's disk. Who
joins clears what it has, piece by piece, and puts each part into its rows as it comes (R8). Until the last one is in
it is LOST (M4), which was durable before the first row went: a crash at any point leaves a copy that counts for
nothing, and that asks for all of it again.

Few go out at once. What is committed meanwhile is kept for who joins, up to a bound (terms.MOST_KEPT_BYTES), beyond
which it begins anew: hundreds side by side, as after a disk was replaced, would all take longer than that and begin
anew for ever, where one after the other is done in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import chain

from s4.cluster.messages import SnapshotPart
from s4.peer.api import CallError
from s4.replica.core import Replica
from s4.replica.keptrows import packed
from s4.replica.layer import Layer
from s4.storage.leveldb import Database

log = logging.getLogger(__name__)

PART_ROWS, PART_BYTES = 2000, 2 << 20
AT_ONCE = 2  # of one store's
LOOK_S = 0.2


class Outgoing:
    """Sends snapshots of one store's partitions. `send` waits until the other side took a part, and raises
    CallError."""

    def __init__(
        self,
        database: Database,
        committed: Layer,
        send: Callable[[str, int, SnapshotPart], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._database, self._committed, self._send, self._clock = database, committed, send, clock
        self._under_way = 0

    async def send(self, partition: int, core: Replica, to: str, attempt: int) -> None:
        """In its turn. It changes nothing here: whatever cuts it off, the other side asks again."""
        while core.sending(to, attempt, self._clock(), begins=True):
            if self._under_way >= AT_ONCE:
                await asyncio.sleep(LOOK_S)
                continue
            self._under_way += 1
            try:
                await self._rows(partition, core, to, attempt)
            except CallError as error:
                log.info(
                    "partition %d: a snapshot for %s was cut off, and is asked for again: %s", partition, to[:8], error
                )
            except Exception:  # damaged rows too, of which the database has told by now (node/metadata_copy.py)
                log.exception("partition %d: a snapshot for %s failed, and is asked for again", partition, to[:8])
            finally:
                self._under_way -= 1
            return

    async def _rows(self, partition: int, core: Replica, to: str, attempt: int) -> None:
        """All rows as of the commit sequence: those of the database under those of the layer over it."""
        epoch, sequence = core.state.epoch, core.state.commit
        first, last = partition.to_bytes(2, "big"), (partition + 1).to_bytes(2, "big")
        over = {key: value for key, value in self._committed.rows.items() if first <= key < last}
        snapshot = self._database.snapshot()
        try:
            for number, (part, whole) in enumerate(parts(snapshot.scan(first, last), over)):
                await self._send(to, partition, SnapshotPart(epoch, sequence, number, packed(part), whole, attempt))
                if not core.sending(to, attempt, self._clock()):
                    return
        finally:
            snapshot.close()


def parts(
    rows: Iterable[tuple[bytes, bytes]], over: Mapping[bytes, bytes | None]
) -> Iterator[tuple[list[tuple[bytes, bytes]], bool]]:
    """(rows, whether they are the last) of a snapshot: those of the database, under the committed ones `over` them."""
    part: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in chain(rows, over.items()):
        if len(part) >= PART_ROWS or size >= PART_BYTES:
            yield part, False
            part, size = [], 0
        if value is not None and over.get(key, value) == value:
            part.append((key, value))
            size += len(value)
    yield part, True

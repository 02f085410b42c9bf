"""What an upgrade must put right is put right once, in the background, and is seen: `s4_repairs_left`, and a line at
its end. Rows only: lost shards are made again by heal.py and mend.py.

It reads one partition after the other, from a snapshot, in pieces between which everybody else has a turn. A crash
costs what was read of one partition. Once a partition says that it is done, nothing of it is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator

from s4.base.metrics import Metric, gauge
from s4.metadata import keys
from s4.metadata.commands import AnyAnswer, AnyCommand, Recounted
from s4.metadata.rows import Blob, Counters, Reference, decode
from s4.storage.leveldb import Database

log = logging.getLogger(__name__)

PAUSE_ROWS, PAUSE_S = 500, 0.005


class Repairer:
    """`submit` has a command decided by a partition that this process serves; `partitions` are those."""

    def __init__(
        self,
        database: Callable[[], Database],
        submit: Callable[[int, AnyCommand], Awaitable[AnyAnswer]],
        partitions: Callable[[], Iterable[int]],
    ) -> None:
        self._database, self._submit, self._partitions = database, submit, partitions
        self._done: set[int] = set()
        self.mended = 0

    def _waiting(self) -> list[int]:
        database = self._database()
        for partition in set(self._partitions()) - self._done:
            if database.get(keys.repaired_row(partition)) is not None or not self._has_references(partition):
                self._done.add(partition)
        return sorted(set(self._partitions()) - self._done)

    def _has_references(self, partition: int) -> bool:
        prefix = keys.table(partition, keys.REFERENCE)
        return next(self._database().scan(prefix, keys.after(prefix)), None) is not None

    async def run(self) -> None:
        """One round over what this process serves now."""
        waiting = self._waiting()
        for partition in waiting:
            differences = await self._differences(partition)
            await self._submit(partition, Recounted(sorted(differences.items())))
            self._done.add(partition)
            self.mended += len(differences)
        if waiting:
            log.info(
                "after the upgrade %d partitions were counted again, %d counters were put right",
                len(waiting),
                self.mended,
            )

    async def _differences(self, partition: int) -> Counter[int]:
        """By how much the counters are behind, by bucket."""
        rows, found, before = self._database().snapshot(), Counter[int](), b""
        try:
            prefix = keys.table(partition, keys.REFERENCE)
            for number, (key, value) in enumerate(rows.scan(prefix, keys.after(prefix))):
                if number % PAUSE_ROWS == PAUSE_ROWS - 1:
                    await asyncio.sleep(PAUSE_S)
                name = key[len(prefix) : len(prefix) + 16]
                row = rows.get(keys.blob_row(partition, name)) if name == before else None
                if row is not None:  # not the first reference to its blob
                    found[decode(Reference, value).bucket] += decode(Blob, row).size
                before = name
            kept = keys.table(partition, keys.COUNTERS)
            for key, value in rows.scan(kept, keys.after(kept)):
                found[int.from_bytes(key[len(kept) :], "big")] -= decode(Counters, value).saved
        finally:
            rows.close()
        return Counter({bucket: difference for bucket, difference in found.items() if difference})

    def metrics(self) -> Iterator[Metric]:
        yield gauge("s4_repairs_left", "Partitions that are to be put right after an upgrade", len(self._waiting()))

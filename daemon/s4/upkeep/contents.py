"""The SHA-256 of every blob of a cluster, which the CRCs of its shards cannot vouch for: the work of who leads its
partition.

A blob is read as a request reads it, of whichever shards are there, and what it is made of compared with what was
written. Each partition has a time of its own at which this was done last, as far as this node knows: who comes to lead
one that it never read reads it, so that a partition whose leader changes is read too early rather than never. Where it
is stands in a file (progress.py), so that a restart goes on. Nothing here repairs: shards that are whole and yet make
another blob can be told from good ones by nobody; people are told which blobs they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

import msgspec

from s4.erasure.codec import stripes_of
from s4.gateway.context import Gateway
from s4.gateway.stripes import Stripe
from s4.metadata import keys
from s4.metadata.rows import Blob, decode
from s4.metadata.small import content_of
from s4.peer.api import CallError
from s4.storage.records import DamagedError
from s4.upkeep.progress import ProgressFile
from s4.upkeep.scrub import alarms_of

log = logging.getLogger(__name__)

NAME = "contents.json"
RUN = 64


class Rows(Protocol):
    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


class Checked(msgspec.Struct):
    """What was read so far. `ended` has, by partition, when it was read to its end; `after` is the last blob that was
    read of `partition`, in hexadecimal; times are seconds since 1970. `wrong` are blobs that are not what was written,
    with their partitions."""

    running: bool = False
    partition: int = 0
    after: str = ""
    blobs: int = 0
    bytes_read: int = 0
    ended_s: float = 0.0
    ended: dict[int, float] = {}
    wrong: dict[str, int] = {}


class Contents:
    """Of one node. `led` are the partitions that it leads now."""

    def __init__(
        self,
        gateway: Gateway,
        rows: Rows,
        led: Callable[[], list[int]],
        file: ProgressFile[Checked],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._gateway, self._rows, self.led, self._file, self._clock = gateway, rows, led, file, clock
        self._lock = asyncio.Lock()
        self.checked = file.load()

    def due(self, every_s: float) -> list[int]:
        """Partitions that this node leads and did not read for so long; 0 is never. What was begun comes first."""
        now_s, ended, begun = self._clock(), self.checked.ended, self.checked.partition if self.checked.running else -1
        if every_s <= 0:
            return []
        found = [one for one in self.led() if not 0 <= now_s - ended.get(one, float("-inf")) < every_s]
        return sorted(found, key=lambda one: (one != begun, one))

    def alarms(self) -> list[str]:
        return alarms_of(list(self.checked.wrong))

    def _forget(self) -> None:
        """What is deleted is no fault any more, and what others lead is theirs to tell."""
        led, wrong = set(self.led()), self.checked.wrong
        for name, partition in list(wrong.items()):
            if partition not in led:
                self.checked.ended.pop(partition, None)  # should it be ours again, it is read again
            elif self._rows.get(keys.blob_row(partition, bytes.fromhex(name))) is not None:
                continue
            del wrong[name]

    async def run_when_due(self, every_s: float, bytes_per_s: float) -> None:
        await self.run(self.due(every_s), bytes_per_s)

    async def run(self, partitions: list[int], bytes_per_s: float, *, anew: bool = False) -> Checked:
        """Read all blobs of these partitions, at a bounded rate; 0 is no bound. One that was cut off is gone on with,
        unless `anew`."""
        async with self._lock:
            if anew:
                self.checked.running = False
            self._forget()
            for partition in partitions:
                try:
                    await self._partition(partition, bytes_per_s)
                except CallError as error:
                    log.info("partition %d: its contents are read later: %s", partition, error)
            return self.checked

    async def _partition(self, partition: int, bytes_per_s: float) -> None:
        place, table = self.checked, keys.table(partition, keys.BLOB)
        if partition not in self.led():
            return
        if not place.running or place.partition != partition:
            place.running, place.partition, place.after = True, partition, ""
        start = table + bytes.fromhex(place.after) + b"\x00" if place.after else table
        while rows := list(islice(self._rows.scan(table, start), RUN)):  # an iterator kept open holds tables
            for key, value in rows:
                if partition not in self.led():
                    return  # who leads it now does it
                read = await self._blob(partition, key[len(table) :], decode(Blob, value), content_of(value))
                place.after = key[len(table) :].hex()
                self._file.save_sometimes(place)
                await asyncio.sleep(read / bytes_per_s if bytes_per_s else 0)
            start = rows[-1][0] + b"\x00"
        if partition not in self.led():
            return  # and its rows may be gone, to be filled anew
        place.running, place.after, place.ended_s = False, "", self._clock()
        place.ended[partition] = place.ended_s
        self._file.save(place)

    async def _blob(self, partition: int, blob: bytes, row: Blob, content: bytes) -> int:
        """Returns the bytes that were read. What cannot be read is the healer's, and is damage that reading it
        reported."""
        place, name, digest = self.checked, blob.hex(), hashlib.sha256(content)
        try:
            with self._gateway.readers.reading():
                for number, _ in stripes_of(row):
                    size = min(row.stripe, row.size - number * row.stripe)
                    for piece in await Stripe(self._gateway, partition, blob, row, number).read(0, size):
                        digest.update(piece)
        except DamagedError as error:
            if self._rows.get(keys.blob_row(partition, blob)) is not None:
                log.warning("blob %s cannot be read: %s", name, error)
            return 0
        place.blobs += 1
        place.bytes_read += row.size
        whole = digest.digest() == row.sha256
        if whole:
            place.wrong.pop(name, None)
        elif name not in place.wrong and self._rows.get(keys.blob_row(partition, blob)) is not None:
            place.wrong[name] = partition
            log.error(
                "blob %s of partition %d is not what was written, though what has its bytes is whole", name, partition
            )
        return row.size

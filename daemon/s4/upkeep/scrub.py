"""Scrub: reads every shard of every blob on a cycle, and every row of every copy of the metadata.

Each block's CRC is checked by reading it, and each record's header (headers.py); a deep scrub checks the SHA-256 of
each blob's data too, which the CRCs of its shards cannot vouch for. What is missing or damaged is queued for healing.
The place is kept in a file (progress.py), so that a scrub goes on after a restart. Bytes a second are bounded. Rows
are read in short runs, since an iterator that is kept open holds old tables on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from itertools import islice

import msgspec

from s4.erasure.codec import stripes_of
from s4.metadata import keys
from s4.metadata.commands import AnyAnswer
from s4.metadata.rows import Blob, decode
from s4.metadata.small import content_of
from s4.node.base import Node
from s4.storage.directory import DriveError
from s4.storage.leveldb import DatabaseError, is_damage, verify
from s4.storage.records import DamagedError, OfflineError, Shard
from s4.upkeep.headers import read_whole
from s4.upkeep.progress import ProgressFile, is_due

log = logging.getLogger(__name__)

RUN = 64


class Place(msgspec.Struct):
    """Where a scrub is. `after` is the last blob that was read, in hexadecimal; times are seconds since 1970."""

    running: bool = False
    deep: bool = False
    partition: int = 0
    after: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0
    blobs: int = 0
    bytes_read: int = 0
    damaged: int = 0
    unhealable: list[str] = []


def alarms_of(wrong: list[str]) -> list[str]:
    """What people are told of blobs that nobody can make again."""
    text = "blobs are not what was written, though their shards are whole: s4 admin scrub --deep names them"
    return [f"{len(wrong)} {text}"] if wrong else []


class Scrubber:
    """Scrubs one node. One run at a time; a second caller waits for it and gets the same result."""

    def __init__(
        self,
        node: Node,
        bytes_per_s: float,
        fatal: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._node, self._bytes_per_s, self._fatal, self._clock = node, bytes_per_s, fatal, clock
        first = next(drive.directory for drive, _ in node.drives.online())
        self._file = ProgressFile(node.drives.stores[0].files, first, Place)
        self._lock = asyncio.Lock()
        self._queued: list[asyncio.Future[AnyAnswer]] = []
        self.bytes_read = self.damaged = 0
        self.place = self._file.load()

    @property
    def ended_s(self) -> float:
        return self.place.ended_s

    def alarms(self) -> list[str]:
        return alarms_of(self.place.unhealable)

    def due(self, every_s: float) -> bool:
        """Whether a scrub was cut off, or the last one is longer ago than `every_s`; 0 is never."""
        return is_due(self.place, every_s, self._clock())

    async def run(self, *, deep: bool, bytes_per_s: float | None = None, anew: bool = False) -> Place:
        """Scrub everything, or without `anew` go on with what was cut off: who asks for a scrub wants to know of all
        as it is now. Without `bytes_per_s` as fast as was set; 0 is no bound."""
        rate = self._bytes_per_s if bytes_per_s is None else bytes_per_s
        async with self._lock:
            if anew or not self.place.running:
                deep = deep or (self.place.running and self.place.deep)  # that one was due, and is none any more
                self.place = Place(True, deep, started_s=self._clock(), ended_s=self.place.ended_s)
            for store in self._node.drives.stores:
                try:
                    await store.drop_deleted()
                except OSError as error:
                    log.error("%s: %s", store.directory, error)
            for partition in range(self.place.partition, self._node.partitions):
                await self._partition(partition, rate)
                self.place.partition, self.place.after = partition + 1, ""
            await self._check_copies(rate)
            self.place.running, self.place.ended_s = False, self._clock()
            self._file.save(self.place)
            if self.place.damaged:
                log.error("scrub found %d shards missing or damaged; they are being healed", self.place.damaged)
            return self.place

    async def _partition(self, partition: int, rate: float) -> None:
        table = keys.table(partition, keys.BLOB)
        start = table + bytes.fromhex(self.place.after) + b"\x00" if self.place.after else table
        while rows := list(islice(self._node.host.scan(table, start), RUN)):
            for key, value in rows:
                try:
                    read = await self._blob(partition, key[len(table) :], decode(Blob, value), content_of(value))
                except Exception:  # whatever is wrong with this one, others stand behind it
                    read = 0
                    log.exception("blob %s cannot be scrubbed", key[len(table) :].hex())
                self.place.blobs += 1
                self.place.partition, self.place.after = partition, key[len(table) :].hex()
                await asyncio.sleep(read / rate if rate else 0)
            start = rows[-1][0] + b"\x00"
            for failed in await asyncio.gather(*self._queued, return_exceptions=True):
                if isinstance(failed, BaseException):
                    log.error("damage was found and could not be queued: %s", failed)
            self._queued.clear()
            self._file.save_sometimes(self.place)

    async def _blob(self, partition: int, blob: bytes, row: Blob, content: bytes) -> int:
        """Read one blob's shards; returns their bytes, or those of its row. Queues what is damaged."""
        digest, read, bad = hashlib.sha256(content), len(content), False
        for number, length in stripes_of(row):
            for position in range(row.k + row.m):
                shard = Shard(partition, blob, position, number)
                store = self._node.drives.find(shard)
                if store is None or self._node.is_to_come(store, shard):
                    bad = True
                    continue
                try:
                    data = await read_whole(store, shard, length)
                except OfflineError:
                    bad = True
                    continue
                except DamagedError:
                    if self._node.host.get(keys.blob_row(partition, blob)) is None:
                        return read  # deleted meanwhile
                    self._found(partition, blob, position)
                    bad = True
                    continue
                read += length
                if self.place.deep and position < row.k:
                    last = row.size - number * row.stripe - position * length
                    digest.update(data[: max(0, min(length, last))])
        self.bytes_read += read
        self.place.bytes_read += read
        if self.place.deep and not bad and digest.digest() != row.sha256:
            self.place.unhealable.append(blob.hex())
            log.error("blob %s does not have its SHA-256 though all that has its bytes is whole", blob.hex())
        return read

    def _found(self, partition: int, blob: bytes, position: int) -> None:
        self.damaged += 1
        self.place.damaged += 1
        queued = self._node.found_damage(partition, blob, position)
        if queued is not None:
            self._queued.append(queued)

    async def _check_copies(self, rate: float) -> None:
        """Read every row of every copy of the metadata. A damaged one ends the process and is made again at start.
        Raises DatabaseError."""
        for copy in self._node.host.copies.all():
            try:
                await verify(copy, keys.END, rate)
            except DatabaseError as error:
                if is_damage(error) and len(self._node.host.copies.all()) > 1:
                    self._fatal(DriveError(copy.path.parent, error))
                raise


def progress(place: Place, partitions: int) -> Iterator[tuple[str, object]]:
    """What is shown of a scrub."""
    yield "running", place.running
    yield "deep", place.deep
    yield "progress", round(place.partition / partitions, 3) if place.running else 1.0
    yield "blobs", place.blobs
    yield "bytes_read", place.bytes_read
    yield "damaged", place.damaged
    yield "unhealable", place.unhealable
    yield "started_s", place.started_s
    yield "ended_s", place.ended_s

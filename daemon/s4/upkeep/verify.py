"""Verification: walks every row and, where asked, every byte, and says what does not fit.

It trusts nothing that the server keeps in memory: each extent of each object and part must have its
reference and blob rows, each reference a holder, each blob all its shards with the right bytes, or its bytes in its row
(deep: and the SHA-256 of the whole), and the counters must equal the rows. It changes nothing. Rows are read from one
snapshot, so writes meanwhile do not confuse it; the caller holds back the freeing of shards until it is done.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from s4.crypto.segments import stored_size
from s4.erasure.codec import stripes_of
from s4.metadata import keys
from s4.metadata.rows import Blob, Counters, Extent, Gone, Part, Reference, decode, decode_object
from s4.metadata.small import content_of
from s4.node.base import Node
from s4.storage.leveldb import Snapshot
from s4.storage.records import DamagedError, Shard

MAX_PROBLEMS = 1000
PAUSE_EVERY = 1000


@dataclass(slots=True)
class Report:
    """What was found. `problems` are sentences, at most MAX_PROBLEMS of them."""

    objects: int = 0
    blobs: int = 0
    references: int = 0
    bytes_read: int = 0
    total_blobs: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)


async def verify(node: Node, *, read: bool, deep: bool) -> AsyncIterator[Report]:
    """Yields the report as it grows; the last one is whole."""
    walk = _Walk(node, await node.host.snapshot(), Report(total_blobs=node.counters().blobs))
    try:
        for partition in range(node.partitions):
            await walk.objects(partition)
            yield walk.report
        for partition in range(node.partitions):
            await walk.references(partition)
            async for _ in walk.blobs(partition, read=read, deep=deep):
                yield walk.report
        for name in walk.held:
            walk.report.problem(f"reference {name.hex()} is held by a row and has no row of its own")
        walk.counters()
        yield walk.report
    finally:
        walk.rows.close()


class _Walk:
    """One verification: the rows, what they hold, and sums to compare with the counters."""

    def __init__(self, node: Node, rows: Snapshot, report: Report) -> None:
        self.node, self.rows, self.report = node, rows, report
        self.held: Counter[bytes] = Counter()
        self._counted: dict[tuple[int, int], list[int]] = {}

    async def _scan(self, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        """Rows with a prefix; lets others run now and then."""
        for number, row in enumerate(self.rows.scan(prefix, keys.after(prefix))):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await asyncio.sleep(0)
            yield row

    def _sums(self, partition: int, bucket: int) -> list[int]:
        return self._counted.setdefault((partition, bucket), [0] * 6)

    async def objects(self, partition: int) -> None:
        async for key, value in self._scan(keys.table(partition, keys.OBJECT)):
            row, inline = decode_object(value)
            self.report.objects += 1
            if not row.marker:
                sums = self._sums(partition, int.from_bytes(key[3:11], "big"))
                sums[0] += 1
                sums[1] += row.size
            self._hold(row.extents)
            want = sum(stored_size(extent) for extent in row.extents if not extent.blob)
            if want != len(inline) or sum(extent.size for extent in row.extents) != row.size:
                self.report.problem(f"the sizes in the row of {keys.split_object(key[11:])[0]!r} do not add up")
        taken: set[bytes] = set()  # uploads whose parts an object has
        async for _, value in self._scan(keys.table(partition, keys.GONE)):
            gone = decode(Gone, value)
            self._hold([Extent(0, 0, *held) for held in gone.held], sized=False)
            if gone.taken:
                taken.add(keys.upload_parts(partition, gone.bucket, gone.key, gone.upload))
        async for key, value in self._scan(keys.table(partition, keys.PART)):
            if key[:-2] not in taken:
                self._hold([decode(Part, value).extent])

    def _hold(self, extents: list[Extent], *, sized: bool = True) -> None:
        for extent in extents:
            if not extent.blob:
                continue
            self.held[extent.reference] += 1
            if self.held[extent.reference] > 1:
                self.report.problem(f"reference {extent.reference.hex()} is held twice")
            blob = self.rows.get(keys.blob_row(extent.partition, extent.blob))
            if blob is None or (sized and decode(Blob, blob).size != stored_size(extent)):
                self.report.problem(f"blob {extent.blob.hex()} is missing or has another size than its use")

    async def references(self, partition: int) -> None:
        prefix, before = keys.table(partition, keys.REFERENCE), b""
        async for key, value in self._scan(prefix):
            self.report.references += 1
            self._sums(partition, 0)[3] += 1
            blob, name = key[len(prefix) : len(prefix) + 16], key[len(prefix) + 16 :]
            row = self.rows.get(keys.blob_row(partition, blob))
            if row is not None and blob == before:
                self._sums(partition, decode(Reference, value).bucket)[5] += decode(Blob, row).size
            before = blob
            if row is None:
                self.report.problem(f"reference {name.hex()} dangles: its blob is gone")
            if self.held.pop(name, 0) == 0:
                self.report.problem(f"reference {name.hex()} is held by nobody (the auditor drops it in time)")

    async def blobs(self, partition: int, *, read: bool, deep: bool) -> AsyncIterator[None]:
        prefix = keys.table(partition, keys.BLOB)
        async for key, value in self._scan(prefix):
            blob, row = key[len(prefix) :], decode(Blob, value)
            sums = self._sums(partition, 0)
            sums[2] += 1
            sums[4] += row.size
            self.report.blobs += 1
            references = keys.blob_references(partition, blob)
            if next(self.rows.scan(references, keys.after(references)), None) is None:
                self.report.problem(f"blob {blob.hex()} has no reference")
            await self._check_blob(partition, blob, row, content_of(value), read=read or deep, deep=deep)
            if self.report.blobs % 100 == 0:
                await asyncio.sleep(0)
                yield

    async def _check_blob(
        self, partition: int, blob: bytes, row: Blob, content: bytes, *, read: bool, deep: bool
    ) -> None:
        digest = hashlib.sha256(content)
        self.report.bytes_read += len(content)
        if not row.k and len(content) != row.size:
            self.report.problem(f"blob {blob.hex()} has {len(content)} bytes in its row, and not {row.size}")
        for position in row.missing:
            if self.rows.get(keys.heal_row(partition, blob, position)) is None:
                self.report.problem(f"blob {blob.hex()} lacks position {position}, and no heal row says so")
        for stripe, length in stripes_of(row):
            for position in range(row.k + row.m):
                shard = Shard(partition, blob, position, stripe)
                data = await self._check_shard(shard, length, read=read)
                if data is None:
                    return
                if deep and position < row.k:
                    digest.update(data[: max(0, row.size - stripe * row.stripe - position * length)])
        if deep and digest.digest() != row.sha256:
            self.report.problem(f"blob {blob.hex()} does not have its SHA-256")

    async def _check_shard(self, shard: Shard, length: int, *, read: bool) -> memoryview | None:
        """The shard's bytes (none without `read`); None where there is a problem with it, which is noted."""
        store = self.node.drives.find(shard)
        location = store.locate(shard) if store is not None else None
        if store is None or location is None or location.length != length:
            self.report.problem(f"blob {shard.blob.hex()} lacks stripe {shard.stripe} at position {shard.position}")
            return None
        if not read:
            return memoryview(b"")
        try:
            data = await store.read(shard, 0, length)
        except DamagedError as error:
            self.report.problem(str(error))
            return None
        self.report.bytes_read += length
        return data

    def counters(self) -> None:
        for partition in range(self.node.partitions):
            prefix = keys.table(partition, keys.COUNTERS)
            rows = self.rows.scan(prefix, keys.after(prefix))
            kept = {int.from_bytes(key[len(prefix) :], "big"): decode(Counters, value) for key, value in rows}
            found = {bucket: Counters(*sums) for (where, bucket), sums in self._counted.items() if where == partition}
            for bucket in kept.keys() | found.keys():
                if kept.get(bucket, Counters()) != found.get(bucket, Counters()):
                    said, true = kept.get(bucket), found.get(bucket)
                    self.report.problem(
                        f"counters of bucket {bucket} in partition {partition} say {said}, the rows {true}"
                    )

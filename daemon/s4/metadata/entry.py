"""What a decision sees and what it makes: an entry of rows put and deleted (rule R1).

`Entry` reads through its own changes to those of the turn so far and then to the database, so each decision
sees every one before it. Nothing of a decision that ends in a refusal is kept. Deltas of counters gather in
the entry too and become rows when the turn closes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Container, Iterable, Iterator
from operator import add
from typing import Protocol, TypeVar

from s4.metadata import keys
from s4.metadata.nulls import Nulls
from s4.metadata.rows import AnyAction, Counters, decode

SKEW_MS = 60_000
R = TypeVar("R")


class RefusalError(Exception):
    """A command that is answered with an S3 error; it changes nothing."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code, self.message = code, message


class RepeatedError(Exception):
    """A command that was decided before, and whose answer is gone: it is not decided again, and nobody knows (R12)."""


class Readable(Protocol):
    """Rows by their keys."""

    def get(self, key: bytes, /) -> bytes | None: ...


def find(rows: Readable, kind: type[R], key: bytes) -> R | None:
    """The row of that key, None where there is none. Raises RowError."""
    value = rows.get(key)
    return decode(kind, value) if value is not None else None


class Source(Protocol):
    """Committed rows: LevelDB, or a dict in tests."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]: ...


class Overlay:
    """Rows of a turn that are not in the database yet."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rows: dict[bytes, bytes | None] = {}
        self._order: list[bytes] = []
        self.size_bytes = 0  # of all that was put, though it be put again

    def get(self, key: bytes) -> bytes | None:
        if key in self.rows:
            return self.rows[key]
        return self.source.get(key)

    def merge(self, rows: dict[bytes, bytes | None]) -> None:
        for key, value in rows.items():
            if key not in self.rows:
                insort(self._order, key)
            self.rows[key] = value
            if value is not None:
                self.size_bytes += len(value)

    def changed(self, prefix: bytes) -> bool:
        at = bisect_left(self._order, prefix)
        if at < len(self._order) and self._order[at].startswith(prefix):
            return True
        return isinstance(self.source, Overlay) and self.source.changed(prefix)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        at, end = bisect_left(self._order, start), bisect_left(self._order, stop)
        if at == end:
            yield from self.source.scan(start, stop)
            return
        yield from _over(self.rows, self._order[at:end], self.source.scan(start, stop))


def _over(
    rows: dict[bytes, bytes | None], changed: list[bytes], below: Iterable[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """What is below, with the rows of these keys put and deleted: row by row, so that who wants the first reads one."""
    index = 0
    for key, value in below:
        while index < len(changed) and changed[index] <= key:
            mine = rows[changed[index]]
            if changed[index] != key and mine is not None:
                yield changed[index], mine
            index += 1
        current = rows.get(key, value)
        if current is not None:
            yield key, current
    for name in changed[index:]:
        mine = rows[name]
        if mine is not None:
            yield name, mine


class Entry:
    """One command's rows, while they are decided. `now_ms` is the time as most nodes have it, if it is `timed`; `room`
    says whether the disk takes more, `whole` whether all stores of the partition are there."""

    def __init__(
        self,
        overlay: Overlay,
        partition: int,
        partitions: int,
        epoch: int,
        sequence: int,
        now_ms: int,
        *,
        agrees: Callable[[], bool] | None = None,
        full: Container[tuple[int, str]] = (),
        room: Callable[[], bool] = lambda: True,
        whole: Callable[[int], bool] = lambda _: True,
        timed: Callable[[], bool] = lambda: True,
        newest: Callable[[Entry, int, bytes], tuple[bytes, bytes] | None] | None = None,
        nulls: Nulls | None = None,
    ) -> None:
        self._overlay = overlay
        self._newest, self.nulls = newest, nulls if nulls is not None else Nulls()
        self.partition, self.partitions = partition, partitions
        self.epoch, self.sequence, self.now_ms = epoch, sequence, now_ms
        self._agrees, self._full, self._room, self._whole, self._timed = agrees, full, room, whole, timed
        self.brought: set[bytes] = set()  # references that this command's rows will hold
        self.rows: dict[bytes, bytes | None] = {}
        self._order: list[bytes] = []  # their keys
        self.deltas: dict[int, list[int]] = {}
        self.posted: list[AnyAction] = []
        self.left = 0  # rows of the table GONE in this entry

    @property
    def expiry_ms(self) -> int:
        """The time by which something may be taken for over; 0 where this clock is not to be trusted (R13)."""
        return self.now_ms if self._agrees is None or self._agrees() else 0

    def lasting_ms(self, for_ms: int) -> int:
        """The end of a promise that is made now. Raises RefusalError where nobody knows what time it is (R13)."""
        if not self._timed():
            raise RefusalError(
                "ServiceUnavailable", "This node has not compared its clock with its peers' yet. Try again."
            )
        return self.now_ms + for_ms

    def stamp_ms(self, said_ms: int) -> int:
        """The time that something is from, of which a gateway said when: by a clock that nobody checks, so that what is
        far from the time here is not taken, for lifecycle counts from it."""
        return self.now_ms if abs(said_ms - self.now_ms) > SKEW_MS and self._timed() else said_ms

    def must_have_room(self) -> None:
        """Raises RefusalError where the disk has none for more (D5)."""
        if not self._room():
            raise RefusalError("StorageFull")

    def is_whole(self) -> bool:
        """Whether every store of the partition is there and has all that it is to have (C4)."""
        return self._whole(self.partition)

    def is_full(self, target: str) -> bool:
        """Whether too many of this partition's events wait for a receiver."""
        return (self.partition, target) in self._full

    def get(self, key: bytes) -> bytes | None:
        if key in self.rows:
            return self.rows[key]
        return self._overlay.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._set(key, value)

    def delete(self, key: bytes) -> None:
        self._set(key, None)

    def _set(self, key: bytes, value: bytes | None) -> None:
        if key not in self.rows:
            insort(self._order, key)
        self.rows[key] = value

    def _changed(self, prefix: bytes, stop: bytes) -> list[bytes]:
        """The keys with this prefix that this entry put or deleted: found without a look at its others."""
        at = bisect_left(self._order, prefix)
        return self._order[at : bisect_left(self._order, stop, at)]

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose keys begin with `prefix`, in order. Changes made while it runs may or may not show."""
        stop = keys.after(prefix)
        changed = self._changed(prefix, stop)
        if not changed:
            yield from self._overlay.scan(prefix, stop)
            return
        yield from _over(self.rows, changed, self._overlay.scan(prefix, stop))

    def clear(self) -> None:
        """Throw away all that was decided."""
        self.rows.clear()
        self._order.clear()
        self.deltas.clear()
        self.posted.clear()
        self.left = 0

    def changed(self, prefix: bytes) -> bool:
        """Whether this entry or the turn so far touched a row with this prefix."""
        return self._overlay.changed(prefix) or bool(self._changed(prefix, keys.after(prefix)))

    def newest(self, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        """(row key, value) of the newest version of an object key."""
        if self._newest is not None:
            return self._newest(self, bucket, key)
        return next(self.scan(keys.object_versions(self.partition, bucket, key)), None)

    def post(self, action: AnyAction) -> None:
        """Leave word for another partition or for the store, with this same entry."""
        self.posted.append(action)

    def count(
        self,
        bucket: int,
        objects: int = 0,
        size: int = 0,
        blobs: int = 0,
        references: int = 0,
        blob_bytes: int = 0,
        saved: int = 0,
    ) -> None:
        counted = [objects, size, blobs, references, blob_bytes, saved]
        sums = self.deltas.get(bucket)
        self.deltas[bucket] = counted if sums is None else list(map(add, sums, counted))


def add_counters(row: Counters, deltas: list[int]) -> Counters:
    return Counters(
        row.objects + deltas[0],
        row.bytes + deltas[1],
        row.blobs + deltas[2],
        row.references + deltas[3],
        row.blob_bytes + deltas[4],
        row.saved + deltas[5],
    )

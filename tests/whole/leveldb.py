"""LevelDB as a model: the face of `s4.storage.leveldb.Database`, rows in memory, what is synced apart from what is not.

A batch is in wholly or not at all. What was written without a sync is lost at a power failure from some batch on, and
a synced batch brings all before it with it, but for one case that real LevelDB has: at a switch of memtables the old
log is closed unsynced, and a later sync does not cover it. After a failed write the database refuses all further ones,
and the last batch is in or not. Damage makes every read of a range of keys fail, as paranoid checks and verified
blocks do.

Not simulated: how LevelDB finds the bytes (tests/crash/test_power_loss.py and tests/cluster/test_power.py replay its
real system calls), and what it does about memory and speed.
"""

from __future__ import annotations

import errno
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import plyvel

from s4.storage.leveldb import DatabaseError
from whole.disks import Disk
from whole.loop import running
from whole.threads import block

Rows = Iterable[tuple[bytes, bytes | None]]


class Kept:
    """What one database has on its disk. `unsynced` batches follow `durable`, in order."""

    def __init__(self) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.unsynced: list[list[tuple[bytes, bytes | None]]] = []
        self.damaged: list[tuple[bytes, bytes]] = []
        self.open = False

    def sync(self) -> None:
        for rows in self.unsynced:
            _apply(self.durable, rows)
        self.unsynced.clear()

    def lose_power(self, random: Any) -> int:
        """A prefix of the unsynced batches may have reached the disk. How many did not."""
        count = random.randint(0, len(self.unsynced))
        for rows in self.unsynced[:count]:
            _apply(self.durable, rows)
        gone = len(self.unsynced) - count
        self.unsynced.clear()
        return gone

    def now(self) -> dict[bytes, bytes]:
        rows = dict(self.durable)
        for batch in self.unsynced:
            _apply(rows, batch)
        return rows


def _apply(rows: dict[bytes, bytes], batch: list[tuple[bytes, bytes | None]]) -> None:
    for key, value in batch:
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


class Database:
    """One open database."""

    def __init__(self, path: Path, *, cache_bytes: int = 0, write_buffer_bytes: int = 0, open_files: int = 0) -> None:
        self.path = path
        self._process = running().here()
        self.disk = Disk.of(path)
        self.disk.check("database", self._process)
        if not path.exists():
            path.mkdir()
            self.disk.databases.pop(str(path), None)
        self._kept = self.disk.databases.setdefault(str(path), Kept())
        self._rows = self._kept.now()
        self._keys = sorted(self._rows)
        self._failed = False
        self.on_damage: Callable[[Exception], None] | None = None

    # -- reading

    def _whole(self, start: bytes, stop: bytes) -> None:
        if self._kept.damaged and any(first < stop and start < last for first, last in self._kept.damaged):
            self.disk.loop.note(f"{self.disk.name} a damaged block of {self.path.name} is read")
            self.disk.loop.effects["damaged block read"] += 1
            error = plyvel.CorruptionError(b"Corruption: block checksum mismatch")
            if self.on_damage is not None:
                self.mark_damaged()
                self.on_damage(error)
            raise error

    def watch(self, on_damage: Callable[[Exception], None]) -> None:
        self.on_damage = on_damage

    def mark_damaged(self) -> None:
        self.path.with_name(self.path.name + ".damaged").touch()

    def get(self, key: bytes) -> bytes | None:
        if self._kept.damaged:
            self._whole(key, key + b"\x00")
        return self._rows.get(key)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        return _Walk(self._rows, self._between(start, stop), self._whole if self._kept.damaged else None)

    def _between(self, start: bytes, stop: bytes) -> list[bytes]:
        return self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]

    def verified(self, start: bytes, stop: bytes, rows: int, size: int) -> tuple[bytes, int]:
        read, last = 0, b""
        try:
            for last in self._between(start, stop)[:rows]:
                self._whole(last, last + b"\x00")
                read += len(last) + len(self._rows[last])
                if read >= size:
                    break
        except plyvel.Error as error:
            self.mark_damaged()
            raise DatabaseError(f"the database {self.path} is damaged: {error}") from error
        return last, read

    def snapshot(self) -> Snapshot:
        return Snapshot(dict(self._rows), list(self._keys), self._whole)

    def cursor(self, prefix: bytes) -> Cursor:
        return Cursor(self, prefix)

    def first(self, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        at = bisect_left(self._keys, start)
        if at < len(self._keys) and self._keys[at] < stop:
            self._whole(self._keys[at], self._keys[at] + b"\x00")
            return self._keys[at], self._rows[self._keys[at]]
        return None

    def size_bytes(self, start: bytes = b"\x00", stop: bytes = b"\xff" * 8) -> int:
        return sum(len(key) + len(self._rows[key]) for key in self._between(start, stop))

    # -- writing

    def batch(self, rows: Rows, sync: bool = True) -> Callable[[], None]:
        taken = list(rows)
        return lambda: self._write(taken, sync)

    def write(self, rows: Rows, sync: bool = True) -> None:
        self._write(list(rows), sync)

    def _write(self, rows: list[tuple[bytes, bytes | None]], sync: bool) -> None:
        size = sum(len(key) + len(value or b"") for key, value in rows)
        seconds = self.disk.latency("write", size) + (self.disk.latency("sync") if sync else 0.0)
        if sync and self.path.name == "meta":
            self.disk.syncing(seconds)
        block(seconds)
        self.disk.alive(self._process)
        if self._failed:
            raise plyvel.IOError(b"IO error: an earlier write failed")
        error = self.disk.error("sync" if sync else "write") or self.disk.error("write", size)
        if error is not None:
            self._failed = True
            self.disk.loop.effects["batch failed"] += 1
            if self.disk.loop.random.random() < 0.5:
                self._kept.unsynced.append(rows)
            self.disk.loop.note(f"{self.disk.name} {self.path.name}: a batch fails")
            raise plyvel.IOError(f"IO error: {errno.errorcode[error]}".encode())
        self.disk.written += size
        for key, value in rows:
            if value is None:
                if self._rows.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            else:
                if key not in self._rows:
                    self._keys.insert(bisect_right(self._keys, key), key)
                self._rows[key] = value
        self._kept.unsynced.append(rows)
        if sync:
            self._kept.sync()

    def close(self) -> None:
        pass


class _Walk:
    """An iterator over rows as they were, with `seek` and `close`."""

    def __init__(
        self, rows: dict[bytes, bytes], found: list[bytes], check: Callable[[bytes, bytes], None] | None
    ) -> None:
        if check is None and len(found) <= 8:
            self._items: Iterator[tuple[bytes, bytes]] = iter([(key, rows[key]) for key in found])
        else:
            self._items = iter([(key, rows[key]) for key in found])
        self._check = check

    def __iter__(self) -> _Walk:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        key, value = next(self._items)
        if self._check is not None:
            self._check(key, key + b"\x00")
        return key, value

    def close(self) -> None:
        self._items = iter(())


class Cursor:
    """A seekable walk over a prefix, as of when it was opened."""

    def __init__(self, database: Database, prefix: bytes) -> None:
        stop = prefix + b"\xff" * 64
        self._keys = database._between(prefix, stop)
        self._values = [database._rows[key] for key in self._keys]
        self._prefix, self._at, self._check = prefix, 0, database._whole

    def take(self, count: int) -> list[tuple[bytes, bytes]]:
        taken = []
        for key, value in zip(self._keys[self._at :][:count], self._values[self._at :], strict=False):
            self._check(key, key + b"\x00")
            taken.append((key[len(self._prefix) :], value))
        self._at += len(taken)
        return taken

    def seek(self, key: bytes) -> None:
        self._at = bisect_left(self._keys, self._prefix + key)

    def close(self) -> None:
        self._keys = []


class Snapshot:
    """A frozen view."""

    def __init__(self, rows: dict[bytes, bytes], names: list[bytes], check: Callable[[bytes, bytes], None]) -> None:
        self._rows, self._keys, self._check = rows, names, check

    def get(self, key: bytes) -> bytes | None:
        self._check(key, key + b"\x00")
        return self._rows.get(key)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]:
            self._check(key, key + b"\x00")
            yield key, self._rows[key]

    def close(self) -> None:
        pass

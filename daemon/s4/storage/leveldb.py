"""LevelDB behind a small interface: the only module that knows plyvel.

A database is opened with paranoid checks and verifies checksums on every read. After a failed write LevelDB
refuses further ones and the last batch is undecided, so callers treat any error of `write` as the end of the
process (rule D7). Methods block; `get` and iteration of cached blocks take microseconds and run on the event
loop, `write` with `sync` waits for the disk and runs on a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import plyvel

from s4.base.said import SaidError
from s4.storage.forgetting import STEP_S, Forgetting
from s4.storage.timing import SYNC, WRITE, Times
from s4.storage.torn_end import cut_torn_ends

log = logging.getLogger(__name__)

Rows = Iterable[tuple[bytes, bytes | None]]


BATCH_BYTES, FEW = 64 * 1024, 4  # of rows that are taken at once, looked at each few: one may have a megabyte
VERIFIED_ROWS, VERIFIED_BYTES = 5000, 1 << 20  # that are read and checked in one step
TABLE_BYTES = 16 << 20  # of a table: opening one again, since only so many are open, costs more than a read in it
_END, _OVER = b"\xff" * 16, b"\x00forgotten\x00"
DAMAGED = ".damaged"  # added to a database's name: a file that says so
UNSYNCED = ".unsynced"  # the same: its log may have writes that no sync covered
AnyDatabaseError: type[Exception] = plyvel.Error  # what reads and writes raise; DatabaseError is one of them


class DatabaseError(SaidError, plyvel.Error):  # type: ignore[misc]
    """LevelDB failed: damage or an I/O error."""


_OF_THE_PROCESS = tuple(os.strerror(code) for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM))


def is_damage(error: BaseException) -> bool:
    """Whether a failure says something of what is on disk, and not of this process, which is out of descriptors or
    memory."""
    return isinstance(error, plyvel.Error) and not any(text in str(error) for text in _OF_THE_PROCESS)


def no_room(error: BaseException) -> bool:
    """Whether the disk is full, which LevelDB says in the system's words."""
    return os.strerror(errno.ENOSPC) in str(error)


class Database:
    """An ordered map of bytes to bytes on disk. `on_damage` is called where a read or a write meets damage, after word
    of it was left beside the database."""

    on_damage: Callable[[Exception], None] | None = None
    times: Times | None = None  # of its drive

    def __init__(self, path: Path, *, cache_bytes: int, write_buffer_bytes: int, open_files: int) -> None:
        try:
            if not path.exists():
                _create(path)
            opened = partial(
                plyvel.DB,
                str(path),
                paranoid_checks=True,
                write_buffer_size=write_buffer_bytes,
                lru_cache_size=cache_bytes,
                max_open_files=open_files,
                bloom_filter_bits=10,
                block_size=8192,
                max_file_size=TABLE_BYTES,
            )
            unsynced = path.with_name(path.name + UNSYNCED).exists()
            if unsynced:  # LevelDB passes over stretches of zeros, with what else is in their blocks
                _cut(path, unsynced=True)
            try:
                self._db = opened()
            except plyvel.CorruptionError:
                if unsynced or not _cut(path, unsynced=False):
                    raise
                self._db = opened()
        except plyvel.Error as error:
            raise DatabaseError(f"cannot open the database {path}: {error}") from error
        try:
            self._check_end()
        except plyvel.Error as error:
            self._db.close()  # its lock would keep out who puts it aside
            raise DatabaseError(f"the database {path} is damaged: {error}") from error
        # bound once, for this is the hottest call of all; without the word plyvel takes a block as the disk gives it
        self._get = partial(self._db.get, verify_checksums=True)
        self.get: Callable[[bytes], bytes | None] = self._get
        self.path = path
        if unsynced:
            _sync(path)  # no log that was done with comes back
            unmark(path, UNSYNCED)  # what the logs had is in a table by now, which LevelDB synced
        self._loose: LooseLog | None = None  # from the first write on that is not synced
        self._ordered, self._verifying = threading.Lock(), threading.Lock()
        self.forgetting = Forgetting(partial(_look, self._db), partial(_compact, self._db))

    def batch(self, rows: Rows, sync: bool = True) -> Callable[[], None]:
        """Puts and deletes (value None) as one atomic batch; calling it writes, and syncs where told so.

        Filling a batch gives the interpreter lock away for every row, so the thread that has the lock anyway
        fills it, and only the one call that waits for the disk goes to another thread.
        """
        batch = self._db.write_batch(sync=sync)
        for key, value in rows:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)

        def write() -> None:
            if not sync or self._loose is not None:
                with self._ordered:
                    self._write_loosely(write_batch, sync)
            else:
                write_batch()

        def write_batch() -> None:
            try:
                if self.times is None:
                    batch.write()
                else:
                    self.times.of(SYNC if sync else WRITE, batch.write)
            except plyvel.CorruptionError as error:  # a compaction met it: the next start must not run into it again
                self._damaged(error)
                raise

        return write

    def _write_loosely(self, write: Callable[[], None], sync: bool) -> None:
        """One at a time, of a database whose writes are not all synced."""
        if self._loose is None:
            mark(self.path, UNSYNCED)
            self._loose = LooseLog(self.path)
        if sync:
            self._loose.sync()
        write()
        self._loose.wrote()

    def write(self, rows: Rows, sync: bool = True) -> None:
        """Put and delete all rows at once, durable on return when `sync`. Blocks."""
        self.batch(rows, sync)()

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, in order, as of now."""
        began = time.monotonic()
        iterator = self._db.iterator(start=start, stop=stop, verify_checksums=True)
        return self._watched(iterator, start, stop, time.monotonic() - began)

    def watch(self, on_damage: Callable[[Exception], None]) -> None:
        """Have damage told, which reads meet."""
        self.on_damage = on_damage
        self.get = self._watched_get

    def _watched_get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._get(key)
        except plyvel.Error as error:
            self._damaged(error)
            raise
        return value

    def _watched(
        self, iterator: Iterator[tuple[bytes, bytes]], at: bytes, stop: bytes, took: float
    ) -> Iterator[tuple[bytes, bytes]]:
        """`took` is what it took to find the first row."""
        try:
            began = time.monotonic() - took
            for row in iterator:
                if time.monotonic() - began >= STEP_S:
                    self.forgetting.met(at, row[0])
                at = row[0]
                yield row
                began = time.monotonic()
            if time.monotonic() - began >= STEP_S:
                self.forgetting.met(at, stop)
        except plyvel.Error as error:
            self._damaged(error)
            raise

    def _damaged(self, error: Exception) -> None:
        if not is_damage(error):
            return
        self.mark_damaged()
        if self.on_damage is not None:
            self.on_damage(error)

    def verified(self, start: bytes, stop: bytes, rows: int, size: int) -> tuple[bytes, int]:
        """The last key of up to `rows` rows from `start` on, each read and checked, and their bytes; empty at the end.
        They are fewer where they have `size` bytes or more. For a thread: it waits for the disk.

        Raises DatabaseError, for damage after word was left beside the database that it is damaged.
        """
        last, read = b"", 0
        try:
            with self._verifying:
                with self._db.iterator(start=start, stop=stop, verify_checksums=True, fill_cache=False) as iterator:
                    for last, value in islice(iterator, rows):
                        read += len(last) + len(value)
                        if read >= size:
                            break
                if not last:
                    self._check_end()
        except plyvel.Error as error:
            self._damaged(error)
            what = "is damaged" if is_damage(error) else "cannot be read now"
            raise DatabaseError(f"the database {self.path} {what}: {error}") from error
        return last, read

    def _check_end(self) -> None:
        """An iterator that meets a damaged block says so at the next good one; where none follows it just ends. So the
        last block is looked at by itself. Raises plyvel's errors."""
        with self._db.iterator(reverse=True, include_value=False, verify_checksums=True) as iterator:
            next(iterator, None)

    def mark_damaged(self) -> None:
        """Leave word beside the database, as far as the disk takes it, that the next start is not to trust it."""
        with contextlib.suppress(OSError):
            mark(self.path, DAMAGED)

    def snapshot(self) -> Snapshot:
        """All rows as they are now, whatever is written later. Close it."""
        return Snapshot(self._db.snapshot(), self._damaged)

    def cursor(self, prefix: bytes) -> Cursor:
        """A seekable walk over the rows whose keys begin with `prefix`; its keys come without the prefix."""
        began = time.monotonic()
        iterator = self._db.prefixed_db(prefix).iterator(verify_checksums=True)
        return Cursor(iterator, prefix, self._damaged, self.forgetting, time.monotonic() - began)

    def first(self, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        began = time.monotonic()
        with self._db.iterator(start=start, stop=stop, verify_checksums=True) as iterator:
            try:
                row: tuple[bytes, bytes] | None = next(iterator, None)
            except plyvel.Error as error:
                self._damaged(error)
                raise
        if time.monotonic() - began >= STEP_S:
            self.forgetting.met(start, stop if row is None else row[0])
        return row

    def size_bytes(self) -> int:
        """Of its tables, about; what is in memory only is not counted."""
        size: int = self._db.approximate_size(b"\x00", b"\xff" * 8)
        return size

    def close(self) -> None:
        self.forgetting.close()
        del self.get, self._get
        with self._verifying:  # a database must not be closed under an iterator that is at work
            self._db.close()
        if self._loose is not None:
            self._loose.close()
        gc.collect(0)


async def verify(database: Database, stop: bytes, bytes_per_s: float) -> None:
    """Read and check every row before `stop`, a step at a time; 0 is no bound. Raises DatabaseError for damage."""
    start = b""
    while True:
        last, read = await asyncio.to_thread(database.verified, start, stop, VERIFIED_ROWS, VERIFIED_BYTES)
        if not last:
            return
        start = last + b"\x00"
        await asyncio.sleep(read / bytes_per_s if bytes_per_s else 0)


def _cut(path: Path, *, unsynced: bool) -> bool:
    try:
        torn = cut_torn_ends(path, unsynced=unsynced)
    except OSError as error:
        raise DatabaseError(f"the logs of the database {path} cannot be read: {error}") from None  # `is_damage` asks it
    for file, size in torn:
        log.warning("%s: a loss of power tore writes that no sync covered: its last %d bytes are cut off", file, size)
    return bool(torn)


class LooseLog:
    """The log that LevelDB writes to, of a database whose writes are not all synced. When it is full LevelDB closes it
    as it is and begins another, and a sync covers only that one: so what stands before would be lost, and what came
    after it not. So it is synced before a write that is synced, which may go to another, and once one went elsewhere.
    Methods raise OSError, which leaves durability in doubt. Not for several threads at once."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._size = directory, -1
        self._file = self._newest()

    def _newest(self) -> int:
        while True:
            newest = max(self._directory.glob("*.log"), key=lambda one: int(one.stem))
            with contextlib.suppress(FileNotFoundError):  # full, written to a table and gone
                return os.open(newest, os.O_RDONLY | os.O_CLOEXEC)

    def sync(self) -> None:
        os.fsync(self._file)

    def wrote(self) -> None:
        """After each write."""
        if os.fstat(self._file).st_size == self._size:
            self.sync()
            os.close(self._file)
            self._file = self._newest()
        self._size = os.fstat(self._file).st_size

    def close(self) -> None:
        os.close(self._file)


def _look(db: Any, start: bytes, stop: bytes) -> None:
    with db.iterator(start=start, stop=stop, include_value=False) as iterator:
        deque(iterator, maxlen=0)  # the first row may be where the stretch begins


def _compact(db: Any, start: bytes, stop: bytes) -> None:
    """LevelDB never compacts the lowest level that has something: so something is laid over the stretch, from its
    first key to its last, and goes down through all levels. No row has such a key."""
    with db.write_batch(sync=True) as batch:
        batch.delete(start + _OVER)
        if stop[:-1] > start:
            batch.delete(stop[:-1] + _OVER if stop[:-1] + _OVER < stop else stop[:-1])
    db.compact_range(start=start, stop=stop)


def mark(path: Path, word: str) -> None:
    """Leave word beside a database, durably."""
    path.with_name(path.name + word).touch()
    _sync(path.parent)


def unmark(path: Path, word: str = DAMAGED) -> None:
    """Take the word back, durably: of damage, where another database is in its place."""
    path.with_name(path.name + word).unlink(missing_ok=True)
    _sync(path.parent)


def _create(path: Path) -> None:
    """Make an empty database durably: LevelDB does not sync a new one, and cannot open what a crash leaves of it."""
    making = path.with_name(path.name + ".making")
    if making.exists():
        shutil.rmtree(making)
    plyvel.DB(str(making), create_if_missing=True).close()
    for file in [*making.iterdir(), making]:
        _sync(file)
    making.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Cursor:
    """One iterator over a prefix. It was at `at` last, and coming there took `took`."""

    def __init__(
        self, iterator: Any, prefix: bytes, damaged: Callable[[Exception], None], forgetting: Forgetting, took: float
    ) -> None:
        self._iterator, self._prefix, self._damaged, self._forgetting = iterator, prefix, damaged, forgetting
        self._at, self._took = b"", took

    def take(self, count: int) -> list[tuple[bytes, bytes]]:
        """The next rows, at most `count`, or fewer where they are large; none at the end."""
        began, rows, left, ended = time.monotonic(), list[tuple[bytes, bytes]](), BATCH_BYTES, False
        try:
            while left > 0 and len(rows) < count and not ended:
                few = min(count - len(rows), FEW) if rows else 1
                piece = list(islice(self._iterator, few))
                rows += piece
                left -= sum([len(value) for _, value in piece])
                ended = len(piece) < few
        except plyvel.Error as error:
            self._damaged(error)
            raise
        if time.monotonic() - began + self._took >= STEP_S:
            self._forgetting.met(self._prefix + self._at, self._prefix + (_END if ended else rows[-1][0]))
        if rows:
            self._at = rows[-1][0]
        self._took = 0.0
        return rows

    def seek(self, key: bytes) -> None:
        began = time.monotonic()
        self._iterator.seek(key)
        self._at, self._took = key, time.monotonic() - began

    def close(self) -> None:
        self._iterator.close()


class Snapshot:
    """A frozen view of the database. `damaged` is called where a read meets damage."""

    def __init__(self, snapshot: Any, damaged: Callable[[Exception], None]) -> None:
        self._snapshot, self._damaged = snapshot, damaged

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._snapshot.get(key, verify_checksums=True)
        except plyvel.Error as error:
            self._damaged(error)
            raise
        return value

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from self._snapshot.iterator(start=start, stop=stop, verify_checksums=True)
        except plyvel.Error as error:
            self._damaged(error)
            raise

    def close(self) -> None:
        self._snapshot.close()

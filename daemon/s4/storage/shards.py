"""The shard store: appends, reads and frees shard records, and keeps their index.

The index is a LevelDB of its own, apart from metadata, because it can be rebuilt: every row in it is also a
record header in a volume. So index rows wait in memory (`_pending`) and go to LevelDB together with the scan
mark in one synced batch, once a second or when many wait; after a crash the volumes are scanned past the
mark (rule D5). A volume is synced before rows that point into it are, so no row points past a tail. Where such a scan
could not read something, or the index was lost, the store is in doubt until somebody compared what it has with what
should be there (upkeep/confirm.py); until then each start scans a tail from there again, and may read it.

Reads check the CRC of every block they touch; what the disk cannot read is damaged, as what fails its check is (D7).
Frees delete the index row; large records are punched, small ones stay until compaction. Callers free only what no
reader can still want (rule D6). A record whose index row is gone is dead: a rescan may bring the row back, and the
orphan audit then frees it again.

State is owned by the event loop; the appender's and the pool's threads only run the blocking calls. What uses a volume
on the pool counts as a use (`oldest_use`) until its thread is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from s4.storage.appender import Append, Appender
from s4.storage.direct import Kinds
from s4.storage.files import Buffer, Files
from s4.storage.index import (
    BLOB_END,
    DOUBT_KEY,
    KEY,
    MARK,
    MARK_KEY,
    VOLUME,
    VolumeUse,
    index_key,
    index_value,
    load_index,
    parse_index_key,
    parse_index_value,
)
from s4.storage.leveldb import AnyDatabaseError, DatabaseError
from s4.storage.leveldb import is_damage as is_database_damage
from s4.storage.records import DamagedError, DiskFullError, OfflineError, Record, Shard
from s4.storage.room import Room
from s4.storage.timing import SLOW_S, SYNC, Times
from s4.storage.uses import FailingReads, Uses
from s4.storage.volumes import Location, Tail, Volumes
from s4.storage.watching import Watch

log = logging.getLogger(__name__)

Fatal = Callable[[BaseException], None]  # told of an error after which nothing may be written
T = TypeVar("T")

NOW_BYTES = 64 * 1024
PUNCH_MIN = 64 * 1024


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """Sizes in bytes, times in seconds."""

    volume_bytes: int = 1 << 30
    preallocate_bytes: int = 64 << 20
    reserve_bytes: int = 1 << 30
    open_volumes: int = 256
    flush_rows: int = 4096
    flush_s: float = 1.0
    durable: bool = True
    sync_index: bool = True
    slow_s: float = SLOW_S
    # keeps older programs out, durably, before the first aligned record; may fail
    mark: Callable[[], bool] | None = None


class ShardStore:
    """Shards of one store. Open with `await ShardStore.open(...)`."""

    def __init__(self, files: Files, directory: Path, store: bytes, settings: ShardSettings, fatal: Fatal) -> None:
        self.settings, self.files, self.directory, self.store = settings, files, directory, store
        self.times = Times(settings.slow_s)
        self._fatal = fatal
        (directory / "volumes").mkdir(exist_ok=True)
        self._volumes = Volumes(files, directory / "volumes", store, settings.open_volumes, self.times)
        found = load_index(directory / "index", set(self._volumes.numbers()))
        self._index, self._mark, self._since, self._use = found
        self._uses = Uses()
        self.watch = Watch(self, settings.reserve_bytes)
        self._pending: dict[bytes, bytes | None] = {}
        self._flushing: dict[bytes, bytes | None] = {}
        self._pending_blobs: dict[bytes, set[bytes]] = {}  # the same keys by partition and blob
        self._flushing_blobs: dict[bytes, set[bytes]] = {}
        self._flush_lock = asyncio.Lock()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="disk")
        self._appender: Appender
        self._kinds = Kinds(settings.mark)
        self._room = Room(files, directory, settings.reserve_bytes)
        self.has_room, self.space = self._room.has, self._room.space
        self._opened = False
        self._queued = 0  # appends that were given to the appender and have not been heard of
        self.compacting: set[int] = set()
        self.bytes_read = self.bytes_written = self.damaged = 0

    @classmethod
    async def open(
        cls, files: Files, directory: Path, store: bytes, settings: ShardSettings, fatal: Fatal
    ) -> ShardStore:
        """Open the store and bring the index up to the volumes: all of them where the index was lost."""
        self = cls(files, directory, store, settings, fatal)
        tail = Tail()
        try:
            await self._loop.run_in_executor(self._pool, self._bring_up, tail)
        except Exception:  # the thread is done
            self._close_files()
            raise
        tail.next_number = max(tail.next_number, self._mark[0] + 1)  # a number below the mark would not be scanned
        for number, size in tail.torn.items():
            use = self._use.setdefault(number, VolumeUse())
            use.used, use.dead = use.used + size, use.dead + size
        if (
            self._since == (0, 0) and tail.next_number > 1
        ):  # the index was lost; to read all once more would take too long
            self._put(DOUBT_KEY, b"")
        elif not tail.whole:
            self._put(DOUBT_KEY, MARK.pack(1, *self._since))
        self._appender = Appender(
            self._volumes,
            tail,
            volume_bytes=settings.volume_bytes,
            preallocate_bytes=settings.preallocate_bytes,
            durable=settings.durable,
            fatal=fatal,
        )
        self._opened = True
        await self.flush()
        return self

    def _bring_up(self, tail: Tail) -> None:
        """Rows of what volumes hold past where a scan begins; on a thread, before the store is anybody's. Where the
        index was lost most are written as they are found, without the mark: such an index is made anew (index.py)."""
        found, lost = 0, self._since == (0, 0)
        for record, location in self._volumes.recover(self._since, tail):
            self._appended(record.shard, location, record.size)
            found += 1
            if lost and len(self._pending) >= self.settings.flush_rows:
                self._index.write(list(self._pending.items()))
                self._pending, self._pending_blobs = {}, {}
        for record, location in tail.unread:
            if self.locate(record.shard) is None:  # else that one is whole, and may be this one's original
                self._appended(record.shard, location, record.size)
        if found:
            log.info("index brought up to the volumes: %d records", found)

    def on_a_thread(self, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Run what only waits for the drive, and uses no volume."""
        return self._loop.run_in_executor(None, call, *arguments)

    async def _in_pool(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run what uses volumes on a thread. It counts as a use until it has ended, though nobody waits for it."""
        use = self._uses.begin()
        try:
            return await self._loop.run_in_executor(self._pool, use.run, call, *arguments)
        except BaseException:
            use.give_up()
            raise

    @property
    def in_doubt(self) -> bool:
        """Whether shards may be missing that no heal row names, since a start could not read all."""
        return self._locate_row(DOUBT_KEY) is not None

    def trust(self) -> None:
        """What belongs here was compared with what is there. Durable with the next flush."""
        self._put(DOUBT_KEY, None)

    @property
    def failing(self) -> FailingReads:
        return self._volumes.failing

    def give_up(self, error: Exception) -> None:
        """End the process, which is to go on without this drive."""
        self._fatal(error)

    def oldest_use(self) -> float:
        """Since when (seconds of the boot clock) the oldest read or punch is in progress, whoever wanted it; now if
        none is."""
        return self._uses.oldest()

    # -- writing

    async def append(
        self, shard: Shard, pieces: Sequence[Buffer], *, sync: bool, replaces: Location | None = None
    ) -> Location:
        """Append one shard. With `sync` it is durable on return, and so is every append before it.

        With `replaces` (compaction) the new record counts only if the shard is still there, and the reserve
        may be used. Raises DiskFullError, with nothing written, where the disk has no room.
        """
        length = sum(map(len, pieces))
        if replaces is None and not self.has_room(length):
            raise DiskFullError("less disk is free than the reserve")
        self._room.took(length)
        if not sync and replaces is None and length <= NOW_BYTES and self._queued == 0:
            location = self._append_now(shard, pieces)
            if location is not None:
                return location
        return await self._append_queued(shard, pieces, sync, replaces)

    def _append_now(self, shard: Shard, pieces: Sequence[Buffer]) -> Location | None:
        """Write a small record without a switch of threads.

        Only while none is queued: the scan mark then never passes a record whose row is not there yet.
        """
        try:
            location = self._appender.write_now(Append(shard, pieces, False, lambda _: None))
        except Exception as error:
            self._fatal(error)
            raise
        if location is not None:
            size = location.record(shard).size
            self._appended(shard, location, size)
            self.bytes_written += size
        return location

    @property
    def dirty(self) -> bool:
        """Whether something was written that is not durable yet."""
        return self._appender.dirty

    def sync_now(self) -> None:
        """Make every append so far durable. Blocks: the writer loop calls it on its thread before a commit."""
        self._appender.sync_now()

    async def _append_queued(
        self, shard: Shard, pieces: Sequence[Buffer], sync: bool, replaces: Location | None
    ) -> Location:
        future: asyncio.Future[Location] = self._loop.create_future()

        def done(result: Location | BaseException) -> None:  # on the appender's thread
            self._loop.call_soon_threadsafe(finish, result)

        def finish(result: Location | BaseException) -> None:
            self._queued -= 1
            if isinstance(result, BaseException):
                if not future.done():
                    future.set_exception(result)
                return
            size = result.record(shard).size
            try:
                self._appended(shard, result, size, replaces)
            except Exception as error:  # the index cannot be read
                if not future.done():
                    future.set_exception(error)
                return
            self.bytes_written += size
            if not future.done():
                future.set_result(result)

        self._queued += 1
        is_aligned = self._kinds.is_aligned(sum(map(len, pieces)))
        created_s = replaces.created_s if replaces else 0
        self._appender.submit(Append(shard, pieces, sync, done, created_s, is_aligned))
        return await future

    def _appended(self, shard: Shard, location: Location, size: int, replaces: Location | None = None) -> None:
        key = index_key(shard)
        old = self._locate_row(key)
        self._use.setdefault(location.volume, VolumeUse()).used += size
        if replaces is not None and (old is None or parse_index_value(old) != replaces):
            self._dead(location, shard)  # freed while it was copied
        else:
            if old is not None:
                self._dead(parse_index_value(old), shard)
            self._put(key, index_value(location))
        end = (location.volume, location.offset + size)
        self._mark = max(self._mark, end)

    # -- the index

    def _locate_row(self, key: bytes) -> bytes | None:
        for rows in (self._pending, self._flushing):
            if key in rows:
                return rows[key]
        try:
            return self._index.get(key)
        except AnyDatabaseError as error:
            raise self._index_failed(error) from error

    def _index_failed(self, error: Exception) -> Exception:
        """The index cannot be read: it is made again from the volumes, at the start that follows."""
        if not is_database_damage(error):
            return OfflineError(f"the index in {self.directory} cannot be read now: {error}")
        self._index.mark_damaged()
        failure = DatabaseError(f"the index in {self.directory} cannot be read: {error}")
        self._fatal(failure)
        return failure

    def _scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from self._index.scan(start, stop)
        except AnyDatabaseError as error:
            raise self._index_failed(error) from error

    def locate(self, shard: Shard) -> Location | None:
        row = self._locate_row(index_key(shard))
        return parse_index_value(row) if row is not None else None

    def _put(self, key: bytes, value: bytes | None) -> None:
        self._pending[key] = value
        self._pending_blobs.setdefault(key[:BLOB_END], set()).add(key)
        if not self._opened:
            return
        if len(self._pending) >= self.settings.flush_rows:
            self._start_flush()
        elif self._flush_timer is None:
            self._flush_timer = self._loop.call_later(self.settings.flush_s, self._start_flush)

    def _start_flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self._flush_task is None or self._flush_task.done():
            self._flush_task = self._loop.create_task(self.flush())

    async def flush(self) -> None:
        """Make every index change so far durable."""
        async with self._flush_lock:
            if not self._pending:
                return
            self._flushing, self._pending = self._pending, {}
            self._flushing_blobs, self._pending_blobs = self._pending_blobs, {}
            rows: list[tuple[bytes, bytes | None]] = list(self._flushing.items())
            rows.append((MARK_KEY, MARK.pack(1, *self._mark)))
            rows += [
                (b"v" + number.to_bytes(4, "big"), VOLUME.pack(1, use.used, use.dead))
                for number, use in self._use.items()
            ]
            try:
                await self._loop.run_in_executor(self._pool, self._write_index, rows)
            except Exception as error:
                self._fatal(error)
                raise
            self._flushing, self._flushing_blobs = {}, {}

    def _write_index(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        if self.settings.sync_index:
            self._appender.sync_now()
        self.times.of(SYNC, self._index.write, rows, sync=self.settings.sync_index)

    def partitions(self) -> Iterator[int]:
        """The partitions of which the flushed index has any shard."""
        start = b"i"
        while row := next(self._scan(start, b"j"), None):
            partition = parse_index_key(row[0]).partition
            yield partition
            start = b"i" + (partition + 1).to_bytes(2, "big")

    def records(self, partition: int | None = None, after: Shard | None = None) -> Iterator[tuple[Shard, Location]]:
        """Every shard that the flushed index names, or those of one partition, in order of partition and blob; those
        that come after one."""
        start, stop = b"i", b"j"
        if partition is not None:
            start = b"i" + partition.to_bytes(2, "big")
            stop = start + b"\xff" * 32
        if after is not None:
            start = index_key(after) + b"\x00"
        for key, value in self._scan(start, stop):
            if self._pending.get(key, value) is not None:
                yield parse_index_key(key), parse_index_value(value)

    # -- reading

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview:
        """`length` bytes at `offset` of a shard, each block checked. Raises DamagedError."""
        location = self.locate(shard)
        if location is None:
            self.damaged += 1
            raise DamagedError(f"no such shard: {shard}")
        if offset + length > location.length:
            raise DamagedError(f"{shard} has {location.length} bytes, asked for {offset}+{length}")
        data = self._volumes.read(shard, location, offset, length, True)
        if data is None:
            data = await self._in_pool(self._volumes.read, shard, location, offset, length, False)
        if data is None and self.locate(shard) != location:  # moved by compaction or healing meanwhile
            return await self.read(shard, offset, length)
        if data is None:
            self.damaged += 1
            raise DamagedError(f"{shard} is damaged in volume {location.volume:08x} at {location.offset}")
        self.bytes_read += length
        return data

    def read_now(self, shard: Shard, offset: int, length: int) -> memoryview | None:
        """What `read` gives, where the page cache has all of it and it is whole; else None."""
        location = self.locate(shard)
        if location is None or offset + length > location.length:
            return None
        data = self._volumes.read(shard, location, offset, length, True)
        self.bytes_read += length if data is not None else 0
        return data

    # -- freeing

    async def free(self, partition: int, blob: bytes) -> int:
        """Drop every shard of a blob that is here; returns the bytes. Durable after the next `flush`."""
        return await self._free_between(partition, blob, 0, 255)

    async def free_position(self, partition: int, blob: bytes, position: int) -> int:
        """As `free`, of one position."""
        return await self._free_between(partition, blob, position, position)

    async def _free_between(self, partition: int, blob: bytes, first: int, last: int) -> int:
        start = KEY.pack(b"i", partition, blob, first, 0)
        stop = KEY.pack(b"i", partition, blob, last, 2**32 - 1) + b"\x00"
        keys = {key for key, _ in self._scan(start, stop)}
        for recent in (self._pending_blobs, self._flushing_blobs):  # not in the index yet
            keys |= {key for key in recent.get(start[:BLOB_END], ()) if start <= key < stop}
        freed = 0
        for key in sorted(keys):
            row = self._locate_row(key)
            if row is not None:
                freed += await self._free_one(parse_index_key(key), parse_index_value(row))
        return freed

    async def _free_one(self, shard: Shard, location: Location) -> int:
        self._put(index_key(shard), None)
        size = self._dead(location, shard)
        if location.length >= PUNCH_MIN:
            await self._in_pool(self._volumes.punch, location)
        return size

    def _dead(self, location: Location, shard: Shard) -> int:
        size = location.record(shard).size
        self._use.setdefault(location.volume, VolumeUse()).dead += size
        return size

    # -- compaction's view

    def usage(self) -> dict[int, VolumeUse]:
        return self._use

    def sealed(self) -> list[int]:
        """Numbers of the volumes that are no longer appended to."""
        return [number for number in self._volumes.numbers() if number != self._appender.current]

    async def read_headers(self, number: int, start: int, limit: int) -> list[tuple[int, Record]]:
        """(offset, record) of up to `limit` records of a volume, from offset `start` on."""
        return await self._in_pool(self._read_headers, number, start, limit)

    def _read_headers(self, number: int, start: int, limit: int) -> list[tuple[int, Record]]:
        volume = self._volumes.acquire(number)
        try:
            found = islice(self._volumes.headers(volume, start), limit)
            return [(offset, record) for offset, record, _ in found]
        finally:
            self._volumes.release(volume)

    async def drop_deleted(self) -> None:
        """Notice volumes that were deleted while they were open: what was in them is lost, and reads say so."""
        gone = await self._loop.run_in_executor(self._pool, self._volumes.drop_unlinked)
        if gone:
            self._appender.leave(gone)
            log.error("volumes deleted by somebody else: %s", ", ".join(f"{number:08x}" for number in gone))

    async def forget_volume(self, number: int) -> None:
        """Unlink a volume that holds nothing live. A failure leaves it in doubt (D7)."""
        try:
            if not self.settings.sync_index:  # else `flush` has synced what took the place of what was in it
                await self._in_pool(self._appender.sync_now)
            await self._in_pool(self._volumes.remove, number)
            self._use.pop(number, None)  # only now, and its row after that: what a crash leaves is found again
            await self._in_pool(self._index.write, [(b"v" + number.to_bytes(4, "big"), None)])
        except Exception as error:
            self._fatal(error)
            raise

    async def close(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        await self._loop.run_in_executor(self._pool, self._appender.close)
        await asyncio.sleep(0)  # let the last appends report
        await self.flush()
        if self._flush_task is not None:
            await self._flush_task
        self._close_files()

    def _close_files(self) -> None:
        self._pool.shutdown()  # first: its threads use what is closed then
        self._index.close()
        self._volumes.close()

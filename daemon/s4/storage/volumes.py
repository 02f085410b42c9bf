"""Volumes: append-only files of shard records, which are open, and what a scan of them finds.

`Volumes` keeps at most `open_files` of them open. A volume in use is never closed (D5): whoever uses one holds it
between `acquire` and `release`, and one that is removed meanwhile is closed by its last user. Sealed volumes are never
appended to again (appender.py). Crash at any point: the tail holds records that nobody acknowledged or a torn one; the
scan at start (`recover`) finds every valid header past the mark and seals what has junk at its end.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from s4.base.memory import unset
from s4.storage.files import Files, is_damage
from s4.storage.records import (
    ALIGN,
    BLOCK,
    HEADER_SIZE,
    RECORD_MAGIC,
    FormatError,
    OfflineError,
    Record,
    Shard,
    VolumeHeader,
    aligned,
    block_crcs,
    blocks,
    front,
    pack_volume,
    unpack_record,
    unpack_volume,
)
from s4.storage.timing import READ, Times
from s4.storage.uses import FailingReads

log = logging.getLogger(__name__)

SECTOR, SECTORS = 4096, 16  # bytes that are read at once where reads fail; how many of them may fail in a window


@dataclass(slots=True)
class Volume:
    """One open volume. `users` counts who has it now: reads, punches, the appender. One that is `retired` takes no more
    of them, and its last user closes it."""

    number: int
    path: Path
    fd: int
    secret: bytes
    users: int = 0
    retired: bool = False


@dataclass(frozen=True, slots=True)
class Location:
    """Where a record is: volume number, offset of its header, bytes of data."""

    volume: int
    offset: int
    length: int
    created_s: int
    aligned: bool = False

    def record(self, shard: Shard) -> Record:
        return Record(shard, self.length, self.created_s, self.aligned)

    @property
    def data_at(self) -> int:
        return self.offset + front(self.length, self.aligned)


@dataclass(slots=True)
class Tail:
    """What the scan found besides records: bytes of torn ones by volume, and where to go on (None: start a new volume).
    `unread` are records of which the disk could read the header alone; `whole` is False where anything could not be
    read."""

    unread: list[tuple[Record, Location]] = field(default_factory=list)
    whole: bool = True
    torn: dict[int, int] = field(default_factory=dict)
    current: tuple[int, int] | None = None
    next_number: int = 1


class Volumes:
    """The volume files of one store."""

    def __init__(
        self, files: Files, directory: Path, store: bytes, open_files: int, times: Times | None = None
    ) -> None:
        self.files, self.directory, self.store = files, directory, store
        self._open: OrderedDict[int, Volume] = OrderedDict()
        self._limit = open_files
        self._lock = threading.Lock()
        self.failing, self.times = FailingReads(), times or Times()
        self._failed_scans = 0  # places that the disk could not read while headers were looked for

    def path(self, number: int) -> Path:
        return self.directory / f"{number:08x}.vol"

    def numbers(self) -> list[int]:
        return sorted(int(path.stem, 16) for path in self.directory.glob("*.vol"))

    def create(self, number: int) -> Volume:
        """A new volume with its header, held until `release`, or nothing: on a full disk each append comes here
        anew."""
        secret, path = os.urandom(16), self.path(number)
        fd = self.files.create(path)
        try:
            self.files.write(fd, [pack_volume(VolumeHeader(number, self.store, secret))], 0)
        except BaseException:
            self.files.close(fd)
            with contextlib.suppress(OSError):
                self.files.unlink(path)
            raise
        return self._keep(Volume(number, path, fd, secret, users=1))

    def acquire(self, number: int) -> Volume:
        """The open volume, held until `release`. Raises FileNotFoundError, FormatError."""
        return self._held(number) or self._keep(self._opened(number))

    def _held(self, number: int) -> Volume | None:
        """As `acquire`, of one that is open already; asks no disk."""
        with self._lock:
            volume = self._open.get(number)
            if volume is not None:
                self._open.move_to_end(number)
                volume.users += 1
            return volume

    def _opened(self, number: int) -> Volume:
        timed, failed = self.times.begin(READ), False
        try:
            fd = self.files.open(self.path(number))
            try:
                raw = bytearray(HEADER_SIZE)
                self.files.read(fd, [raw], 0)
                header = unpack_volume(bytes(raw))
                if header.store != self.store or header.number != number:
                    raise FormatError(f"{self.path(number)} belongs to another store or place")
            except BaseException:
                self.files.close(fd)
                raise
        except OSError as error:
            failed = is_damage(error) and not isinstance(error, FileNotFoundError)
            raise
        finally:
            self.times.end(timed, failed=failed)
        return Volume(number, self.path(number), fd, header.secret, users=1)

    def release(self, volume: Volume) -> None:
        with self._lock:
            volume.users -= 1
            self._close_unused(volume)

    def remove(self, number: int) -> None:
        """Unlink a volume. Whoever still uses it goes on with its bytes (D5)."""
        with contextlib.suppress(FileNotFoundError):  # somebody else deleted it
            self.files.unlink(self.path(number))
        with self._lock:  # after that: who opened it before is found here, who comes later finds no name (`_keep`)
            volume = self._open.get(number)
            if volume is not None:
                self._retire(volume)

    def drop_unlinked(self) -> list[int]:
        """Forget open files whose names are gone, deleted by somebody else; returns their numbers."""
        with self._lock:
            gone = [volume for volume in self._open.values() if not self.files.is_linked(volume.fd)]
            for volume in gone:
                self._retire(volume)
        return [volume.number for volume in gone]

    def close(self) -> None:
        with self._lock:
            for volume in list(self._open.values()):
                self._retire(volume)

    def _retire(self, volume: Volume) -> None:
        """Give a volume to nobody else. A descriptor that is closed under a user is another file's by the time it is
        used: a punch would go into a database."""
        del self._open[volume.number]
        volume.retired = True
        self._close_unused(volume)

    def _close_unused(self, volume: Volume) -> None:
        if volume.retired and volume.users == 0:
            self.files.close(volume.fd)

    def _keep(self, volume: Volume) -> Volume:
        with self._lock:
            known = self._open.get(volume.number)
            if known is not None:  # two threads opened it at once
                self.files.close(volume.fd)
                known.users += volume.users
                return known
            if not self.files.is_linked(volume.fd):  # removed while it was opened
                self.files.close(volume.fd)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(volume.path))
            self._open[volume.number] = volume
            for other in list(self._open.values()):
                if len(self._open) <= self._limit:
                    break
                if other.users == 0 and other is not volume:
                    self._retire(other)
        return volume

    def read(self, shard: Shard, location: Location, offset: int, length: int, nowait: bool) -> memoryview | None:
        """The bytes; None where they would have to be waited for (`nowait`) or are damaged: what a disk cannot read is
        (D7), however often it is tried. Raises OfflineError where this process is out of descriptors or memory."""
        first, last = offset // BLOCK, blocks(offset + length)
        start = first * BLOCK
        table = bytearray(4 * (last - first))
        data = unset(min(last * BLOCK, location.length) - start)
        table_at = location.data_at - 4 * blocks(location.length) + 4 * first
        try:
            volume = self._held(location.volume) if nowait else self.acquire(location.volume)
            if volume is None:
                return None
            try:
                parts = [(table, table_at), (data, location.data_at + start)]
                whole = (
                    self._fill(volume, parts, True) if nowait else self.times.of(READ, self._fill, volume, parts, False)
                )
                if not whole:
                    return None
                if block_crcs(data, shard, volume.secret, first) != table:
                    if not nowait:
                        log.error("damaged: %s in %s at %d", shard, volume.path.name, location.offset)
                    return None
            finally:
                self.release(volume)
        except (FormatError, OSError) as error:
            if not nowait:
                self._unread(location, error)
            return None
        return memoryview(data)[offset - start : offset - start + length]

    def _unread(self, location: Location, error: FormatError | OSError) -> None:
        log.error("volume %08x cannot be read at %d: %s", location.volume, location.offset, error)
        if isinstance(error, OSError) and not is_damage(error):
            raise OfflineError(f"volume {location.volume:08x} cannot be read now: {error}") from error
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            self.failing.note(location.volume, location.offset)

    def _fill(self, volume: Volume, wanted: list[tuple[bytearray, int]], nowait: bool) -> bool:
        (table, table_at), (data, data_at) = wanted
        if table_at + len(table) == data_at:
            return self.files.read(volume.fd, [table, data], table_at, nowait=nowait) == len(table) + len(data)
        return self.files.read(volume.fd, [table], table_at, nowait=nowait) == len(table) and self.files.read(
            volume.fd, [data], data_at, nowait=nowait
        ) == len(data)

    def punch(self, location: Location) -> None:
        """Return the pages that lie wholly inside a record's data; its header stays (rule D4)."""
        start, stop = aligned(location.data_at), location.data_at + location.length
        stop = aligned(stop) if location.aligned else stop // ALIGN * ALIGN
        if start >= stop:
            return
        try:
            volume = self.acquire(location.volume)
            try:
                self.files.punch(volume.fd, start, stop - start)
            finally:
                self.release(volume)
        except FileNotFoundError:  # compacted away meanwhile, and its space with it
            return
        except (FormatError, OSError) as error:  # nothing alive is in doubt: compaction gives the space back
            log.warning("volume %08x: a hole at %d could not be made: %s", location.volume, start, error)

    def headers(self, volume: Volume, start: int) -> Iterator[tuple[int, Record, bool]]:
        """(offset, record, clean) of each valid header from `start` on, in order.

        `clean` is False for a record that does not directly follow its predecessor: there was damage between.
        """
        size, offset, clean = self.files.size(volume.fd), max(start, HEADER_SIZE), True
        raw = bytearray(HEADER_SIZE)
        while offset + HEADER_SIZE <= size:
            self._read_or_zeros(volume, raw, offset)
            try:
                record = unpack_record(raw, volume.secret, offset)
                if offset + record.size > size:
                    raise FormatError("cut off")
            except FormatError:
                found = self._after_zeros(volume, offset)
                if found is None:
                    found, clean = self._resync(volume, offset + 1, size), False
                if found is None:
                    return
                offset = found
                continue
            yield offset, record, clean
            offset, clean = offset + record.size, True

    def _after_zeros(self, volume: Volume, offset: int) -> int | None:
        """Where an aligned record follows, with nothing but zeros before it."""
        gap, raw = bytearray(aligned(offset) - offset), bytearray(HEADER_SIZE)
        self._read_or_zeros(volume, gap, offset)
        if not gap or any(gap):
            return None
        self._read_or_zeros(volume, raw, aligned(offset))
        try:
            unpack_record(raw, volume.secret, aligned(offset))
        except FormatError:
            return None
        return aligned(offset)

    def _resync(self, volume: Volume, offset: int, size: int) -> int | None:
        """The next offset at which a valid header is, past damage."""
        window = bytearray(1 << 20)
        raw = bytearray(HEADER_SIZE)
        while offset < size:
            got = self._read_or_zeros(volume, window, offset)
            at = window.find(RECORD_MAGIC, 0, got)
            while at >= 0:
                if self._read_or_zeros(volume, raw, offset + at) == HEADER_SIZE:
                    try:
                        unpack_record(raw, volume.secret, offset + at)
                        return offset + at
                    except FormatError:
                        pass
                at = window.find(RECORD_MAGIC, at + 1, got)
            if got < len(window):
                return None
            offset += got - len(RECORD_MAGIC) + 1
        return None

    def _read_or_zeros(self, volume: Volume, buffer: bytearray, offset: int) -> int:
        """As a read; zeros stand for sectors that cannot be read, which are damage as any other (D7). Raises OSError
        where this process could not."""
        try:
            return self.files.read(volume.fd, [buffer], offset)
        except OSError as error:
            if not is_damage(error):
                raise
            log.error("%s cannot be read at %d: %s", volume.path.name, offset, error)
            self._failed_scans += 1
        got, failed = min(len(buffer), max(0, self.files.size(volume.fd) - offset)), 0
        for start in range(0, got, SECTOR):
            piece = memoryview(buffer)[start : min(start + SECTOR, got)]
            piece[:] = bytes(len(piece))
            try:
                if failed < SECTORS:  # of a disk that reads nothing not each one is waited for
                    self.files.read(volume.fd, [piece], offset + start)
            except OSError as error:
                if not is_damage(error):
                    raise
                failed += 1
        return got

    def recover(self, mark: tuple[int, int], tail: Tail) -> Iterator[tuple[Record, Location]]:
        """Find what was appended past the mark (volume, offset), which says that the index covers all before: the
        records in their order, and all else in `tail`.

        A record there counts only once its blocks' CRCs hold (D5), of what the disk has: after a loss of power, or a
        sync that failed, its header may be on disk and its data not, and it would stand for a synced original that
        compaction copied, or for a shard that a heal made. What a process that was killed did not sync is synced first.
        One whose data the disk cannot read may be either: it is told apart, and counts where nothing else stands for
        its shard. Where the index was lost the mark is 0, and the data of the last volume alone is read: the others
        were synced when they were sealed.
        """
        numbers = self.numbers()
        for number in numbers:
            tail.next_number = number + 1
            if number < mark[0]:
                continue
            try:
                volume = self.acquire(number)
            except (FormatError, OSError) as error:
                if isinstance(error, OSError) and not is_damage(error):
                    raise
                tail.current, tail.whole = None, False
                log.error("volume passed over: %s", error)
                continue
            try:
                start, check = mark[1] if number == mark[0] else HEADER_SIZE, mark[0] > 0 or number == numbers[-1]
                self.files.sync(volume.fd)
                if check:
                    self.files.forget(volume.fd, start)
                end, whole = yield from self._scan_tail(volume, start, tail, check=check)
            finally:
                self.release(volume)
            tail.current = (number, end) if whole else None

    def _scan_tail(
        self, volume: Volume, start: int, tail: Tail, *, check: bool
    ) -> Generator[tuple[Record, Location], None, tuple[int, bool]]:
        end, whole, torn, failed = start, True, 0, self._failed_scans
        for offset, record, clean in self.headers(volume, start):
            end, whole = offset + record.size, whole and clean
            found = (record, Location(volume.number, offset, record.length, record.created_s, record.aligned))
            holds = not check or self._holds(volume, offset, record)
            if holds:
                yield found
            elif holds is None:
                tail.unread.append(found)
            else:
                tail.torn[volume.number] = tail.torn.get(volume.number, 0) + record.size
                torn, whole = torn + 1, False
        if torn:
            log.warning("%s: %d records were not written to their end, and do not count", volume.path.name, torn)
        tail.whole = tail.whole and self._failed_scans == failed and not tail.unread
        return end, whole and tail.whole and end == self.files.size(volume.fd)

    def _holds(self, volume: Volume, offset: int, record: Record) -> bool | None:
        """Whether the blocks of a record are what its table of CRCs says; None where the disk cannot read them."""
        table, data = bytearray(record.table_bytes), bytearray(record.length)
        try:
            got = self.files.read(volume.fd, [table, data], offset + record.front - record.table_bytes)
        except OSError as error:
            if not is_damage(error):
                raise
            log.error("%s cannot be read at %d: %s", volume.path.name, offset, error)
            return None
        return got == len(table) + len(data) and block_crcs(data, record.shard, volume.secret) == table

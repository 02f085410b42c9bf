"""Volumes: append-only files of shard records, which are open, and what a scan of them finds.

`Volumes` keeps at most `open_files` of them open. A volume in use is never closed (D5): whoever uses one holds it
between `acquire` and `release`, and one that is removed meanwhile is closed by its last user. Sealed volumes are never
appended to again (appender.py). Crash at any point: the tail holds records that nobody acknowledged or a torn one; the
scan at start (`recover`) finds every valid header past the mark and seals what has junk at its end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from s4.storage.files import Files
from s4.storage.records import (
    HEADER_SIZE,
    RECORD_MAGIC,
    FormatError,
    Record,
    VolumeHeader,
    pack_volume,
    unpack_record,
    unpack_volume,
)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Volume:
    """One open volume. `users` counts the reads in progress."""

    number: int
    path: Path
    fd: int
    secret: bytes
    users: int = 0


@dataclass(frozen=True, slots=True)
class Location:
    """Where a record is: volume number, offset of its header, bytes of data."""

    volume: int
    offset: int
    length: int
    created_s: int


@dataclass(slots=True)
class Tail:
    """What the scan found: records past the mark, and where to go on (None: start a new volume)."""

    records: list[tuple[Record, Location]] = field(default_factory=list)
    current: tuple[int, int] | None = None
    next_number: int = 1


class Volumes:
    """The volume files of one store."""

    def __init__(self, files: Files, directory: Path, store: bytes, open_files: int) -> None:
        self.files, self.directory, self.store = files, directory, store
        self._open: OrderedDict[int, Volume] = OrderedDict()
        self._limit = open_files
        self._lock = threading.Lock()

    def path(self, number: int) -> Path:
        return self.directory / f"{number:08x}.vol"

    def numbers(self) -> list[int]:
        return sorted(int(path.stem, 16) for path in self.directory.glob("*.vol"))

    def create(self, number: int) -> Volume:
        """A new volume with its header, or nothing: on a full disk each append comes here anew."""
        secret, path = os.urandom(16), self.path(number)
        fd = self.files.create(path)
        try:
            self.files.write(fd, [pack_volume(VolumeHeader(number, self.store, secret))], 0)
        except BaseException:
            self.files.close(fd)
            with contextlib.suppress(OSError):
                self.files.unlink(path)
            raise
        return self._keep(Volume(number, path, fd, secret))

    def acquire(self, number: int) -> Volume:
        """The open volume, held until `release`. Raises FileNotFoundError, FormatError."""
        with self._lock:
            volume = self._open.get(number)
            if volume is not None:
                self._open.move_to_end(number)
                volume.users += 1
                return volume
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
        return self._keep(Volume(number, self.path(number), fd, header.secret, users=1))

    def release(self, volume: Volume) -> None:
        with self._lock:
            volume.users -= 1

    def remove(self, number: int) -> None:
        with self._lock:
            volume = self._open.pop(number, None)
        if volume is not None:
            self.files.close(volume.fd)
        self.files.unlink(self.path(number))

    def drop_unlinked(self) -> list[int]:
        """Forget open files whose names are gone, deleted by somebody else; returns their numbers."""
        with self._lock:
            gone = [volume for volume in self._open.values() if not self.files.is_linked(volume.fd)]
            for volume in gone:
                del self._open[volume.number]
                if volume.users == 0:
                    self.files.close(volume.fd)
        return [volume.number for volume in gone]

    def close(self) -> None:
        for volume in self._open.values():
            self.files.close(volume.fd)
        self._open.clear()

    def _keep(self, volume: Volume) -> Volume:
        with self._lock:
            known = self._open.get(volume.number)
            if known is not None:  # two threads opened it at once
                self.files.close(volume.fd)
                known.users += volume.users
                return known
            self._open[volume.number] = volume
            for number, other in list(self._open.items()):
                if len(self._open) <= self._limit:
                    break
                if other.users == 0 and number != volume.number:
                    del self._open[number]
                    self.files.close(other.fd)
        return volume

    def headers(self, volume: Volume, start: int) -> Iterator[tuple[int, Record, bool]]:
        """(offset, record, clean) of each valid header from `start` on, in order.

        `clean` is False for a record that does not directly follow its predecessor: there was damage between.
        """
        size, offset, clean = self.files.size(volume.fd), max(start, HEADER_SIZE), True
        raw = bytearray(HEADER_SIZE)
        while offset + HEADER_SIZE <= size:
            self.files.read(volume.fd, [raw], offset)
            try:
                record = unpack_record(raw, volume.secret, offset)
                if offset + record.size > size:
                    raise FormatError("cut off")
            except FormatError:
                found = self._resync(volume, offset + 1, size)
                if found is None:
                    return
                offset, clean = found, False
                continue
            yield offset, record, clean
            offset, clean = offset + record.size, True

    def _resync(self, volume: Volume, offset: int, size: int) -> int | None:
        """The next offset at which a valid header is, past damage."""
        window = bytearray(1 << 20)
        raw = bytearray(HEADER_SIZE)
        while offset < size:
            got = self.files.read(volume.fd, [window], offset)
            at = window.find(RECORD_MAGIC, 0, got)
            while at >= 0:
                if self.files.read(volume.fd, [raw], offset + at) == HEADER_SIZE:
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

    def recover(self, mark: tuple[int, int]) -> Tail:
        """Find what was appended past the mark (volume, offset), which says that the index covers all before."""
        tail = Tail()
        for number in self.numbers():
            tail.next_number = number + 1
            if number < mark[0]:
                continue
            try:
                volume = self.acquire(number)
            except FormatError as error:
                tail.current = None
                log.error("volume passed over: %s", error)
                continue
            try:
                before = len(tail.records)
                end, whole = self._scan_tail(volume, mark[1] if number == mark[0] else HEADER_SIZE, tail)
                if len(tail.records) > before:  # a process that was killed did not sync what is read here
                    self.files.sync(volume.fd)
            finally:
                self.release(volume)
            tail.current = (number, end) if whole else None
        return tail

    def _scan_tail(self, volume: Volume, start: int, tail: Tail) -> tuple[int, bool]:
        end, whole = start, True
        for offset, record, clean in self.headers(volume, start):
            tail.records.append((record, Location(volume.number, offset, record.length, record.created_s)))
            end, whole = offset + record.size, whole and clean
        return end, whole and end == self.files.size(volume.fd)

"""The appender: the thread that writes shard records to the current volume's tail.

It takes whatever waits, writes it with few calls, makes one fdatasync for all who asked, and reports in the order of
their places: that is the group commit. A record is acknowledged only after that fdatasync. Little is written before
much, and much a piece at a time: whoever writes little, or syncs what is written, waits for one piece of a flood, and
not for all that stands in the queue. Space is reserved ahead (preallocation), so a full disk shows there as a clean
refusal with nothing in doubt; any other failure of a write or sync ends the process (D7). Large records are aligned
ones, written past the page cache (direct.py). Records are written past the tail only; a volume that is full is synced
and sealed before the next one is begun, so that what is not durable after a crash is at the end of the last volume
alone.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from s4.storage import direct
from s4.storage.direct import Direct
from s4.storage.files import Buffer
from s4.storage.records import HEADER_SIZE, DiskFullError, Record, Shard, aligned, block_crcs, pack_record
from s4.storage.timing import SYNC, WRITE
from s4.storage.volumes import Location, Tail, Volume, Volumes

GROUP_BYTES = 64 << 20  # that one sync is for, where no small record waits for it
PIECE_BYTES = 4 << 20  # written under the lock at once
SMALL_BYTES = 64 * 1024


@dataclass(slots=True)
class Append:
    """A record on its way to disk. `done(location or error)` is called on the appender's thread, in order."""

    shard: Shard
    pieces: Sequence[Buffer]
    sync: bool
    done: Callable[[Location | BaseException], None]
    created_s: int = 0
    aligned: bool = False
    location: Location | None = None

    @property
    def length(self) -> int:
        return sum(map(len, self.pieces))


@dataclass(slots=True)
class _Run:
    """Records of one kind that follow each other, and where they begin."""

    start: int
    aligned: bool
    buffers: list[Buffer] = field(default_factory=list)


class Appender:
    """The thread that writes records to the current volume."""

    def __init__(
        self,
        volumes: Volumes,
        tail: Tail,
        *,
        volume_bytes: int,
        preallocate_bytes: int,
        durable: bool,
        fatal: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._direct = Direct(volumes.files)
        self._volumes, self._files, self._times = volumes, volumes.files, volumes.times
        self._volume_bytes, self._step = volume_bytes, preallocate_bytes
        self._durable, self._fatal, self._clock = durable, fatal, clock
        self._queue: queue.SimpleQueue[Append | None] = queue.SimpleQueue()
        self._next = tail.next_number
        self._volume: Volume | None = None
        self._offset = self._reserved = 0
        self._lock = threading.Lock()  # the tail: this thread's, and for a moment that of `write_now` and `sync_now`
        self._turnstile = threading.Lock()  # passed before the lock: else the thread takes that again at once
        self._syncing = threading.Lock()  # `sync_now`, which takes the lock meanwhile
        self._at_disk = threading.Lock()  # one sync of a file at a time; nothing else is taken by who has it
        self._small, self._large = deque[Append](), deque[Append]()
        self._ending = False
        self._written = self._synced = 0
        if tail.current is not None and tail.current[1] < volume_bytes:
            self._volume = volumes.acquire(tail.current[0])
            self._offset = self._reserved = tail.current[1]
            self._written = 1  # what a killed process left may be in the page cache only
        self._thread = threading.Thread(target=self._run, name="appender", daemon=True)
        self._thread.start()

    @property
    def current(self) -> int | None:
        """The number of the volume that is being appended to."""
        return self._volume.number if self._volume else None

    @property
    def dirty(self) -> bool:
        """Whether records were written since the last sync."""
        return self._written > self._synced

    def submit(self, append: Append) -> None:
        self._queue.put(append)

    def close(self) -> None:
        """Write what waits, sync, stop."""
        self._queue.put(None)
        self._thread.join()

    def leave(self, numbers: Collection[int]) -> None:
        """Append no more to these volumes: their files were deleted, and what goes there is lost."""
        with self._lock:
            if self._volume is not None and self._volume.number in numbers:
                self._let_go(self._volume)

    def _run(self) -> None:
        try:
            while self._gather(wait=True):
                self._write()
            if self._volume is not None:
                self._seal(self._volume)
        except BaseException as error:
            self._fatal(error)

    def _gather(self, *, wait: bool) -> bool:
        """Sort what was submitted; whether there is anything to write."""
        if wait and not self._small and not self._large and not self._ending:
            self._sort(self._queue.get())
        with contextlib.suppress(queue.Empty):
            while True:
                self._sort(self._queue.get_nowait())
        return bool(self._small or self._large)

    def _sort(self, append: Append | None) -> None:
        if append is None:
            self._ending = True
        else:
            (self._small if append.length <= SMALL_BYTES else self._large).append(append)

    def _piece(self) -> list[Append]:
        """What is written next: small ones, and at least one that is not."""
        piece: list[Append] = []
        size = 0
        for waiting, most in ((self._small, PIECE_BYTES // 2), (self._large, PIECE_BYTES)):
            while waiting and size < most:
                piece.append(waiting.popleft())
                size += piece[-1].length
        return piece

    def write_now(self, append: Append) -> Location | None:
        """Write one small record on the caller's thread, not synced; None where that would have to wait."""
        size = Record(append.shard, append.length, 0).size
        if not self._lock.acquire(blocking=False):
            return None
        try:
            volume = self._volume
            if volume is None or self._full(size) or self._offset + size > self._reserved:
                return None
            run = _Run(self._offset, False)
            self._place(append, volume, run)
            self._flush(run)
            return append.location
        finally:
            self._lock.release()

    def sync_now(self) -> None:
        """Make every record written so far durable. Blocks; runs on any thread.

        One sync at a time: the kernel tells of a failed writeback once, so a second sync beside the first, that of a
        volume that is sealed among them, could succeed over lost bytes. A failure ends the process before anybody else
        gets to sync.
        """
        wanted = self._written  # what is being written now was told to nobody yet
        with self._syncing:
            if wanted <= self._synced:
                return
            with self._turnstile, self._lock:
                written, number = self._written, self.current
                volume = self._volumes.acquire(number) if number is not None else None
            if volume is not None:  # a volume that is no longer current was synced when it was sealed
                try:
                    self._sync(volume)
                finally:
                    self._volumes.release(volume)
            self._synced = written

    def _sync(self, volume: Volume) -> None:
        with self._at_disk:
            try:
                self._times.of(SYNC, self._files.sync, volume.fd)
            except OSError as error:  # even ENOSPC: what was written before is in doubt now
                self._fatal(error)
                raise

    def _write(self) -> None:
        """Place and write what waits, a piece at a time, sync, then report. One call for many records: each costs a
        switch of threads."""
        placed: list[Append] = []
        size = 0
        while True:
            piece = self._piece()
            with self._turnstile:
                pass
            with self._lock:
                placed += self._place_group(piece)
            size += sum(one.length for one in piece)
            asked = self._durable and any(one.sync for one in placed)
            small = any(one.sync and one.length <= SMALL_BYTES for one in piece)
            if not asked or small or size >= GROUP_BYTES or not self._gather(wait=False):
                break
        if asked:
            self.sync_now()
        for append in placed:
            if append.location is not None:
                append.done(append.location)

    def _place_group(self, group: list[Append]) -> list[Append]:
        placed: list[Append] = []
        run = _Run(self._offset, False)
        for append in group:
            size = Record(append.shard, append.length, 0, append.aligned).size
            try:
                if run.aligned != append.aligned or self._volume is None or self._full(size):
                    self._flush(run)
                    run = _Run(self._offset, append.aligned)
                volume = self._room_for(size, append.aligned)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                append.done(DiskFullError("the disk is full"))
                continue
            self._place(append, volume, run)
            placed.append(append)
        self._flush(run)
        return placed

    def _full(self, size: int) -> bool:
        return self._offset + size > self._volume_bytes + HEADER_SIZE

    def _place(self, append: Append, volume: Volume, run: _Run) -> None:
        """Give a record its place at the end of `volume`, and put its bytes behind those of `run`."""
        whole = append.pieces[0] if len(append.pieces) == 1 else b"".join(append.pieces)
        at = aligned(self._offset) if run.aligned else self._offset
        if not run.buffers:
            run.start = at
        record = Record(append.shard, len(whole), append.created_s or int(self._clock()), run.aligned)
        head, table = pack_record(record, volume.secret, at), block_crcs(whole, record.shard, volume.secret)
        run.buffers += direct.pieces(head, table, whole, self._direct.scratch) if run.aligned else (head + table, whole)
        append.location = Location(volume.number, at, record.length, record.created_s, run.aligned)
        self._offset = at + record.size

    def _flush(self, run: _Run) -> None:
        if not run.buffers or self._volume is None:
            return
        volume = self._volume
        try:
            if run.aligned:
                self._times.of(WRITE, self._direct.write, volume.path, volume.fd, run.buffers, run.start)
                self._direct.scratch.reset()
            else:
                self._times.of(WRITE, self._files.write, volume.fd, run.buffers, run.start)
        except OSError as error:  # after preallocation this is no clean refusal: rule D7
            raise RuntimeError(f"writing to {volume.path} failed: {error}") from error
        self._written += 1

    def _seal(self, volume: Volume) -> None:
        try:
            self._sync(volume)
            self._files.truncate(volume.fd, self._offset)
        except OSError as error:
            self._fatal(error)
            raise RuntimeError(f"sealing {volume.path} failed: {error}") from error
        self._let_go(volume)

    def _let_go(self, volume: Volume) -> None:
        self._direct.leave()
        self._volumes.release(volume)
        self._volume = None

    def _room_for(self, size: int, is_aligned: bool) -> Volume:
        """The volume to append to, with `size` bytes reserved. Raises OSError ENOSPC with nothing changed."""
        volume = self._volume
        if volume is None or self._full(size):
            if volume is not None:
                self._seal(volume)
            self._next += 1  # first: a number whose file could not be finished is not used again
            volume = self._volumes.create(self._next - 1)
            self._volume, self._offset, self._reserved = volume, HEADER_SIZE, HEADER_SIZE
        if is_aligned:
            size += aligned(self._offset) - self._offset
        if self._offset + size > self._reserved:
            step = max(self._step, size) if self._step else size
            self._files.preallocate(volume.fd, self._offset, step)
            self._reserved = self._offset + step
        return volume

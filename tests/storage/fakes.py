"""A twin of the file layer with faults. Legal faults: what was not synced may be lost or torn at a crash, in any
order; calls may fail with an errno. A sync makes all earlier writes to that file durable; metadata (names,
sizes) is durable after the directory's sync. Nothing that was synced is ever lost. A write past the page cache counts as
any other: what its disk has in a cache of its own may be lost until a sync.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from s4.storage.files import Buffer, Files


class RecordingFiles(Files):
    """Writes through, and records writes and syncs so that a crash at any moment can be replayed."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.paths: dict[int, Path] = {}

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self.paths[fd] = path
        self.events.append(("create", path))
        return fd

    def open(self, path: Path) -> int:
        fd = super().open(path)
        self.paths[fd] = path
        return fd

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        self.events.append(("write", self.paths[fd], offset, b"".join(bytes(piece) for piece in pieces)))
        return super().write(fd, pieces, offset)

    def write_direct(self, fd: int, direct: int, pieces: Sequence[Buffer], offset: int) -> int:
        self.events.append(("write", self.paths[fd], offset, b"".join(bytes(piece) for piece in pieces)))
        return super().write_direct(fd, direct, pieces, offset)

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.events.append(("sync", self.paths[fd]))

    def replay(self, directory: Path, upto: int, keep: Callable[[int, bytes], bytes | None]) -> None:
        """Make the volumes as a crash after `upto` events leaves them.

        `keep(index, data)` says what of an unsynced write reached the disk: all, a part, or None.
        """
        for path in directory.glob("*.vol"):
            path.unlink()
        synced: dict[Path, int] = {}
        for index, event in enumerate(self.events[:upto]):
            if event[0] == "sync":
                synced[event[1]] = index
        for index, event in enumerate(self.events[:upto]):
            path = directory / event[1].name
            if event[0] == "create":
                path.touch()
            elif event[0] == "write":
                data = event[3] if index < synced.get(event[1], -1) else keep(index, event[3])
                if data:
                    with path.open("r+b") as file:
                        file.seek(event[2])
                        file.write(data)


class FailingFiles(Files):
    """Fails call number `at` (counting from 1) of the named methods with an errno, and every later one."""

    def __init__(self, methods: set[str], at: int, code: int = errno.EIO) -> None:
        self.methods, self.at, self.code = methods, at, code
        self.calls = 0

    def _maybe(self, method: str) -> None:
        if method in self.methods:
            self.calls += 1
            if self.calls >= self.at:
                raise OSError(self.code, os.strerror(self.code))

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        self._maybe("write")
        return super().write(fd, pieces, offset)

    def write_direct(self, fd: int, direct: int, pieces: Sequence[Buffer], offset: int) -> int:
        self._maybe("write")
        return super().write_direct(fd, direct, pieces, offset)

    def sync(self, fd: int) -> None:
        self._maybe("sync")
        super().sync(fd)

    def preallocate(self, fd: int, offset: int, length: int) -> None:
        self._maybe("preallocate")
        super().preallocate(fd, offset, length)

    def create(self, path: Path) -> int:
        self._maybe("create")
        return super().create(path)


class FaultyFiles(Files):
    """The faulty twin: call number `at` of the named methods, counted from `arm` on, fails once.

    `code` is an errno, or TORN for a write of which half is done before it fails, or SLOW for a call that
    comes late and is right.
    """

    TORN, SLOW = -1, -2

    def __init__(self, methods: set[str], at: int, code: int) -> None:
        self.methods, self.at, self.code = methods, at, code
        self.calls = 0
        self.armed = self.fired = False

    def arm(self) -> None:
        """Count from here on."""
        self.armed = True

    def _due(self, method: str) -> bool:
        if not self.armed or method not in self.methods:
            return False
        self.calls += 1
        if self.calls != self.at:
            return False
        self.fired = True
        if self.code == self.SLOW:
            threading.Event().wait(0.5)
            return False
        return True

    def _maybe(self, method: str) -> None:
        if self._due(method):
            code = errno.EIO if self.code == self.TORN else self.code
            raise OSError(code, os.strerror(code))

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        self._maybe_torn(fd, pieces, offset)
        return super().write(fd, pieces, offset)

    def write_direct(self, fd: int, direct: int, pieces: Sequence[Buffer], offset: int) -> int:
        self._maybe_torn(fd, pieces, offset)
        return super().write_direct(fd, direct, pieces, offset)

    def _maybe_torn(self, fd: int, pieces: Sequence[Buffer], offset: int) -> None:
        if self._due("write"):
            if self.code == self.TORN:
                whole = b"".join(bytes(piece) for piece in pieces)
                super().write(fd, [whole[: len(whole) // 2]], offset)
            code = errno.EIO if self.code == self.TORN else self.code
            raise OSError(code, os.strerror(code))

    def create(self, path: Path) -> int:
        self._maybe("create")
        return super().create(path)

    def sync(self, fd: int) -> None:
        self._maybe("sync")
        super().sync(fd)

    def sync_directory(self, path: Path) -> None:
        self._maybe("sync_directory")
        super().sync_directory(path)

    def preallocate(self, fd: int, offset: int, length: int) -> None:
        self._maybe("preallocate")
        super().preallocate(fd, offset, length)

    def punch(self, fd: int, offset: int, length: int) -> None:
        self._maybe("punch")
        super().punch(fd, offset, length)

    def truncate(self, fd: int, size: int) -> None:
        self._maybe("truncate")
        super().truncate(fd, size)

    def unlink(self, path: Path) -> None:
        self._maybe("unlink")
        super().unlink(path)

    def replace(self, path: Path, content: bytes) -> None:
        self._maybe("replace")
        super().replace(path, content)

    def read(self, fd: int, buffers: Sequence[bytearray | memoryview], offset: int, *, nowait: bool = False) -> int:
        self._maybe("read")
        return super().read(fd, buffers, offset, nowait=nowait)


class AilingFiles(Files):
    """Faults that stay until they are mended, as those of real disks do.

    `spoil` makes reads of a file, of a part of it, or of all files below a directory fail with EIO, however often they
    are tried; writes there go well. `room_bytes` is what the disk still takes: a write beyond it is a short one, the
    next one fails with ENOSPC. `shortest_bytes` bounds each write, which is legal too and no failure.
    """

    def __init__(self) -> None:
        self.room_bytes: int | None = None
        self.shortest_bytes: int | None = None
        self.failed_reads = 0
        self._spoiled: list[tuple[Path, int, int]] = []

    def spoil(self, path: Path, start: int = 0, stop: int = 1 << 62) -> None:
        self._spoiled.append((path.absolute(), start, stop))

    def mend(self) -> None:
        self._spoiled.clear()
        self.room_bytes = self.shortest_bytes = None

    def read(self, fd: int, buffers: Sequence[bytearray | memoryview], offset: int, *, nowait: bool = False) -> int:
        if self._spoiled:
            path, end = Path(f"/proc/self/fd/{fd}").readlink(), offset + sum(map(len, buffers))
            for bad, start, stop in self._spoiled:
                if (path == bad or bad in path.parents) and offset < stop and start < end:
                    self.failed_reads += 1
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(fd, buffers, offset, nowait=nowait)

    def _write_some(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        size = sum(map(len, pieces))
        if self.shortest_bytes is not None:
            size = min(size, self.shortest_bytes)
        if self.room_bytes is not None and size:
            size = min(size, self.room_bytes)
            self.room_bytes -= size
            if not size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken, left = [], size  # in their own memory: a direct write wants it aligned
        for piece in pieces:
            taken.append(memoryview(piece)[:left])
            left -= len(taken[-1])
        return super()._write_some(fd, [piece for piece in taken if piece], offset)

    def preallocate(self, fd: int, offset: int, length: int) -> None:
        if self.room_bytes is not None and length > self.room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().preallocate(fd, offset, length)


class LosingFiles(Files):
    """The next sync of a volume fails once it is told to, as Linux has it fail: what was written since the one before
    is in the page cache, and neither a read nor a later sync says that the disk lacks it, until the cache is
    dropped."""

    def __init__(self) -> None:
        self.fails = False
        self._written: dict[int, list[tuple[int, int]]] = {}  # by inode
        self._lacking: dict[int, list[tuple[int, int]]] = {}

    def _write_some(self, fd: int, pieces: Sequence[Buffer], offset: int) -> int:
        done = super()._write_some(fd, pieces, offset)
        self._written.setdefault(os.fstat(fd).st_ino, []).append((offset, done))
        return done

    def sync(self, fd: int) -> None:
        written = self._written.pop(os.fstat(fd).st_ino, [])
        if self.fails and written:
            self.fails = False
            self._lacking[os.fstat(fd).st_ino] = written
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)

    def forget(self, fd: int, offset: int) -> None:
        super().forget(fd, offset)
        for start, size in self._lacking.pop(os.fstat(fd).st_ino, []):
            os.pwrite(fd, bytes(size), start)

"""The system calls of `s4.storage.files`, over disks of disks.py.

Descriptors are numbers of each process's own table, lowest first: what is used after it was closed is another file, or
EBADF.

Writes past the page cache are writes as others, durable by a sync alone; on some disks there are none. One that is not
aligned is refused and counts as misuse. What is large enough for them is lowered, for objects here are small.
"""

from __future__ import annotations

import ctypes
import errno
import os as real
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from whole.disks import PAGE, Disk, File
from whole.loop import Process, running
from whole.threads import DeadError, block

_PUNCH = 2


class OpenFile:
    """An entry of a process's table of descriptors."""

    def __init__(self, fd: int, path: str, disk: Disk | None, file: File | None, direct: bool = False) -> None:
        self.fd, self.path, self.disk, self.file, self.locked = fd, path, disk, file, False
        self.direct = direct
        self._users, self._closed = 0, False

    def __enter__(self) -> OpenFile:
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        """A call that is under way keeps the file, whoever closes its descriptor."""
        self._users -= 1
        if self._closed and not self._users:
            real.close(self.fd)

    def close(self) -> None:
        self._closed = True
        if self.locked and self.disk is not None:
            self.disk.locks.discard(self.path)
        if not self._users:
            real.close(self.fd)


class Os:
    """`os`, for the modules of the file layer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)

    @staticmethod
    def _open_file(fd: int) -> OpenFile:
        process = running().here()
        if not process.alive:
            raise DeadError
        found = process.fds.get(fd)
        if found is None:
            process.loop.note(f"{process.name} uses descriptor {fd}, which is closed")
            process.loop.misuse += 1
            raise OSError(errno.EBADF, real.strerror(errno.EBADF))
        return found

    @contextmanager
    def _call(self, kind: str, fd: int, size: int = 0) -> Iterator[OpenFile]:
        """The file, once the call's time has passed. A thread may be left standing right before it calls."""
        loop = running()
        if loop.random.random() < loop.preempted:
            block(loop.random.random() * (0.05 if loop.random.random() < 0.7 else 1.5))
        with self._open_file(fd) as opened:
            if opened.disk is not None:
                opened.disk.check(kind, loop.here(), size)
            yield opened

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        process = running().here()
        disk = Disk.find(path)
        if disk is not None:
            disk.check("open", process)
        direct = bool(flags & real.O_DIRECT)
        if direct and disk is not None and zlib.crc32(disk.name.encode()) % 3 == 0:
            raise OSError(errno.EINVAL, real.strerror(errno.EINVAL))
        fd = real.open(path, flags & ~real.O_DIRECT, mode)
        file = None
        if disk is not None and not flags & real.O_DIRECTORY:
            file = disk.file_of(fd)
            if flags & real.O_TRUNC:
                file.pending.append((0, None))
        number = 3
        while number in process.fds:
            number += 1
        process.fds[number] = OpenFile(fd, str(path), disk, file, direct)
        return number

    def close(self, fd: int) -> None:
        opened = self._open_file(fd)
        del running().here().fds[fd]
        opened.close()

    def fstat(self, fd: int) -> Any:
        return real.fstat(self._open_file(fd).fd)

    def write(self, fd: int, data: Any) -> int:
        with self._call("write", fd, len(data)) as opened:
            at = real.lseek(opened.fd, 0, real.SEEK_CUR)
            return self._written(opened, bytes(data), at, lambda piece: real.write(opened.fd, piece))

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        with self._call("write", fd, len(data)) as opened:
            return self._written(opened, bytes(data), offset, lambda piece: real.pwrite(opened.fd, piece, offset))

    def pwritev(self, fd: int, pieces: Sequence[Any], offset: int) -> int:
        data = b"".join(bytes(piece) for piece in pieces)
        with self._call("write", fd, len(data)) as opened:
            if opened.direct:
                self._check_alignment(pieces, offset)
                running().effects["write past the page cache"] += 1
            return self._written(opened, data, offset, lambda piece: real.pwrite(opened.fd, piece, offset))

    @staticmethod
    def _check_alignment(pieces: Sequence[Any], offset: int) -> None:
        places = [ctypes.addressof(ctypes.c_char.from_buffer(piece)) for piece in pieces]
        if any(at % PAGE for at in (offset, *places, *map(len, pieces))):
            running().note("a write past the page cache is not aligned")
            running().misuse += 1
            raise OSError(errno.EINVAL, real.strerror(errno.EINVAL))

    def _written(self, opened: OpenFile, data: bytes, offset: int, write: Any) -> int:
        disk, file = opened.disk, opened.file
        if disk is not None and file is not None:
            if disk.full and offset + len(data) > max(file.reserved, real.fstat(opened.fd).st_size):
                data = data[: len(data) // 2 if disk.loop.random.random() < 0.7 else 0]
                disk.loop.effects["short write" if data else "no space"] += 1
                if not data:
                    raise OSError(errno.ENOSPC, real.strerror(errno.ENOSPC))
                disk.loop.note(f"{disk.name} writes {len(data)} bytes short to {Path(opened.path).name}")
            file.pending.append((offset, data))
            disk.written += len(data)
            disk.count()
        return int(write(data))

    def preadv(self, fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        opened, size = self._open_file(fd), sum(map(len, buffers))
        disk = opened.disk
        if disk is None:
            return real.preadv(opened.fd, buffers, offset)
        if flags:
            if self._is_bad(opened, offset, size) or disk.loop.random.random() < 0.2:
                raise BlockingIOError(errno.EAGAIN, "not at hand")
            return real.preadv(opened.fd, buffers, offset)
        with self._call("read", fd, size) as opened:
            if self._is_bad(opened, offset, size):
                disk.loop.effects["read failed"] += 1
                disk.loop.note(f"{disk.name} cannot read {Path(opened.path).name} at {offset}")
                raise OSError(errno.EIO, real.strerror(errno.EIO))
            return real.preadv(opened.fd, buffers, offset)

    @staticmethod
    def _is_bad(opened: OpenFile, offset: int, size: int) -> bool:
        file = opened.file
        return file is not None and any(start < offset + size and offset < end for start, end in file.unreadable)

    def fsync(self, fd: int) -> None:
        with self._open_file(fd) as opened:
            if opened.disk is None:
                return
            mark = opened.file.mark() if opened.file is not None else 0
            try:
                opened.disk.check("sync", running().here())
            except OSError:
                if opened.file is not None:
                    opened.file.fail_sync()
                raise
            if opened.file is not None:
                opened.file.sync(mark)
            else:
                opened.disk.noted(opened.path)

    fdatasync = fsync

    def posix_fadvise(self, fd: int, offset: int, length: int, advice: int) -> None:
        """The page cache is dropped."""
        with self._open_file(fd) as opened:
            if opened.disk is not None and opened.file is not None and opened.file.doubtful:
                disk = opened.disk
                disk.loop.effects["page cache dropped after a failed sync"] += 1
                found = opened.file.forget(disk.loop.random, real.fstat(opened.fd).st_size)
                real.pwrite(opened.fd, found, 0)

    def ftruncate(self, fd: int, size: int) -> None:
        with self._call("truncate", fd) as opened:
            if opened.file is not None:
                opened.file.pending.append((size, None))
            real.ftruncate(opened.fd, size)

    def statvfs(self, path: Any) -> Any:
        disk = Disk.find(path)
        if disk is None:
            return real.statvfs(path)
        free = 0 if disk.full else max(0, disk.total - disk.written)
        return SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=disk.total)


class Libc:
    """`fallocate`, as `s4.storage.files` calls it."""

    def __init__(self, os: Os) -> None:
        self._os = os

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> int:
        punch = bool(mode & _PUNCH)
        try:
            with self._os._call("punch" if punch else "preallocate", fd) as opened:
                self._done(opened, punch, offset, length)
        except OSError as error:
            ctypes.set_errno(error.errno or errno.EIO)
            return -1
        return 0

    @staticmethod
    def _done(opened: OpenFile, punch: bool, offset: int, length: int) -> None:
        disk, file = opened.disk, opened.file
        if disk is None or file is None:
            return
        if punch:
            hole = bytes(max(0, min(length, real.fstat(opened.fd).st_size - offset)))
            if hole:
                file.pending.append((offset, hole))
                real.pwrite(opened.fd, hole, offset)
        elif disk.full:
            disk.loop.effects["no space"] += 1
            raise OSError(errno.ENOSPC, real.strerror(errno.ENOSPC))
        else:
            file.reserved = max(file.reserved, offset + length)


class Fcntl:
    """`flock`, as `s4.storage.directory` calls it."""

    LOCK_EX, LOCK_NB = 2, 4

    def __init__(self, os: Os) -> None:
        self._os = os

    def flock(self, fd: int, how: int) -> None:
        opened = self._os._open_file(fd)
        if opened.disk is not None:
            if opened.path in opened.disk.locks:
                raise BlockingIOError(errno.EAGAIN, "locked")
            opened.disk.locks.add(opened.path)
            opened.locked = True


def close_all(process: Process) -> None:
    """The kernel closes what a process had open that has ended."""
    for opened in process.fds.values():
        opened.close()
    process.fds.clear()


@contextmanager
def as_they_are() -> Iterator[None]:
    """The files themselves, for who looks at them from outside the simulated machines."""
    from s4.storage import files

    kept, files.os = files.os, real  # type: ignore[attr-defined]
    try:
        yield
    finally:
        files.os = kept  # type: ignore[attr-defined]


def install() -> None:
    """Put the disks under the modules that make system calls on data."""
    from s4.base import worker
    from s4.node import drive_set, local, member
    from s4.storage import appender, direct, directory, drives, files, volumes
    from s4.upkeep import returning
    from whole import threads

    os = Os()
    for module in (files, directory, member, local, drive_set, returning):
        module.os = os  # type: ignore[attr-defined]
    files._libc = Libc(os)  # type: ignore[assignment]
    for module in (directory, returning):
        module.fcntl = Fcntl(os)  # type: ignore[attr-defined]
    direct.LEAST_BYTES = 2048
    for module in (volumes, appender, worker):
        module.threading, module.queue = threads.threads, threads.queues  # type: ignore[attr-defined]
    drives.ThreadPoolExecutor = threads.Pool  # type: ignore[misc,assignment]

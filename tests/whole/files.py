"""Disks under the real file layer: the system calls of `s4.storage.files`, with what a power failure leaves, and
faults.

Files are real ones in memory (/dev/shm), as the page cache has them; beside each stands what is on the disk. A sync
brings all earlier writes to that file there; names are there once their directory was synced. At a power failure each
write that was not synced is kept, lost or torn, each name the old or the new one. A process that ends alone loses
nothing of either.

Faults: a call fails once or from then on (EIO), a disk is full (ENOSPC, short writes, and what was reserved still
fits), ranges cannot be read any more, bytes rot, everything is slow. After a failed sync nobody knows what is on the
disk, and a later sync does not bring it there, as Linux does it. Descriptors are numbers of each process's own table,
lowest first: what is used after it was closed is another file, or EBADF.

Writes past the page cache are writes as others, durable by a sync alone; on some disks there are none. One that is not
aligned is refused and counts as misuse. What is large enough for them is lowered, for objects here are small.

Not simulated: making directories is durable at once; small files that are read by name are not damaged.
"""

from __future__ import annotations

import ctypes
import errno
import os as real
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from whole.loop import Loop, Process, running
from whole.threads import DeadError, block

PAGE = 4096
_PUNCH = 2


class File:
    """What one file has on the disk: `durable`, and writes that are on their way (offset, bytes), (size, None)."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = bytearray(content)
        self.pending: list[tuple[int, bytes | None]] = []
        self.doubtful: list[tuple[int, bytes | None]] = []
        self.reserved = self.synced = 0
        self.unreadable: list[tuple[int, int]] = []

    def apply(self, offset: int, data: bytes | None) -> None:
        if data is None:
            del self.durable[offset:]
            self.durable.extend(bytes(offset - len(self.durable)))
            return
        if offset > len(self.durable):
            self.durable.extend(bytes(offset - len(self.durable)))
        self.durable[offset : offset + len(data)] = data

    def mark(self) -> int:
        """How many writes there have been: what a sync that begins now covers."""
        return self.synced + len(self.pending)

    def sync(self, mark: int) -> None:
        count = max(0, min(mark - self.synced, len(self.pending)))
        for one in self.pending[:count]:
            self.apply(*one)
        del self.pending[:count]
        self.synced += count

    def fail_sync(self) -> None:
        """Nobody knows what of it is on the disk, and no later sync brings it there."""
        self.doubtful += self.pending
        self.synced += len(self.pending)
        self.pending.clear()

    def lose_power(self, random: Any, keep: float) -> int:
        """Each write is kept, lost, or torn: some of its pages were written. How many were not kept."""
        gone = 0
        for offset, data in (
            sorted(self.pending + self.doubtful, key=lambda _: random.random()) if keep < 1 else self.pending
        ):
            chance = random.random()
            if chance < keep:
                self.apply(offset, data)
                continue
            gone += 1
            if data and chance < keep + 0.5:
                at = 0
                while at < len(data):
                    end = min(len(data), (offset + at) // PAGE * PAGE + PAGE - offset)
                    if random.random() < 0.5:
                        self.apply(offset + at, data[at:end])
                    at = end
        self.synced += len(self.pending)
        self.pending.clear()
        self.doubtful.clear()
        return gone


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


class Disk:
    """One disk: everything below a directory. `failing` maps a kind of call to the errno that it ends with."""

    known: ClassVar[dict[str, Disk]] = {}

    def __init__(self, loop: Loop, root: Path, name: str) -> None:
        self.loop, self.root, self.name = loop, root, name
        self.files: dict[int, File] = {}
        self.names: dict[str, dict[str, int]] = {}
        self.databases: dict[str, Any] = {}
        self.locks: set[str] = set()
        self.failing: dict[str, int] = {}
        self.fail_once: dict[str, tuple[int, int]] = {}  # kind: (errno, calls until then)
        self.at_write: tuple[int, Any] | None = None  # what happens after so many more writes
        self.at_batch: Any | None = None  # what happens while the next batch is being synced
        self.full = False
        self.slow = 1.0
        self.written = 0
        self.total = 1 << 40
        root.mkdir(parents=True, exist_ok=True)
        Disk.known[str(root)] = self

    @classmethod
    def of(cls, path: Any) -> Disk:
        found = cls.find(path)
        if found is None:
            raise LookupError(f"{path} is on no disk")
        return found

    @classmethod
    def find(cls, path: Any) -> Disk | None:
        text = str(path)
        while text not in ("/", ""):
            if text in cls.known:
                return cls.known[text]
            text = text.rpartition("/")[0]
        return None

    # -- what calls ask

    def alive(self, process: Process) -> None:
        if not process.alive:
            raise DeadError

    def latency(self, kind: str, size: int = 0) -> float:
        base = 0.002 if kind == "sync" else 0.00005
        return (base * (0.5 + self.loop.random.random()) + size / 500e6) * self.slow

    def error(self, kind: str, size: int = 0) -> int | None:
        found = self.failing.get(kind)
        if kind in self.fail_once:
            code, left = self.fail_once[kind]
            if left > 0:
                self.fail_once[kind] = code, left - 1
            else:
                del self.fail_once[kind]
                self.loop.note(f"{self.name} fails a {kind} with {errno.errorcode[code]}")
                found = code
        if found is not None:
            self.loop.effects[f"{kind} failed"] += 1
        return found

    def check(self, kind: str, process: Process, size: int = 0) -> None:
        """Take the time of a call. Raises OSError for one that fails."""
        block(self.latency(kind, size))
        self.alive(process)
        code = self.error(kind, size)
        if code is not None:
            raise OSError(code, real.strerror(code))

    def count(self) -> None:
        """A write was made."""
        if self.at_write is not None:
            left, happens = self.at_write
            self.at_write = (left - 1, happens) if left else None
            if not left:
                self.loop.at(self.loop.random.random() * 0.001, happens)

    def syncing(self, seconds: float) -> None:
        """A batch of a database is being synced, for so long."""
        if self.at_batch is not None:
            happens, self.at_batch = self.at_batch, None
            self.loop.at(seconds * (0.5 + 0.5 * self.loop.random.random()), happens)

    # -- names

    def noted(self, directory: str) -> None:
        """A directory was synced."""
        self.names[directory] = self._entries(directory)

    def _entries(self, directory: str) -> dict[str, int]:
        with real.scandir(directory) as found:
            return {one.name: one.inode() for one in found if one.is_file(follow_symlinks=False)}

    def file_of(self, fd: int) -> File:
        inode = real.fstat(fd).st_ino
        found = self.files.get(inode)
        if found is None:
            found = self.files[inode] = File()
        return found

    # -- what becomes of it

    def lose_power(self) -> None:
        """The disk as a power failure leaves it."""
        random = self.loop.random
        keep = random.choice((0.0, 0.3, 0.3, 0.3, 1.0))
        for directory, durable in self.names.items():
            if not Path(directory).is_dir():
                continue
            now = self._entries(directory)
            for name in sorted({*durable, *now}):
                old, new = durable.get(name), now.get(name)
                if old != new and name != "lock" and random.random() >= keep:
                    self.loop.effects["name lost"] += 1
                    self._back(Path(directory, name), old)
        for file in self.files.values():
            if file.pending or file.doubtful:
                self.loop.effects["write lost or torn"] += file.lose_power(random, keep)
        for directory in list(self.names):
            if Path(directory).is_dir():
                for name, inode in sorted(self._entries(directory).items()):
                    if inode in self.files:
                        Path(directory, name).write_bytes(self.files[inode].durable)
                self.noted(directory)
        for database in self.databases.values():
            self.loop.effects["batch lost"] += database.lose_power(random)
        self.loop.note(f"{self.name} lost power")

    def _back(self, path: Path, inode: int | None) -> None:
        """A name is what it was."""
        path.unlink(missing_ok=True)
        if inode is not None and inode in self.files:
            path.write_bytes(self.files[inode].durable)
            self.files[path.stat().st_ino] = self.files[inode]

    def wipe(self, name: str = "") -> None:
        """Another, empty disk in its place; with a name one directory is removed, which has a database."""
        self.loop.effects["directory removed" if name else "disk replaced"] += 1
        if name:
            shutil.rmtree(self.root / name)
            self.databases.pop(str(self.root / name), None)
            return
        for entry in sorted(self.root.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self.files.clear()
        self.names.clear()
        self.databases.clear()
        self.loop.note(f"{self.name} is an empty disk now")

    def volumes(self) -> list[tuple[Path, File]]:
        """Volume files with what is on the disk of them."""
        found = []
        for path in sorted((self.root / "volumes").glob("*.vol")):
            file = self.files.get(path.stat().st_ino)
            if file is not None:
                found.append((path, file))
        return found

    def rot(self, path: Path, file: File, offset: int) -> None:
        """One byte becomes another."""
        with path.open("r+b") as opened:
            opened.seek(offset)
            byte = opened.read(1)
            opened.seek(offset)
            opened.write(bytes([byte[0] ^ 0x55]))
        if offset < len(file.durable):
            file.durable[offset] ^= 0x55


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
    for module in (volumes, appender):
        module.threading, module.queue = threads.threads, threads.queues  # type: ignore[attr-defined]
    drives.ThreadPoolExecutor = threads.Pool  # type: ignore[misc,assignment]

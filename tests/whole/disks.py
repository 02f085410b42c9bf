"""Disks: what a power failure leaves of them, and what goes wrong with them.

Files are real ones in memory (/dev/shm), as the page cache has them; beside each stands what is on the disk. A sync
brings all earlier writes to that file there; names are there once their directory was synced. At a power failure each
write that was not synced is kept, lost or torn, each name the old or the new one. A process that ends alone loses
nothing of either.

Faults: a call fails once or from then on (EIO), a disk is full (ENOSPC, short writes, and what was reserved still
fits), ranges cannot be read any more, bytes rot, everything is slow. After a failed sync nobody knows what is on the
disk, and a later sync does not bring it there, as Linux does it: it is read from the page cache until that is dropped.

Not simulated: making directories is durable at once; small files that are read by name are not damaged.
"""

from __future__ import annotations

import errno
import os as real
import shutil
from pathlib import Path
from typing import Any, ClassVar

from whole.loop import Loop, Process
from whole.threads import DeadError, block

PAGE = 4096


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

    def forget(self, random: Any, size: int) -> bytes:
        """What is read now that the page cache is dropped; of what a sync failed for some is on the disk."""
        for offset, data in self.doubtful:
            if data is None or random.random() < 0.5:
                self.apply(offset, data)
        self.doubtful.clear()
        cached = File(self.durable)
        for one in self.pending:
            cached.apply(*one)
        return bytes(cached.durable[:size]).ljust(size, b"\0")

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

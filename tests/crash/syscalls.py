"""A process's system calls on its files, recorded with strace, and what a loss of power would leave of them.

The model is a journaling file system: a sync of a file or directory makes everything durable that happened to
that file's bytes before the call began, and all changes of names before it. What no sync covers may be there,
be lost, or be torn at a sector. That is more cruel than ext4 and less than POSIX allows for names.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,write,pwrite64,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,"
    "ftruncate,fallocate,rmdir"
)
SECTOR = 512
_LINE = re.compile(r"^(\d+) +(\d+\.\d+) (\w+)\((.*)\) += (-?\d+|\?).*$", re.S)
_UNFINISHED = re.compile(r"^(\d+) +(\d+\.\d+) (\w+)\((.*) <unfinished \.\.\.>$", re.S)
_RESUMED = re.compile(r"^(\d+) +(\d+\.\d+) <\.\.\. (\w+) resumed>(.*)$", re.S)
_FD = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Call:
    """One call that succeeded. `began` and `ended` are seconds since 1970, and order calls of several threads."""

    began: float
    ended: float
    name: str
    arguments: str
    result: int


def parse(log: Path) -> list[Call]:
    """The calls in the order in which they ended."""
    begun: dict[str, tuple[float, str, str]] = {}
    found: list[Call] = []
    for line in log.read_text().splitlines():
        if match := _UNFINISHED.match(line):
            begun[match[1]] = (float(match[2]), match[3], match[4])
            continue
        whole, ended = line, 0.0
        if match := _RESUMED.match(line):
            started, name, front = begun.pop(match[1])
            ended = float(match[2])
            whole = f"{match[1]} {started:.6f} {name}({front}{match[4]}"
        if (match := _LINE.match(whole)) and match[5] not in ("?", "-1"):
            began = float(match[2])
            found.append(Call(began, max(began, ended), match[3], match[4], int(match[5])))
    return found


def _raw(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class _File:
    """Bytes as operations: (call number, offset, data), data None for truncation to `offset`."""

    operations: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    syncs: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Change:
    """A change of names: make, move or remove."""

    number: int
    kind: str
    path: str
    target: str = ""
    file: int = -1


class Recording:
    """The files under `root`, from nothing to the end of the recording."""

    def __init__(self, calls: list[Call], root: Path) -> None:
        self.calls, self.root = calls, str(root)
        self.files: list[_File] = []
        self.changes: list[_Change] = []
        self.any_sync: list[tuple[int, float]] = []
        self._names: dict[str, int] = {}
        self._at: dict[int, int] = {}
        self._length: dict[int, int] = {}
        for number, call in enumerate(calls):
            self._take(number, call)

    def _inside(self, path: str) -> bool:
        return path.startswith(self.root)

    def _take(self, number: int, call: Call) -> None:
        texts = (
            [_raw(text).decode("utf-8", "surrogateescape") for text in _TEXT.findall(call.arguments)]
            if call.name in _NAMES
            else []
        )
        if call.name == "openat" and self._inside(texts[0]):
            self._open(number, texts[0], call)
        elif call.name in ("mkdir", "mkdirat") and self._inside(texts[0]):
            self.changes.append(_Change(number, "mkdir", texts[0]))
        elif call.name.startswith("rename") and self._inside(texts[0]):
            self.changes.append(_Change(number, "move", texts[0], texts[1]))
            _move(self._names, texts[0], texts[1])
        elif call.name.startswith("unlink") or call.name == "rmdir":
            if self._inside(texts[0]):
                self.changes.append(_Change(number, "remove", texts[0]))
                self._names.pop(texts[0], None)
        elif match := _FD.match(call.arguments):
            self._on_file(number, call, int(match[1]), _raw(match[2]).decode("utf-8", "surrogateescape"))

    def _open(self, number: int, path: str, call: Call) -> None:
        if path not in self._names and "O_CREAT" in call.arguments:
            self.files.append(_File())
            self._names[path] = len(self.files) - 1
            self.changes.append(_Change(number, "make", path, file=len(self.files) - 1))
        file = self._names.get(path)
        if file is None:
            return
        if "O_TRUNC" in call.arguments:
            self.files[file].operations.append((number, 0, None))
            self._length[file] = 0
        self._at[call.result] = self._length.get(file, 0) if "O_APPEND" in call.arguments else 0

    def _on_file(self, number: int, call: Call, fd: int, path: str) -> None:
        if not self._inside(path):
            return
        if call.name in ("fsync", "fdatasync"):
            self.any_sync.append((number, call.began))
        file = self._names.get(path)
        if file is None:
            return
        if call.name in ("fsync", "fdatasync"):
            self.files[file].syncs.append((number, call.began))
        elif call.name == "ftruncate":
            size = int(call.arguments.rpartition(",")[2])
            self.files[file].operations.append((number, size, None))
            self._length[file] = size
        elif call.name == "fallocate" and "PUNCH" in call.arguments:
            offset, length = (int(text) for text in call.arguments.split(",")[-2:])
            self.files[file].operations.append((number, offset, bytes(length)))
        elif call.name in ("write", "pwrite64", "pwritev", "pwritev2"):
            data = b"".join(_raw(text) for text in _TEXT.findall(call.arguments))[: call.result]
            offset = self._at.get(fd, 0) if call.name == "write" else int(_offset(call))
            if call.name == "write":
                self._at[fd] = offset + len(data)
            self.files[file].operations.append((number, offset, data))
            self._length[file] = max(self._length.get(file, 0), offset + len(data))

    def replay(self, target: Path, upto: int, mode: str, chosen: random.Random) -> None:
        """Make `target` what a crash before call `upto` leaves. `mode`: kept, lost or torn, of what was not synced."""
        names: dict[str, int] = {}
        durable_names = upto if mode == "kept" else self._covered(self.any_sync, upto)
        directories = [self.root]
        for change in self.changes:
            if change.number >= durable_names:
                break
            if change.kind == "make":
                names[change.path] = change.file
            elif change.kind == "mkdir":
                directories.append(change.path)
            elif change.kind == "move":
                _move(names, change.path, change.target)
                directories = [
                    change.target + path[len(change.path) :] if (path + "/").startswith(change.path + "/") else path
                    for path in directories
                ]
            else:
                names.pop(change.path, None)
                directories = [path for path in directories if path != change.path]
        for path in directories:
            (target / path[len(self.root) :].lstrip("/")).mkdir(parents=True, exist_ok=True)
        for path, file in names.items():
            (target / path[len(self.root) :].lstrip("/")).write_bytes(
                self._content(self.files[file], upto, mode, chosen)
            )

    def _covered(self, syncs: list[tuple[int, float]], upto: int) -> int:
        """The number of the first call that the last sync before `upto` does not surely cover."""
        began = max((began for number, began in syncs if number < upto), default=0.0)
        return next((number for number, call in enumerate(self.calls[:upto]) if call.ended > began), upto)

    def _content(self, file: _File, upto: int, mode: str, chosen: random.Random) -> bytes:
        """Of what no sync covered each sector has, when torn, what it had at some moment: a later write to a sector
        brings with it what was written to that before."""
        covered = upto if mode == "kept" else self._covered(file.syncs, upto)
        loose = [number for number, _, _ in file.operations if covered <= number < upto]
        until: dict[int, int] = {}
        content = bytearray()
        for number, offset, data in file.operations:
            if number >= upto or (number >= covered and mode == "lost"):
                break
            if data is None:
                if number < covered or chosen.random() < 0.6:
                    del content[offset:]
                    content.extend(bytes(offset - len(content)))
                continue
            for at in range(offset - offset % SECTOR, offset + len(data), SECTOR):
                if number >= covered and at not in until:
                    until[at] = upto if chosen.random() < 0.6 else chosen.choice(loose)
                if number < covered or number < until[at]:
                    first, last = max(at, offset), min(at + SECTOR, offset + len(data))
                    content.extend(bytes(max(0, last - len(content))))
                    content[first:last] = data[first - offset : last - offset]
        return bytes(content)

    def points(self, after: int, most: int, chosen: random.Random) -> Iterator[int]:
        """Crash points behind call `after`: around each sync and change of names, and among the writes."""
        wanted = [
            number
            for number, call in enumerate(self.calls)
            if number > after
            and (call.name in ("fdatasync", "fsync") or call.name in _NAMES or chosen.random() < 0.3)
            and self.root in _raw_paths(call)
        ]
        yield from sorted(chosen.sample(wanted, min(most, len(wanted))))


_NAMES = frozenset(("openat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"))


def path_of(call: Call) -> bytes:
    """Of the file that a call is about, by its descriptor."""
    match = _FD.match(call.arguments)
    return _raw(match[2]) if match else b""


def _move(names: dict[str, int], source: str, target: str) -> None:
    """Rename a file, or a directory with all that is in it."""
    for path in [path for path in names if path == source or path.startswith(source + "/")]:
        names[target + path[len(source) :]] = names.pop(path)


def _raw_paths(call: Call) -> str:
    if match := _FD.match(call.arguments):
        return _raw(match[2]).decode("utf-8", "surrogateescape")
    found = _TEXT.search(call.arguments)
    return _raw(found[1]).decode("utf-8", "surrogateescape") if found else ""


def _offset(call: Call) -> str:
    fields = call.arguments.split(",")
    return fields[-2] if call.name == "pwritev2" else fields[-1]

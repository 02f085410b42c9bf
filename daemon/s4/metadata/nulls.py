"""Where the null version of a key stands, behind any number of others: found once in pieces, and not by every decision.

Versions only come in front of those that are there, and none is made the null version later. So what was seen once of
a key stays right: of the versions up to the newest of then, the null version is the one of then, if it was not removed
since, or none. Whoever needs it looks at what came in front, and at that one row. Kept in memory; without it a
decision walks all of them.

For editors: what is noted was seen in committed rows only. A decision's own rows may be thrown away, and their places
given to others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from s4.metadata.commands import (
    AnyCommand,
    ChangeObject,
    CompleteUpload,
    DeleteIfNewest,
    DeleteObject,
    PutObject,
)
from s4.metadata.rows import decode_summary

KNOWN = 1000  # keys
FAR = 64  # versions in front, from which on it is noted
SUSPENDED = "Suspended"
SEEKING = (PutObject, CompleteUpload, DeleteObject, ChangeObject, DeleteIfNewest)  # commands that may look for one


class Seen(NamedTuple):
    """Row keys: of the newest version then, and of the null version or nothing."""

    newest: bytes
    null: bytes


class Nulls:
    """Of one process, by the prefix of a key's versions."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, Seen] = OrderedDict()
        self._kept: dict[bytes, tuple[int, Seen]] = {}  # (commands that wait to be decided by it, what it is)

    def get(self, prefix: bytes) -> Seen | None:
        kept = self._kept.get(prefix)
        return self._seen.get(prefix) or (kept[1] if kept is not None else None)

    def keep(self, prefix: bytes) -> bool:
        """Until `release`, however many others are noted; whether there is anything to keep."""
        seen = self.get(prefix)
        if seen is None:
            return False
        self._kept[prefix] = self._kept.get(prefix, (0, seen))[0] + 1, seen
        return True

    def release(self, prefix: bytes) -> None:
        count, seen = self._kept.pop(prefix)
        if count > 1:
            self._kept[prefix] = count - 1, seen

    def note(self, prefix: bytes, seen: Seen) -> None:
        self._seen[prefix] = seen
        self._seen.move_to_end(prefix)
        if len(self._seen) > KNOWN:
            self._seen.popitem(last=False)


class Walk:
    """A look for the null version of a key, row by row: whoever has the rows gives them, newest first, until `over`."""

    def __init__(self, seen: Seen | None) -> None:
        self._seen = seen
        self.newest = b""
        self.found: tuple[bytes, bytes] | None = None
        self.rows = 0
        self.over = self.met = False

    def row(self, key: bytes, value: bytes) -> bool:
        """Whether that is enough."""
        self.newest = self.newest or key
        if self._seen is not None and key >= self._seen.newest:
            self.over = self.met = True
            return True
        self.rows += 1
        if decode_summary(value).null:
            self.found, self.over = (key, value), True
        return self.over

    def end(self, get: Callable[[bytes], bytes | None]) -> tuple[bytes, bytes] | None:
        """The null version. `get` reads the row that was seen before, where the walk met what was."""
        if self.met and self._seen is not None and self._seen.null:
            value = get(self._seen.null)
            if value is not None:
                self.found = self._seen.null, value
        return self.found

    def seen(self) -> Seen | None:
        """What is worth to be noted."""
        return Seen(self.newest, self.found[0] if self.found is not None else b"") if self.rows > FAR else None


def find(
    rows: Iterable[tuple[bytes, bytes]], seen: Seen | None, get: Callable[[bytes], bytes | None]
) -> tuple[bytes, bytes] | None:
    """The null version among a key's versions."""
    walk = Walk(seen)
    for key, value in rows:
        if walk.row(key, value):
            break
    return walk.end(get)


def wanted(command: AnyCommand, versioning: Callable[[int], str]) -> list[tuple[int, bytes]]:
    """(bucket, key) of the null versions that a decision looks for. `versioning` is of a bucket that the command does
    not say it of."""
    match command:
        case PutObject(settings=settings, key=key) | CompleteUpload(settings=settings, key=key):
            found = [(settings.bucket, key)] if settings.versioning == SUSPENDED else []
            if isinstance(command, PutObject) and command.rename_from and settings.versioning == SUSPENDED:
                found.append((settings.bucket, command.rename_from))
            return found
        case DeleteObject(settings=settings, key=key, version=version):
            asked = version == "null" or (not version and settings.versioning == SUSPENDED)
            return [(settings.bucket, key)] if asked else []
        case ChangeObject(settings=settings, key=key, version="null"):
            return [(settings.bucket, key)]
        case DeleteIfNewest(bucket=bucket, key=key):
            return [(bucket, key)] if versioning(bucket) == SUSPENDED else []
    return []

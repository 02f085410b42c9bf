"""What can be seen of a drive from outside of its files: whether they are still there, and what is to be said of it.

Files that are open go on working when somebody deletes them, or mounts something over their directory: nothing fails,
and at the next start all is lost. So it is looked for, now and then, on a thread. What a drive's alarms are is decided
here, for the single server and for a node of a cluster alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from s4.base import health
from s4.storage.directory import NAME, Identity
from s4.storage.timing import READ, Times
from s4.storage.uses import FailingReads

T = TypeVar("T")


class Drive(Protocol):
    """What is looked at: a store of shards."""

    directory: Path
    store: bytes
    times: Times

    @property
    def failing(self) -> FailingReads: ...
    @property
    def in_doubt(self) -> bool: ...
    def space(self) -> tuple[int, int]: ...
    def on_a_thread(self, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]: ...


class Watch:
    """One drive as it is looked at. `gone` says what is missing, `many` that it fails to read many places."""

    def __init__(self, shards: Drive, reserve_bytes: int) -> None:
        self._shards, self._reserve_bytes, self.gone = shards, reserve_bytes, ""
        self._has_metadata = (shards.directory / "meta").exists()
        self._looking: asyncio.Future[str] | None = None

    @property
    def times(self) -> Times:
        return self._shards.times

    async def look(self) -> None:
        """Look whether the drive's files are there. One that hangs shows as slow, and keeps nobody: it is not waited
        for any longer, nor asked again before it has answered."""
        if self._looking is None:
            self._looking = self._shards.on_a_thread(self.times.of, READ, self._missing)
        done, _ = await asyncio.wait([self._looking], timeout=self.times.slow_s)
        for looking in done:
            self._looking, self.gone = None, looking.result()

    def _missing(self) -> str:
        self._has_metadata = self._has_metadata or (self._shards.directory / "meta").exists()
        return missing(self._shards.directory, self._shards.store.hex(), self._has_metadata)

    def full(self) -> str:
        free, total = self._shards.space()
        return health.full(free, self._reserve_bytes, total)

    def alarms(self) -> list[str]:
        """What somebody should look at, as what follows the drive's name."""
        found = [self.gone] if self.gone else []
        if slow := self.times.slow():
            found.append(f"is slow: {slow}")
        if self._shards.failing.many:
            found.append("fails to read many places: drain or replace it")
        if self._shards.in_doubt:
            found.append("could not be read whole at the start, and is compared with what should be there")
        return found


def missing(directory: Path, store: str, has_metadata: bool) -> str:
    """What is wrong with a store's directory, as what follows its name; empty where all is there."""
    try:
        identity = msgspec.json.decode((directory / NAME).read_bytes(), type=Identity)
    except FileNotFoundError:
        return f"has lost its files: {NAME} is gone; it was emptied, or something is mounted over it"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return f"has a damaged {NAME}"
    if identity.store != store:
        return "holds another store than it did: another drive is mounted there"
    for name in ("volumes", "index/CURRENT", *(["meta/CURRENT"] if has_metadata else [])):
        if not (directory / name).exists():
            return f"has lost its files: {name} is gone"
    return ""

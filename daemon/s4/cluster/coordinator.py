"""The coordinator: named documents with compare-and-swap. Here `local`, a file for each document in each directory, and
what those behind connections share (etcd.py, kubernetes.py).

A document's value is what the newest revision says that any of the directories has (rule M2). A change counts
once it is durable in `quorum` of them, which is a majority unless the operator said otherwise; so any majority
that is there at a later start knows it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from crc32c import crc32c

from s4.base.said import SaidError
from s4.storage.files import Files

log = logging.getLogger(__name__)


class ConflictError(Exception):
    """The document is not at the revision that the caller read: read it again and decide again (rule R4)."""


class CoordinatorError(SaidError):
    """The coordinator cannot be reached, or is not fit."""


class UnknownOutcomeError(CoordinatorError):
    """A change may have happened, now or later: repeat it as it is until a newer revision is seen (rule R4)."""


class NotPlannerError(ValueError):
    """This process may say what it holds, but the plan is somebody else's."""


class QuorumError(UnknownOutcomeError):
    """Too few directories took a change."""


class Coordinator(Protocol):
    """Revisions rise with every change; 0 means that there is no such document."""

    async def read(self, document: str) -> tuple[bytes, int]:
        """The newest value and revision. Raises CoordinatorError."""
        ...

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        """Returns the new revision. Raises ConflictError, UnknownOutcomeError."""
        ...

    def watch(self, document: str, since: int) -> AsyncIterator[tuple[bytes, int]]:
        """Values newer than `since`, as they come; may skip some."""
        ...


class RemoteCoordinator(Coordinator, ABC):
    """One with connections. A watch only wakes it: what it gives is always read."""

    RETRY_S: float

    async def watch(self, document: str, since: int) -> AsyncIterator[tuple[bytes, int]]:
        """Goes on while the other side is away."""
        while True:
            try:
                value, revision = await self.read(document)
            except CoordinatorError as error:
                log.warning("watching %s: %s", document, error)
                await asyncio.sleep(self.RETRY_S)
                continue
            if revision > since:
                since = revision
                yield value, revision
                continue
            # Deleted, or the other side was put back from a backup: to wait for a change would end at once, for ever.
            if revision < since:
                await asyncio.sleep(self.RETRY_S)
            await self._wait(document, since)

    @abstractmethod
    async def _wait(self, document: str, since: int) -> None:
        """Until the document may have changed."""

    async def check_versions(self) -> None:
        """Raises CoordinatorError where the other side is not fit."""

    @abstractmethod
    async def close(self) -> None: ...


class LocalCoordinator:
    """Documents in directories that one process owns.

    A file is a line `s4 1 revision N crc C` (format 1, CRC-32C of N and the value in hexadecimal), then the value.
    """

    def __init__(self, files: Files, directories: Sequence[Path], quorum: int = 1) -> None:
        self._files, self._directories = files, list(directories)
        self._voters = [(frozenset(directories), quorum)]  # what counts is on so many of each of these
        self._changed = asyncio.Condition()

    async def read(self, document: str) -> tuple[bytes, int]:
        return self.newest(document)

    def newest(self, document: str) -> tuple[bytes, int]:
        """(value, revision) of a document, (b"", 0) where there is none."""
        return max((_read(directory / document) for directory in self._directories), key=lambda found: found[1])

    def count_on(self, directories: Sequence[Path], new: Sequence[Path] = ()) -> None:
        """From the next change on it counts once a majority of these directories has it, besides those that had to
        have it before (cluster/growing.py). `new` are written from then on too. One that is not among them is written
        no more: it must not be the only one to have a change, since a start without it could not say so."""
        self._directories = [one for one in self._directories if one in directories]
        self._directories += [one for one in new if one not in self._directories]
        voters = frozenset(directories), len(directories) // 2 + 1
        if voters not in self._voters:
            self._voters.append(voters)

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        async with self._changed:
            found, known = await self.read(document)
            if (found, known) == (value, revision + 1):
                known = revision  # the same change, which too few directories took when it was tried before
            if known != revision:
                raise ConflictError(f"{document} is at revision {known}, not {revision}")
            content = _pack(value, known + 1)
            await asyncio.get_running_loop().run_in_executor(None, self._write, document, content)
            self._changed.notify_all()
        return known + 1

    def _write(self, document: str, content: bytes) -> None:
        written: set[Path] = set()
        for directory in self._directories:
            try:
                self._files.replace(directory / document, content)
                written.add(directory)
            except OSError as error:
                log.error("%s cannot be written: %s", directory / document, error)
        for voters, quorum in self._voters:
            if (took := len(written & voters)) < quorum:
                raise QuorumError(f"{document} was written to {took} directories of which {quorum} are needed")

    async def watch(self, document: str, since: int) -> AsyncIterator[tuple[bytes, int]]:
        while True:
            value, revision = await self.read(document)
            if revision > since:
                since = revision
                yield value, revision
                continue
            async with self._changed:
                _, revision = await self.read(document)
                if revision <= since:
                    await self._changed.wait()


_HEAD = re.compile(rb"s4 1 revision (\d{1,18}) crc ([0-9a-f]{8})\n")


def _pack(value: bytes, revision: int) -> bytes:
    return b"s4 1 revision %d crc %08x\n" % (revision, _crc(value, revision)) + value


def _crc(value: bytes, revision: int) -> int:
    return crc32c(value, crc32c(b"%d" % revision))


def _read(path: Path) -> tuple[bytes, int]:
    """(value, revision) of one file; (b"", 0) where there is none or it is damaged, which the others outvote."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b"", 0
    except OSError as error:
        log.error("%s cannot be read: %s", path, error)
        return b"", 0
    head = _HEAD.match(content)
    value, revision = content[head.end() :] if head else b"", int(head[1]) if head else 0
    if head is None or int(head[2], 16) != _crc(value, revision):
        log.error("%s is damaged or of a newer format", path)
        return b"", 0
    return value, revision

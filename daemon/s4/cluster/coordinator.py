"""The coordinator: named documents with compare-and-swap. Here `local`, a file per document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from s4.storage.files import Files


class ConflictError(Exception):
    """The document is not at the revision that the caller read: read it again and decide again (rule R4)."""


class Coordinator(Protocol):
    """Revisions rise with every change; 0 means that there is no such document."""

    async def read(self, document: str) -> tuple[bytes, int]: ...

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        """Returns the new revision. Raises ConflictError."""
        ...

    def watch(self, document: str, since: int) -> AsyncIterator[tuple[bytes, int]]:
        """Values newer than `since`, as they come; may skip some."""
        ...


class LocalCoordinator:
    """Documents in a directory that one process owns. A file begins with its revision on a line of its own."""

    def __init__(self, files: Files, directory: Path) -> None:
        self._files, self._directory = files, directory
        self._changed = asyncio.Condition()

    async def read(self, document: str) -> tuple[bytes, int]:
        path = self._directory / document
        if not path.exists():
            return b"", 0
        head, _, value = path.read_bytes().partition(b"\n")
        return value, int(head.removeprefix(b"revision "))

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        async with self._changed:
            _, known = await self.read(document)
            if known != revision:
                raise ConflictError(f"{document} is at revision {known}, not {revision}")
            self._files.replace(self._directory / document, b"revision %d\n" % (known + 1) + value)
            self._changed.notify_all()
        return known + 1

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

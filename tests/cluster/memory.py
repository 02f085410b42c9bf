"""A coordinator in memory with the faults that are legal: a request or an answer is lost, a change lands late or
twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

from s4.cluster.coordinator import ConflictError, CoordinatorError, UnknownOutcomeError


class MemoryCoordinator:
    """`faults` is the chance of each fault in each call; without it the calls just work."""

    def __init__(self, seed: int = 0, faults: float = 0.0) -> None:
        self._random, self._faults = random.Random(seed), faults
        self._documents: dict[str, tuple[bytes, int]] = {}
        self._changed = asyncio.Condition()
        self._late: list[tuple[str, bytes, int]] = []

    def _happens(self) -> bool:
        return self._random.random() < self._faults

    async def read(self, document: str) -> tuple[bytes, int]:
        await self._land()
        if self._happens():
            raise CoordinatorError("a read got lost")
        return self._documents.get(document, (b"", 0))

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        await self._land()
        if self._happens():
            if self._happens():
                self._late.append((document, value, revision))
            raise UnknownOutcomeError("a change got lost, or comes late")
        _, known = self._documents.get(document, (b"", 0))
        if known != revision:
            raise ConflictError(f"{document} is at revision {known}, not {revision}")
        await self._set(document, value, revision)
        if self._happens():
            raise UnknownOutcomeError("the answer got lost")
        return revision + 1

    async def _land(self) -> None:
        """Changes that were on their way arrive, and count where nothing came before them."""
        while self._late and not self._happens():
            document, value, revision = self._late.pop(0)
            if self._documents.get(document, (b"", 0))[1] == revision:
                await self._set(document, value, revision)

    async def _set(self, document: str, value: bytes, revision: int) -> None:
        async with self._changed:
            self._documents[document] = (value, revision + 1)
            self._changed.notify_all()

    async def watch(self, document: str, since: int) -> AsyncIterator[tuple[bytes, int]]:
        while True:
            value, revision = self._documents.get(document, (b"", 0))
            if revision > since:
                since = revision
                yield value, revision
                continue
            async with self._changed:
                if self._documents.get(document, (b"", 0))[1] <= since:
                    await self._changed.wait()

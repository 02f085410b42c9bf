"""Works off the rows of the table GONE (metadata/gone.py) of the partitions that this process leads.

One command at a time for each partition, each a bounded piece, so that everybody's turns come between. Nothing is kept
here that must survive: the rows are looked for anew whenever a partition is begun to be led, or an entry leaves some.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from s4.base.jobs import each
from s4.metadata import keys
from s4.metadata.commands import AnyAnswer, LetGo, Taken


class Rows(Protocol):
    """A host."""

    def submit(
        self, partition: int, command: LetGo, command_id: bytes = b"", *, own: bool = False
    ) -> asyncio.Future[AnyAnswer]: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


class LettingGo:
    """The work of one process."""

    def __init__(self, host: Rows) -> None:
        self._host = host
        self._noted: set[int] = set()
        self._wake = asyncio.Event()

    def note(self, partition: int) -> None:
        """There may be something to let go of."""
        self._noted.add(partition)
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Partitions that have something left, as far as is known."""
        return len(self._noted)

    async def round(self, leads: Callable[[int], bool] = lambda _partition: True) -> None:
        """One round, once there is something to do. What fails is tried again with the next."""
        await self._wake.wait()
        self._wake.clear()
        self._noted = {partition for partition in self._noted if leads(partition)}
        try:
            await each(sorted(self._noted), self._partition)
        finally:
            if self._noted:
                self._wake.set()

    async def _partition(self, partition: int) -> None:
        prefix = start = keys.table(partition, keys.GONE)
        while (row := next(self._host.scan(prefix, start), None)) is not None:
            start, more = row[0], True
            while more:
                answer = await self._host.submit(partition, LetGo(start), own=True)
                more = isinstance(answer, Taken) and answer.granted
            start += b"\x00"
        if next(self._host.scan(prefix), None) is None:
            self._noted.discard(partition)

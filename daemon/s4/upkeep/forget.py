"""Forgetting: answers that nobody asks for any more (R12), and what the auditor refused so long ago that no request
can still run into it (C3). Both only where this clock is that of the peers (R13): a clock that is ahead would forget
at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any, Protocol

from s4.metadata import keys
from s4.metadata.commands import ForgetAnswers, ForgetRows, Taken
from s4.metadata.repeats import KEPT_MS
from s4.metadata.rows import Refused, decode
from s4.replica.pieces import pieces

REFUSED_MS = 7 * 86_400_000  # a request lives at most twelve hours
BATCH = 256


class Rows(Protocol):
    """A host."""

    def submit(self, partition: int, command: Any, command_id: bytes = b"", *, own: bool = False) -> Awaitable[Any]: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


async def forget_answers(rows: Rows, partition: int, now_ms: int) -> None:
    """Ids begin with the time at which their gateway made them, so old answers stand first. Who decides looks at its
    own clock once more."""
    more = True
    while more:
        oldest = next(rows.scan(keys.table(partition, keys.ANSWER)), None)
        if oldest is None or keys.command_ms(keys.command_of(oldest[0])) >= now_ms - KEPT_MS:
            return
        answer = await rows.submit(partition, ForgetAnswers(), own=True)
        more = isinstance(answer, Taken) and answer.granted


async def forget_refused(rows: Rows, partition: int, now_ms: int) -> None:
    limit_ms = now_ms - REFUSED_MS
    refused = pieces(rows, keys.table(partition, keys.REFUSED))
    old = [key async for key, value in refused if decode(Refused, value).created_ms < limit_ms]
    for at in range(0, len(old), BATCH):
        await rows.submit(partition, ForgetRows(old[at : at + BATCH]), own=True)

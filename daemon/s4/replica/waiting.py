"""Commands that wait for the writer's turn: how many one turn takes, and whose come first.

All writes of a process share its turns. A turn takes what waits in an order that is fair between users, and for each
between buckets (base/fair.py), so that one tenant's command is in the next turn however many of another's wait. And
where there is more than one it takes only so many that deciding them holds the event loop for about half as long as
writing takes: whoever comes meanwhile waits for little, where syncs are quick, and many share one where they are slow.

They are bounded by number (`waiting_commands`) and by what they hold: 256 requests that each complete an upload of
10,000 parts hold 4.3 MB each in their commands alone, and a cluster's primary has as many from every gateway. Beyond
WAITING_BYTES the next is turned away as beyond the number, before anything of it was done.

For editors: commands of one user and bucket keep their order. What was taken and could not be decided is kept by who
took it, and counts until it is `let_go`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from s4.base.fair import FLOW, NOBODYS, Company, FairQueue, Flow
from s4.metadata.commands import (
    AnyAnswer,
    AnyCommand,
    CompleteUpload,
    NewBlob,
    PutObject,
    PutPart,
    SetDocument,
    TakeReferences,
)

T = TypeVar("T")
TURN_LEAST, TURN_MOST = 16, 512  # commands of a turn
COMMAND_S = 0.0002  # to decide one takes half as long
WAITING_BYTES = 128 << 20  # held by those that wait, beside the last of them: a third of `memory_bytes`
COMMAND_BYTES, EXTENT_BYTES = 1500, 425  # in memory: a command without what follows; an extent, or a claim of one


def _content(blobs: Sequence[NewBlob]) -> int:
    return sum(len(one.content) for one in blobs) if blobs else 0


# What commands hold that may be large, in bytes.
_HOLDS: dict[type, Callable[[Any], int]] = {
    PutObject: lambda put: EXTENT_BYTES * len(put.row.extents) + len(put.inline) + _content(put.blobs),
    PutPart: lambda put: len(put.inline) + _content(put.blobs),
    CompleteUpload: lambda done: EXTENT_BYTES * len(done.row.extents),
    TakeReferences: lambda take: EXTENT_BYTES * len(take.claims),
    SetDocument: lambda put: len(put.document),
}


def held_by(command: AnyCommand) -> int:
    """Bytes of memory, about."""
    holds = _HOLDS.get(type(command))
    return COMMAND_BYTES if holds is None else COMMAND_BYTES + holds(command)


def flow_of(command: AnyCommand) -> Flow:
    """For whom a command is. Where nobody said it, as of what another process sends, by its bucket alone."""
    flow = FLOW.get()
    if flow != NOBODYS:
        return flow
    claims = getattr(command, "claims", ())
    says = claims[0] if claims else getattr(command, "settings", command)
    return Flow("", str(getattr(says, "bucket", "")))


@dataclass(slots=True)
class Waiting:
    """A command, under its id, and who waits for its answer. `again`: it was sent before under this id (R12)."""

    partition: int
    command: AnyCommand
    id: bytes
    again: bool
    future: asyncio.Future[AnyAnswer]


class Commands(Generic[T]):
    """What waits, and how much of it the next turn takes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue: FairQueue[T] = FairQueue()
        self.held_bytes = 0
        self._clock, self._wrote_s = clock, 0.0
        self._company = Company(clock)

    def __len__(self) -> int:
        return self._queue.length

    def push(self, command: AnyCommand, item: T) -> None:
        flow = flow_of(command)
        self._company.note(flow)
        self.hold(command)
        self._queue.push(flow, 1, item)

    def pop(self) -> T:
        """Raises IndexError where none waits."""
        return self._queue.pop()[1]

    def hold(self, command: AnyCommand) -> None:
        """It waits, here or with who took it."""
        self.held_bytes += held_by(command)

    def let_go(self, command: AnyCommand) -> None:
        """It is decided."""
        self.held_bytes -= held_by(command)

    @property
    def is_full(self) -> bool:
        """Whether they hold so much that no more is to wait."""
        return self.held_bytes >= WAITING_BYTES

    @property
    def next(self) -> int:
        """How many the next turn takes."""
        waiting = self._queue.length
        if waiting <= TURN_LEAST:
            return waiting
        if self._company.alone:
            return min(waiting, TURN_MOST)
        return min(waiting, TURN_MOST, max(TURN_LEAST, int(self._wrote_s / COMMAND_S)))

    def timed(self, write: Callable[[], None]) -> None:
        """Write a turn, on any thread: the next one goes by how long that took."""
        began = self._clock()
        try:
            write()
        finally:
            self._wrote_s = self._clock() - began

"""Commands that wait for the writer's turn: how many one turn takes, and whose come first.

All writes of a process share its turns. A turn takes what waits in an order that is fair between users, and for each
between buckets (base/fair.py), so that one tenant's command is in the next turn however many of another's wait. And
where there is more than one it takes only so many that deciding them holds the event loop for about half as long as
writing takes: whoever comes meanwhile waits for little, where syncs are quick, and many share one where they are slow.

For editors: commands of one user and bucket keep their order. What was taken and could not be decided is kept by who
took it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from s4.base.fair import FLOW, NOBODYS, Company, FairQueue, Flow
from s4.metadata.commands import AnyCommand

T = TypeVar("T")
TURN_LEAST, TURN_MOST = 16, 512  # commands of a turn
COMMAND_S = 0.0002  # to decide one takes half as long


def flow_of(command: AnyCommand) -> Flow:
    """For whom a command is. Where nobody said it, as of what another process sends, by its bucket alone."""
    flow = FLOW.get()
    if flow != NOBODYS:
        return flow
    claims = getattr(command, "claims", ())
    says = claims[0] if claims else getattr(command, "settings", command)
    return Flow("", str(getattr(says, "bucket", "")))


class Commands(Generic[T]):
    """What waits, and how much of it the next turn takes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue: FairQueue[T] = FairQueue()
        self._clock, self._wrote_s = clock, 0.0
        self._company = Company()

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, command: AnyCommand, item: T) -> None:
        flow = flow_of(command)
        self._company.note(flow)
        self._queue.push(flow, 1, item)

    def pop(self) -> T:
        """Raises IndexError where none waits."""
        return self._queue.pop()[1]

    @property
    def most(self) -> int:
        """Commands of the next turn."""
        if self._company.alone:
            return TURN_MOST
        return min(TURN_MOST, max(TURN_LEAST, int(self._wrote_s / COMMAND_S)))

    def timed(self, write: Callable[[], None]) -> None:
        """Write a turn, on any thread: the next one goes by how long that took."""
        began = self._clock()
        try:
            write()
        finally:
            self._wrote_s = self._clock() - began

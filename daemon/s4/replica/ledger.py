"""What a replica has given out to its disk, and what it says only once that is durable: a base of `replica/core.py`.

Invariants: writes are durable in the order in which they were given out, so one number says which are; `state` is what
the disk has once all are. What is said about the disk waits behind the write it speaks of, and is not said any more
once the epoch is another. Of our own entries those up to `_own` are durable.
"""

from __future__ import annotations

from collections import deque

from s4.cluster import messages
from s4.cluster.messages import Entry, State, Write


class Ledger:
    def __init__(self, state: State) -> None:
        self.state = state
        self.writes: list[Write] = []
        self.messages: list[tuple[str, messages.AnyMessage]] = []
        self._written = self._synced = 0  # numbers of the last write that was given out, that is durable
        self._own = self.last
        self._waiting: deque[tuple[int, str, messages.AnyMessage]] = deque()
        self._unsynced: deque[tuple[int, int]] = deque()  # (number of the write, sequence) of our own entries

    @property
    def given(self) -> int:
        """Number of the last write that was given out."""
        return self._written

    @property
    def durable(self) -> int:
        """Number of the last write that is durable, with all before it."""
        return self._synced

    @property
    def last(self) -> int:
        """Sequence of the last entry in the log."""
        return self.state.log[-1].sequence if self.state.log else self.state.commit

    def _write(self, write: Write) -> None:
        self.state.add(write)
        self.writes.append(write)
        self._written += 1

    def _keep(self, entry: Entry) -> None:
        self._write(messages.KeepEntry(entry))
        self._unsynced.append((self._written, entry.sequence))

    def _cut(self, sequence: int) -> None:
        self._write(messages.CutLog(sequence))
        self._unsynced = deque(one for one in self._unsynced if one[1] <= sequence)
        self._own = min(self._own, sequence)

    def _clear(self, *, at_once: bool) -> None:
        """All rows and the log go: what is here is no copy of anything."""
        self._write(messages.Clear(at_once))
        self._unsynced.clear()
        self._own = 0

    def _say(self, to: str, message: messages.AnyMessage) -> None:
        """Send once everything that was written so far is durable."""
        if self._synced >= self._written:
            self.messages.append((to, message))
        else:
            self._waiting.append((self._written, to, message))

    def _settle(self, number: int) -> None:
        """The first `number` writes are durable."""
        self._synced = max(self._synced, number)
        while self._unsynced and self._unsynced[0][0] <= self._synced:
            self._own = self._unsynced.popleft()[1]
        while self._waiting and self._waiting[0][0] <= self._synced:
            _, to, message = self._waiting.popleft()
            if message.epoch == self.state.epoch:
                self.messages.append((to, message))

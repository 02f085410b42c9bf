"""Words of the replication core: its times, its errors, a change that is under way, what a primary knows of others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from s4.cluster.messages import Config, Entry

NEVER = float("-inf")
MOST_KEPT = 100_000  # committed entries kept while a replica gets a snapshot, or else begins anew
LOST_ALARM = (
    "the copy of the metadata that the map counts on here is empty or older than it was: it takes no part until others "
    "filled it (M4); if its store alone is in sync, declare that gone, and those that stayed eligible go on"
)
KEPT_BYTES = 512 * 1024  # of committed entries that are kept anyway, for a replica that was away for a while


class NotServingError(Exception):
    """This replica does not serve the partition now: ask its primary, later or elsewhere."""


class TooFewError(Exception):
    """Too few replicas are in sync for a write (R9)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A lease ends before a grace does though two clocks run apart by a quarter (R5)."""

    beacon: float = 0.5
    lease: float = 2.0
    grace: float = 3.0
    resend: float = 0.5
    tell: float = 0.1  # what was committed, where no entry follows that would say it


@dataclass(frozen=True, slots=True)
class Swap:
    """A compare-and-swap whose outcome is unknown: `config` in place of the document at `revision`."""

    config: Config
    revision: int
    sent: float


@dataclass(slots=True)
class Peer:
    """What the primary knows of another replica in this epoch. Times are the primary's own."""

    since: float
    promised: float = NEVER  # when the beacon was sent that it answered last
    acked: int | None = None  # what it said to be durable
    exact: bool = True  # it must be told where its log ends
    next: int = 0  # sequence to send next
    told: int = 0  # commit sequence that it was told
    beaconed: float = NEVER
    sent: float = NEVER
    leaving: bool = False
    attempt: int = 0
    have: int | None = None  # it joins by the log, from this sequence on
    heard: bool = False  # it has said in this term of ours where its log ends
    lacks: bool = False  # it has said that what it had is lost (M4)
    base: int | None = None  # a snapshot was ordered when this was committed: what follows is kept for it


class Kept:
    """The last committed entries, which a joining replica may lack."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.limit_bytes, self._bytes = KEPT_BYTES, 0

    def add(self, entries: Iterable[Entry], base: int) -> None:
        """Those after `base` stay, up to MOST_KEPT, the others while they are small."""
        for entry in entries:
            self.entries.append(entry)
            self._bytes += len(entry.rows)
        while (
            self._bytes > self.limit_bytes
            and self.entries
            and (self.entries[0].sequence <= base or len(self.entries) > MOST_KEPT)
        ):
            self._bytes -= len(self.entries.popleft().rows)

    def begins(self, commit: int) -> int:
        """The sequence after which all are here up to `commit`."""
        return self.entries[0].sequence - 1 if self.entries else commit

    def clear(self) -> None:
        self.entries.clear()
        self._bytes = 0

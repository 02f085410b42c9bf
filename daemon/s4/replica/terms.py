"""Words of the replication core: its times, its errors, a change that is under way, what a primary knows of others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import chain

from s4.cluster.messages import Config, Entry

NEVER = float("-inf")
MOST_KEPT = 100_000  # committed entries kept while a replica gets a snapshot, or else begins anew
LOST_ALARM = (
    "the copy of the metadata that the map counts on here is empty or older than it was: it takes no part until others "
    "filled it (M4); if its store alone is in sync, declare that gone, and those that stayed eligible go on"
)
MOST_KEPT_BYTES = 32 << 20  # and no more than that: with what is not committed, less than a frame takes
MOST_ENTRIES, MOST_BYTES = 256, 16 << 20  # in one Append, but for one that is longer by itself
KEPT_BYTES = 512 * 1024  # of committed entries that are kept anyway, for a replica that was away for a while


class NotServingError(Exception):
    """This replica does not serve the partition now: ask its primary, later or elsewhere."""


class TooFewError(Exception):
    """Too few replicas are in sync for a write (R9)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A lease ends before a grace does though two clocks run apart by a quarter (R5)."""

    beacon: float = 0.6
    lease: float = 2.0
    grace: float = 3.0
    resend: float = 0.5
    tell: float = 0.1  # what was committed, where no entry follows that would say it
    spare: float = 10.0  # that too few are in sync until others than planned get a copy


@dataclass(frozen=True, slots=True)
class Swap:
    """A compare-and-swap whose outcome is unknown: `config` in place of the document at `revision`."""

    config: Config
    revision: int
    sent: float


class Progress(Enum):
    """How far another replica is with our log, as in etcd's raft. Only what it says to be durable in REPLICATE counts."""

    PROBE = "probe"  # it is told again and again where its log ends, until it says that it ends there
    SNAPSHOT = "snapshot"  # a snapshot was ordered for it, and it has not said that it has that
    REPLICATE = "replicate"  # its log is a beginning of ours: entries go out as they come, without waiting


@dataclass(slots=True)
class Peer:
    """What the primary knows of another replica in this epoch. Times are the primary's own, and none is yet to come.
    The invariant of each field is beside it; `tests/sim/peers.py` holds them against every step."""

    since: float
    promised: float = NEVER  # when the beacon was sent that it answered last
    acked: int | None = None  # what it said to be durable, of our log: None in SNAPSHOT, a number in REPLICATE
    progress: Progress = Progress.PROBE  # SNAPSHOT is left for REPLICATE alone, which falls back to PROBE
    next: int = 0  # sequence to send next: in REPLICATE after what it acked, and at most one after our last
    told: int = 0  # commit sequence that it was told: at most ours
    beaconed: float = NEVER  # when the beacon was due that it was sent last
    sent: float = NEVER
    leaving: bool = False
    attempt: int = 0  # of its tries to join, that we gave a number; 0 where it was in sync already
    have: int | None = None  # it joins by the log, from this sequence on: not with a snapshot
    heard: bool = False  # it has said in this term of ours where its log ends
    lacks: bool = False  # it has said that what it had is lost (M4)
    base: int | None = None  # what its snapshot begins with: what is committed after it is kept; never in PROBE

    @property
    def durable(self) -> int | None:
        """Up to where its word counts for a commit."""
        return self.acked if self.progress is Progress.REPLICATE else None


class Kept:
    """The last committed entries, which a joining replica may lack."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.limit_bytes, self._bytes = KEPT_BYTES, 0

    def add(self, entries: Iterable[Entry], base: int) -> None:
        """Those after `base` stay, up to MOST_KEPT and MOST_KEPT_BYTES, the others while they are small."""
        for entry in entries:
            self.entries.append(entry)
            self._bytes += len(entry.rows)
        while (
            self._bytes > self.limit_bytes
            and self.entries
            and (
                self.entries[0].sequence <= base
                or len(self.entries) > MOST_KEPT
                or self._bytes > max(MOST_KEPT_BYTES, self.limit_bytes)
            )
        ):
            self._bytes -= len(self.entries.popleft().rows)

    def begins(self, commit: int) -> int:
        """The sequence after which all are here up to `commit`."""
        return self.entries[0].sequence - 1 if self.entries else commit

    def then(self, log: Iterable[Entry], first: int) -> tuple[Entry, ...]:
        """Of these and of what follows them in the log those from the sequence `first` on: as many as one Append takes,
        and one at least where there is one."""
        taken: list[Entry] = []
        size = 0
        for entry in chain(self.entries, log):
            if entry.sequence < first:
                continue
            size += len(entry.rows)
            if taken and (size > MOST_BYTES or len(taken) == MOST_ENTRIES):
                break
            taken.append(entry)
        return tuple(taken)

    def clear(self) -> None:
        self.entries.clear()
        self._bytes = 0

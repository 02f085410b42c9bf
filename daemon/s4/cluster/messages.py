"""The values of replication: entries, configurations, messages between replicas, and what a replica keeps on disk."""

from __future__ import annotations

import msgspec


class Value(msgspec.Struct, frozen=True, tag=True):
    """Base of what travels or is kept."""


class Entry(Value, frozen=True):
    """One turn of the primary (rule R1). `rows` is opaque here; the sequence rises by one, the epoch never falls."""

    epoch: int
    sequence: int
    rows: bytes


# -- configuration, kept by the coordinator and changed by compare-and-swap only (R4)


class Config(Value, frozen=True):
    """Who holds a partition. `eligible` were removed when too few were left, and lack nothing committed (R9).

    `members` really hold the shards of each position; a name is empty where nobody does. `joining` is being filled
    for `position`, one at a time (D3).
    """

    epoch: int
    primary: str
    in_sync: tuple[str, ...]
    eligible: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    joining: str = ""
    position: int = -1


class Plan(Value, frozen=True):
    """What the planner wants: replicas, stores that are gone for good, copies that a commit needs (R2), and the
    member for each position."""

    replicas: tuple[str, ...]
    minimum: int
    gone: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


class Document(Value, frozen=True):
    config: Config
    plan: Plan


FORMAT = 1


class _Kept(msgspec.Struct):
    format: int
    config: Config
    plan: Plan


def encode_document(document: Document) -> bytes:
    return msgspec.json.encode(_Kept(FORMAT, document.config, document.plan))


def decode_document(raw: bytes) -> Document:
    """Raises ValueError for what is no document, or one of a newer format."""
    kept = msgspec.json.decode(raw, type=_Kept)
    if kept.format != FORMAT:
        raise ValueError(f"the document has format {kept.format}; this S4 knows {FORMAT}")
    return Document(kept.config, kept.plan)


# -- messages; each names the epoch that its sender is in


class Message(Value, frozen=True):
    epoch: int


class Beacon(Message, frozen=True):
    """From the primary; `sent_s` is its own clock, given back by the answer, which renews its lease (R5)."""

    sent_s: float


class Promise(Message, frozen=True):
    sent_s: float


class Append(Message, frozen=True):
    """Entries that follow `after`. With `exact` nothing may follow them in the receiver's log (R7).

    `attempt`, here and below: which of the epoch's tries of a replica to join this belongs to, 0 for one in sync. What
    is said of an earlier try says nothing of a later one.
    """

    after: int
    entries: tuple[Entry, ...]
    commit: int
    exact: bool = False
    attempt: int = 0


class Durable(Message, frozen=True):
    """Everything up to `sequence` is on the sender's disk."""

    sequence: int
    attempt: int = 0


class Again(Message, frozen=True):
    """The sender's log cannot be continued as it is: begin anew with an exact Append, or a snapshot. `lost`: the map
    counts on the sender, and it lacks what is committed (M4)."""

    last: int
    attempt: int = 0
    lost: bool = False


class Fault(Message, frozen=True):
    """The primary wanted to undo what was committed: it lost part of its log (R7)."""

    commit: int


class Join(Message, frozen=True):
    """A replica that is not in sync wants to be (R8). `have` is its commit sequence where it holds all rows up to
    there; None where it does not."""

    have: int | None = None


class Leave(Message, frozen=True):
    """A replica in sync is about to stop: it need not be waited for."""


class SnapshotPart(Message, frozen=True):
    """Some of all rows as of `sequence`, which come in pieces numbered from 0. The host adds them; the core only orders
    a snapshot."""

    sequence: int
    number: int
    rows: bytes
    last: bool
    attempt: int = 0


AnyMessage = Beacon | Promise | Append | Durable | Again | Fault | Join | Leave | SnapshotPart


# -- what a replica keeps; written in this order, a crash leaves a prefix


class KeepEpoch(Value, frozen=True):
    """`config` is the configuration whose epoch it is, for who has to make a lost map again (cluster/recovery.py)."""

    epoch: int
    config: Config | None = None


class KeepEntry(Value, frozen=True):
    entry: Entry


class CutLog(Value, frozen=True):
    """Entries after `sequence` are void."""

    sequence: int


class Commit(Value, frozen=True):
    """The next entries of the log are committed, at least one: apply their rows, and forget them."""

    entries: tuple[Entry, ...]

    @property
    def sequence(self) -> int:
        return self.entries[-1].sequence


FIRST_EPOCH = 1  # of a partition's first configuration, in which nothing is committed yet
LOST = (1 << 63) - 1  # in place of an epoch: the map counts on this replica, and it lacks what it had (M4)


class MarkJoining(Value, frozen=True):
    """It is LOST; or None: it is whole. `Clear` and `Install` are what comes between."""

    epoch: int | None


class Clear(Value, frozen=True):
    """All rows and the log go. From here on, and until a snapshot is in, what is here is no copy of anything: LOST.
    `at_once`: before what comes next is written, which is a snapshot."""

    at_once: bool = True


class Fill(Value, frozen=True):
    """Some of a snapshot's rows, into what was cleared."""

    rows: bytes


class Install(Value, frozen=True):
    """What was filled in, in `epoch`, is all there is as of `sequence`. It may not be promoted before it counts."""

    epoch: int
    sequence: int


Write = KeepEpoch | KeepEntry | CutLog | Commit | MarkJoining | Clear | Fill | Install


class State(msgspec.Struct):
    """What `Write`s add up to, as a replica finds it at start. `log` follows `commit` without a gap."""

    epoch: int = 0
    commit: int = 0
    log: list[Entry] = []
    joining: int | None = None

    def add(self, write: Write) -> None:
        match write:
            case KeepEpoch(epoch):
                self.epoch = epoch
            case KeepEntry(entry):
                self.log.append(entry)
            case CutLog(sequence):
                self.log = [entry for entry in self.log if entry.sequence <= sequence]
            case Commit(entries):
                self.commit = write.sequence
                self.log = self.log[len(entries) :]
            case MarkJoining(epoch):
                self.joining = epoch
            case Clear():
                self.commit, self.log, self.joining = 0, [], LOST
            case Install(epoch, sequence):
                self.commit, self.joining = sequence, epoch

"""One store's process in the simulated world: the host of a replica, its disk, and commands on three registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from s4.cluster.messages import Clear, Commit, Document, Fill, Install, MarkJoining, SnapshotPart, State, Write
from s4.replica.core import Replica
from s4.replica.terms import NotServingError, Timing, TooFewError
from sim import peers

if TYPE_CHECKING:
    from sim.world import World


class Rows(msgspec.Struct, frozen=True):
    """What an entry carries here: a key's new value, and the answer to the command that asked for it."""

    command: int
    key: str
    value: str | None
    answer: bool = True


@dataclass
class Waiter:
    """An answer that waits for a commit: of its own entry, or of what a refusal rests on (R11)."""

    sequence: int
    command: tuple[int, int]
    result: str | bool
    refusal: bool = False


class BrokenError(AssertionError):
    """An invariant does not hold."""


@dataclass
class Disk:
    """`kept` is durable; `loose` would be lost by a crash, from the end on."""

    state: State = field(default_factory=State)
    rows: dict[str, str] = field(default_factory=dict)
    answers: dict[int, str | bool] = field(default_factory=dict)
    loose: list[Write] = field(default_factory=list)


class Node:
    """One store's process: `rows` and `answers` are what its replica has applied."""

    replica_class: type[Replica] = Replica
    snapshots_over = False

    def __init__(self, world: World, store: str) -> None:
        self.world, self.store = world, store
        self.incarnation, self.up = 0, False
        self.paused_until = 0.0
        self.disk, self.backup, self.lost_disks = Disk(), Disk(), list[Disk]()
        self.rate, self.offset = world.random.uniform(0.92, 1.08), world.random.uniform(0, 100)

    def clock(self) -> float:
        return self.offset + self.world.now * self.rate

    def start(self) -> None:
        self.up = True
        self.incarnation += 1
        kept = self.disk.state
        state = State(kept.epoch, kept.commit, list(kept.log), kept.joining)
        self.rows, self.answers = dict(self.disk.rows), dict(self.disk.answers)
        self.replica = self.replica_class(self.store, state, Timing(), self.clock())
        self.whole, self.has = state.joining is None, state.commit
        self.replica._kept.limit_bytes = self.world.kept_bytes
        self.numbers = 0
        self.waiters: list[Waiter] = []
        self.syncing = False
        self.ask_coordinator()
        self.alarm_clock(self.incarnation)

    def crash(self) -> None:
        """Any number of the last unsynced writes are lost."""
        keep = self.world.random.randint(0, len(self.disk.loose))
        for write in self.disk.loose[:keep]:
            self.settle(write)
        self.disk.loose.clear()
        self.up = False

    def lose(self, disk: Disk) -> None:
        """Somebody removed `meta/`, or put an older one in its place: the store's id stays."""
        if self.up:
            self.crash()
        self.lost_disks.append(self.disk)
        self.disk = disk

    def settle(self, write: Write) -> None:
        """A write is durable now."""
        apply(self.disk.rows, self.disk.answers, write, self.snapshots_over)
        self.disk.state.add(write)

    # -- its own loop

    def alarm_clock(self, incarnation: int) -> None:
        if self.up and self.incarnation == incarnation:
            self.step(lambda: self.replica.tick(self.clock()))
            self.world.later(self.world.random.uniform(0.1, 0.3), lambda: self.alarm_clock(incarnation), self)
            if self.world.random.random() < 0.3 or self.replica.behind or self.replica.swap:
                self.ask_coordinator()

    def step(self, work: Callable[[], None]) -> None:
        work()
        replica, random = self.replica, self.world.random
        for write in replica.writes:
            self.world.check_commit(self, write)
            self.check_filled(write)
            apply(self.rows, self.answers, write, self.snapshots_over)
        self.disk.loose += replica.writes
        replica.writes.clear()
        for to, message in replica.messages:
            self.world.send(self, to, message)
        replica.messages.clear()
        for to, attempt in replica.snapshots:
            for part in self.snapshot(attempt):  # mostly in their order, as where each waits for the one before
                self.world.later(0.03 * part.number, lambda part=part, to=to: self.world.send(self, to, part), self)
        replica.snapshots.clear()
        if self.disk.loose and not self.syncing:
            self.syncing = True
            count, incarnation = len(self.disk.loose), self.incarnation
            took = (
                random.uniform(0.5, 1.5)
                if random.random() < 0.02 and not self.world.calm
                else random.uniform(0.001, 0.02)
            )
            self.world.later(took, lambda: self.synced(count, incarnation), self)
        self.answer()
        self.world.check_serving()
        if found := peers.wrong(replica):
            raise BrokenError(found)

    def snapshot(self, attempt: int) -> Iterator[SnapshotPart]:
        """All rows, in parts, which may come in any order, twice or not at all."""
        state, rows, answers = self.replica.state, list(self.rows.items()), list(self.answers.items())
        size = max(1, len(rows) // self.world.random.randint(1, 3))
        starts = range(0, max(1, len(rows)), size)
        for number, start in enumerate(starts):
            content = msgspec.json.encode((rows[start : start + size], answers if number == 0 else []))
            yield SnapshotPart(state.epoch, state.commit, number, content, number == len(starts) - 1, attempt)

    def check_filled(self, write: Write) -> None:
        """A snapshot takes nothing away from a copy that was whole (M4)."""
        match write:
            case MarkJoining(epoch):
                self.was_whole, self.whole = self.whole, epoch is None
            case Commit():
                self.has = write.sequence
            case Clear():
                self.was_whole, self.whole = self.whole, False
            case Install(_, sequence):
                if self.was_whole and sequence < self.has:
                    raise BrokenError(
                        f"{self.store} had all up to {self.has}, and a snapshot as of {sequence} took its place"
                    )
                self.has = sequence

    def synced(self, count: int, incarnation: int) -> None:
        if not self.up or self.incarnation != incarnation:
            return
        for write in self.disk.loose[:count]:
            self.settle(write)
        del self.disk.loose[:count]
        self.numbers += count
        self.syncing = False
        self.step(lambda: self.replica.synced(self.numbers, self.clock()))

    # -- clients

    def overlay(self, key: str) -> str | None:
        value = self.rows.get(key)
        for entry in self.replica.state.log:
            rows = msgspec.json.decode(entry.rows, type=Rows)
            value = rows.value if rows.key == key else value
        return value

    def command(self, command: int, attempt: int, kind: str, key: str, value: str) -> None:
        """A client's command; an answer goes out when it is due, if ever."""
        named = (command, attempt)
        if self.repeated(named):
            return
        if not self.replica.serves(self.clock()):
            self.world.reply(named, None)
        elif kind == "get":
            self.world.reply(named, (self.rows.get(key),))
        elif kind == "create" and self.overlay(key) is not None:
            self.refuse(named)
        else:
            self.propose(named, Rows(command, key, None if kind == "delete" else value))

    def propose(self, named: tuple[int, int], rows: Rows) -> None:
        try:
            entry = self.replica.propose(msgspec.json.encode(rows), self.clock())
        except (NotServingError, TooFewError):
            self.world.reply(named, None)
            return
        self.waiters.append(Waiter(entry.sequence, named, rows.answer))

    def repeated(self, named: tuple[int, int]) -> bool:
        """R12: a command that is in the log, or was, gets the first answer."""
        if named[0] in self.answers and self.replica.serves(self.clock()):
            self.world.reply(named, (self.answers[named[0]],))
            return True
        for entry in self.replica.state.log if self.replica.leading else ():
            rows = msgspec.json.decode(entry.rows, type=Rows)
            if rows.command == named[0]:
                self.waiters.append(Waiter(entry.sequence, named, rows.answer))
                return True
        return False

    def refuse(self, named: tuple[int, int]) -> None:
        """R11: once everything that the refusal rests on is committed. R12: where an earlier attempt may still come,
        the refusal is an entry too, or that attempt could take effect after the client was told that it had none."""
        if named[1] > 1:
            self.propose(named, Rows(named[0], "", None, answer=False))
        else:
            self.waiters.append(Waiter(self.replica.last, named, False, refusal=True))

    def answer(self) -> None:
        if not self.replica.leading:
            self.waiters.clear()
        for waiter in list(self.waiters):
            if self.replica.state.commit >= waiter.sequence and (
                not waiter.refusal or self.replica.serves(self.clock())
            ):
                self.waiters.remove(waiter)
                if not waiter.refusal:
                    self.world.check_copies(waiter.sequence)
                self.world.reply(waiter.command, (waiter.result,))

    # -- the coordinator

    def ask_coordinator(self) -> None:
        world, incarnation = self.world, self.incarnation

        def hear(document: Document, revision: int) -> None:
            if self.up and self.incarnation == incarnation:
                self.step(lambda: self.replica.see(document, revision, self.clock()))

        swap = self.replica.swap
        if swap is not None:
            world.swap(swap.config, swap.revision, hear, self)
        else:
            world.read(hear, self)


def apply(rows: dict[str, str], answers: dict[int, str | bool], write: Write, over: bool = False) -> None:
    """What a write does to the rows. With `over` a snapshot is laid over what is there, which is wrong."""
    match write:
        case Commit(entries):
            for entry in entries:
                one = msgspec.json.decode(entry.rows, type=Rows)
                if one.value is None:
                    rows.pop(one.key, None)
                else:
                    rows[one.key] = one.value
                answers[one.command] = one.answer
        case Clear() if not over:
            rows.clear()
            answers.clear()
        case Fill(content):
            found, answered = msgspec.json.decode(content, type=tuple[list[tuple[str, str]], list[tuple[int, bool]]])
            rows.update(found)
            answers.update(answered)


def durable(node: Node) -> int:
    """The last sequence that would survive a crash of the node."""
    return last(node.disk)


def last(disk: Disk) -> int:
    return disk.state.log[-1].sequence if disk.state.log else disk.state.commit

"""Deciding: commands, one after the other, become rows. What hosts of one copy and of replicas have in common.

A turn sees what is committed, or on its way, through its overlay, and every decision of its own. A command is
decided with all that follows from it in the turn's partitions, wholly or not at all; what it asks of other
partitions, or of the store, is left in outbox rows (C2). Answers are kept with the rows that they speak of (R12).

For editors: whatever could refuse a command is asked in its decision, behind the look for its first answer, never
before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field
from operator import add

import msgspec

from s4.metadata import keys
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.decide import COMMANDS, decide
from s4.metadata.entry import Entry, Overlay, RepeatedError, add_counters, find
from s4.metadata.nulls import Nulls
from s4.metadata.outbox import follow_up
from s4.metadata.repeats import KEPT_MS, forgotten_ms
from s4.metadata.rows import Answer, Counters, Head, decode, encode
from s4.peer.api import ForgottenError, UnknownResultError

_answer_encoder = msgspec.msgpack.Encoder()
_answer_decoder = msgspec.msgpack.Decoder(AnyAnswer)

Newest = Callable[[Entry, int, bytes], tuple[bytes, bytes] | None]


# Decided before a turn is written: what more there is waits for the next, and others come between. A row counts as one,
# and as one more for each KiB of it.
TURN_ROWS = 4096


class OverloadedError(Exception):
    """More commands wait than the host takes."""


class Turn:
    """What a turn has decided so far: rows, new sequences, sums of counters. `epochs` has the turn's partitions. Clocks
    are asked once: `now_ms` is the time of all its entries, and commands from before `kept_ms` are too old."""

    def __init__(self, overlay: Overlay, epochs: dict[int, int], sequences: dict[int, int]) -> None:
        self.overlay, self.epochs, self.sequences = overlay, epochs, sequences
        self.now_ms: int | None = None
        self.kept_ms: int | None = None
        self.touched: set[int] = set()
        self.deltas: dict[tuple[int, int], list[int]] = {}

    def nested(self) -> Turn:
        """A turn on top of this one, which may still be thrown away."""
        inner = Turn(Overlay(self.overlay), self.epochs, dict(self.sequences))
        inner.now_ms = self.now_ms
        return inner

    @property
    def weight(self) -> int:
        """From TURN_ROWS on it is to be written before more is decided."""
        return len(self.overlay.rows) + self.overlay.size_bytes // 1024

    def add(self, entry: Entry) -> None:
        self.overlay.merge(entry.rows)
        self.sequences[entry.partition] = entry.sequence
        self.touched.add(entry.partition)
        self._sum({(entry.partition, bucket): delta for bucket, delta in entry.deltas.items()})

    def take(self, inner: Turn) -> None:
        self.overlay.merge(inner.overlay.rows)
        self.sequences.update(inner.sequences)
        self.touched |= inner.touched
        self._sum(inner.deltas)

    def _sum(self, deltas: dict[tuple[int, int], list[int]]) -> None:
        for name, delta in deltas.items():
            sums = self.deltas.get(name)
            self.deltas[name] = delta if sums is None else list(map(add, sums, delta))

    def close(self) -> None:
        """Add the rows that a turn's entries share: counters and heads."""
        rows: dict[bytes, bytes | None] = {}
        for (partition, bucket), delta in self.deltas.items():
            if any(delta):
                row_key = keys.counters_row(partition, bucket)
                row = find(self.overlay, Counters, row_key) or Counters()
                rows[row_key] = encode(add_counters(row, delta))
        for partition in self.touched:
            rows[keys.head_row(partition)] = encode(Head(self.epochs[partition], self.sequences[partition]))
        self.overlay.rows.update(rows)


@dataclass(frozen=True, slots=True)
class Decider:
    """`partitions` is how many the cluster has. `newest` finds the newest version of a key, for an entry. `agrees`:
    whether this clock is that of the peers, so that time may end something (R13). `room`: whether the disk takes more
    (D5). `whole`: whether every store of a partition is there (C4). `timed`: whether anybody knows what time it is."""

    partitions: int
    newest: Newest
    clock: Callable[[], float]
    agrees: Callable[[], bool] = lambda: True
    full: Container[tuple[int, str]] = ()  # (partition, receiver) whose queue of events takes no more
    room: Callable[[], bool] = lambda: True
    whole: Callable[[int], bool] = lambda _: True
    timed: Callable[[], bool] = lambda: True
    nulls: Nulls = field(default_factory=Nulls)

    def answer(
        self, turn: Turn, partition: int, command: AnyCommand, command_id: bytes, *, again: bool = False
    ) -> AnyAnswer | Exception:
        """The answer to a command, or why there is none; its rows are in the turn. `again`: it was sent before, so
        that even an answer without rows is kept: the first sending may still arrive (R12)."""
        if COMMANDS[type(command)].twice:
            command_id, again = b"", False
        try:
            if command_id:
                known = turn.overlay.get(keys.answer_row(partition, command_id))
                if known is not None:
                    repeated: AnyAnswer = _answer_decoder.decode(decode(Answer, known).answer)
                    return repeated
                self._must_be_known(turn, partition, command_id)
            return self._enter(turn, partition, command, command_id, again)
        except RepeatedError as error:
            return UnknownResultError(str(error))
        except Exception as error:  # a damaged row: this command fails, the others go on
            return error

    def _must_be_known(self, turn: Turn, partition: int, command_id: bytes) -> None:
        """Raises ForgottenError where the answer to this command, if it was decided before, may be gone (R12)."""
        if turn.kept_ms is None:
            turn.kept_ms = self._now_ms(turn) - KEPT_MS if self.agrees() else 0
        before_ms = max(turn.kept_ms, forgotten_ms(turn.overlay.get(keys.forgotten_row(partition))))
        if keys.command_ms(command_id) < before_ms:
            raise ForgottenError(
                "the command is older than answers are kept: whether it took effect is not known", before_ms
            )

    def _now_ms(self, turn: Turn) -> int:
        if turn.now_ms is None:
            turn.now_ms = int(self.clock() * 1000)
        return turn.now_ms

    def _enter(
        self, turn: Turn, partition: int, command: AnyCommand, command_id: bytes = b"", again: bool = False
    ) -> AnyAnswer:
        now_ms = self._now_ms(turn)
        sequence = turn.sequences[partition] + 1
        entry = Entry(
            turn.overlay,
            partition,
            self.partitions,
            turn.epochs[partition],
            sequence,
            now_ms,
            agrees=self.agrees,
            full=self.full,
            room=self.room,
            whole=self.whole,
            timed=self.timed,
            newest=self.newest,
            nulls=self.nulls,
        )
        answer = decide(entry, command)
        if not entry.rows and not again:
            return answer
        if command_id:
            row = Answer(now_ms, _answer_encoder.encode(answer))
            entry.put(keys.answer_row(partition, command_id), encode(row))
        if not entry.posted:
            turn.add(entry)
            return answer
        inner = turn.nested()
        inner.add(entry)
        for index, action in enumerate(entry.posted):
            follow = follow_up(action, self.partitions)
            if follow is None or follow[0] not in turn.epochs:
                inner.overlay.merge({keys.outbox_row(partition, sequence, index): encode(action)})
            else:
                self._enter(inner, *follow)
        turn.take(inner)
        return answer


def touches(rows: Collection[bytes], tables: Collection[bytes]) -> bool:
    """Whether any of the rows is of one of the tables."""
    return any(key[2:3] in tables for key in rows)


def deliver(waiting: list[asyncio.Future[AnyAnswer]], answers: list[AnyAnswer | Exception]) -> None:
    """Give each command's answer to who waits for it, if somebody still does."""
    for future, answer in zip(waiting, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

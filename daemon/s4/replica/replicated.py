"""The host of a store's partitions in a cluster: commands in, entries of the replicas of `group.py` out.

It has the face of `host.py`, which keeps everything by itself. Each turn of the group's writer loop first decides, for
each partition, commands that wait (waiting.py) into one entry: its rows go to the other replicas and to the own disk at
the same time, and its answers, refusals too (R11), are given once it is committed. What an entry asks of other
partitions waits in outbox rows, which `upkeep/leader.py` of whoever leads the partition carries out.

For editors: decisions see what is pending, readers only what is committed. A reader must call `check` after it has
read and before it answers: between any two lines this process may have stood still for longer than its lease (R5).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial

from s4.metadata import keys
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.decide import COMMANDS
from s4.metadata.entry import Entry, Overlay, find
from s4.metadata.rows import Head
from s4.peer.api import StaleError, UnavailableError, UnknownResultError
from s4.replica.group import Group
from s4.replica.host import SETTINGS_TABLES
from s4.replica.keptrows import Rows
from s4.replica.rowcache import RowCache
from s4.replica.terms import NotServingError, TooFewError
from s4.replica.turn import TURN_ROWS, Decider, OverloadedError, Turn, deliver, touches
from s4.replica.waiting import TURN_MOST, Commands, Waiting
from s4.storage.leveldb import Cursor

log = logging.getLogger(__name__)

WAITING_BYTES = 16 << 20  # of a partition's entries that are not committed: then no more is decided
WAIT_S = 0.02
PATIENCE_S, PATIENT_MOST = 1.0, 64  # how long, and how many, commands that nobody waits for wait for others

SETTINGS_LEASE_S = 2.0  # that gateways hold on settings (peer/server.py)
Prepare = Callable[[int, AnyCommand], AnyCommand]


class ReplicatedHost:
    """`on_outbox(partition)` is called when a partition that this store leads has something in its outbox, `on_lead`
    when it begins to lead one. `prepare` sees a command when it is decided, with the map that counts then (D3)."""

    def __init__(
        self,
        group: Group,
        partitions: int,
        *,
        cache_bytes: int,
        max_waiting: int,
        prepare: Prepare = lambda _partition, command: command,
        clock: Callable[[], float] = time.time,
        agrees: Callable[[], bool] = lambda: True,
        room: Callable[[], bool] = lambda: True,
        whole: Callable[[int], bool] = lambda _: True,
        timed: Callable[[], bool] = lambda: True,
    ) -> None:
        self.group, self.partitions = group, partitions
        self.on_settings: Callable[[], None] = lambda: None
        self.on_outbox: Callable[[int], None] = lambda _partition: None
        self.on_gone: Callable[[int], None] = lambda _partition: None
        self.on_lead: Callable[[int], None] = lambda _partition: None
        self._prepare = prepare
        self._led_at = dict.fromkeys(range(partitions), float("-inf"))
        self._cache = RowCache(cache_bytes)
        self._max_waiting, self.waiting = max_waiting, 0
        self._queue: Commands[Waiting] = Commands()
        self._taken: dict[int, list[Waiting]] = {}  # out of it, and not decided yet: they are next
        self._patient: dict[int, list[Waiting]] = {}  # beside it, until somebody else's turn
        self._patience: asyncio.TimerHandle | None = None
        group.timed = self._queue.timed
        self.full_queues: set[tuple[int, str]] = set()  # (partition, receiver of events)
        self._decider = Decider(partitions, self._newest, clock, agrees, self.full_queues, room, whole, timed)
        self.nulls = self._decider.nulls
        self.commands = 0
        group.before_turn, group.on_commit, group.on_lead = self._decide_all, self._committed, self._leads
        group.room = room

    def _leads(self, partition: int) -> None:
        self._led_at[partition] = self.group.clock()
        self._cache = RowCache(self._cache.limit_bytes)
        self.on_settings()
        self.on_lead(partition)

    async def settings_may_change(self) -> None:
        """Return once every lease has run out that the primary before this one gave on settings (L2): the last one,
        where another led while this waited."""
        while (left := self._led_at[0] + SETTINGS_LEASE_S - self.group.clock()) > 0:  # noqa: ASYNC110 - the clock is waited for
            await asyncio.sleep(left)

    # -- writing

    def submit(
        self,
        partition: int,
        command: AnyCommand,
        command_id: bytes = b"",
        *,
        own: bool = False,
        again: bool = False,
        patient: bool = False,
    ) -> asyncio.Future[AnyAnswer]:
        """Queue a command. The future resolves when its entry is committed. One that is `patient`, as some are by
        themselves, makes no entry of its own for PATIENCE_S.

        Raises OverloadedError and StaleError; the future StaleError and UnavailableError, all with nothing done, and
        UnknownResultError. `again`: the command was sent before under this id (R12).
        """
        self.check(partition)
        if (self.waiting >= self._max_waiting or self._queue.is_full) and not own:
            raise OverloadedError
        future: asyncio.Future[AnyAnswer] = asyncio.get_running_loop().create_future()
        item = Waiting(partition, command, command_id, again, future)
        if patient or COMMANDS[type(command)].patient:
            self._queue.hold(command)
            patients = self._patient.setdefault(partition, [])
            patients.append(item)
            if len(patients) >= PATIENT_MOST:
                self._lose_patience()
            elif self._patience is None:
                self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._lose_patience)
            return future
        self._queue.push(command, item)
        self.waiting += 1
        self.group.wake()
        return future

    def _lose_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        for partition in list(self._patient):
            self._join(partition, self._taken.setdefault(partition, []))
        self.group.wake()

    def _join(self, partition: int, queue: list[Waiting]) -> None:
        """Put what is patient behind what is decided next."""
        patient = self._patient.pop(partition, ())
        queue += patient
        self.waiting += len(patient)

    def _decide_all(self) -> None:
        queues, self._taken, rows = self._taken, {}, 0
        for _ in range(self._queue.next):
            item = self._queue.pop()
            queues.setdefault(item.partition, []).append(item)
        if self._queue:
            self.group.wake()
        for partition, queue in queues.items():
            self._join(partition, queue)
            if rows >= TURN_ROWS:
                self._taken[partition] = queue
                self.group.wake()
                continue
            if self._waits(partition):
                self._taken[partition] = queue
                asyncio.get_running_loop().call_later(WAIT_S, self.group.wake)
                continue
            taken, left = queue[:TURN_MOST], queue[TURN_MOST:]
            if left:
                self._taken[partition] = left
                self.group.wake()
            self.waiting -= len(taken)
            for item in taken:
                self._queue.let_go(item.command)
            try:
                rows += self._decide(partition, taken)
            except (NotServingError, TooFewError) as error:
                _fail(taken, _shown(error))
            except Exception as error:  # a damaged row that all of them need, such as the head: nothing was proposed
                log.exception("partition %d: a turn failed", partition)
                _fail(taken, error)

    def _waits(self, partition: int) -> bool:
        """Whether the other replicas are to catch up first: a new primary sends all that is not committed at once
        (R7)."""
        waiting = sum(len(entry.rows) for entry in self.group.replica(partition).state.log)
        return waiting > WAITING_BYTES and self.group.serves(partition)

    def _decide(self, partition: int, taken: list[Waiting]) -> int:
        """Returns how much that made, as a turn weighs it."""
        self.group.must_serve(partition)
        pending = self.group.pending(partition)
        head = find(pending, Head, keys.head_row(partition))
        sequence = head.sequence if head is not None else 0
        epoch = self.group.replica(partition).state.epoch
        turn = Turn(Overlay(pending), {partition: epoch}, {partition: sequence})
        answers: list[AnyAnswer | Exception] = []
        for item in taken:
            command = self._prepare(partition, item.command)
            answers.append(self._decider.answer(turn, partition, command, item.id, again=item.again))
            if turn.weight >= TURN_ROWS:
                break
        self._put_back(partition, taken[len(answers) :])
        del taken[len(answers) :]
        turn.close()
        committed = self.group.propose(partition, list(turn.overlay.rows.items()))
        self.commands += len(taken)
        committed.add_done_callback(partial(_answer, taken, answers))
        return turn.weight

    def _put_back(self, partition: int, left: list[Waiting]) -> None:
        """Commands for the next turn, before those that came meanwhile."""
        if left:
            self._taken[partition] = left + self._taken.get(partition, [])
            self.waiting += len(left)
            for item in left:
                self._queue.hold(item.command)
            self.group.wake()

    def _committed(self, partition: int, rows: Rows) -> None:
        leads = self.group.replica(partition).leading
        for key, _ in rows:
            if key[2:3] == keys.OBJECT:
                self._cache.drop(key[: -keys.VERSION_BYTES])
        names = [key for key, value in rows if value is not None]
        if leads and touches(names, (keys.GONE,)):
            self.on_gone(partition)
        if leads and touches(names, (keys.OUTBOX,)):
            self.on_outbox(partition)
        if touches([key for key, _ in rows], SETTINGS_TABLES):
            self.on_settings()

    def _newest(self, entry: Entry, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        prefix = keys.object_versions(entry.partition, bucket, key)
        if entry.changed(prefix):
            return next(entry.scan(prefix), None)
        return self._cache.get(prefix) or next(self.scan(prefix), None)

    # -- reading what is committed

    def check(self, partition: int, epoch: int = 0) -> None:
        """Raises StaleError where another store may know better by now, or it serves at another epoch than is meant."""
        if not self.group.serves(partition) or epoch not in (0, self.group.replica(partition).state.epoch):
            raise StaleError(f"partition {partition} is not served here at this epoch")

    async def settled(self) -> None:
        await self.group.settled()

    def newest(self, partition: int, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        """(row key, value) of the newest version of an object key."""
        prefix = keys.object_versions(partition, bucket, key)
        row = self._cache.get(prefix)
        if row is None:
            row = next(self.scan(prefix), None)
            if row is not None:
                self._cache.put(prefix, row)
        return row

    def get(self, key: bytes) -> bytes | None:
        return self.group.committed.get(key)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows with this prefix, from `start` (a whole key) on. To be used up before the loop runs again."""
        return self.group.committed.scan(max(prefix, start), keys.after(prefix))

    def cursor(self, prefix: bytes) -> Cursor:
        """A walk over the database alone: call `settled` before."""
        return self.group.database.cursor(prefix)

    @property
    def cache_bytes(self) -> int:
        return self._cache.size_bytes

    async def close(self) -> None:
        self._lose_patience()
        await self.group.close()


def _shown(error: BaseException) -> Exception:
    if isinstance(error, TooFewError):
        return UnavailableError("ServiceUnavailable", "Too few copies of the metadata are there for writes (R9).")
    if isinstance(error, NotServingError):
        return StaleError(str(error))
    return UnknownResultError(str(error))


def _fail(taken: list[Waiting], error: Exception) -> None:
    for item in taken:
        if not item.future.done():
            item.future.set_exception(error)


def _answer(taken: list[Waiting], answers: list[AnyAnswer | Exception], committed: asyncio.Future[None]) -> None:
    if committed.cancelled():
        _fail(taken, UnknownResultError("this store is stopping"))
        return
    failure = committed.exception()
    if failure is not None:
        _fail(taken, _shown(failure))
        return
    deliver([item.future for item in taken], answers)

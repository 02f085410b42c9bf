"""The replicas of one store's partitions, on a disk, a network and a clock: the host of `replica/core.py`.

One writer loop: each turn makes one synced LevelDB batch of everything that the cores of all partitions have given
out since the last one (new entries, rows of entries that were committed, what they no longer need), and only then
tells the cores that it is durable. Messages go out as soon as a core gives them out; a core keeps back by itself what
depends on its disk. Two layers stand over the database: `committed` has rows that are committed and not written yet,
which readers see, and each partition's `pending` those of its log, which only decisions see.

What a database keeps of a replica beside the partition's rows is in `keptrows.py`. A batch is in wholly or not at all,
so what a crash leaves is what some turn left: a prefix of what each core gave out, which is all that it asks for. A
failed write ends the process (D7).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial

from s4.base.worker import Worker
from s4.cluster.coordinator import ConflictError, Coordinator, CoordinatorError
from s4.cluster.messages import (
    AnyMessage,
    Clear,
    Commit,
    CutLog,
    Document,
    Entry,
    Fill,
    KeepEntry,
    SnapshotPart,
    State,
    Write,
    decode_document,
    encode_document,
)
from s4.peer.api import UnknownResultError
from s4.replica.core import Replica
from s4.replica.keptrows import Rows, load, log_key, log_value, packed, state_rows, unpacked
from s4.replica.layer import Layer
from s4.replica.leftover import LeftOver
from s4.replica.snapshot import Outgoing
from s4.replica.terms import NotServingError, Swap, Timing
from s4.storage.leveldb import Database

log = logging.getLogger(__name__)

TICK_S = 0.1  # at least; else half a beacon
APART = 3  # ticks, of which a partition gets one that is `apart`
RETRY_S = 0.2
AT_ONCE = 20_000  # rows of a batch that is filled in the loop
LAZY_S = 0.02  # that rows of committed entries wait for a turn that is due anyway

View = Callable[[bytes], bytes | None]
Send = Callable[[str, int, AnyMessage], None]
SendBulk = Callable[[str, int, AnyMessage], Awaitable[None]]


@dataclass(slots=True)
class _Waiter:
    """Something to be said once `sequence` is committed: for a refusal only if we still serve then (R11)."""

    sequence: int
    future: asyncio.Future[None]
    refusal: bool


@dataclass(slots=True)
class _Partition:
    number: int
    core: Replica
    document: str
    kept: State  # what the database has once this turn is written
    pending: Layer
    rows: dict[int, Rows] = field(default_factory=dict)  # of entries, by sequence, while they are at hand
    given: int = 0  # writes taken from the core so far
    waiters: deque[_Waiter] = field(default_factory=deque)
    swapping: Swap | None = None
    reading: bool = False
    leads: bool = False
    alarm: str = ""
    apart: bool = False  # it is no copy, nor planned to be one: it may be called in, in time


class Group:
    """`send(store, partition, message)` must not wait; what it cannot send it drops. `send_bulk` waits until the other
    side took it, and raises UnavailableError; it is for snapshots. `clock` goes on in suspend."""

    def __init__(
        self,
        store: str,
        database: Database,
        coordinator: Coordinator,
        send: Send,
        *,
        partitions: int,
        clock: Callable[[], float],
        fatal: Callable[[BaseException], None],
        timing: Timing | None = None,
        send_bulk: SendBulk | None = None,
    ) -> None:
        self._store, self.database, self._coordinator, self._send = store, database, coordinator, send
        self.clock, self._fatal = clock, fatal
        self.committed = Layer(database)
        self._outgoing = Outgoing(database, self.committed, send_bulk or self._just_send, clock)
        self.before_turn: Callable[[], None] = lambda: None
        self.timed: Callable[[Callable[[], None]], None] = lambda write: write()
        self.on_commit: Callable[[int, Rows], None] = lambda _partition, _rows: None
        self.on_lead: Callable[[int], None] = lambda _partition: None
        self.room: Callable[[], bool] = lambda: True
        self.turns, self._turn, self._closing = 0, 0, False
        self._settling: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._writes: list[tuple[_Partition, Write]] = []
        self._held: dict[int, list[tuple[_Partition, Write]]] = {}  # of partitions whose rows go before anything comes
        self._wake, self._urgent = asyncio.Event(), False
        self._hurry: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        now, used = clock(), timing or Timing()
        self._tick_s = max(TICK_S, used.beacon / 2)
        self._partitions = []
        for number in range(partitions):
            core, kept = Replica(store, load(database, number), used, now), load(database, number)
            one = _Partition(number, core, f"partition/{number}", kept, Layer(self.committed))
            self._refill(one)
            self._partitions.append(one)
        self._left_over = LeftOver(database, lambda number: self._partitions[number].kept, range(partitions))
        self._worker = Worker("writer")

    async def _just_send(self, store: str, partition: int, message: AnyMessage) -> None:
        self._send(store, partition, message)

    async def start(self) -> None:
        self._task(self._run())
        self._task(self._tick())
        for one in self._partitions:
            self._task(self._watch(one))

    async def close(self) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._worker.close()  # it may be in the database, which is about to be closed

    # -- for those who read and write

    def serves(self, partition: int) -> bool:
        return self._partitions[partition].core.serves(self.clock())

    def replica(self, partition: int) -> Replica:
        """For figures and status; not to be changed."""
        return self._partitions[partition].core

    def wake(self) -> None:
        """Have a turn begin, with what `before_turn` brings."""
        self._urgent = True
        self._wake.set()
        if not self._hurry.done():
            self._hurry.set_result(None)

    def read(self, partition: int, key: bytes) -> bytes | None:
        """A committed row. Raises NotServingError where another replica may know better."""
        found = self.committed.get(key)
        if not self.serves(partition):  # looked at last: a process may stand still between any two lines (R5)
            raise NotServingError(f"{self._store} does not serve partition {partition}")
        return found

    def pending(self, partition: int) -> Layer:
        """All that is committed or on its way, for decisions."""
        return self._partitions[partition].pending

    def last(self, partition: int) -> int:
        return self._partitions[partition].core.last

    async def write(self, partition: int, decide: Callable[[View], Rows]) -> None:
        """Commit the rows that `decide` gives, which sees all that is committed or on its way (R1).

        Returns once they are committed; where there are none, which is a refusal, once all that it may rest on is
        (R11). Raises NotServingError, TooFewError with nothing done, UnknownResultError.
        """
        self.must_serve(partition)
        await self.propose(partition, decide(self.pending(partition).get))

    def must_serve(self, partition: int) -> None:
        """Raises NotServingError."""
        if not self.serves(partition):
            raise NotServingError(f"{self._store} does not serve partition {partition}")

    def propose(self, partition: int, rows: Rows) -> asyncio.Future[None]:
        """As `write`, with rows that were decided just now. The future raises UnknownResultError."""
        one = self._partitions[partition]
        if rows:
            entry = one.core.propose(packed(rows), self.clock())
            one.rows[entry.sequence] = rows
            one.pending.add(rows, entry.sequence)
        waiter = _Waiter(one.core.last, asyncio.get_running_loop().create_future(), not rows)
        one.waiters.append(waiter)
        self._drain(one)
        return waiter.future

    def seat(self, partition: int, members: tuple[str, ...], joining: str = "", position: int = -1) -> bool:
        """Change who holds a partition's shards (D3). False where another change is under way; seen in the map
        later."""
        one = self._partitions[partition]
        done = one.core.seat(members, joining, position, self.clock())
        self._drain(one)
        return done

    async def leave(self, limit_s: float) -> None:
        """Let others lead, and go on without this store, before it stops; return once they do, or after `limit_s`."""
        deadline = self.clock() + limit_s
        while self.clock() < deadline:
            waits = [one.core.leave(self.clock()) for one in self._partitions]
            for one in self._partitions:
                self._drain(one)
            if not any(waits):
                return
            await asyncio.sleep(TICK_S)

    def deliver(self, sender: str, messages: Sequence[tuple[int, AnyMessage]]) -> bool:
        """Messages from another store's replicas. Whether one was part of a snapshot, which wants to be `written`."""
        now = self.clock()
        for number, message in messages:
            if number < len(self._partitions):
                one = self._partitions[number]
                one.core.receive(sender, message, now)
                self._drain(one)
        return any(isinstance(message, SnapshotPart) for _, message in messages)

    # -- what comes out of a core

    def _drain(self, one: _Partition) -> None:
        core = one.core
        for write in core.writes:
            if isinstance(write, Commit):  # seen from now on, and written with the next turn
                self._commit(one, write)
            elif isinstance(write, CutLog | Clear):
                self._refill(one)
            elif isinstance(write, KeepEntry) and not core.leading:
                one.pending.add(_rows_of(one, write.entry), write.entry.sequence)
            self._writes.append((one, write))
        if core.writes:
            if any(not isinstance(write, Commit) for write in core.writes):
                self.wake()
            core.writes.clear()
            self._wake.set()
        for to, message in core.messages:
            self._send(to, one.number, message)
        core.messages.clear()
        for to, attempt in core.snapshots:
            self._task(self._outgoing.send(one.number, core, to, attempt))
        core.snapshots.clear()
        if core.leading != one.leads:
            one.leads = core.leading
            if one.leads:
                self.on_lead(one.number)
        if (alarm := core.alarm) not in ("", one.alarm):
            log.error("partition %d: %s", one.number, alarm)
        one.alarm = alarm
        if core.swap is not None and one.swapping is not core.swap:
            one.swapping = core.swap
            self._task(self._swap(one, core.swap))
        if core.behind and not one.reading:
            one.reading = True
            self._task(self._read_document(one))
        self._answer(one)

    def _commit(self, one: _Partition, write: Commit) -> None:
        for entry in write.entries:
            rows = _rows_of(one, entry)
            self.committed.add(rows, self._turn + 1)
            self.on_commit(one.number, rows)
        one.pending.drop(write.sequence)

    def _refill(self, one: _Partition) -> None:
        """Make the layer of what is pending anew, from the log."""
        one.pending.clear()
        one.rows.clear()
        for entry in one.core.state.log:
            one.pending.add(_rows_of(one, entry), entry.sequence)

    def _answer(self, one: _Partition) -> None:
        core = one.core
        while one.waiters:
            waiter = one.waiters[0]
            if not core.leading:
                error = UnknownResultError(f"{self._store} is no longer primary of partition {one.number}")
                if not waiter.future.done():
                    waiter.future.set_exception(error)
            elif core.state.commit < waiter.sequence or (waiter.refusal and not core.serves(self.clock())):
                return
            elif not waiter.future.done():
                waiter.future.set_result(None)
            one.waiters.popleft()

    # -- the writer loop

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if not self._urgent:  # rows of committed entries can wait for company: their entries are durable
                await asyncio.wait((self._hurry,), timeout=LAZY_S)
            self._urgent, self._hurry = False, asyncio.get_running_loop().create_future()
            self._wake.clear()
            self.before_turn()
            taken, self._writes = self._writes, []
            self._turn += 1
            try:
                rows = self._left_over.piece(self._held)
                done = self._take([*self._released(), *taken], rows)
                if not done and not rows:
                    self._written()
                    continue
                await self._write_batch(rows)
            except Exception as error:
                self._fatal(error)
                raise
            if self._held:
                self.wake()
            elif self._left_over:
                self._wake.set()
            self.turns += 1
            self.committed.drop(self._turn)
            self._written()
            for one in done:
                one.core.synced(one.given, self.clock())
                self._drain(one)

    async def _write_batch(self, rows: dict[bytes, bytes | None]) -> None:
        items = list(rows.items())
        few = len(items) <= AT_ONCE  # filled where the lock is, else where nobody else waits (Database.batch)
        write_all = self.database.batch(items, True) if few else partial(self.database.write, items, True)
        await self._worker.run(partial(self.timed, write_all))

    def _take(self, writes: list[tuple[_Partition, Write]], rows: dict[bytes, bytes | None]) -> list[_Partition]:
        """Put into a turn what is not held back; of which partitions that was.

        R8: what is there of a copy goes before a snapshot comes, once it is durable that nothing of it counts: a piece
        with each turn, for other partitions must not wait for millions of rows. Each turn is synced: a later sync does
        not cover LevelDB's log before, and what came back would stand under the snapshot."""
        done: dict[int, _Partition] = {}
        for one, write in writes:
            if one.number in self._held:
                self._held[one.number].append((one, write))
                continue
            self._rows(one, write, rows)
            one.given += 1
            done[one.number] = one
            if isinstance(write, Clear):
                self._left_over.add(one.number)
                if write.at_once:
                    self._held[one.number] = []
        return list(done.values())

    def _released(self) -> list[tuple[_Partition, Write]]:
        """What was held back of partitions of which nothing is left."""
        gone = [number for number in self._held if number not in self._left_over]
        return [held for number in gone for held in self._held.pop(number)]

    def _rows(self, one: _Partition, write: Write, rows: dict[bytes, bytes | None]) -> None:
        """The database's rows for a write. Later ones of a turn stand over earlier ones."""
        kept = one.kept
        match write:
            case KeepEntry(entry):
                kept.log.append(entry)
                rows[log_key(one.number, entry.sequence)] = log_value(entry)
                return
            case Fill(content):
                rows.update(unpacked(content))
                return
            case CutLog() | Clear():
                after = write.sequence if isinstance(write, CutLog) else 0
                for entry in kept.log:
                    if entry.sequence > after:
                        rows[log_key(one.number, entry.sequence)] = None
            case Commit(entries):
                for entry in entries:
                    rows.update(_rows_of(one, entry))
                    one.rows.pop(entry.sequence, None)
                rows.update({log_key(one.number, entry.sequence): None for entry in entries})
        kept.add(write)
        rows.update(state_rows(one.number, kept, write))

    async def settled(self) -> None:
        """Return once everything that is committed now is in the database."""
        if self.committed.rows:
            await self._after(self.committed.newest)

    async def written(self) -> None:
        """Return once everything that cores have given out until now is in the database."""
        given = [(one.core, one.core.given) for one in self._partitions if one.core.durable < one.core.given]
        while any(core.durable < number for core, number in given):
            await self._after(self._turn + 1)

    async def _after(self, turn: int) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append((turn, waiter))
        self.wake()
        await waiter

    def _written(self) -> None:
        while self._settling and self._settling[0][0] <= self._turn:
            waiter = self._settling.popleft()[1]
            if not waiter.done():
                waiter.set_result(None)

    # -- the coordinator and time

    async def _tick(self) -> None:
        for number in itertools.count():
            await asyncio.sleep(self._tick_s)
            every, now = number % APART == 0, self.clock()
            cramped = every and not self.room()
            for one in self._partitions:
                if every:
                    one.core.cramped = cramped
                if every or not one.apart:
                    one.core.tick(now)
                    self._drain(one)

    async def _watch(self, one: _Partition) -> None:
        async for value, revision in self._coordinator.watch(one.document, 0):
            self._see(one, value, revision)

    def _see(self, one: _Partition, value: bytes, revision: int) -> None:
        if value:
            document = decode_document(value)
            counted = (*document.config.in_sync, *document.config.eligible, *document.plan.replicas)
            one.apart = self._store not in counted
            one.core.see(document, revision, self.clock())
            self._drain(one)

    async def _look(self, one: _Partition) -> None:
        """Read a partition's document; whatever fails, it is looked at again."""
        try:
            value, revision = await self._coordinator.read(one.document)
        except CoordinatorError:
            return
        except Exception:
            log.exception("partition %d: its configuration cannot be read", one.number)
            return
        self._see(one, value, revision)

    async def _read_document(self, one: _Partition) -> None:
        try:
            await self._look(one)
            if one.core.behind:
                await asyncio.sleep(RETRY_S)
        finally:
            one.reading = False

    async def _swap(self, one: _Partition, swap: Swap) -> None:
        """Repeat a swap as it is until a newer document was seen (R4): after any error it may have happened."""
        document = one.core.document
        if document is None:
            return
        value, epoch = encode_document(Document(swap.config, document.plan)), swap.config.epoch
        while one.core.swap is swap:
            try:
                revision = await self._coordinator.replace(one.document, value, swap.revision)
            except ConflictError:
                await self._look(one)
            except Exception as error:
                log.warning("partition %d: whether its epoch %d began is not known: %r", one.number, epoch, error)
            else:
                self._see(one, value, revision)
            if one.core.swap is swap:
                await asyncio.sleep(RETRY_S)

    def _task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fatal(error)
        elif task.cancelled() and not self._closing:
            self._fatal(RuntimeError(f"{task.get_coro()} was cancelled by somebody else"))


def _rows_of(one: _Partition, entry: Entry) -> Rows:
    """The rows of an entry, in order. Raises ValueError for a version that is not known."""
    rows = one.rows.get(entry.sequence)
    if rows is None:
        rows = one.rows[entry.sequence] = unpacked(entry.rows)
    return rows

"""The host of a process's partitions: one writer loop, and reads of committed rows.

Each turn takes commands that wait (waiting.py), decides them in order into entries, writes all rows in ONE synced
LevelDB batch and only then answers, refusals too (rule R11). With one copy an entry is committed when it is
durable here, and its rows are in with the same batch: so there is no log to keep apart, the database holds
committed rows only, and reads need no overlay.

With several drives the metadata has copies on the first of them (replica/copies.py). The copies get the
turn's batch first, with all of its rows once more in a turn row, and the one that is read gets it last: so
nothing is read that is not on every copy (R2), and after a crash between two of them the newest turn row
brings the others level. A copy that joins is filled by the turns themselves: each takes along the next rows
in order of keys, so no write can fall between (R8).

For editors: decisions see the turn's overlay, readers never do. The newest-version cache is dropped for every key that
a turn changed before its answers go out. A failed write ends the process (rule D7), and so does damage of the copy that
is read, by whatever read it is met, while others have what it had: all reads pass its database. Crash between any two
lines: a turn is in wholly or not at all, with what its entries ask of other partitions; what they ask of the store
waits in outbox rows, which are read again at start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any

from s4.base.worker import Worker
from s4.metadata import keys
from s4.metadata.accounts import ACCOUNT_TABLES
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.entry import Entry, Overlay, find
from s4.metadata.rows import Head
from s4.replica.copies import Copies
from s4.replica.rowcache import RowCache
from s4.replica.turn import TURN_ROWS, Decider, OverloadedError, Turn, deliver
from s4.replica.waiting import Commands, Waiting
from s4.storage.directory import DriveError
from s4.storage.leveldb import Cursor, Database, Snapshot

SETTINGS_TABLES = frozenset((keys.BUCKET, *ACCOUNT_TABLES))


class Host:
    """Primaries of `partitions` partitions over one database."""

    def __init__(
        self,
        copies: Copies,
        partitions: int,
        epochs: list[int],
        *,
        sync: bool,
        fatal: Callable[[BaseException], None],
        sync_shards: Callable[[], None],
        on_outbox: Callable[[int, bytes, bytes], None],
        cache_bytes: int,
        max_waiting: int,
        sync_every_s: float = 0.0,
        clock: Callable[[], float] = time.time,
        room: Callable[[], bool] = lambda: True,
        whole: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self.copies, self.partitions, self.epochs = copies, partitions, epochs
        self.database = database = copies.primary
        self._sync_shards = sync_shards
        self._sync, self._fatal, self._on_outbox = sync, fatal, on_outbox
        if not copies.alone:
            database.watch(self._damaged)
        self.get: Callable[[bytes], bytes | None] = database.get
        self.on_settings: Callable[[], None] = lambda: None
        self.on_gone: Callable[[int], None] = lambda _partition: None
        self._cache = RowCache(cache_bytes)
        self._max_waiting = max_waiting
        self._sync_every_s, self._sync_is_due = sync_every_s, False  # with durability `interval`
        self._until_sync: asyncio.TimerHandle | None = None
        self._queue: Commands[Waiting] = Commands()
        self._between: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._loop, self._context = asyncio.get_running_loop(), copy_context()
        self._busy = self._closing = False  # busy: a turn is under way, or asked for
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.turns = self.commands = 0
        self.full_queues: set[tuple[int, str]] = set()  # (partition, receiver of events)
        self._decider = Decider(partitions, self._newest, clock, full=self.full_queues, room=room, whole=whole)
        self.nulls = self._decider.nulls
        self._epochs = dict(enumerate(epochs))
        self._sequences = dict.fromkeys(range(partitions), 0)
        for partition in range(partitions):
            head = find(database, Head, keys.head_row(partition))
            if head is not None:
                self._sequences[partition] = head.sequence
        self._worker = Worker("writer")

    # -- writing

    def submit(
        self, partition: int, command: AnyCommand, command_id: bytes = b"", *, own: bool = False, again: bool = False
    ) -> asyncio.Future[AnyAnswer]:
        """Queue a command. The future resolves when its entry is committed. Raises OverloadedError. `again`: the
        command was sent before under this id (R12).

        The store's `own` upkeep is never turned away: it is little, and frees what clients wait for.
        """
        if (len(self._queue) >= self._max_waiting or self._queue.is_full) and not own:
            raise OverloadedError
        future: asyncio.Future[AnyAnswer] = self._loop.create_future()
        self._queue.push(command, Waiting(partition, command, command_id, again, future))
        self._wake()
        return future

    def _wake(self) -> None:
        """Have turns begin in the next round of the loop, where none is under way."""
        if not self._busy and not self._ended.done():
            self._busy = True
            self._loop.call_soon(self._go_on, context=self._context)

    def _go_on(self) -> None:
        """Turn after turn until nothing waits, or one is being written: then its end goes on."""
        try:
            while self._queue or self._between or self.copies.joining or self._sync_is_due:
                self._call_between()
                if self._turn():
                    return
        except Exception as error:
            self._fail(error)
            return
        self._busy = False
        if self._closing and not self._ended.done():
            self._ended.set_result(None)

    def _fail(self, error: Exception) -> None:
        """No turn comes after this."""
        self._fatal(error)
        if not self._ended.done():
            self._ended.set_exception(error)

    def _call_between(self) -> None:
        waiting, self._between = self._between, []
        for call, future in waiting:
            if future.done():
                continue
            try:
                future.set_result(call())
            except Exception as error:  # whoever asked is told; the turns go on
                future.set_exception(error)

    async def between_turns(self, call: Callable[[], Any]) -> Any:
        """Call something while no turn is under way, so that it sees none of one or all of it."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._between.append((call, future))
        self._wake()
        return await future

    async def snapshot(self) -> Snapshot:
        """All committed rows as they are between two turns."""
        found: Snapshot = await self.between_turns(self.database.snapshot)
        return found

    async def join(self, copy: Database) -> None:
        """Fill an empty copy while turns go on; on return it has every row and gets every turn (rule R8)."""
        done = self.copies.join(copy)
        self._wake()
        await done

    def _turn(self) -> bool:
        """Decide what waits; whether that has rows, which are being written now."""
        turn = Turn(Overlay(self.database), self._epochs, dict(self._sequences))
        group: list[Waiting] = []
        answers: list[AnyAnswer | Exception] = []
        for _ in range(self._queue.next):
            item = self._queue.pop()
            self._queue.let_go(item.command)
            group.append(item)
            answers.append(self._decider.answer(turn, item.partition, item.command, item.id, again=item.again))
            if turn.weight >= TURN_ROWS:
                break
        self._sequences = turn.sequences
        turn.close()
        if not (turn.overlay.rows or self.copies.joining or self._sync_is_due):
            self._answer(group, answers)
            return False
        rows = list(turn.overlay.rows.items())
        write = self.copies.batch(rows, sync := self._syncs())
        shards = not self._sync or any(
            new.k and not new.synced for item in group for new in getattr(item.command, "blobs", ())
        )

        def written(error: Exception | None) -> None:
            try:
                if error is not None:
                    raise error
                self.copies.written()
                self._committed(rows)
                self._answer(group, answers)
            except Exception as failed:
                self._fail(failed)
            else:
                self._go_on()

        self._worker.call(partial(self._queue.timed, partial(self._write, write, sync and shards)), written)
        return True

    def _answer(self, group: list[Waiting], answers: list[AnyAnswer | Exception]) -> None:
        self.turns += 1
        self.commands += len(group)
        deliver([item.future for item in group], answers)

    def _write(self, write: Callable[[], None], shards: bool) -> None:
        """On the writer's thread: what the entries refer to is durable before they are (rule D1)."""
        if shards:
            self._sync_shards()
        write()

    def _syncs(self) -> bool:
        """Whether this turn is synced: with durability `interval` one that comes so long after the first that was not,
        with everything since, be it asked for anything else or not."""
        due, self._sync_is_due = self._sync_is_due, False
        if due and self._until_sync is not None:
            self._until_sync.cancel()
            self._until_sync = None
        elif self._sync_every_s and self._until_sync is None and not self._closing:
            self._until_sync = self._loop.call_later(self._sync_every_s, self._let_sync)
        return self._sync or due or self.copies.joining or (self._closing and self._sync_every_s > 0)

    def _let_sync(self) -> None:
        self._sync_is_due = True
        self._wake()

    def _committed(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        for key, value in rows:
            name = key[2:3]
            if name == keys.OBJECT:
                self._cache.drop(key[: -keys.VERSION_BYTES])
            elif name == keys.OUTBOX and value is not None:
                self._on_outbox(int.from_bytes(key[:2], "big"), key, value)
            elif name == keys.GONE and value is not None:
                self.on_gone(int.from_bytes(key[:2], "big"))
            elif name in SETTINGS_TABLES:
                self.on_settings()

    def _newest(self, entry: Entry, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        prefix = keys.object_versions(entry.partition, bucket, key)
        if entry.changed(prefix):
            return next(entry.scan(prefix), None)
        return self._cache.get(prefix) or self.database.first(prefix, keys.after(prefix))

    # -- reading what is committed

    def check(self, partition: int, epoch: int = 0) -> None:
        """Called before anything that was read is answered: one process is always the one to say (R5)."""

    async def settings_may_change(self) -> None:
        """Called before a setting is changed: nobody else can have given leases on the old ones (L2)."""

    async def settled(self) -> None:
        """Return once all that is committed is in the database: here nothing is committed before."""

    def newest(self, partition: int, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        """(row key, value) of the newest version of an object key."""
        prefix = keys.object_versions(partition, bucket, key)
        row = self._cache.get(prefix)
        if row is None:
            row = self.database.first(prefix, keys.after(prefix))
            if row is not None:
                self._cache.put(prefix, row)
        return row

    def _damaged(self, error: Exception) -> None:
        """The copy that is read is damaged, whoever met it. Where there are others the process ends, and goes on with
        those (R7)."""
        if len(self.copies.all()) > 1:
            self._fatal(DriveError(self.database.path.parent, error))

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows with this prefix, from `start` (a whole key) on."""
        return self.database.scan(max(prefix, start), keys.after(prefix))

    def cursor(self, prefix: bytes) -> Cursor:
        return self.database.cursor(prefix)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def cache_bytes(self) -> int:
        return self._cache.size_bytes

    async def close(self) -> None:
        """Commit what waits and stop."""
        self._closing = True
        if self._until_sync is not None:
            self._sync_is_due = True
        self._wake()
        try:
            await self._ended
        finally:
            await self._worker.close()

"""The host of a process's partitions: one writer loop, and reads of committed rows.

Each turn takes the commands that wait, decides them in order into entries, writes all rows in ONE synced
LevelDB batch and only then answers, refusals too (rule R11). With one copy an entry is committed when it is
durable here, and its rows are in with the same batch: so there is no log to keep apart, the database holds
committed rows only, and reads need no overlay.

With several drives the metadata has copies on the first of them (replica/copies.py). The copies get the
turn's batch first, with all of its rows once more in a turn row, and the one that is read gets it last: so
nothing is read that is not on every copy (R2), and after a crash between two of them the newest turn row
brings the others level. A copy that joins is filled by the turns themselves: each takes along the next rows
in order of keys, so no write can fall between (R8).

For editors: decisions see the turn's overlay, readers never do. The newest-version cache is dropped for
every key that a turn changed before its answers go out. A failed write ends the process (rule D7). Crash
between any two lines: a turn is in wholly or not at all, with what its entries ask of other partitions;
what they ask of the store waits in outbox rows, which are read again at start.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from s4.metadata import keys
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.decide import decide
from s4.metadata.entry import Entry, Overlay, add_counters
from s4.metadata.outbox import follow_up
from s4.metadata.rows import Answer, Counters, Head, decode, encode
from s4.replica.copies import Copies
from s4.storage.leveldb import Cursor, Database, Snapshot

TURN_COMMANDS = 512
SETTINGS_TABLES = frozenset((keys.BUCKET, keys.USER, keys.ACCESS_KEY, keys.POLICY))
_answer_encoder = msgspec.msgpack.Encoder()
_answer_decoder = msgspec.msgpack.Decoder(AnyAnswer)


class OverloadedError(Exception):
    """More commands wait than the host takes."""


@dataclass(slots=True)
class _Waiting:
    partition: int
    command: AnyCommand
    id: bytes
    future: asyncio.Future[AnyAnswer]


class _Turn:
    """What a turn has decided so far: rows, new sequences, sums of counters."""

    def __init__(self, overlay: Overlay, sequences: list[int]) -> None:
        self.overlay, self.sequences = overlay, sequences
        self.touched: set[int] = set()
        self.deltas: dict[tuple[int, int], list[int]] = {}

    def nested(self) -> _Turn:
        """A turn on top of this one, which may still be thrown away."""
        return _Turn(Overlay(self.overlay), list(self.sequences))

    def add(self, entry: Entry) -> None:
        self.overlay.merge(entry.rows)
        self.sequences[entry.partition] = entry.sequence
        self.touched.add(entry.partition)
        self._sum({(entry.partition, bucket): delta for bucket, delta in entry.deltas.items()})

    def take(self, inner: _Turn) -> None:
        self.overlay.merge(inner.overlay.rows)
        self.sequences[:] = inner.sequences
        self.touched |= inner.touched
        self._sum(inner.deltas)

    def _sum(self, deltas: dict[tuple[int, int], list[int]]) -> None:
        for name, delta in deltas.items():
            sums = self.deltas.setdefault(name, [0] * 5)
            for index, value in enumerate(delta):
                sums[index] += value


class RowCache:
    """Newest rows of object keys, least recently used out first, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._rows: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()
        self._limit, self.size_bytes = limit_bytes, 0

    def get(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        row = self._rows.get(prefix)
        if row is not None:
            self._rows.move_to_end(prefix)
        return row

    def put(self, prefix: bytes, row: tuple[bytes, bytes]) -> None:
        self.drop(prefix)
        self._rows[prefix] = row
        self.size_bytes += self._weight(prefix, row)
        while self.size_bytes > self._limit:
            old, value = self._rows.popitem(last=False)
            self.size_bytes -= self._weight(old, value)

    def drop(self, prefix: bytes) -> None:
        old = self._rows.pop(prefix, None)
        if old is not None:
            self.size_bytes -= self._weight(prefix, old)

    @staticmethod
    def _weight(prefix: bytes, row: tuple[bytes, bytes]) -> int:
        return 400 + 2 * len(prefix) + len(row[1])


class Host:
    """Primaries of `partitions` partitions over one database."""

    def __init__(self, copies: Copies, partitions: int, epochs: list[int], *, sync: bool,
                 fatal: Callable[[BaseException], None], sync_shards: Callable[[], None], on_outbox: Callable[[int, bytes, bytes], None],
                 cache_bytes: int, max_waiting: int, sync_every_s: float = 0.0, clock: Callable[[], float] = time.time) -> None:  # fmt: skip
        self.copies, self.partitions, self.epochs = copies, partitions, epochs
        self.database = database = copies.primary
        self._sync_shards = sync_shards
        self._sync, self._fatal, self._on_outbox, self._clock = sync, fatal, on_outbox, clock
        self.on_settings: Callable[[], None] = lambda: None
        self._cache = RowCache(cache_bytes)
        self._max_waiting = max_waiting
        self._sync_every_s, self._synced_at = sync_every_s, time.monotonic()
        self._queue: list[_Waiting] = []
        self._between: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self.turns = self.commands = 0
        self._sequences = [0] * partitions
        for partition in range(partitions):
            value = database.get(keys.head_row(partition))
            if value is not None:
                self._sequences[partition] = decode(Head, value).sequence
        self._task = self._loop.create_task(self._run())

    # -- writing

    def submit(
        self, partition: int, command: AnyCommand, command_id: bytes = b"", *, own: bool = False
    ) -> asyncio.Future[AnyAnswer]:
        """Queue a command. The future resolves when its entry is committed. Raises OverloadedError.

        The store's `own` upkeep is never turned away: it is little, and frees what clients wait for.
        """
        if len(self._queue) >= self._max_waiting and not own:
            raise OverloadedError
        future: asyncio.Future[AnyAnswer] = self._loop.create_future()
        self._queue.append(_Waiting(partition, command, command_id, future))
        self._wake.set()
        return future

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue or self._between or self.copies.joining:
                self._call_between()
                group, self._queue = self._queue[:TURN_COMMANDS], self._queue[TURN_COMMANDS:]
                try:
                    await self._turn(group)
                except Exception as error:
                    self._fatal(error)
                    raise
            if self._closing:
                return

    def _call_between(self) -> None:
        waiting, self._between = self._between, []
        for call, future in waiting:
            if not future.done():
                future.set_result(call())

    async def between_turns(self, call: Callable[[], Any]) -> Any:
        """Call something while no turn is under way, so that it sees none of one or all of it."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._between.append((call, future))
        self._wake.set()
        return await future

    async def snapshot(self) -> Snapshot:
        """All committed rows as they are between two turns."""
        found: Snapshot = await self.between_turns(self.database.snapshot)
        return found

    async def join(self, copy: Database) -> None:
        """Fill an empty copy while turns go on; on return it has every row and gets every turn (rule R8)."""
        done = self.copies.join(copy)
        self._wake.set()
        await done

    async def _turn(self, group: list[_Waiting]) -> None:
        turn = _Turn(Overlay(self.database), list(self._sequences))
        answers = [self._answer(turn, item) for item in group]
        self._sequences = turn.sequences
        self._close_turn(turn)
        if turn.overlay.rows or self.copies.joining:
            rows = list(turn.overlay.rows.items())
            write = self.copies.batch(rows, self._sync or self._sync_due())
            shards = any(getattr(item.command, "blobs", None) for item in group)
            await self._loop.run_in_executor(self._thread, self._write, write, shards)
            self.copies.written()
            self._committed(rows)
        self.turns += 1
        self.commands += len(group)
        for item, answer in zip(group, answers, strict=True):
            if item.future.done():
                continue
            if isinstance(answer, Exception):
                item.future.set_exception(answer)
            else:
                item.future.set_result(answer)

    def _answer(self, turn: _Turn, item: _Waiting) -> AnyAnswer | Exception:
        """Decide one command with all that follows from it, wholly or not at all."""
        if item.id:
            known = turn.overlay.get(keys.answer_row(item.partition, item.id))
            if known is not None:
                repeated: AnyAnswer = _answer_decoder.decode(decode(Answer, known).answer)
                return repeated
        try:
            return self._enter(turn, item.partition, item.command, item.id)
        except Exception as error:  # a damaged row: this command fails, the others go on
            return error

    def _enter(self, turn: _Turn, partition: int, command: AnyCommand, command_id: bytes = b"") -> AnyAnswer:
        now_ms = int(self._clock() * 1000)
        sequence = turn.sequences[partition] + 1
        entry = Entry(turn.overlay, partition, self.partitions, self.epochs[partition], sequence, now_ms, self._newest)
        answer = decide(entry, command)
        if not entry.rows:
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
            follow = follow_up(action, self.partitions, inner.overlay)
            if follow is None:
                inner.overlay.merge({keys.outbox_row(partition, sequence, index): encode(action)})
            else:
                self._enter(inner, *follow)
        turn.take(inner)
        return answer

    def _close_turn(self, turn: _Turn) -> None:
        """Add the rows that a turn's entries share: counters and heads."""
        rows: dict[bytes, bytes | None] = {}
        for (partition, bucket), delta in turn.deltas.items():
            if any(delta):
                row_key = keys.counters_row(partition, bucket)
                value = self.database.get(row_key)
                row = decode(Counters, value) if value is not None else Counters()
                rows[row_key] = encode(add_counters(row, delta))
        for partition in turn.touched:
            rows[keys.head_row(partition)] = encode(Head(self.epochs[partition], turn.sequences[partition]))
        turn.overlay.rows.update(rows)

    def _write(self, write: Callable[[], None], shards: bool) -> None:
        """On the writer's thread: what the entries refer to is durable before they are (rule D1)."""
        if shards:
            self._sync_shards()
        write()

    def _sync_due(self) -> bool:
        """With durability `interval`: whether this turn is the one of its interval that syncs."""
        now = time.monotonic()
        if not self._sync_every_s or now - self._synced_at < self._sync_every_s:
            return False
        self._synced_at = now
        return True

    def _committed(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        for key, value in rows:
            name = key[2:3]
            if name == keys.OBJECT:
                self._cache.drop(key[: -keys.VERSION_BYTES])
            elif name == keys.OUTBOX and value is not None:
                self._on_outbox(int.from_bytes(key[:2], "big"), key, value)
            elif name in SETTINGS_TABLES:
                self.on_settings()

    def _newest(self, entry: Entry, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        prefix = keys.object_versions(entry.partition, bucket, key)
        if entry.changed(prefix):
            return next(entry.scan(prefix), None)
        return self._cache.get(prefix) or self.database.first(prefix, keys.after(prefix))

    # -- reading what is committed

    def newest(self, partition: int, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        """(row key, value) of the newest version of an object key."""
        prefix = keys.object_versions(partition, bucket, key)
        row = self._cache.get(prefix)
        if row is None:
            row = self.database.first(prefix, keys.after(prefix))
            if row is not None:
                self._cache.put(prefix, row)
        return row

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self.database.get(key)
        return value

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
        self._wake.set()
        await self._task
        self._thread.shutdown()

"""The copies of a process's metadata: one database on each of the first drives, all with every row.

Invariants: the primary, which alone is read, never has a turn that some copy lacks. Two copies differ by one
turn at most, because a turn starts only when the one before it is on all of them. Which copies count is in
the shard map (the in-sync set), never here: a copy that is not in it is emptied and joins again (R8).

After a crash `level` brings the copies together: the newest turn is in the turn row of each copy that has it,
but for the primary, which gets it last. A copy that is further behind, or that cannot be read, was changed by
somebody else or restored: it is at fault and leaves the set (R7).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from s4.metadata import keys
from s4.metadata.entry import find
from s4.metadata.rows import Turn, encode
from s4.storage.directory import DriveError
from s4.storage.leveldb import Database

log = logging.getLogger(__name__)

JOIN_ROWS, JOIN_BYTES = 2000, 8 << 20  # that a turn takes along

Rows = Sequence[tuple[bytes, bytes | None]]


@dataclass(slots=True)
class _Joiner:
    database: Database
    done: asyncio.Future[None]
    cursor: bytes = b""
    copied: bool = False


class Copies:
    """`primary` is read; `others` are written before it. `alone` is for a server that never has more than one."""

    def __init__(
        self, primary: Database, others: Sequence[Database] = (), *, turn: int = 0, alone: bool = True
    ) -> None:
        self.primary, self._others, self.alone = primary, list(others), alone
        self._turn = turn
        self._joiners: list[_Joiner] = []
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="copy")

    @property
    def joining(self) -> bool:
        """Whether a copy is being filled, so that turns are wanted even without commands."""
        return any(not joiner.copied for joiner in self._joiners)

    def join(self, copy: Database) -> asyncio.Future[None]:
        """Fill an empty copy from now on, turn by turn."""
        joiner = _Joiner(copy, asyncio.get_running_loop().create_future())
        self._joiners.append(joiner)
        return joiner.done

    def batch(self, rows: Rows, sync: bool) -> Callable[[], None]:
        """The turn's rows for every copy; calling it writes them, and returns when all copies have them."""
        if self.alone:
            return self.primary.batch(rows, sync)
        self._turn += 1
        redo = (keys.TURN_ROW, encode(Turn(self._turn, list(rows))))
        first = [(copy, copy.batch([*rows, redo], sync)) for copy in self._others]
        for joiner in self._joiners:
            filling = [*self._next_rows(joiner), *rows, redo]
            first.append((joiner.database, joiner.database.batch(filling, sync)))
        last = self.primary, self.primary.batch([*rows, (keys.TURN_ROW, encode(Turn(self._turn)))], sync)

        def write() -> None:
            for _ in self._pool.map(_write, first):
                pass
            _write(last)

        return write

    def _next_rows(self, joiner: _Joiner) -> Rows:
        """The next rows for a joiner: as the turn before left them, and this turn's own come behind them."""
        if joiner.copied:
            return []
        rows: list[tuple[bytes, bytes]] = []
        size, joiner.copied = 0, True
        for row in self.primary.scan(joiner.cursor, keys.END):
            rows.append(row)
            size += len(row[1])
            if len(rows) == JOIN_ROWS or size >= JOIN_BYTES:
                joiner.copied = False
                break
        if rows:
            joiner.cursor = rows[-1][0] + b"\x00"
        return rows

    def written(self) -> None:
        """The batch is durable on all copies: those that were filled by it are copies like the others now."""
        for joiner in [joiner for joiner in self._joiners if joiner.copied]:
            self._joiners.remove(joiner)
            self._others.append(joiner.database)
            if not joiner.done.done():
                joiner.done.set_result(None)

    def all(self) -> list[Database]:
        """Every copy that is level, the one that is read first."""
        return [self.primary, *self._others]

    def close(self, waiting: Sequence[Database] = ()) -> None:
        """`waiting` are databases that were to join, which may have begun."""
        self._pool.shutdown()
        begun = [*self._others, *(joiner.database for joiner in self._joiners)]
        for database in [*begun, *(one for one in waiting if one not in begun), self.primary]:
            database.close()


def _write(one: tuple[Database, Callable[[], None]]) -> None:
    database, write = one
    try:
        write()
    except Exception as error:
        raise DriveError(database.path.parent, error) from error


def level(databases: Sequence[Database]) -> tuple[int, list[Database]]:
    """(newest turn, databases that have it now): brings copies that a crash left a turn apart together."""
    turns = [_turn_of(database) for database in databases]
    newest = max(turn.number for turn in turns)
    rows = next((turn.rows for turn in turns if turn.number == newest and turn.rows is not None), None)
    whole: list[Database] = []
    for database, turn in zip(databases, turns, strict=True):
        if turn.number == newest:
            whole.append(database)
        elif turn.number == newest - 1 and rows is not None:
            database.write([*rows, (keys.TURN_ROW, encode(Turn(newest, rows)))])
            whole.append(database)
        else:
            log.error("%s is at turn %d of %d: it is left out and filled again", database.path, turn.number, newest)
    return newest, whole


def _turn_of(database: Database) -> Turn:
    return find(database, Turn, keys.TURN_ROW) or Turn(0)

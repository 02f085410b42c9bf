"""What was deleted is forgotten where reads wade through it: what is left on disk is looked at, on a clock of the
test's where time decides."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from s4.storage import forgetting, leveldb
from s4.storage.forgetting import STEP_S, TRIES, Forgetting
from s4.storage.leveldb import Database

PREFIX = b"\x00\x01Okey"
END = PREFIX + b"\xff"
ROWS = 6000


def _joined(one: Forgetting) -> None:
    if one._thread is not None:
        one._thread.join(60)


def _key(number: int) -> bytes:
    return PREFIX + number.to_bytes(8, "big")


def _on_disk(database: Database) -> int:
    return sum(file.stat().st_size for file in database.path.iterdir())


def by_first(database: Database) -> None:
    assert database.first(PREFIX, END) is None


def by_scan(database: Database) -> None:
    assert not list(database.scan(PREFIX, END))


def by_cursor(database: Database) -> None:
    cursor = database.cursor(PREFIX)
    cursor.seek(b"")
    assert cursor.take(1) == []
    cursor.close()


def by_cursor_from_its_start(database: Database) -> None:
    cursor = database.cursor(PREFIX)
    assert cursor.take(1) == []
    cursor.close()


@pytest.mark.parametrize("read", [by_first, by_scan, by_cursor, by_cursor_from_its_start])
def test_a_read_that_took_long_over_deleted_rows_has_them_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Database], None]
) -> None:
    """They held the loop at each look for a key whose versions were deleted, until LevelDB came to compact them."""
    database = Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=8 << 20, open_files=20)
    database.write([(_key(number), os.urandom(300)) for number in range(ROWS)], False)
    database.write([(b"\x00\x01P", b"another")], False)
    for at in range(0, ROWS, 1000):
        database.write([(_key(number), None) for number in range(at, at + 1000)], False)
    assert _on_disk(database) > 300 * ROWS
    monkeypatch.setattr(leveldb, "STEP_S", 0.0)
    monkeypatch.setattr(forgetting, "STEP_S", 0.0)
    read(database)
    _joined(database.forgetting)
    assert _on_disk(database) < 100_000
    assert database.get(b"\x00\x01P") == b"another"
    database.close()


def test_what_stands_between_rows_is_forgotten_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[tuple[bytes, bytes]] = []
    database = Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=256 << 10, open_files=20)
    database.write([(_key(number), b"") for number in (1, 500, 900)], False)
    monkeypatch.setattr(leveldb, "STEP_S", 0.0)
    monkeypatch.setattr(database.forgetting, "met", lambda start, stop: met.append((start, stop)))
    assert len(list(database.scan(PREFIX, END))) == 3
    stretches = [(PREFIX, _key(1)), (_key(1), _key(500)), (_key(500), _key(900)), (_key(900), END)]
    assert met == stretches
    met.clear()
    cursor = database.cursor(PREFIX)
    cursor.seek(_key(2)[len(PREFIX) :])
    while cursor.take(1):
        pass
    cursor.close()
    assert [(start, stop) for start, stop in met if stop != PREFIX + b"\xff" * 16] == [
        (_key(2), _key(500)),
        (_key(500), _key(900)),
    ]
    assert met[-1][0] == _key(900)
    database.close()


def test_what_stands_behind_a_row_that_is_there_is_forgotten_too(tmp_path: Path) -> None:
    """A stretch begins with the row before it, at which the look whether it was worth it stopped: each listing held the
    loop again."""
    database = Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=256 << 10, open_files=20)
    database.write([(_key(0), b""), (_key(20 * ROWS), b"")], False)
    for first in range(1, 20 * ROWS, ROWS):
        stretch = [_key(number) for number in range(first, min(first + ROWS, 20 * ROWS))]
        database.write([(key, os.urandom(16)) for key in stretch], False)
        database.write([(key, None) for key in stretch], False)
    database.forgetting.met(_key(0), _key(20 * ROWS))
    _joined(database.forgetting)
    assert database.forgetting.done
    assert [key for key, _ in database.scan(PREFIX, END)] == [_key(0), _key(20 * ROWS)]
    database.close()


def test_only_what_costs_the_processor_is_compacted_and_one_stretch_at_a_time() -> None:
    now, gate, compacted = [0.0], threading.Event(), list[tuple[bytes, bytes]]()
    spent = [0.0]

    def look(start: bytes, stop: bytes) -> None:
        now[0] += spent[0]

    def compact(start: bytes, stop: bytes) -> None:
        gate.wait(60)
        compacted.append((start, stop))
        if start == b"bad":
            raise OSError("no room")

    one = Forgetting(look, compact, lambda: now[0])
    one.met(b"a", b"b")  # the disk was slow: nothing of it is seen by the thread's clock
    _joined(one)
    assert not compacted
    spent[0] = 2 * STEP_S
    one.met(b"c", b"d")
    one.met(b"e", b"f")
    gate.set()
    _joined(one)
    assert compacted == TRIES * [(b"c", b"d")]
    one.met(b"bad", b"")
    _joined(one)
    one.met(b"e", b"f")
    one.close()
    one.met(b"g", b"h")
    assert compacted[TRIES : TRIES + 2] == [(b"bad", b""), (b"e", b"f")]
    assert compacted[-1] == (b"e", b"f")

"""LevelDB as we open it: what the disk gives back is checked, however it is read."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from s4.storage.leveldb import VERIFIED_BYTES, AnyDatabaseError, Database, DatabaseError, verify


def database(path: Path) -> Database:
    return Database(path, cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=50)


def value(number: int) -> bytes:
    return random.Random(number).randbytes(100)  # not to be compressed


def flipped(path: Path, number: int) -> None:
    """One bit of one row's value is another one: a block that is as good as any but for its CRC."""
    made = database(path)
    made.write([(b"key%05d" % number, value(number)) for number in range(2000)])
    made.close()
    database(path).close()  # makes a table of the log
    (table,) = path.glob("*.ldb")
    raw = bytearray(table.read_bytes())
    raw[raw.index(value(number))] ^= 1
    table.write_bytes(raw)


def test_a_flipped_bit_is_never_given_out(tmp_path: Path) -> None:
    flipped(tmp_path / "meta", 700)
    kept = database(tmp_path / "meta")
    with pytest.raises(AnyDatabaseError):
        kept.get(b"key00700")
    with pytest.raises(AnyDatabaseError):
        list(kept.scan(b"key00600", b"key00800"))
    with pytest.raises(AnyDatabaseError):
        kept.first(b"key00700", b"key00701")
    snapshot = kept.snapshot()
    with pytest.raises(AnyDatabaseError):
        snapshot.get(b"key00700")
    snapshot.close()
    with pytest.raises(AnyDatabaseError):
        kept.verified(b"key00600", b"\xff", 100_000, 1 << 30)
    assert (tmp_path / "meta.damaged").exists()
    kept.close()


def test_rows_that_are_lost_at_the_end_are_not_taken_for_the_end(tmp_path: Path) -> None:
    """An iterator would just stop before them."""
    flipped(tmp_path / "meta", 1999)
    with pytest.raises(DatabaseError):
        database(tmp_path / "meta")


@pytest.mark.parametrize("how", ["get", "scan", "first", "cursor", "get of a snapshot", "scan of a snapshot"])
def test_damage_is_told_however_it_is_read(tmp_path: Path, how: str) -> None:
    flipped(tmp_path / "meta", 700)
    kept, told = database(tmp_path / "meta"), list[Exception]()
    kept.watch(told.append)
    assert kept.get(b"key00001") == value(1)
    assert next(iter(kept.scan(b"key00001", b"key00003"))) == (b"key00001", value(1))
    assert not told
    with pytest.raises(AnyDatabaseError):
        if how == "get":
            kept.get(b"key00700")
        elif how == "scan":
            list(kept.scan(b"key00690", b"key00710"))
        elif how == "first":
            kept.first(b"key00700", b"key00701")
        elif how == "get of a snapshot":
            with contextlib.closing(kept.snapshot()) as snapshot:
                snapshot.get(b"key00700")
        elif how == "scan of a snapshot":
            with contextlib.closing(kept.snapshot()) as snapshot:
                list(snapshot.scan(b"key00690", b"key00710"))
        else:
            cursor = kept.cursor(b"key")
            while cursor.take(3):
                pass
    assert len(told) == 1
    assert (tmp_path / "meta.damaged").exists()
    kept.close()


def test_of_large_rows_a_cursor_takes_few_at_once(tmp_path: Path) -> None:
    """A row of an object of thousands of parts has a megabyte, and a listing takes rows of each partition."""
    database = Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=8 << 20, open_files=20)
    sizes = [10, 20, 300_000, 300_000, *[10] * 40]
    database.write([(b"P%02d" % at, bytes(size)) for at, size in enumerate(sizes)], True)
    cursor, taken = database.cursor(b"P"), []
    while rows := cursor.take(16):
        taken.append(rows)
    cursor.close()
    assert [len(value) for rows in taken for _, value in rows] == sizes
    assert [len(rows) for rows in taken] == [5, 16, 16, 7]
    cursor = database.cursor(b"P")
    cursor.seek(b"02")
    assert [len(cursor.take(16)) for _ in range(3)] == [1, 1, 16]
    cursor.close()
    database.close()


def test_all_rows_are_verified_on_a_thread_in_small_steps_and_at_a_rate(tmp_path: Path) -> None:
    class Watched(Database):
        steps: list[tuple[bytes, int]]
        threads: set[threading.Thread]

        def verified(self, *arguments: Any) -> tuple[bytes, int]:
            self.steps.append(super().verified(*arguments))
            self.threads.add(threading.current_thread())
            return self.steps[-1]

    kept = Watched(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=8 << 20, open_files=20)
    kept.steps, kept.threads = [], set()
    kept.write([(b"%03d" % number, bytes(65_536)) for number in range(100)])
    asyncio.run(verify(kept, b"\xff", 0))
    assert sum(read for _, read in kept.steps) == 100 * 65_539
    assert max(read for _, read in kept.steps) < VERIFIED_BYTES + 65_539
    assert [last for last, _ in kept.steps[-2:]] == [b"099", b""]
    assert threading.current_thread() not in kept.threads
    began = time.monotonic()
    asyncio.run(verify(kept, b"\xff", 20e6))
    assert time.monotonic() - began >= 100 * 65_539 / 20e6
    kept.close()


def test_a_database_is_not_closed_under_a_thread_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, reads, go_on = database(tmp_path / "meta"), threading.Event(), threading.Event()

    def stands() -> None:
        reads.set()
        go_on.wait(60)

    monkeypatch.setattr(kept, "_check_end", stands)
    reading = threading.Thread(target=kept.verified, args=(b"", b"\xff", 1, 1))
    closing = threading.Thread(target=kept.close)
    reading.start()
    reads.wait(60)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    go_on.set()
    reading.join()
    closing.join()

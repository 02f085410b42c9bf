"""Copies of the metadata: written in an order that a crash cannot make wrong, levelled after one, joined while
writing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from s4.metadata import keys
from s4.metadata.rows import Turn, decode
from s4.replica.copies import JOIN_BYTES, JOIN_ROWS, Copies, level
from s4.replica.host import Host
from s4.storage.directory import DriveError
from s4.storage.leveldb import AnyDatabaseError, Cursor, Database, Snapshot
from storage.test_leveldb import flipped


def database(path: Path) -> Database:
    return Database(path, cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=50)


def rows_of(one: Database) -> dict[bytes, bytes]:
    return {key: value for key, value in one.scan(b"", keys.END) if key != keys.TURN_ROW}


@pytest.fixture
def three(tmp_path: Path) -> list[Database]:
    return [database(tmp_path / f"d{number}" / "meta") for number in range(3) if not (tmp_path / f"d{number}").mkdir()]


def test_the_copy_that_is_read_is_written_last(three: list[Database]) -> None:
    """A failure of another copy leaves the primary without the turn: nothing was read that not all have."""
    copies = Copies(three[0], three[1:], alone=False)
    copies.batch([(b"a", b"1")], True)()
    write = copies.batch([(b"a", b"2")], True)
    three[2].close()
    with pytest.raises(DriveError) as caught:
        write()
    assert caught.value.directory == three[2].path.parent
    assert three[0].get(b"a") == b"1"
    assert three[1].get(b"a") == b"2"


@pytest.mark.parametrize("behind", [(0,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_a_crash_between_copies_is_levelled(three: list[Database], behind: tuple[int, ...]) -> None:
    """Each set of copies that may lack the last turn; with none that has it the turn never was."""
    copies = Copies(three[0], three[1:], alone=False)
    copies.batch([(b"a", b"1"), (b"b", b"1")], True)()
    copies.batch([(b"a", b"2"), (b"b", None)], True)  # made ready, and written to some only
    newest = Copies(three[0], three[1:], turn=1, alone=False)
    if 0 in behind:  # the primary is last: while it lacks the turn, others may have it
        for number in {1, 2} - set(behind):
            turn = [(keys.TURN_ROW, _redo(2, [(b"a", b"2"), (b"b", None)]))]
            three[number].write([(b"a", b"2"), (b"b", None), *turn])
        number, whole = level(three)
        assert whole == three
        expected = {b"a": b"1", b"b": b"1"} if len(behind) == 3 else {b"a": b"2"}
        assert number == (1 if len(behind) == 3 else 2)
        assert all(rows_of(one) == expected for one in three)
    else:  # cannot be: the primary had the turn before them, so they were restored or changed, and leave the set
        newest.primary.write([(b"a", b"2"), (keys.TURN_ROW, _redo(2, None))])
        assert level(three) == (2, [three[0]])


def _redo(number: int, rows: list[tuple[bytes, bytes | None]] | None) -> bytes:
    from s4.metadata.rows import encode

    return encode(Turn(number, rows))


def test_a_copy_two_turns_behind_leaves_the_set(three: list[Database]) -> None:
    copies = Copies(three[0], three[1:2], alone=False)
    for number in range(2):
        copies.batch([(b"a", b"%d" % number)], True)()
    assert level(three) == (2, three[:2])


def test_a_copy_joins_while_rows_change_before_and_behind_its_cursor(three: list[Database]) -> None:
    async def test() -> None:
        copies = Copies(three[0], [three[1]], alone=False)
        names = [b"%06d" % number for number in range(3 * JOIN_ROWS)]
        copies.batch([(name, b"old") for name in names], True)()
        joined = copies.join(three[2])
        turns = 0
        while not joined.done():
            changes = [
                (names[1], b"new%d" % turns),
                (names[-1], b"new%d" % turns),
                (names[2], None),
                (b"9", b"%d" % turns),
            ]
            copies.batch(changes, True)()
            copies.written()
            turns += 1
            assert turns < 10
        assert turns > 3
        copies.batch([(names[5], b"after")], True)()
        assert rows_of(three[2]) == rows_of(three[0]) == rows_of(three[1])
        assert decode(Turn, three[2].get(keys.TURN_ROW) or b"").number == turns + 2
        assert level(three)[1] == three

    asyncio.run(test())


def test_a_turn_takes_no_more_bytes_along_than_rows(three: list[Database]) -> None:
    """Rows may be long: what a copy that joins is given at once is bounded in bytes too."""

    async def test() -> None:
        copies = Copies(three[0], [three[1]], alone=False)
        copies.batch([(b"%d" % number, bytes(JOIN_BYTES // 4)) for number in range(9)], True)()
        joined, turns = copies.join(three[2]), 0
        while not joined.done():
            copies.batch([], True)()
            copies.written()
            turns += 1
            assert turns < 10
        assert turns == 3
        assert rows_of(three[2]) == rows_of(three[0])

    asyncio.run(test())


def _walked(cursor: Cursor) -> None:
    while cursor.take(100):
        pass


def _of_all(snapshot: Snapshot) -> None:
    with contextlib.closing(snapshot):
        list(snapshot.scan(b"key", b"kez"))


READS: dict[str, Callable[[Host], object]] = {
    "get": lambda host: host.get(b"key00700"),
    "scan": lambda host: list(host.scan(b"key", b"key00690")),
    "cursor": lambda host: _walked(host.cursor(b"key")),
    "what is read of all": lambda host: _of_all(host.database.snapshot()),
}


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("copies", [1, 2])
def test_a_copy_that_is_damaged_is_done_without_whoever_met_it(tmp_path: Path, how: str, copies: int) -> None:
    """A listing and a scrub that read the only damaged block failed for ever, beside a copy that had it."""
    paths = [tmp_path / f"d{number}" / "meta" for number in range(copies)]
    for path in paths:
        path.parent.mkdir()
    flipped(paths[0], 700)
    fatal: list[BaseException] = []

    async def test() -> None:
        opened = [database(path) for path in paths]
        host = Host(
            Copies(opened[0], opened[1:], alone=copies == 1),
            1,
            [1],
            sync=True,
            fatal=fatal.append,
            sync_shards=lambda: None,
            on_outbox=lambda *_: None,
            cache_bytes=1 << 20,
            max_waiting=8,
        )
        assert host.get(b"key00001")
        assert not fatal
        met = False
        try:
            READS[how](host)
        except AnyDatabaseError:
            met = True
        assert met
        await host.close()
        gc.collect()  # iterators go before what they are on
        for one in opened:
            one.close()

    asyncio.run(test())
    if copies == 1:
        assert not fatal  # what can be read is served
        return
    assert [type(one) for one in fatal] == [DriveError]
    assert fatal[0].directory == paths[0].parent  # type: ignore[attr-defined]
    assert paths[0].with_name("meta.damaged").exists()

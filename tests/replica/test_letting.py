"""What a removed version or upload held is let go of in bounded pieces, with the turns of others between, and over
crashes.

The steps of a turn are the rows that it decides; a clock says nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s4.metadata import commands, gone, keys
from s4.metadata.commands import CompleteUpload, CreateUpload, DeleteObject, NewBlob, PutObject, PutPart, Settings
from s4.metadata.rows import Counters, Extent, Object, Upload, decode
from s4.replica.copies import Copies, Rows
from s4.replica.host import Host
from s4.replica.letting import LettingGo
from s4.replica.turn import TURN_ROWS
from s4.storage.leveldb import Database

SETTINGS, KEY, UPLOAD = Settings(7, 1, ""), b"backup", b"u" * 16
PARTS = 1000
BOUND = (
    700  # rows of a turn: four for each of 64 references, and what the command itself has; far below four for each part
)


class Counting(Copies):
    """Notes how many rows each turn has."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.turns: list[int] = []

    def batch(self, rows: Rows, sync: bool) -> Callable[[], None]:
        self.turns.append(len(rows))
        return super().batch(rows, sync)


class Fixture:
    """A host of one partition whose rows outlive it."""

    def __init__(self, path: Path) -> None:
        self.path, self.fatal = path, list[BaseException]()
        self.open()

    def open(self) -> None:
        self.database = Database(self.path / "meta", cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=20)
        self.copies = Counting(self.database)
        self.host = Host(
            self.copies,
            1,
            [1],
            sync=True,
            fatal=self.fatal.append,
            sync_shards=lambda: None,
            on_outbox=lambda *_: None,
            cache_bytes=1 << 20,
            max_waiting=4096,
        )
        self.letting_go = LettingGo(self.host)
        self.host.on_gone = self.letting_go.note

    async def reopen(self) -> None:
        """As after a crash: what was noted in memory is forgotten."""
        await self.close()
        self.open()
        self.letting_go.note(0)

    async def close(self) -> None:
        await self.host.close()
        self.database.close()
        assert not self.fatal

    async def run(self, command: Any) -> Any:
        answer = await self.host.submit(0, command)
        assert not isinstance(answer, commands.Refused), answer
        return answer

    def of(self, table: bytes) -> list[tuple[bytes, bytes]]:
        return list(self.host.scan(keys.table(0, table)))

    def counted(self, bucket: int) -> Counters:
        value = self.host.get(keys.counters_row(0, bucket))
        return decode(Counters, value) if value is not None else Counters()

    async def upload(self, count: int) -> list[Extent]:
        """An upload with parts, which is not completed."""
        await self.run(CreateUpload(SETTINGS, KEY, UPLOAD, Upload(1, "o")))
        made = [_blob(number) for number in range(1, count + 1)]
        await asyncio.gather(*(self.run(PutPart(SETTINGS, KEY, UPLOAD, extent, b"", [new])) for new, extent in made))
        return [extent for _, extent in made]

    async def completed(self, count: int) -> None:
        extents = await self.upload(count)
        row = Object(1, 5000 * count, "e-1", False, True, "o", extents=extents, upload=UPLOAD)
        await self.run(CompleteUpload(SETTINGS, KEY, UPLOAD, row))


def _blob(number: int) -> tuple[NewBlob, Extent]:
    name, first = number.to_bytes(16, "big"), number.to_bytes(16, "little")
    return NewBlob(name, first, 5000, 1 << 20, 1, 0, number.to_bytes(32, "big")), Extent(
        number, 5000, 0, name, first, "e"
    )


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Fixture], Any]], None]:
    def runner(test: Callable[[Fixture], Any]) -> None:
        async def whole() -> None:
            fixture = Fixture(tmp_path)
            await test(fixture)
            await fixture.close()

        asyncio.run(whole())

    return runner


def test_no_turn_grows_with_the_parts_of_what_is_deleted(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        await fixture.completed(PARTS)
        await fixture.letting_go.round()
        assert not fixture.of(keys.PART)
        fixture.copies.turns.clear()
        await fixture.run(DeleteObject(SETTINGS, KEY))
        assert fixture.host.newest(0, 7, KEY) is None, "the row goes at once"
        assert fixture.counted(7).objects == 0
        assert len(fixture.of(keys.BLOB)) == PARTS, "and what it held soon"
        while fixture.letting_go.waiting:
            await fixture.letting_go.round()
        assert max(fixture.copies.turns) < BOUND
        assert not [row for table in (keys.BLOB, keys.REFERENCE, keys.CONTENT, keys.GONE) for row in fixture.of(table)]
        assert fixture.counted(0) == Counters()
        assert len(fixture.of(keys.OUTBOX)) == PARTS, "each blob's shards are to be freed"

    run(test)


@pytest.mark.parametrize("steps", range(1, 17, 5))
def test_letting_go_goes_on_after_a_crash(run: Any, steps: int) -> None:
    async def test(fixture: Fixture) -> None:
        await fixture.completed(PARTS)
        await fixture.run(DeleteObject(SETTINGS, KEY))
        for _ in range(steps):
            row, _ = fixture.of(keys.GONE)[0]
            await fixture.run(commands.LetGo(row))
            await fixture.run(commands.LetGo(row))  # a repeat is harmless
        assert fixture.of(keys.REFERENCE)
        await fixture.reopen()
        while fixture.letting_go.waiting:
            await fixture.letting_go.round()
        assert not [row for table in (keys.BLOB, keys.REFERENCE, keys.GONE, keys.PART) for row in fixture.of(table)]
        assert fixture.counted(0) == Counters()

    run(test)


def test_a_completed_object_keeps_what_its_parts_held(run: Any) -> None:
    """The rows of the parts go; a part that the completion left out is let go of."""

    async def test(fixture: Fixture) -> None:
        extents = await fixture.upload(PARTS)
        chosen = extents[: PARTS // 2]
        row = Object(1, 5000 * len(chosen), "e-1", False, True, "o", extents=chosen, upload=UPLOAD)
        fixture.copies.turns.clear()
        await fixture.run(CompleteUpload(SETTINGS, KEY, UPLOAD, row))
        again = await fixture.host.submit(0, PutPart(SETTINGS, KEY, UPLOAD, *_with_blob(PARTS + 1)))
        assert isinstance(again, commands.Refused), "nobody adds to it any more"
        while fixture.letting_go.waiting:
            await fixture.letting_go.round()
        assert max(fixture.copies.turns) < BOUND
        assert not fixture.of(keys.PART)
        assert {key[19:] for key, _ in fixture.of(keys.REFERENCE)} == {extent.reference for extent in chosen}

    run(test)


def _with_blob(number: int) -> tuple[Extent, bytes, list[NewBlob]]:
    new, extent = _blob(number)
    return extent, b"", [new]


def test_an_upload_is_aborted_at_once_and_let_go_of_soon(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        await fixture.upload(PARTS)
        fixture.copies.turns.clear()
        await fixture.run(commands.AbortUpload(SETTINGS, KEY, UPLOAD))
        assert not fixture.of(keys.UPLOAD)
        while fixture.letting_go.waiting:
            await fixture.letting_go.round()
        assert max(fixture.copies.turns) < BOUND
        assert not [row for table in (keys.BLOB, keys.REFERENCE, keys.GONE, keys.PART) for row in fixture.of(table)]

    run(test)


@pytest.mark.parametrize("undone", [False, True], ids=["deleted", "undone"])
def test_the_uploads_of_a_deleted_bucket_go_in_pieces(run: Any, undone: bool) -> None:
    """Those that are left when the deletion is undone stay (L3)."""

    async def test(fixture: Fixture) -> None:
        names = [number.to_bytes(16, "big") for number in range(PARTS)]
        await asyncio.gather(*(fixture.run(CreateUpload(SETTINGS, KEY, name, Upload(1, "o"))) for name in names))
        fixture.copies.turns.clear()
        await fixture.run(commands.CloseBucket(7, b"t" * 8))
        assert max(fixture.copies.turns) < BOUND
        await fixture.run(commands.LetGo(fixture.of(keys.GONE)[0][0]))
        if undone:
            await fixture.run(commands.ReopenBucket(7, b"t" * 8))
        while fixture.letting_go.waiting:
            await fixture.letting_go.round()
        assert max(fixture.copies.turns) < BOUND
        assert len(fixture.of(keys.UPLOAD)) == (PARTS - 1 if undone else 0)
        assert not fixture.of(keys.GONE)

    run(test)


def test_a_turn_is_written_when_it_is_full(run: Any) -> None:
    """Commands that make many rows each do not all go into one turn, and keep their order."""

    async def test(fixture: Fixture) -> None:
        made = [[_blob(1000 * number + one) for one in range(1, gone.AT_ONCE)] for number in range(100)]
        puts = [
            PutObject(
                SETTINGS,
                b"%d" % number,
                Object(1, 0, "e", False, True, "o", extents=[extent for _, extent in some]),
                blobs=[new for new, _ in some],
            )
            for number, some in enumerate(made)
        ]
        await asyncio.gather(*(fixture.run(put) for put in puts))
        fixture.copies.turns.clear()
        ended: list[int] = []
        deletes = [fixture.host.submit(0, DeleteObject(SETTINGS, b"%d" % number)) for number in range(100)]
        for number, one in enumerate(deletes):
            one.add_done_callback(lambda _, number=number: ended.append(number))
        await asyncio.gather(*deletes)
        assert max(fixture.copies.turns) < TURN_ROWS + 4 * gone.AT_ONCE + 100
        assert ended == sorted(ended)
        assert not fixture.of(keys.OBJECT)

    run(test)


def test_the_first_of_many_references_is_found_without_reading_all(run: Any) -> None:
    """A blob that ten thousand objects share: letting one go looks at two rows of them."""

    async def test(fixture: Fixture) -> None:
        new, extent = _blob(1)
        await fixture.run(
            PutObject(SETTINGS, b"0", Object(1, 5000, "e", False, True, "o", extents=[extent]), blobs=[new])
        )
        claims = [commands.Claim(new.blob, number.to_bytes(16, "big"), 0, 7, b"x") for number in range(2000)]
        for at in range(0, len(claims), 100):
            await fixture.run(commands.TakeReferences(claims[at : at + 100]))
        read = 0
        scan = fixture.database.scan

        def counted(start: bytes, stop: bytes) -> Any:
            nonlocal read
            for row in scan(start, stop):
                read += 1
                yield row

        fixture.database.scan = counted  # type: ignore[method-assign]
        await fixture.run(commands.DropReferences([(new.blob, claims[1000].reference)]))
        assert read < 10

    run(test)

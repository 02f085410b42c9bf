"""The writer loop and the decisions behind it, on a real LevelDB: rules R1, R11, R12, L2, L3, C1 to C4."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s4.metadata import commands, keys
from s4.metadata.commands import Claim, Conditions, NewBlob, PutObject, Settings
from s4.metadata.rows import Counters, Extent, FreeBlob, Object, RowError, decode, decode_action
from s4.replica import waiting
from s4.replica.copies import Copies
from s4.replica.host import Host
from s4.replica.turn import OverloadedError
from s4.storage.leveldb import Database

PARTITIONS = 4
SETTINGS = Settings(7, 1, "")


class Fixture:
    """A host, with the outbox rows that it committed."""

    def __init__(self, path: Path) -> None:
        self.outbox: list[Any] = []
        self.fatal: list[BaseException] = []
        self.database = Database(path / "meta", cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=20)
        self.host = Host(
            Copies(self.database),
            PARTITIONS,
            [1] * PARTITIONS,
            sync=True,
            fatal=self.fatal.append,
            sync_shards=lambda: None,
            on_outbox=lambda _partition, _key, value: self.outbox.append(decode_action(value)),
            cache_bytes=1 << 20,
            max_waiting=8,
        )

    def put(self, key: bytes, extents: list[Extent] | None = None, **options: Any) -> asyncio.Future[Any]:
        found = extents or []
        row = Object(1, sum(extent.size for extent in found), "e", False, True, "o", extents=found)
        command_id = options.pop("command_id", b"")
        settings = options.pop("settings", SETTINGS)
        return self.host.submit(
            keys.partition_of(7, key, PARTITIONS), PutObject(settings, key, row, **options), command_id
        )

    def newest(self, key: bytes) -> Any:
        return self.host.newest(keys.partition_of(7, key, PARTITIONS), 7, key)

    def counters(self, bucket: int) -> Counters:
        total = [0] * 6
        for partition in range(PARTITIONS):
            value = self.host.get(keys.counters_row(partition, bucket))
            if value is not None:
                row = decode(Counters, value)
                for index, name in enumerate(row.__struct_fields__):
                    total[index] += getattr(row, name)
        return Counters(*total)

    async def close(self) -> None:
        await self.host.close()
        self.database.close()


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Fixture], Awaitable[None]]], None]:
    def runner(test: Callable[[Fixture], Awaitable[None]]) -> None:
        async def whole() -> None:
            fixture = Fixture(tmp_path)
            await test(fixture)
            await fixture.close()
            assert not fixture.fatal

        asyncio.run(whole())

    return runner


def blob(number: int, reference: int = 0) -> tuple[NewBlob, Extent]:
    """A new blob and the extent that holds it; `partition_of` the extent is filled in by the caller's key."""
    name, first = number.to_bytes(16, "big"), (reference or number).to_bytes(16, "little")
    sha256 = bytes([number % 256]) * 32
    return NewBlob(name, first, 5000, 1 << 20, 1, 0, sha256), Extent(0, 5000, 0, name, first, "e")


def at(extent: Extent, key: bytes) -> Extent:
    return Extent(0, extent.size, keys.partition_of(7, key, PARTITIONS), extent.blob, extent.reference, extent.etag)


def test_one_turn_for_many_commands_and_one_winner(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        only = Conditions(if_none_match="*")
        answers = await asyncio.gather(*(fixture.put(b"k", conditions=only) for _ in range(8)))
        assert [type(answer) for answer in answers].count(commands.Written) == 1
        assert {answer.code for answer in answers if isinstance(answer, commands.Refused)} == {"PreconditionFailed"}
        assert fixture.host.turns == 1

    run(test)


def test_a_refusal_is_answered_after_the_entry_that_it_rests_on(run: Any) -> None:
    """R11: when the loser hears 412, the winner is durable."""

    async def test(fixture: Fixture) -> None:
        winner, loser = fixture.put(b"k"), fixture.put(b"k", conditions=Conditions(if_none_match="*"))
        loser.add_done_callback(lambda _: states.append(fixture.newest(b"k") is not None))
        states: list[bool] = []
        await asyncio.gather(winner, loser)
        await asyncio.sleep(0)
        assert states == [True]

    run(test)


def test_a_repeated_command_gets_the_first_answer(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        only = Conditions(if_none_match="*")
        first = await fixture.put(b"k", conditions=only, command_id=b"i" * 16)
        assert isinstance(first, commands.Written)
        assert await fixture.put(b"k", conditions=only, command_id=b"i" * 16) == first
        both = await asyncio.gather(
            fixture.put(b"l", conditions=only, command_id=b"j" * 16),
            fixture.put(b"l", conditions=only, command_id=b"j" * 16),
        )
        assert both[0] == both[1]
        assert isinstance(await fixture.put(b"k", conditions=only, command_id=b"k" * 16), commands.Refused)

    run(test)


def test_references_count_and_the_last_one_frees(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        new, extent = blob(1)
        home = keys.partition_of(7, b"a", PARTITIONS)
        await fixture.put(b"a", [at(extent, b"a")], blobs=[new])
        other = keys.partition_of(7, b"b", PARTITIONS)
        claim = Claim(new.blob, b"r" * 16, other, 7, b"b")
        assert await fixture.host.submit(home, commands.TakeReferences([claim])) == commands.Taken(True)
        shared = Extent(0, 5000, home, new.blob, b"r" * 16, "e")
        await fixture.put(b"b", [shared], granted=[b"r" * 16])
        assert fixture.counters(0) == Counters(0, 0, 1, 2, 5000)
        assert fixture.counters(7) == Counters(2, 10_000, saved=5000)
        await fixture.host.submit(home, commands.DeleteObject(SETTINGS, b"a"))
        assert (fixture.counters(0).references, fixture.outbox) == (1, [])
        # C1: a late or repeated dereference of a name that is gone changes nothing.
        await fixture.host.submit(home, commands.DropReferences([(new.blob, new.reference), (new.blob, b"x" * 16)]))
        assert fixture.counters(0).references == 1
        await fixture.put(b"b")  # overwriting drops the last one, in another partition
        assert fixture.counters(0) == Counters()
        assert fixture.outbox == [FreeBlob(new.blob)]
        content = keys.content_row(keys.partition_of_content(new.sha256, PARTITIONS), new.sha256)
        assert fixture.host.get(content) is None
        assert await fixture.host.submit(home, commands.TakeReferences([claim])) == commands.Taken(False)

    run(test)


def test_what_the_auditor_gave_up_cannot_be_committed_any_more(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        new, extent = blob(1)
        home = keys.partition_of(7, b"a", PARTITIONS)
        assert await fixture.host.submit(home, commands.RefuseBlob(new.blob)) == commands.Taken(False)
        refused = await fixture.put(b"a", [at(extent, b"a")], blobs=[new])
        assert isinstance(refused, commands.Refused)
        kept, held = blob(2)
        await fixture.put(b"a", [at(held, b"a")], blobs=[kept])
        assert await fixture.host.submit(home, commands.RefuseBlob(kept.blob)) == commands.Taken(True)
        ask = commands.RefuseReference(7, b"a", b"", kept.blob, kept.reference)
        assert await fixture.host.submit(home, ask) == commands.Taken(True)
        late = commands.RefuseReference(7, b"a", b"", kept.blob, b"l" * 16)
        assert await fixture.host.submit(home, late) == commands.Taken(False)
        again = await fixture.put(b"a", [Extent(0, 5000, home, kept.blob, b"l" * 16, "e")], granted=[b"l" * 16])
        assert isinstance(again, commands.Refused)
        assert (
            await fixture.host.submit(home, commands.TakeReferences([Claim(kept.blob, b"l" * 16, home, 7, b"a")]))
        ) == commands.Taken(False)

    run(test)


def test_stale_settings_are_sent_back_and_newer_ones_adopted(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        newer = Settings(7, 2, "Enabled")
        await fixture.put(b"k", settings=newer)
        assert isinstance(await fixture.put(b"k"), commands.Stale)
        assert len(list(fixture.host.scan(keys.object_versions(keys.partition_of(7, b"k", PARTITIONS), 7, b"k")))) == 1

    run(test)


def test_a_closed_bucket_refuses_late_puts_and_reopens_for_its_token_only(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        home = keys.partition_of(7, b"k", PARTITIONS)
        await fixture.host.submit(home, commands.CloseBucket(7, b"token"))
        assert (await fixture.put(b"k")).code == "NoSuchBucket"
        await fixture.host.submit(home, commands.ReopenBucket(7, b"other"))
        assert (await fixture.put(b"k")).code == "NoSuchBucket"
        await fixture.host.submit(home, commands.ReopenBucket(7, b"token"))
        assert isinstance(await fixture.put(b"k"), commands.Written)
        assert (await fixture.host.submit(home, commands.CloseBucket(7, b"token"))).code == "BucketNotEmpty"

    run(test)


def test_a_rename_removes_its_source_in_the_same_turn(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        await fixture.put(b"old")
        version = keys.version_id(fixture.newest(b"old")[0][-12:])
        await fixture.put(b"new", rename_from=b"old", rename_version=version)
        assert fixture.newest(b"old") is None
        await fixture.put(b"old")
        await fixture.put(
            b"other", rename_from=b"old", rename_version=version
        )  # that version is gone: the newer one stays
        assert fixture.newest(b"old") is not None

    run(test)


def test_a_damaged_row_fails_its_command_only(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        await fixture.put(b"bad")
        row_key, _ = fixture.newest(b"bad")
        fixture.database.write([(row_key, b"\x01\x02\x00\x00\x00ab")])
        fixture.host._cache.drop(row_key[:-12])
        results = await asyncio.gather(fixture.put(b"bad"), fixture.put(b"good"), return_exceptions=True)
        assert isinstance(results[0], RowError)
        assert isinstance(results[1], commands.Written)

    run(test)


def test_the_queue_is_bounded(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        waiting = [fixture.put(b"%d" % number) for number in range(8)]
        with pytest.raises(OverloadedError):
            fixture.put(b"one more")
        own = fixture.host.submit(0, commands.ForgetRows([]), own=True)  # upkeep is not turned away
        await asyncio.gather(*waiting, own)
        await fixture.put(b"again")

    run(test)


def test_the_queue_is_bounded_by_what_commands_hold_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few completions of thousands of parts are as much as thousands of small commands."""
    monkeypatch.setattr(waiting, "WAITING_BYTES", 5_000_000)
    parts = [Extent(number, 1) for number in range(10_000)]
    whole = Object(1, 10_000, "e", False, True, "ana", extents=parts)

    async def test(fixture: Fixture) -> None:
        complete = commands.CompleteUpload(Settings(7, 1, ""), b"large", bytes(16), whole)
        large = [fixture.host.submit(0, complete), fixture.host.submit(0, complete)]
        with pytest.raises(OverloadedError):
            fixture.put(b"small")
        assert 8_500_000 < fixture.host._queue.held_bytes < 8_600_000
        own = fixture.host.submit(0, commands.ForgetRows([]), own=True)
        await asyncio.gather(*large, own, return_exceptions=True)  # there is no such upload
        assert fixture.host._queue.held_bytes == 0
        await fixture.put(b"small")

    run(test)


def test_versions_are_ordered_by_entry_not_by_clock(run: Any) -> None:
    async def test(fixture: Fixture) -> None:
        settings = Settings(7, 2, "Enabled")
        clock = iter([9_000_000_000.0, 5.0])
        fixture.host._clock = lambda: next(clock)
        first = await fixture.put(b"k", settings=settings)
        second = await fixture.put(b"k", settings=settings)
        fixture.host._clock = lambda: 1.0
        assert keys.version_id(fixture.newest(b"k")[0][-12:]) == second.version > first.version

    run(test)


def test_sequences_go_on_after_a_restart(tmp_path: Path) -> None:
    async def write(count: int) -> list[str]:
        fixture = Fixture(tmp_path)
        settings = Settings(7, 2, "Enabled")
        made = [(await fixture.put(b"k", settings=settings)).version for _ in range(count)]
        await fixture.close()
        return made

    versions = asyncio.run(write(3)) + asyncio.run(write(3))
    assert versions == sorted(set(versions))


def test_a_host_that_is_closed_has_nothing_more_to_do(run: Any) -> None:
    """A turn that came in while it closed, with durability `interval`, asked for a sync of a database that is closed by
    then, which is fatal: the process started again that was told to stop."""

    async def test(fixture: Fixture) -> None:
        fixture.host._sync, fixture.host._sync_every_s = False, 0.001
        waiting = fixture.put(b"first")
        closing = asyncio.ensure_future(fixture.host.close())
        await waiting
        fixture.put(b"second")
        await closing
        turns = fixture.host.turns
        fixture.put(b"late")
        assert (fixture.host._until_sync, fixture.host.turns, fixture.fatal) == (None, turns, [])
        assert all(fixture.newest(key) for key in (b"first", b"second"))

    run(test)

"""What lifecycle ends and moves, and when: passes over a real store with a clock of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from inprocess import Bytes, opened, put
from s4.access import documents
from s4.gateway import buckets, multipart, objects
from s4.gateway.context import Gateway, execute, settings_of
from s4.gateway.objects import Attributes
from s4.metadata import keys
from s4.metadata.commands import ChangeObject, Deleted, DeleteIfNewest, Expire, Judged
from s4.metadata.entry import Entry, Overlay
from s4.metadata.events import NotificationRule
from s4.metadata.listing import Query
from s4.metadata.listing import Version as Listed
from s4.node.local import OpenStore
from s4.s3.checksums import Expected
from s4.s3.errors import S3Error
from s4.s3.lifecycle import CURRENT, NONCURRENT, Move, Rule
from s4.s3.lock import Lock
from s4.upkeep.lifecycle import Lifecycle

DAY = 1000
BUCKET = "lifecycle"


class World:
    """A store, its rules, and the time."""

    store: OpenStore
    gateway: Gateway

    def __init__(self) -> None:
        self.now, self.believed = 10 * DAY, True

    def worker(self) -> Lifecycle:
        return Lifecycle(
            self.gateway,
            self.store.host,
            lambda: range(self.gateway.partitions),
            lambda: self.believed,
            lambda: self.now / 1000,
        )

    async def rules(self, *rules: Rule) -> None:
        await buckets.set_document(
            self.gateway, BUCKET, documents.LIFECYCLE, documents.encode(list(rules)) if rules else ""
        )

    async def put(self, key: str, data: bytes = b"x", **attributes: Any) -> str:
        put = await objects.put_object(
            self.gateway, BUCKET, key.encode(), Bytes(data), Expected(), Attributes(**attributes), "root"
        )
        return put.version

    async def there(self, *, versions: bool = False) -> list[str]:
        bucket = await self.gateway.node.find_bucket(BUCKET)
        assert bucket is not None
        page = await self.gateway.node.list_objects(bucket.id, Query(versions=versions))
        return [("-" if one.row.marker else "") + one.key.decode() for one in page.items if isinstance(one, Listed)]

    async def classes(self) -> list[str]:
        bucket = await self.gateway.node.find_bucket(BUCKET)
        assert bucket is not None
        page = await self.gateway.node.list_objects(bucket.id, Query(versions=True))
        return [f"{one.key.decode()} {one.storage_class}" for one in page.items if isinstance(one, Listed)]


def run(tmp_path: Path, test: Callable[[World], Awaitable[None]], *, lock: bool = False) -> None:
    async def go() -> None:
        world = World()
        async with opened(tmp_path / "data", clock=lambda: world.now / 1000) as (world.store, world.gateway):
            world.gateway.day_ms = DAY
            await buckets.create_bucket(world.gateway, BUCKET, "root", lock=lock)
            await test(world)

    asyncio.run(go())


def test_current_versions_end_by_days_date_prefix_tag_and_size(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.rules(
            Rule("days", True, "days/", days=2),
            Rule("date", True, "date/", date_ms=12 * DAY),
            Rule("tag", True, tags={"t": "1"}, days=1),
            Rule("size", True, "size/", above=10, below=100, days=1),
            Rule("off", False, days=1),
        )
        await world.put("days/a")
        await world.put("date/a")
        await world.put("tagged", tags={"t": "1", "u": "2"})
        await world.put("other", tags={"t": "2"})
        for size in (10, 11, 5000):
            await world.put(f"size/{size}", b"x" * size)
        world.now += 1
        await world.put("days/late")
        worker = world.worker()
        everything = await world.there()
        await worker.run()
        assert await world.there() == everything
        world.now = 11 * DAY
        await worker.run()
        assert await world.there() == ["date/a", "days/a", "days/late", "other", "size/10", "size/5000"]
        world.now = 12 * DAY
        await worker.run()
        assert await world.there() == ["days/late", "other", "size/10", "size/5000"], (
            "what is put after midnight ends at the next one"
        )
        world.now = 13 * DAY
        await worker.run()
        assert await world.there() == ["other", "size/10", "size/5000"]
        assert (worker.ended[CURRENT], worker.kept) == (5, 0)

    run(tmp_path, test)


def test_versions_markers_and_uploads(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await buckets.set_versioning(world.gateway, BUCKET, "Enabled")
        await world.rules(
            Rule("old", True, noncurrent_days=2, newer=1),
            Rule("all", True, "end/", days=1),
            Rule("markers", True, markers=True),
            Rule("uploads", True, abort_days=3),
        )
        for _ in range(4):
            await world.put("k")
            world.now += 1
        await world.put("end/k")
        await objects.delete_object(world.gateway, BUCKET, b"gone", "", "root")
        upload, _ = await multipart.create_upload(world.gateway, BUCKET, b"up", Attributes(), "root", "", "")
        worker = world.worker()
        await worker.run()
        assert await world.there(versions=True) == ["end/k", *4 * ["k"]], "the marker that stood for nothing is gone"
        world.now = 12 * DAY
        await worker.run()
        assert await world.there(versions=True) == ["-end/k", "end/k", *4 * ["k"]], (
            "an ended current version stays under a marker"
        )
        world.now = 13 * DAY
        await worker.run()
        assert await world.there(versions=True) == ["-end/k", "end/k", "k", "k"], "the newest of the past is kept"
        assert worker.ended[NONCURRENT] == 2
        await world.rules(Rule("old", True, noncurrent_days=1), Rule("markers", True, markers=True))
        world.now = 14 * DAY
        await worker.run()
        world.now = 15 * DAY
        await worker.run()
        assert await world.there(versions=True) == ["k"]
        await multipart.find_upload(world.gateway, BUCKET, b"up", upload)
        await world.rules(Rule("uploads", True, abort_days=3))
        world.now = 16 * DAY
        await worker.run()
        with pytest.raises(S3Error, match="NoSuchUpload"):
            await multipart.find_upload(world.gateway, BUCKET, b"up", upload)
        await worker.run()
        assert worker.ended["upload"] == 1

    run(tmp_path, test)


def test_current_versions_move_by_days_date_and_size(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.rules(
            Rule("days", True, "days/", moves=[Move("STANDARD_IA", 1), Move("GLACIER_IR", 3)], days=4),
            Rule("date", True, "date/", moves=[Move("INTELLIGENT_TIERING", date_ms=12 * DAY)]),
            Rule("all", True, "small/", moves=[Move("GLACIER_IR", 1)]),
            Rule("sized", True, "sized/", above=0, moves=[Move("ONEZONE_IA", 1)]),
            Rule("off", False, moves=[Move("GLACIER_IR", 1)]),
        )
        large = b"x" * 131_072
        for key in ("date/a", "days/a", "small/large"):
            await world.put(key, large)
        await world.put("days/one-zone", large, headers={"x-amz-storage-class": "ONEZONE_IA"})
        await world.put(
            "days/cold", large, headers={"x-amz-storage-class": "INTELLIGENT_TIERING", "Content-Type": "a/b"}
        )
        await world.put("small/small", large[1:])
        await world.put("sized/small", b"x")
        worker = world.worker()
        before = await world.classes()
        await worker.run()
        assert await world.classes() == before
        world.now = 11 * DAY
        await worker.run()
        small = ["sized/small ONEZONE_IA", "small/large GLACIER_IR", "small/small STANDARD"]
        assert await world.classes() == [
            "date/a STANDARD",
            "days/a STANDARD_IA",
            "days/cold INTELLIGENT_TIERING",
            "days/one-zone ONEZONE_IA",
            *small,
        ]
        world.now = 13 * DAY
        await worker.run()
        assert await world.classes() == [
            "date/a INTELLIGENT_TIERING",
            "days/a GLACIER_IR",
            "days/cold GLACIER_IR",
            "days/one-zone ONEZONE_IA",
            *small,
        ]
        assert (worker.moved, sum(worker.ended.values()), worker.kept) == (6, 0, 0)
        world.now = 14 * DAY
        await worker.run()
        assert await world.there() == ["date/a", "sized/small", "small/large", "small/small"]
        assert worker.moved == 6, "what ends is not moved, and what moved stays"

    run(tmp_path, test)


def test_noncurrent_versions_move(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.rules(Rule("past", True, above=0, noncurrent_moves=[Move("GLACIER_IR", 1, newer=1)]))
        await world.put("k", b"null version")
        await buckets.set_versioning(world.gateway, BUCKET, "Enabled")
        for _ in range(3):
            world.now += 1
            await world.put("k")
        await objects.delete_object(world.gateway, BUCKET, b"gone", "", "root")
        world.now = 12 * DAY
        worker = world.worker()
        await worker.run()
        assert await world.classes() == ["gone STANDARD", "k STANDARD", "k STANDARD", "k GLACIER_IR", "k GLACIER_IR"]
        assert (worker.moved, worker.kept) == (2, 0)

    run(tmp_path, test)


def test_what_became_current_again_is_not_moved(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await buckets.set_versioning(world.gateway, BUCKET, "Enabled")
        version = await world.put("k")
        bucket = await world.gateway.node.find_bucket(BUCKET)
        assert bucket is not None
        partition = keys.partition_of(bucket.id, b"k", world.gateway.partitions)
        command = ChangeObject(
            settings_of(bucket, BUCKET),
            b"k",
            version,
            seen=keys.parse_version_id(version) or b"",
            storage_class="GLACIER_IR",
            judged=Judged(bucket.revision, {}),
        )
        with pytest.raises(S3Error, match="OperationAborted"):
            await execute(world.gateway, partition, command)
        assert await world.classes() == ["k STANDARD"]

    run(tmp_path, test)


def test_locked_versions_stay(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.rules(Rule("all", True, days=1, noncurrent_days=1, markers=True))
        far = 10**13
        await world.put("kept", lock=Lock("COMPLIANCE", far))
        await world.put("held", lock=Lock(hold=True))
        await world.put("free")
        worker = world.worker()
        for day in range(11, 16):
            world.now = day * DAY
            await worker.run()
        assert await world.there(versions=True) == ["-held", "held", "-kept", "kept"]
        assert worker.kept >= 2

    run(tmp_path, test, lock=True)


def test_nothing_ends_by_a_clock_that_peers_do_not_believe(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.rules(Rule("all", True, days=1))
        await world.put("k")
        world.now, world.believed = 50 * DAY, False
        worker = world.worker()
        await worker.run()
        assert await world.there() == ["k"]
        world.believed = True
        await worker.run()
        assert await world.there() == []

    run(tmp_path, test)


def test_a_pass_that_was_cut_off_ends_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        monkeypatch.setattr("s4.upkeep.lifecycle.RUN", 7)
        await buckets.set_versioning(world.gateway, BUCKET, "Enabled")
        await world.rules(Rule("all", True, days=1))
        for number in range(40):
            await world.put(f"k{number:02d}")
        for _ in range(20):
            await world.put("many")  # more versions than a run
        world.now = 12 * DAY
        first = world.worker()
        calls, real = 0, execute

        async def failing(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 25:
                raise S3Error("ServiceUnavailable")
            return await real(*arguments)

        monkeypatch.setattr("s4.upkeep.lifecycle.execute", failing)
        with pytest.raises(S3Error, match="ServiceUnavailable"):
            await first.run()
        second = world.worker()
        await second.run()
        listed = await world.there(versions=True)
        assert await world.there() == []
        assert sum(one.startswith("-") for one in listed) == 41, "one marker for each key"
        assert len(listed) == 41 + 60

    run(tmp_path, test)


def test_what_cannot_be_told_keeps_nothing_else_from_ending(tmp_path: Path) -> None:
    """A receiver of events was away, and its queue full: no bucket behind the one that tells it had its lifecycle any
    more, nor had the rest of that one."""

    async def test(world: World) -> None:
        told = NotificationRule("r", "Queue", "arn", "away", ["LifecycleExpiration:*"], prefix="told")
        await world.rules(Rule("all", True, days=1))
        await buckets.set_document(world.gateway, BUCKET, documents.NOTIFICATION, documents.encode([told]))
        behind = f"{BUCKET}-behind"
        await buckets.create_bucket(world.gateway, behind, "root")
        await buckets.set_document(
            world.gateway, behind, documents.LIFECYCLE, documents.encode([Rule("all", True, days=1)])
        )
        for number in range(40):
            await world.put(f"told-{number:02d}")
            await world.put(f"untold-{number:02d}")
            await put(world.gateway, behind, b"%d" % number, b"x")
        full = world.store.host.full_queues
        full.update((partition, "away") for partition in range(world.gateway.partitions))
        world.now = 12 * DAY
        worker = world.worker()
        with pytest.raises(S3Error, match=r"The queue of events for away is full"):
            await worker.run()
        assert await world.there() == [f"told-{number:02d}" for number in range(40)]
        assert sum(worker.ended.values()) == 80
        full.clear()
        await worker.run()
        assert await world.there() == []

    run(tmp_path, test)


def test_what_became_current_again_is_left_alone(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await buckets.set_versioning(world.gateway, BUCKET, "Enabled")
        old = await world.put("k")
        new = await world.put("k")
        bucket = await world.gateway.node.find_bucket(BUCKET)
        assert bucket is not None
        partition = keys.partition_of(bucket.id, b"k", world.gateway.partitions)
        await objects.delete_object(world.gateway, BUCKET, b"k", new, "root")
        assert await execute(world.gateway, partition, Expire(bucket.id, b"k", old)) == Deleted()
        assert await world.there() == ["k"]

    run(tmp_path, test)


def test_a_pass_whose_clock_is_not_believed_in_its_middle_is_made_again(tmp_path: Path) -> None:
    """It counted as made: what it had left alone stayed for another day."""

    async def test(world: World) -> None:
        await world.rules(Rule("all", True, days=1))
        await world.put("k")
        bucket = await world.gateway.node.find_bucket(BUCKET)
        assert bucket is not None
        home, believed = keys.partition_of(bucket.id, b"k", world.gateway.partitions), [True, False, False, False]
        world.now = 12 * DAY
        worker = Lifecycle(
            world.gateway,
            world.store.host,
            lambda: [home],
            lambda: believed.pop(0) if believed else True,
            lambda: world.now / 1000,
        )
        await worker.run()
        assert await world.there() == ["k"]
        believed.clear()
        await worker.run()
        assert await world.there() == []

    run(tmp_path, test)


def test_the_primary_itself_does_not_end_by_such_a_clock() -> None:
    from s4.metadata.decide import decide

    class Nothing:
        def get(self, key: bytes) -> bytes | None:
            return None

        def scan(self, start: bytes, stop: bytes) -> list[tuple[bytes, bytes]]:
            return []

    entry = Entry(Overlay(Nothing()), 0, 1, 1, 1, 1000, agrees=lambda: False)
    assert decide(entry, Expire(1, b"k", "0" * 24)).code == "ServiceUnavailable"  # type: ignore[union-attr]


def test_versions_of_a_key_are_seen_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        monkeypatch.setattr("s4.upkeep.lifecycle.RUN", 4)
        await buckets.set_versioning(world.gateway, BUCKET, "Enabled")
        await world.rules(Rule("past", True, noncurrent_days=1))
        for key in ("a", "b", "c", "d", "e", "f"):
            for _ in range(3):
                await world.put(key)
        world.now = 12 * DAY
        await world.worker().run()
        assert await world.there(versions=True) == ["a", "b", "c", "d", "e", "f"]

    run(tmp_path, test)


@pytest.mark.parametrize("what", ["rules", "tags"])
@pytest.mark.parametrize(
    "rule",
    [
        Rule("tagged", True, tags={"keep": "no"}, days=1),
        Rule("tagged", True, tags={"keep": "no"}, above=0, moves=[Move("GLACIER_IR", 1)]),
    ],
    ids=["end", "move"],
)
def test_what_changes_between_the_scan_and_the_ending_counts(tmp_path: Path, what: str, rule: Rule) -> None:
    """Rules that were withdrawn, and tags that are others by now: both calls returned before the ending is decided."""

    class Meanwhile:
        """The node; before it is asked to end the first version, something happens."""

        def __init__(self, world: World) -> None:
            self._world, self._node, self.happened = world, world.gateway.node, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._node, name)

        async def execute(self, partition: int, command: Any, command_id: bytes = b"", again: bool = False) -> Any:
            if (
                isinstance(command, DeleteIfNewest) or (isinstance(command, ChangeObject) and command.storage_class)
            ) and not self.happened:
                self.happened = True
                if what == "rules":
                    await self._world.rules()
                else:
                    await objects.change_object(self._world.gateway, BUCKET, b"k", "", tags={"keep": "yes"})
            return await self._node.execute(partition, command, command_id, again)

    async def test(world: World) -> None:
        await world.rules(rule)
        await world.put("k", tags={"keep": "no"})
        world.now = 12 * DAY
        node = world.gateway.node = Meanwhile(world)  # type: ignore[assignment]
        worker = world.worker()
        await worker.run()
        assert node.happened
        assert await world.classes() == ["k STANDARD"]
        assert (worker.kept, worker.moved, sum(worker.ended.values())) == (1, 0, 0)

    run(tmp_path, test)

"""Six drives of which one cannot read: for good, in one place or in all. Clients see nothing of it, what is lost there
is made again, and no round of upkeep ends at it."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import damage
from inprocess import get, opened, put
from s4.cluster import shardmap
from s4.cluster.coordinator import LocalCoordinator
from s4.cluster.membership import DOCUMENT
from s4.config.settings import RootKeys
from s4.gateway.buckets import create_bucket
from s4.metadata import keys
from s4.node.local import OpenStore, RootChange, master_key, root_keys
from s4.server.metrics import drive_metrics
from s4.server.restart import History
from s4.storage.directory import DriveError
from s4.storage.files import Files
from s4.storage.leveldb import DatabaseError
from s4.storage.uses import FAILING
from s4.upkeep.confirm import confirm_doubtful
from s4.upkeep.drives import drives_status, server_health
from s4.upkeep.heal import Healer
from s4.upkeep.returning import Returning
from s4.upkeep.scrub import Scrubber
from storage.fakes import AilingFiles
from storage.test_index import NoTable


def drives(tmp_path: Path, count: int = 6) -> list[Path]:
    return [tmp_path / f"d{number}" for number in range(1, count + 1)]


def content(number: int) -> bytes:
    return random.Random(number).randbytes(90_000)


async def fill(gateway: Any, count: int) -> None:
    await create_bucket(gateway, "kept", "root")
    for number in range(count):
        await put(gateway, "kept", b"%d" % number, content(number))


async def compare(gateway: Any, count: int) -> None:
    for number in range(count):
        assert await get(gateway, "kept", b"%d" % number) == content(number), number


def heals(store: OpenStore) -> int:
    return sum(1 for partition in range(16) for _ in store.host.scan(keys.table(partition, keys.HEAL)))


def fail(error: BaseException) -> None:
    raise error


def test_a_drive_that_reads_nothing_is_done_without(tmp_path: Path) -> None:
    """Every GET is answered, and what the drive could not give is queued to be made again."""

    async def whole() -> None:
        files = AilingFiles()
        async with opened(drives(tmp_path), files=files) as (store, gateway):
            await fill(gateway, 16)
            files.spoil(tmp_path / "d3" / "volumes")
            for _ in range(2):
                await compare(gateway, 16)
            await asyncio.gather(*(put(gateway, "kept", b"n%d" % number, content(number + 50)) for number in range(8)))
            assert files.failed_reads > 0
            assert heals(store) > 0

    asyncio.run(whole())


def test_bad_sectors_are_found_and_made_again_elsewhere_and_end_no_round(tmp_path: Path) -> None:
    """A scrub goes on behind each of them, as does the healer; then all is read from the drive itself again."""

    async def whole() -> None:
        files = AilingFiles()
        async with opened(drives(tmp_path), files=files) as (store, gateway):
            await fill(gateway, 24)
            places = list(damage.places(tmp_path / "d2"))
            for place in places[::3]:
                files.spoil(place.path, place.data_at + 100, place.data_at + 200)
            bad = len(places[::3])
            scrubber = Scrubber(store.node, 0.0, fail)
            found = await scrubber.run(deep=True)
            assert (found.blobs, found.damaged, found.running) == (24, bad, False)
            assert heals(store) == bad
            await Healer(store.node, store.joiners).work()
            assert heals(store) == 0
            again = await scrubber.run(deep=True)
            assert (again.blobs, again.damaged, again.unhealable) == (24, 0, [])
            await compare(gateway, 24)

    asyncio.run(whole())


def test_what_cannot_be_healed_starves_nothing_behind_it(tmp_path: Path) -> None:
    """One blob has lost too many shards for good; those queued behind it are healed in the same round."""

    async def whole() -> None:
        files = AilingFiles()
        async with opened(drives(tmp_path), files=files) as (store, gateway):
            await fill(gateway, 12)
            by_blob: dict[tuple[int, bytes], list[damage.Place]] = {}
            for drive in drives(tmp_path):
                for place in damage.places(drive):
                    shard = place.record.shard
                    by_blob.setdefault((shard.partition, shard.blob), []).append(place)
            names = sorted(by_blob)
            for number, name in enumerate(names):
                for place in by_blob[name][: 3 if number == 0 else 1]:
                    files.spoil(place.path, place.data_at, place.data_at + 10)
            assert (await Scrubber(store.node, 0.0, fail).run(deep=False)).damaged == 3 + 11
            healer = Healer(store.node, store.joiners)
            await healer.work()
            assert (heals(store), healer.repair.failed) == (3, 3)
            files.mend()
            healer.repair.later.clear()  # a minute later
            healer.repair.waits.clear()
            await healer.work()
            assert (heals(store), healer.repair.failed) == (0, 0)
            await compare(gateway, 12)

    asyncio.run(whole())


def test_a_drive_that_could_not_be_read_at_the_start_is_compared_with_what_it_should_have(tmp_path: Path) -> None:
    """Shards that no row of its index names and no heal row either were missing until a scrub came by."""

    async def whole() -> None:
        files = AilingFiles()
        async with opened(drives(tmp_path), files=files) as (store, gateway):
            await fill(gateway, 24)
        held = len(list(damage.places(tmp_path / "d2")))
        shutil.rmtree(tmp_path / "d2" / "index")
        files.spoil(tmp_path / "d2" / "volumes" / "00000001.vol")
        async with opened(drives(tmp_path), files=files) as (store, gateway):
            healer = Healer(store.node, store.joiners)
            assert heals(store) == 0
            assert [one.state for one in drives_status(store.node, healer)].count("filling") == 1
            assert "drive 2" in server_health(store.node, healer).text()
            await confirm_doubtful(store.node, store.node)
            assert heals(store) == held
            await healer.work()
            assert [one.state for one in drives_status(store.node, healer)].count("filling") == 0
            assert server_health(store.node, healer).level == "ok"
            assert (await Scrubber(store.node, 0.0, fail).run(deep=True)).damaged == 0
            await compare(gateway, 24)
        async with opened(drives(tmp_path), files=files) as (store, _):
            assert not any(one.in_doubt for one in store.node.drives.stores)

    asyncio.run(whole())


def test_without_parity_a_drive_stays_in_doubt_while_something_is_missing(tmp_path: Path) -> None:
    async def whole() -> None:
        files, path = AilingFiles(), tmp_path / "crashed"
        async with opened(tmp_path / "d", files=files) as (store, gateway):
            await fill(gateway, 2)
            await store.node.drives.flush()
            await put(gateway, "kept", b"2", content(2))
            shutil.copytree(tmp_path / "d", path)
        files.spoil(path / "volumes" / "00000001.vol")
        for _ in range(2):
            async with opened(path, files=files) as (store, _):
                await confirm_doubtful(store.node, store.node)
                assert store.node.drives.stores[0].in_doubt
        files.mend()
        async with opened(path, files=files) as (store, gateway):
            await compare(gateway, 3)
            await confirm_doubtful(store.node, store.node)
            assert not store.node.drives.stores[0].in_doubt

    asyncio.run(whole())


def test_a_drive_of_which_many_reads_fail_is_put_aside(tmp_path: Path) -> None:
    """The process ends, saying which, and the next start is without it at once; data stay readable and writable."""

    async def whole() -> None:
        files, blamed = AilingFiles(), list[BaseException]()
        async with opened(drives(tmp_path), files=files, fatal=blamed.append) as (store, gateway):
            await fill(gateway, FAILING + 10)
            healer = Healer(store.node, store.joiners)
            await healer.work()
            files.spoil(tmp_path / "d3" / "volumes")
            await Scrubber(store.node, 0.0, fail).run(deep=False)
            assert not blamed
            await healer.work()
            (error,) = {str(one): one for one in blamed}.values()
            assert isinstance(error, DriveError)
            assert error.directory == tmp_path / "d3"
        history = History()
        history.blame(error, 0.0)
        assert history.failed() == {tmp_path / "d3"}
        async with opened(drives(tmp_path), failed=history.failed(), degraded=True) as (store, gateway):
            assert store.drives.all[2].shards is None
            await compare(gateway, FAILING + 10)
            await put(gateway, "kept", b"after", content(99))
            assert await get(gateway, "kept", b"after") == content(99)

    asyncio.run(whole())


def told(shards: Any) -> tuple[float, float]:
    """What the metrics say of a drive: whether it fails to read, and how much is to be said of it."""
    found = {one.name: one.value for one in drive_metrics(shards, "d")}
    return found["s4_drive_failing"], found["s4_drive_alarms"]


@pytest.mark.parametrize("away", ["", "d5", "d6"])
def test_a_drive_that_cannot_be_spared_stays(tmp_path: Path, away: str) -> None:
    """Of 4+2 two are away already, or there is no parity: a drive that fails to read is better than none."""

    async def whole() -> None:
        files, blamed = AilingFiles(), list[BaseException]()
        count = 6 if away else 1
        async with opened(drives(tmp_path, count), files=files, fatal=blamed.append) as (_, gateway):
            await fill(gateway, 4)
        if away:
            (tmp_path / away).rename(tmp_path / "away")
            (tmp_path / "d4").rename(tmp_path / "away4")
        async with opened(drives(tmp_path, count), files=files, fatal=blamed.append) as (store, _):
            shards = store.drives.stores[0]
            assert told(shards) == (0, 0)
            for number in range(FAILING):
                shards.failing.note(1, number)
            await Healer(store.node, store.joiners).work()
            assert shards.failing.many
            assert told(shards) == (1, 1)
            assert not blamed

    asyncio.run(whole())


def test_a_full_disk_ends_no_scrub(tmp_path: Path) -> None:
    """Its place cannot be noted."""

    async def whole() -> None:
        files = AilingFiles()
        async with opened(drives(tmp_path), files=files) as (store, gateway):
            await fill(gateway, 4)
            files.room_bytes = 0
            assert (await Scrubber(store.node, 0.0, fail).run(deep=True)).blobs == 4

    asyncio.run(whole())


def test_keys_that_one_drive_cannot_read_are_read_from_another(tmp_path: Path) -> None:
    directories = drives(tmp_path, 3)
    for directory in directories:
        directory.mkdir()
    keys_made, made = root_keys(Files(), directories, {})
    master = master_key(Files(), directories).read_bytes()
    assert made
    for name in ("root.json", "master.key"):
        (directories[0] / name).unlink()
        (directories[0] / name).mkdir()  # reading it is an error

    class Refusing(Files):
        def replace(self, path: Path, content: bytes, mode: int = 0o600) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    assert root_keys(Refusing(), directories, {}) == (keys_made, False)
    assert master_key(Refusing(), directories).read_bytes() == master
    for directory in directories[1:]:
        (directory / "root.json").unlink()
    with pytest.raises(OSError, match="Is a directory"):
        root_keys(Files(), directories, {})


def test_root_keys_that_were_changed_do_not_come_back_with_a_drive_that_was_away(tmp_path: Path) -> None:
    """They may have been changed because somebody else knew them."""
    there = drives(tmp_path, 4)

    async def changed(left: frozenset[Path]) -> RootKeys:
        async with opened(there, failed=left) as (store, _):
            return RootChange(Files(), store, {}).change()

    first = asyncio.run(changed(frozenset()))
    second = asyncio.run(changed(frozenset(there[:1])))
    assert first != second
    assert (there[0] / "root.json").read_bytes() != (there[1] / "root.json").read_bytes()
    assert root_keys(Files(), there, {}) == (second, False)
    assert len({(drive / "root.json").read_bytes() for drive in there}) == 1, "all have them again"


@pytest.mark.parametrize("found", ["at start", "by a read", "by a scrub"])
def test_a_damaged_copy_of_the_metadata_is_filled_from_the_others(tmp_path: Path, found: str) -> None:
    """The process ends at the read that finds it, and the start that follows reads another copy."""

    async def whole() -> None:
        async with opened(drives(tmp_path)) as (store, gateway):
            await create_bucket(gateway, "kept", "root")
            for number in range(200):
                await put(gateway, "kept", b"%d" % number, content(number)[:3000])  # in their rows
            copy = store.host.copies.primary.path
        for _ in range(2):
            async with opened(drives(tmp_path)):  # LevelDB makes a table of its log
                pass
        for table in copy.glob("*.ldb"):
            raw = bytearray(table.read_bytes())
            at = 0 if found == "at start" else raw.find(content(7)[:3000])
            if at >= 0:
                raw[at : at + 100] = bytes(100)
            table.write_bytes(raw)
        blamed = list[BaseException]()
        if found != "at start":
            async with opened(drives(tmp_path), fatal=blamed.append) as (store, gateway):
                with pytest.raises(Exception, match=r"damaged|checksum|Corruption"):
                    if found == "by a read":
                        await get(gateway, "kept", b"7")
                    else:
                        await Scrubber(store.node, 0.0, blamed.append).run(deep=False)
            assert isinstance(blamed[0], DriveError)
            assert blamed[0].directory == copy.parent
        async with opened(drives(tmp_path)) as (store, gateway):
            assert len(store.joiners) == 1
            await Healer(store.node, store.joiners).work()
            assert len(store.host.copies.all()) == 3
            for number in range(200):
                assert await get(gateway, "kept", b"%d" % number) == content(number)[:3000]

    asyncio.run(whole())


def test_a_scrub_of_a_process_out_of_descriptors_finds_no_copy_of_the_metadata_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drive was blamed for it: the process ended, and the second time the drive was left out."""

    async def whole() -> None:
        async with opened(drives(tmp_path), fatal=fail) as (store, _):
            scrubber, copy = Scrubber(store.node, 0.0, fail), store.host.copies.all()[1]
            with monkeypatch.context() as patch:
                patch.setattr(copy, "_db", NoTable())
                with pytest.raises(DatabaseError, match=r"cannot be read now.*Too many open files"):
                    await scrubber.run(deep=False)
            assert scrubber.place.running
            assert not (await scrubber.run(deep=False)).running

    asyncio.run(whole())


def test_a_drive_that_was_used_without_the_others_is_not_taken_in(tmp_path: Path) -> None:
    """A start would believe its map, which counts changes that are not these drives', and empty their copies."""

    def used(ahead: int) -> None:
        """Until its map is so many changes ahead of that of the others."""
        coordinator, others = LocalCoordinator(Files(), [tmp_path / "d2"]), LocalCoordinator(Files(), [tmp_path / "d1"])
        while (found := coordinator.newest(DOCUMENT))[1] < others.newest(DOCUMENT)[1] + ahead:
            old = shardmap.decode(found[0])
            changed = replace(old, spec=replace(old.spec, later=not old.spec.later))
            asyncio.run(coordinator.replace(DOCUMENT, shardmap.encode(changed), found[1]))

    async def why_not(count: int) -> str:
        left = frozenset(drives(tmp_path, count)[1:2])
        async with opened(drives(tmp_path, count), failed=left, degraded=True) as (store, _):
            returning = Returning(store.node, 0, lambda _: None, lambda _: True, Files())
            return returning.why_not(store.drives.all[1], told=True)

    async def made(count: int) -> None:
        async with opened(drives(tmp_path, count)):
            pass

    asyncio.run(made(2))
    assert asyncio.run(why_not(2)) == ""
    used(1)
    assert "it was used without the others" in asyncio.run(why_not(2))
    for drive in drives(tmp_path, 2):
        shutil.rmtree(drive)
    asyncio.run(made(4))
    asyncio.run(why_not(4))  # it is told so: it is away
    used(1)  # too few may have taken it when the process before was killed
    assert asyncio.run(why_not(4)) == ""
    used(3)  # a start of the others makes a change, too
    assert "it was used without the others" in asyncio.run(why_not(4))

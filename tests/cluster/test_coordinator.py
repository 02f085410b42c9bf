"""The coordinator's contract: read, replace by compare-and-swap, watch. Every implementation passes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from s4.cluster.coordinator import ConflictError, Coordinator, LocalCoordinator, QuorumError
from s4.storage.files import Files


@pytest.fixture(params=[1, 3])
def coordinator(request: pytest.FixtureRequest, tmp_path: Path) -> Coordinator:
    """`local`, in one directory and in three."""
    directories = [tmp_path / str(number) for number in range(request.param)]
    for directory in directories:
        directory.mkdir()
    return LocalCoordinator(Files(), directories, request.param // 2 + 1)


def test_replace_needs_the_revision_that_was_read(coordinator: Coordinator) -> None:
    async def test() -> None:
        assert await coordinator.read("map") == (b"", 0)
        first = await coordinator.replace("map", b"one\ntwo", 0)
        assert await coordinator.read("map") == (b"one\ntwo", first)
        for stale in (0, first + 1):
            with pytest.raises(ConflictError):
                await coordinator.replace("map", b"other", stale)
        second = await coordinator.replace("map", b"three", first)
        assert second > first
        assert await coordinator.read("map") == (b"three", second)

    asyncio.run(test())


def test_one_of_many_wins(coordinator: Coordinator) -> None:
    async def test() -> None:
        results = await asyncio.gather(*(coordinator.replace("map", b"%d" % number, 0) for number in range(10)), return_exceptions=True)
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, ConflictError) for result in results) == 9

    asyncio.run(test())


def test_watch_gives_what_is_newer(coordinator: Coordinator) -> None:
    async def test() -> None:
        revision = await coordinator.replace("map", b"one", 0)
        watch = coordinator.watch("map", 0)
        assert await anext(watch) == (b"one", revision)
        following = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        newer = await coordinator.replace("map", b"two", revision)
        assert await asyncio.wait_for(following, 5) == (b"two", newer)

    asyncio.run(test())


def test_the_local_file_is_whole_or_old_after_a_crash(tmp_path: Path) -> None:
    """The new value is written beside the old one, synced and renamed: golden bytes, and a left-over is ignored."""

    async def test() -> None:
        coordinator = LocalCoordinator(Files(), [tmp_path])
        await coordinator.replace("map", b"value", 0)
        assert (tmp_path / "map").read_bytes() == b"s4 1 revision 1 crc 59704476\nvalue"
        (tmp_path / "map.new").write_bytes(b"torn")
        assert await coordinator.read("map") == (b"value", 1)
        await coordinator.replace("map", b"newer", 1)
        assert (tmp_path / "map").read_bytes() == b"s4 1 revision 2 crc 05270524\nnewer"

    asyncio.run(test())


def test_any_majority_knows_what_a_majority_took(tmp_path: Path) -> None:
    """Rule M2: the newest of those that are there counts, and a change that too few took is no change that counts."""

    async def test() -> None:
        directories = [tmp_path / str(number) for number in range(3)]
        for directory in directories:
            directory.mkdir()
        whole = LocalCoordinator(Files(), directories, 2)
        await whole.replace("map", b"one", 0)
        directories[0].rename(tmp_path / "away")
        await whole.replace("map", b"two", 1)
        (tmp_path / "away").rename(directories[0])
        assert await LocalCoordinator(Files(), directories[:2], 2).read("map") == (b"two", 2)
        assert await LocalCoordinator(Files(), directories[:1], 1).read("map") == (b"one", 1)
        for directory in directories[1:]:
            (directory / "map").unlink()
            directory.rmdir()
        with pytest.raises(QuorumError, match="1 directories of which 2 are needed"):
            await whole.replace("map", b"three", 1)

    asyncio.run(test())


@pytest.mark.parametrize("content", [b"", b"s4 1 revision x\nvalue", b"s4 1 revision 9", b"s4 1 revision 9 crc 00000000\none", b"s4 2 revision 9 crc 00000000\n", b"garbage"])
def test_a_damaged_file_is_outvoted(tmp_path: Path, content: bytes) -> None:
    async def test() -> None:
        directories = [tmp_path / str(number) for number in range(2)]
        for directory in directories:
            directory.mkdir()
        coordinator = LocalCoordinator(Files(), directories, 2)
        await coordinator.replace("map", b"one", 0)
        (directories[0] / "map").write_bytes(content)
        assert await coordinator.read("map") == (b"one", 1)

    asyncio.run(test())

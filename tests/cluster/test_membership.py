"""The local map while its drives fail: what it is not known to say is said again, and nothing else before (R4, M2)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from s4.cluster import membership, shardmap
from s4.cluster.coordinator import LocalCoordinator
from s4.cluster.membership import DOCUMENT, Membership
from s4.storage.files import Files


class Failing(Files):
    """`fails` has the directories whose files cannot be written now."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: set[Path] = set()
        self.refused = 0

    def replace(self, path: Path, content: bytes) -> None:
        if path.parent in self.fails:
            self.refused += 1
            raise OSError(28, "No space left on device")
        super().replace(path, content)


START = shardmap.restarted(shardmap.spread("c", ["a", "b", "c"], 2, 1, 4), {"a", "b", "c"}, ["a"])


@pytest.mark.parametrize("took", [0, 1])
def test_a_change_that_too_few_drives_took_is_repeated_until_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: int
) -> None:
    """With the one that a drive took after all, too: the process knows neither that nor how to say anything newer."""
    monkeypatch.setattr(membership, "RETRY_S", 0.001)
    directories = [tmp_path / name for name in "abc"]
    for directory in directories:
        directory.mkdir()

    async def whole() -> None:
        files = Failing()
        coordinator = LocalCoordinator(files, directories, 2)
        revision = await coordinator.replace(DOCUMENT, shardmap.encode(START), 0)
        at = Membership(coordinator, START, revision)
        files.fails = set(directories[took:])
        first = asyncio.ensure_future(at.change(lambda old: shardmap.joined(old, "b")))
        second = asyncio.ensure_future(at.change(lambda old: shardmap.joined(old, "c")))
        async with asyncio.timeout(10):
            while files.refused < 9:
                await asyncio.sleep(0)
            assert not first.done()
            assert at.current == START, "what does not count is not shown"
            files.fails = set()
            await first
            assert await second == shardmap.joined(shardmap.joined(START, "b"), "c")
        for directory in directories:
            value, _ = LocalCoordinator(Files(), [directory]).newest(DOCUMENT)
            assert shardmap.decode(value) == at.current

    asyncio.run(whole())


def test_a_map_that_somebody_else_changed_is_read_and_decided_again(tmp_path: Path) -> None:
    async def whole() -> None:
        coordinator = LocalCoordinator(Files(), [tmp_path])
        revision = await coordinator.replace(DOCUMENT, shardmap.encode(START), 0)
        at = Membership(coordinator, START, revision)
        await coordinator.replace(DOCUMENT, shardmap.encode(shardmap.joined(START, "b")), revision)
        assert await at.change(lambda old: shardmap.joined(old, "c")) == shardmap.joined(
            shardmap.joined(START, "b"), "c"
        )

    asyncio.run(whole())

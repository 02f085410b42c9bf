"""Six drives become eight, one of them is drained and taken away: a crash at every step of that.

Images are taken as in test_points.py, before each file of the map is replaced, each copy of the metadata written, each
shard appended or freed. They are recovered in place, with the command line of before: the server goes on with what was
asked of it, and ends where it would have ended. Three seconds of a processor: each image is recovered twice, healed,
scrubbed and looked through by the checker.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from checker import check
from crash.history import History, settle
from crash.test_points import Points, all_points
from inprocess import get, opened, put
from s4.cluster import growing
from s4.gateway.buckets import create_bucket
from s4.gateway.context import Gateway
from s4.metadata.commands import ForgetRows
from s4.node.local import OpenStore
from s4.upkeep.drives import drives_status
from s4.upkeep.growing import Growing, GrowingError
from s4.upkeep.heal import Healer
from s4.upkeep.leaving import Leaving
from s4.upkeep.returning import Returning
from tiers import amount

EVERY = amount("S4_GROWING_EVERY", 150, 3)  # of so many steps one has an image, which is recovered


class RenewedError(Exception):
    """The process would replace itself."""


def _renew(_: Path) -> None:
    raise RenewedError


class Sparse(Points):
    """One of EVERY images, and those of a plan that is made."""

    steps = 0

    def _image(self, name: str) -> None:
        self.steps += 1
        if self.steps % EVERY == 0 or name == "renewed":
            super()._image(name)


class Parts:
    """What works on the drives of an open server."""

    def __init__(self, store: OpenStore) -> None:
        self.store = store
        self.healer = Healer(store.node, store.joiners)
        self.returning = Returning(store.node, 0, _renew, lambda _: True, store.coordinator._files)
        self.growing = Growing(
            store.node,
            store.coordinator,
            self.healer,
            self.returning,
            _renew,
            lambda _: True,
            0,
            store.coordinator._files,
        )
        self.leaving = Leaving(store.node, lambda: float("inf"), settle_s=float("-inf"))

    async def moved(self) -> None:
        """All that is on its way has come, and what it left is dropped."""
        for _ in range(10):
            await self.healer.work()
            if not self.healer.waiting and not self.healer.left and not self.healer.metadata_left:
                break
        await self.leaving.run()
        await self.store.drives.flush()


@asynccontextmanager
async def planned(directories: list[Path]) -> AsyncIterator[tuple[OpenStore, Gateway, Parts]]:
    """A server once the plan is made that was asked for."""
    while True:
        async with opened(directories, preallocate_bytes=0) as (store, gateway):
            parts = Parts(store)
            with suppress(RenewedError):
                await parts.growing.look()
                yield store, gateway, parts
                return


async def write(gateway: Gateway, history: History, key: bytes, size: int) -> None:
    body = os.urandom(size)
    await history.doing(key, body, put(gateway, "crash", key, body))


async def grow(directories: list[Path], points: Points, patch: pytest.MonkeyPatch) -> None:
    """Everything that is done to the server, with images on the way."""
    history, given = points.history, directories[:6]
    async with opened(given, preallocate_bytes=0) as (_, gateway):
        await create_bucket(gateway, "crash", "root")
        for number in range(8):
            await write(gateway, history, b"%d" % number, 5000 + 19000 * number)

    def watched(store: OpenStore) -> Any:
        context = patch.context()
        patched = context.__enter__()
        all_points(store, points, patched)
        points.at(store.coordinator._files, "replace", patched)
        return context

    async def step(ask: Any) -> None:
        async with opened(given, preallocate_bytes=0) as (store, gateway):
            context, parts = watched(store), Parts(store)
            await write(gateway, history, b"during", 70_000)
            await parts.moved()
            await ask(parts.growing)
            await write(gateway, history, b"%d" % (len(points.taken) % 8), 44_000)
            with pytest.raises(RenewedError):
                await parts.growing.look()
            points.image("renewed")
            context.__exit__(None, None, None)

    await step(lambda one: one.add([str(path) for path in directories[6:]]))
    await step(lambda one: one.drain([str(directories[0])]))
    await step(lambda one: one.remove(["1"]))


async def recovered(directories: list[Path], history: History) -> int:
    """Drives that the server has in the end."""
    given = directories[:6]
    async with opened(given, preallocate_bytes=0) as (_, gateway):
        await compare(gateway, history)
    async with planned(given) as (store, gateway, parts):
        await compare(gateway, history)
        await store.node.execute(0, ForgetRows([]))  # behind what was found
        assert parts.healer.waiting == 0, "what moves is read where it is, and not taken for lost"
        await write(gateway, history, b"after", 30_000)
        await parts.moved()
        await settle(store)
        await compare(gateway, history)
        current = store.membership.current
        assert growing.moves(current) == 0
        assert not current.spec.later
        assert set(current.copies) <= set(current.status[0].in_sync)
        assert [one.members for one in current.status] == current.spec.members
        there = [Path(one) for one in current.spec.directories] or given
        for drive, shards in store.drives.online():
            for shard, _ in shards.records():
                assert current.spec.members[shard.partition][shard.position] == drive.store, "what moved is dropped"
    problems = check(there)
    assert not problems, problems[:5]
    return len(there)


async def compare(gateway: Gateway, history: History) -> None:
    for key in history.known.keys() | history.maybe.keys():
        if key in history.maybe and key not in history.known:
            continue
        found = await get(gateway, "crash", key)
        assert found in (history.known.get(key), history.maybe.get(key)), key


def restore(image: Path, directories: list[Path]) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
        if (image / directory.name).exists():
            shutil.copytree(image / directory.name, directory)
        else:
            directory.mkdir()


def test_a_crash_anywhere_while_drives_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories = [tmp_path / f"d{number}" for number in range(1, 9)]
    for directory in directories[6:]:
        directory.mkdir()
    points = Sparse(directories, tmp_path / "images", History())
    asyncio.run(grow(directories, points, monkeypatch))
    ended = set()
    for name, image, history in points.taken:
        restore(image, directories)
        try:
            ended.add(asyncio.run(recovered(directories, history)))
        except Exception as error:
            raise AssertionError(f"after a crash at {image.name}, {name}, one of {points.steps}: {error}") from error
    assert {7, 8} <= ended <= {6, 7, 8}, "six became eight, of which one was taken away"


def test_a_dead_drive_is_drained_and_removed(tmp_path: Path) -> None:
    """Its shards are made again from the others', on those; it need not come back for that."""

    async def whole() -> None:
        directories, history = [tmp_path / f"d{number}" for number in range(1, 5)], History()
        async with opened(directories, geometry=(2, 1), preallocate_bytes=0) as (_, gateway):
            await create_bucket(gateway, "crash", "root")
            for number in range(8):
                await write(gateway, history, b"%d" % number, 9000 * (number + 1))
        shutil.rmtree(directories[1])
        async with opened(directories, preallocate_bytes=0) as (store, gateway):
            await write(gateway, history, b"without", 50_000)
            parts = Parts(store)
            await parts.growing.drain(["2"])
            with pytest.raises(GrowingError, match="cannot be removed: it is not empty: 12 positions are on it still"):
                await parts.growing.remove(["2"])
            with pytest.raises(RenewedError):
                await parts.growing.look()
        async with planned(directories) as (store, gateway, parts):
            await parts.moved()
            assert [one.state for one in drives_status(store.node, parts.healer)] == [
                "online",
                "away",
                "online",
                "online",
            ]
            await parts.growing.remove([str(directories[1])])
        async with planned([directories[0], *directories[2:]]) as (store, gateway, parts):
            await compare(gateway, history)
            assert [drive.directory for drive in store.drives.all] == [directories[0], *directories[2:]]
            assert store.membership.current.spec.replicas == 3
            await settle(store)
        assert check([directories[0], *directories[2:]]) == []

    asyncio.run(whole())

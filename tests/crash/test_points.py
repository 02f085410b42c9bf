"""A crash at every named point around PUT, complete, delete, heal and compaction.

Each point is a call through a seam: shards appended, synced, rows written to one copy, the map replaced, shards
freed, volumes unlinked. Before each the directories are copied as a killed process would leave them; then every
copy is recovered, compared with what clients were told, healed, and looked at by the independent checker.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import damage
from crash.history import History, recover, settle, workload
from inprocess import get, opened, put
from s4.gateway.buckets import create_bucket
from s4.gateway.context import Gateway
from s4.metadata.commands import ForgetRows
from s4.node.local import OpenStore
from s4.replica import copies
from s4.upkeep import compaction
from s4.upkeep.heal import Healer
from tiers import amount

MOST = amount("S4_POINTS", 25, 400)  # images that are recovered, of all that are taken; every point at least once


class Points:
    """Takes an image of the directories before each call through a seam."""

    def __init__(self, directories: list[Path], images: Path, history: History) -> None:
        self.directories, self.images, self.history = directories, images, history
        self.taken: list[tuple[str, Path, History]] = []
        self.on = True
        self.lock = threading.Lock()  # drives reach their points on threads of their own

    def image(self, name: str) -> None:
        with self.lock:
            self._image(name)

    def _image(self, name: str) -> None:
        if not self.on:
            return
        target = self.images / f"{len(self.taken):03}-{name}"
        for directory in self.directories:
            if directory.exists():
                shutil.copytree(directory, target / directory.name, copy_function=_copy)
        self.taken.append((name, target, self.history.image()))

    def at(self, owner: Any, method: str, patch: pytest.MonkeyPatch) -> None:
        plain = getattr(owner, method)

        if inspect.iscoroutinefunction(plain):

            @functools.wraps(plain)
            async def wrapped(*arguments: Any, **named: Any) -> Any:
                self.image(f"before-{method}")
                return await plain(*arguments, **named)
        else:

            @functools.wraps(plain)
            def wrapped(*arguments: Any, **named: Any) -> Any:
                self.image(f"before-{method}")
                return plain(*arguments, **named)

        patch.setattr(owner, method, wrapped)


def _copy(source: str, target: str) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return  # a temporary file that was renamed meanwhile


def all_points(store: OpenStore, points: Points, patch: pytest.MonkeyPatch) -> None:
    store.host.copies._pool = ThreadPoolExecutor(1)  # one copy after the other, to stop between them
    points.at(copies, "_write", patch)
    points.at(store.host, "_sync_shards", patch)
    points.at(store.host, "_write", patch)
    points.at(store.membership, "change", patch)
    for shards in store.drives.stores:
        for method in ("_append_now", "_append_queued", "free", "_write_index", "forget_volume"):
            points.at(shards, method, patch)
        for method in ("punch", "remove"):
            points.at(shards._volumes, method, patch)


async def run(
    tmp_path: Path,
    drives: int,
    patch: pytest.MonkeyPatch,
    work: Callable[[OpenStore, Gateway, History], Any],
    before: Callable[[OpenStore, Gateway, History], Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> Points:
    directories = [tmp_path / f"d{number}" for number in range(1, drives + 1)]
    history = History()
    points = Points(directories, tmp_path / "images", history)
    async with opened(directories, preallocate_bytes=0, **(settings or {})) as (store, gateway):
        await create_bucket(gateway, "crash", "root")
        if before is not None:
            await before(store, gateway, history)
        with patch.context() as patched:
            all_points(store, points, patched)
            await work(store, gateway, history)
            points.image("end")
            points.on = False
    return points


def recover_all(points: Points, drives: int, most: int) -> None:
    """Recover images spread over all that were taken, every name among them."""
    step = max(1, len(points.taken) // most)
    seen: set[str] = set()
    for number, (name, image, history) in enumerate(points.taken):
        if number % step == 0 or name not in seen:
            seen.add(name)
            try:
                asyncio.run(recover([image / f"d{one}" for one in range(1, drives + 1)], history))
            except Exception as error:
                raise AssertionError(f"after a crash at {image.name}: {error}") from error


@pytest.mark.parametrize(("drives", "small"), [(1, 0), (6, 16 * 1024)])
def test_put_complete_delete(tmp_path: Path, drives: int, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(store: OpenStore, gateway: Gateway, history: History) -> None:
        await workload(store, gateway, history)
        await store.drives.flush()  # which a store does after a second, if the work has taken so long

    points = asyncio.run(run(tmp_path, drives, monkeypatch, work, settings={"small": small}))
    names = {name for name, _, _ in points.taken}
    assert {"before-_write", "before-_sync_shards", "before-_append_now", "before-free", "before-_write_index"} <= names
    recover_all(points, drives, MOST)


async def prepare(store: OpenStore, gateway: Gateway, history: History) -> None:
    for number in range(4):
        body = bytes([number]) * (40_000 + number)
        await history.doing(b"%d" % number, body, put(gateway, "crash", b"%d" % number, body))
    await store.drives.flush()


def test_heal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hurt_and_heal(store: OpenStore, gateway: Gateway, history: History) -> None:
        for drive in (1, 4):
            for place in damage.places(tmp_path / f"d{drive}"):
                place.write(b"\xff" * 64, place.data_at)
        for key, body in history.known.items():
            assert await get(gateway, "crash", key) == body
        await store.node.execute(0, ForgetRows([]))  # behind the heal rows
        healer = Healer(store.node, store.joiners)
        assert healer.waiting >= 4
        await healer.work()
        assert healer.waiting == 0
        for key, body in history.known.items():
            assert await get(gateway, "crash", key) == body

    points = asyncio.run(run(tmp_path, 6, monkeypatch, hurt_and_heal, prepare))
    recover_all(points, 6, MOST)


def test_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced drive, with its copy of the metadata: a crash anywhere while it is filled."""

    async def whole() -> Points:
        directories = [tmp_path / f"d{number}" for number in range(1, 7)]
        history = History()
        async with opened(directories) as (store, gateway):
            await create_bucket(gateway, "crash", "root")
            await prepare(store, gateway, history)
        shutil.rmtree(directories[1])
        directories[1].mkdir()
        points = Points(directories, tmp_path / "images", history)
        async with opened(directories) as (store, gateway):
            with monkeypatch.context() as patched:
                all_points(store, points, patched)
                healer = Healer(store.node, store.joiners)
                writes = asyncio.ensure_future(
                    history.doing(b"more", b"m" * 5000, put(gateway, "crash", b"more", b"m" * 5000))
                )
                await healer.work()
                await writes
                points.image("end")
                points.on = False
        return points

    points = asyncio.run(whole())
    assert "before-change" in {name for name, _, _ in points.taken}
    recover_all(points, 6, MOST)


def test_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def garbage(store: OpenStore, gateway: Gateway, history: History) -> None:
        for number in range(12):
            body = bytes([number]) * (20_000 + number)
            await history.doing(b"%d" % (number % 5), body, put(gateway, "crash", b"%d" % (number % 5), body))
        await settle(store)

    async def compact(store: OpenStore, _: Gateway, __: History) -> None:
        compacted = 0
        for shards in store.drives.stores:
            for number in compaction.candidates(shards, 0.1):
                compacted += await compaction.compact_one(shards, number, lambda: float("inf"))
        assert compacted > 0

    points = asyncio.run(run(tmp_path, 6, monkeypatch, compact, garbage, {"volume_bytes": 20_000}))
    assert "before-forget_volume" in {name for name, _, _ in points.taken}
    recover_all(points, 6, MOST)


def test_the_map_is_replaced_or_not(tmp_path: Path) -> None:
    """A crash between two directories of a map: the newest of a majority counts, and all agree after the start."""

    async def whole() -> None:
        directories = [tmp_path / f"d{number}" for number in range(1, 4)]
        history = History()
        async with opened(directories) as (store, gateway):
            await create_bucket(gateway, "crash", "root")
            await prepare(store, gateway, history)
        old = (directories[0] / "map").read_bytes()
        async with opened(directories):
            pass
        for kept in range(3):
            for number, directory in enumerate(directories):
                if number > kept:
                    (directory / "map").write_bytes(old)
            await recover(directories, history)
            history.known.update(dict.fromkeys(list(history.known)[:1], b"after" * 2000))
            assert len({(directory / "map").read_bytes() for directory in directories}) == 1

    asyncio.run(whole())

"""Drives are added to a server, drained and taken away while it serves: what `s4 admin drives add|drain|remove` does.

The design is in cluster/growing.py. What is asked is judged and written into the map, then answered; `look` makes the
plan and has the process replace itself, now and after a start that finds the plan not made yet. The moves are the
healer's (heal.py), what they leave behind is dropped by leaving.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from s4.base.said import SaidError
from s4.base.text import human
from s4.cluster import growing
from s4.cluster.coordinator import LocalCoordinator
from s4.cluster.placement import DRAINING
from s4.cluster.shardmap import ShardMap
from s4.node.base import Node
from s4.storage.directory import DirectoryError, format_directory, holds_data, identity_of, open_directory
from s4.storage.drives import Drive
from s4.storage.files import Files
from s4.upkeep.heal import Healer
from s4.upkeep.returning import Returning, unmounted, unusable

log = logging.getLogger(__name__)

RENEWED = Path("drives")  # what the process starts again for, which is no directory


class GrowingError(SaidError, ValueError):
    """A drive cannot be added, drained or taken away; the message says why and what to do."""


class Growing:
    """`renew` starts the process again; `may_renew` says whether it was not done too often just now."""

    def __init__(
        self,
        node: Node,
        coordinator: LocalCoordinator,
        healer: Healer,
        returning: Returning,
        renew: Callable[[Path], None],
        may_renew: Callable[[Path], bool],
        reserve_bytes: int,
        files: Files,
    ) -> None:
        self._node, self._coordinator, self._healer, self._returning = node, coordinator, healer, returning
        self._renew, self._may_renew, self._reserve, self._files = renew, may_renew, reserve_bytes, files
        self._lock = asyncio.Lock()

    @property
    def _map(self) -> ShardMap:
        return self._node.membership.current

    # -- what is asked

    async def add(self, names: Sequence[str]) -> str:
        """Take empty directories in as drives, or keep drives that were to be drained. What was done, in words.
        Raises SaidError, ValueError."""
        try:
            async with self._lock:
                return await self._add(names)
        except DirectoryError as error:
            raise GrowingError(str(error)) from error

    async def _add(self, names: Sequence[str]) -> str:
        self._may_change()
        new = [Path(name) for name in names if self._known(name) is None]
        known = [drive for name in names if (drive := self._known(name)) is not None]
        for drive in known:
            if self._map.spec.stores[drive.store] != DRAINING:
                raise GrowingError(f"{_name(drive)}, is one of this server's drives already")
        for number, path in enumerate(new):
            self._check_new(path, new[:number])
        await self._locate()
        for drive in known:
            await self._change(lambda old, drive=drive: growing.seated(old, drive.store, ""))  # type: ignore[misc]
        for path in new:
            await self._seat(path)
        return "it is taken in, and gets its share of what there is while the server runs"

    async def drain(self, names: Sequence[str]) -> str:
        """Have others hold what these drives do. What was done, in words. Raises SaidError, ValueError."""
        async with self._lock:
            self._may_change()
            drives = [self._returning.find(name) for name in names]
            wanted = growing.located(self._map, self._directories())
            for drive in drives:
                wanted = growing.drained(wanted, drive.store)
            self._check_room(drives, self._planned(wanted).copies)
            await self._locate()
            for drive in drives:
                await self._change(lambda old, drive=drive: growing.drained(old, drive.store))  # type: ignore[misc]
        return "it is drained: what it holds moves to the others while the server runs, and then it can be removed"

    async def remove(self, names: Sequence[str]) -> str:
        """Take drives away that were drained. What was done, in words. Raises SaidError, ValueError."""
        async with self._lock:
            self._may_change()
            drives = [self._returning.find(name) for name in names]
            for drive in drives:
                try:
                    growing.unseated(self._map, drive.store)
                except SaidError as error:
                    raise GrowingError(f"{_name(drive)}, cannot be removed: {error}") from error
            if self._healer.waiting > self._healer.repair.failed:
                raise GrowingError(
                    "shards wait to be made again, and what is left of them may be there: wait for these"
                )
            for drive in drives:
                order, directories = self._map.order, self._map.spec.directories
                left = [Path(one) for store, one in zip(order, directories, strict=True) if store != drive.store]
                if len(self._there() & set(order) - {drive.store}) <= len(order) // 2:
                    raise GrowingError(
                        "without it fewer than a majority of the drives are there: bring others back first"
                    )
                self._coordinator.count_on(left)
                await self._change(lambda old, drive=drive: growing.unseated(old, drive.store))  # type: ignore[misc]
        return "it is no drive of this server any more: take it out, and leave its directory out where the server is started"

    # -- judging

    def _may_change(self) -> None:
        drives = self._node.drives
        if len(drives.all) == 1:
            raise GrowingError(
                "a server over one directory has no parity to spread over others: start a new one over several beside it, and "
                "copy; docs/single-server.md says how, under Growing"
            )
        if 2 * len(drives.stores) <= len(drives.all):
            raise GrowingError("fewer than a majority of the drives are there: bring others back first")
        if self._stale():
            raise GrowingError("the server starts again just now, for what was asked before: ask again in a moment")

    def _stale(self) -> bool:
        """Whether this process does not have the drives that the map names."""
        return [drive.store for drive in self._node.drives.all] != self._map.order

    def _known(self, name: str) -> Drive | None:
        for drive in self._node.drives.all:
            if name in (str(drive.number + 1), str(drive.directory)) or _same(Path(name), drive.directory):
                return drive
        return None

    def _check_new(self, path: Path, others: Sequence[Path]) -> None:
        """Raises SaidError where a directory cannot become a drive; nothing is changed."""
        there = [drive.directory for drive, _ in self._node.drives.online()]
        if not path.is_absolute():
            raise GrowingError(f"{path}: give the whole path of the directory, as the server sees it")
        if not path.is_dir():
            raise GrowingError(f"{path} is no directory: mount the drive and make it first")
        if any(_same(path, other) for other in others):
            raise GrowingError(f"{path} is named twice")
        if unmounted(path, there):
            raise GrowingError(f"{path}: no drive is mounted there, as on the others")
        system = Path("/").stat().st_dev
        if path.stat().st_dev == system and there and all(one.stat().st_dev != system for one in there):
            raise GrowingError(f"{path} is on the file system of /, where the others are not: is its disk mounted?")
        identity = identity_of(path)
        if identity is not None:
            if identity.cluster != self._map.cluster:
                raise GrowingError(f"{path} is a drive of another server: give an empty directory")
            if identity.store in self._map.spec.stores or holds_data(path):
                raise GrowingError(
                    f"{path} was a drive of this server, and what it has is out of date, or is a copy: empty it first"
                )
        try:
            if why := unusable(self._files, path, self._reserve):
                raise GrowingError(f"{path}: {why}")
        except OSError as error:
            raise GrowingError(f"{path} cannot be used: {error.strerror}") from error

    def _check_room(self, drives: Iterable[Drive], copies: Iterable[str]) -> None:
        """Whether there is room for what these drives hold, and on each that is to have the metadata for a copy."""
        leaving = {drive.store for drive in drives}
        joining = set(copies) - set(self._map.copies) - set(self._map.status[0].in_sync)
        rows = self._node.host.copies.primary.size_bytes()
        used, room = 0, 0
        for drive, shards in self._node.drives.online():
            free = max(0, shards.space()[0] - self._reserve)
            if drive.store in leaving:
                used += sum(volume.used - volume.dead for volume in shards.usage().values())
            elif self._map.spec.stores[drive.store] != DRAINING:
                room += free
                used += rows if drive.store in joining else 0
            if drive.store in joining and rows > free:
                raise GrowingError(
                    f"{human(rows)} of metadata and small objects are to be copied to {_name(drive)}, which has room "
                    f"for {human(free)}: free some there, or put a larger one in its place first"
                )
        if used > room:
            raise GrowingError(
                f"{human(used)} are to move, and the other drives have room for {human(room)}: add some first"
            )

    # -- doing

    def _directories(self) -> list[str]:
        return [str(drive.directory.absolute()) for drive in self._node.drives.all]

    async def _locate(self) -> None:
        if not self._map.spec.directories:
            await self._change(lambda old: growing.located(old, self._directories()))

    async def _change(self, made: Callable[[ShardMap], ShardMap]) -> None:
        if made(self._map) != self._map:
            await self._node.membership.change(made)

    async def _seat(self, path: Path) -> None:
        """Make a store of a directory, then have the map name it, and with it where the map is kept."""
        current = self._map
        identity, lock = await asyncio.to_thread(open_directory, path, make=False)
        try:
            if identity is None:
                made = partial(format_directory, self._files, path, current.cluster, current.partitions)
                identity = await asyncio.to_thread(made)
            self._coordinator.count_on([*map(Path, self._map.spec.directories), path], [path])
            store = identity.store
            await self._change(lambda old: growing.seated(old, store, str(path)))
        finally:
            os.close(lock)
        log.warning("%s is taken in as a drive", path)

    def _there(self) -> set[str]:
        return {drive.store for drive, _ in self._node.drives.online()}

    def _weights(self, current: ShardMap) -> dict[str, float]:
        """Bytes that each drive has room for in all; of one that is away nothing is known."""
        away = {drive.store for drive in self._node.drives.all if drive.shards is None}
        weights: dict[str, float] = {}
        for store, directory in zip(current.order, current.spec.directories, strict=True):
            with contextlib.suppress(OSError):
                space = os.statvfs(directory)
                weights[store] = 0.0 if store in away else float(space.f_blocks * space.f_frsize)
        return weights

    def _planned(self, current: ShardMap) -> ShardMap:
        return growing.planned(current, self._weights(current), self._there())

    async def look(self) -> None:
        """Make the plan that was asked for, as far as it can be followed now, and start again with it."""
        current = self._map
        if current.spec.later:
            if self._planned(current).spec == current.spec:
                return  # what moves now is finished first
        elif not self._stale() or not self._may_renew(RENEWED):
            return
        await self._returning.settled()
        async with self._lock:
            members = self._map.spec.members
            if self._map.spec.later:
                await self._change(self._planned)
            if self._stale() or members != self._map.spec.members:
                self._renew(RENEWED)


def _name(drive: Drive) -> str:
    return f"drive {drive.number + 1}, {drive.directory}"


def _same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)

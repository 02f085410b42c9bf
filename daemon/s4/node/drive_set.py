"""Who is who among the directories that a server is given: which store each holds, which are away, new or wrong.

The shard map names the stores in the order of the directories. A directory that is missing or fails counts as a
drive that is away; one that is empty where the map names a store is a replaced drive, and becomes a new store;
one that holds another place's store, the same store twice, or a store of another server is refused, because
going on would mix data. Once drives were added or taken away the map says where each is, and who is who goes by the
ids in the directories, then by path; what is given and is none of them is left alone. Nothing is written before all of them were judged, but for the locks. A crash while
formatting leaves directories with an identity and no data, which the next start takes up.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from s4.cluster import growing, shardmap
from s4.cluster.coordinator import LocalCoordinator
from s4.cluster.membership import DOCUMENT
from s4.cluster.shardmap import ShardMap
from s4.erasure.codec import default_geometry
from s4.storage.directory import (
    DirectoryError,
    Identity,
    UnusableError,
    format_directory,
    holds_data,
    open_directory,
    unmake,
)
from s4.storage.files import Files, is_damage

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Seat:
    """One directory. `reason` says why its drive is taken for away; without one it has an identity and a lock."""

    number: int
    directory: Path
    identity: Identity | None = None
    lock: int = -1
    reason: str = ""
    fresh: bool = False

    @property
    def online(self) -> bool:
        return not self.reason

    @property
    def store(self) -> str:
        return self.identity.store if self.identity is not None else ""

    def leave(self, reason: str) -> None:
        """Take the drive for away. Its lock is let go of, or the drive would seem to be in use when it comes back."""
        self.reason = reason
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
        log.error("drive %d, %s, is left out: %s", self.number + 1, self.directory, reason)


@dataclass(slots=True)
class Lineup:
    """The seats, with the map that they agree on; `revision` 0 is a map that is not written yet."""

    seats: list[Seat]
    shard_map: ShardMap
    revision: int
    coordinator: LocalCoordinator

    def online(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.online]

    def check(self) -> None:
        """Refuse to start where data or metadata that is not lost would look lost. Raises DirectoryError."""
        there = {seat.store for seat in self.online()}
        need = self.shard_map.spec.data
        for partition, one in enumerate(self.shard_map.status):
            have = self.shard_map.live(partition, there)
            if have < need:
                raise DirectoryError(
                    f"{need} of {len(one.members)} drives that hold the data are needed and {have} are there"
                    f"{_away(self.seats)}; bring back drives that are not empty"
                )


def line_up(
    files: Files,
    directories: Sequence[Path],
    *,
    geometry: tuple[int, int] | None,
    partitions: int,
    degraded: bool = False,
    known: int = 0,
    failed: Collection[Path] = (),
) -> Lineup:
    """Judge the directories, formatting what is new. Raises DirectoryError, which says what to change.

    `degraded` starts with less than a majority, and so does a map of revision `known` at least, where that is not 0;
    `failed` are directories to leave out.
    """
    _no_twins(directories)
    seats: list[Seat] = []
    made: list[Path] = []
    try:
        for number, directory in enumerate(directories):
            seats.append(_take(number, directory, failed, len(directories) == 1, made))
        if not any(seat.identity for seat in seats):
            return _format(files, seats, geometry, partitions, os.urandom(16).hex(), made)
        cluster = _one_cluster(seats)
        value, revision = _newest(files, seats)
        if not revision:
            if len(seats) > 1 and any(seat.online and holds_data(seat.directory) for seat in seats):
                raise DirectoryError("the shard map is lost in every directory; restore the file named map in one")
            return _format(files, seats, geometry, partitions, cluster, made)
        shard_map = shardmap.decode(value)
        if shard_map.spec.directories:
            seats, shard_map, revision = _grown(files, seats, failed)
        quorum, degraded = len(seats) // 2 + 1, degraded or 0 < known <= revision
        _check_places(seats, shard_map, geometry)
        _check_majority(seats, quorum, degraded)
        shard_map = _replace(files, seats, shard_map)
        if shard_map.spec.directories:
            shard_map = growing.located(shard_map, [str(seat.directory.absolute()) for seat in seats])
        return Lineup(seats, shard_map, revision, _coordinator(files, seats, quorum, degraded))
    except BaseException:
        unmake(made)
        for seat in seats:
            if seat.lock >= 0:
                os.close(seat.lock)
        raise


def _no_twins(directories: Sequence[Path]) -> None:
    known: dict[tuple[int, int], Path] = {}
    for directory in directories:
        if directory.exists():
            stat = directory.stat()
            twin = known.setdefault((stat.st_dev, stat.st_ino), directory)
        else:
            twin = known.setdefault((-1, hash(directory.absolute())), directory)
        if twin is not directory:
            raise DirectoryError(f"{directory} and {twin} are the same directory, mounted or named twice")


def _take(number: int, directory: Path, failed: Collection[Path], only: bool, made: list[Path]) -> Seat:
    seat = Seat(number, directory)
    if directory in failed and not only:
        seat.leave(
            f"it failed while the server ran; once it is well, `s4 admin drives retry {directory}` takes it in, or mount an "
            "empty one in its place"
        )
    elif not directory.exists() and not only:
        seat.reason = "it does not exist"
    else:
        try:
            seat.identity, seat.lock = open_directory(directory, make=only, made=made)
        except UnusableError as error:
            if only or (isinstance(error.__cause__, OSError) and not is_damage(error.__cause__)):
                raise
            seat.leave(str(error))
    return seat


def _format(
    files: Files, seats: list[Seat], geometry: tuple[int, int] | None, partitions: int, cluster: str, made: list[Path]
) -> Lineup:
    """Make new stores of all seats. All must be there: what is formatted without a drive would never use it.
    Nothing is formatted before all were opened, and from then on nothing is taken back."""
    data, parity = geometry or default_geometry(len(seats))
    if data + parity > len(seats):
        raise DirectoryError(f"{data}+{parity} needs {data + parity} directories and {len(seats)} are given")
    for seat in seats:
        if seat.reason == "it does not exist":
            seat.identity, seat.lock = open_directory(seat.directory, make=True, made=made)
            seat.reason = ""
        if seat.reason:
            raise DirectoryError(f"a new server needs all its drives: {seat.directory}: {seat.reason}")
    made.clear()
    _unmounted(seats)
    for seat in seats:
        if seat.identity is None:
            seat.identity = format_directory(files, seat.directory, cluster, partitions)
    partitions = next(seat.identity.partitions for seat in seats if seat.identity is not None)
    new = shardmap.spread(cluster, [seat.store for seat in seats], data, parity, partitions)
    return Lineup(seats, new, 0, LocalCoordinator(files, [seat.directory for seat in seats], len(seats)))


def _unmounted(seats: list[Seat]) -> None:
    """Say which few directories are on the system's own disk, where most are not: a disk was not mounted, perhaps."""
    system = Path("/").stat().st_dev
    own = [seat for seat in seats if seat.directory.stat().st_dev == system]
    for seat in own if 2 * len(own) < len(seats) else []:
        log.warning(
            "drive %d, %s, is on the file system of /, where the others are not: is its disk mounted?",
            seat.number + 1,
            seat.directory,
        )


def _one_cluster(seats: list[Seat]) -> str:
    counted = Counter(seat.identity.cluster for seat in seats if seat.identity is not None)
    cluster = counted.most_common(1)[0][0]
    for seat in seats:
        if seat.identity is not None and seat.identity.cluster != cluster:
            raise DirectoryError(
                f"{seat.directory} belongs to another server (cluster {seat.identity.cluster[:8]}, not {cluster[:8]}); "
                "give the drive of this server, or an empty directory"
            )
    held: dict[str, Seat] = {}
    for seat in seats:
        if seat.identity is not None:
            twin = held.setdefault(seat.store, seat)
            if twin is not seat:
                raise DirectoryError(
                    f"{seat.directory} and {twin.directory} hold the same store: one is a copy of the other or "
                    "mounted twice; give each drive once"
                )
    return cluster


def _newest(files: Files, seats: Sequence[Seat]) -> tuple[bytes, int]:
    """(value, revision). Of two of the newest revision one is on a majority of the drives, and the other a change that
    never counted (R4). Raises DirectoryError where none is: drives were used without each other then."""
    there = [seat.directory for seat in seats if seat.online and seat.identity is not None]
    found = [LocalCoordinator(files, [directory]).newest(DOCUMENT) for directory in there]
    newest = max((revision for _, revision in found), default=0)
    values = Counter(value for value, revision in found if revision == newest)
    value, held = values.most_common(1)[0] if values else (b"", 0)
    if len(values) > 1 and 2 * held <= len(seats):
        raise DirectoryError(
            f"{' and '.join(map(str, there))} have different maps of revision {newest}: they were used without each "
            "other, and each has what the other lacks; start without one, and empty it once nothing of it is needed"
        )
    return value, newest


def _grown(files: Files, given: list[Seat], failed: Collection[Path]) -> tuple[list[Seat], ShardMap, int]:
    """(seats in the order of the map, the map, its revision) of a server whose drives were changed. The newest map of
    all directories that a map names counts, since those that are given may all be behind. Appends to `given` what it
    finds besides, so that the caller lets go of it."""
    revision = -1
    while True:
        value, newest = _newest(files, given)
        if newest == revision:
            break
        revision, shard_map = newest, shardmap.decode(value)
        for path in map(Path, shard_map.spec.directories):
            if not any(_same(path, seat.directory) for seat in given):
                given.append(_found(path, failed, shard_map.cluster, {seat.store for seat in given}))
    order = shard_map.order
    by_store = {seat.store: seat for seat in given if seat.identity is not None}
    strangers = [seat for seat in given if seat.store not in order]
    seats = []
    for number, (store, named) in enumerate(zip(order, shard_map.spec.directories, strict=True)):
        seat = by_store.get(store) or next((one for one in strangers if _same(Path(named), one.directory)), None)
        seats.append(seat or Seat(number, Path(named), reason="another drive is there"))
        seats[-1].number = number
    for seat in (one for one in given if one not in seats):
        log.warning(
            "%s is none of this server's drives, and is left alone: `s4 admin drives add` takes it in", seat.directory
        )
        if seat.lock >= 0:
            os.close(seat.lock)
            seat.lock = -1
    return seats, shard_map, revision


def _same(first: Path, second: Path) -> bool:
    if first.exists() and second.exists():
        return first.samefile(second)
    return first.absolute() == second.absolute()


def _found(path: Path, failed: Collection[Path], cluster: str, known: Collection[str]) -> Seat:
    """A directory that the map names and the command line does not. Whatever is wrong with it, it is away at worst."""
    log.warning("%s is one of this server's drives: name it where the server is started, too", path)
    try:
        seat = _take(0, path, failed, False, [])
    except DirectoryError as error:
        return Seat(0, path, reason=str(error))
    if seat.identity is not None and (seat.identity.cluster != cluster or seat.store in known):
        seat.leave("it belongs to another server, or is a copy of a drive that was given")
        seat.identity = None
    return seat


def _coordinator(files: Files, seats: list[Seat], quorum: int, degraded: bool) -> LocalCoordinator:
    there = [seat.directory for seat in seats if seat.online and seat.identity is not None]
    return LocalCoordinator(files, there, min(quorum, len(there)) if degraded else quorum)


def _check_places(seats: list[Seat], shard_map: ShardMap, geometry: tuple[int, int] | None) -> None:
    order, spec = shard_map.order, shard_map.spec
    if len(order) < len(seats):
        how = (
            "copy what it holds to a new server"
            if len(order) == 1
            else "start it with those, and `s4 admin drives add`"
        )
        raise DirectoryError(
            f"this server has {len(order)} directories and {len(seats)} are given: to have more, {how}; "
            "docs/single-server.md, under Growing"
        )
    if len(order) != len(seats):
        raise DirectoryError(
            f"this server has {len(order)} directories and {len(seats)} are given; name all of them in their order, "
            "also those whose drives are missing"
        )
    if geometry is not None and geometry != (spec.data, spec.parity):
        raise DirectoryError(f"this server was made with --erasure {spec.data}+{spec.parity}, which cannot be changed")
    places = {store: number for number, store in enumerate(order)}
    for seat in seats:
        if seat.identity is None:
            continue
        if spec.stores.get(seat.store) == "gone":
            raise DirectoryError(
                f"{seat.directory} holds a store that was replaced by another drive; what it has is out of date. "
                "Empty it, and it will be filled again"
            )
        place = places.get(seat.store)
        if place is None and holds_data(seat.directory):
            raise DirectoryError(f"{seat.directory} holds a store that this server does not know")
        if place is not None and place != seat.number:
            right = {places[one.store]: one.directory for one in seats if one.store in places}
            named = " ".join(str(right.get(number, seats[number].directory)) for number in range(len(seats)))
            raise DirectoryError(
                f"the directories are not in their order: {seat.directory} is number {place + 1}, "
                f"not {seat.number + 1}; give them as: {named}"
            )


def _check_majority(seats: list[Seat], quorum: int, degraded: bool) -> None:
    there = sum(1 for seat in seats if seat.online and seat.identity is not None and not seat.fresh)
    if there < quorum and not degraded:
        raise DirectoryError(
            f"{quorum} of {len(seats)} drives are needed to know the newest state and {there} are there{_away(seats)}; "
            "bring back more, or give --degraded if you know that the missing ones did not run without these"
        )


def _replace(files: Files, seats: list[Seat], shard_map: ShardMap) -> ShardMap:
    """Take empty directories for replaced drives, and make new stores of them."""
    mounted = [seat.directory.is_mount() for seat in seats if seat.online and seat.identity is not None]
    for seat in seats:
        if seat.reason == "it does not exist":
            seat.leave(seat.reason)
        if not seat.online or seat.store in shard_map.order:
            continue
        if mounted and all(mounted) and not seat.directory.is_mount():
            seat.leave("no drive is mounted there, as on the others; mount it and start again")
            continue
        try:
            seat.identity = seat.identity or format_directory(
                files, seat.directory, shard_map.cluster, shard_map.partitions
            )
        except UnusableError as error:
            seat.leave(str(error))
            continue
        seat.fresh = True
        log.warning("drive %d, %s, is new: it will be filled", seat.number + 1, seat.directory)
        shard_map = shardmap.replaced(shard_map, shard_map.order[seat.number], seat.store)
    return shard_map


def _away(seats: list[Seat]) -> str:
    away = [f"{seat.directory}: {seat.reason or 'empty'}" for seat in seats if seat.reason or seat.identity is None]
    return f" ({'; '.join(away)})" if away else ""

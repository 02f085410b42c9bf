"""The embedded server's store side: from directories to a running `Node`. One process, the `local` coordinator.
A server's root keys and master key are made and kept here too.

Order at start: locks and identities (node/drive_set.py), volumes past the mark, copies of metadata brought level, the
shard map with a new epoch (rule R10) that says which stores and copies count now, then the writer loop, then
whatever a crash or a new drive left to do. A drive that fails on the way is left out, as far as the others
can do without it. At the end the reverse: what is acknowledged is durable anyway.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from s4.base.clock import wall_ms
from s4.base.jobs import Jobs
from s4.cluster import growing, shardmap
from s4.cluster.coordinator import LocalCoordinator
from s4.cluster.membership import DOCUMENT, Membership
from s4.config.limits import MIB, Limits
from s4.config.settings import RootKeys, StoreSettings
from s4.crypto import keyring
from s4.metadata import keys, small
from s4.metadata.rows import AccessKey, Grant, Head, decode, decode_object
from s4.node.accounts import ROOT_USER
from s4.node.base import Node
from s4.node.drive_set import Lineup, Seat, line_up
from s4.peer.api import Identity
from s4.replica.copies import Copies, level
from s4.replica.host import Host
from s4.s3.encryption import SSE_S3
from s4.storage.directory import DirectoryError, DriveError, aligning, keeps_out, note_opened, version
from s4.storage.drives import Drive, Drives
from s4.storage.files import Files
from s4.storage.files import is_damage as files_is_damage
from s4.storage.leveldb import DAMAGED, AnyDatabaseError, Database, DatabaseError, is_damage
from s4.storage.shards import ShardSettings, ShardStore

log = logging.getLogger(__name__)


class _RootFile(msgspec.Struct, omit_defaults=True):
    """root.json: the keys that were changed last count, for a drive that was away or full has others."""

    access_key: str
    secret_key: str
    changed_ms: int = 0  # 0 for those that were made first


def root_keys(files: Files, directories: Sequence[Path], environment: dict[str, str]) -> tuple[RootKeys, bool]:
    """(keys, made just now): from the environment, or kept in every directory, or made and kept."""
    access, secret = environment.get("S4_ROOT_ACCESS_KEY", ""), environment.get("S4_ROOT_SECRET_KEY", "")
    if bool(access) != bool(secret):
        raise ValueError("set both S4_ROOT_ACCESS_KEY and S4_ROOT_SECRET_KEY, or neither")
    if access:
        if len(access) < 3 or len(secret) < 8 or "/" in access:
            raise ValueError(
                "S4_ROOT_ACCESS_KEY needs 3 characters or more without a slash, S4_ROOT_SECRET_KEY 8 or more"
            )
        return RootKeys(access, secret), False
    paths = [directory / "root.json" for directory in directories]
    kept = _kept(paths)
    newest = _newest(kept) or _RootFile("S4" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))
    content = msgspec.json.encode(newest)
    _keep(files, [path for path in paths if kept.get(path) != content], content, bool(kept))
    return RootKeys(newest.access_key, newest.secret_key), not kept


def _newest(kept: dict[Path, bytes]) -> _RootFile | None:
    """The root keys that were changed last, of those that drives have. Raises DirectoryError where all are damaged."""
    failed, found = "", list[_RootFile]()
    for path, content in kept.items():
        try:
            found.append(msgspec.json.decode(content, type=_RootFile))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            failed = f"{path} is damaged: {error}; give the keys in S4_ROOT_ACCESS_KEY and S4_ROOT_SECRET_KEY"
            log.error("%s", failed)
    if failed and not found:
        raise DirectoryError(failed)
    return max(found, key=lambda one: one.changed_ms, default=None)


def _kept(paths: Sequence[Path]) -> dict[Path, bytes]:
    """What each drive has of a file that all are to have. One that cannot be read is passed over while others can.
    Raises OSError where none can be read: nothing is made anew then."""
    kept: dict[Path, bytes] = {}
    failed: OSError | None = None
    for path in paths:
        try:
            kept[path] = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            log.error("%s cannot be read: %s", path, error)
            failed = error
    if failed is not None and not kept:
        raise failed
    return kept


def _keep(files: Files, paths: Sequence[Path], content: bytes, kept: bool) -> list[Path]:
    """Give a file to the drives that lack it, and say which took it: one at least has it in the end. Raises OSError."""
    written: list[Path] = []
    for path in paths:
        try:
            files.replace(path, content)
            written.append(path)
        except OSError as error:
            log.error("%s cannot be written: %s", path, error)
            if not kept and not written and path == paths[-1]:
                raise
    return written


def master_key(files: Files, directories: Sequence[Path], sealed: Callable[[], str] = str) -> Path:
    """The file with the key that secrets are sealed with: each directory has a copy, and one that lacks it gets one.
    Made where there is none, unless `sealed` names something that only a key which was there can open: a new one would
    make that unreadable for good without a word. Raises KeyringError then, and where two differ."""
    paths = [directory / keyring.FILE for directory in directories]
    kept = _kept(paths)
    if len(set(kept.values())) > 1:
        raise keyring.KeyringError(
            f"{' and '.join(map(str, kept))} differ: keep the one that this server's secrets were sealed with"
        )
    if not kept and (held := sealed()):
        raise keyring.KeyringError(
            f"{keyring.FILE} is gone from {' and '.join(map(str, directories))}, and {held}: put the file back from where it was backed up to"
        )
    content = next(iter(kept.values()), None) or keyring.new()
    written = _keep(files, [path for path in paths if path not in kept], content, bool(kept))
    return next(path for path in paths if path in kept or path in written)


def sealed_things(database: Database, partitions: int) -> str:
    """What is kept that only the master key opens, in words; empty where nothing is. Reads until it finds something."""
    for _, value in database.scan(keys.table(0, keys.ACCESS_KEY), keys.after(keys.table(0, keys.ACCESS_KEY))):
        row = decode(AccessKey, value)
        if keyring.is_sealed(row.secret):
            return f"the secrets of users were sealed with it, such as {row.user}'s"
    for partition in range(partitions):
        table = keys.table(partition, keys.OBJECT)
        for key, value in database.scan(table, keys.after(table)):
            found, _ = decode_object(value)
            if found.sealing is not None and keyring.is_sealed(found.sealing.wrapped) and found.sealing.mode == SSE_S3:
                return f"objects were encrypted with it, such as {keys.split_object(key[11:])[0]!r}"
    return ""


class RootChange:
    """Changes the root keys of a server that keeps them itself, in every directory, and for this process at once."""

    def __init__(self, files: Files, store: OpenStore, environment: dict[str, str]) -> None:
        self._files, self._store, self._from_outside = files, store, bool(environment.get("S4_ROOT_ACCESS_KEY"))

    def change(self) -> RootKeys:
        """The new keys: from now on they count, and the old ones do not. Raises ValueError, OSError."""
        if self._from_outside:
            raise ValueError(
                "this server is given its root keys by S4_ROOT_ACCESS_KEY and S4_ROOT_SECRET_KEY: change these and start it again"
            )
        new = RootKeys("S4" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))
        paths = [drive.directory / "root.json" for drive, _ in self._store.drives.online()]
        old = _newest(_kept(paths))
        content = _RootFile(new.access_key, new.secret_key, max(wall_ms(), old.changed_ms + 1 if old else 0))
        _keep(self._files, paths, msgspec.json.encode(content), kept=False)
        self._store.root = new
        self._store.node.accounts.change_root(Identity(ROOT_USER, new.secret_key, [Grant("SuperUser")]), new.access_key)
        return new


@dataclass(slots=True)
class OpenStore:
    """A running store. `directory` is the first one whose drive is there."""

    directory: Path
    node: Node
    host: Host
    drives: Drives
    membership: Membership
    root: RootKeys
    root_made: bool
    joiners: list[tuple[str, Database]]
    locks: list[int]
    coordinator: LocalCoordinator
    small: bool  # every store that is there keeps out who could not read content in rows

    async def close(self) -> None:
        await self.node.close()
        await self.host.close()
        await self.drives.close()
        self.host.copies.close([database for _, database in self.joiners])
        for lock in self.locks:
            os.close(lock)


def own_master_key(store: OpenStore) -> Path:
    """The master key that a server keeps beside its data. Raises KeyringError."""
    there = [one.directory for one in store.drives.stores]
    return master_key(Files(), there, lambda: sealed_things(store.host.database, store.node.partitions))


async def _line_up(files: Files, directories: Sequence[Path], settings: StoreSettings) -> Lineup:
    """The directories as they are. What is new is in the map before anything is kept under it."""
    lineup = line_up(
        files,
        directories,
        geometry=settings.geometry,
        partitions=settings.partitions,
        degraded=settings.degraded,
        known=settings.known,
        failed=settings.failed,
    )
    lineup.check()
    if not lineup.revision or any(seat.fresh for seat in lineup.seats):
        value = shardmap.encode(lineup.shard_map)
        lineup.revision = await lineup.coordinator.replace(DOCUMENT, value, lineup.revision)
    return lineup


async def open_store(
    directories: Sequence[Path],
    settings: StoreSettings,
    limits: Limits,
    *,
    horizon: Callable[[], float],
    fatal: Callable[[BaseException], None],
    files: Files | None = None,
    environment: dict[str, str] | None = None,
    clock: Callable[[], float] = time.time,
    jobs: Jobs | None = None,
) -> OpenStore:
    """Open or format directories. Raises DirectoryError, DatabaseError, ValueError."""
    files = files or Files()
    lineup = await _line_up(files, directories, settings)
    drives = await _open_drives(files, lineup, settings, limits, fatal)
    lineup.check()
    there = [seat.directory for seat in lineup.online()]
    root, root_made = root_keys(files, there, dict(environment or {}))
    copies, in_sync = _open_copies(lineup, limits)
    newest = newest_epoch(copies.primary, lineup.shard_map.partitions)
    online = {seat.store for seat in lineup.online()}
    current = shardmap.restarted(lineup.shard_map, online, in_sync, newest)
    revision = await lineup.coordinator.replace(DOCUMENT, shardmap.encode(current), lineup.revision)
    membership = Membership(lineup.coordinator, current, revision)
    joiners = _open_joiners(lineup, in_sync, limits)
    for copy in (*copies.all(), *(database for _, database in joiners)):
        copy.times = next(shards.times for drive, shards in drives.online() if drive.directory == copy.path.parent)
    node: Node | None = None

    def on_outbox(partition: int, key: bytes, value: bytes) -> None:
        if node is not None:
            node.on_outbox(partition, key, value)

    host = Host(
        copies,
        current.partitions,
        [status.epoch for status in current.status],
        sync=settings.durability == "sync",
        fatal=fatal,
        sync_shards=drives.sync_now,
        on_outbox=on_outbox,
        cache_bytes=limits.row_cache_bytes,
        max_waiting=limits.waiting_commands,
        sync_every_s=1.0 if settings.durability == "interval" else 0.0,
        clock=clock,
        room=drives.has_room,
        whole=membership.is_whole,
    )
    owner = Identity(ROOT_USER, root.secret_key, [Grant("SuperUser")])
    node = Node(host, drives, membership, horizon=horizon, root=owner, root_key=root.access_key, strict=settings.strict)
    node.start(jobs or Jobs())
    marked = settings.small and all(keeps_out(one, small.OLDEST) for one in there)
    locks = [seat.lock for seat in lineup.seats if seat.lock >= 0]
    return OpenStore(
        there[0], node, host, drives, membership, root, root_made, joiners, locks, lineup.coordinator, marked
    )


async def _open_drives(
    files: Files, lineup: Lineup, settings: StoreSettings, limits: Limits, fatal: Callable[[BaseException], None]
) -> Drives:
    """A shard store for each seat; one that fails to open leaves the lineup, unless it is the only one. Raises OSError
    and DatabaseError for that, and where this process is out of descriptors or memory."""
    sizes = ShardSettings(
        volume_bytes=settings.volume_bytes,
        preallocate_bytes=settings.preallocate_bytes,
        reserve_bytes=settings.reserve_bytes,
        open_volumes=max(2, limits.open_volumes // len(lineup.seats)),
        slow_s=limits.slow_drive_s,
        durable=settings.durability == "sync",
        sync_index=settings.durability != "none",
    )
    oldest = small.OLDEST if settings.small else growing.OLDEST if lineup.shard_map.format == shardmap.GROWN else ""
    said = [seat.identity.oldest for seat in lineup.seats if seat.identity is not None]
    oldest = max([oldest, *said], key=version)  # a new drive may get rows that another may have

    async def opened(seat: Seat) -> Drive:
        shards = None
        if seat.online and seat.identity is not None:
            note_opened(files, seat.directory, seat.identity, oldest)
            marked = replace(sizes, mark=aligning(files, seat.directory))
            try:
                shards = await ShardStore.open(
                    files, seat.directory, seat.identity.store_bytes, marked, _blaming(seat.directory, fatal)
                )
            except (OSError, DatabaseError) as error:
                of_drive = files_is_damage(error) if isinstance(error, OSError) else is_damage(error)
                if len(lineup.seats) == 1 or not of_drive:
                    raise
                seat.leave(str(error))
        store = seat.store if seat.online else lineup.shard_map.order[seat.number]
        return Drive(seat.number, seat.directory, store, shards, seat.reason)

    drives = await asyncio.gather(*map(opened, lineup.seats))  # whose volumes are read is not waited for by the others
    found = lineup.shard_map
    places = {store: number for number, store in enumerate(found.order)}
    held = [[places[store] for store in kept] for kept in found.spec.members]
    moving = [] if found.format == shardmap.FORMAT else range(found.partitions)  # until upkeep/leaving.py has looked
    return Drives(drives, held, moving)


def _blaming(directory: Path, fatal: Callable[[BaseException], None]) -> Callable[[BaseException], None]:
    return lambda error: fatal(DriveError(directory, error))


def _open_copies(lineup: Lineup, limits: Limits) -> tuple[Copies, list[str]]:
    """(copies, stores whose copies are level). Changes nothing that is kept but for levelling. Raises
    DirectoryError."""
    wanted = lineup.shard_map.copies
    listed = lineup.shard_map.status[0].in_sync
    begun = lineup.shard_map.status[0].epoch > 0  # databases are made before the map gets its first epoch
    opened: dict[str, Database] = {}
    for seat in _seats(lineup, listed):
        if begun and not (seat.directory / "meta").exists():  # a new one would pass for all there is
            log.error("the metadata in %s is gone", seat.directory)
            continue
        damaged = seat.directory / ("meta" + DAMAGED)
        if damaged.exists() and len(listed) > 1:
            log.error("the metadata in %s is damaged and will be made again", seat.directory)
            continue
        try:
            opened[seat.store] = _readable(_database(seat, limits), lineup.shard_map.partitions)
        except AnyDatabaseError as error:
            if len(wanted) == 1 or not is_damage(error):
                raise
            log.error("the metadata in %s cannot be opened and will be made again: %s", seat.directory, error)
    if not opened:
        raise DirectoryError(
            "no copy of the metadata is there; bring back one of the first drives, or its meta directory"
        )
    if len(wanted) == 1:
        return Copies(opened[wanted[0]]), wanted
    turn, whole = level(list(opened.values()))
    in_sync = [store for store, database in opened.items() if database in whole]
    for store, database in opened.items():
        if store not in in_sync:
            database.close()
    first = opened[in_sync[0]]
    others = [opened[store] for store in in_sync[1:]]
    return Copies(first, others, turn=turn, alone=False), in_sync


def _readable(database: Database, partitions: int) -> Database:
    """A copy of which what a start needs can be read. Raises DatabaseError."""
    try:
        database.get(keys.TURN_ROW)
        newest_epoch(database, partitions)
    except AnyDatabaseError:
        database.close()
        raise
    return database


def _open_joiners(lineup: Lineup, in_sync: Sequence[str], limits: Limits) -> list[tuple[str, Database]]:
    """Copies that are to be filled, emptied. The map must say by now that they do not count: else a crash would
    leave an empty copy that does, and if the others were lost next it would be served as if it were all."""
    joiners = []
    for seat in _seats(lineup, lineup.shard_map.copies):
        if seat.store not in in_sync:
            try:
                if (seat.directory / "meta").exists():  # what is kept would bring deleted objects back (R8)
                    shutil.rmtree(seat.directory / "meta")
                joiners.append((seat.store, _database(seat, limits)))
                (seat.directory / ("meta" + DAMAGED)).unlink(missing_ok=True)
            except (DatabaseError, OSError) as error:
                log.error("no metadata can be kept in %s: %s", seat.directory, error)
    return joiners


def _seats(lineup: Lineup, stores: Iterable[str]) -> list[Seat]:
    by_store = {seat.store: seat for seat in lineup.online()}
    return [by_store[store] for store in stores if store in by_store]


def _database(seat: Seat, limits: Limits) -> Database:
    return Database(
        seat.directory / "meta", cache_bytes=64 * MIB, write_buffer_bytes=32 * MIB, open_files=limits.open_tables
    )


def newest_epoch(database: Database, partitions: int) -> int:
    """The highest epoch of any entry in the database."""
    heads = (database.get(keys.head_row(partition)) for partition in range(partitions))
    return max((decode(Head, value).epoch for value in heads if value is not None), default=0)

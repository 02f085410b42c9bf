"""Rules of docs/protocol.md left out, in the code that runs. Those of the replication core are in `sim/broken.py`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from msgspec.structs import replace

from s4.cluster import coordinator
from s4.gateway import buckets, copies, objects, receive
from s4.metadata import buckets as bucket_rows
from s4.metadata import commands, decide, keys, locks, uploads
from s4.metadata import objects as object_rows
from s4.metadata.commands import Refused
from s4.metadata.entry import Overlay
from s4.metadata.listing import Query
from s4.node import member
from s4.node import rows as node_rows
from s4.peer import server as peer_server
from s4.replica import group, replicated
from s4.s3 import checksums
from s4.storage import directory as directory_of
from s4.storage import files, shards, volumes
from s4.upkeep import leader, lifecycle, ownstore


def forgets_all_commands() -> None:
    """R12: a repeated command is decided once more."""
    for kind, spec in decide.COMMANDS.items():
        decide.COMMANDS[kind] = spec._replace(twice="all are")


def refuses_at_once() -> None:
    """R11: a refusal goes out before what it rests on is committed."""
    decide_one = replicated.ReplicatedHost._decide

    def deciding(self: Any, partition: int, taken: Any) -> Any:
        early: list[Any] = []
        decider, said = self._decider, self._decider.answer

        def noted(turn: Any, number: int, command: Any, named: bytes, *, again: bool = False) -> Any:
            found = said(turn, number, command, named, again=again)
            early.append(found)
            return found

        self._decider = SimpleNamespace(answer=noted)
        try:
            answered = decide_one(self, partition, taken)
        finally:
            self._decider = decider
        for item, found in zip(taken, early, strict=False):
            if isinstance(found, Refused) and not item.future.done():
                item.future.set_result(found)
        return answered

    replicated.ReplicatedHost._decide = deciding  # type: ignore[method-assign]


def keeps_rows_under_a_snapshot() -> None:
    """R8: a snapshot is laid over the rows that are there."""

    take = group.Group._take

    def broken(self: Any, writes: list[Any], rows: dict[bytes, bytes | None]) -> list[Any]:
        before = set(self._held)
        done = take(self, writes, rows)
        for number in set(self._held) - before:
            self._left_over._starts.pop(number)
        return done

    group.Group._take = broken  # type: ignore[method-assign]


def acknowledges_before_the_disk() -> None:
    """D1: shards of other stores are not synced before the commit."""
    append = member.MemberNode.append
    member.MemberNode.append = lambda self, shard, payload, sync: append(self, shard, payload, False)  # type: ignore[method-assign,assignment]


def commits_before_the_shards() -> None:
    """D1: who commits does not sync the shards that it has itself."""
    shards.ShardStore.sync_now = lambda _: None  # type: ignore[method-assign,assignment]


def indexes_what_is_not_there() -> None:
    """D5: rows of the index are durable before what they name."""

    def broken(self: Any, rows: Any) -> None:
        self._index.write(rows, sync=self.settings.sync_index)

    shards.ShardStore._write_index = broken  # type: ignore[method-assign]


def forgets_what_it_could_not_read() -> None:
    """D5: what a start could not read is missing from the index, and nobody asks whether it was there."""

    async def broken(*_: Any) -> int:
        return 0

    shards.ShardStore.in_doubt = False  # type: ignore[method-assign,assignment]
    ownstore.confirm = broken  # type: ignore[attr-defined,assignment]


def goes_on_after_a_failed_sync() -> None:
    """D7: a sync of a volume that failed is taken for one that did not."""
    sync = files.Files.sync

    def broken(self: Any, fd: int) -> None:
        with suppress(OSError):
            sync(self, fd)

    files.Files.sync = broken  # type: ignore[method-assign]


def frees_under_readers() -> None:
    """D6: the shards of a dead blob go at once, whoever reads them."""
    leader.Leader._may_free = lambda *_: True  # type: ignore[method-assign,assignment]


def lists_at_any_epoch() -> None:
    """L1: a listing's partitions are not looked at, neither who leads them nor at which epoch."""
    node_rows.RowNode._where = lambda self, where: [one for one, _ in where] or list(range(self.partitions))  # type: ignore[method-assign,assignment]


def tells_nobody_of_settings() -> None:
    """L2: a call that changes a setting returns though gateways still use what it replaced."""

    async def broken(_: Any) -> None:
        return

    peer_server.PeerServer.settings_changed = broken  # type: ignore[method-assign,assignment]


def changes_settings_under_leases() -> None:
    """L2: a new primary of settings does not wait for the leases that the one before gave."""

    async def broken(_: Any) -> None:
        return

    replicated.ReplicatedHost.settings_may_change = broken  # type: ignore[method-assign,assignment]


def commits_under_any_settings() -> None:
    """L2: the revision that a commit was prepared under is not looked at."""
    check = object_rows.check_settings

    def broken(entry: Any, settings: Any) -> None:
        try:
            check(entry, settings)
        except object_rows.StaleSettingsError:
            return

    for module in (object_rows, bucket_rows, uploads):
        module.check_settings = broken


def leaves_buckets_open() -> None:
    """L3: a bucket that is deleted is not closed before."""

    async def broken(gateway: Any, name: str, bucket: Any) -> None:
        page = await gateway.node.list_objects(bucket.id, Query(b"", b"", b"", b"", 1))
        if page.items:
            await buckets.execute(gateway, 0, commands.UndoDelete(name, bucket.deleting))
            await buckets.execute(gateway, 0, commands.EndDelete(name, bucket.deleting, done=False))
            raise buckets.S3Error("BucketNotEmpty")
        await buckets.execute(gateway, 0, commands.EndDelete(name, bucket.deleting, done=True))

    buckets.finish_delete = broken


def trusts_any_clock() -> None:
    """R13: a clock that differs from its peers' ends locks and lives."""
    member.clocks_agree = lambda *_: True
    member.time_of_most = lambda _: time.time()


def ends_by_old_rules() -> None:
    """Lifecycle ends what it looked at, whatever was said of it since."""
    object_rows._must_be_due = lambda *_: None  # type: ignore[assignment]
    lifecycle.Lifecycle._current = _as_it_was  # type: ignore[method-assign,assignment]


async def _as_it_was(self: Any, name: str, bucket: Any, rules: Any) -> Any:
    return bucket


def unlocks_everything() -> None:
    """A lock keeps nothing from being removed."""
    locks.check_removal = lambda *_, **__: None


def drops_by_name_alone() -> None:
    """The second half of a rename takes whatever has the old name by then."""
    delete = object_rows.delete_if_newest

    def broken(entry: Any, command: Any) -> Any:
        found = entry.newest(command.bucket, command.key)
        if found is None or command.judged is not None:
            return delete(entry, command)
        return delete(
            entry,
            commands.DeleteIfNewest(
                command.bucket,
                command.key,
                keys.version_id(found[0][-keys.VERSION_BYTES :]),
                command.notify,
                command.cause,
            ),
        )

    decide.COMMANDS[commands.DeleteIfNewest] = decide.COMMANDS[commands.DeleteIfNewest]._replace(decide=broken)


def decides_by_what_is_committed() -> None:
    """R1: conditions are decided by what is committed; what is on its way is not seen."""

    def broken(self: Any, partition: int) -> Overlay:
        rows = self._partitions[partition].pending.rows
        seen = Overlay(self.committed)
        seen.merge({key: value for key, value in rows.items() if key[2:3] in (keys.HEAD, keys.COUNTERS)})
        return seen

    group.Group.pending = broken  # type: ignore[method-assign,assignment]


def counts_what_two_processes_took() -> None:
    """D2: a shard counts though its stripes were taken by two processes of its store."""

    class Either(dict[int, str]):
        def setdefault(self, position: int, taker: str = "") -> str:
            super().setdefault(position, taker)
            return taker

    begin = receive._BlobWriter.__init__

    def broken(self: Any, *more: Any) -> None:
        begin(self, *more)
        self.takers = Either()

    receive._BlobWriter.__init__ = broken  # type: ignore[method-assign]


def counts_shards_where_they_were() -> None:
    """D3: a commit does not look whether a shard is where its position is moving to."""

    def broken(current: Any, partition: int, command: Any, *, strict: bool = False) -> Any:
        return command

    member.adjusted = broken  # type: ignore[assignment]


def takes_any_bytes() -> None:
    """D4: blocks are what they are said to be."""

    class Anything(bytes):
        def __eq__(self, other: object) -> bool:
            return True

        __ne__ = lambda *_: False  # noqa: E731
        __hash__ = bytes.__hash__

    volumes.block_crcs = lambda *_: Anything()  # type: ignore[assignment]


def names_references_by_what_they_hold() -> None:
    """C1: a reference to the same content from the same key has the same id."""
    known = receive._known

    class Named:
        def __init__(self, gateway: Any, name: bytes) -> None:
            self._gateway, self._name = gateway, name

        def random(self, size: int) -> bytes:
            return self._name[:size]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._gateway, name)

    async def broken(gateway: Any, sha256: bytes, size: int, to: Any) -> Any:
        name = hashlib.blake2b(sha256 + to.bucket.to_bytes(8, "big") + to.key).digest()
        return await known(Named(gateway, name), sha256, size, to)

    receive._known = broken


class _Late:
    """A gateway, and its node, whose references are taken a while after they were said to be."""

    def __init__(self, real: Any) -> None:
        self._real = real

    @property
    def node(self) -> _Late:
        return _Late(self._real.node)

    async def execute(self, partition: int, command: Any, *more: Any) -> Any:
        if not isinstance(command, commands.TakeReferences):
            return await self._real.execute(partition, command, *more)
        self.later = asyncio.ensure_future(self._take(partition, command))
        return commands.Taken(True)

    async def _take(self, partition: int, command: Any) -> None:
        await asyncio.sleep(1.0)
        with suppress(Exception):
            await self._real.execute(partition, command)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def commits_before_it_takes() -> None:
    """C2: an object is committed, and then references are taken to what it holds."""
    take = objects.take_extents

    async def broken(gateway: Any, *more: Any) -> Any:
        return await take(_Late(gateway), *more)

    for module in (objects, copies):
        module.take_extents = broken


class _Mute:
    """An entry that takes no rows."""

    def __init__(self, entry: Any) -> None:
        self._entry = entry

    def put(self, key: bytes, value: bytes) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)


def drops_what_may_still_be_committed() -> None:
    """C3: the auditor drops what nobody claims, and nobody is told that it may not be committed any more."""
    for kind in (commands.RefuseReference, commands.RefuseBlob):
        spec = decide.COMMANDS[kind]

        def broken(entry: Any, command: Any, spec: Any = spec) -> Any:
            return spec.decide(_Mute(entry), command)

        decide.COMMANDS[kind] = spec._replace(decide=broken)


def takes_claims_for_content() -> None:
    """C4: the hash of a body that is known already is not compared with the body."""
    checksums.Digests.verify = lambda *_: None  # type: ignore[method-assign,assignment]


def keeps_the_map_on_one_drive() -> None:
    """M2: the map is in the first directory alone."""

    def broken(self: Any, document: str, content: bytes) -> None:
        self._files.replace(self._directories[0] / document, content)

    coordinator.LocalCoordinator._write = broken  # type: ignore[method-assign]


def names_stores_by_their_place() -> None:
    """M3: an empty disk in the same place is the same store."""
    form = member.format_directory

    def broken(files: Any, directory: Path, cluster: str, partitions: int) -> Any:
        made, random = form(files, directory, cluster, partitions), hashlib.blake2b(directory.name.encode())
        named = replace(made, store=random.hexdigest()[:32])
        files.replace(directory / directory_of.NAME, msgspec.json.encode(named))
        return named

    member.format_directory = broken


RULES = (
    decides_by_what_is_committed,
    forgets_all_commands,
    refuses_at_once,
    keeps_rows_under_a_snapshot,
    acknowledges_before_the_disk,
    commits_before_the_shards,
    indexes_what_is_not_there,
    forgets_what_it_could_not_read,
    goes_on_after_a_failed_sync,
    frees_under_readers,
    lists_at_any_epoch,
    tells_nobody_of_settings,
    changes_settings_under_leases,
    commits_under_any_settings,
    leaves_buckets_open,
    trusts_any_clock,
    ends_by_old_rules,
    unlocks_everything,
    drops_by_name_alone,
    counts_what_two_processes_took,
    counts_shards_where_they_were,
    takes_any_bytes,
    names_references_by_what_they_hold,
    commits_before_it_takes,
    drops_what_may_still_be_committed,
    takes_claims_for_content,
    keeps_the_map_on_one_drive,
    names_stores_by_their_place,
)

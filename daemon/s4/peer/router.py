"""A whole cluster with the face of one node: every call goes to the store that it is for, by the map.

Rows are asked of a partition's primary. Who is not it says `stale`, a connection may break, a primary may be silent:
then the map is looked at again and the call repeated, commands under the same id (R12), until it is answered or
PATIENCE_S are over. Shards go to the members of their partition and to who is being filled; a store that cannot be
reached is `OfflineError` at once, for other shards can stand in. What is answered from here of settings is what the
primary of partition 0 gave a lease on (L2).

It owns connections, one to each store, and nothing that must survive.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from s4.base import tasks
from s4.base.clock import boot_clock, wall_ms
from s4.base.jobs import Failures, Jobs
from s4.base.jobs import Job as Background
from s4.base.text import parse_endpoint
from s4.cluster.clustermap import ClusterMap
from s4.cluster.coordinator import CoordinatorError
from s4.cluster.keeper import MapKeeper
from s4.cluster.messages import AnyMessage
from s4.cluster.placement import GONE
from s4.metadata import commands, keys
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.listing import Page, Query
from s4.metadata.repeats import KEPT_MS
from s4.metadata.rows import Blob, Bucket, Content, Counters, Grant, Job, User, summed
from s4.peer import frames
from s4.peer.api import (
    BlobFound,
    CallError,
    Census,
    ForgottenError,
    Found,
    Identity,
    Layout,
    LostError,
    NodeApi,
    StaleError,
    UnavailableError,
    UnknownResultError,
    UploadFound,
    UploadPage,
    Where,
    stats_of,
)
from s4.peer.client import CONNECT_S, RefusedError, RemoteNode
from s4.peer.pages import merged_objects, merged_uploads
from s4.storage.records import DamagedError, OfflineError, Shard

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
LOOK_S = 0.1  # between two looks at the map while a call waits or is to be repeated
CENSUS_S = 3.0
RETRY_S = 0.5  # before a store that could not be reached is tried again
SHARD_S = 15.0  # for one shard to be written
CACHED_BLOBS = 20_000

T = TypeVar("T")
Call = Callable[[NodeApi, bool], Awaitable[T]]


class LocalNode(NodeApi, Protocol):
    """The node of this process, which knows the root user's key from its environment."""

    def root_identity(self, access_key: str) -> Identity | None: ...


class Router:
    """`oldest` is the start of the oldest request that may still read (seconds of the boot clock), which every
    store is told (D6). `clock` measures patience and goes on in suspend: a command is not sent again long after it
    was made."""

    def __init__(
        self,
        keeper: MapKeeper,
        context: ssl.SSLContext,
        oldest: Callable[[], float],
        jobs: Jobs | None = None,
        *,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._jobs, self._keeping = jobs or Jobs(), Background("connections", 0.0, RETRY_S, self._keep)
        self.keeper, self._context, self._oldest, self._clock = keeper, context, oldest, clock
        self._ahead_ms = 0  # of this clock, are ids made, since some store forgot those of this clock
        self._me, self._name = "", os.urandom(16).hex()
        self._local: LocalNode | None = None
        self._remotes, self._connecting = dict[str, RemoteNode](), dict[str, asyncio.Task[RemoteNode]]()
        self._failed, self._met = dict[str, float](), dict[str, str]()  # to connect: until when, and what was met last
        self._failures, self._blobs = dict[str, Failures](), OrderedDict[bytes, BlobFound]()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.versions, self._reported = frames.VERSIONS, set[tuple[int, bytes, int]]()

    def serve(self, me: str, local: LocalNode) -> None:
        """The store of this process and its node, which are called without a connection. A gateway has none."""
        self._me, self._local = me, local

    def start(self) -> None:
        """Keep connections to all stores, so that each knows of us what it must before it frees or changes anything."""
        self._jobs.start(self._keeping)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        await self._jobs.stop(self._keeping)
        for task in (*self._tasks, *self._connecting.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._connecting.values(), return_exceptions=True)
        await asyncio.gather(*(remote.close() for remote in self._remotes.values()))

    def only(self, least: int) -> None:
        """Speak with nobody who speaks less."""
        self.versions = (least, self.versions[1])
        for remote in self._remotes.values():
            if remote.version < least:
                self._spawn(remote.close())

    @property
    def map(self) -> ClusterMap:
        return self.keeper.current

    # -- connections

    async def _keep(self) -> None:
        for store, one in self.map.stores.items():
            if store != self._me and one.state != GONE and not self.is_up(store):
                self._spawn(self._try(store))

    async def _try(self, store: str) -> None:
        try:
            await self.node(store)
        except UnavailableError as error:
            log.debug("store %s: %s", store[:8], error)
        except Exception as error:
            self._failures.setdefault(store, Failures()).add(f"connecting to store {store[:8]}", error)

    def is_up(self, store: str) -> bool:
        """Whether a store answers, as far as is known here."""
        return self._ready(store) is not None

    def unreached(self) -> dict[str, str]:
        """Stores that this process has no connection to though it keeps one to each, and what it met."""
        away = [one for one, named in self.map.stores.items() if named.state != GONE and not self.is_up(one)]
        return {store: self._met.get(store, "not tried yet") for store in away}

    def _ready(self, store: str) -> NodeApi | None:
        if store == self._me and self._local is not None:
            return self._local
        remote = self._remotes.get(store)
        return remote if remote is not None and not remote.gone else None

    async def node(self, store: str) -> NodeApi:
        """A store's node. Raises UnavailableError where it cannot be reached; nothing was asked of it then."""
        if (found := self._ready(store)) is not None:
            return found
        task = self._connecting.get(store)
        if task is None:
            if time.monotonic() < self._failed.get(store, 0.0):
                raise UnavailableError("ServiceUnavailable", f"Store {store[:8]} cannot be reached. Try again.")
            task = self._connecting[store] = asyncio.ensure_future(self._connect(store))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever waited may have left
        try:
            return await asyncio.shield(task)
        except (OSError, TimeoutError, RefusedError, UnavailableError, KeyError) as error:
            raise UnavailableError("ServiceUnavailable", f"Store {store[:8]} cannot be reached: {error}") from error

    async def _connect(self, store: str) -> RemoteNode:
        try:
            if (old := self._remotes.pop(store, None)) is not None:
                await old.close()
            address = parse_endpoint(self.map.stores[store].address)
            async with tasks.awake_within(CONNECT_S):
                remote = await RemoteNode.connect(
                    address,
                    self._oldest,
                    lambda: None,
                    cluster=self.map.cluster,
                    store=store,
                    caller=self._me or self._name,
                    context=self._context,
                    versions=self.versions,
                )
            if remote.version < self.versions[0]:  # `only` was called meanwhile
                await remote.close()
                raise RefusedError(f"it speaks version {remote.version}, which is not spoken here any more")
            self._remotes[store] = remote
            return remote
        except BaseException as error:
            self._failed[store] = time.monotonic() + RETRY_S
            self._met[store] = str(error) or f"no answer within {CONNECT_S:g} s"
            raise
        finally:
            del self._connecting[store]

    # -- calls on the primary of a partition

    def _primary(self, partition: int) -> str:
        if not self.map.partitions:
            raise UnavailableError("ServiceUnavailable", "The cluster has no stores yet; add them.")
        return self.map.partitions[partition].config.primary

    async def _at_primary(self, partition: int, call: Call[T]) -> T:
        """Raises UnavailableError where no primary answered in time, ForgottenError where it was asked once only."""
        deadline, again = self._clock() + PATIENCE_S, False
        while True:
            store = self._primary(partition)
            revision, reason = self.keeper.revision, ""
            try:
                return await self._while_primary(partition, store, call, again)
            except StaleError as error:
                reason = str(error)
            except ForgottenError as error:
                if not again:
                    raise
                raise LostError("ServiceUnavailable", f"{error}. Try again.") from error
            except (UnknownResultError, LostError) as error:
                again, reason = True, str(error)
            except UnavailableError as error:
                if self._ready(store) is not None and not again:
                    raise  # its own word: too much to do, or too few copies; none of what was sent before
                reason = str(error)
            await self._look(revision)
            if self._clock() > deadline:
                raise LostError("ServiceUnavailable", f"Partition {partition} is not served: {reason}. Try again.")

    async def _while_primary(self, partition: int, store: str, call: Call[T], again: bool) -> T:
        """The call's result. Raises LostError once another store became primary, for this one may stay silent."""
        if store == self._me and self._local is not None:
            return await call(self._local, again)
        node = await self.node(store)
        task = asyncio.ensure_future(call(node, again))
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=10 * LOOK_S)
                if not task.done() and self._primary(partition) != store:
                    raise LostError("ServiceUnavailable", f"store {store[:8]} is no longer primary")
            return task.result()
        finally:
            if not task.cancel() and not task.cancelled():
                task.exception()  # is looked at, though who asked has left just as it failed

    async def _look(self, revision: int) -> None:
        """Wait a little; where the map did not change meanwhile, ask for the newest."""
        await asyncio.sleep(LOOK_S)
        if self.keeper.revision == revision:
            try:
                await self.keeper.look()
            except CoordinatorError as error:
                log.warning("the map cannot be read: %s", error)

    async def layout(self) -> Layout:
        return Layout(self.map.count, self.map.data, self.map.parity)

    async def execute(
        self, partition: int, command: AnyCommand, command_id: bytes = b"", again: bool = False
    ) -> AnyAnswer:
        if command_id:
            return await self._send(partition, command, command_id, again)
        try:
            return await self._send(partition, command, self._new_id(), again)
        except ForgottenError as error:  # it was sent once, and not done: this clock is behind, or theirs was ahead
            self._ahead_ms = max(self._ahead_ms, error.before_ms + KEPT_MS // 2 - wall_ms())
            return await self._send(partition, command, self._new_id(), again)

    async def _send(self, partition: int, command: AnyCommand, named: bytes, again: bool) -> AnyAnswer:
        return await self._at_primary(
            partition, lambda node, repeated: node.execute(partition, command, named, again or repeated)
        )

    def _new_id(self) -> bytes:
        return keys.command_id(wall_ms() + self._ahead_ms, os.urandom(10))

    async def find_object(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        return await self._at_primary(partition, lambda node, _: node.find_object(partition, bucket, key, version))

    async def find_whole(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        return await self._at_primary(partition, lambda node, _: node.find_whole(partition, bucket, key, version))

    async def find_upload(
        self, partition: int, bucket: int, key: bytes, upload: bytes, after: int, limit: int
    ) -> UploadFound | None:
        return await self._at_primary(
            partition, lambda node, _: node.find_upload(partition, bucket, key, upload, after, limit)
        )

    async def find_content(self, partition: int, sha256: bytes) -> Content | None:
        return await self._at_primary(partition, lambda node, _: node.find_content(partition, sha256))

    async def find_blob(self, partition: int, blob: bytes) -> BlobFound:
        """The row, or what it was: what reading needs of it never changes. One with its bytes is its caller's to keep."""
        if (row := self._blobs.get(blob)) is None:
            row = await self._at_primary(partition, lambda node, _: node.find_blob(partition, blob))
            self._blobs |= {blob: row} if row.k else {}
            if len(self._blobs) > CACHED_BLOBS:
                self._blobs.popitem(last=False)
        return row

    async def find_bucket(self, name: str) -> Bucket | None:
        remote = self._remotes.get(self._primary(0))
        known = remote.known_bucket(name) if remote is not None else None
        return known or await self._at_primary(0, lambda node, _: node.find_bucket(name))

    async def find_identity(self, access_key: str) -> Identity | None:
        if self._local is not None and (root := self._local.root_identity(access_key)) is not None:
            return root
        remote = self._remotes.get(self._primary(0))
        known = remote.known_identity(access_key) if remote is not None else None
        return known or await self._at_primary(0, lambda node, _: node.find_identity(access_key))

    async def find_accounts(self, rows: list[bytes]) -> list[bytes | None]:
        return await self._at_primary(0, lambda node, _: node.find_accounts(rows))

    async def list_accounts(self, table: bytes) -> list[tuple[str, bytes]]:
        return await self._at_primary(0, lambda node, _: node.list_accounts(table))

    async def list_buckets(self) -> list[tuple[str, Bucket]]:
        return await self._at_primary(0, lambda node, _: node.list_buckets())

    async def list_users(self) -> list[tuple[User, list[str], list[Grant]]]:
        return await self._at_primary(0, lambda node, _: node.list_users())

    async def list_jobs(self) -> list[tuple[str, Job]]:
        return await self._at_primary(0, lambda node, _: node.list_jobs())

    async def list_blobs(self, partition: int, after: bytes) -> list[tuple[bytes, Blob]]:
        return await self._at_primary(partition, lambda node, _: node.list_blobs(partition, after))

    async def unknown_blobs(self, partition: int, blobs: list[bytes]) -> list[bytes]:
        return await self._at_primary(partition, lambda node, _: node.unknown_blobs(partition, blobs))

    async def heals_of(self, partition: int) -> int:
        return await self._at_primary(partition, lambda node, _: node.heals_of(partition))

    # -- calls on all primaries

    async def _everywhere(self, call: Callable[[NodeApi, Where], Awaitable[T]]) -> list[T]:
        """The call's results from all primaries, each for its partitions, each partition exactly once (L1)."""
        deadline = self._clock() + PATIENCE_S
        while True:
            revision, where = self.keeper.revision, dict[str, list[tuple[int, int]]]()
            self._primary(0)
            for number, one in enumerate(self.map.partitions):
                where.setdefault(one.config.primary, []).append((number, one.config.epoch))
            asked = [self._ask(store, named, call) for store, named in where.items()]
            results = await asyncio.gather(*asked, return_exceptions=True)
            if not (failures := [one for one in results if isinstance(one, BaseException)]):
                return results  # type: ignore[return-value]
            for failure in failures:
                if not isinstance(failure, CallError):
                    raise failure
            if self._clock() > deadline:
                raise LostError("ServiceUnavailable", f"Not all partitions are served: {failures[0]}. Try again.")
            await self._look(revision)

    async def _ask(self, store: str, where: Where, call: Callable[[NodeApi, Where], Awaitable[T]]) -> T:
        return await self._while_primary(where[0][0], store, lambda node, _: call(node, where), False)

    async def list_objects(self, bucket: int, query: Query, where: Where = ()) -> Page:
        pages = await self._everywhere(lambda node, named: node.list_objects(bucket, query, named))
        return merged_objects(pages, query.limit)

    async def list_uploads(
        self,
        bucket: int,
        prefix: bytes,
        delimiter: bytes,
        after_key: bytes,
        after_upload: bytes | None,
        limit: int,
        where: Where = (),
    ) -> UploadPage:
        pages = await self._everywhere(
            lambda node, named: node.list_uploads(bucket, prefix, delimiter, after_key, after_upload, limit, named)
        )
        return merged_uploads(pages, limit)

    async def bucket_counters(self, bucket: int, where: Where = ()) -> Counters:
        found = await self._everywhere(lambda node, named: node.bucket_counters(bucket, named))
        return summed(found)

    # -- shards

    def _holders(self, partition: int, position: int) -> list[str]:
        """Who may have a shard, the likeliest first."""
        one = self.map.partitions[partition].config
        return [x for x in dict.fromkeys((one.joining if one.position == position else "", one.members[position])) if x]

    async def append(self, shard: Shard, payload: memoryview | bytes, sync: bool) -> str:
        return await self.append_to(self.map.target(shard.partition, shard.position), shard, payload, sync)

    async def append_to(self, store: str, shard: Shard, payload: memoryview | bytes, sync: bool) -> str:
        """Raises OfflineError, DiskFullError."""
        if not store:
            raise OfflineError(f"nobody holds position {shard.position} of partition {shard.partition} now")
        try:
            async with tasks.awake_within(SHARD_S):
                return await (await self.node(store)).append(shard, payload, sync)
        except (UnavailableError, TimeoutError) as error:
            raise OfflineError(f"store {store[:8]} does not take {shard}: {error}") from error

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview:
        """Raises DamagedError, of which OfflineError is one."""
        failure: DamagedError = OfflineError(f"nobody holds {shard} now")
        holders = self._holders(shard.partition, shard.position)
        for store in holders:
            try:
                return await (await self.node(store)).read(shard, offset, length)
            except UnavailableError as error:
                failure = OfflineError(f"store {store[:8]} does not give {shard}: {error}")
            except DamagedError as error:
                failure = error
                if len(holders) == 1 and not isinstance(error, OfflineError):
                    self.report(shard)
        raise failure

    def report(self, shard: Shard) -> None:
        """Have a damaged shard made again; its partition's primary is told once a while."""
        name = (shard.partition, shard.blob, shard.position)
        if name in self._reported or self.map.parity == 0:
            return
        self._reported.add(name)
        self._spawn(self._need_heal(name))

    async def _need_heal(self, name: tuple[int, bytes, int]) -> None:
        partition, blob, position = name
        try:
            await self.execute(partition, commands.NeedHeal(blob, [position]))
        except Exception as error:  # whatever it was, it is reported when it is met again
            log.warning("blob %s, position %d: damage could not be reported: %s", blob.hex(), position, error)
        await asyncio.sleep(RETRY_S)
        self._reported.discard(name)

    def read_now(self, shard: Shard, offset: int, length: int) -> memoryview | None:
        if self._local is None or self._me not in self._holders(shard.partition, shard.position):
            return None
        return self._local.read_now(shard, offset, length)

    async def lacking(self, partition: int, position: int, blobs: list[tuple[bytes, Blob]]) -> list[bytes]:
        store = self.map.target(partition, position)
        try:
            return await (await self.node(store)).lacking(partition, position, blobs)
        except UnavailableError as error:
            raise OfflineError(f"store {store[:8]} does not answer: {error}") from error

    async def discard(self, partition: int, blob: bytes) -> None:
        await self.discard_all(partition, [blob])

    async def discard_all(self, partition: int, blobs: list[bytes]) -> None:
        """What cannot be reached keeps its shards until its auditor finds them (C3)."""
        config = self.map.partitions[partition].config
        stores = {store for store in (*config.members, config.joining) if store}
        await asyncio.gather(*(self.discard_at(store, partition, blobs) for store in stores))

    async def discard_at(self, store: str, partition: int, blobs: list[bytes]) -> None:
        try:
            await (await self.node(store)).discard_all(partition, blobs)
        except UnavailableError as error:
            log.info("store %s keeps shards of %d blobs, %s first: %s", store[:8], len(blobs), blobs[0].hex(), error)

    async def deliver(self, sender: str, messages: list[tuple[int, AnyMessage]]) -> None:
        raise UnavailableError("ServiceUnavailable", "Messages of replicas go from store to store.")

    async def wall_clock(self) -> float:
        return time.time()

    async def censuses(self) -> dict[str, Census | None]:
        """What each store that is not gone says of itself; None where it does not answer."""
        stores = [store for store, one in self.map.stores.items() if one.state != GONE]
        return dict(zip(stores, await asyncio.gather(*map(self._census_of, stores)), strict=True))

    async def _census_of(self, store: str) -> Census | None:
        try:
            async with tasks.awake_within(CENSUS_S):
                return await (await self.node(store)).census()
        except (UnavailableError, TimeoutError):
            return None

    async def census(self) -> Census:
        raise UnavailableError("ServiceUnavailable", "Ask one store for its census.")

    async def stats(self) -> dict[str, float]:
        found = [one for one in (await self.censuses()).values() if one is not None]
        uptime_s, used_bytes = max((one.uptime_s for one in found), default=0.0), sum(one.used_bytes for one in found)
        buckets = len(await self.list_buckets()) if self.map.partitions else 0
        return stats_of(uptime_s, buckets, used_bytes, summed(one.counters for one in found))

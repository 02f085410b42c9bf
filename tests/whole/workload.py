"""Clients as SDKs are: each request is tried again, elsewhere too, while its outcome is unknown or a 5xx; all is recorded.

A value is the name of the write that made it: every version carries it as metadata, and says by it which bytes it must
have. Some bytes are those of other writes too, so that content is shared.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from s4.erasure.codec import ErasureError
from s4.gateway import buckets, multipart, objects
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.multipart import Completion, WantedPart
from s4.gateway.objects import Attributes, Copy
from s4.gateway.read import Opened, open_object, stream
from s4.metadata.commands import Conditions
from s4.metadata.listing import Query
from s4.peer.api import StaleError, UnavailableError, UnknownResultError
from s4.s3 import conditions
from s4.s3.checksums import Expected
from s4.s3.chunked import PlainDecoder
from s4.s3.errors import S3Error
from s4.storage.records import DamagedError
from whole.world import LostError, Node, UnreachableError, World

FOREVER = float("inf")
KINDS = ("put", "get", "delete", "create", "swap", "copy", "multipart", "version", "tag", "document")
PROFILES = (
    (30, 28, 10, 6, 6, 8, 5, 12, 4, 4), (30, 28, 10, 6, 6, 8, 5, 12, 4, 4),
    (50, 20, 12, 0, 0, 0, 0, 0, 2, 2),  # bytes written and replaced: garbage, compaction
    (15, 15, 3, 2, 2, 2, 2, 4, 40, 25),  # what is said of objects and buckets
    (25, 20, 8, 3, 3, 40, 3, 3, 2, 2),  # copies
)
TAGGED, MOVED = b"tagged", 8
TRIES = 5
SIZES = (0, 40, 3000, 4096, 5000, 9000, 20_000, 50_000, 90_000)
CHANCES = (1, 5, 5, 6, 12, 12, 8, 3, 2)
Known = (DamagedError, UnavailableError, StaleError, UnknownResultError, ErasureError, TimeoutError)


@dataclass
class Call:
    """One attempt of an operation on a key. `end` is FOREVER where its outcome is not known; then `result` is None."""

    kind: str  # put, create, swap, delete, get
    value: str | None
    begin: float
    end: float = FOREVER
    result: Any = None
    expected: str = ""  # ETag of a swap


@dataclass
class Key:
    """What happened to one key. `bytes_of` and `etags` are those of values, by name."""

    calls: list[Call] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)  # acknowledged: id to value, empty for a marker
    dropped: set[str] = field(default_factory=set)  # versions that somebody asked to delete


class _Reads(random.Random):
    """Chooses to read."""

    def random(self) -> float:
        return 0.9


class Body:
    """A body that is at hand, in a few pieces."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self.decoder: Any = PlainDecoder(len(data))
        self._left = data

    async def read(self) -> bytes:
        data, self._left = self._left[:40_000], self._left[40_000:]
        if data:
            await asyncio.sleep(0)
        return data


class Workload:
    """`clients` clients that do `operations` each."""

    def __init__(self, world: World, *, clients: int = 4, operations: int = 75, keys: int = 0) -> None:
        self.world, self.loop = world, world.loop
        count = keys or random.Random(f"keys {world.seed}").choice((3, 8, 8))
        self.names = [b"k%d" % number for number in range(count)]
        self.history: dict[tuple[str, bytes], Key] = {}
        self.contents: dict[str, bytes] = {}
        self.copied: dict[str, set[str]] = {}  # values that a copy may have the bytes of
        self.etags: dict[str, str] = {}
        self.done = self.refused = self.failed = 0
        self.problems: list[str] = []
        self.shared = [random.Random(f"shared {world.seed} {one}").randbytes(size) for one, size in enumerate((4500, 6000, 12_000, 30_000))]
        self.tasks = [self._client(number, operations) for number in range(clients)]
        self.running = 0

    def key(self, bucket: str, key: bytes) -> Key:
        return self.history.setdefault((bucket, key), Key())

    def begin(self) -> None:
        self.running = len(self.tasks)
        for one in (*self.tasks, self.move()):
            self.loop.outside.kept.append(self.loop.outside.spawn(one))

    # -- requests

    async def ask(self, machine: Node, work: Callable[[Gateway], Awaitable[Any]]) -> Any:
        return await self.world.call(machine, work)

    async def tried(self, chosen: random.Random, call: Callable[[], Call | None], key: Key | None,
                    work: Callable[[Gateway], Awaitable[Any]]) -> tuple[Any, S3Error | None]:  # fmt: skip
        """(result, refusal) of a request that an SDK sends again; (None, None) where its outcome stays unknown.

        `call` makes what is recorded of each attempt; its outcome is put in by the caller, for the last one."""
        self.last: Any
        for attempt in range(TRIES):
            machine = chosen.choice(self.world.machines)
            record = call()
            if record is not None and key is not None:
                key.calls.append(record)
            try:
                result = await self.ask(machine, work)
            except UnreachableError:
                if record is not None and key is not None:
                    key.calls.remove(record)
            except LostError:
                pass
            except S3Error as error:
                if error.status < 500:
                    self._ended(record)
                    return record, error
            except Known:
                pass
            except Exception as error:
                self.problems.append(f"{self.loop.now:.3f} a request failed with {error!r}")
                raise
            else:
                self._ended(record)
                if record is not None:
                    record.result = result
                return record if record is not None else result, None
            await asyncio.sleep(0.1 * 2**attempt * (0.5 + chosen.random()))
        self.failed += 1
        return None, None

    def _ended(self, record: Call | None) -> None:
        if record is not None:
            record.end = self.loop.now

    # -- the clients

    async def _client(self, number: int, operations: int) -> None:
        chosen = random.Random(f"client {self.world.seed} {number}")
        weights = random.Random(f"profile {self.world.seed}").choice(PROFILES)
        try:
            for step in range(operations):
                kind = chosen.choices(KINDS, weights)[0]
                value = f"{number}.{step}"
                key = chosen.choice(self.names)
                await getattr(self, f"_{kind}")(chosen, key, value)
                self.done += 1
                await asyncio.sleep(chosen.expovariate(4.0))
        except Exception as error:
            self.problems.append(f"{self.loop.now:.3f} a client ended: {error!r}")
        finally:
            self.running -= 1

    def _content(self, chosen: random.Random, value: str) -> bytes:
        if chosen.random() < 0.3:
            data = chosen.choice(self.shared)
        else:
            size = chosen.choices(SIZES, CHANCES)[0]
            data = (value.encode() + b" " + chosen.randbytes(size))[:size]
        self.contents[value] = data
        self.etags[value] = hashlib.md5(data).hexdigest()
        return data

    async def _write(self, chosen: random.Random, bucket: str, key: bytes, value: str, kind: str, wanted: Conditions,
                     expected: str = "") -> Any:  # fmt: skip
        data = self._content(chosen, value)
        signed = hashlib.sha256(data).digest() if chosen.random() < 0.5 else None
        attributes = Attributes(metadata={"op": value})

        async def work(gateway: Gateway) -> Any:
            return await objects.put_object(gateway, bucket, key, Body(data), Expected(sha256=signed), attributes, "root", wanted)

        record, refusal = await self.tried(
            chosen, lambda: Call(kind, value, self.loop.now, expected=expected), self.key(bucket, key), work
        )
        if record is not None:
            put, record.result = record.result, refusal is None
            if refusal is not None and refusal.code not in ("PreconditionFailed", "NoSuchKey"):
                self.refused += 1
                self.key(bucket, key).calls.remove(record)
                self.world.counts[refusal.code] = self.world.counts.get(refusal.code, 0) + 1
            if refusal is None:
                return put
        return None

    async def _put(self, chosen: random.Random, key: bytes, value: str) -> None:
        await self._write(chosen, "plain", key, value, "put", Conditions())

    async def _create(self, chosen: random.Random, key: bytes, value: str) -> None:
        await self._write(chosen, "plain", key, value, "create", Conditions(if_none_match="*"))

    async def _swap(self, chosen: random.Random, key: bytes, value: str) -> None:
        seen = [one.result for one in self.key("plain", key).calls if one.kind == "get" and one.end < FOREVER and one.result]
        if seen and (etag := self.etags.get(seen[-1])):
            await self._write(chosen, "plain", key, value, "swap", Conditions(if_match=etag), etag)

    async def _get(self, chosen: random.Random, key: bytes, value: str) -> None:
        await self.read(chosen, "plain" if chosen.random() < 0.8 else "kept", key)

    async def read(self, chosen: random.Random, bucket: str, key: bytes) -> bool:
        """Whether it was answered. A read is a call on the key too."""
        async def work(gateway: Gateway) -> Any:
            opened = await open_object(gateway, bucket, key, "")
            with gateway.readers.reading():
                data = b"".join([bytes(piece) async for piece in stream(gateway, opened, 0, opened.row.size)])
            return opened.row.metadata["op"], data, opened.row.etag

        record, refusal = await self.tried(chosen, lambda: Call("get", None, self.loop.now), self.key(bucket, key), work)
        if record is None:
            return False
        if refusal is not None:
            record.result = None
            if refusal.code != "NoSuchKey":
                self.problems.append(f"{self.loop.now:.3f} GET {key!r}: {refusal}")
            return True
        value, data, etag = record.result
        record.result = value
        self.check(bucket, key, value, data, etag)
        return True

    def check(self, bucket: str, key: bytes, value: str, data: bytes, etag: str) -> None:
        """Whether bytes are those that the value was written with."""
        if data not in self._may_be(value, set()):
            self.problems.append(f"{self.loop.now:.3f} {bucket}/{key.decode()} has value {value} with other bytes ({len(data)})")
        self.etags[value] = etag

    def _may_be(self, value: str, seen: set[str]) -> list[bytes]:
        """The bytes that a value may have; a copy those of whatever was there to be copied."""
        if value not in self.copied:
            return [self.contents[value]] if value in self.contents else []
        seen.add(value)
        return [data for one in sorted(self.copied[value] - seen) for data in self._may_be(one, seen)]

    async def _delete(self, chosen: random.Random, key: bytes, value: str) -> None:
        async def work(gateway: Gateway) -> Any:
            return await objects.delete_object(gateway, "plain", key, "", "root")

        await self.tried(chosen, lambda: Call("delete", None, self.loop.now), self.key("plain", key), work)

    # -- copies

    async def _copy(self, chosen: random.Random, key: bytes, value: str) -> None:
        """As the S3 endpoint does it: open the source, judge its conditions, copy."""
        source = chosen.choice([one for one in self.names if one != key])
        from_key, to_key = self.key("plain", source), self.key("plain", key)
        seen = [one.result for one in from_key.calls if one.kind == "get" and one.end < FOREVER and one.result]
        wanted = self.etags.get(seen[-1], "") if seen and chosen.random() < 0.6 else ""
        self.copied[value] = {one.value for one in from_key.calls if one.value is not None}

        async def work(gateway: Gateway) -> Any:
            async def attempt() -> Any:
                opened: Opened = await open_object(gateway, "plain", source, "")
                if wanted:
                    conditions.check_read({"if-match": wanted}, opened.row.etag, opened.row.modified_ms)
                return await objects.copy_object(gateway, opened, Copy("plain", key, "root", Attributes(metadata={"op": value})))

            return await objects.while_it_changes(attempt)

        record, refusal = await self.tried(chosen, lambda: Call("put", value, self.loop.now), to_key, work)
        self.copied[value] |= {one.value for one in from_key.calls if one.value is not None}
        if record is None:
            return
        if refusal is not None:
            to_key.calls.remove(record)
            return
        self.etags[value] = record.result.etag
        if wanted and record.result.etag != wanted:
            self.problems.append(f"{self.loop.now:.3f} copy {value} if-match {wanted} took {record.result.etag}")
        record.result = True

    # -- multipart

    async def _multipart(self, chosen: random.Random, key: bytes, value: str) -> None:
        parts = [self._content(chosen, value) for _ in range(chosen.randint(1, 3))]
        parts = [(one + bytes(4096))[: max(4096, len(one))] for one in parts[:-1]] + parts[-1:]
        self.contents[value] = b"".join(parts)
        self.etags.pop(value, None)

        async def create(gateway: Gateway) -> Any:
            return await multipart.create_upload(gateway, "plain", key, Attributes(metadata={"op": value}), "root", "", "")

        made, refusal = await self.tried(chosen, lambda: None, None, create)
        if made is None or refusal is not None:
            return
        upload, wanted = made[0], []
        for number, data in enumerate(parts, 1):
            async def send(gateway: Gateway, number: int = number, data: bytes = data) -> Any:
                return await multipart.put_part(gateway, "plain", key, upload, number, Body(data), Expected())

            stored, refusal = await self.tried(chosen, lambda: None, None, send)
            if stored is None or refusal is not None:
                return
            wanted.append(WantedPart(number, stored[0].etag, {}))
        if chosen.random() < 0.1:
            async def abort(gateway: Gateway) -> Any:
                await multipart.abort_upload(gateway, "plain", key, upload)

            await self.tried(chosen, lambda: None, None, abort)
            return

        async def complete(gateway: Gateway) -> Any:
            return await multipart.complete_upload(gateway, "plain", key, upload, Completion(wanted))

        record, refusal = await self.tried(chosen, lambda: Call("put", value, self.loop.now), self.key("plain", key), complete)
        if record is not None and refusal is None:
            self.etags[value], record.result = record.result.etag, True
        elif record is not None and refusal is not None and refusal.code == "NoSuchUpload":
            # an attempt before may have completed it, and something newer has been put since
            record.end, record.result = FOREVER, None

    # -- versions

    async def _version(self, chosen: random.Random, key: bytes, value: str) -> None:
        known = self.key("kept", key)
        if chosen.random() < 0.6 or not known.versions:
            put = await self._write(chosen, "kept", key, value, "put", Conditions())
            if put is not None:
                known.versions[put.version] = value
            return
        if chosen.random() < 0.4:
            async def mark(gateway: Gateway) -> Any:
                return await objects.delete_object(gateway, "kept", key, "", "root")

            await self.tried(chosen, lambda: Call("delete", None, self.loop.now), known, mark)
            return
        await self.read_version(chosen, key, chosen.choice(sorted(known.versions)))

    async def read_version(self, chosen: random.Random, key: bytes, version: str) -> bool:
        known = self.key("kept", key)

        async def work(gateway: Gateway) -> Any:
            opened = await open_object(gateway, "kept", key, version)
            with gateway.readers.reading():
                data = b"".join([bytes(piece) async for piece in stream(gateway, opened, 0, opened.row.size)])
            return opened.row.metadata["op"], data, opened.row.etag

        found, refusal = await self.tried(chosen, lambda: None, None, work)
        if refusal is not None:
            self.problems.append(f"{self.loop.now:.3f} kept/{key.decode()} version {version} of {known.versions[version]}: {refusal}")
        elif found is not None:
            if found[0] != known.versions[version]:
                self.problems.append(f"version {version} of {key!r} is {found[0]}, not {known.versions[version]}")
            self.check("kept", key, *found)
        return found is not None or refusal is not None

    # -- what is said of objects and buckets, and jobs

    async def _tag(self, chosen: random.Random, _: bytes, value: str) -> None:
        """Tags of one object are a register of their own."""
        register = self.key("tags", TAGGED)

        async def put(gateway: Gateway) -> Any:
            await objects.change_object(gateway, "kept", TAGGED, "", tags={"t": value})

        async def get(gateway: Gateway) -> Any:
            return (await open_object(gateway, "kept", TAGGED, "")).row.tags.get("t")

        await self._register(chosen, register, value, put, get)

    async def _document(self, chosen: random.Random, _: bytes, value: str) -> None:
        register = self.key("documents", b"tags")

        async def put(gateway: Gateway) -> Any:
            await buckets.set_document(gateway, "plain", "tags", value)

        async def get(gateway: Gateway) -> Any:
            return (await find_bucket(gateway, "plain")).documents.get("tags")

        await self._register(chosen, register, value, put, get)

    async def _register(self, chosen: random.Random, register: Key, value: str, put: Any, get: Any) -> None:
        writes = chosen.random() < 0.5
        _, refusal = await self.tried(
            chosen, lambda: Call("put" if writes else "get", value if writes else None, self.loop.now), register, put if writes else get
        )
        if refusal is not None:
            self.problems.append(f"{self.loop.now:.3f} a setting was refused: {refusal}")

    async def move(self) -> None:
        """A prefix is renamed while all this goes on; it is to be done at the end."""
        chosen = random.Random(f"move {self.world.seed}")
        await asyncio.sleep(chosen.uniform(1.0, 10.0))
        while True:
            node = chosen.choice(self.world.nodes)
            renames = node.renames
            try:
                if renames is not None:
                    await self.world.call(node, lambda _, renames=renames: renames.start("moved", "a/", "b/"))
                    return
            except (UnreachableError, LostError, S3Error, *Known):
                pass
            await asyncio.sleep(0.5)

    async def moved(self) -> None:
        """Whether the rename came to its end."""
        chosen = random.Random(f"moved {self.world.seed}")

        async def listed(gateway: Gateway) -> Any:
            bucket = await find_bucket(gateway, "moved")
            page = await gateway.node.list_objects(bucket.id, Query(b"", b"", b"", b"", 100))
            return [item.key for item in page.items], [job for _, job in await gateway.node.list_jobs()]

        found, refusal = await self.tried(chosen, lambda: None, None, listed)
        if found is None or refusal is not None:
            self.problems.append(f"what was renamed cannot be listed: {refusal}")
            return
        if found[0] != [b"b/%d" % number for number in range(MOVED)] or any(not job.finished or job.error for job in found[1]):
            self.problems.append(f"a prefix was not renamed: {found}")

    # -- before and after

    async def prepare(self) -> None:
        """The buckets."""
        chosen = random.Random(f"prepare {self.world.seed}")

        async def plain(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, "plain", "root")

        async def kept(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, "kept", "root")
            await buckets.set_versioning(gateway, "kept", "Enabled")

        async def moved(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, "moved", "root")
            for number in range(MOVED):
                await objects.put_object(gateway, "moved", b"a/%d" % number, Body(b"x" * 100), Expected(), Attributes(), "root")

        async def tagged(gateway: Gateway) -> Any:
            await objects.put_object(gateway, "kept", TAGGED, Body(b"tagged"), Expected(), Attributes(), "root")

        for work in (plain, kept, moved, tagged):
            await self.tried(chosen, lambda: None, None, work)

    async def read_back(self) -> None:
        """Every key and every acknowledged version, at the end: each must be answered."""
        chosen = random.Random(f"after {self.world.seed}")
        await self.moved()
        for (bucket, key), known in sorted(self.history.items()):
            if bucket in ("tags", "documents"):
                await (self._tag if bucket == "tags" else self._document)(_Reads(), key, "")
                continue
            if not await self.read(chosen, bucket, key):
                self.problems.append(f"{bucket}/{key.decode()} cannot be read at the end")
            for version in sorted(known.versions):
                if not await self.read_version(chosen, key, version):
                    self.problems.append(f"{bucket}/{key.decode()} version {version} cannot be read at the end")

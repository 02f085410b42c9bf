"""What all clients do alike: each request is tried again, elsewhere too, while its outcome is unknown or a 5xx, as
SDKs do; every attempt is recorded, and what comes back is held against what went in.

A value is the name of the write that made it: every object carries it as metadata, and says by it which bytes it must
have. Some bytes are those of other writes too, in other buckets as well, so that content is shared.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from s4.erasure.codec import ErasureError
from s4.gateway import objects
from s4.gateway.context import Gateway
from s4.gateway.objects import Attributes, Put
from s4.gateway.read import open_object, stream
from s4.metadata.commands import NO_CONDITIONS, Conditions
from s4.peer.api import CallError
from s4.s3.checksums import Expected
from s4.s3.chunked import PlainDecoder
from s4.s3.errors import S3Error
from s4.s3.lock import NONE, Lock
from s4.storage.leveldb import AnyDatabaseError
from s4.storage.records import DamagedError
from whole.loop import EPOCH
from whole.world import LostError, Machine, UnreachableError, World

FOREVER = float("inf")
TRIES = 5  # in some seeds one: who is told nothing leaves it at that, and what was cut off is not sent again
SIZES = (0, 40, 3000, 4096, 5000, 9000, 20_000, 50_000, 90_000)
CHANCES = (1, 5, 5, 6, 12, 12, 8, 3, 2)
# What the S3 endpoint answers with a 5xx; a damaged database among them.
Known = (DamagedError, CallError, ErasureError, TimeoutError, AnyDatabaseError)
STEPS = frozenset(("wall step", "late leader"))  # faults after which a clock may be an hour off


@dataclass
class Call:
    """One attempt of an operation. `end` is FOREVER where its outcome is not known; then `result` is None."""

    kind: str
    value: Any
    begin: float
    end: float = FOREVER
    result: Any = None
    expected: Any = ""  # what else was asked for: the ETag of a swap


@dataclass
class Key:
    """What happened to one thing."""

    calls: list[Call] = field(default_factory=list)

    def known(self, kind: str) -> list[Call]:
        """Calls of a kind that were answered."""
        return [one for one in self.calls if one.kind == kind and one.end < FOREVER]


class History(NamedTuple):
    """Calls on one thing, what it was at first, and what a call does to it: (whether its result fits, what it is
    then)."""

    name: str
    calls: list[Call]
    initial: Any
    apply: Callable[[Call, Any], tuple[bool, Any]]


class Answer(NamedTuple):
    """What came back in the end: `record` is the last attempt. Neither result nor refusal where nobody knows."""

    record: Call | None
    result: Any
    refusal: S3Error | None

    @property
    def known(self) -> bool:
        return self.record is not None

    @property
    def done(self) -> bool:
        return self.record is not None and self.refusal is None


NOBODY_KNOWS = Answer(None, None, None)


class Found(NamedTuple):
    """An object that was read."""

    value: str
    data: bytes
    etag: str
    tags: dict[str, str]
    lock: Lock


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


class Clients:
    """Requests of all clients, and what is known of values."""

    def __init__(self, world: World) -> None:
        self.world, self.loop = world, world.loop
        self.contents: dict[str, bytes] = {}
        self.copied: dict[str, set[str]] = {}  # values that a copy may have the bytes of
        self.etags: dict[str, str] = {}
        self.kept: list[tuple[str, bytes, str, str]] = []  # (bucket, key, version, value) that stay as they are
        self.failed = 0
        self.tries = TRIES
        self.problems: list[str] = []
        self.happened: Collection[str] = ()  # kinds of faults, once all is over
        self.shared = [
            random.Random(f"shared {world.seed} {one}").randbytes(size)
            for one, size in enumerate((4500, 6000, 12_000, 30_000))
        ]

    def problem(self, text: str) -> None:
        self.problems.append(f"{self.loop.now:.3f} {text}")

    def now_ms(self) -> int:
        """What time it is where no clock is off."""
        return int((EPOCH + self.loop.now) * 1000)

    def slack_s(self) -> float:
        """By how much the time that something was decided by may have been off: as far as clocks were only where nobody
        could tell, with no peers or with two that were off at once (R13)."""
        stepped = bool(STEPS & set(self.happened))
        if stepped and (self.world.most_off > 1 or len({node.machine.name for node in self.world.nodes}) == 1):
            return 4100.0
        return 12.0 if stepped or "rate" in self.happened else 2.0

    # -- requests

    async def tried(
        self,
        chosen: random.Random,
        work: Callable[[Gateway], Awaitable[Any]],
        *,
        key: Key | None = None,
        call: Callable[[], Call] = lambda: Call("", None, 0.0),
        machines: Iterable[Machine] = (),
    ) -> Answer:
        """A request as an SDK sends it: again while its outcome is unknown, or a 5xx. `call` makes the record of an
        attempt."""
        for attempt in range(self.tries):
            machine = chosen.choice(list(machines) or self.world.machines)
            record = call()
            record.begin = self.loop.now
            if key is not None:
                key.calls.append(record)
            try:
                result = await self.world.call(machine, work)
            except UnreachableError:
                if key is not None:
                    key.calls.remove(record)
            except LostError:
                pass
            except S3Error as error:
                self.world.counts[error.code] += 1
                took_s = self.loop.now - record.begin + (FOREVER if self.world.most_off else 0.0)
                if error.code == "RequestTimeout" and took_s > min(self.world.age_s, self.world.least_age_s) - 1:
                    # C3: what takes longer than the auditor waits, and that by whole seconds, may have been collected,
                    # and nobody knows how old it is where clocks are off
                    if key is not None:
                        key.calls.remove(record)
                    return NOBODY_KNOWS
                if error.status < 500:
                    record.end = self.loop.now
                    return Answer(record, None, error)
            except Known as error:
                self.world.counts[type(error).__name__] += 1
            except Exception as error:
                self.problem(f"a request failed with {error!r}")
                raise
            else:
                record.end = self.loop.now
                return Answer(record, result, None)
            await asyncio.sleep(0.1 * 2**attempt * (0.5 + chosen.random()))
        self.failed += 1
        return NOBODY_KNOWS

    def content(self, chosen: random.Random, value: str) -> bytes:
        """Bytes of a new value: its own, or some that others have too."""
        if chosen.random() < 0.3:
            data = chosen.choice(self.shared)
        else:
            size = chosen.choices(SIZES, CHANCES)[0]
            data = (value.encode() + b" " + chosen.randbytes(size))[:size]
        self.contents[value] = data
        self.etags[value] = hashlib.md5(data).hexdigest()
        return data

    async def put(
        self,
        chosen: random.Random,
        bucket: str,
        key: bytes,
        value: str,
        *,
        of: Key,
        call: Callable[[], Call],
        wanted: Conditions = NO_CONDITIONS,
        lock: Lock = NONE,
        tags: dict[str, str] | None = None,
    ) -> tuple[Answer, Put | None]:
        """A PutObject of a new value. What it was told is in the answer; a refusal of it is the caller's to judge."""
        data = self.content(chosen, value)
        signed = hashlib.sha256(data).digest() if chosen.random() < 0.5 else None
        attributes = Attributes(metadata={"op": value}, lock=lock, tags=tags or {})

        async def work(gateway: Gateway) -> Put:
            return await objects.put_object(
                gateway, bucket, key, Body(data), Expected(sha256=signed), attributes, "root", wanted
            )

        answer = await self.tried(chosen, work, key=of, call=call)
        return answer, answer.result

    def took(self, answer: Answer) -> None:
        """Of a put that nothing forbids."""
        if answer.refusal is not None:
            self.problem(f"a version was refused: {answer.refusal}")

    async def get(
        self,
        chosen: random.Random,
        bucket: str,
        key: bytes,
        version: str = "",
        *,
        of: Key | None = None,
        call: Callable[[], Call] = lambda: Call("get", None, 0.0),
    ) -> Answer:
        """A GetObject with its bytes; its result is a Found."""

        async def once(gateway: Gateway) -> Found:
            opened, data = await open_object(gateway, bucket, key, version), b""
            try:
                async for piece in stream(gateway, opened, 0, opened.row.size):
                    data += bytes(piece)
            except DamagedError:
                if not data:  # else a part of it may have been answered
                    await objects.must_be_there(gateway, opened)
                raise
            row = opened.row
            return Found(
                row.metadata.get("op", ""),
                data,
                row.etag,
                row.tags,
                Lock(row.lock_mode, row.lock_until_ms, row.legal_hold),
            )

        async def work(gateway: Gateway) -> Found:
            """As a GetObject by HTTP does: what was replaced while it was opened is opened again."""
            with gateway.readers.reading():
                try:
                    return await once(gateway)
                except objects.SourceChangedError:
                    return await objects.while_it_changes(lambda: once(gateway))

        answer = await self.tried(chosen, work, key=of, call=call)
        if answer.done:
            self.check(f"{bucket}/{key.decode()}", answer.result)
        return answer

    def check(self, where: str, found: Found) -> None:
        """Whether bytes are those that the value was written with."""
        if found.value and found.data not in self._may_be(found.value, set()):
            self.problem(f"{where} has value {found.value} with other bytes ({len(found.data)})")
        self.etags[found.value] = found.etag

    def _may_be(self, value: str, seen: set[str]) -> list[bytes]:
        """The bytes that a value may have; a copy those of whatever was there to be copied."""
        if value not in self.copied:
            return [self.contents[value]] if value in self.contents else []
        seen.add(value)
        return [data for one in sorted(self.copied[value] - seen) for data in self._may_be(one, seen)]


class Area:
    """Some buckets or other things with the operations on them. `kinds` names those that clients choose from; what an
    area holds at the end to be wrong it says by `problem`."""

    kinds: tuple[str, ...] = ()

    def __init__(self, clients: Clients) -> None:
        self.clients, self.loop, self.world = clients, clients.loop, clients.world

    async def prepare(self, chosen: random.Random) -> None:
        """Before all, while nothing fails."""

    async def read_back(self, chosen: random.Random) -> None:
        """At the end, when all is whole: everything must be answered."""

    def histories(self) -> Iterator[History]:
        """What has to be linearizable."""
        return iter(())

    def judge(self) -> None:
        """What else is to be said, once all histories are known."""


def surely(writes: Iterable[Call], of: Call) -> Any:
    """What a thing was from a call's begin to its end, by those who wrote it; None where nobody can tell."""
    over = [one for one in writes if one.end < of.begin]
    last = max(over, key=lambda one: one.begin, default=None)
    if last is None or any(one.value != last.value and one.end > last.begin and one.begin < of.end for one in writes):
        return None
    return last.value


def settled(key: Key) -> Iterator[str]:
    """Of a setting that gateways cache (L2): sentences on reads that saw what another write had followed which was
    over before they began."""
    writes = [one for one in key.calls if one.kind == "put"]
    for read in key.known("get"):
        over = [one for one in writes if one.end < read.begin]
        may = {one.value for one in writes if one.begin < read.end and not any(other.begin > one.end for other in over)}
        if read.result not in may | (set() if over else {None}):
            yield f"was {read.result} at {read.begin:.3f}-{read.end:.3f}: it had been replaced by {sorted(map(str, may))}"


def register(call: Call, value: Any) -> tuple[bool, Any]:
    """A thing that is put, deleted and read; what it is "dropped" from goes only where it is still that; a "listed" is
    a read too."""
    if call.kind == "get":
        return call.result == value, value
    if call.kind == "dropped":
        return value == call.value, None
    return True, call.value

"""What every verb needs: the node, the limits, shared memory and caches. Holds no state that must survive.

`Readers` knows the oldest request that may still
read shards (rule D6), `BlobCache` keeps small hot blobs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from s4.access import documents
from s4.base.clock import boot_clock
from s4.config.limits import Limits
from s4.crypto.keyring import Keyring
from s4.erasure.codec import codec
from s4.gateway.buffers import StripeMemory
from s4.gateway.memory import MemoryBudget
from s4.gateway.quota import Quotas
from s4.gateway.rates import BucketRates
from s4.gateway.turns import Turns
from s4.metadata.commands import AnyAnswer, AnyCommand, Refused, Settings, Stale
from s4.metadata.keys import partition_of
from s4.metadata.rows import Bucket, Notify
from s4.peer.api import Layout, NodeApi, UnavailableError, UnknownResultError
from s4.s3.errors import S3Error

if TYPE_CHECKING:
    from s4.crypto.kms import Allowed, Kms

SETTINGS_TRIES = 8
ANSWER_COST = 64 * 1024  # as bytes: what comes after a commit takes the loop about as long
PACE = 250  # things that are done before others have a turn
T = TypeVar("T")
A = TypeVar("A", bound=AnyAnswer)


class Origin(NamedTuple):
    """Who changes something, from where, by which request: events say it."""

    user: str = ""
    address: str = ""
    request: str = ""


NOBODY = Origin()  # what S4 does by itself


class NotCommittedError(S3Error):
    """A command was refused by who decides: it surely changed nothing, so what was prepared for it can be dropped
    (R12)."""


class Readers:
    """Requests that may still read shards, oldest first. Stores free by their ages, also while this machine sleeps
    (D6)."""

    def __init__(self, clock: Callable[[], float] = boot_clock) -> None:
        self._clock = clock
        self._started: OrderedDict[int, float] = OrderedDict()
        self._next = 0

    def begin(self) -> int:
        """Note a request that is about to read; give the number to `end`."""
        self._next += 1
        self._started[self._next] = self._clock()
        return self._next

    def end(self, number: int) -> None:
        del self._started[number]

    @contextmanager
    def reading(self) -> Iterator[None]:
        number = self.begin()
        try:
            yield
        finally:
            self.end(number)

    def oldest(self) -> float:
        """When the oldest one began; now where there is none."""
        return next(iter(self._started.values())) if self._started else self._clock()

    def __len__(self) -> int:
        return len(self._started)


class BlobCache:
    """Whole small blobs, least recently used out first, bounded in bytes. A blob never changes."""

    def __init__(self, limit_bytes: int, blob_bytes: int = 64 * 1024) -> None:
        self._blobs: OrderedDict[bytes, bytes] = OrderedDict()
        self._limit, self.blob_bytes, self.size_bytes = limit_bytes, blob_bytes, 0

    def get(self, blob: bytes) -> bytes | None:
        data = self._blobs.get(blob)
        if data is not None:
            self._blobs.move_to_end(blob)
        return data

    def put(self, blob: bytes, data: bytes) -> None:
        if blob in self._blobs:
            return
        self._blobs[blob] = data
        self.size_bytes += len(data) + 200
        while self.size_bytes > self._limit:
            _, old = self._blobs.popitem(last=False)
            self.size_bytes -= len(old) + 200


class RandomBytes:
    """os.urandom in gulps: a system call for each id costs more than the id."""

    def __init__(self, gulp: int = 4096) -> None:
        self._gulp, self._at, self._pool = gulp, gulp, b""

    def __call__(self, size: int) -> bytes:
        if self._at + size > len(self._pool):
            self._pool, self._at = os.urandom(max(self._gulp, size)), 0
        self._at += size
        return self._pool[self._at - size : self._at]


async def paced(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, with a pause after so many, in which everybody else's work is done: for what may be ten thousand."""
    for number, item in enumerate(items, 1):
        yield item
        if number % PACE == 0:
            await asyncio.sleep(0)


@dataclass(slots=True)
class Gateway:
    """One gateway. `stripe_bytes` is the size of new stripes; `strict` wants every shard of a write at once (D1)."""

    node: NodeApi
    layout: Layout
    limits: Limits
    inline_bytes: int
    stripe_bytes: int
    dedup: bool
    memory: MemoryBudget
    readers: Readers
    cache: BlobCache
    pool: ThreadPoolExecutor
    strict: bool = False
    hedge_s: float = 0.2  # without a shard for so long, others are asked
    keyring: Keyring | None = None  # what secrets are sealed with, and keys of objects (SSE-S3)
    kms: Kms | None = None  # what wraps keys of objects (SSE-KMS)
    kms_allowed: Allowed | None = None  # which buckets may use which of its keys, where that is said
    bare_keys: bool = False  # whether keys that clients bring (SSE-C) may come without TLS
    open_buckets: bool = False  # new buckets begin with ACLs and without a public access block
    receivers: frozenset[str] = frozenset()  # of events, by name
    day_ms: int = 86_400_000  # of lifecycle rules
    commit_syncs: bool = True  # the node that commits holds the shards too, and syncs first what is little
    far: bool = False  # rows are another process's
    small_bytes: int = 0  # content up to here, and not inline, is in its blob's row (metadata/small.py); 0 is none
    quotas: Quotas = field(default_factory=Quotas)
    turns: Turns = field(default_factory=Turns)
    stripes: StripeMemory = field(init=False)
    bucket_rates: BucketRates = field(default_factory=BucketRates)
    random: Callable[[int], bytes] = field(default_factory=RandomBytes)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.stripes = StripeMemory(codec(self.layout.data, self.layout.parity).memory_bytes(self.stripe_bytes))

    @property
    def partitions(self) -> int:
        return self.layout.partitions

    @property
    def shards_needed(self) -> int:
        """Shards that must be durable before a write is acknowledged (rule D1)."""
        data, parity = self.layout.data, self.layout.parity
        return data + parity if self.strict else data + (1 if parity > 1 else 0)

    def now_ms(self) -> int:
        return int(self.clock() * 1000)


async def find_bucket(gateway: Gateway, name: str) -> Bucket:
    """Raises S3Error NoSuchBucket."""
    row = await gateway.node.find_bucket(name)
    if row is None:
        raise S3Error("NoSuchBucket", BucketName=name)
    return row


async def placed(gateway: Gateway, name: str, key: bytes) -> tuple[Bucket, int]:
    """A key's bucket and partition. Raises S3Error NoSuchBucket."""
    bucket = await find_bucket(gateway, name)
    return bucket, partition_of(bucket.id, key, gateway.partitions)


def expected(kind: type[A], answer: AnyAnswer) -> A:
    """An answer of the kind that a command has."""
    if not isinstance(answer, kind):
        raise S3Error("InternalError")
    return answer


async def execute(gateway: Gateway, partition: int, command: AnyCommand, named: bytes = b"") -> AnyAnswer:
    """Run a command; `named` is its id where it may have been sent before (R12). Raises NotCommittedError for a
    refusal, S3Error where nobody knows whether it took effect."""
    try:
        answer = await gateway.node.execute(partition, command, named, bool(named))
    except UnavailableError as error:
        raise S3Error(error.code, error.message, headers={"Retry-After": "1"}) from error
    except UnknownResultError as error:
        raise S3Error("ServiceUnavailable", f"{error}. Try again.", headers={"Retry-After": "1"}) from error
    if isinstance(answer, Refused):
        raise NotCommittedError(answer.code, answer.message)
    await gateway.turns.turn(ANSWER_COST)  # a turn of the writer answers many at once: others come between
    return answer


def settings_of(bucket: Bucket, name: str, origin: Origin = NOBODY) -> Settings:
    """What a commit carries of its bucket. Raises S3Error where that cannot be read."""
    default = documents.default_lock(bucket) if bucket.lock else None
    notify = notify_of(bucket, name, origin)
    if default is None:
        return Settings(bucket.id, bucket.revision, bucket.versioning, notify=notify)
    return Settings(bucket.id, bucket.revision, bucket.versioning, default.mode, default.lasts_ms, notify)


def notify_of(bucket: Bucket, name: str, origin: Origin) -> Notify | None:
    """Whom a change in a bucket tells, None where nobody."""
    rules = bucket.documents.get(documents.NOTIFICATION)
    return Notify(name, rules, *origin) if rules is not None else None


async def commit(
    gateway: Gateway,
    kind: type[A],
    name: str,
    bucket: Bucket,
    partition: int,
    command: Callable[[Settings], AnyCommand],
    named: Callable[[int], bytes] = lambda _: b"",
    *,
    origin: Origin = NOBODY,
) -> A:
    """Run a command that carries bucket settings and has this kind of answer; where they were stale, again with the
    newest (rule L2). `named`
    gives its id, another for each revision of the settings: that they were stale is remembered as its answer."""
    for _ in range(SETTINGS_TRIES):
        answer = await execute(gateway, partition, command(settings_of(bucket, name, origin)), named(bucket.revision))
        if not isinstance(answer, Stale):
            return expected(kind, answer)
        newer = await find_bucket(gateway, name)
        if newer.id != bucket.id:
            raise NotCommittedError("NoSuchBucket", BucketName=name)
        bucket = newer
    raise NotCommittedError("OperationAborted", "The bucket's settings keep changing. Try again.")

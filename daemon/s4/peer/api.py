"""What a node does for gateways. `node.base.Node` and `node.member.MemberNode` are the thing itself;
`peer.client.RemoteNode` sends frames to it.

Every value is msgspec-encodable, so the interface is also the wire format: `peer.frames` derives argument and
result types from these annotations. A parameter named `payload` and a `memoryview` result travel raw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from s4.cluster.messages import AnyMessage
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.listing import Page, Query
from s4.metadata.rows import Blob, Bucket, Content, Counters, Grant, Job, Upload, User
from s4.storage.records import Shard

Where = Sequence[tuple[int, int]]  # (partition, epoch)


class CallError(Exception):
    """A node did not do what it was asked, or nobody knows whether it did: what is done again and again goes on with
    the next one."""


class UnavailableError(CallError):
    """The node cannot be reached, is stopping or has too much to do. `code` is an S3 error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class LostError(UnavailableError):
    """The connection broke, or nobody answered: what was asked may happen."""


class StaleError(CallError):
    """This store does not serve that partition, at that epoch: what was asked was not done (R12). Look at the map."""


class UnknownResultError(CallError):
    """What was asked may happen or not: ask again under the same id (R12)."""


class ForgottenError(UnknownResultError):
    """The command's id is from before `before_ms`, and answers to such are forgotten: it was not decided now, and may
    have been once. Who surely sent it only once may send it under a newer id (R12)."""

    def __init__(self, message: str, before_ms: int) -> None:
        super().__init__(message)
        self.before_ms = before_ms


class Found(msgspec.Struct, frozen=True):
    """An object row as stored, and its version suffix; `content` are the bytes of its blob where they were asked for,
    and are in a row of its partition."""

    value: bytes
    suffix: bytes
    content: bytes = b""


class BlobFound(Blob, frozen=True):
    """A blob's row with the bytes that it has (metadata/small.py)."""

    content: bytes = b""


class UploadFound(msgspec.Struct, frozen=True):
    """An upload and its part rows, in order of part numbers, without content that is in them."""

    upload: Upload
    parts: list[bytes]


class UploadListed(msgspec.Struct, frozen=True):
    key: bytes
    upload: bytes
    row: Upload


class UploadPage(msgspec.Struct, frozen=True):
    """Uploads in order of key and id; common prefixes among them as bytes."""

    items: list[UploadListed | bytes]
    truncated: bool
    next_key: bytes
    next_upload: bytes


class Identity(msgspec.Struct, frozen=True):
    """Who holds an access key, with the secret to check signatures and what the user may do: roles of `s4 admin`, and
    documents of policies. `bounds` are documents of its permission boundary. Of a role there is no secret."""

    user: str
    secret: str
    grants: list[Grant]
    policies: list[str] = []
    bounds: list[str] = []
    id: str = ""
    path: str = "/"
    tags: dict[str, str] = {}
    role: bool = False
    canonical: str = ""
    rate: tuple[int, int] = (0, 0)


class Layout(msgspec.Struct, frozen=True):
    """Number of partitions; data and parity shards of new blobs."""

    partitions: int
    data: int
    parity: int


class Census(msgspec.Struct, frozen=True):
    """What one node says of itself. `led` are the partitions that it serves; the other numbers are sums over these:
    rows, heal rows, outbox rows, and by how many entries the slowest in-sync replica is behind."""

    store: str
    version: str
    uptime_s: float
    free_bytes: int
    total_bytes: int
    used_bytes: int
    reserve_bytes: int
    led: list[int]
    counters: Counters
    heals: int
    heals_failed: int
    outbox: int
    lag: int
    made_bytes: int
    filled: float
    alarms: list[str] = []
    unreached: dict[str, str] = {}  # stores that it has no connection to, and what was met when it tried last
    heals_of: dict[str, int] = {}  # heal rows by the store that lacks the shard
    small: int = 0  # whether rows may have content as far as it is concerned (upkeep/small.py)
    held: bytes = b""  # what its store keeps of a map that was lost (cluster/recovery.py)


def stats_of(uptime_s: float, buckets: int, used_bytes: int, sums: Counters) -> dict[str, float]:
    """What `/api/stats` shows."""
    return {
        "uptime_seconds": round(uptime_s, 3),
        "buckets_count": buckets,
        "objects_count": sums.objects,
        "logical_bytes": sums.bytes,
        "storage_used_bytes": used_bytes,
        "dedup_unique_blobs": sums.blobs,
        "dedup_total_references": sums.references,
        "dedup_saved_bytes": sums.saved,
        "dedup_ratio": round(sums.references / sums.blobs, 4) if sums.blobs else 1.0,
    }


class AccountsApi(Protocol):
    """Settings and identities: rows of partition 0 by their names."""

    async def find_bucket(self, name: str) -> Bucket | None: ...

    async def find_identity(self, access_key: str) -> Identity | None:
        """Who holds an access key; or the user or role that is named, as `user/NAME` or `role/NAME`."""
        ...

    async def find_accounts(self, rows: list[bytes]) -> list[bytes | None]:
        """Rows of partition 0 by their keys, as they are stored."""
        ...

    async def list_accounts(self, table: bytes) -> list[tuple[str, bytes]]:
        """All rows of a table of partition 0, by name."""
        ...

    async def list_buckets(self) -> list[tuple[str, Bucket]]: ...

    async def list_users(self) -> list[tuple[User, list[str], list[Grant]]]:
        """Every user with its access keys and grants."""
        ...

    async def list_jobs(self) -> list[tuple[str, Job]]: ...


class RowsApi(Protocol):
    """Objects, uploads and blobs as rows, and the commands that change them.

    Those that name partitions raise StaleError where another store serves them, `execute` also UnknownResultError.
    """

    async def execute(
        self, partition: int, command: AnyCommand, command_id: bytes = b"", again: bool = False
    ) -> AnyAnswer:
        """Have the partition's primary decide a command; returns when its entry is committed.

        `again`: it was sent before under this id, and maybe got there.
        """
        ...

    async def find_object(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        """The newest version, or the one named: a version id or "null"."""
        ...

    async def find_whole(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        """As `find_object`, with the bytes of its blob where the partition has them in a row. Of peers of version 2."""
        ...

    async def find_upload(
        self, partition: int, bucket: int, key: bytes, upload: bytes, after: int, limit: int
    ) -> UploadFound | None:
        """The upload with up to `limit` parts whose numbers are above `after`."""
        ...

    async def find_content(self, partition: int, sha256: bytes) -> Content | None: ...

    async def find_blob(self, partition: int, blob: bytes) -> BlobFound:
        """The row of a blob. Raises DamagedError where it is gone."""
        ...

    async def bucket_counters(self, bucket: int, where: Where = ()) -> Counters: ...

    async def list_objects(self, bucket: int, query: Query, where: Where = ()) -> Page:
        """One page of the partitions `where`, each at its epoch (L1); of all where none is named."""
        ...

    async def list_uploads(
        self,
        bucket: int,
        prefix: bytes,
        delimiter: bytes,
        after_key: bytes,
        after_upload: bytes | None,
        limit: int,
        where: Where = (),
    ) -> UploadPage: ...

    async def list_blobs(self, partition: int, after: bytes) -> list[tuple[bytes, Blob]]:
        """The next rows of a partition's blobs, in order of their ids."""
        ...

    async def unknown_blobs(self, partition: int, blobs: list[bytes]) -> list[bytes]:
        """Those of the blobs that have no row."""
        ...

    async def heals_of(self, partition: int) -> int:
        """Heal rows of a partition."""
        ...


class ShardsApi(Protocol):
    """Bytes. `append` also raises DiskFullError, `read` DamagedError, both OfflineError where the drive is away."""

    async def append(self, shard: Shard, payload: memoryview | bytes, sync: bool) -> str:
        """Append a shard to the store of its position; durable on return, with all before it, when `sync`.

        Returns the store and its process, as one word: all stripes must meet the same (D2). Without `sync` a commit
        that brings the blob, executed on this same node, makes it durable first.
        """
        ...

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview: ...

    def read_now(self, shard: Shard, offset: int, length: int) -> memoryview | None:
        """What `read` gives, where that takes no waiting; else None, and `read` is to be asked."""
        ...

    async def discard(self, partition: int, blob: bytes) -> None:
        """Drop the shards of a blob that was never committed."""
        ...

    async def discard_all(self, partition: int, blobs: list[bytes]) -> None:
        """Drop the shards of blobs of which nothing is left. Of peers of version 2; others are told of each."""
        ...

    async def lacking(self, partition: int, position: int, blobs: list[tuple[bytes, Blob]]) -> list[bytes]:
        """Those of the blobs of which this store does not have every shard of the position, by its index."""
        ...


class StatusApi(Protocol):
    """What nodes tell each other and people of themselves."""

    async def layout(self) -> Layout:
        """Partitions of the cluster and the geometry of new blobs."""
        ...

    async def deliver(self, sender: str, messages: list[tuple[int, AnyMessage]]) -> None:
        """What replicas of the store `sender` say to ours, each with its partition."""
        ...

    async def wall_clock(self) -> float:
        """Seconds since 1970, as this node has it."""
        ...

    async def census(self) -> Census:
        """What this node knows of itself and of the partitions that it serves."""
        ...

    async def stats(self) -> dict[str, float]:
        """What `/api/stats` shows."""
        ...


class NodeApi(AccountsApi, RowsApi, ShardsApi, StatusApi, Protocol):
    """Calls on one node, or on a whole cluster through `peer.router`. All raise UnavailableError."""

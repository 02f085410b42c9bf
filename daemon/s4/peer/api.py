"""What a node does for gateways. `node.Node` is the thing itself; `peer.client.RemoteNode` sends frames to it.

Every value is msgspec-encodable, so the interface is also the wire format: `peer.frames` derives argument and
result types from these annotations. A parameter named `payload` and a `memoryview` result travel raw.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from s4.cluster.wire import AnyMessage
from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.listing import Page, Query
from s4.metadata.rows import Blob, Bucket, Content, Grant, Upload
from s4.storage.records import Shard


class UnavailableError(Exception):
    """The node cannot be reached, is stopping or has too much to do. `code` is an S3 error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Found(msgspec.Struct, frozen=True):
    """An object row as stored, and its version suffix."""

    value: bytes
    suffix: bytes


class UploadFound(msgspec.Struct, frozen=True):
    """An upload and its part rows, in order of part numbers."""

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
    """Who holds an access key, with the secret to check signatures and what the user may do."""

    user: str
    secret: str
    grants: list[Grant]


class Layout(msgspec.Struct, frozen=True):
    """Number of partitions; data and parity shards of new blobs."""

    partitions: int
    data: int
    parity: int


class NodeApi(Protocol):
    """Calls on one node. All raise UnavailableError.

    `append` also DiskFullError, `read` DamagedError, both OfflineError where the drive is away.
    """

    async def layout(self) -> Layout:
        """Partitions of the cluster and the geometry of new blobs."""
        ...

    async def execute(self, partition: int, command: AnyCommand, command_id: bytes = b"") -> AnyAnswer:
        """Have the partition's primary decide a command; returns when its entry is committed."""
        ...

    async def find_object(self, partition: int, bucket: int, key: bytes, version: str) -> Found | None:
        """The newest version, or the one named: a version id or "null"."""
        ...

    async def find_upload(
        self, partition: int, bucket: int, key: bytes, upload: bytes, after: int, limit: int
    ) -> UploadFound | None:
        """The upload with up to `limit` parts whose numbers are above `after`."""
        ...

    async def find_content(self, partition: int, sha256: bytes) -> Content | None: ...

    async def find_blob(self, partition: int, blob: bytes) -> Blob:
        """The row of a blob. Raises DamagedError where it is gone."""
        ...

    async def find_bucket(self, name: str) -> Bucket | None: ...

    async def find_identity(self, access_key: str) -> Identity | None: ...

    async def list_buckets(self) -> list[tuple[str, Bucket]]: ...

    async def list_objects(self, bucket: int, query: Query) -> Page: ...

    async def list_uploads(
        self, bucket: int, prefix: bytes, delimiter: bytes, after_key: bytes, after_upload: bytes | None, limit: int
    ) -> UploadPage: ...

    async def append(self, shard: Shard, payload: memoryview | bytes, sync: bool) -> None:
        """Append a shard to the store of its position; durable on return, with all before it, when `sync`.

        Without `sync` a commit that brings the blob, executed on this same node, makes it durable first.
        """
        ...

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview: ...

    def read_now(self, shard: Shard, offset: int, length: int) -> memoryview | None:
        """What `read` gives, where that takes no waiting; else None, and `read` is to be asked."""
        ...

    async def discard(self, partition: int, blob: bytes) -> None:
        """Drop the shards of a blob that was never committed."""
        ...

    async def deliver(self, sender: str, messages: list[tuple[int, AnyMessage]]) -> None:
        """What replicas of the store `sender` say to ours, each with its partition."""
        ...

    async def stats(self) -> dict[str, float]:
        """What `/api/stats` shows."""
        ...

"""Buckets: create, delete, versioning. Settings reach every partition before a call returns (rules L2, L3)."""

from __future__ import annotations

from collections.abc import Sequence

from s4.access import documents
from s4.gateway.context import Gateway, NotCommittedError, execute, expected, find_bucket, settings_of
from s4.metadata.commands import (
    BeginDelete,
    BucketMade,
    CloseBucket,
    CreateBucket,
    EndDelete,
    ReopenBucket,
    SetDocument,
    SetLock,
    SetVersioning,
    SpreadSettings,
    Taken,
    UndoDelete,
)
from s4.metadata.rows import Bucket
from s4.s3.errors import S3Error

DOCUMENT_BYTES = 64 * 1024  # of one setting: all of them are in the bucket's row


async def create_bucket(
    gateway: Gateway, name: str, owner: str, documents: dict[str, str] | None = None, *, lock: bool = False
) -> Bucket:
    """`lock` is for good, and with versioning."""
    limits = gateway.limits
    command = CreateBucket(name, owner, limits.buckets_per_user, limits.buckets, lock, documents or {})
    bucket = expected(BucketMade, await execute(gateway, 0, command)).bucket
    if lock:
        await _spread(gateway, bucket)
    return bucket


async def set_versioning(gateway: Gateway, name: str, versioning: str) -> None:
    await _set(gateway, SetVersioning(name, versioning))


async def set_lock(gateway: Gateway, name: str, document: str) -> None:
    """Object lock for good, with a default retention or none. No commit under older settings succeeds on return."""
    await _set(gateway, SetLock(name, document))


async def _set(gateway: Gateway, command: SetVersioning | SetLock) -> None:
    await _spread(gateway, expected(BucketMade, await execute(gateway, 0, command)).bucket)


async def _spread(gateway: Gateway, bucket: Bucket) -> None:
    for partition in range(gateway.partitions):
        await execute(gateway, partition, SpreadSettings(settings_of(bucket, "")))


async def set_document(
    gateway: Gateway, name: str, setting: str, document: str, judged_by: Bucket | None = None, of: Sequence[str] = ()
) -> None:
    """Keep a setting that only gateways read, or remove it with an empty text. Every gateway obeys it on return, and
    no version ends by an older lifecycle. It was `judged_by` these settings `of` the bucket, and is kept only beside
    them."""
    if len(document.encode()) > DOCUMENT_BYTES:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(DOCUMENT_BYTES))
    seen = {one: judged_by.documents.get(one, "") for one in of} if judged_by is not None else {}
    answer = await execute(gateway, 0, SetDocument(name, setting, document, seen))
    if setting == documents.LIFECYCLE and isinstance(answer, BucketMade):
        await _spread(gateway, answer.bucket)


async def delete_bucket(gateway: Gateway, name: str) -> None:
    """Raises S3Error BucketNotEmpty with the bucket as it was."""
    await find_bucket(gateway, name)
    begun = expected(BucketMade, await execute(gateway, 0, BeginDelete(name, gateway.random(16))))
    await finish_delete(gateway, name, begun.bucket)


async def finish_delete(gateway: Gateway, name: str, bucket: Bucket) -> None:
    """Close the id in every partition and remove the row, or undo it all; also after a crash in between, and while
    others work on the same deletion. Raises S3Error with the bucket open, or for others to open."""
    token = bucket.deleting
    refusal = S3Error("OperationAborted", "The bucket was found in use while it was deleted. Try again.")
    if not bucket.undoing:
        try:
            for partition in range(gateway.partitions):
                await execute(gateway, partition, CloseBucket(bucket.id, token))
        except NotCommittedError as error:
            refusal = error
            await execute(gateway, 0, UndoDelete(name, token))
        else:
            ended = await execute(gateway, 0, EndDelete(name, token, done=True))
            if isinstance(ended, Taken) and ended.granted:
                return
    found = await gateway.node.find_bucket(name)
    if found is None or found.id != bucket.id:
        return  # somebody else ended it as done: what is closed stays closed
    for partition in range(gateway.partitions):
        await execute(gateway, partition, ReopenBucket(bucket.id, token))
    await execute(gateway, 0, EndDelete(name, token, done=False))
    raise refusal

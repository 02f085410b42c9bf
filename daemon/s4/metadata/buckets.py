"""Decisions on buckets. The bucket row is in partition 0; each partition knows the settings it needs.

Deleting (rule L3): partition 0 puts a token into the bucket row; each partition closes the id if it holds no
version of it; partition 0 removes the row. Where a partition does hold one, partition 0 first marks the deletion as
to be undone, so that nobody else who works on it can end it as done, then the others reopen, then the token goes.
Each step names the token and can be repeated by whoever finds it after a crash; tokens rise, so a partition that has
reopened is not closed once more by a message that comes late.
"""

from __future__ import annotations

import msgspec

from s4.metadata import gone, keys
from s4.metadata.commands import (
    BeginDelete,
    BucketMade,
    CloseBucket,
    CreateBucket,
    Done,
    EndDelete,
    ReopenBucket,
    SetDocument,
    SetLock,
    SetVersioning,
    SpreadSettings,
    Taken,
    UndoDelete,
)
from s4.metadata.entry import Entry, RefusalError, find
from s4.metadata.objects import bucket_state, check_settings
from s4.metadata.rows import Bucket, BucketState, Gone, decode, encode

LOCK = "lock"  # the document of the default retention
LIFECYCLE = "lifecycle"  # rests on the revision: no version ends by rules that were withdrawn before


def bucket_row(entry: Entry, name: str) -> Bucket:
    row = find(entry, Bucket, keys.named_row(keys.BUCKET, name))
    if row is None:
        raise RefusalError("NoSuchBucket", "The specified bucket does not exist")
    return row


def create(entry: Entry, command: CreateBucket) -> BucketMade:
    row_key = keys.named_row(keys.BUCKET, command.name)
    there = find(entry, Bucket, row_key)
    if there is not None and there.owner == command.owner:
        raise RefusalError(
            "BucketAlreadyOwnedByYou",
            "Your previous request to create the named bucket succeeded and you already own it.",
        )
    if there is not None:
        raise RefusalError(
            "BucketAlreadyExists",
            "The requested bucket name is not available. Please select a different name and try again.",
        )
    total = owned = 0
    for _, other in entry.scan(keys.table(0, keys.BUCKET)):
        total += 1
        owned += decode(Bucket, other).owner == command.owner
    if owned >= command.max_per_owner or total >= command.max_total:
        raise RefusalError("TooManyBuckets", "You have attempted to create more buckets than allowed")
    # The sequence of this entry was never given out before, so it is an id that no bucket had.
    # With a lock its settings are not those that a partition takes for granted, so that each is told: revision 2.
    versioning, revision = ("Enabled", 2) if command.lock else ("", 1)
    row = Bucket(
        entry.sequence,
        command.owner,
        entry.now_ms,
        revision,
        versioning,
        lock=command.lock,
        documents=command.documents,
    )
    entry.put(row_key, encode(row))
    return BucketMade(row)


def _open_row(entry: Entry, name: str) -> Bucket:
    """The row of a bucket that is not being deleted."""
    row = bucket_row(entry, name)
    if row.deleting:
        raise RefusalError(
            "OperationAborted",
            "A conflicting conditional operation is currently in progress against this resource. Try again.",
        )
    return row


def set_document(entry: Entry, command: SetDocument) -> BucketMade:
    old = _open_row(entry, command.name)
    if any(old.documents.get(name, "") != text for name, text in command.seen.items()):
        raise RefusalError(
            "OperationAborted", "Other settings of the bucket, which this one depends on, changed meanwhile. Try again."
        )
    documents = {**old.documents, command.setting: command.document}
    revision = old.revision + (command.setting == LIFECYCLE)
    row = msgspec.structs.replace(
        old, revision=revision, documents={name: text for name, text in documents.items() if text}
    )
    entry.put(keys.named_row(keys.BUCKET, command.name), encode(row))
    return BucketMade(row)


def set_versioning(entry: Entry, command: SetVersioning) -> BucketMade:
    old = _open_row(entry, command.name)
    if old.lock and command.versioning != "Enabled":
        raise RefusalError(
            "InvalidBucketState",
            "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
        )
    row = msgspec.structs.replace(old, revision=old.revision + 1, versioning=command.versioning)
    entry.put(keys.named_row(keys.BUCKET, command.name), encode(row))
    return BucketMade(row)


def set_lock(entry: Entry, command: SetLock) -> BucketMade:
    old = _open_row(entry, command.name)
    if old.versioning != "Enabled":
        raise RefusalError(
            "InvalidBucketState", "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
        )
    documents = {name: text for name, text in old.documents.items() if name != LOCK}
    if command.document:
        documents[LOCK] = command.document
    row = msgspec.structs.replace(old, revision=old.revision + 1, lock=True, documents=documents)
    entry.put(keys.named_row(keys.BUCKET, command.name), encode(row))
    return BucketMade(row)


def spread(entry: Entry, command: SpreadSettings) -> Done:
    check_settings(entry, command.settings)
    return Done()


def begin_delete(entry: Entry, command: BeginDelete) -> BucketMade:
    old = bucket_row(entry, command.name)
    token = old.deleting or entry.sequence.to_bytes(8, "big") + command.token[:8]
    row = msgspec.structs.replace(old, deleting=token)
    entry.put(keys.named_row(keys.BUCKET, command.name), encode(row))
    return BucketMade(row)


def close(entry: Entry, command: CloseBucket) -> Done:
    if next(entry.scan(keys.bucket_objects(entry.partition, command.bucket)), None) is not None:
        raise RefusalError(
            "BucketNotEmpty", "The bucket you tried to delete is not empty. You must delete all versions in the bucket."
        )
    state = bucket_state(entry, command.bucket)
    if command.token <= state.reopened:
        raise RefusalError("OperationAborted", "This deletion of the bucket was undone already. Try again.")
    prefix = keys.bucket_uploads(entry.partition, command.bucket)
    if next(entry.scan(prefix), None) is not None:
        gone.leave(entry, Gone([], command.bucket))
    _put_state(entry, command.bucket, msgspec.structs.replace(state, closed=state.closed or command.token))
    return Done()


def reopen(entry: Entry, command: ReopenBucket) -> Done:
    state = bucket_state(entry, command.bucket)
    closed = b"" if state.closed == command.token else state.closed
    reopened = max(state.reopened, command.token)
    _put_state(entry, command.bucket, msgspec.structs.replace(state, closed=closed, reopened=reopened))
    return Done()


def _put_state(entry: Entry, bucket: int, state: BucketState) -> None:
    entry.put(keys.bucket_state_row(entry.partition, bucket), encode(state))


def undo_delete(entry: Entry, command: UndoDelete) -> Taken:
    row_key = keys.named_row(keys.BUCKET, command.name)
    row = find(entry, Bucket, row_key)
    if row is None or row.deleting != command.token:
        return Taken(False)
    entry.put(row_key, encode(msgspec.structs.replace(row, undoing=True)))
    return Taken(True)


def end_delete(entry: Entry, command: EndDelete) -> Taken:
    row_key = keys.named_row(keys.BUCKET, command.name)
    row = find(entry, Bucket, row_key)
    if row is None or row.deleting != command.token or row.undoing == command.done:
        return Taken(False)
    if command.done:
        entry.delete(row_key)
    else:
        entry.put(row_key, encode(msgspec.structs.replace(row, deleting=b"", undoing=False)))
    return Taken(True)

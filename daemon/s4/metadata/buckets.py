"""Decisions on buckets. The bucket row is in partition 0; each partition knows the settings it needs.

Deleting (rule L3): partition 0 puts a token into the bucket row; each partition closes the id if it holds no
version of it; partition 0 removes the row, or takes the token out again after the others reopened. Each step
names the token and can be repeated, so whoever finds a token after a crash finishes or undoes it.
"""

from __future__ import annotations

import msgspec

from s4.metadata import keys, uploads
from s4.metadata.commands import (
    BeginDelete,
    BucketMade,
    CloseBucket,
    CreateBucket,
    Done,
    EndDelete,
    ReopenBucket,
    SetVersioning,
    SpreadSettings,
)
from s4.metadata.entry import Entry, RefusalError
from s4.metadata.objects import check_settings
from s4.metadata.rows import Bucket, BucketState, decode, encode


def bucket_row(entry: Entry, name: str) -> Bucket:
    value = entry.get(keys.named_row(keys.BUCKET, name))
    if value is None:
        raise RefusalError("NoSuchBucket", "The specified bucket does not exist")
    return decode(Bucket, value)


def create(entry: Entry, command: CreateBucket) -> BucketMade:
    row_key = keys.named_row(keys.BUCKET, command.name)
    value = entry.get(row_key)
    if value is not None:
        mine = decode(Bucket, value).owner == command.owner
        raise RefusalError(
            *(
                (
                    "BucketAlreadyOwnedByYou",
                    "Your previous request to create the named bucket succeeded and you already own it.",
                )
                if mine
                else (
                    "BucketAlreadyExists",
                    "The requested bucket name is not available. Please select a different name and try again.",
                )
            )
        )
    total = owned = 0
    for _, other in entry.scan(keys.table(0, keys.BUCKET)):
        total += 1
        owned += decode(Bucket, other).owner == command.owner
    if owned >= command.max_per_owner or total >= command.max_total:
        raise RefusalError("TooManyBuckets", "You have attempted to create more buckets than allowed")
    # The sequence of this entry was never given out before, so it is an id that no bucket had.
    row = Bucket(entry.sequence, command.owner, entry.now_ms, lock=command.lock)
    entry.put(row_key, encode(row))
    return BucketMade(row)


def set_versioning(entry: Entry, command: SetVersioning) -> BucketMade:
    old = bucket_row(entry, command.name)
    if old.deleting:
        raise RefusalError(
            "OperationAborted",
            "A conflicting conditional operation is currently in progress against this resource. Try again.",
        )
    row = msgspec.structs.replace(old, revision=old.revision + 1, versioning=command.versioning)
    entry.put(keys.named_row(keys.BUCKET, command.name), encode(row))
    return BucketMade(row)


def spread(entry: Entry, command: SpreadSettings) -> Done:
    check_settings(entry, command.settings)
    return Done()


def begin_delete(entry: Entry, command: BeginDelete) -> BucketMade:
    old = bucket_row(entry, command.name)
    token = old.deleting or command.token
    row = msgspec.structs.replace(old, deleting=token)
    entry.put(keys.named_row(keys.BUCKET, command.name), encode(row))
    return BucketMade(row)


def close(entry: Entry, command: CloseBucket) -> Done:
    if next(entry.scan(keys.bucket_objects(entry.partition, command.bucket)), None) is not None:
        raise RefusalError(
            "BucketNotEmpty", "The bucket you tried to delete is not empty. You must delete all versions in the bucket."
        )
    row_key = keys.bucket_state_row(entry.partition, command.bucket)
    value = entry.get(row_key)
    state = decode(BucketState, value) if value is not None else BucketState(1, "")
    prefix = keys.bucket_uploads(entry.partition, command.bucket)
    for upload_key, _ in list(entry.scan(prefix)):
        key, upload = keys.split_upload(upload_key[len(prefix) :])
        uploads.remove(entry, command.bucket, key, upload)
    entry.put(row_key, encode(BucketState(state.revision, state.versioning, state.closed or command.token)))
    return Done()


def reopen(entry: Entry, command: ReopenBucket) -> Done:
    row_key = keys.bucket_state_row(entry.partition, command.bucket)
    value = entry.get(row_key)
    if value is not None:
        state = decode(BucketState, value)
        if state.closed == command.token:
            entry.put(row_key, encode(BucketState(state.revision, state.versioning)))
    return Done()


def end_delete(entry: Entry, command: EndDelete) -> Done:
    row_key = keys.named_row(keys.BUCKET, command.name)
    value = entry.get(row_key)
    if value is None:
        return Done()
    row = decode(Bucket, value)
    if row.deleting != command.token:
        return Done()
    if command.done:
        entry.delete(row_key)
    else:
        entry.put(row_key, encode(msgspec.structs.replace(row, deleting=b"")))
    return Done()

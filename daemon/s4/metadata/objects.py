"""Decisions on objects: put and delete, with versioning (S3 API: PutObject, DeleteObject, versioning guide).

Rules for editors: a null version is unique in its key; the newest row of a key is what an unversioned read
sees; each removed row lets go of its extents in the same entry.
"""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from s4.metadata import classes, events, gone, keys, locks, nulls, references
from s4.metadata.commands import (
    ChangeObject,
    Conditions,
    Deleted,
    DeleteIfNewest,
    DeleteObject,
    Done,
    Expire,
    Judged,
    PutObject,
    Rewrap,
    Settings,
    Stale,
    Written,
)
from s4.metadata.entry import Entry, RefusalError, find
from s4.metadata.rows import (
    BucketState,
    Object,
    RemoveSource,
    Upload,
    decode,
    decode_object,
    encode,
    encode_object,
)


class StaleSettingsError(Exception):
    """Answered as `Stale`."""

    answer = Stale()


def check_settings(entry: Entry, settings: Settings) -> None:
    """The partition adopts newer settings and sends older ones back (rules L2, L3)."""
    row = keys.bucket_state_row(entry.partition, settings.bucket)
    state = find(entry, BucketState, row)
    if state is None:
        if settings.revision > 1:
            entry.put(row, encode(BucketState(settings.revision, settings.versioning)))
        return
    if state.closed:
        raise RefusalError("NoSuchBucket", "The specified bucket does not exist")
    if settings.revision < state.revision:
        raise StaleSettingsError
    if settings.revision > state.revision:
        entry.put(row, encode(replace(state, revision=settings.revision, versioning=settings.versioning)))


def check_conditions(conditions: Conditions, newest: Object | None) -> None:
    """Conditional writes against the current version; a delete marker counts as no object."""
    current = None if newest is None or newest.marker else newest
    if conditions.if_none_match and current is not None and conditions.if_none_match in ("*", current.etag):
        raise RefusalError("PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    if conditions.if_match:
        if current is None:
            raise RefusalError("NoSuchKey", "The specified key does not exist.")
        if conditions.if_match not in ("*", current.etag):
            raise RefusalError("PreconditionFailed", "At least one of the pre-conditions you specified did not hold")


def put(entry: Entry, command: PutObject) -> Written:
    check_settings(entry, command.settings)
    references.bring(entry, command.blobs, command.granted, command.settings.bucket, command.key)
    settings, key, row = command.settings, command.key, command.row
    written = write_version(entry, settings, key, row, command.inline, command.conditions)
    if command.rename_from:
        source = command.rename_from, command.rename_version
        entry.post(RemoveSource(settings.bucket, *source, settings.notify, entry.now_ms))
    events.tell(entry, settings.notify, command.event, key, written.version, row)
    return written


def write_version(
    entry: Entry, settings: Settings, key: bytes, row: Object, inline: bytes, conditions: Conditions
) -> Written:
    """Put a new newest version, replacing the null version where the bucket's setting says so."""
    bucket = settings.bucket
    found = entry.newest(bucket, key)
    if conditions.if_match or conditions.if_none_match:
        check_conditions(conditions, decode_object(found[1])[0] if found else None)
    modified_ms = entry.stamp_ms(row.modified_ms)
    if modified_ms != row.modified_ms:
        row = replace(row, modified_ms=modified_ms)
    if settings.lock_mode and not row.lock_mode and not row.marker:
        row = replace(row, lock_mode=settings.lock_mode, lock_until_ms=entry.lasting_ms(settings.lock_ms))
    versioned = settings.versioning == "Enabled"
    if not versioned and found is not None:
        remove_null(entry, bucket, key, found, settings.versioning == "")
    row_key = keys.object_row(entry.partition, bucket, key, entry.epoch, entry.sequence)
    entry.put(row_key, encode_object(row, inline))
    if not row.marker:
        entry.count(bucket, objects=1, size=row.size)
    version = keys.version_id(row_key[-keys.VERSION_BYTES :]) if versioned else "null"
    return Written(version if settings.versioning else "", row.etag)


def remove_null(entry: Entry, bucket: int, key: bytes, newest: tuple[bytes, bytes], only: bool) -> None:
    """Remove the null version. In a bucket that never had versioning it is the `only` row there is."""
    if only:
        remove_row(entry, bucket, *newest)
        return
    null = find_null(entry, bucket, key)
    if null is not None:
        remove_row(entry, bucket, *null)


def find_null(entry: Entry, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
    prefix = keys.object_versions(entry.partition, bucket, key)
    return nulls.find(entry.scan(prefix), entry.nulls.get(prefix), entry.get)


def remove_row(entry: Entry, bucket: int, row_key: bytes, value: bytes, *, bypass: bool = False) -> Object:
    """The one way out for a version. Raises RefusalError where it is locked."""
    row, _ = decode_object(value)
    if row.lock_mode or row.legal_hold:
        locks.check_removal(row, entry.expiry_ms, bypass=bypass)
    entry.delete(row_key)
    gone.release(entry, row.extents)
    if not row.marker:
        entry.count(bucket, objects=-1, size=-row.size)
    return row


def delete(entry: Entry, command: DeleteObject) -> Deleted:
    check_settings(entry, command.settings)
    settings, key = command.settings, command.key
    bucket = settings.bucket
    if command.version:
        return delete_version(entry, command)
    found = entry.newest(bucket, key)
    if command.conditions.if_match:
        check_conditions(command.conditions, decode_object(found[1])[0] if found else None)
    return delete_newest(entry, settings, key, found, command.owner, "ObjectRemoved")


def delete_newest(
    entry: Entry,
    settings: Settings,
    key: bytes,
    found: tuple[bytes, bytes] | None,
    owner: str,
    cause: str,
    *,
    owed: bool = False,
) -> Deleted:
    """Remove what there is, or put a delete marker on it, as the bucket's versioning says."""
    if settings.versioning == "":
        if found is not None:
            row = remove_row(entry, settings.bucket, *found)
            events.tell(entry, settings.notify, f"{cause}:Delete", key, "", row, owed=owed)
        return Deleted()
    null = settings.versioning == "Suspended"
    marker = Object(entry.now_ms, 0, "", marker=True, null=null, owner=owner)
    written = write_version(entry, settings, key, marker, b"", Conditions())
    events.tell(entry, settings.notify, f"{cause}:DeleteMarkerCreated", key, written.version, marker, owed=owed)
    return Deleted(written.version, marker=True)


def bucket_state(entry: Entry, bucket: int) -> BucketState:
    return find(entry, BucketState, keys.bucket_state_row(entry.partition, bucket)) or BucketState(1, "")


def _must_be_due(entry: Entry, bucket: int, key: bytes, found: tuple[bytes, bytes], judged: Judged | None) -> None:
    """Raises RefusalError where a version is not any more what lifecycle judged: by rules that were withdrawn since, by
    tags that it has no more, or among newer ones that are gone."""
    if judged is None:
        return
    row, _ = decode_object(found[1])
    same = judged.revision >= bucket_state(entry, bucket).revision and row.tags == judged.tags
    if same and judged.kept:
        newer = list(islice(entry.scan(keys.object_versions(entry.partition, bucket, key)), judged.kept + 1))
        same = len(newer) > judged.kept and newer[-1][0] < found[0]  # the current one, and those that are kept
    if not same:
        raise RefusalError("OperationAborted", "The version or the bucket's rules changed since they were looked at.")


def delete_if_newest(entry: Entry, command: DeleteIfNewest) -> Deleted:
    found = entry.newest(command.bucket, command.key)
    if found is None or keys.version_id(found[0][-keys.VERSION_BYTES :]) != command.version:
        return Deleted()
    state = bucket_state(entry, command.bucket)
    _must_be_due(entry, command.bucket, command.key, found, command.judged)
    settings = Settings(command.bucket, state.revision, state.versioning, notify=command.notify)
    check_settings(entry, settings)
    return delete_newest(entry, settings, command.key, found, "", command.cause, owed=command.cause == "ObjectRemoved")


def expire(entry: Entry, command: Expire) -> Deleted:
    """Refused where this node's clock is not to be trusted (R13)."""
    if not entry.expiry_ms:
        raise RefusalError("ServiceUnavailable", "This node's clock differs from its peers'.")
    suffix = keys.parse_version_id(command.version)
    prefix = keys.object_versions(entry.partition, command.bucket, command.key)
    value = entry.get(prefix + suffix) if suffix is not None else None
    if suffix is None or value is None:
        return Deleted()
    versions = entry.scan(prefix)
    newest, older = next(versions, None), next(versions, None)
    if (
        newest is not None
        and newest[0] == prefix + suffix
        and (older is not None or not decode_object(value)[0].marker)
    ):
        return Deleted()  # it is the current version
    _must_be_due(entry, command.bucket, command.key, (prefix + suffix, value), command.judged)
    row = remove_row(entry, command.bucket, prefix + suffix, value)
    events.tell(entry, command.notify, events.EXPIRED, command.key, command.version, row)
    return Deleted(command.version, row.marker)


def find_version(entry: Entry, bucket: int, key: bytes, version: str) -> tuple[bytes, bytes] | None:
    """The row of a version by its id, or of the null version."""
    if version == "null":
        return find_null(entry, bucket, key)
    suffix = keys.parse_version_id(version)
    if suffix is None:
        raise RefusalError("InvalidArgument", "Invalid version id specified")
    row_key = keys.object_versions(entry.partition, bucket, key) + suffix
    value = entry.get(row_key)
    return (row_key, value) if value is not None and not decode_object(value)[0].null else None


def change(entry: Entry, command: ChangeObject) -> Written:
    check_settings(entry, command.settings)
    bucket, key, version = command.settings.bucket, command.key, command.version
    found = find_version(entry, bucket, key, version) if version else entry.newest(bucket, key)
    if found is None:
        raise RefusalError(
            *(
                ("NoSuchVersion", "The specified version does not exist.")
                if version
                else ("NoSuchKey", "The specified key does not exist.")
            )
        )
    if command.seen and found[0][-keys.VERSION_BYTES :] != command.seen:
        raise RefusalError("OperationAborted", "The object was replaced while its change was prepared. Try again.")
    if command.judged is not None:
        _must_be_due(entry, bucket, key, found, command.judged)
        newest = entry.newest(bucket, key)
        if version and newest is not None and newest[0] == found[0]:
            raise RefusalError("OperationAborted", "The version is the current one by now.")
    row, inline = decode_object(found[1])
    if row.marker:
        raise RefusalError("MethodNotAllowed", "The specified method is not allowed against this resource.")
    row = replace(
        row,
        tags=row.tags if command.tags is None else command.tags,
        acl=row.acl if command.acl is None else command.acl,
        legal_hold=row.legal_hold if command.hold is None else command.hold,
        hold_told=row.hold_told or command.hold is not None,
    )
    if command.storage_class:
        row = replace(row, headers={**row.headers, classes.NAME: command.storage_class})
    if command.retention is not None:
        row = locks.retained(row, *command.retention, entry.expiry_ms, bypass=command.bypass)
    entry.put(found[0], encode_object(row, inline))
    shown = "null" if row.null else keys.version_id(found[0][-keys.VERSION_BYTES :])
    written = Written(shown if command.settings.versioning else "", row.etag)
    if command.tags is not None:
        events.tell(
            entry,
            command.settings.notify,
            events.TAGGED if command.tags else events.UNTAGGED,
            key,
            written.version,
            row,
        )
    if command.acl is not None:
        events.tell(entry, command.settings.notify, events.ACL, key, written.version, row)
    if command.storage_class:
        events.tell(entry, command.settings.notify, events.MOVED, key, written.version, row)
    return written


def rewrap(entry: Entry, command: Rewrap) -> Done:
    """Of the row it changes the wrapped key only: the bytes and who may read them stay."""
    value, row_key = entry.get(command.row), command.row
    if value is None:
        return Done()
    if row_key.startswith(keys.table(entry.partition, keys.OBJECT)):
        row, inline = decode_object(value)
        if row.sealing is not None and row.sealing.wrapped == command.before:
            entry.put(row_key, encode_object(replace(row, sealing=replace(row.sealing, wrapped=command.after)), inline))
    elif row_key.startswith(keys.table(entry.partition, keys.UPLOAD)):
        upload = decode(Upload, value)
        if upload.sealing is not None and upload.sealing.wrapped == command.before:
            entry.put(row_key, encode(replace(upload, sealing=replace(upload.sealing, wrapped=command.after))))
    return Done()


def delete_version(entry: Entry, command: DeleteObject) -> Deleted:
    """Remove one version for good. A version that is not there is deleted already, as S3 answers."""
    bucket, key = command.settings.bucket, command.key
    found = find_version(entry, bucket, key, command.version)
    if found is None:
        return Deleted(command.version)
    if command.conditions.if_match:
        check_conditions(command.conditions, decode_object(found[1])[0])
    row = remove_row(entry, bucket, *found, bypass=command.bypass)
    events.tell(entry, command.settings.notify, events.DELETE, key, command.version, row)
    return Deleted(command.version, row.marker)

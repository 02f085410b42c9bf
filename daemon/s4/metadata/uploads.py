"""Decisions on multipart uploads. Completion writes a manifest of the parts; no byte moves.

An upload, its parts and its object are rows of one partition. Parts hold references that completion carries
into the object row unchanged (C1); what completion or abort leaves out is let go in the same entry.
"""

from __future__ import annotations

from msgspec.structs import replace

from s4.metadata import events, gone, keys, references
from s4.metadata.commands import AbortUpload, CompleteUpload, CreateUpload, Done, PutPart, Written
from s4.metadata.entry import Entry, RefusalError, find
from s4.metadata.objects import check_settings, write_version
from s4.metadata.rows import Extent, Part, Upload, decode, encode

SHORT = 1024  # of a part's row: it has little content, or none, and goes as it is


def without_content(value: bytes) -> bytes:
    """A part's row for who has to know of the part: ten thousand may have their bytes in them."""
    return value if len(value) <= SHORT else encode(replace(decode(Part, value), inline=b""))


def _upload(entry: Entry, bucket: int, key: bytes, upload: bytes) -> Upload:
    row = find(entry, Upload, keys.upload_row(entry.partition, bucket, key, upload))
    if row is None:
        raise RefusalError(
            "NoSuchUpload",
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
        )
    return row


def create(entry: Entry, command: CreateUpload) -> Done:
    check_settings(entry, command.settings)
    row = keys.upload_row(entry.partition, command.settings.bucket, command.key, command.upload)
    entry.put(row, encode(replace(command.row, created_ms=entry.stamp_ms(command.row.created_ms))))
    return Done()


def put_part(entry: Entry, command: PutPart) -> Written:
    check_settings(entry, command.settings)
    bucket, key, extent = command.settings.bucket, command.key, command.extent
    _upload(entry, bucket, key, command.upload)
    references.bring(entry, command.blobs, command.granted, bucket, key, command.upload)
    row = keys.part_row(entry.partition, bucket, key, command.upload, extent.number)
    old = find(entry, Part, row)
    if old is not None:
        gone.release(entry, [old.extent])
    entry.put(row, encode(Part(entry.now_ms, extent, command.inline, command.brought)))
    return Written("", extent.etag)


def complete(entry: Entry, command: CompleteUpload) -> Written:
    check_settings(entry, command.settings)
    bucket, key, upload = command.settings.bucket, command.key, command.upload
    row = replace(command.row, sealing=_upload(entry, bucket, key, upload).sealing)  # it may have been wrapped anew
    chosen = {extent.number: extent for extent in command.row.extents}
    inline: dict[int, bytes] = {}
    unused: list[Extent] = []
    for _, value in entry.scan(keys.upload_parts(entry.partition, bucket, key, upload)):
        part = decode(Part, value)
        if chosen.get(part.extent.number) == part.extent:
            inline[part.extent.number] = part.inline
        else:
            unused.append(part.extent)
    if len(inline) != len(chosen):
        raise RefusalError(
            "InvalidPart",
            "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
        )
    entry.delete(keys.upload_row(entry.partition, bucket, key, upload))
    gone.release(entry, unused)
    gone.release_parts(entry, bucket, key, upload, taken=True)
    data = b"".join(inline[extent.number] for extent in command.row.extents)
    written = write_version(entry, command.settings, key, row, data, command.conditions)
    events.tell(entry, command.settings.notify, events.COMPLETE, key, written.version, row)
    return written


def abort(entry: Entry, command: AbortUpload) -> Done:
    check_settings(entry, command.settings)  # lifecycle's rules are among them
    bucket, key, upload = command.settings.bucket, command.key, command.upload
    row = _upload(entry, bucket, key, upload)
    if command.created_before_ms and row.created_ms >= command.created_before_ms:
        return Done()
    remove(entry, bucket, key, upload)
    return Done()


def remove(entry: Entry, bucket: int, key: bytes, upload: bytes) -> None:
    """Delete an upload with its parts."""
    entry.delete(keys.upload_row(entry.partition, bucket, key, upload))
    gone.release_parts(entry, bucket, key, upload, taken=False)

"""Decisions about blobs, references and content (docs/protocol.md, C1 to C4).

A blob lives while reference rows for it exist. Taking and dropping a reference are decided in the blob's own
partition, one after the other, so a grant and the last drop can never cross.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from s4.metadata import keys
from s4.metadata.commands import (
    Done,
    DropReferences,
    Healed,
    NeedHeal,
    NewBlob,
    PublishContent,
    RefuseBlob,
    RefuseReference,
    Taken,
    TakeReferences,
    UnpublishContent,
)
from s4.metadata.entry import Entry, RefusalError, RepeatedError, find
from s4.metadata.rows import (
    Blob,
    Content,
    Dereference,
    Extent,
    FreeBlob,
    Heal,
    Part,
    Publish,
    Reference,
    Refused,
    Unpublish,
    decode,
    decode_object,
    encode,
)
from s4.metadata.small import encode_blob


def take(entry: Entry, command: TakeReferences) -> Taken:
    """All or none: C4 grants only where the blob is there with every shard healthy. What is held was granted before."""
    names = [keys.reference_row(entry.partition, claim.blob, claim.reference) for claim in command.claims]
    wanted = [(key, claim) for key, claim in zip(names, command.claims, strict=True) if entry.get(key) is None]
    for _, claim in wanted:
        held = find(entry, Blob, keys.blob_row(entry.partition, claim.blob))
        if held is None or held.missing or (held.k and not entry.is_whole()):
            return Taken(False)
        if entry.get(keys.refused_row(entry.partition, claim.reference)) is not None:
            return Taken(False)
    for key, claim in wanted:
        row = Reference(claim.partition, claim.bucket, claim.key, claim.upload, entry.now_ms)
        _share(entry, claim.blob, key, row, 1)
        entry.put(key, encode(row))
        entry.count(0, references=1)
    return Taken(True)


def _share(entry: Entry, blob: bytes, key: bytes, row: Reference, sign: int) -> None:
    """Count what a reference saves that comes beside others, or goes: whoever has the first of them saves nothing."""
    first = next(entry.scan(keys.blob_references(entry.partition, blob)), None)
    shared = find(entry, Blob, keys.blob_row(entry.partition, blob))
    if first is not None and shared is not None:
        bucket = decode(Reference, first[1]).bucket if key < first[0] else row.bucket
        entry.count(bucket, saved=sign * shared.size)


def drop(entry: Entry, command: DropReferences) -> Done:
    for blob, reference in command.references:
        dereference(entry, blob, reference)
    return Done()


def dereference(entry: Entry, blob: bytes, reference: bytes) -> None:
    """Drop one reference, and the blob with its last. Repeating it changes nothing (C1, C2)."""
    row = keys.reference_row(entry.partition, blob, reference)
    held = entry.get(row)
    if held is None:
        return
    entry.delete(row)
    entry.count(0, references=-1)
    if next(entry.scan(keys.blob_references(entry.partition, blob)), None) is not None:
        _share(entry, blob, row, decode(Reference, held), -1)
        return
    blob_key = keys.blob_row(entry.partition, blob)
    gone = find(entry, Blob, blob_key)
    if gone is None:
        return
    entry.delete(blob_key)
    for position in gone.missing:
        entry.delete(keys.heal_row(entry.partition, blob, position))
    entry.count(0, blobs=-1, blob_bytes=-gone.size)
    if gone.k:
        entry.post(FreeBlob(blob))
    home = keys.partition_of_content(gone.sha256, entry.partitions)
    if home == entry.partition:
        unpublish(entry, UnpublishContent(gone.sha256, blob))
    else:
        entry.post(Unpublish(gone.sha256, blob))


def must_be_new(entry: Entry, removed: Iterable[Extent]) -> None:
    """Raises RepeatedError where the row that comes in the place of a removed one has the same reference (C1)."""
    for extent in removed if entry.brought else ():
        if extent.reference in entry.brought:
            raise RepeatedError(f"reference {extent.reference.hex()} was committed before")


def release(entry: Entry, extents: Iterable[Extent]) -> None:
    """Let go of references: here at once, elsewhere through the outbox (C2). Of how many is the caller's to bound."""
    for extent in extents:
        if not extent.blob:
            continue
        if extent.partition == entry.partition:
            dereference(entry, extent.blob, extent.reference)
        else:
            entry.post(Dereference(extent.partition, extent.blob, extent.reference))


def bring(
    entry: Entry, blobs: Iterable[NewBlob], granted: Iterable[bytes], bucket: int, key: bytes, upload: bytes = b""
) -> None:
    """Make new blobs known with their first references, and check what the auditor refused (C3).

    Raises RepeatedError for a blob that is known: its id is new in each attempt, so that this is one which was
    committed.
    """
    granted = list(granted)
    refusals = bool(granted) and next(entry.scan(keys.table(entry.partition, keys.REFUSED)), None) is not None
    for reference in granted:
        if refusals and entry.get(keys.refused_row(entry.partition, reference)) is not None:
            raise RefusalError(
                "RequestTimeout", "The request took so long that its content was collected; send it again."
            )
        entry.brought.add(reference)
    for new in blobs:
        if entry.get(keys.blob_row(entry.partition, new.blob)) is not None:
            raise RepeatedError(f"blob {new.blob.hex()} was committed before")
        if entry.get(keys.refused_row(entry.partition, new.blob)) is not None:
            raise RefusalError(
                "RequestTimeout", "The request took so long that its content was collected; send it again."
            )
        if new.k + new.m - len(new.missing) < new.needed:  # stores changed places while it was written
            raise RefusalError("ServiceUnavailable", "Too few stores hold this object's shards. Try again.")
        if not new.k and len(new.content) != new.size:
            raise RefusalError("InternalError", "A blob without shards came without its bytes.")
        row = Blob(new.size, new.stripe, new.k, new.m, new.sha256, entry.now_ms, new.missing)
        entry.put(keys.blob_row(entry.partition, new.blob), encode_blob(row, new.content))
        for position in new.missing:
            entry.put(keys.heal_row(entry.partition, new.blob, position), encode(Heal(entry.now_ms)))
        claim = Reference(entry.partition, bucket, key, upload, entry.now_ms)
        entry.put(keys.reference_row(entry.partition, new.blob, new.reference), encode(claim))
        entry.brought.add(new.reference)
        entry.count(0, blobs=1, references=1, blob_bytes=new.size)
        home = keys.partition_of_content(new.sha256, entry.partitions)
        content = PublishContent(new.sha256, entry.partition, new.blob, new.size)
        if home == entry.partition:
            publish(entry, content)
        else:
            entry.post(Publish(content.sha256, content.partition, content.blob, content.size))


def publish(entry: Entry, command: PublishContent) -> Done:
    """The newest copy wins: one is written anew only where the known one could not be used (C4)."""
    row = Content(command.partition, command.blob, command.size)
    entry.put(keys.content_row(entry.partition, command.sha256), encode(row))
    return Done()


def unpublish(entry: Entry, command: UnpublishContent) -> Done:
    row = keys.content_row(entry.partition, command.sha256)
    held = find(entry, Content, row)
    if held is not None and held.blob == command.blob:
        entry.delete(row)
    return Done()


def refuse_reference(entry: Entry, command: RefuseReference) -> Taken:
    """Answers granted where the claimant does hold the reference; else nobody may commit it any more (C3)."""
    if command.upload:
        prefix = keys.upload_parts(entry.partition, command.bucket, command.key, command.upload)
        for _, value in entry.scan(prefix):
            if decode(Part, value).extent.reference == command.reference:
                return Taken(True)
    for _, value in entry.scan(keys.object_versions(entry.partition, command.bucket, command.key)):
        row, _ = decode_object(value)
        if any(extent.reference == command.reference for extent in row.extents):
            return Taken(True)
    entry.put(keys.refused_row(entry.partition, command.reference), encode(Refused(entry.now_ms)))
    return Taken(False)


def refuse_blob(entry: Entry, command: RefuseBlob) -> Taken:
    if entry.get(keys.blob_row(entry.partition, command.blob)) is not None:
        return Taken(True)
    entry.put(keys.refused_row(entry.partition, command.blob), encode(Refused(entry.now_ms)))
    return Taken(False)


def need_heal(entry: Entry, command: NeedHeal) -> Taken:
    """Queue shards for healing; no new reference is granted until they are whole (C4)."""
    key = keys.blob_row(entry.partition, command.blob)
    row = find(entry, Blob, key)
    if row is None:
        return Taken(False)
    found = [position for position in command.positions if position < row.k + row.m and position not in row.missing]
    if found:
        entry.put(key, encode(replace(row, missing=sorted([*row.missing, *found]))))
        for position in found:
            entry.put(keys.heal_row(entry.partition, command.blob, position), encode(Heal(entry.now_ms)))
    return Taken(True)


def healed(entry: Entry, command: Healed) -> Taken:
    key = keys.blob_row(entry.partition, command.blob)
    row = find(entry, Blob, key)
    for position in command.positions:
        entry.delete(keys.heal_row(entry.partition, command.blob, position))
    if row is None:
        return Taken(False)
    left = [position for position in row.missing if position not in command.positions]
    if left != row.missing:
        entry.put(key, encode(replace(row, missing=left)))
    return Taken(True)

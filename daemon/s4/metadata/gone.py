"""Letting go, a bounded piece at a time: what a removed version, upload or bucket of uploads held.

A row that holds a few references lets go of them in the entry that removes it. One that holds many, as an object of
ten thousand parts, goes at once all the same, and the same entry leaves rows of what it held in a table of their own,
GONE; the partition's primary then works these off, AT_ONCE references a command, with the turns of everybody else
between. A crash at any point leaves rows that are worked off later: garbage at worst, never a dangling reference (C2).
Each command lets go and removes or shortens its row in one entry, so that it may come twice.

Compatible: S4 0.7 knows no such table and looks at none of its rows. In a rolling upgrade a primary of 0.7 replicates,
snapshots and keeps them as it does all rows of a partition, and the first one that knows them goes on with them.

For editors: `taken` says that an object holds what the parts held; nothing is let go of then but the parts' own rows.
Parts without an upload's row are visible to nobody. A bucket's uploads are swept while it is closed only: where its
deletion is undone, what is left stays (L3).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from s4.metadata import keys, references
from s4.metadata.commands import LetGo, Taken
from s4.metadata.entry import Entry, find
from s4.metadata.rows import BucketState, Extent, Gone, Part, decode, encode

AT_ONCE = 64  # references in one entry


def release(entry: Entry, extents: Sequence[Extent]) -> None:
    """Let go of what a removed row referred to: here and now where it is little, else soon.

    Raises RepeatedError where the row that comes in its place has the same reference, which is never used twice
    (C1)."""
    references.must_be_new(entry, extents)
    if len(extents) <= AT_ONCE:
        references.release(entry, extents)
        return
    held = [(extent.partition, extent.blob, extent.reference) for extent in extents if extent.blob]
    for at in range(0, len(held), AT_ONCE):
        leave(entry, Gone(held[at : at + AT_ONCE]))


def leave(entry: Entry, row: Gone) -> None:
    """Leave word of something to let go of, with this same entry."""
    entry.put(keys.gone_row(entry.partition, entry.sequence, entry.left), encode(row))
    entry.left += 1


def release_parts(entry: Entry, bucket: int, key: bytes, upload: bytes, *, taken: bool) -> None:
    """Delete the parts of an upload whose own row is deleted in this entry; what they held too, but where it is
    `taken`."""
    found = list(islice(entry.scan(keys.upload_parts(entry.partition, bucket, key, upload)), AT_ONCE + 1))
    if len(found) > AT_ONCE:
        leave(entry, Gone([], bucket, key, upload, taken))
    else:
        _drop(entry, found, taken=taken)


def _drop(entry: Entry, parts: Sequence[tuple[bytes, bytes]], *, taken: bool) -> None:
    for row_key, value in parts:
        entry.delete(row_key)
        if not taken:
            references.release(entry, [decode(Part, value).extent])


def let_go(entry: Entry, command: LetGo) -> Taken:
    """One piece of what a GONE row names. Answers whether there is more of it."""
    row = find(entry, Gone, command.row)
    if row is None:
        return Taken(False)
    for partition, blob, reference in row.held:
        references.release(entry, [Extent(0, 0, partition, blob, reference)])
    more = False
    if row.upload:
        prefix = keys.upload_parts(entry.partition, row.bucket, row.key, row.upload)
        found = list(islice(entry.scan(prefix), AT_ONCE + 1))
        _drop(entry, found[:AT_ONCE], taken=row.taken)
        more = len(found) > AT_ONCE
    elif row.bucket:
        more = _sweep(entry, row.bucket)
    if not more:
        entry.delete(command.row)
    return Taken(more)


def _sweep(entry: Entry, bucket: int) -> bool:
    """Remove one of the uploads of a closed bucket. Whether there are more."""
    state = entry.get(keys.bucket_state_row(entry.partition, bucket))
    if state is None or not decode(BucketState, state).closed:
        return False
    prefix = keys.bucket_uploads(entry.partition, bucket)
    found = list(islice(entry.scan(prefix), 2))
    for row_key, _ in found[:1]:
        key, upload = keys.split_upload(row_key[len(prefix) :])
        entry.delete(row_key)
        release_parts(entry, bucket, key, upload, taken=False)
    return len(found) > 1

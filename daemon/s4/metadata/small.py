"""Small content in rows: the bytes of a blob from the inline bound up to `--small` are in the blob's own row.

The design, whole. **A blob has its bytes in shards, or in its row; never in both.** One that has them in its row names no
shards (k = m = 0, no stripes, no `missing`), so that whatever walks shards finds none: no heal row can come of it, no
fill, comparison, scrub of volumes or audit of orphans meets it, and nothing is freed at stores when it goes. In all else
it is a blob: it has an id, references, a content row, counters, and the rules of references.py.

- Owner: the writer loop, as of every row. `PutObject` or `PutPart` brings the bytes (`NewBlob.content`), and row, first
  reference and object are one entry: whoever is killed between any two lines leaves all of it or nothing, and there is
  never anything to discard. A repeat meets the id that was committed, as with shards (R12).
- What is acknowledged is on every copy of the metadata that counts (R2): copies are m+1 at least wherever stores are, so
  that as many losses are survived as the object's row survives, which is what D1 promises.
- Deduplication, copies, parts and completions take references to it (C1 to C4). A grant does not ask whether all stores are
  there: no shard could be missing. With the last reference the row goes, and the bytes with it.
- Read: with the object's row in one answer where both are in one partition (`find_whole`), else by `find_blob`; from the
  primary, under its lease, as any row. A gateway keeps it in its cache of blobs. An object that is replaced between the
  two reads is opened anew, as one whose shards were freed. What is encrypted is so before it gets here.
- Checked: by LevelDB's checksums whenever it is read and by every scrub of the copies; by its SHA-256 in deep scrubs,
  `verify` and the contents job, as the bytes that shards make. A damaged copy is made again as a whole (R7, R8).
- Counted: sizes and references as those of any blob. Bytes on disk are the metadata's.

Bounds: MOST bytes in a row. A turn, an Append, a batch of messages and a part of a snapshot are bounded in bytes, each
below what a frame holds.

Formats: a row of version 2 is a blob's array and its bytes behind it, laid out as an object's. 0.7 refuses such a row in
words, and must never be given one: a single server that makes such rows (`--small`) first marks its stores (`storage/directory.py`):
0.7 does not open them any more. In a cluster upkeep/small.py says when."""

from __future__ import annotations

from typing import TypeVar

from msgspec.msgpack import Encoder

from s4.base.text import human
from s4.metadata.rows import Blob, encode

MOST = 64 * 1024  # what a gateway's cache of blobs keeps, too
USUAL = 8 * 1024  # where rows still cost a single directory less than shards (docs/experiments.md)
OLDEST = "0.8.0"  # the oldest program that may open a store with such rows
VERSION = 2  # of the peer protocol, from which on they are known
UNABLE, ABLE, READY = range(3)  # what a node of a cluster says of itself (upkeep/small.py)
IN_ROW = b"\x02"

T = TypeVar("T")
_encoder = Encoder()


def unless_told(inline: int) -> int:
    """`--small` where nobody said; all that is smaller is in objects' rows anyway where `--inline` is above it."""
    return USUAL if inline <= USUAL else 0


def check(small: int, inline: int) -> None:
    """Raises ValueError where content of `small` bytes cannot be in rows."""
    if small and not inline <= small <= MOST:
        raise ValueError(
            f"--small is 0 (off), or between --inline, {inline} bytes here, and {human(MOST)}, the most that a row takes"
        )


def encode_blob(row: Blob, content: bytes = b"") -> bytes:
    if row.k:
        return encode(row)
    front = _encoder.encode(row)
    return b"".join((IN_ROW, len(front).to_bytes(4, "little"), front, content))


def content_of(value: bytes) -> bytes:
    """The bytes in a blob's row; none where they are in shards."""
    return value[5 + int.from_bytes(value[1:5], "little") :] if value[:1] == IN_ROW else b""

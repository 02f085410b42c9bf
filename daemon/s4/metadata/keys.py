"""Row keys, version 1. Keys of one partition stand together, and sort so that a listing is one range scan.

    key = partition (2 bytes, big-endian), table (1 byte), fields

Object keys are arbitrary bytes. Inside row keys NUL is escaped as 00 FF and the end is 00 01, which keeps
their order: no key is a prefix of another. Versions of one key follow newest first, because (epoch, sequence)
is stored inverted (rule R13).
"""

from __future__ import annotations

import hashlib

OBJECT, UPLOAD, PART = b"o", b"u", b"p"
BLOB, REFERENCE, CONTENT = b"b", b"r", b"c"
OUTBOX, HEAL, ANSWER, REFUSED, HEAD = b"x", b"h", b"a", b"d", b"H"
FORGOTTEN = b"A"
BUCKET, USER, ACCESS_KEY, POLICY, JOB = b"B", b"U", b"K", b"P", b"J"
GROUP, ROLE, MANAGED, PROVIDER, LAST_USE = b"G", b"R", b"M", b"I", b"L"
COUNTERS, BUCKET_STATE = b"C", b"S"
EVENT = b"e"
GONE, REPAIRED, MARKS = b"g", b"v", b"k"  # unknown to 0.7
TURN_ROW = b"\xff\xffT"  # of a store, not of a partition: above every partition's rows
END = b"\xff\xff"

_END = b"\x00\x01"
_MAX32, _MAX64 = 2**32 - 1, 2**64 - 1
VERSION_BYTES = 12


def partition_of(bucket: int, key: bytes, partitions: int) -> int:
    """The partition that an object lives in: a hash that never changes, since data is found by it."""
    digest = hashlib.blake2b(bucket.to_bytes(8, "big") + key, digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def partition_of_content(sha256: bytes, partitions: int) -> int:
    return int.from_bytes(sha256[:8], "big") % partitions


def table(partition: int, name: bytes) -> bytes:
    return partition.to_bytes(2, "big") + name


def escape(key: bytes) -> bytes:
    return key.replace(b"\x00", b"\x00\xff") if b"\x00" in key else key


def unescape(key: bytes) -> bytes:
    return key.replace(b"\x00\xff", b"\x00") if b"\x00" in key else key


def after(prefix: bytes) -> bytes:
    """The end of the range of keys with this prefix, itself the smallest key behind it. Raises ValueError where there
    is none, for a prefix of nothing but FF."""
    if prefix[-1:] == b"\xff":
        prefix = prefix.rstrip(b"\xff")
    if not prefix:
        raise ValueError("nothing sorts behind every key with this prefix")
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def repaired_row(partition: int) -> bytes:
    """What of an older program's was put right."""
    return table(partition, REPAIRED)


def bucket_objects(partition: int, bucket: int) -> bytes:
    """Prefix of all object rows of a bucket."""
    return table(partition, OBJECT) + bucket.to_bytes(8, "big")


def object_versions(partition: int, bucket: int, key: bytes) -> bytes:
    """Prefix of all versions of one key."""
    return bucket_objects(partition, bucket) + escape(key) + _END


def version_suffix(epoch: int, sequence: int) -> bytes:
    return (_MAX32 - epoch).to_bytes(4, "big") + (_MAX64 - sequence).to_bytes(8, "big")


def object_row(partition: int, bucket: int, key: bytes, epoch: int, sequence: int) -> bytes:
    return object_versions(partition, bucket, key) + version_suffix(epoch, sequence)


def events(partition: int, target: str) -> bytes:
    """Prefix of a receiver's queue."""
    return table(partition, EVENT) + escape(target.encode()) + _END


def event_row(partition: int, target: str, sequence: int) -> bytes:
    """The event of an entry; an entry has one at most for each receiver."""
    return events(partition, target) + sequence.to_bytes(8, "big")


def target_of(row_key: bytes) -> str:
    return unescape(row_key[3:-10]).decode()


def split_object(tail: bytes) -> tuple[bytes, bytes]:
    """(object key, version suffix) of an object row's key without its `bucket_objects` prefix."""
    return unescape(tail[: -VERSION_BYTES - 2]), tail[-VERSION_BYTES:]


def version_id(suffix: bytes) -> str:
    """What S3 clients see: 24 hexadecimal digits of (epoch, sequence)."""
    return bytes(255 - byte for byte in suffix).hex()


def parse_version_id(text: str) -> bytes | None:
    """The version suffix; None for what no server of ours ever gave out."""
    if len(text) != 2 * VERSION_BYTES:
        return None
    try:
        return bytes(255 - byte for byte in bytes.fromhex(text))
    except ValueError:
        return None


def bucket_uploads(partition: int, bucket: int) -> bytes:
    return table(partition, UPLOAD) + bucket.to_bytes(8, "big")


def upload_row(partition: int, bucket: int, key: bytes, upload: bytes) -> bytes:
    return bucket_uploads(partition, bucket) + escape(key) + _END + upload


def split_upload(tail: bytes) -> tuple[bytes, bytes]:
    """(object key, upload id) of an upload row's key without its `bucket_uploads` prefix."""
    return unescape(tail[:-18]), tail[-16:]


def upload_parts(partition: int, bucket: int, key: bytes, upload: bytes) -> bytes:
    return table(partition, PART) + bucket.to_bytes(8, "big") + escape(key) + _END + upload


def part_row(partition: int, bucket: int, key: bytes, upload: bytes, number: int) -> bytes:
    return upload_parts(partition, bucket, key, upload) + number.to_bytes(2, "big")


def blob_row(partition: int, blob: bytes) -> bytes:
    return table(partition, BLOB) + blob


def blob_references(partition: int, blob: bytes) -> bytes:
    return table(partition, REFERENCE) + blob


def reference_row(partition: int, blob: bytes, reference: bytes) -> bytes:
    return blob_references(partition, blob) + reference


def content_row(partition: int, sha256: bytes) -> bytes:
    return table(partition, CONTENT) + sha256


def outbox_row(partition: int, sequence: int, index: int) -> bytes:
    return table(partition, OUTBOX) + sequence.to_bytes(8, "big") + index.to_bytes(4, "big")


def split_outbox(key: bytes) -> tuple[int, int]:
    """(partition, sequence) of an outbox row's key."""
    return int.from_bytes(key[:2], "big"), int.from_bytes(key[3:11], "big")


def gone_row(partition: int, sequence: int, index: int) -> bytes:
    """What something that was removed by an entry still holds (metadata/gone.py)."""
    return table(partition, GONE) + sequence.to_bytes(8, "big") + index.to_bytes(4, "big")


def heal_row(partition: int, blob: bytes, position: int) -> bytes:
    """A shard to be made again, on the store that the map names for its position when that is done."""
    return table(partition, HEAL) + blob + position.to_bytes(1, "big")


def split_heal(key: bytes) -> tuple[int, bytes, int]:
    """(partition, blob, position) of a heal row's key."""
    return int.from_bytes(key[:2], "big"), key[3:19], key[19]


def answer_row(partition: int, command: bytes) -> bytes:
    return table(partition, ANSWER) + command


def command_id(time_ms: int, random: bytes) -> bytes:
    """The id of a command: begins with the time at which it was made, so that old ones stand together (R12)."""
    return time_ms.to_bytes(6, "big") + random


def command_of(key: bytes) -> bytes:
    """The command's id in an answer row's key."""
    return key[3:]


def command_ms(command: bytes) -> int:
    return int.from_bytes(command[:6], "big")


def forgotten_row(partition: int) -> bytes:
    return table(partition, FORGOTTEN)


def refused_row(partition: int, name: bytes) -> bytes:
    return table(partition, REFUSED) + name


def head_row(partition: int) -> bytes:
    return table(partition, HEAD)


def counters_row(partition: int, bucket: int) -> bytes:
    return table(partition, COUNTERS) + bucket.to_bytes(8, "big")


def bucket_state_row(partition: int, bucket: int) -> bytes:
    return table(partition, BUCKET_STATE) + bucket.to_bytes(8, "big")


def named_row(name_of: bytes, name: str) -> bytes:
    """A row of partition 0 that has a name: bucket, user, group, role, …"""
    return table(0, name_of) + name.encode("utf-8", "surrogateescape")

"""The format of volumes, version 1, and of the records in them, versions 1 and 2: pure functions between bytes and
values.

    volume  = volume header (64 bytes), records
    record  = record header (64 bytes), CRC-32C of each 64 KiB block of the data (4 bytes each), data
    aligned = record header, zeros, CRC-32C of each block, data, zeros: the header, the data and the end are at multiples
              of 4096, so that all of it can be written past the page cache

Small records are of version 1, large ones since 0.8 of version 2, the aligned; a volume may have both, and zeros before an
aligned one. A program of 0.7 takes the second for damage: it is kept out by the store's mark (directory.py).

All numbers are little-endian. The volume's secret (16 random bytes in its header) seeds every CRC in it:
a record's header CRC covers its offset, and a block's CRC its blob, position, stripe and number (rule D4).
So bytes that a user stored are never taken for a header by a rescan, and a block read at the wrong place
fails its check instead of passing as other data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from crc32c import crc32c

BLOCK = 64 * 1024
HEADER_SIZE = 64
VOLUME_MAGIC = b"S4VOLUME"
RECORD_MAGIC = b"S4REC"  # and its version
ALIGN = 4096
_PLAIN, _ALIGNED = RECORD_MAGIC + b"\x01", RECORD_MAGIC + b"\x02"

_VOLUME = struct.Struct("<8sHHI16s16s12xI")  # magic, version, reserved, number, store id, secret, CRC
# magic, partition, position, flags, reserved, reserved, stripe, length, blob, created, CRC
_RECORD = struct.Struct("<6sHBBHIII16sI16xI")
_NUMBER = struct.Struct("<I")
_SEED = struct.Struct("<16s16sBI")


class FormatError(Exception):
    """Bytes that should be a header are not one."""


class DiskFullError(Exception):
    """The disk has no room for more shards. Nothing was written."""


class DamagedError(Exception):
    """A shard is missing or its bytes fail their check."""


class OfflineError(DamagedError):
    """The store that keeps this position is not there."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Names one shard record: what it holds, never where it is."""

    partition: int
    blob: bytes
    position: int
    stripe: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record's header. `length` is the number of data bytes; `created_s` is seconds since 1970."""

    shard: Shard
    length: int
    created_s: int
    aligned: bool = False

    @property
    def table_bytes(self) -> int:
        return 4 * blocks(self.length)

    @property
    def front(self) -> int:
        """Bytes before the data; the last of them are the table."""
        return front(self.length, self.aligned)

    @property
    def size(self) -> int:
        """Bytes of the whole record on disk."""
        return self.front + (aligned(self.length) if self.aligned else self.length)


@dataclass(frozen=True, slots=True)
class VolumeHeader:
    number: int
    store: bytes
    secret: bytes


def blocks(length: int) -> int:
    """Number of blocks that `length` bytes of data have."""
    return -(-length // BLOCK)


def aligned(at: int) -> int:
    """The next place for what is aligned."""
    return -(-at // ALIGN) * ALIGN


def front(length: int, is_aligned: bool) -> int:
    """Bytes of a record before its data."""
    size = HEADER_SIZE + 4 * blocks(length)
    return aligned(size) if is_aligned else size


def pack_volume(header: VolumeHeader) -> bytes:
    raw = _VOLUME.pack(VOLUME_MAGIC, 1, 0, header.number, header.store, header.secret, 0)
    return raw[:-4] + _NUMBER.pack(crc32c(raw[:-4]))


def unpack_volume(raw: bytes) -> VolumeHeader:
    if len(raw) != HEADER_SIZE or raw[:8] != VOLUME_MAGIC:
        raise FormatError("not an S4 volume")
    _, version, _, number, store, secret, crc = _VOLUME.unpack(raw)
    if crc != crc32c(raw[:-4]):
        raise FormatError("the volume's header is damaged")
    if version != 1:
        raise FormatError(f"volume version {version} was written by a newer S4")
    return VolumeHeader(number, store, secret)


def pack_record(record: Record, secret: bytes, offset: int) -> bytes:
    shard = record.shard
    raw = _RECORD.pack(
        _ALIGNED if record.aligned else _PLAIN,
        shard.partition,
        shard.position,
        0,
        0,
        0,
        shard.stripe,
        record.length,
        shard.blob,
        record.created_s,
        0,
    )
    return raw[:-4] + _NUMBER.pack(_header_crc(raw[:-4], secret, offset))


def unpack_record(raw: bytes | bytearray, secret: bytes, offset: int) -> Record:
    """The header at `offset` of a volume. Raises FormatError where there is none."""
    raw = bytes(raw)
    magic = raw[:6]
    if len(raw) != HEADER_SIZE or (magic != _PLAIN and (magic != _ALIGNED or offset % ALIGN)):
        raise FormatError("no record here")
    _, partition, position, _, _, _, stripe, length, blob, created_s, crc = _RECORD.unpack(raw)
    if crc != _header_crc(raw[:-4], secret, offset):
        raise FormatError("the record's header is damaged")
    return Record(Shard(partition, blob, position, stripe), length, created_s, magic == _ALIGNED)


def block_crcs(data: bytes | bytearray | memoryview, shard: Shard, secret: bytes, first: int = 0) -> bytes:
    """CRC table of `data`, whose first byte begins block `first` of the shard."""
    base = crc32c(_SEED.pack(secret, shard.blob, shard.position, shard.stripe))
    pack, view = _NUMBER.pack, memoryview(data)
    return b"".join(
        pack(crc32c(view[start : start + BLOCK], crc32c(pack(first + start // BLOCK), base)))
        for start in range(0, len(view), BLOCK)
    )


def _header_crc(raw: bytes, secret: bytes, offset: int) -> int:
    return crc32c(raw, crc32c(secret + offset.to_bytes(8, "little")))

"""The rows of a store's shard index, and the database that they are in.

    'i' partition blob position stripe    volume, offset, length, when it was made; version 2 where the record is aligned
    'm'                                   the scan mark: volume and offset up to which every record has its row; rows
                                          without a mark are those of an index whose making was cut short
    'v' volume                            bytes of records in a volume, and of those that are dead
    'd'                                   rows may be missing: the mark of a start that could not read all, nothing if all was lost

The index can be rebuilt from the volumes: one that is damaged is put aside and made again.
"""

from __future__ import annotations

import logging
import shutil
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from s4.storage.leveldb import DAMAGED, AnyDatabaseError, Database, DatabaseError, is_damage, no_room
from s4.storage.records import FormatError, Shard
from s4.storage.volumes import Location

log = logging.getLogger(__name__)

KEY = struct.Struct(">cH16sBI")  # 'i', partition, blob, position, stripe
BLOB_END = 19  # a key up to here names its partition and blob
_VALUE = struct.Struct("<BIQII")  # version, volume, offset, length, created
MARK = struct.Struct("<BIQ")  # version, volume, offset
VOLUME = struct.Struct("<BQQ")  # version, bytes of records, bytes of them that are dead
MARK_KEY, DOUBT_KEY = b"m", b"d"
INDEX_CACHE_BYTES, INDEX_BUFFER_BYTES = 16 << 20, 4 << 20


@dataclass(slots=True)
class VolumeUse:
    """Bytes of all records of a volume, and of those that are dead."""

    used: int = 0
    dead: int = 0


def open_index(path: Path) -> Database:
    """The index; one that is damaged is put aside, and made again from the volumes."""
    marker = path.with_name(path.name + DAMAGED)
    try:
        if marker.exists():
            raise DatabaseError(f"the database {path} was found damaged")
        return _open(path)
    except DatabaseError as error:
        if no_room(error) or not is_damage(error):  # nothing is wrong with it, and nothing new could be made
            raise
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns():x}")
        log.error("%s; it is put aside as %s and made again from the volumes", error, aside.name)
        if path.exists():
            path.rename(aside)
        opened = _open(path)
        marker.unlink(missing_ok=True)
        return opened


class Loaded(NamedTuple):
    """An index as it was left: up to where every record has its row, from where volumes are to be read, and what they
    hold that are there (one is unlinked before its row goes)."""

    rows: Database
    mark: tuple[int, int]
    since: tuple[int, int]
    use: dict[int, VolumeUse]


def load_index(path: Path, volumes: Collection[int]) -> Loaded:
    """Raises DatabaseError where it cannot be read now, as without memory or descriptors."""
    index = open_index(path)
    try:
        return _loaded(index, volumes)
    except AnyDatabaseError as error:
        if not is_damage(error):
            index.close()
            raise DatabaseError(f"the index {path} cannot be read now: {error}") from error
        log.error("the index %s cannot be read: %s", path, error)
        index.mark_damaged()
        index.close()
    return _loaded(open_index(path), volumes)


def _loaded(index: Database, volumes: Collection[int]) -> Loaded:
    mark, use = (0, 0), dict[int, VolumeUse]()
    if (row := index.get(MARK_KEY)) is not None:
        mark = MARK.unpack(row)[1:]
    elif index.first(b"i", b"j") is not None:  # its making was cut short
        index.close()
        shutil.rmtree(index.path)  # a crash leaves what is empty, damaged, or without a mark
        index = _open(index.path)
    for key, value in index.scan(b"v", b"w"):
        number = int.from_bytes(key[1:], "big")
        if number in volumes:
            use[number] = VolumeUse(*VOLUME.unpack(value)[1:])
    doubt = index.get(DOUBT_KEY)
    return Loaded(index, mark, MARK.unpack(doubt)[1:] if doubt else mark, use)


def _open(path: Path) -> Database:
    return Database(path, cache_bytes=INDEX_CACHE_BYTES, write_buffer_bytes=INDEX_BUFFER_BYTES, open_files=64)


def index_key(shard: Shard) -> bytes:
    return KEY.pack(b"i", shard.partition, shard.blob, shard.position, shard.stripe)


def index_value(location: Location) -> bytes:
    return _VALUE.pack(1 + location.aligned, location.volume, location.offset, location.length, location.created_s)


def parse_index_key(key: bytes) -> Shard:
    _, partition, blob, position, stripe = KEY.unpack(key)
    return Shard(partition, blob, position, stripe)


def parse_index_value(value: bytes) -> Location:
    version, volume, offset, length, created_s = _VALUE.unpack(value)
    if version not in (1, 2):
        raise FormatError(f"index row version {version} was written by a newer S4")
    return Location(volume, offset, length, created_s, version == 2)

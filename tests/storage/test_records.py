"""The volume format, its golden bytes, and what its checks catch."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from s4.storage import direct
from s4.storage.index import index_key, index_value, parse_index_key, parse_index_value
from s4.storage.records import (
    BLOCK,
    FormatError,
    Record,
    Shard,
    VolumeHeader,
    block_crcs,
    pack_record,
    pack_volume,
    unpack_record,
    unpack_volume,
)
from s4.storage.volumes import Location

SECRET = bytes(range(16))
SHARD = Shard(5, bytes(range(100, 116)), 3, 7)

# Bytes of version 1. They are on people's disks: a change here needs a new version and a reader for both.
GOLDEN_VOLUME = "5334564f4c554d45010000000900000074747474747474747474747474747474000102030405060708090a0b0c0d0e0f0000000000000000000000002836dfd8"
GOLDEN_RECORD = "533452454301050003000000000000000700000040e201006465666768696a6b6c6d6e6f7071727300f153650000000000000000000000000000000088daf756"
GOLDEN_ALIGNED = "533452454302050003000000000000000700000040e201006465666768696a6b6c6d6e6f7071727300f15365000000000000000000000000000000001d280f3c"
GOLDEN_CRCS = "68173683"


def test_golden_bytes_of_the_index() -> None:
    location = Location(9, 123456789, 4096, 1_700_000_000)
    assert index_key(SHARD).hex() == "690005" + SHARD.blob.hex() + "03" + "00000007"
    assert index_value(location).hex() == "01" + "09000000" + "15cd5b0700000000" + "00100000" + "00f15365"
    assert (parse_index_key(index_key(SHARD)), parse_index_value(index_value(location))) == (SHARD, location)
    aligned = Location(9, 123457536, 131072, 1_700_000_000, aligned=True)
    assert index_value(aligned).hex() == "02" + "09000000" + "00d05b0700000000" + "00000200" + "00f15365"
    assert parse_index_value(index_value(aligned)) == aligned


def test_golden_bytes_of_volumes() -> None:
    header = VolumeHeader(9, b"t" * 16, SECRET)
    record = Record(SHARD, 123456, 1_700_000_000)
    assert pack_volume(header).hex() == GOLDEN_VOLUME
    assert unpack_volume(bytes.fromhex(GOLDEN_VOLUME)) == header
    assert pack_record(record, SECRET, 4096).hex() == GOLDEN_RECORD
    assert unpack_record(bytes.fromhex(GOLDEN_RECORD), SECRET, 4096) == record
    assert block_crcs(b"hello", SHARD, SECRET).hex() == GOLDEN_CRCS
    assert (record.front, record.size) == (64 + 8, 64 + 8 + 123456)


def test_golden_bytes_of_an_aligned_record() -> None:
    record = Record(SHARD, 123456, 1_700_000_000, aligned=True)
    assert pack_record(record, SECRET, 4096).hex() == GOLDEN_ALIGNED
    assert unpack_record(bytes.fromhex(GOLDEN_ALIGNED), SECRET, 4096) == record
    assert (record.front, record.size) == (4096, 4096 + 126976)
    with pytest.raises(FormatError):
        unpack_record(pack_record(record, SECRET, 4160), SECRET, 4160)
    head, table = bytes.fromhex(GOLDEN_ALIGNED), block_crcs(bytes(123456), SHARD, SECRET)
    written = b"".join(direct.pieces(head, table, b"d" * 123456, direct.Scratch()))
    assert written == head + bytes(4096 - 64 - 8) + table + b"d" * 123456 + bytes(126976 - 123456)


@given(bit=st.integers(0, 511))
def test_any_flipped_bit_of_a_header_is_seen(bit: int) -> None:
    for raw, read in (
        (bytes.fromhex(GOLDEN_VOLUME), unpack_volume),
        (bytes.fromhex(GOLDEN_RECORD), lambda raw: unpack_record(raw, SECRET, 4096)),
    ):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read(bytes(changed))


def test_a_header_is_valid_at_its_own_place_in_its_own_volume_only() -> None:
    raw = bytes.fromhex(GOLDEN_RECORD)
    for secret, offset in ((SECRET, 8192), (bytes(16), 4096)):
        with pytest.raises(FormatError):
            unpack_record(raw, secret, offset)


def test_a_block_is_valid_as_its_own_shard_only() -> None:
    data = os.urandom(3 * BLOCK + 5)
    table = block_crcs(data, SHARD, SECRET)
    assert len(table) == 16
    assert block_crcs(data[BLOCK:], SHARD, SECRET, first=1) == table[4:]
    others = [Shard(5, bytes(16), 3, 7), Shard(5, SHARD.blob, 2, 7), Shard(5, SHARD.blob, 3, 8)]
    assert all(block_crcs(data, other, SECRET) != table for other in others)
    assert block_crcs(data, SHARD, bytes(16)) != table
    assert block_crcs(data[BLOCK:], SHARD, SECRET)[:4] != table[4:8]


def test_golden_bytes_of_a_data_directory(tmp_path: Path) -> None:
    """The index's mark and sums, s4.json and root.json: version 1 of each."""
    from s4.config.settings import RootKeys
    from s4.storage.directory import Identity, open_directory
    from s4.storage.index import MARK, VOLUME

    assert MARK.pack(1, 9, 4096).hex() == "01" + "09000000" + "0010000000000000"
    assert VOLUME.pack(1, 5000, 100).hex() == "01" + "8813000000000000" + "6400000000000000"
    kept = (
        b'{"cluster":"'
        + b"c" * 32
        + b'","store":"'
        + b"5" * 32
        + b'","created_s":1700000000,"partitions":16,"format":1}'
    )
    (tmp_path / "s4.json").write_bytes(kept)
    identity, lock = open_directory(tmp_path, make=False)
    os.close(lock)
    assert identity == Identity("c" * 32, "5" * 32, 1_700_000_000, 16)
    assert msgspec.json.decode(b'{"access_key":"a","secret_key":"b"}', type=RootKeys) == RootKeys("a", "b")

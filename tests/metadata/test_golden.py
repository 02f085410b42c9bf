"""Golden bytes of every row format and key, in every version there is (golden.json).

A failure here means that rows on people's disks would be read otherwise. Add a version; never change one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from s4.cluster import shardmap
from s4.metadata import keys, rows

GOLDEN: dict[str, str] = json.loads(Path(__file__).with_name("golden.json").read_text())
BLOB, REF = bytes(range(16)), bytes(range(16, 32))
EXTENT = rows.Extent(2, 5000, 3, BLOB, REF, "0" * 32, "AAAAAA==", b"s" * 16)
SEALING = rows.Sealing("aws:kms", "wrapped", "key", "e30=", True)
OBJECT = rows.Object(
    1_700_000_000_123,
    5003,
    "1" * 32,
    False,
    True,
    "ana",
    "CRC32",
    "FULL_OBJECT",
    "AAAAAA==",
    {"Content-Type": "a/b"},
    {"m": "ü"},
    {"t": "v"},
    [EXTENT, rows.Extent(3, 3)],
    b"u" * 16,
    "",
    0,
    False,
    "[]",
    SEALING,
    True,
)
OLDER_EXTENT = replace(EXTENT, seal=b"")
OLDER_OBJECT = replace(OBJECT, extents=[OLDER_EXTENT, rows.Extent(3, 3)], sealing=None, hold_told=False)
ROWS: dict[str, Any] = {
    "Upload": rows.Upload(
        1,
        "ana",
        "CRC32",
        "COMPOSITE",
        {"Content-Type": "a/b"},
        {"m": "1"},
        {},
        "[]",
        "GOVERNANCE",
        99,
        True,
        SEALING,
        False,
        True,
    ),
    "Part": rows.Part(2, EXTENT, b"inline", "CRC32:AAAAAA=="),
    "Blob": rows.Blob(5000, 1 << 20, 4, 2, bytes(32), 3, [1, 5]),
    "Reference": rows.Reference(3, 7, b"key", b"u" * 16, 4),
    "Gone": rows.Gone([(3, BLOB, REF)], 7, b"key", b"u" * 16, True),
    "Content": rows.Content(3, BLOB, 5000),
    "Bucket": rows.Bucket(7, "ana", 5, 2, "Enabled", b"", "", "", "", False, 0, True, {"policy": "{}"}),
    "BucketState": rows.BucketState(2, "Enabled", b"token", b"before"),
    "User": rows.User(
        "ana", 6, True, "AIDA", "/p/", {"t": "v"}, {"in": "{}"}, ["arn"], ["g"], "bound", "c0d", (5, 600)
    ),
    "Group": rows.Group("g", 7, "AGPA", "/p/", {"in": "{}"}, ["arn"]),
    "Role": rows.Role(
        "r", 8, "AROA", "/p/", "{}", "what", 7200, {"t": "v"}, {"in": "{}"}, ["arn"], "bound", canonical="c0d"
    ),
    "Managed": rows.Managed("m", 9, "ANPA", "/p/", {1: ("{}", 9), 3: ("[]", 10)}, 3, 3, "what", 11, {"t": "v"}),
    "Provider": rows.Provider("issuer/path", 12, ["s4"], ["0" * 40], {"t": "v"}, '{"keys": []}'),
    "LastUse": rows.LastUse(13, "s3", "us-east-1"),
    "AccessKey": rows.AccessKey("ana", "secret", 7, True),
    "Policy": rows.Policy([rows.Grant("Writer", "photos-*")]),
    "Job": rows.Job("b", "from/", "to/", 8, b"from/x", 9, False, "", 1_700_000_000_123),
    "Counters": rows.Counters(1, 2, 3, 4, 5, 6),
    "Repaired": rows.Repaired(True),
    "Head": rows.Head(3, 99),
    "Heal": rows.Heal(10),
    "Answer": rows.Answer(11, b"answer"),
    "Forgotten": rows.Forgotten(1_700_000_000_123),
    "Refused": rows.Refused(12),
    "Turn": rows.Turn(99, [(b"key", b"value"), (b"gone", None)]),
    "Dereference": rows.Dereference(3, BLOB, REF),
    "Publish": rows.Publish(bytes(32), 3, BLOB, 5000),
    "Unpublish": rows.Unpublish(bytes(32), BLOB),
    "FreeBlob": rows.FreeBlob(BLOB),
    "RemoveSource": rows.RemoveSource(7, b"key", "0" * 24, rows.Notify("b", "[]", "ana", "::1", "1A"), 15),
    "Event": rows.Event("ObjectCreated:Put", "r", "b", b"key", "0" * 24, 3, "1" * 32, 14, "ana", "::1", "1A"),
}
OLDER_UPLOAD = replace(ROWS["Upload"], checksum_chosen=True, hold_told=False)
KEYS = {
    "object key": keys.object_row(5, 7, b"a\x00b/\xc3\xa9", 3, 99),
    "upload key": keys.upload_row(5, 7, b"a", b"u" * 16),
    "part key": keys.part_row(5, 7, b"a", b"u" * 16, 10_000),
    "blob key": keys.blob_row(5, BLOB),
    "reference key": keys.reference_row(5, BLOB, REF),
    "content key": keys.content_row(5, bytes(32)),
    "outbox key": keys.outbox_row(5, 99, 1),
    "heal key": keys.heal_row(5, BLOB, 3),
    "gone key": keys.gone_row(5, 99, 1),
    "answer key": keys.answer_row(5, REF),
    "forgotten key": keys.forgotten_row(5),
    "refused key": keys.refused_row(5, REF),
    "event key": keys.event_row(5, "bus", 99),
    "repaired key": keys.repaired_row(5),
    "head key": keys.head_row(5),
    "counters key": keys.counters_row(5, 7),
    "bucket state key": keys.bucket_state_row(5, 7),
    "bucket key": keys.named_row(keys.BUCKET, "photos"),
    "user key": keys.named_row(keys.USER, "ana"),
    "access key key": keys.named_row(keys.ACCESS_KEY, "S4ABC"),
    "policy key": keys.named_row(keys.POLICY, "ana"),
    "job key": keys.named_row(keys.JOB, "1-2"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str) -> None:
    kind = rows.AnyAction if isinstance(ROWS[name], rows.Action) else type(ROWS[name])
    assert rows.encode(ROWS[name]).hex() == GOLDEN[f"{name} 1"]
    assert rows.decode(kind, bytes.fromhex(GOLDEN[f"{name} 1"])) == ROWS[name]


def test_rows_of_release_0_2() -> None:
    """Fields were added since: what is on disk without them reads as before."""
    bucket = rows.Bucket(7, "ana", 5, 2, "Enabled", b"", "", "", "", False, 0)
    assert rows.decode(rows.Bucket, bytes.fromhex(GOLDEN["Bucket 0.2"])) == bucket
    assert rows.decode(rows.BucketState, bytes.fromhex(GOLDEN["BucketState 0.2"])) == rows.BucketState(
        2, "Enabled", b"token"
    )


def test_rows_of_release_0_4() -> None:
    assert rows.decode(rows.Bucket, bytes.fromhex(GOLDEN["Bucket 0.4"])) == replace(ROWS["Bucket"], documents={})
    assert rows.decode(rows.Upload, bytes.fromhex(GOLDEN["Upload 0.4"])) == replace(
        OLDER_UPLOAD, acl="", lock_mode="", lock_until_ms=0, legal_hold=False, sealing=None
    )
    assert rows.decode(rows.User, bytes.fromhex(GOLDEN["User 0.4"])) == rows.User("ana", 6, True)
    assert rows.decode_object(bytes.fromhex(GOLDEN["Object 0.4"])) == (replace(OLDER_OBJECT, acl=""), b"abc")


def test_rows_of_release_0_5() -> None:
    older = replace(OLDER_UPLOAD, lock_mode="", lock_until_ms=0, legal_hold=False, sealing=None)
    assert rows.decode(rows.Upload, bytes.fromhex(GOLDEN["Upload 0.5"])) == older
    assert rows.decode(rows.Counters, bytes.fromhex(GOLDEN["Counters 0.5"])) == rows.Counters(1, 2, 3, 4, 5)


def test_rows_of_release_0_6() -> None:
    assert rows.decode(rows.Upload, bytes.fromhex(GOLDEN["Upload 0.6"])) == replace(OLDER_UPLOAD, sealing=None)
    assert rows.decode(rows.Part, bytes.fromhex(GOLDEN["Part 0.6"])) == replace(
        ROWS["Part"], extent=OLDER_EXTENT, brought=""
    )
    assert rows.decode_object(bytes.fromhex(GOLDEN["Object 0.6"])) == (OLDER_OBJECT, b"abc")
    assert rows.decode(rows.AnyAction, bytes.fromhex(GOLDEN["RemoveSource 0.6"])) == replace(
        ROWS["RemoveSource"], notify=None, at_ms=0
    )


def test_rows_of_release_0_7() -> None:
    assert rows.decode(rows.AnyAction, bytes.fromhex(GOLDEN["RemoveSource 0.7"])) == replace(
        ROWS["RemoveSource"], at_ms=0
    )
    assert rows.decode(rows.Upload, bytes.fromhex(GOLDEN["Upload 0.7"])) == OLDER_UPLOAD
    assert rows.decode_object(bytes.fromhex(GOLDEN["Object 0.7"])) == (replace(OBJECT, hold_told=False), b"abc")
    assert rows.decode(rows.Part, bytes.fromhex(GOLDEN["Part 0.7"])) == replace(ROWS["Part"], brought="")
    assert rows.decode(rows.Job, bytes.fromhex(GOLDEN["Job 0.7"])) == replace(ROWS["Job"], named_ms=0)
    assert rows.decode(rows.User, bytes.fromhex(GOLDEN["User 0.7"])) == replace(ROWS["User"], canonical="", rate=(0, 0))
    assert rows.decode(rows.Role, bytes.fromhex(GOLDEN["Role 0.7"])) == replace(ROWS["Role"], canonical="")
    assert rows.decode(rows.Provider, bytes.fromhex(GOLDEN["Provider 0.7"])) == replace(ROWS["Provider"], keys="")


def test_object_row() -> None:
    assert rows.encode_object(OBJECT, b"abc").hex() == GOLDEN["Object 1"]
    assert rows.decode_object(bytes.fromhex(GOLDEN["Object 1"])) == (OBJECT, b"abc")
    summary = rows.decode_summary(bytes.fromhex(GOLDEN["Object 1"]))
    assert all(getattr(summary, name) == getattr(OBJECT, name) for name in summary.__struct_fields__)


@pytest.mark.parametrize("name", KEYS)
def test_keys(name: str) -> None:
    assert KEYS[name].hex() == GOLDEN[f"{name} 1"]


def test_every_row_and_key_format_is_covered() -> None:
    formats = {
        name
        for name, kind in vars(rows).items()
        if isinstance(kind, type) and issubclass(kind, (rows._Row, rows.Action))
    }
    assert formats - {"_Row", "Action", "Summary", "Extent", "Sealing", "Notify", "Grant", "Object"} == set(ROWS)
    makers = {name for name in vars(keys) if name.endswith("_row") and name != "named_row"}
    assert len(KEYS) == len(makers) + 5


def test_partitions_of_keys_never_change() -> None:
    assert [keys.partition_of(7, key, 16) for key in (b"", b"a", b"a/b", b"\xc3\xa9")] == GOLDEN["partitions"]
    assert [keys.partition_of_content(bytes([byte]) * 32, 16) for byte in range(4)] == [0, 1, 2, 3]


def test_shard_map() -> None:
    shard_map = shardmap.restarted(shardmap.single("c" * 32, "s" * 32, 2), {"s" * 32}, ["s" * 32])
    assert shardmap.encode(shard_map).decode() == GOLDEN["shard map 1, which may grow"]
    assert shardmap.decode(GOLDEN["shard map 1, which may grow"].encode()) == shard_map
    assert shardmap.decode(GOLDEN["shard map 1, drives"].encode()) == shard_map  # before drives could be added
    older = shardmap.decode(GOLDEN["shard map 1"].encode())  # before there were drives
    assert (older.order, older.status) == (shard_map.order, shard_map.status)


def test_unknown_versions_and_damage_are_refused() -> None:
    good = rows.encode(ROWS["Blob"])
    for bad in (b"", b"\x02" + good[1:], good[:-1], b"\x01\xff"):
        with pytest.raises(rows.RowError):
            rows.decode(rows.Blob, bad)
    for bad in (b"", b"\x02\x00\x00\x00\x00", b"\x01\x05\x00\x00\x00ab"):
        with pytest.raises(rows.RowError):
            rows.decode_object(bad)


def test_older_rows_without_newer_fields_still_read() -> None:
    """Fields are added at the end with defaults: a row with fewer of them is an older one."""
    import msgspec

    short = b"\x01" + msgspec.msgpack.encode([7, "ana", 5])
    assert rows.decode(rows.Bucket, short) == rows.Bucket(7, "ana", 5)

"""A wrapped key is replaced where it is still the one that was read, and nothing else of its row changes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from metadata.test_lock_decisions import Rows
from s4.metadata import keys
from s4.metadata.commands import CompleteUpload, Done, Rewrap, Settings, Written
from s4.metadata.decide import decide
from s4.metadata.entry import Entry, Overlay
from s4.metadata.rows import Extent, Object, Part, Sealing, Upload, decode, decode_object, encode, encode_object

SEALING = Sealing("AES256", "old")
OBJECT = Object(
    1,
    3,
    "e",
    False,
    False,
    "ana",
    tags={"a": "b"},
    extents=[Extent(0, 3, seal=b"s" * 16)],
    lock_mode="COMPLIANCE",
    lock_until_ms=9,
    sealing=SEALING,
)
OBJECT_KEY, UPLOAD_KEY = keys.object_row(0, 7, b"k", 1, 1), keys.upload_row(0, 7, b"k", b"u" * 16)


def after(row: bytes, value: bytes | None, command: Rewrap) -> bytes | None:
    database = Rows()
    if value is not None:
        database.rows[row] = value
    entry = Entry(Overlay(database), 0, 1, 1, 5, 100)
    assert isinstance(decide(entry, command), Done)
    return entry.rows.get(row)


def test_objects_and_uploads() -> None:
    found = after(OBJECT_KEY, encode_object(OBJECT, b"abc"), Rewrap(OBJECT_KEY, "old", "new"))
    assert found is not None
    assert decode_object(found) == (replace(OBJECT, sealing=Sealing("AES256", "new")), b"abc")
    upload = Upload(1, "ana", sealing=SEALING)
    found = after(UPLOAD_KEY, encode(upload), Rewrap(UPLOAD_KEY, "old", "new"))
    assert found is not None
    assert decode(Upload, found) == replace(upload, sealing=Sealing("AES256", "new"))


@pytest.mark.parametrize(
    "row", [replace(OBJECT, sealing=Sealing("AES256", "newer")), replace(OBJECT, sealing=None), None]
)
def test_what_is_another_by_now_is_left_alone(row: Object | None) -> None:
    value = encode_object(row, b"abc") if row is not None else None
    assert after(OBJECT_KEY, value, Rewrap(OBJECT_KEY, "old", "new")) is None


def test_other_rows_are_none_of_its_business() -> None:
    blob = keys.blob_row(0, bytes(16))
    assert after(blob, b"\x01whatever", Rewrap(blob, "old", "new")) is None


def test_a_completion_takes_its_uploads_key_as_it_is_now() -> None:
    """The gateway read the upload before its key was wrapped anew."""
    database, extent = Rows(), Extent(1, 3, etag="e", seal=b"s" * 16)
    database.rows[UPLOAD_KEY] = encode(Upload(1, "ana", sealing=Sealing("AES256", "new")))
    database.rows[keys.part_row(0, 7, b"k", b"u" * 16, 1)] = encode(Part(1, extent, b"sealed"))
    entry = Entry(Overlay(database), 0, 1, 1, 5, 100)
    command = CompleteUpload(
        Settings(7, 1, ""), b"k", b"u" * 16, replace(OBJECT, extents=[extent], lock_mode="", lock_until_ms=0)
    )
    assert isinstance(decide(entry, command), Written)
    row, inline = decode_object(entry.rows[keys.object_row(0, 7, b"k", 1, 5)] or b"")
    assert (row.sealing, inline) == (Sealing("AES256", "new"), b"sealed")

"""A blob that has its bytes in its row is like any blob, but that there is nothing of it at any store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest

from s4.erasure.codec import stripes_of
from s4.metadata import commands, keys
from s4.metadata.commands import Claim, NewBlob, PutObject, Refused, Settings, Taken
from s4.metadata.decide import decide
from s4.metadata.entry import Entry, Overlay
from s4.metadata.rows import Blob, Extent, FreeBlob, Object, Reference, RowError, decode, encode
from s4.metadata.small import MOST, USUAL, check, content_of, encode_blob, unless_told

BYTES = bytes(range(256)) * 20
SHA = hashlib.sha256(BYTES).digest()
BLOB, REF = b"b" * 16, b"r" * 16
NEW = NewBlob(BLOB, REF, len(BYTES), 0, 0, 0, SHA, content=BYTES)
OBJECT = Object(1, len(BYTES), "e", False, True, "o", extents=[Extent(0, len(BYTES), 0, BLOB, REF)])
SETTINGS = Settings(7, 1, "")
PUT = PutObject(SETTINGS, b"k", OBJECT, blobs=[NEW])
BLOB_KEY = keys.blob_row(0, BLOB)


class Rows:
    """Committed rows of one partition, to which decided ones are added."""

    def __init__(self, *, whole: bool = True) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.whole, self.sequence = whole, 0
        self.posted: list[Any] = []

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        return [(key, value) for key, value in sorted(self.rows.items()) if start <= key < stop]

    def do(self, command: Any) -> Any:
        self.sequence += 1
        entry = Entry(Overlay(self), 0, 1, 1, self.sequence, 5, whole=lambda _: self.whole)
        answer = decide(entry, command)
        for key, value in entry.rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.posted += entry.posted
        return answer

    def table(self, name: bytes) -> list[bytes]:
        return [key for key in self.rows if key[2:3] == name]


def test_the_row_has_the_bytes_and_names_no_shards() -> None:
    rows = Rows()
    rows.do(PUT)
    assert content_of(rows.rows[BLOB_KEY]) == BYTES
    row = decode(Blob, rows.rows[BLOB_KEY])
    assert row == Blob(len(BYTES), 0, 0, 0, SHA, 5)
    assert list(stripes_of(row)) == []
    assert rows.table(keys.HEAL) == []
    assert decode(Reference, rows.rows[keys.reference_row(0, BLOB, REF)]).key == b"k"
    assert len(rows.table(keys.CONTENT)) == 1


def test_golden_bytes() -> None:
    """A persistent format: these bytes are read for ever, and a program that knows version 1 alone refuses them."""
    value = encode_blob(Blob(3, 0, 0, 0, b"\x07" * 32, 9), b"abc")
    assert value.hex() == "022900000097030000" + "00c420" + "07" * 32 + "0990" + "616263"
    assert (decode(Blob, value), content_of(value)) == (Blob(3, 0, 0, 0, b"\x07" * 32, 9), b"abc")
    with pytest.raises(RowError, match="Reference row version 02 is not known"):
        decode(Reference, value)
    with pytest.raises(RowError, match="Blob row is damaged"):
        decode(Blob, value[:20])
    shards = Blob(5000, 1 << 20, 4, 2, bytes(32), 3, [1])
    assert encode_blob(shards, b"") == encode(shards)
    assert content_of(encode(shards)) == b""


@pytest.mark.parametrize("whole", [True, False])
def test_it_is_shared_whether_or_not_all_stores_are_there(whole: bool) -> None:
    """C4 asks for shards that are healthy: there is none that could be missing."""
    rows = Rows(whole=whole)
    rows.do(PUT)
    claim = Claim(BLOB, b"s" * 16, 0, 7, b"l")
    assert rows.do(commands.TakeReferences([claim])) == Taken(True)
    assert len(rows.table(keys.REFERENCE)) == 2


def test_it_goes_with_its_last_reference_and_nothing_is_freed_at_stores() -> None:
    rows = Rows()
    rows.do(PUT)
    rows.do(commands.TakeReferences([Claim(BLOB, b"s" * 16, 0, 7, b"l")]))
    rows.do(commands.DeleteObject(SETTINGS, b"k"))
    assert content_of(rows.rows[BLOB_KEY]) == BYTES
    rows.do(commands.DropReferences([(BLOB, b"s" * 16)]))
    assert not any(rows.table(table) for table in (keys.BLOB, keys.REFERENCE, keys.HEAL, keys.OBJECT))
    assert not any(isinstance(action, FreeBlob) for action in rows.posted)


@pytest.mark.parametrize(
    "command", [commands.NeedHeal(BLOB, [0, 1, 5]), commands.Healed(BLOB, [0]), commands.Healed(BLOB, [0], ["store"])]
)
def test_no_word_about_shards_changes_it(command: Any) -> None:
    rows = Rows()
    rows.do(PUT)
    before = dict(rows.rows)
    assert rows.do(command) == Taken(True)
    assert rows.rows == before


def test_it_does_not_come_without_all_its_bytes() -> None:
    rows = Rows()
    short = NewBlob(BLOB, REF, len(BYTES), 0, 0, 0, SHA, content=BYTES[:-1])
    answer = rows.do(PutObject(SETTINGS, b"k", OBJECT, blobs=[short]))
    assert isinstance(answer, Refused)
    assert rows.rows == {}


@pytest.mark.parametrize(("small", "inline"), [(0, 4096), (4096, 4096), (MOST, 4096), (100, 1), (0, MOST)])
def test_bounds_that_hold(small: int, inline: int) -> None:
    check(small, inline)


@pytest.mark.parametrize(("inline", "small"), [(1, USUAL), (4096, USUAL), (USUAL, USUAL), (USUAL + 1, 0), (MOST, 0)])
def test_what_holds_where_nobody_said(inline: int, small: int) -> None:
    assert unless_told(inline) == small
    check(small, inline)


@pytest.mark.parametrize(("small", "inline"), [(4095, 4096), (1, 4096), (MOST + 1, 4096)])
def test_bounds_that_cannot_be_are_refused_in_words(small: int, inline: int) -> None:
    with pytest.raises(ValueError, match=r"--small is 0 \(off\), or between --inline, 4096 bytes here, and 64\.0 KiB"):
        check(small, inline)

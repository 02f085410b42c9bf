"""Ranges of row keys: what begins with a prefix is in its range, whatever bytes follow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metadata.cursors import SortedCursor
from metadata.test_lock_decisions import Rows
from s4.metadata import keys
from s4.metadata.commands import CloseBucket, Refused
from s4.metadata.decide import decide
from s4.metadata.entry import Entry, Overlay
from s4.metadata.listing import Page, Query, list_page
from s4.metadata.rows import Object, encode_object

HIGH = b"\xff" * 40
ROW = Object(1, 0, "e", False, True, "ana")


@given(
    st.binary(min_size=1, max_size=6).filter(lambda prefix: bool(prefix.strip(b"\xff"))),
    st.binary(max_size=60),
    st.integers(0, 60),
    st.binary(max_size=4),
)
def test_a_range_ends_right_behind_the_last_key_with_its_prefix(
    prefix: bytes, tail: bytes, high: int, other: bytes
) -> None:
    assert prefix <= prefix + b"\xff" * high + tail < keys.after(prefix)
    if other >= prefix and not other.startswith(prefix):
        assert other >= keys.after(prefix)


def test_what_nothing_follows_has_no_end() -> None:
    with pytest.raises(ValueError, match="nothing"):
        keys.after(b"\xff\xff")


def test_a_bucket_with_the_highest_keys_is_not_empty() -> None:
    """L3: else it is deleted over what it holds."""
    database = Rows()
    database.rows[keys.object_row(3, 7, HIGH, 1, 1)] = encode_object(ROW)
    answer = decide(Entry(Overlay(database), 3, 8, 1, 2, 1000), CloseBucket(7, b"token"))
    assert isinstance(answer, Refused)
    assert answer.code == "BucketNotEmpty"


def test_a_common_prefix_is_passed_over_whole() -> None:
    names = [b"a/", b"a/b", b"a/\xff", b"a/" + HIGH, b"b"]
    rows = [(keys.escape(name) + b"\x00\x01" + keys.version_suffix(1, 1), encode_object(ROW)) for name in names]

    def page(**asked: bytes | int) -> Page:
        return next(
            page for page in list_page([SortedCursor(rows)], Query(delimiter=b"/", **asked)) if page is not None
        )  # type: ignore[arg-type]

    assert [item if isinstance(item, bytes) else item.key for item in page().items] == [b"a/", b"b"]
    assert [item if isinstance(item, bytes) else item.key for item in page(after_key=b"a/").items] == [b"b"]

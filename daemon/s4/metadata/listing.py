"""Listings as a merge of the partitions' key ranges. Pure: it walks cursors and steps over what it need not read.

A page is a generator of events that stops between rows, so that the caller can let others run. A common
prefix is skipped by seeking past it, older versions of a key by seeking past the key.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

import msgspec

from s4.metadata import classes, keys
from s4.metadata.rows import Summary, decode_listed, decode_object, decode_summary

PAUSE_EVERY = 256
FIRST, MOST = 2, 32  # rows that are taken of a cursor at once
Row = tuple[bytes, bytes]
_key_of = itemgetter(0)
_CLASS = classes.NAME.encode()


class Cursor(Protocol):
    """A walk over one partition's rows of a bucket; keys come without the prefix."""

    def take(self, count: int) -> list[Row]:
        """The next rows, at most `count`, or fewer where they are large; none at the end."""

    def seek(self, key: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Query:
    """`after_key` is exclusive; with `after_version` (a version suffix) the rest of that key's versions follow."""

    prefix: bytes = b""
    delimiter: bytes = b""
    after_key: bytes = b""
    after_version: bytes = b""
    limit: int = 1000
    versions: bool = False


class Version(msgspec.Struct):
    """A listed row. `latest` tells the newest version of its key."""

    key: bytes
    suffix: bytes
    row: Summary
    latest: bool
    storage_class: str = classes.STANDARD


@dataclass(slots=True)
class Page:
    """`items` in key order, common prefixes among them as bytes. `next_*` is where a truncated page goes on."""

    items: list[Version | bytes]
    truncated: bool = False
    next_key: bytes = b""
    next_version: bytes = b""

    def close(self) -> None:
        """No more items come: where it goes on is known."""
        if self.items:
            last = self.items[-1]
            self.next_key, self.next_version = (last, b"") if isinstance(last, bytes) else (last.key, last.suffix)


class Merge:
    """The rows of several cursors in one order, taken and sorted a batch at a time: one of them costs less so than if
    each came by itself. Batches grow as long as nobody passes rows over.

    What is at hand, `_rows`, is all that there is up to its last; what was taken of a cursor and lies behind that is
    held back."""

    def __init__(self, cursors: Sequence[Cursor], start: bytes) -> None:
        self._cursors, self._rows = cursors, deque[Row]()
        self._held: list[list[Row]] = [[] for _ in cursors]
        self._ended = [False for _ in cursors]
        self._size = FIRST
        for cursor in cursors:
            cursor.seek(start)

    def next(self) -> Row | None:
        if not self._rows:
            self._fetch()
        return self._rows.popleft() if self._rows else None

    def _fetch(self) -> None:
        size, bound = self._size, b""
        self._size = min(2 * size, MOST)  # next time
        for at, held in enumerate(self._held):
            if self._ended[at]:
                continue
            if len(held) <= size // 2:
                taken = self._cursors[at].take(size)
                held.extend(taken)
                self._ended[at] = not taken
                if len(taken) < size:  # large rows, or nearly the last: not many of them are held
                    self._size = 1
            if not self._ended[at] and (not bound or held[-1][0] < bound):
                bound = held[-1][0]
        given: list[Row] = []
        for held in self._held:
            end = bisect_right(held, bound, key=_key_of) if bound else len(held)
            given += held[:end]
            del held[:end]
        given.sort()
        self._rows.extend(given)

    def seek(self, target: bytes) -> None:
        """Go on at the first row that is not below `target`."""
        rows = self._rows
        while rows and rows[0][0] < target:
            rows.popleft()
        if rows:
            return
        self._size = 1
        for at, held in enumerate(self._held):
            del held[: bisect_left(held, target, key=_key_of)]
            if not held and not self._ended[at]:
                self._cursors[at].seek(target)


def _start(query: Query) -> bytes:
    """The first row key (without the bucket's prefix) that may be on the page, or shows what else may."""
    start = keys.escape(query.prefix)
    if query.after_key:
        after = keys.escape(query.after_key) + b"\x00\x01"
        # Behind a version: whether what follows is the newest of its key is known by what stands before that.
        resume = after if query.after_version else after + b"\xff" * 13
        if query.delimiter and not query.after_version:
            common = common_prefix(query.after_key, query.prefix, query.delimiter)
            if common is not None and common == query.after_key:
                resume = keys.after(keys.escape(common))
        start = max(start, resume)
    return start


def common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """The key up to and with the first delimiter behind the prefix."""
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


def list_page(cursors: Sequence[Cursor], query: Query) -> Iterator[Page | None]:
    """Yields None where the caller may pause, and the page at last."""
    page = Page([])
    if query.limit <= 0:
        yield page
        return
    merge = Merge(cursors, _start(query))
    prefix, end = keys.escape(query.prefix), -keys.VERSION_BYTES
    # Version suffixes count down, so one past this suffix is the next older version.
    first = keys.escape(query.after_key) + b"\x00\x01" + query.after_version + b"\x00" if query.after_version else b""
    seen, steps = b"", 0
    following, items, limit = merge.next, page.items, query.limit
    while (found := following()) is not None:
        raw, value = found
        if prefix and not raw.startswith(prefix):
            break
        steps += 1
        if steps % PAUSE_EVERY == 0:
            yield None
        name = raw[:end]
        if raw < first:
            seen = name
            merge.seek(first)
            continue
        latest = name != seen
        if not latest and not query.versions:
            merge.seek(name + b"\xff" * 13)
            continue
        key = keys.unescape(name[:-2])
        if query.delimiter:
            common = common_prefix(key, query.prefix, query.delimiter)
            if common is not None and not _emits_nothing(query, value):
                if len(items) >= limit:
                    page.truncated = True
                    break
                items.append(common)
                merge.seek(keys.after(keys.escape(common)))
                continue
            if common is not None:
                seen = name
                continue
        row, special = decode_listed(value, _CLASS)
        seen = name
        if row.marker and not query.versions:
            continue
        if len(items) >= limit:
            page.truncated = True
            break
        items.append(Version(key, raw[end:], row, latest, _class_of(value) if special else classes.STANDARD))
    page.close()
    yield page


def walk_uploads(
    cursors: Sequence[Cursor], prefix: bytes, delimiter: bytes, after_key: bytes, after_upload: bytes | None
) -> Iterator[tuple[bytes, bytes, bytes] | bytes | None]:
    """(key, upload id, row) of the uploads behind a place, and what keys have in common, in order; None where the
    caller may pause. With no `after_upload` all of `after_key` is passed over. What is passed over is not read."""
    start = keys.escape(prefix)
    if after_key:
        resume = (
            keys.escape(after_key) + b"\x00\x01" + (b"\xff" * 17 if after_upload is None else after_upload + b"\x00")
        )
        if common_prefix(after_key, prefix, delimiter) == after_key:
            resume = keys.after(keys.escape(after_key))
        start = max(start, resume)
    merge, end, steps = Merge(cursors, start), keys.escape(prefix), 0
    while (found := merge.next()) is not None and found[0].startswith(end):
        raw, value = found
        key, upload = keys.split_upload(raw)
        common = common_prefix(key, prefix, delimiter)
        steps += 1
        if steps % PAUSE_EVERY == 0:
            yield None
        if common is None:
            yield key, upload, value
        else:
            yield common
            merge.seek(keys.after(keys.escape(common)))


def _class_of(value: bytes) -> str:
    """The class of an object row. Whole rows are decoded only where the name stands in them: most have the standard
    one."""
    return classes.of(decode_object(value)[0].headers)


def _emits_nothing(query: Query, value: bytes) -> bool:
    """Whether a row shows in no current listing (a delete marker), so that it makes no common prefix either."""
    return not query.versions and decode_summary(value).marker

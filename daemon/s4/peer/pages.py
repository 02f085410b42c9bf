"""Pages of a listing, each from another primary and of other partitions, put together into one (L1). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from s4.metadata import keys
from s4.metadata.listing import Page, Version
from s4.peer.api import UploadListed, UploadPage

T = TypeVar("T")


def _first(items: Iterable[T], limit: int, order: Callable[[T], Any]) -> tuple[list[T], bool]:
    """The first `limit` of what several pages have, a common prefix once, and whether there are more."""
    found: list[T] = []
    for item in sorted(items, key=order):
        if isinstance(item, bytes) and found and found[-1] == item:
            continue
        if len(found) >= limit:
            return found, True
        found.append(item)
    return found, False


def merged_objects(pages: list[Page], limit: int) -> Page:
    """One page of several, each of other partitions and at most `limit` long: so each has all that the page needs."""
    items, left = _first((item for one in pages for item in one.items), limit, _order)
    page = Page(items, left or any(one.truncated for one in pages))
    page.close()
    return page


def _order(item: Version | bytes) -> tuple[bytes, bytes]:
    return (keys.escape(item), b"") if isinstance(item, bytes) else (keys.escape(item.key), item.suffix)


def merged_uploads(pages: list[UploadPage], limit: int) -> UploadPage:
    items, left = _first((item for one in pages for item in one.items), limit, _place)
    truncated = limit > 0 and (left or any(page.truncated for page in pages))
    return UploadPage(items, truncated, *(_place(items[-1]) if truncated and items else (b"", b"")))


def _place(item: UploadListed | bytes) -> tuple[bytes, bytes]:
    return (item, b"") if isinstance(item, bytes) else (item.key, item.upload)

"""Pages of a listing, each from another primary and of other partitions, put together into one (L1). Pure."""

from __future__ import annotations

from s4.metadata import keys
from s4.metadata.listing import Page, Version
from s4.peer.api import UploadListed, UploadPage


def merged_objects(pages: list[Page], limit: int) -> Page:
    """One page of several, each of other partitions and at most `limit` long: so each has all that the page needs."""
    items: list[Version | bytes] = []
    page, left = Page(items), False
    for item in sorted((item for one in pages for item in one.items), key=_order):
        if isinstance(item, bytes) and items and items[-1] == item:
            continue
        if len(items) >= limit:
            left = True
            break
        items.append(item)
    page.truncated = left or any(one.truncated for one in pages)
    page.close()
    return page


def _order(item: Version | bytes) -> tuple[bytes, bytes]:
    return (keys.escape(item), b"") if isinstance(item, bytes) else (keys.escape(item.key), item.suffix)


def merged_uploads(pages: list[UploadPage], limit: int) -> UploadPage:
    items: list[UploadListed | bytes] = []
    left, next_key, next_upload = False, b"", b""
    everything = [item for page in pages for item in page.items]
    for item in sorted(everything, key=lambda one: (one, b"") if isinstance(one, bytes) else (one.key, one.upload)):
        if isinstance(item, bytes) and items and items[-1] == item:
            continue
        if len(items) >= limit:
            left = True
            break
        items.append(item)
        next_key, next_upload = (item, b"") if isinstance(item, bytes) else (item.key, item.upload)
    truncated = limit > 0 and (left or any(page.truncated for page in pages))
    return UploadPage(items, truncated, next_key if truncated else b"", next_upload if truncated else b"")

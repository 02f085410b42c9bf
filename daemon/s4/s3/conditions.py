"""Conditions: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since (RFC 9110, section 13), and who takes
them.

S3 orders them so: If-Match before If-Unmodified-Since, which it overrides; If-None-Match before
If-Modified-Since, likewise. Times compare in whole seconds, as Last-Modified has no more.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Mapping
from email.utils import parsedate

from s4.s3.errors import S3Error

HEADERS = frozenset(("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"))
# What writes take. Of what lists or tells settings a condition may be passed over: its answer is whole then.
TAKEN = {
    **dict.fromkeys(
        ("PutObject", "CopyObject", "CreateMultipartUpload", "CompleteMultipartUpload", "RenameObject"),
        frozenset(("if-match", "if-none-match")),
    ),
    "DeleteObject": frozenset(("if-match",)),
}
_NONE: frozenset[str] = frozenset()
# A piece of an object, which would become the whole of it (RFC 9110, 14.5).
_PIECE = "content-range"


def check_write(operation: str, headers: Mapping[str, str]) -> None:
    """Raises S3Error NotImplemented for a condition that a write would pass over."""
    piece = operation == "PutObject" and _PIECE in headers
    if (HEADERS.isdisjoint(headers) and not piece) or operation.startswith(("Get", "Head", "List")):
        return
    said = (HEADERS - TAKEN.get(operation, _NONE)) & headers.keys()
    for name in sorted(said | {_PIECE} if piece else said):
        raise S3Error("NotImplemented", f"S4 does not implement {name} of this operation ({operation}).", Header=name)


def etag_of(if_match: str | None) -> str:
    """The ETag that a write wants to be there, or *; empty for no condition. Raises S3Error for one that says
    nothing."""
    found = (if_match or "").strip().strip('"')
    if if_match is not None and not found:
        raise S3Error(
            "InvalidArgument", "If-Match must be an ETag or *.", ArgumentName="If-Match", ArgumentValue=if_match
        )
    return found


def parse_date(text: str) -> int | None:
    """Seconds since 1970 of an HTTP date; None for what is not one, which is then ignored."""
    if not text:
        return None
    fields = parsedate(text)
    try:
        return timegm(fields) if fields else None
    except (ValueError, OverflowError):
        return None


def etags(header: str) -> list[str]:
    """ETags of a list, without quotes and weakness."""
    return [piece.strip().removeprefix("W/").strip('"') for piece in header.split(",")]


def matches(header: str, etag: str) -> bool:
    listed = etags(header)
    return "*" in listed or etag in listed


def range_holds(header: str | None, etag: str, modified_ms: int) -> bool:
    """Whether If-Range lets a range count: where it names this ETag, or the very time of its last change (RFC 9110,
    13.1.5)."""
    if header is None:
        return True
    if header.startswith(('"', "W/")):
        return header == f'"{etag}"'  # a strong comparison: a weak tag never matches
    since = parse_date(header)
    return since == modified_ms // 1000 if since is not None else header == etag


def check_read(headers: Mapping[str, str], etag: str, modified_ms: int, prefix: str = "") -> None:
    """Raises S3Error PreconditionFailed or NotModified. With a prefix, the conditions on a copy's source."""
    if not prefix and HEADERS.isdisjoint(headers):
        return
    modified = modified_ms // 1000
    if_match, if_none = headers.get(prefix + "if-match"), headers.get(prefix + "if-none-match")
    if if_match is not None:
        if not matches(if_match, etag):
            raise S3Error("PreconditionFailed", Condition=prefix + "If-Match")
    else:
        since = parse_date(headers.get(prefix + "if-unmodified-since", ""))
        if since is not None and modified > since:
            raise S3Error("PreconditionFailed", Condition=prefix + "If-Unmodified-Since")
    failed = False
    if if_none is not None:
        failed = matches(if_none, etag)
    else:
        since = parse_date(headers.get(prefix + "if-modified-since", ""))
        failed = since is not None and modified <= since
    if failed:
        if not prefix:
            raise S3Error("NotModified", headers={"ETag": f'"{etag}"'})
        name = "If-None-Match" if if_none is not None else "If-Modified-Since"
        raise S3Error("PreconditionFailed", Condition=prefix + name)


def told(error: S3Error, headers: Mapping[str, str]) -> None:
    """A write's condition, which the partition decides, is named as a read's."""
    if error.code == "PreconditionFailed":
        error.fields.setdefault("Condition", "If-Match" if "if-match" in headers else "If-None-Match")

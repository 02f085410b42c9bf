"""Rules for names: buckets, object keys, and the dates that S3 prints."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from s4.s3.errors import S3Error

RESERVED = ("healthz", "readyz", "api", "metrics", "admin")  # paths of ours: no request for one may be a bucket's
_DIGITS = re.compile(r"\d{1,18}", re.ASCII).fullmatch
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+", re.ASCII)


def number(text: str, least: int, most: int) -> int | None:
    """The number that a client wrote in ASCII digits; None where it is none, or out of bounds."""
    return value if _DIGITS(text) and least <= (value := int(text)) <= most else None


def is_bucket(text: str) -> bool:
    """Whether a bucket can have had that name."""
    return _BUCKET.fullmatch(text) is not None


def check_new_bucket(name: str) -> None:
    """Raises S3Error InvalidBucketName. Source: S3 User Guide, "General purpose bucket naming rules"."""
    bad = (
        not _BUCKET.fullmatch(name)
        or any(pair in name for pair in ("..", ".-", "-."))  # its parts are names of hosts (RFC 1123, 2.1)
        or _ADDRESS.fullmatch(name)
        or name.startswith(("xn--", "sthree-", "amzn-s3-demo-"))
        or name.endswith(("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
        or name in RESERVED
    )
    if bad:
        raise S3Error("InvalidBucketName", BucketName=name)


def copy_source(header: str) -> bytes:
    """bucket/key of an x-amz-copy-source, whatever version it names: with or without a slash before it, percent-encoded
    or not, and with + for a space."""
    path = header.partition("?")[0].replace("+", " ")
    return unquote_to_bytes(path.encode("utf-8", "surrogateescape")).removeprefix(b"/")


@lru_cache(maxsize=4096)
def iso_second(second: int) -> str:
    """A time as listings and results print it: in whole seconds, as Last-Modified has no more, and sync tools compare
    the two."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(second))


def iso_date(ms: int) -> str:
    return iso_second(ms // 1000)


def exact_date(ms: int) -> str:
    """A time that a client gave, to the millisecond."""
    return f"{iso_second(ms // 1000)[:-4]}{ms % 1000:03d}Z"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=4096)
def http_date(second: int) -> str:
    when = time.gmtime(second)
    return (
        f"{_DAYS[when.tm_wday]}, {when.tm_mday:02d} {_MONTHS[when.tm_mon - 1]} {when.tm_year}"
        f" {when.tm_hour:02d}:{when.tm_min:02d}:{when.tm_sec:02d} GMT"
    )


# Of RFC 9110, 5.6.7, all three; of `date -R`, which scripts sign with; and of ISO 8601, as x-amz-date has it.
_DATES = (
    "%a, %d %b %Y %H:%M:%S GMT",
    "%a, %d %b %Y %H:%M:%S %z",
    "%Y%m%dT%H%M%SZ",
    "%A, %d-%b-%y %H:%M:%S GMT",
    "%a %b %d %H:%M:%S %Y",
)


def time_of(date: str) -> int | None:
    """Seconds since 1970 of a date that a request is signed with; None for what is none."""
    for form in _DATES:
        try:
            found = datetime.strptime(date, form)
        except ValueError:
            continue
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    return None

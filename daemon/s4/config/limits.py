"""Every bound of the server in one place: default, meaning, and the setting that changes it.

Each field is a setting: `--limit NAME=VALUE` on the command line, or `S4_LIMIT_NAME`. Sizes take suffixes
(64KiB, 5GiB). What S3 itself fixes (10,000 parts, 5 GiB a part) has the S3 value as its default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
NO_RATE = 1 << 60  # what no rate is
_UNITS = {"": 1, "B": 1, "K": KIB, "KIB": KIB, "M": MIB, "MIB": MIB, "G": GIB, "GIB": GIB, "T": TIB, "TIB": TIB}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds; `_bytes`, `_s` and counts."""

    put_bytes: int = 5 * GIB  # one PUT or part
    object_bytes: int = 5 * TIB  # a completed multipart upload
    part_min_bytes: int = 5 * MIB  # every part but the last
    parts: int = 10_000
    key_bytes: int = 1024
    metadata_bytes: int = 2 * KIB  # x-amz-meta-* names and values together
    header_bytes: int = 16 * KIB  # one header line
    headers: int = 128
    request_line_bytes: int = 16 * KIB
    xml_bytes: int = 4 * MIB  # a request's XML body
    xml_depth: int = 10
    delete_keys: int = 1000  # keys in one DeleteObjects
    list_keys: int = 1000  # rows on a page
    buckets_per_user: int = 1000
    buckets: int = 10_000  # in all: creating one counts them
    users: int = 10_000
    keys_per_user: int = 16
    requests: int = 256  # at work, of which one user has a third of what others leave free: a quarter alone
    waiting_requests: int = 1024  # for a place among them, of which one user has half of what others leave free
    user_requests_per_s: int = NO_RATE  # of each user, at each process that serves S3; then 503 with Retry-After
    user_bytes_per_s: int = NO_RATE  # of bodies and answers
    bucket_requests_per_s: int = NO_RATE
    bucket_bytes_per_s: int = NO_RATE
    unknown_requests: int = 64  # whose form or IAM call is read before it is known who asks; then the longest gives way
    unknown_s: float = 30.0  # and how long that may take in all, however steadily bytes come
    connections: int = 4096  # then the one that is silent longest gives way
    first_head_s: float = 30.0  # for a new connection to bring its first request, its handshake included
    admin_connections: int = 64  # then the one that is silent longest gives way
    waiting_commands: int = 4096  # for the writer loop
    waiting_events: int = 10_000  # of one partition for one receiver: then what would make more is refused
    memory_bytes: int = 384 * MIB  # buffers of uploads and downloads
    memory_wait_s: float = 30.0  # for a share of them, then 503
    row_cache_bytes: int = 64 * MIB
    blob_cache_bytes: int = 64 * MIB
    open_volumes: int = 256
    open_tables: int = 500  # files LevelDB keeps open
    keepalive_s: float = 75.0
    stall_s: float = 60.0  # a body that brings no byte, a reader that takes none
    least_rate_bytes: int = KIB  # a second, of a body or an answer, over the time that its client is waited for
    request_s: float = 12 * 3600.0  # a whole request
    shutdown_s: float = 30.0  # for requests in flight at the end
    ghost_s: float = 60.0  # for a gateway that a node lost to come back, before what it may be reading is freed
    look_s: float = 10.0  # between two looks at drives, the coordinator and all else that health is made of
    slow_drive_s: float = 2.0  # for one read, write or sync; a drive that needs more for several of them is slow
    clock_skew_s: float = 900.0
    presign_s: int = 7 * 24 * 3600


_LEAST = {"ghost_s": 5.0}  # who asks for nothing is silent for 2.5 s at a time (peer/client.py)


def parse_size(text: str) -> int:
    """Bytes of "64KiB", "5G", "1000". Raises ValueError."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    if not match or match[2].upper() not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write it like 4096, 64KiB or 5GiB")
    return int(match[1]) * _UNITS[match[2].upper()]


def with_settings(limits: Limits, settings: Mapping[str, str]) -> Limits:
    """Limits with some fields replaced by settings given as text. Raises ValueError that says what to change."""
    known = {field.name: field for field in fields(Limits)}
    values: dict[str, int | float] = {}
    for name, text in settings.items():
        if name not in known:
            raise ValueError(f"there is no limit named {name!r}; known are {', '.join(known)}")
        try:
            number: int | float = float(text) if known[name].type == "float" else parse_size(text)
        except ValueError as error:
            raise ValueError(f"the limit {name}: {error}") from error
        if not number > 0:
            raise ValueError(f"the limit {name} must be above zero, not {text}")
        if number < _LEAST.get(name, 0):
            raise ValueError(f"the limit {name} must be at least {_LEAST[name]}, not {text}")
        values[name] = number
    return replace(limits, **values)  # type: ignore[arg-type]

"""Range headers (RFC 9110, section 14) as S3 takes them: one range of bytes."""

from __future__ import annotations

import re

from s4.s3.errors import S3Error

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


def parse(header: str, size: int) -> tuple[int, int] | None:
    """(offset, length) in bytes; None where the header is to be ignored, as for other units and several ranges.

    Raises S3Error InvalidRange where the range begins at or past the end, or is an empty suffix.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[0] == "bytes=-" or len(header) > 64:
        return None
    first, last = match[1], match[2]
    if not first:
        length = min(int(last), size)
        start = size - length
    else:
        start = int(first)
        stop = min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            return None
        length = stop - start + 1
    if start >= size or length <= 0:
        raise S3Error(
            "InvalidRange",
            headers={"Content-Range": f"bytes */{size}"},
            ActualObjectSize=str(size),
            RangeRequested=header,
        )
    return start, length


def parse_copy(header: str, size: int) -> tuple[int, int]:
    """x-amz-copy-source-range: both ends are required and must be inside. Raises S3Error."""
    match = _RANGE.fullmatch(header)
    if match is None or not match[1] or not match[2] or len(header) > 64:
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy",
        )
    start, stop = int(match[1]), int(match[2])
    if stop < start or stop >= size:
        raise S3Error(
            "InvalidRange" if start >= size else "InvalidArgument",
            f"Range specified is not valid for source object of size: {size}",
        )
    return start, stop - start + 1

"""Storage classes: names that objects have. S4 keeps all of them on the same disks, and reads all at once. Pure.

What is read only after a restore is refused, since S4 has no archive. A class other than STANDARD is kept among an
object's headers, so that GET and HEAD show it as S3 does, which leaves STANDARD out.
Source: Amazon S3 user guide, "Understanding and managing Amazon S3 storage classes".
"""

from __future__ import annotations

from collections.abc import Mapping

from s4.s3.errors import S3Error

NAME = "x-amz-storage-class"
STANDARD = "STANDARD"
AT_ONCE = (STANDARD, "REDUCED_REDUNDANCY", "STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR")
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")


def check(text: str) -> str:
    """Raises S3Error NotImplemented, InvalidStorageClass."""
    if text in ARCHIVES:
        raise S3Error(
            "NotImplemented", f"S4 has no archive: it does not implement the storage class {text}.", Header=NAME
        )
    if text not in AT_ONCE:
        raise S3Error("InvalidStorageClass", StorageClassRequested=text)
    return text


def of(headers: Mapping[str, str]) -> str:
    """The class of an object by the headers that are kept with it."""
    return headers.get(NAME, STANDARD)


def kept(text: str | None) -> dict[str, str]:
    """How a class stands among an object's headers."""
    return {NAME: text} if text is not None and text != STANDARD else {}

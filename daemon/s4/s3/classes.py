"""Storage classes: names that objects have. S4 keeps all of them on the same disks, and reads all at once. Pure.

What is read only after a restore is refused, since S4 has no archive.
Source: Amazon S3 user guide, "Understanding and managing Amazon S3 storage classes".
"""

from __future__ import annotations

from collections.abc import Iterable

from s4.metadata.classes import NAME, STANDARD
from s4.s3.errors import S3Error

AT_ONCE = (STANDARD, "REDUCED_REDUNDANCY", "STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR")
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_COLDER = AT_ONCE[2:]  # where lifecycle moves objects, the last one furthest
# class -> where lifecycle may move objects from there. Source: user guide, "Transitioning objects using Amazon S3
# Lifecycle".
_MOVES = {
    STANDARD: _COLDER,
    "REDUCED_REDUNDANCY": _COLDER,
    "STANDARD_IA": _COLDER[1:],
    "INTELLIGENT_TIERING": _COLDER[2:],
}
LEAST_BYTES = 128 * 1024  # what rules that name no size move


def check(text: str) -> str:
    """Raises S3Error NotImplemented, InvalidStorageClass."""
    if text in ARCHIVES:
        raise S3Error(
            "NotImplemented", f"S4 has no archive: it does not implement the storage class {text}.", Header=NAME
        )
    if text not in AT_ONCE:
        raise S3Error("InvalidStorageClass", StorageClassRequested=text)
    return text


def check_target(text: str) -> str:
    """Of a rule that moves objects. Raises S3Error NotImplemented, MalformedXML."""
    if text in ARCHIVES:
        return check(text)
    if text not in _COLDER:
        raise S3Error("MalformedXML")
    return text


def furthest(now: str, targets: Iterable[str]) -> str:
    """Where an object goes whose rules name these targets; empty where it stays."""
    return max((one for one in targets if one in _MOVES.get(now, ())), key=AT_ONCE.index, default="")

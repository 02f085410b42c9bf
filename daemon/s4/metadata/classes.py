"""The storage class of an object, as its row keeps it: among its headers, where it is not STANDARD (s3/classes.py has
which there are)."""

from __future__ import annotations

from collections.abc import Mapping

NAME = "x-amz-storage-class"
STANDARD = "STANDARD"


def of(headers: Mapping[str, str]) -> str:
    """The class of an object by the headers that are kept with it."""
    return headers.get(NAME, STANDARD)


def kept(text: str | None) -> dict[str, str]:
    """How a class stands among an object's headers."""
    return {NAME: text} if text is not None and text != STANDARD else {}

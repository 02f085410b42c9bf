"""Patterns with wildcards and variables, as policies have them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Context = Mapping[str, tuple[str, ...]]  # condition keys in lower case
VARIABLE = re.compile(r"\$\{([^}]*)\}")
_KEPT = {"*": "\ue000", "?": "\ue001", "$": "$"}  # ${*} is a star that is no wildcard


class PolicyError(ValueError):
    """A document that is no policy; the message says what to change."""


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern with `*` and `?` fits a whole text, in steps that are bounded by the lengths of both together.

    What stands between stars is found from the left, each piece after the one before; nothing is looked for twice. A
    piece without `?` is found by `str.find`, which is linear. One with `?` is found in all places of the text at once:
    `_Places`.
    """
    if pattern == "*":
        return True
    if "*" not in pattern:
        return len(pattern) == len(text) and _fits(_kept(pattern), pattern, text, 0)
    first, *middle, last = pattern.split("*")
    end = len(text) - len(last)
    if len(first) > end or not _fits(_kept(first), first, text, 0) or not _fits(_kept(last), last, text, end):
        return False
    at, places = len(first), None
    for piece in middle:
        if "?" not in piece:
            found = text.find(_kept(piece), at, end)
        else:
            places = places or _Places(text)
            found = places.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _kept(piece: str) -> str:
    """What a piece says, with the characters that are no wildcards as themselves."""
    return piece.replace(_KEPT["*"], "*").replace(_KEPT["?"], "?")


def _fits(plain_piece: str, piece: str, text: str, at: int) -> bool:
    """Whether a piece stands at a place of the text."""
    if "?" not in piece:
        return text.startswith(plain_piece, at)
    for run in piece.split("?"):
        if not text.startswith(_kept(run), at):
            return False
        at += len(run) + 1
    return True


class _Places:
    """Where characters stand in a text, as numbers whose bit i is character i. One operation on such a number tries a
    character of a piece at every place of the text, so that a piece is found in as many operations as it has
    characters."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._of: dict[str, int] = {}

    def find(self, piece: str, at: int, end: int) -> int:
        """The first place from `at` where a piece stands and ends by `end`; -1 where there is none."""
        room = end - at - len(piece) + 1
        if room <= 0:
            return -1
        found = (1 << room) - 1
        for offset, char in enumerate(piece):
            if char != "?":
                found &= self._where(_kept(char)) >> (at + offset)
                if not found:
                    return -1
        return at + (found & -found).bit_length() - 1

    def _where(self, char: str) -> int:
        if char not in self._of:
            marks = self._text.translate(_Marks(ord(char)))
            self._of[char] = int(marks[::-1], 2)
        return self._of[char]


class _Marks(dict[int, str]):
    """A table for `str.translate`: 1 for one character, 0 for all others."""

    def __init__(self, char: int) -> None:
        super().__init__({char: "1"})

    def __missing__(self, char: int) -> str:
        self[char] = "0"
        return "0"


def filled(pattern: str, context: Context) -> str | None:
    """A pattern with its variables; None where the request lacks one, so that nothing matches."""
    if "${" not in pattern:
        return pattern
    lacking = False

    def value(match: re.Match[str]) -> str:
        nonlocal lacking
        name, comma, default = match[1].partition(",")
        if name in _KEPT:
            return _KEPT[name]
        found = context.get(name.strip().lower(), ())
        if len(found) != 1:
            lacking = lacking or not comma
            return default.strip().strip("'")
        return found[0].replace("*", _KEPT["*"]).replace("?", _KEPT["?"])

    made = VARIABLE.sub(value, pattern)
    return None if lacking else made


def variables(pattern: str) -> list[str]:
    """The condition keys, in lower case, that a pattern has as variables."""
    if "${" not in pattern:
        return []
    names = (match.partition(",")[0].strip().lower() for match in VARIABLE.findall(pattern))
    return [name for name in names if name not in _KEPT]


def plain(pattern: str) -> str:
    """What `filled` gives, for a comparison without wildcards."""
    return pattern.replace(_KEPT["*"], "*").replace(_KEPT["?"], "?")


def as_object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(f"{what} must be an object")
    return value

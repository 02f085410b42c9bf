"""Patterns with wildcards and variables, as policies have them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

Context = Mapping[str, tuple[str, ...]]  # condition keys in lower case
VARIABLE = re.compile(r"\$\{([^}]*)\}")
_KEPT = {"*": "\ue000", "?": "\ue001", "$": "$"}  # ${*} is a star that is no wildcard


class PolicyError(ValueError):
    """A document that is no policy; the message says what to change."""


@lru_cache(maxsize=4096)
def glob(pattern: str) -> re.Pattern[str]:
    """A pattern with `*` and `?` as an expression for `fullmatch`, in time that is bounded by text times pattern."""
    parts = ["".join("." if char == "?" else re.escape(char) for char in part) for part in pattern.split("*")]
    if len(parts) == 1:
        found = parts[0]
    else:  # atomic: a part that was found first is never looked for again
        found = parts[0] + "".join(f"(?>.*?{part})" for part in parts[1:-1] if part) + f".*{parts[-1]}"
    return re.compile(found.replace(_KEPT["*"], r"\*").replace(_KEPT["?"], r"\?"), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    return pattern == "*" or glob(pattern).fullmatch(text) is not None


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


def plain(pattern: str) -> str:
    """What `filled` gives, for a comparison without wildcards."""
    return pattern.replace(_KEPT["*"], "*").replace(_KEPT["?"], "?")


def as_object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(f"{what} must be an object")
    return value

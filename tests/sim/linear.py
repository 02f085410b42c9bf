"""Linearizability of the history of one key, a register: Wing and Gong's search with Lowe's memory of states seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

FOREVER = float("inf")


@dataclass(frozen=True)
class Call:
    """An operation: put and delete (always succeed), create (only where there is nothing) or get. `end` is FOREVER where the
    outcome is unknown; `result` is then None. Of a create it is whether it won, of a get the value."""

    kind: str
    value: str | None
    begin: float
    end: float
    result: str | bool | None = None


def _apply(call: Call, value: str | None) -> tuple[bool, str | None]:
    """(whether the result fits, the value afterwards)."""
    if call.kind == "get":
        return call.result == value, value
    if call.kind in ("put", "delete"):
        return True, call.value if call.kind == "put" else None
    if call.end == FOREVER:
        return True, call.value if value is None else value
    if call.result:
        return value is None, call.value
    return value is not None, value


def is_linearizable(history: Sequence[Any], initial: str | None = None,
                    apply: Callable[[Any, str | None], tuple[bool, str | None]] = _apply, most: int = 0) -> bool:  # fmt: skip
    """Whether some order of the calls, each at one moment between its begin and its end, explains every result. `apply` is
    what a call does to a value: (whether its result fits, the value afterwards). What is not decided within `most` steps, where
    that is given, counts as explained."""
    calls = sorted((call for call in history if not (call.kind == "get" and call.end == FOREVER)), key=lambda call: call.begin)
    known = frozenset(index for index, call in enumerate(calls) if call.end != FOREVER)
    seen: set[tuple[frozenset[int], str | None]] = set()
    stack = [(frozenset(range(len(calls))), initial)]
    while stack:
        left, value = stack.pop()
        if not left & known or (most and len(seen) > most):
            return True
        if (left, value) in seen:
            continue
        seen.add((left, value))
        first_end = min(calls[index].end for index in left)
        # what ends first is tried first: it is the last on the stack
        for index in sorted((one for one in left if calls[one].begin <= first_end), key=lambda one: -calls[one].end):
            matches, after = apply(calls[index], value)
            if matches:
                stack.append((left - {index}, after))
    return False

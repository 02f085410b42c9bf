"""Linearizability of the history of one key, a register: Wing and Gong's search with Lowe's memory of states seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

FOREVER = float("inf")
MOST_STEPS = 20_000


@dataclass(frozen=True)
class Call:
    """An operation: put and delete (always succeed), create (only where there is nothing) or get. `end` is FOREVER
    where the outcome is unknown; `result` is then None. Of a create it is whether it won, of a get the value."""

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


def is_linearizable(
    history: Sequence[Any],
    initial: str | None = None,
    apply: Callable[[Any, str | None], tuple[bool, str | None]] = _apply,
    most: int = MOST_STEPS,
) -> bool:
    """Whether some order of the calls, each at one moment between its begin and its end, explains every result.
    `apply` is what a call does to a value: (whether its result fits, the value afterwards). What `most` steps do not
    decide, for so many outcomes are unknown, is looked for once more as if such a call could have happened any number
    of times."""
    calls = sorted(
        (call for call in history if not (call.kind == "get" and call.end == FOREVER)), key=lambda call: call.begin
    )
    found = _search(calls, initial, apply, most, again=False)
    return found if found is not None else bool(_search(calls, initial, apply, 0, again=True))


def _search(calls: Sequence[Any], initial: str | None, apply: Any, most: int, *, again: bool) -> bool | None:
    """None where `most` steps did not decide. `again`: calls of unknown outcome may happen any number of times."""
    known = sum(1 << index for index, call in enumerate(calls) if call.end != FOREVER)
    seen: set[tuple[int, str | None]] = set()
    stack = [((1 << len(calls)) - 1, initial)]  # which calls are left, as bits
    while stack:
        left, value = stack.pop()
        if not left & known:
            return True
        if (left, value) in seen:
            continue
        seen.add((left, value))
        if most and len(seen) > most:
            return None
        there = [index for index in range(len(calls)) if left >> index & 1]
        first_end = min(calls[index].end for index in there)
        # what ends first is tried first: it is the last on the stack
        for index in sorted((one for one in there if calls[one].begin <= first_end), key=lambda one: -calls[one].end):
            matches, after = apply(calls[index], value)
            if matches:
                stack.append((left if again and calls[index].end == FOREVER else left & ~(1 << index), after))
    return False

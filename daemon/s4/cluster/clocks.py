"""What time it is, as far as a node can know: whether its clock may end something, a lock or an object's life (R13),
and the time that is put on what is written. Pure.

Each other store is asked now and then what time it has. A clock that differs from those of more than half of the
stores that answered lately is the wrong one, as far as anybody can tell. Before any has answered nothing is known, so
that a node that starts with a wrong clock ends nothing either; a store without others has nobody to differ from. What
was heard is carried on by a clock that never jumps, so that a step of our own shows at once, not when the others are
asked next.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

APART_S = 5.0  # that clocks may differ
LATELY_S = 60.0


@dataclass(frozen=True, slots=True)
class _Heard:
    """Another store's clock less ours, within `late`, when ours was `base` ahead of the clock that never jumps."""

    offset: float
    late: float
    base: float
    at: float

    def offset_now(self, at: float, now_s: float | None) -> float:
        return self.offset if now_s is None else self.offset - (now_s - at - self.base)

    def apart(self, at: float, now_s: float | None) -> float:
        return max(0.0, abs(self.offset_now(at, now_s)) - self.late)


class Clocks:
    """What the other stores' clocks were found to be. `at` is on a clock that never jumps, `now_s` our wall clock at
    that moment. All in seconds."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def heard(self, store: str, told_s: float, asked_s: float, answered_s: float, at: float) -> None:
        """What a store told, asked and answered at these times of our own wall clock."""
        late = max(0.0, answered_s - asked_s) / 2
        self._heard[store] = _Heard(told_s - (asked_s + late), late, answered_s - at, at)

    def keep(self, stores: Container[str]) -> None:
        """Forget stores that are not among these."""
        self._heard = {store: one for store, one in self._heard.items() if store in stores}

    def apart(self, at: float, now_s: float | None = None) -> dict[str, float]:
        """By how many seconds at least the clocks of stores that were heard lately differ from ours."""
        return {store: one.apart(at, now_s) for store, one in self._heard.items() if at - one.at <= LATELY_S}

    def agree(self, at: float, now_s: float | None = None, *, alone: bool = False) -> bool:
        """Whether this clock may end something. `alone`: there is no other store."""
        offsets = self.apart(at, now_s).values()
        return alone or (len(offsets) > 0 and 2 * sum(offset > APART_S for offset in offsets) <= len(offsets))

    def time(self, at: float, now_s: float) -> float | None:
        """The time as most have it who were ever heard: ours, if it is theirs, else the middle one of theirs, of two
        the later. None where none was heard."""
        if not self._heard:
            return None
        if 2 * sum(one.apart(at, now_s) > APART_S for one in self._heard.values()) <= len(self._heard):
            return now_s
        offsets = sorted(one.offset_now(at, now_s) for one in self._heard.values())
        return now_s + offsets[len(offsets) // 2]

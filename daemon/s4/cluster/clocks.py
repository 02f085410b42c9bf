"""Whether this node's clock can be trusted to end something: a lock, or an object's life (R13). Pure.

Each other store is asked now and then what time it has. A clock that differs from those of more than half of the
stores that answered lately is the wrong one, as far as anybody can tell. Before any has answered nothing is known, so
that a node that starts with a wrong clock ends nothing either; a store without others has nobody to differ from.
"""

from __future__ import annotations

APART_S = 5.0  # that clocks may differ
LATELY_S = 60.0


class Clocks:
    """What the other stores' clocks were found to be. Offsets are theirs less ours, in seconds."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, float]] = {}

    def heard(self, store: str, told_s: float, asked_s: float, answered_s: float, at: float) -> None:
        """What a store told, asked and answered at these times of our own wall clock. `at` is on a clock that never jumps."""
        late = max(0.0, answered_s - asked_s) / 2
        offset = told_s - (asked_s + late)
        self._heard[store] = max(0.0, abs(offset) - late), at

    def apart(self, at: float) -> dict[str, float]:
        """By how many seconds at least the clocks of stores that were heard lately differ from ours."""
        return {store: offset for store, (offset, heard_at) in self._heard.items() if at - heard_at <= LATELY_S}

    def agree(self, at: float, *, alone: bool = False) -> bool:
        """`alone`: there is no other store."""
        offsets = self.apart(at).values()
        return alone or (len(offsets) > 0 and 2 * sum(offset > APART_S for offset in offsets) <= len(offsets))

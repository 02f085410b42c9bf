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
        self._heard: dict[
            str, tuple[float, float, float, float]
        ] = {}  # offset, its error, when, our clock's own offset

    def heard(self, store: str, told_s: float, asked_s: float, answered_s: float, at: float) -> None:
        """What a store told, asked and answered at these times of our own wall clock. `at`, here and below, is on a clock
        that never jumps: by it a step of our own clock is seen at once, before anybody is asked again."""
        late = max(0.0, answered_s - asked_s) / 2
        offset = told_s - (asked_s + late)
        self._heard[store] = offset, late, at, answered_s - at

    def apart(self, at: float, wall_s: float) -> dict[str, float]:
        """By how many seconds at least the clocks of stores that were heard lately differ from ours, which says `wall_s`."""
        return {
            store: max(0.0, abs(offset - ((wall_s - at) - ours)) - late)
            for store, (offset, late, heard_at, ours) in self._heard.items()
            if at - heard_at <= LATELY_S
        }

    def agree(self, at: float, wall_s: float, *, alone: bool = False) -> bool:
        """`alone`: there is no other store."""
        offsets = self.apart(at, wall_s).values()
        return alone or (len(offsets) > 0 and 2 * sum(offset > APART_S for offset in offsets) <= len(offsets))

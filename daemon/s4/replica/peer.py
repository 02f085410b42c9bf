"""What a primary remembers of another replica."""

from __future__ import annotations

from dataclasses import dataclass

NEVER = float("-inf")


@dataclass(slots=True)
class Peer:
    """What the primary knows of another replica in this epoch. Times are the primary's own."""

    since: float
    promised: float = NEVER  # when the beacon was sent that it answered last
    acked: int | None = None  # what it said to be durable
    exact: bool = True  # it must be told where its log ends
    next: int = 0  # sequence to send next
    told: int = 0  # commit sequence that it was told
    beaconed: float = NEVER
    sent: float = NEVER
    base: int | None = None  # a snapshot was ordered when this was committed: what follows is kept for it

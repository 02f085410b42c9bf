"""The faults of a seed: which kinds there are, how often, and which of them a seed draws.

A fault is a value: when, what, where, for how long. The list is drawn before the run, so that a run with some of them
taken away is the same run without them. Whether one that is due may happen is for atlas.py.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

HIDDEN = ("rot", "unreadable", "unreadable tail", "damaged rows")  # until somebody reads there
TAKES_DATA = ("wipe", "no metadata", "rot", "unreadable", "unreadable tail", "damaged rows")
SLOW = ("slow disk", "slow network")  # by these nothing fails
CLOCKS = ("wall step", "late leader")  # after these nobody knows how old an orphan is
AWAY = (
    "two away",
    "full at answer",
    "crash",
    "power",
    "power at write",
    "crash at batch",
    "lost alone",
    "all power",
    "pause",
    "cut",
    "isolate",
    "apart",
    "full",
    "nearly full",
    "fail sync",
    "fail write",
    "slow disk",
    "suspend",
    "late leader",
)
KINDS = {
    "crash": 8,
    "power": 5,
    "power at write": 5,
    "crash at batch": 3,
    "lost alone": 2,
    "all power": 3,
    "pause": 6,
    "cut": 6,
    "isolate": 5,
    "apart": 3,
    "slow network": 3,
    "resets": 4,
    "full": 4,
    "nearly full": 4,
    "fail sync": 2,
    "fail write": 2,
    "slow disk": 3,
    "wall step": 4,
    "late leader": 2,
    "rate": 2,
    "suspend": 3,
    "coordinator away": 3,
    "coordinator lossy": 4,
    "late packets": 4,
    "answer lost": 4,
    "full at answer": 4,
    "late commands": 4,
    "two away": 2,
    "rot": 3,
    "unreadable": 4,
    "unreadable tail": 2,
    "wipe": 3,
    "no metadata": 2,
    "damaged rows": 2,
}


@dataclass(frozen=True)
class Fault:
    """`at_s` counts from when the cluster was made; `draw` decides what is not said here."""

    at_s: float
    kind: str
    node: int
    lasts_s: float
    draw: int

    def __str__(self) -> str:
        return f"{self.at_s:.1f} s: {self.kind} at {self.node} for {self.lasts_s:.1f} s"


IN_A_CLUSTER = (
    "crash at batch",
    "lost alone",
    "cut",
    "isolate",
    "apart",
    "slow network",
    "resets",
    "late packets",
    "coordinator away",
    "coordinator lossy",
    "rate",
    "all power",
    "suspend",
    "late leader",
    "answer lost",
    "full at answer",
    "late commands",
    "two away",
)
ON_DRIVES = {kind: weight for kind, weight in KINDS.items() if kind not in IN_A_CLUSTER}
IN_MOVES = KINDS | {"drain": 12}  # of a cluster with a store more than a blob has shards


def faults_of(seed: int, nodes: int, seconds: float, kinds: dict[str, int] = KINDS) -> list[Fault]:
    chosen = random.Random(f"faults {seed}")
    some = chosen.sample(
        sorted(kinds), chosen.randint(min(2, len(kinds)), min(8, len(kinds)))
    )  # a few kinds, often: they meet each other
    count = chosen.choice((2, 5, 8, 12))
    weights = [kinds[one] for one in some]
    made = [
        Fault(
            chosen.uniform(1.0, seconds),
            chosen.choices(some, weights)[0],
            chosen.randrange(nodes),
            chosen.choice((0.3, 2.0, 5.0, 15.0)) * chosen.uniform(0.5, 1.5),
            chosen.randrange(1 << 30),
        )
        for _ in range(count)
    ]
    return sorted(made, key=lambda one: one.at_s)

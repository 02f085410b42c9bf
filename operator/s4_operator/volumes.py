"""Volumes that grow (storage.size). Pure, for plan.py.

A claim is asked for its new size once the one before it has its own, lowest ordinal first: whoever provides the volumes
grows one at a time, and the first that cannot be grown costs nothing. Nothing is kept anywhere: what a claim was asked
for and what its volume has are its spec and its status, so the operator may die between any two. S4 sees the space by
itself; shares by size (sizes.py) follow once none is on its way, or data would move for a size that all have in a while.

The StatefulSet's template of claims cannot be changed: the set is made anew around its pods (clusters.py), which go on,
for its template of pods is the same. Until it is there again its pods say how many it has (plan.py).

A class that does not allow it is refused by the API server, in words; these are kept for a while (`refused`), for a claim
is not asked again each round. Smaller is refused by the CRD, but with another class (migration.py).
"""

from __future__ import annotations

from s4.base.text import human
from s4_operator import migration
from s4_operator.models import size
from s4_operator.observed import Claim, Observed
from s4_operator.steps import GrowClaim


def _used(seen: Observed) -> list[Claim]:
    """Claims of nodes that there are; others are kept, and nobody mounts them."""
    nodes = seen.spec.nodes if seen.replicas is None else seen.replicas
    return sorted((one for one in seen.claims if one.ordinal < nodes), key=lambda one: one.ordinal)


def under_way(seen: Observed) -> list[Claim]:
    """Claims that were asked to grow, and have not."""
    return [one for one in _used(seen) if 0 < one.capacity < one.requested and not one.stuck]


def next_step(seen: Observed) -> GrowClaim | None:
    """The next claim to be asked."""
    wanted, anew = size(seen.spec.storage.size), migration.leaving(seen)
    waiting = [
        one
        for one in _used(seen)
        if one.ordinal not in anew
        and 0 < one.requested < wanted
        and one.capacity
        and not one.deleting
        and one.name not in seen.refused
    ]
    return GrowClaim(waiting[0], seen.spec.storage.size) if waiting and not under_way(seen) else None


def is_growing(seen: Observed) -> bool:
    return bool(under_way(seen)) or next_step(seen) is not None


def doing(seen: Observed) -> str:
    """What grows now, and what it waits for; empty while nothing does."""
    return "; ".join(
        f"{one.name} grows from {human(one.capacity)} to {human(one.requested)}{f': {one.waits}' if one.waits else ''}"
        for one in under_way(seen)
    )


def smaller(seen: Observed) -> str:
    """Which volumes are smaller than asked for, and why; empty where all have their size."""
    wanted, anew, told = size(seen.spec.storage.size), migration.leaving(seen), []
    for one in _used(seen):
        if 0 < one.capacity < wanted:
            why = (
                ("it is made anew" if one.ordinal in anew else "")
                or seen.refused.get(one.name)
                or one.waits
                or ("it grows" if one.requested >= wanted else "its turn comes")
            )
            told.append(f"{one.name} has {human(one.capacity)} ({why})")
    return ", ".join(told)

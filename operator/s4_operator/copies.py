"""Copies of the metadata (metadataReplicas). Pure, for plan.py.

What the spec asks for is written into the map in one step, which says of every partition that other stores have its
metadata: those join as any replica does, a partition goes on meanwhile, and one that is too many leaves once enough
others are in sync (R8, R9). So nothing here waits, and the operator may die at any moment. Least and most are the
daemons' own rule (cluster/planner.py); the CRD refuses what is beyond, in words.

While a node runs a version that knows the least alone, it is not asked for: its next change of the map would take the
number out again.
"""

from __future__ import annotations

from s4.cluster.clustermap import ClusterMap
from s4.cluster.planner import BEFORE_COPIES
from s4_operator.observed import Observed
from s4_operator.steps import SetCopies, few


def next_step(seen: Observed, current: ClusterMap) -> SetCopies | None:
    """The change of the map, where it is another and everybody can read it."""
    asked = _asked(seen, current)
    return SetCopies(asked) if asked != current.replicas and not _old(seen) else None


def doing(seen: Observed, current: ClusterMap) -> str:
    """What joins, and what that waits for; empty where every partition has its copies, or a store is away."""
    asked = _asked(seen, current)
    if asked != current.replicas:
        old = _old(seen)
        return f"{asked} copies of the metadata wait until {few(sorted(old))} run S4 0.8" if old else ""
    lacking = sum(len(one.config.in_sync) < asked for one in current.partitions)
    if not current.copies or not lacking or seen.status is None or not all(one.up for one in seen.status.stores):
        return ""
    return f"{lacking} of {current.count} partitions do not have their {asked} copies of the metadata yet"


def _asked(seen: Observed, current: ClusterMap) -> int:
    return seen.spec.metadataReplicas or current.least_replicas


def _old(seen: Observed) -> list[str]:
    """Nodes that know one number of copies only."""
    if seen.status is None:
        return ["all nodes"]
    return [one.node for one in seen.status.stores if one.up and one.version.startswith(BEFORE_COPIES)]

"""A cluster whose shard map was lost, with its stores still there: what is done next, and said. Pure.

The map is begun anew under the cluster's id, which the Secret NAME-master keeps; the daemons start again under it,
stand by, and tell what they hold. What can be made of that is decided in s4/cluster/recovery.py, whose docstring has
the rules. Nothing is planned with stores that hold something before the map is the one that was; while not every store
has told, that waits for a person, who brings hosts back or gives up stores by their ids.
"""

from __future__ import annotations

from s4.cluster import clustermap
from s4_operator.models import seconds
from s4_operator.observed import Observed
from s4_operator.steps import RestoreMap

SAME = 400  # characters of a message by which it is known again; a condition has room for so many


def is_lost(seen: Observed) -> bool:
    """Whether stores hold something that the map knows nothing of, or nobody can say."""
    return seen.recovery is None or bool(seen.recovery.holding)


def next_step(seen: Observed) -> RestoreMap | None:
    if seen.recovery is None or not seen.recovery.map:
        return None
    return RestoreMap(clustermap.decode(seen.recovery.map))


def words(seen: Observed) -> str:
    """What is under way, or what it waits for."""
    if seen.recovery is None:
        return "waiting for a daemon to say what its stores hold"
    found = seen.recovery
    if found.map:
        return f"the shard map was lost: it is made again of what {len(found.holding)} stores hold"
    text = f"the shard map was lost, and is not made again yet: {'; '.join(found.reasons)}"
    if not found.missing:
        return text
    return (
        f"{text}; bring their hosts and volumes back, or, if they are lost for good, annotate the S4Cluster with "
        f"s4.dev/confirm-data-loss={','.join(found.missing)}"
    )


def needs_a_person(seen: Observed, present: int) -> bool:
    """Whether waiting alone helps no more: every pod has a store, or one has had none for `failure.replaceAfter`; and
    the round before found the same, for a store is known a moment before it tells."""
    if seen.recovery is None or seen.recovery.map or not seen.recovery.holding:
        return False
    said = words(seen)[:SAME]
    before = (one.message for one in seen.before.conditions if one.type in ("Progressing", "DataAtRisk"))
    patience = seconds(seen.spec.failure.replaceAfter)
    late = any(not pod.ready and seen.now_s - pod.created_s > patience for pod in seen.pods)
    return (present == seen.spec.nodes or late) and any(said in one for one in before)

"""Who is to leave a partition's in-sync set, and what the configuration is without them: values in, values out.

`replica/core.py` asks while it leads, and proposes what comes out of it by compare-and-swap (R4).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from s4.cluster.messages import Config, Plan
from s4.replica.terms import Peer


def removable(config: Config, plan: Plan, others: Mapping[str, Peer], limit: float, *, settled: bool) -> set[str]:
    """Replicas in sync to go on without. `others` are all but the primary; who has promised nothing since `limit` is
    silent (R6); `settled`: all that was in the primary's log when it was promoted is committed, or a primary before it
    showed its process that it lacks nothing: a copy is lost or put back only while no process has it open.

    Until then nobody is removed who was not heard, unless another in sync has shown that the primary lacks nothing
    (M4): a primary whose own copy is an old one would go on with that, and make the good ones like it. With two
    replicas, of which one is away while the other starts, that is for a person to decide, who declares it gone.
    """
    sure = {name for name, peer in others.items() if peer.lacks or name in plan.gone}
    lost = {name for name, peer in others.items() if max(peer.promised, peer.since) <= limit} | sure
    going = {name for name, peer in others.items() if peer.leaving}
    if len(config.in_sync) - len(lost | going) >= plan.minimum:
        lost |= going
    if not settled and not any(peer.acked is not None for name, peer in others.items() if name not in lost):
        lost = {name for name in lost if others[name].heard} | sure
    return lost


def without(config: Config, plan: Plan, lost: Collection[str], primary: str, lacking: Collection[str] = ()) -> Config:
    """The configuration without some replicas. Where too few are left, those stay eligible (R9), but not who said that
    it lacks something (M4)."""
    left = tuple(one for one in config.in_sync if one not in lost)
    stay = (*config.eligible, *(one for one in config.in_sync if one in lost))
    eligible = tuple(one for one in stay if one not in lacking) if len(left) < plan.minimum else ()
    return replace(config, epoch=config.epoch + 1, primary=primary, in_sync=left, eligible=eligible)


def grown(config: Config, plan: Plan, joined: str) -> Config:
    """The configuration with a replica that has caught up (R8)."""
    in_sync = (*config.in_sync, joined)
    eligible = tuple(one for one in config.eligible if one != joined and len(in_sync) < plan.minimum)
    return replace(config, epoch=config.epoch + 1, in_sync=in_sync, eligible=eligible)


def surplus(config: Config, plan: Plan, me: str) -> tuple[str, str] | None:
    """(who is in sync and not planned to be, who leads then), the primary, which is `me`, last of all. Nobody leaves
    before as many are in sync without it as are planned: a move costs no copy (D1), and no write of a strict cluster
    (R2)."""
    unplanned = [store for store in config.in_sync if store not in plan.replicas]
    if not unplanned or len(config.in_sync) <= max(plan.minimum, len(plan.replicas)):
        return None
    leaving = min(unplanned, key=lambda one: one == me)
    heirs = [one for one in config.in_sync if one in plan.replicas] if leaving == me else [me]
    return (leaving, heirs[0]) if heirs else None


def may_join(config: Config, plan: Plan, joining: Collection[str]) -> tuple[str, ...]:
    """Who is to have a copy, while those of `joining` are being filled: whoever is planned to; and where too few are in
    sync, one more at a time of those that are to hold shards. The last copy may have entries of which it cannot tell
    whether they were committed: nothing is read from it before a second copy has them, too (R9)."""
    if len(config.in_sync) >= plan.minimum or not set(joining) <= {*plan.replicas, *config.in_sync}:
        return plan.replicas
    return (*plan.replicas, *plan.members)


def outlived(config: Config, plan: Plan, me: str) -> bool:
    """Whether what `me` has is a copy that nothing counts on, nor will: all that are planned are in sync without it,
    and none of them is gone."""
    counted, alive = {*config.in_sync, *config.eligible, *plan.replicas}, set(config.in_sync) - set(plan.gone)
    return me not in counted and set(plan.replicas) <= alive


def behind(other: str, commit: int, last: int) -> str:
    """What is wrong with a primary that lacks what another replica has committed (R7, M4)."""
    return f"{other} has committed up to {commit}, and the log here ends at {last}"

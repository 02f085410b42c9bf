"""What must hold of a primary's knowledge of other replicas, after every step: the invariants that stand beside the
fields of `s4.replica.terms.Peer`."""

from __future__ import annotations

from s4.replica.core import Replica
from s4.replica.terms import Progress


def wrong(replica: Replica) -> str:
    """Which invariant does not hold of what a replica that leads knows of others; or nothing."""
    if not replica.leading:
        return ""
    last, commit, now = replica.last, replica.state.commit, replica.now
    for name, peer in replica._peers.items():
        acked, progress = peer.acked, peer.progress
        held = {
            "acked": (acked is None) if progress is Progress.SNAPSHOT else (acked or 0) <= last,
            "progress": progress is not Progress.REPLICATE or acked is not None,
            "next": progress is not Progress.REPLICATE or (acked or 0) < peer.next <= last + 1,
            "told": peer.told <= commit,
            "attempt": peer.attempt <= replica._attempts and (peer.attempt > 0 or peer.have is None is peer.base),
            "have": peer.have is None or peer.base is None,
            "base": (progress is not Progress.SNAPSHOT or peer.base is not None)
            and (peer.base is None or (progress is not Progress.PROBE and peer.base <= commit)),
            "times": max(peer.since, peer.promised, peer.beaconed, peer.sent) <= now,
        }
        broken = [field for field, holds in held.items() if not holds]
        if broken:
            return (
                f"{', '.join(broken)} of {name}, as {replica.me} has it: {peer}, our log at {last}, committed {commit}"
            )
    return ""

"""Replicas that tests drive by hand: one that leads, documents of three, time that passes."""

from __future__ import annotations

from s4.cluster.messages import Config, Document, Durable, Plan, Promise, State
from s4.replica.core import Replica
from s4.replica.terms import Timing


def passes(replica: Replica, until_s: float) -> None:
    """Time passes, and it looks each half of a second."""
    now = replica.now
    while now < until_s:
        now = min(now + 0.5, until_s)
        replica.tick(now)


def leading(me: str = "a", in_sync: tuple[str, ...] = ("a", "b")) -> Replica:
    """A primary at epoch 2 that serves, its secondaries having promised and acknowledged."""
    replica = Replica(me, State(), Timing(), 0.0)
    plan = Plan(("a", "b", "c"), 2)
    replica.see(Document(Config(1, me, in_sync), plan), 1, 0.0)
    replica.tick(0.0)
    assert replica.swap is not None
    replica.see(Document(replica.swap.config, plan), 2, 0.1)
    for other in in_sync:
        if other != me:
            replica.receive(other, Durable(2, 0), 0.1)
            replica.receive(other, Promise(2, 0.1), 0.1)
    replica.synced(len(replica.writes), 0.1)
    assert replica.serves(0.2)
    return replica


def three(primary: str, epoch: int = 7) -> Document:
    return Document(Config(epoch, primary, ("a", "b", "c")), Plan(("a", "b", "c"), 2))

"""Each rule of docs/protocol.md that has a counterexample, switched off: what the simulator must catch."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from s4.cluster.messages import LOST, Append, Config, Document, Plan, SnapshotPart, State
from s4.replica.core import Replica
from s4.replica.terms import NEVER, Peer, Progress, Swap, Timing
from sim.node import Node, Waiter


class CommitsWithTooFewCopies(Replica):
    """R2: on every in-sync replica is enough, be it one."""

    def _enough(self) -> bool:
        return True


class CommitsBeforeAllHaveIt(Replica):
    """R2: a majority would do."""

    def _needed(self) -> set[str]:
        needed = sorted(super()._needed())
        return set(needed[: len(needed) // 2])


class ForgetsAnUnknownSwap(Replica):
    """R4: while a swap's outcome is unknown only the proposed configuration counts."""

    def _needed(self) -> set[str]:
        if self.swap is not None:
            return set(self.swap.config.in_sync) - {self.me}
        return super()._needed()


class CountsTheOldSetOnly(Replica):
    """R4: while a swap's outcome is unknown only the old configuration counts."""

    def _needed(self) -> set[str]:
        return set(self.document.config.in_sync) - {self.me} if self.document else set()


class ServesWithoutLease(Replica):
    """R5: a primary serves until it hears of another."""

    def serves(self, now: float) -> bool:
        return self.leading and self._settled is None


class GoesOnWithoutTheSilent(Replica):
    """R6: a primary commits and reads without a secondary that is silent, which stays in the in-sync set."""

    def _needed(self) -> set[str]:
        limit = self.now - self.timing.lease
        return {one for one in super()._needed() if one not in self._peers or self._peers[one].promised > limit}


class PromisesWhilePromoting(Replica):
    """R5: its node still answers the old primary's beacons, and takes its entries."""

    def _promoting(self) -> bool:
        return False


class PromotesAtOnce(Replica):
    """R5: no grace after a start."""

    def see(self, document: Document, revision: int, now: float) -> None:
        first = self.document is None
        super().see(document, revision, now)
        if first:
            self._heard = NEVER


class ServesBeforeAllIsCommitted(Replica):
    """R7: a new primary serves what it knows to be committed, at once."""

    def _lead(self, config: Config, swap: Swap, previous: Document | None) -> None:
        super()._lead(config, swap, previous)
        self._settled = None


class LeavesOtherLogsAlone(Replica):
    """R7: what another replica has beyond the new primary's log stays."""

    def _cut(self, sequence: int) -> None:
        if sequence < self.state.commit:
            super()._cut(sequence)


class AddsBeforeItHasAll(Replica):
    """R8: a joining replica is added as soon as it has answered."""

    def _caught_up(self, peer: Peer) -> bool:
        return peer.promised > self.now - self.timing.lease


class JoinsAsItIs(Replica):
    """R8: a replica that was away counts as whole again without being filled."""

    def _joins(self, config: Config, sender: str, have: int | None) -> None:
        if sender not in config.in_sync and sender not in self._peers:
            self._peers[sender] = Peer(
                self.now, acked=self.state.commit, progress=Progress.REPLICATE, next=self.last + 1
            )


class ForgetsWhoIsEligible(Replica):
    """R9: a replica that comes back after too few were left is emptied like any other."""

    def _without(self, config: Config, plan: Plan, lost: set[str], primary: str) -> Config:
        left = tuple(one for one in config.in_sync if one not in lost)
        return Config(config.epoch + 1, primary, left)


class GoesOnAfterARestart(Replica):
    """R10: a primary that restarts serves in its old epoch."""

    def see(self, document: Document, revision: int, now: float) -> None:
        super().see(document, revision, now)
        config = document.config
        if not self.leading and config.primary == self.me and self.swap is None and self.revision == revision:
            self._lead(config, Swap(config, revision, now), None)


class TakesEntriesOfOldEpochs(Replica):
    """R3: a secondary takes entries from whoever was primary when they were sent."""

    def receive(self, sender: str, message: Any, now: float) -> None:
        config = self.document.config if self.document else None
        if config is not None and isinstance(message, Append) and message.epoch < config.epoch and not self.leading:
            self._append(config, message)
            return
        super().receive(sender, message, now)


class LeadsWithNothing(Replica):
    """M4: a copy that is empty is taken for all there is."""

    def _may_lead(self) -> bool:
        return self.state.joining in (None, LOST)


class ForgetsThatItLacks(Replica):
    """M4: a copy that was found to be lost is taken for a good one after the next start."""

    def __init__(self, me: str, state: State, timing: Timing, now: float) -> None:
        super().__init__(me, state, timing, now)
        if state.joining == LOST:
            state.joining = None


class RemovesWhoWasNotHeard(Replica):
    """M4: a primary that does not know yet whether it lacks something goes on without those who could tell it."""

    def _change(self, config: Config, plan: Plan) -> None:
        for peer in self._peers.values():
            peer.heard = True
        super()._change(config, plan)


class ClearsWhoHasMore(Replica):
    """M4: a primary that lacks something fills whoever joins with what it has."""

    def _joins(self, config: Config, sender: str, have: int | None) -> None:
        super()._joins(config, sender, None if have is not None and have > self.last else have)


class CountsOnWhoLacks(Replica):
    """M4: a replica that said that it is lost stays eligible, and is never filled."""

    def _without(self, config: Config, plan: Plan, lost: set[str], primary: str) -> Config:
        for peer in self._peers.values():
            peer.lacks = False
        return super()._without(config, plan, lost, primary)


class TakesAPartForAll(Replica):
    """R8: who joins says that it has all with the first part of a snapshot."""

    def _fill(self, part: SnapshotPart) -> bool:
        return super()._fill(replace(part, last=True))


class PassesOverALostPart(Replica):
    """R8: a part that comes after one that was lost is taken."""

    def _fill(self, part: SnapshotPart) -> bool:
        if part.attempt == self._attempt and self._next_part:
            self._next_part = part.number
        return super()._fill(part)


class KeepsRowsUnderASnapshot(Node):
    """R8: a snapshot is laid over the rows that are there."""

    snapshots_over = True


class RefusesAtOnce(Node):
    """R11: a refusal goes out before what it rests on is committed."""

    def refuse(self, named: tuple[int, int]) -> None:
        self.world.reply(named, (False,))


class ForgetsAnswers(Node):
    """R12: a repeated command is decided once more."""

    def repeated(self, named: tuple[int, int]) -> bool:
        return False


class ForgetsRefusals(Node):
    """R12: a refusal is not kept, so an earlier attempt that comes late takes effect."""

    def refuse(self, named: tuple[int, int]) -> None:
        self.waiters.append(Waiter(self.replica.last, named, False, refusal=True))


CORES = [
    CommitsWithTooFewCopies,
    CommitsBeforeAllHaveIt,
    ForgetsAnUnknownSwap,
    CountsTheOldSetOnly,
    ServesWithoutLease,
    GoesOnWithoutTheSilent,
    PromisesWhilePromoting,
    PromotesAtOnce,
    ServesBeforeAllIsCommitted,
    LeavesOtherLogsAlone,
    AddsBeforeItHasAll,
    JoinsAsItIs,
    ForgetsWhoIsEligible,
    GoesOnAfterARestart,
    TakesEntriesOfOldEpochs,
    LeadsWithNothing,
    ForgetsThatItLacks,
    RemovesWhoWasNotHeard,
    ClearsWhoHasMore,
    CountsOnWhoLacks,
    TakesAPartForAll,
    PassesOverALostPart,
]
NODES = [KeepsRowsUnderASnapshot, RefusesAtOnce, ForgetsAnswers, ForgetsRefusals]
# Rules whose counterexample is rare among all faults: those that make it likely.
FAULTS = {
    GoesOnAfterARestart: ("restart", "restart", "one way", "slow", "heal"),
    PromisesWhilePromoting: ("pause", "slow coordinator", "cut but one", "one way", "heal"),
    PromotesAtOnce: ("restart", "slow", "cut but one", "heal"),
    ForgetsThatItLacks: ("empty", "restart", "restart", "one way", "cut off", "heal"),
    RemovesWhoWasNotHeard: ("restore", "restore", "slow"),
    ClearsWhoHasMore: ("restore", "restore", "slow"),
    CountsOnWhoLacks: ("empty", "restart", "crash", "heal"),
    PassesOverALostPart: ("loss", "slow", "wipe", "wipe", "restart", "leave", "heal"),
}
# The seed that found each rule left out when the core was changed last: it is tried first.
FOUND = {
    CommitsWithTooFewCopies: 0,
    CommitsBeforeAllHaveIt: 0,
    ForgetsAnUnknownSwap: 0,
    CountsTheOldSetOnly: 58,
    ServesWithoutLease: 1,
    PromisesWhilePromoting: 25,
    PromotesAtOnce: 3,
    ServesBeforeAllIsCommitted: 3,
    LeavesOtherLogsAlone: 2,
    AddsBeforeItHasAll: 1,
    JoinsAsItIs: 0,
    ForgetsWhoIsEligible: 14,
    GoesOnAfterARestart: 0,
    TakesEntriesOfOldEpochs: 16,
    KeepsRowsUnderASnapshot: 8,
    LeadsWithNothing: 18,
    RefusesAtOnce: 0,
    ForgetsAnswers: 0,
    ForgetsRefusals: 1,
    ForgetsThatItLacks: 5,
    RemovesWhoWasNotHeard: 15,
    ClearsWhoHasMore: 10,
    CountsOnWhoLacks: 24,
    TakesAPartForAll: 6,
    PassesOverALostPart: 89,
}

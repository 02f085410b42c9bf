"""Copies that are empty, old or the last: who leads, who says so, who is filled by whom (R8, R9, M4)."""

from __future__ import annotations

import pytest

from s4.cluster.messages import (
    LOST,
    Again,
    Append,
    Beacon,
    Clear,
    Config,
    Document,
    Durable,
    Entry,
    Join,
    Plan,
    Promise,
    SnapshotPart,
    State,
)
from s4.replica.core import Replica
from s4.replica.terms import Timing
from sim.replicas import leading, passes, three


@pytest.mark.parametrize("primary", ["a", "b"])
def test_an_empty_copy_that_the_map_counts_on_leads_nobody_and_says_so(primary: str) -> None:
    """M4: somebody removed `meta/` for a fresh start. Also after the next start, when it has seen an epoch."""
    replica = Replica("a", State(), Timing(), 0.0)
    replica.see(three(primary), 9, 0.0)
    for now in range(10):
        replica.tick(float(now))
    assert replica.swap is None
    assert "empty" in replica.alarm
    again = Replica("a", replica.state, Timing(), 100.0)
    again.see(three(primary), 9, 100.0)
    passes(again, 110.0)
    assert again.swap is None
    assert again.alarm


def test_a_copy_that_is_new_with_its_partition_follows_and_may_lead() -> None:
    """Under a later epoch than the first, for the primary was quicker to start; but nothing was committed yet."""
    replica = Replica("b", State(), Timing(), 0.0)
    replica.see(three("a", 2), 2, 0.0)
    assert not replica.alarm
    replica.receive("a", Append(2, 0, (), 0, exact=True), 0.1)
    replica.synced(len(replica.writes), 0.2)
    assert replica.messages[-1] == ("a", Durable(2, 0))
    passes(replica, 5.0)
    assert replica.swap is not None
    assert not replica.alarm


def test_a_copy_that_was_lost_within_a_lease_is_found_out_though_nothing_is_written() -> None:
    """M4, found by the simulator of the whole (seed 1388): somebody removes `meta/` and starts the node again so soon
    that it is missed by nobody. The map counted on it until the next write: whoever lost the others meanwhile would
    have lost more than the map said."""
    primary = leading(in_sync=("a", "b", "c"))
    committed = primary.propose(b"row", 0.2)
    primary.synced(len(primary.writes), 0.3)
    for other in ("b", "c"):
        primary.receive(other, Durable(2, 1), 0.3)
    assert primary.state.commit == committed.sequence
    lost = Replica("b", State(), Timing(), 0.4)
    lost.see(primary.document, 2, 0.4)  # type: ignore[arg-type]
    primary.messages.clear()
    for step in range(5, 20):
        now = step / 10
        primary.tick(now)
        for one, name, other in ((primary, "a", lost), (lost, "b", primary)):
            one.synced(len(one.writes), now)
            said, one.messages = one.messages, []
            for to, message in said:
                if to == other.me:
                    other.receive(name, message, now)
                elif isinstance(message, Beacon):
                    primary.receive(to, Promise(2, message.sent_s), now)
    assert primary.swap is not None
    assert primary.swap.config == Config(3, "a", ("a", "c"))
    assert lost.state.joining == LOST


@pytest.mark.parametrize("eligible", [False, True])
def test_a_copy_that_lacks_what_is_committed_says_so_and_is_filled(eligible: bool) -> None:
    """M4, for an empty copy and for an older one: it is no member that lacks nothing, in sync or eligible (R9)."""
    document = Document(Config(7, "a", ("a",), ("b",)), Plan(("a", "b", "c"), 2)) if eligible else three("a")
    replica = Replica("b", State(epoch=5, commit=3), Timing(), 0.0)
    replica.see(document, 9, 0.0)
    replica.receive("a", Append(7, 40, (), 40, exact=True), 0.1)
    replica.synced(len(replica.writes), 0.2)
    ((to, said),) = replica.messages
    assert (to, said) == ("a", Again(7, 3, 0, lost=True))
    assert replica.state.joining == LOST
    assert replica.alarm
    passes(replica, 9.0)
    assert replica.swap is None, "it does not lead"
    primary = leading(in_sync=("a", "b") if not eligible else ("a",))
    if eligible:
        primary.document = Document(Config(2, "a", ("a",), ("b",)), primary.document.plan)  # type: ignore[union-attr]
        primary.receive("b", Join(2, 0), 0.3)
    primary.receive("b", Again(2, 3, 1 if eligible else 0, lost=True), 0.4)
    primary.tick(0.5)
    assert primary.swap is not None
    assert primary.swap.config == Config(3, "a", ("a",), ())


def test_a_primary_whose_copy_may_be_old_goes_on_without_nobody_who_could_tell_it() -> None:
    """M4: b and c, which may have committed more, are paused; then c says that its log is a's, and that is a
    witness."""
    replica = Replica("a", State(epoch=6, commit=5), Timing(), 0.0)
    replica.see(three("a"), 7, 0.0)
    replica.tick(0.1)
    assert replica.swap is not None
    replica.see(Document(replica.swap.config, three("a").plan), 8, 0.2)
    replica.receive("b", Again(8, 9), 0.3)  # it has not been told yet where a's log ends
    for now in range(1, 31):
        replica.tick(float(now))
        assert replica.swap is None
        assert not replica.serves(float(now))
    replica.receive("c", Durable(8, 5), 30.0)
    replica.receive("c", Promise(8, 29.9), 30.0)
    passes(replica, 30.6)
    assert replica.swap is not None
    assert replica.swap.config == Config(9, "a", ("a", "c"))


def test_a_secondary_that_was_shown_to_lack_nothing_goes_on_when_both_others_die() -> None:
    """M4 and R9: of three copies two are lost at once. What a primary has shown to this process nobody takes from it;
    one that starts with an old copy was shown nothing, as above."""
    replica = Replica("a", State(epoch=7, commit=5), Timing(), 0.0)
    replica.see(three("b"), 7, 0.0)
    replica.receive("b", Append(7, 5, (), 5, exact=True), 0.1)
    for now in (1.0, 4.0, 5.3):
        replica.tick(now)
    assert replica.swap is not None
    assert replica.swap.config.primary == "a"
    replica.see(Document(replica.swap.config, three("b").plan), 8, 5.4)
    for now in (6.0, 8.0, 9.3):
        replica.tick(now)
    if replica.swap is not None:
        replica.see(Document(replica.swap.config, three("b").plan), 9, 9.4)
    assert replica.document is not None
    assert replica.document.config.in_sync == ("a",)
    replica.tick(10.0)
    replica.synced(len(replica.writes), 10.1)
    assert replica.serves(10.2), "reads go on"


def test_another_gets_a_copy_where_the_last_one_cannot_tell_what_was_committed() -> None:
    """R9: two of three copies are lost at once while something is written. The third, b, has what a may have committed,
    and waited for somebody else to have it until one of them was back. d, which is to hold shards, gets a copy."""
    plan = Plan(("a", "b", "c"), 2, members=("a", "b", "c", "d", "e"))
    alone = Document(Config(8, "b", ("b",), ("c",)), plan)
    last = Replica("b", State(epoch=7, commit=5, log=[Entry(7, 6, b"")]), Timing(), 0.0)
    last.see(Document(Config(7, "b", ("b",), ("c",)), plan), 7, 0.0)
    last.tick(0.1)
    last.see(alone, 8, 0.2)
    last.synced(len(last.writes), 0.3)
    assert not last.serves(0.3), "whether entry 6 was committed is not known"
    spares = {name: Replica(name, State(), Timing(), 0.0) for name in "de"}
    for spare in spares.values():
        spare.see(alone, 8, 0.2)
        passes(spare, 10.0)
        assert spare.messages == [], "those who are planned may be back soon"
        passes(spare, 10.7)
        assert spare.messages[0] == ("b", Join(8, 0))
    last.receive("d", Join(8, 0), 10.7)
    last.receive("e", Join(8, 0), 10.7)
    assert [name for name, _ in last.snapshots] == ["d"], "one at a time"
    spares["d"].receive("b", SnapshotPart(8, 5, 0, b"", True, 1), 10.8)
    spares["d"].synced(len(spares["d"].writes), 10.9)
    spares["d"].messages.clear()
    spares["d"].receive("b", Beacon(8, 10.9), 10.95)
    spares["d"].tick(11.0)
    assert ("b", Durable(8, 5, 1)) in spares["d"].messages, "what it said before may have been lost"
    last.receive("d", Durable(8, 5, 1), 11.0)
    last.receive("d", Durable(8, 6, 1), 11.0)
    last.receive("d", Promise(8, 11.0), 11.0)
    last.tick(11.1)
    assert last.swap is not None
    assert last.swap.config == Config(9, "b", ("b", "d"))
    last.see(Document(last.swap.config, plan), 9, 11.2)
    last.receive("d", Promise(9, 11.2), 11.3)
    last.receive("d", Durable(9, 6), 11.3)
    assert last.state.commit == 6
    assert last.serves(11.4)
    spares["e"].messages.clear()
    spares["e"].see(Document(Config(9, "b", ("b", "d")), plan), 9, 11.2)
    passes(spares["e"], 60.0)
    assert spares["e"].messages == [], "two copies are enough until those who are planned are back"


def test_a_store_without_room_takes_no_copy_that_is_not_planned() -> None:
    """It would end by its full disk, and has shards that are needed."""
    plan = Plan(("a", "b", "c"), 2, members=("a", "b", "c", "d"))
    full = Replica("d", State(), Timing(), 0.0)
    full.see(Document(Config(8, "b", ("b",), ("c",)), plan), 8, 0.0)
    full.cramped = True
    passes(full, 30.0)
    assert full.messages == []
    full.cramped = False
    full.tick(30.5)
    assert full.messages == [("b", Join(8, 0))]


def test_one_that_was_filled_here_and_dies_is_given_up_though_not_all_is_committed() -> None:
    """R9: d, which b filled, dies before b has committed with it what it found in its log. d cannot tell b anything."""
    plan = Plan(("a", "b", "c"), 2, members=("a", "b", "c", "d"))
    last = Replica("b", State(epoch=7, commit=5, log=[Entry(7, 6, b"")]), Timing(), 0.0)
    last.see(Document(Config(7, "b", ("b",), ("c",)), plan), 7, 0.0)
    last.tick(0.1)
    last.see(Document(Config(8, "b", ("b",), ("c",)), plan), 8, 0.2)
    last.synced(len(last.writes), 0.3)
    last.receive("d", Join(8, 0), 10.7)
    last.receive("d", Durable(8, 6, 1), 11.0)
    last.receive("d", Promise(8, 11.0), 11.0)
    last.tick(11.1)
    assert last.swap is not None
    last.see(Document(last.swap.config, plan), 9, 11.2)
    assert not last.serves(11.3)
    passes(last, 20.0)
    assert last.swap is not None
    assert last.swap.config.in_sync == ("b",)


def test_two_copies_of_which_one_is_away_wait_for_it_or_for_a_person() -> None:
    """M4 with two replicas: nobody else can tell."""
    pair = Document(Config(7, "a", ("a", "b")), Plan(("a", "b"), 1))
    replica = Replica("a", State(epoch=7, commit=5), Timing(), 0.0)
    replica.see(pair, 7, 0.0)
    replica.tick(0.1)
    replica.see(Document(replica.swap.config, pair.plan), 8, 0.2)  # type: ignore[union-attr]
    passes(replica, 60.0)
    assert replica.swap is None
    gone = Plan(("a", "b"), 1, gone=("b",))
    replica.see(Document(replica.document.config, gone), 9, 61.0)  # type: ignore[union-attr]
    replica.tick(61.1)
    assert replica.swap is not None
    assert replica.swap.config.in_sync == ("a",)


def test_nobody_who_has_committed_more_is_filled_with_less() -> None:
    """M4: the primary is the one that lacks something; its snapshot would empty the one that has everything."""
    primary = leading(in_sync=("a", "b"))
    primary.receive("c", Join(2, 40), 0.3)
    assert primary.snapshots == []
    assert "40" in primary.alarm
    assert not primary.serves(0.3)


def test_a_map_from_a_backup_is_refused() -> None:
    replica = Replica("b", State(epoch=7), Timing(), 0.0)
    replica.see(Document(Config(6, "b", ("b",)), Plan(("b",), 1)), 9, 0.0)
    passes(replica, 100.0)
    assert "epoch 6" in replica.alarm
    assert replica.swap is None


def test_a_copy_that_nothing_counts_on_any_more_is_cleared() -> None:
    """A replica that was planned elsewhere, or a spare whose planned copies are back: its rows would stay for ever,
    take room and be scrubbed. Not before all that are planned are in sync, and not while it joins."""

    def cleared(
        in_sync: tuple[str, ...], replicas: tuple[str, ...], eligible: tuple[str, ...] = (), gone: tuple[str, ...] = ()
    ) -> bool:
        state = State(3, 5, [Entry(3, 6, b"row")])
        replica = Replica("d", state, Timing(), 0.0)
        config = Config(4, "a", in_sync, eligible, members=("a", "b", "c", "d"))
        replica.see(Document(config, Plan(replicas, 2, gone, config.members)), 9, 0.0)
        passes(replica, 5.0)
        assert state.commit
        passes(replica, 30.0)
        assert sum(isinstance(one, Clear) for one in replica.writes) <= 1
        return state.joining == LOST and not state.commit and not state.log

    planned = ("a", "b", "c")
    assert cleared(planned, planned)
    assert cleared((*planned, "e"), planned)
    assert not cleared(("a", "b"), planned)
    assert not cleared((*planned, "d"), planned)
    assert not cleared(("a", "b"), planned, eligible=("d",))
    assert not cleared(planned, (*planned, "d"))
    assert not cleared(planned, planned, gone=("a", "b", "c"))


def test_a_copy_that_is_being_filled_is_not_cleared() -> None:
    """A spare that has all by now may be added by who leads, which has not seen that it is needed no more."""
    replica = Replica("d", State(3, 0), Timing(), 0.0)
    members = ("a", "b", "c", "d")
    few, planned = Config(4, "a", ("a",), ("b",), members=members), ("a", "b", "c")
    replica.see(Document(few, Plan(planned, 2, members=members)), 9, 0.0)
    replica.receive("a", SnapshotPart(4, 7, 0, b"rows", True, attempt=1), 0.1)
    replica.synced(len(replica.writes), 0.2)
    replica.see(Document(few, Plan(("a",), 1, members=members)), 10, 0.3)
    passes(replica, 30.0)
    assert replica.last == 7

"""The replication core under seeded faults; and that the simulator finds what goes wrong with any rule left out.

python -m sim.run 0 10000        from tests/: more seeds than CI runs; a failure prints its seed, which replays
"""

from __future__ import annotations

import pytest

from s4.cluster.messages import (
    LOST,
    Again,
    Append,
    Beacon,
    Config,
    Document,
    Durable,
    Entry,
    Fault,
    Join,
    Plan,
    Promise,
    SnapshotPart,
    State,
)
from s4.replica.core import Replica
from s4.replica.terms import Timing
from sim import broken
from sim.linear import FOREVER, Call, is_linearizable
from sim.node import BrokenError, Node
from sim.world import FAULTS, World
from tiers import amount


@pytest.mark.parametrize("first", range(0, amount("S4_SEEDS", 60, 10_000), 20))
def test_seeds(first: int) -> None:
    calls = 0
    for seed in range(first, first + 20):
        try:
            world = World(seed).run()
            world.check_end()
        except BrokenError as found:
            raise AssertionError(f"seed {seed}: {found}") from found
        calls += sum(1 for history in world.history.values() for call in history if call.end != FOREVER)
    assert calls > 20 * 50, "hardly anything was done"


@pytest.mark.parametrize("replicas", [1, 2, 4, 5])
def test_other_numbers_of_replicas(replicas: int) -> None:
    for seed in range(15):
        try:
            World(seed, replicas=replicas).run().check_end()
        except BrokenError as found:
            raise AssertionError(f"seed {seed}: {found}") from found


@pytest.mark.parametrize("first", range(0, amount("S4_SEEDS", 40, 2000), 10))
def test_primaries_that_hand_over_at_any_time(first: int) -> None:
    """As those whose copy is damaged and needed do, which stay in sync (node/metadata_copy.py)."""
    for seed in range(first, first + 10):
        World(seed, faults=(*FAULTS, "hand over", "hand over")).run().check_end()


def test_a_seed_replays() -> None:
    assert World(7).run().history == World(7).run().history


@pytest.mark.parametrize("kind", [*broken.CORES, *broken.NODES], ids=lambda kind: kind.__name__)
def test_no_rule_can_be_left_out(kind: type) -> None:
    """Each switched off makes the simulator fail: with the seed that found it last, or another."""
    node_class: type[Node] = kind if issubclass(kind, Node) else type("Altered", (Node,), {"replica_class": kind})
    faults = {"faults": broken.FAULTS[kind]} if kind in broken.FAULTS else {}
    with pytest.raises(BrokenError):
        for seed in [broken.FOUND.get(kind, 0), *range(400)]:
            World(seed, node_class=node_class, **faults).run().check_end()


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


def test_an_unknown_swap_is_repeated_and_binds_until_a_newer_document_was_seen() -> None:
    """R4's sequence: the swap that adds C may have landed, so nothing commits without C, however long no news comes."""
    replica = leading()
    replica.receive("c", Join(2), 0.3)
    assert replica.snapshots == [("c", 1)]
    replica.receive("c", Durable(2, 0, 1), 0.4)
    replica.receive("c", Promise(2, 0.3), 0.4)
    replica.receive("b", Promise(2, 0.3), 0.4)
    replica.tick(0.5)
    swap = replica.swap
    assert swap is not None
    assert swap.config == Config(3, "a", ("a", "b", "c"))
    entry = replica.propose(b"x", 0.6)
    replica.synced(len(replica.writes), 0.7)
    for now in range(1, 60):
        replica.receive("b", Durable(2, entry.sequence), float(now))
        replica.receive("b", Promise(2, float(now)), float(now))
        replica.tick(float(now))
        assert replica.swap == swap, "no other swap before the outcome of this one is known"
    assert replica.state.commit == 0
    assert not replica.serves(60.0), "C may hold a later epoch's promise"
    replica.receive("c", Durable(2, entry.sequence, 1), 60.0)
    assert replica.state.commit == entry.sequence


def test_a_primary_whose_log_was_cut_leaves_the_set_with_an_alarm() -> None:
    """R7: a restored volume. The secondary refuses to undo what it has committed."""
    second = Replica("b", State(epoch=2, commit=5), Timing(), 0.0)
    second.see(Document(Config(3, "a", ("a", "b", "c")), Plan(("a", "b", "c"), 2)), 3, 0.0)
    second.receive("a", Append(3, 3, (Entry(2, 4, b""),), 3, exact=True), 0.1)
    second.synced(len(second.writes), 0.2)
    fault = next(message for _, message in second.messages if isinstance(message, Fault))
    assert fault.commit == 5
    replica = leading(in_sync=("a", "b", "c"))
    replica.receive("b", Fault(2, 5), 0.3)
    assert replica.alarm
    assert not replica.serves(0.3)
    assert replica.swap is not None
    assert replica.swap.config == Config(3, "b", ("b", "c"))


def test_what_belongs_to_an_earlier_try_to_join_says_nothing_of_a_later_one() -> None:
    """R8, found by the simulator: a replica said an entry to be durable, tried again to join, and got a snapshot from
    before that entry; what it had said of the first try came late, and the primary counted on an entry that was gone.
    And a snapshot of the first try, late itself, cut what was said to be durable in the second."""
    primary = leading(in_sync=("a", "b"))
    entry = primary.propose(b"x", 0.2)
    primary.receive("c", Join(2), 0.3)
    primary.receive("c", Durable(2, entry.sequence, 1), 0.4)
    assert primary._peers["c"].acked == entry.sequence
    primary.receive("c", Join(2), 9.0)
    primary.receive("c", Durable(2, entry.sequence, 1), 9.1)
    assert primary._peers["c"].acked is None
    replica = Replica("c", State(epoch=3, commit=5), Timing(), 0.0)
    replica.see(Document(Config(4, "a", ("a", "b")), Plan(("a", "b", "c"), 2)), 4, 0.0)
    replica.receive("a", Append(4, 5, tuple(Entry(3, number, b"") for number in range(6, 9)), 8, True, 2), 0.1)
    replica.receive("a", Append(4, 8, (Entry(4, 9, b""),), 8, False, 2), 0.2)
    replica.synced(len(replica.writes), 0.3)
    assert replica.messages[-1] == ("a", Durable(4, 9, 2))
    replica.receive("a", SnapshotPart(4, 7, 0, b"", True, 1), 0.4)
    replica.receive("a", Append(4, 5, (Entry(3, 6, b""),), 5, True, 1), 0.5)
    assert (replica.last, replica.state.joining) == (9, None)
    replica.receive("a", SnapshotPart(4, 8, 0, b"", True, 3), 0.6)
    assert (replica.last, replica.state.joining) == (8, 4)


def test_who_has_a_part_of_a_snapshot_leads_nothing_and_takes_no_entries() -> None:
    """R8 with M4: not even where the map comes to count on it, and with no word that was meant for an earlier try."""
    replica = Replica("c", State(epoch=3, commit=5), Timing(), 0.0)
    replica.see(Document(Config(4, "a", ("a", "b")), Plan(("a", "b", "c"), 2)), 4, 0.0)
    replica.receive("a", SnapshotPart(4, 9, 0, b"", False, 2), 0.1)
    assert (replica.state.joining, replica.state.commit) == (LOST, 0)
    replica.receive("a", Append(4, 0, (Entry(3, 1, b""),), 1, True, 1), 0.2)
    replica.receive("a", Append(4, 0, (Entry(3, 1, b""),), 1, True, 2), 0.2)
    replica.receive("a", SnapshotPart(4, 9, 2, b"", True, 2), 0.2)
    assert (replica.state.log, replica.state.joining) == ([], LOST)
    replica.synced(len(replica.writes), 0.3)
    replica.messages.clear()
    replica.tick(0.4)
    assert not replica.messages, "the rest is on its way"
    replica.tick(6.0)
    assert replica.messages == [("a", Join(4, None))]
    replica.see(Document(Config(5, "a", ("c",)), Plan(("a", "b", "c"), 1)), 5, 7.0)
    passes(replica, 20.0)
    assert (replica.state.joining, replica.swap) == (LOST, None)


@pytest.mark.parametrize("alive", [True, False])
def test_a_primary_that_stood_still_hears_the_others_before_it_gives_them_up(alive: bool) -> None:
    """On an overloaded machine it threw out all that were well, each time, and nobody could write meanwhile."""
    primary = leading(in_sync=("a", "b"))
    passes(primary, 1.0)
    primary.tick(9.0)
    assert primary.swap is None
    assert not primary.serves(9.0)
    assert ("b", Beacon(2, 9.0)) in primary.messages
    if alive:
        primary.receive("b", Promise(2, 9.0), 9.1)
        assert primary.serves(9.1)
    passes(primary, 10.1)
    assert (primary.swap is None) == alive
    passes(primary, 11.1)
    assert primary.swap is not None
    assert primary.swap.config == Config(3, "a", ("a",), ("b",))


def test_a_primary_that_always_stands_still_gives_up_who_is_dead() -> None:
    primary = leading(in_sync=("a", "b"))
    for number in range(1, 5):
        primary.tick(1.5 * number)
    assert primary.swap is not None
    assert primary.swap.config == Config(3, "a", ("a",), ("b",))


@pytest.mark.parametrize("alive", [True, False])
def test_a_secondary_that_stood_still_hears_its_primary_before_it_promotes_itself(alive: bool) -> None:
    second = Replica("b", State(epoch=2), Timing(), 0.0)
    second.see(Document(Config(2, "a", ("a", "b", "c")), Plan(("a", "b", "c"), 2)), 2, 0.0)
    second.receive("a", Beacon(2, 0.1), 0.1)
    second.tick(0.2)
    second.tick(9.0)
    assert second.swap is None
    if alive:
        second.receive("a", Beacon(2, 9.1), 9.1)
    passes(second, 10.1)
    assert (second.swap is None) == alive


def test_a_primary_that_stops_hands_over_and_is_not_waited_for() -> None:
    replica = leading(in_sync=("a", "b", "c"))
    assert replica.leave(0.2)
    assert replica.swap is not None
    assert replica.swap.config.primary in ("b", "c")
    assert replica.swap.config.in_sync == ("b", "c")
    assert not replica.serves(0.2), "from the swap on (R5)"
    two = leading()
    assert two.leave(0.2)
    assert two.swap is not None
    assert two.swap.config.in_sync == ("a", "b"), "with two copies left both count (R2)"


def test_an_heir_that_also_asked_for_itself_counts_on_no_lease() -> None:
    """R5, found by the simulator (seed 34993): the primary handed over to b with the very configuration that b,
    hearing nothing of it for a grace, asked for later. The others have waited since the first, so b's lease cannot
    begin with its own swap: c promotes itself while b still thinks that it is promised to."""
    plan = Plan(("a", "b", "c"), 2)
    heir = Replica("b", State(epoch=2), Timing(), 0.0)
    heir.see(Document(Config(2, "a", ("a", "b", "c")), plan), 2, 0.0)
    passes(heir, 3.5)
    assert heir.swap is not None
    heir.see(Document(heir.swap.config, plan), 3, 3.6)
    assert heir.leading
    heir.receive("c", Durable(3, 0), 3.7)
    assert not heir.serves(3.7), "c has promised nothing in this epoch"
    heir.receive("c", Promise(3, 3.65), 3.8)
    assert heir.serves(3.8)


def test_who_waits_for_a_snapshot_that_was_lost_joins_anew() -> None:
    """Liveness, found by the simulator (seed 34039): c has the snapshot of its second try and says so for ever; a had
    begun a third, whose snapshot was lost."""
    primary = leading(in_sync=("a", "b"))
    for at in (1.0, 11.0, 21.0):
        primary.receive("c", Join(2), at)
    primary.messages.clear()
    primary.receive("c", Durable(2, 0, 2), 21.1)
    ((to, said),) = primary.messages
    assert (to, type(said)) == ("c", Again)
    replica = Replica("c", State(), Timing(), 0.0)
    replica.see(Document(Config(2, "a", ("a", "b")), Plan(("a", "b", "c"), 2)), 2, 0.0)
    replica.receive("a", SnapshotPart(2, 0, 0, b"", True, 2), 0.1)
    replica.messages.clear()
    replica.receive("a", said, 0.2)
    replica.tick(0.3)
    assert isinstance(replica.messages[-1][1], Join)
    replica.receive("a", SnapshotPart(2, 0, 0, b"", True, 3), 0.4)
    replica.messages.clear()
    replica.receive("a", said, 0.5)
    replica.tick(0.6)
    assert not any(isinstance(message, Join) for _, message in replica.messages), "said of a try before this one"


def test_a_replica_that_is_being_added_is_not_begun_anew() -> None:
    """R4, found by the simulator (seed 40645): a asks for a configuration with c, which had caught up. c starts
    again, and asks to join as if nothing had been; a snapshot would cut what made it count, and then the
    configuration lands."""
    primary = leading(in_sync=("a", "b"))
    primary.receive("c", Join(2), 0.3)
    primary.receive("c", Durable(2, 0, 1), 0.4)
    for other in ("b", "c"):
        primary.receive(other, Promise(2, 0.3), 0.4)
    primary.tick(0.5)
    assert primary.swap is not None
    assert "c" in primary.swap.config.in_sync
    primary.snapshots.clear()
    primary.receive("c", Join(2), 30.0)
    assert primary.snapshots == []
    primary.swap = None
    primary.receive("c", Join(2), 31.0)
    assert primary.snapshots


def three(primary: str, epoch: int = 7) -> Document:
    return Document(Config(epoch, primary, ("a", "b", "c")), Plan(("a", "b", "c"), 2))


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
    for now in (1.0, 4.0, 5.0):
        replica.tick(now)
    assert replica.swap is not None
    assert replica.swap.config.primary == "a"
    replica.see(Document(replica.swap.config, three("b").plan), 8, 5.1)
    for now in (6.0, 8.0, 9.0):
        replica.tick(now)
    if replica.swap is not None:
        replica.see(Document(replica.swap.config, three("b").plan), 9, 9.1)
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
    last.receive("d", Durable(8, 5, 1), 10.9)
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


def test_two_copies_of_which_one_is_away_wait_for_it_or_for_a_person() -> None:
    """M4 with two replicas: nobody else can tell."""
    pair = Document(Config(7, "a", ("a", "b")), Plan(("a", "b"), 1))
    replica = Replica("a", State(epoch=7, commit=5), Timing(), 0.0)
    replica.see(pair, 7, 0.0)
    replica.tick(0.1)
    replica.see(Document(replica.swap.config, pair.plan), 8, 0.2)  # type: ignore[union-attr]
    passes(replica, 60.0)
    assert replica.swap is None
    replica.see(Document(replica.document.config, Plan(("a", "b"), 1, gone=("b",))), 9, 61.0)  # type: ignore[union-attr]
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


@pytest.mark.parametrize(
    ("history", "fits"),
    [
        ([Call("put", "1", 0, 1, True), Call("get", None, 2, 3, "1")], True),
        ([Call("put", "1", 0, 1, True), Call("get", None, 2, 3, None)], False),
        ([Call("put", "1", 0, 1, True), Call("put", "2", 2, 3, True), Call("get", None, 4, 5, "1")], False),
        ([Call("put", "1", 0, 9, True), Call("get", None, 1, 2, "1"), Call("get", None, 3, 4, None)], False),
        ([Call("put", "1", 0, 9, True), Call("get", None, 1, 2, None), Call("get", None, 3, 4, "1")], True),
        ([Call("put", "1", 0, FOREVER), Call("get", None, 5, 6, None), Call("get", None, 7, 8, "1")], True),
        ([Call("put", "1", 0, FOREVER), Call("get", None, 5, 6, "1"), Call("get", None, 7, 8, None)], False),
        ([Call("create", "1", 0, 5, True), Call("create", "2", 0, 5, True)], False),
        ([Call("create", "1", 0, 5, True), Call("create", "2", 0, 5, False)], True),
        ([Call("create", "1", 0, 5, False)], False),
        (
            [
                Call("create", "1", 0, 1, True),
                Call("delete", "", 2, 3, True),
                Call("create", "2", 4, 5, True),
                Call("get", None, 6, 7, "2"),
            ],
            True,
        ),
    ],
)
def test_the_judge_of_histories(history: list[Call], fits: bool) -> None:
    """A planted stale read, a lost write and two winners are seen; what is allowed is not."""
    assert is_linearizable(history) == fits

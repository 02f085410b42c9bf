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
from sim.replicas import leading, passes
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


@pytest.mark.parametrize("first", range(0, amount("S4_SEEDS", 40, 2000), 10))
def test_others_than_planned_get_a_copy_where_too_few_are_there(first: int) -> None:
    """R9. Two at once are away for longer than stores that hold shards of the partition wait."""
    for seed in range(first, first + 10):
        try:
            World(seed, spares=1 + seed % 2, faults=(*FAULTS, *["away"] * 9)).run().check_end()
        except BrokenError as found:
            raise AssertionError(f"seed {seed}: {found}") from found


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


def test_beacons_of_all_partitions_are_due_together() -> None:
    """Whenever each of them began to be led: one frame takes them all to another store."""
    early, late = leading(), leading()
    for replica, began in ((early, 0.15), (late, 0.45)):
        replica.tick(began)
        replica.messages.clear()
    for now, due in ((0.57, False), (0.61, True), (0.8, False), (1.15, False), (1.22, True)):
        for replica in (early, late):
            replica.tick(now)
            assert any(isinstance(message, Beacon) for _, message in replica.messages) is due
            replica.messages.clear()


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
    passes(primary, 10.3)
    assert (primary.swap is None) == alive
    passes(primary, 11.3)
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
    passes(second, 10.3)
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

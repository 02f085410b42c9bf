"""What a lost store may be given up for: who came back and lacks what was written meanwhile is not counted on."""

from __future__ import annotations

from msgspec import structs

from kube.test_plan import settled
from kube.worlds import Model
from s4_operator.plan import plan
from s4_operator.steps import DeleteClaim, SwapStore
from s4_operator.stores import whole_positions


def deleted(model: Model) -> list[int]:
    return [step.claim.ordinal for step in plan(model.seen()).steps if isinstance(step, DeleteClaim)]


def test_who_came_back_and_lacks_shards_is_not_counted_on() -> None:
    """What was written while two of four were away is on the other two, one of which is lost then."""
    model = settled(Model(1))
    lost, *back, other = model.pods.values()
    model.hosts[lost.host].alive, model.hosts[lost.host].since = False, model.now
    model.now += 60
    model.lacking.update({one.store: 3 for one in back})
    made = plan(model.seen())
    names = " and ".join(f"c-node-{one.ordinal}" for one in back)
    assert (
        f"4 partitions have too few shards and 0 have no copy of their metadata, while shards wait on {names} to be made again; bring the host back"
        in made.at_risk
    )
    assert deleted(model) == []
    del model.lacking[back[0].store]
    model.lacking[lost.store] = 9
    assert deleted(model) == [lost.ordinal], (
        "two have everything, and what waits for the lost one waits for its successor"
    )
    model.lacking.clear()
    model.heals.add(1)
    assert deleted(model) == [], "it may be on any of them"
    model.heals.clear()
    assert deleted(model) == [lost.ordinal]
    model.hosts[other.host].alive = False
    model.lacking[other.store] = 9
    assert deleted(model) == [lost.ordinal], "what waits for stores that are away was never counted"


def test_what_waits_for_a_lost_store_keeps_its_disk_from_nobody_and_what_others_lack_does() -> None:
    """A disk was replaced by an empty one: the store that was on it is given up for the new one."""
    model = settled(Model(1))
    lost, *back, _ = model.pods.values()
    model.hosts[lost.host].disk.clear()
    old = lost.store
    del model.pods[lost.ordinal]
    while not model.pods.get(lost.ordinal) or not model.pods[lost.ordinal].store:
        model.kubernetes()
    model.lacking.update({old: 9, **{one.store: 1 for one in back}})
    assert (
        f"store {old[:8]} of c-node-0 is lost, and without it 4 partitions have too few" in plan(model.seen()).at_risk
    )
    for one in back:
        del model.lacking[one.store]
    assert plan(model.seen()).steps == [SwapStore(old, model.pods[lost.ordinal].store)]


def test_a_position_that_is_being_filled_has_what_is_new_on_who_joins_alone() -> None:
    model = settled(Model(1, nodes=5))
    assert model.map is not None
    one = model.map.partitions[0].config
    (joins,) = set(model.map.stores) - set(one.members)
    everybody = set(model.map.stores)
    assert whole_positions(one, everybody - {joins}) == 4
    filled = structs.replace(one, joining=joins, position=0)
    assert [whole_positions(filled, everybody - gone) for gone in ({joins}, {one.members[0]}, set[str]())] == [3, 3, 4]

"""The shard map as values: who holds what after drives were replaced, went away, were filled and joined."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from s4.cluster import placement, shardmap

STORES = [f"{number:032x}" for number in range(6)]
MAP = shardmap.spread("c" * 32, STORES, 4, 2, 16)


def test_a_new_map_spreads_positions_evenly() -> None:
    for members in MAP.spec.members:
        assert sorted(members) == sorted(STORES)
    for position in range(6):
        held = [members[position] for members in MAP.spec.members]
        assert max(map(held.count, STORES)) - min(map(held.count, STORES)) <= 1
    assert MAP.spec.replicas == 3
    assert placement.replicas_wanted(16, 4) == 5
    assert placement.replicas_wanted(2, 1) == 2


@given(st.sets(st.sampled_from(STORES), min_size=1), st.integers(0, 100))
def test_a_restart_raises_every_epoch_and_names_only_what_is_there(online: set[str], newest: int) -> None:
    copy = sorted(online)[0]
    after = shardmap.restarted(MAP, online, [copy], newest)
    for old, new, wanted in zip(MAP.status, after.status, MAP.spec.members, strict=True):
        assert new.epoch > max(old.epoch, newest)
        assert [store or None for store in new.members] == [store if store in online else None for store in wanted]
        assert new.primary == copy
    back = shardmap.restarted(after, STORES, [copy])
    assert all(set(one.joining) == set(STORES) - online for one in back.status)


def test_a_replaced_store_is_gone_for_good_and_its_heir_holds_nothing_until_filled() -> None:
    new = "f" * 32
    after = shardmap.restarted(shardmap.replaced(MAP, STORES[1], new), [*STORES[:1], new, *STORES[2:]], [STORES[0]])
    assert after.spec.stores[STORES[1]] == "gone"
    assert after.order == [STORES[0], new, *STORES[2:]]
    assert not any(STORES[1] in members for members in after.spec.members)
    assert all(new not in one.members and STORES[1] not in one.members and one.joining == [new] for one in after.status)
    for partition in range(16):
        after = shardmap.filled(after, partition, new)
        at = after.spec.members[partition].index(new)
        assert after.status[partition].members[at] == new
        assert after.status[partition].joining == []
    after = shardmap.joined(after, new)
    assert all(one.in_sync[-1] == new for one in after.status)


def test_the_document_is_versioned() -> None:
    assert shardmap.decode(shardmap.encode(MAP)) == MAP
    with pytest.raises(ValueError, match="format 3; this S4 knows 2"):
        shardmap.decode(shardmap.encode(MAP).replace(b'"format": 1', b'"format": 3'))

"""Placement as properties: domains apart, loads even, drained stores empty, little moved."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given, settings

from s4.cluster.placement import DRAINING, GONE, PlacementError, Store, domain_limit, moved, place, shares

EMPTY: list[list[str]] = [[] for _ in range(64)]


def stores(count: int, domains: int = 0, first: int = 0) -> list[Store]:
    return [
        Store(f"s{number}", f"d{number % domains if domains else number}") for number in range(first, first + count)
    ]


def check(given_stores: Sequence[Store], members: list[list[str]], shards: int) -> None:
    """What holds of every placement."""
    serving = {store.id: store for store in given_stores if store.state == "serving"}
    limit = domain_limit(list(serving.values()), shards)
    for row in members:
        assert len(row) == len(set(row)) == shards
        assert set(row) <= set(serving)
        assert max(Counter(serving[store].domain for store in row).values()) <= limit


def loads(members: list[list[str]]) -> Counter[str]:
    return Counter(store for row in members for store in row)


shapes = st.tuples(st.integers(1, 8), st.integers(0, 10), st.integers(0, 12)).map(
    lambda shape: (shape[0], shape[0] + shape[1], shape[2])
)


@settings(max_examples=150, deadline=None)
@given(shapes, st.sampled_from([16, 64, 100]))
@example(
    (4, 5, 3), 16
)  # a domain of one store, which has a copy of every partition's metadata, and more than its share
def test_equal_stores_hold_equal_shares(shape: tuple[int, int, int], partitions: int) -> None:
    shards, count, domains = shape
    given_stores = stores(count, domains)
    members = place(given_stores, [[] for _ in range(partitions)], shards, 3)
    check(given_stores, members, shards)
    share = shares(given_stores, partitions, shards, 3)
    found = loads(members)
    assert sum(share.values()) == pytest.approx(partitions * shards)
    for store in given_stores:
        assert math.floor(share[store.id] + 1e-9) <= found[store.id] <= math.ceil(share[store.id] - 1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.5, 8), min_size=6, max_size=14), st.integers(2, 6))
def test_loads_follow_weights(weights: list[float], shards: int) -> None:
    given_stores = [Store(f"s{number}", f"d{number}", weight) for number, weight in enumerate(weights)]
    members = place(given_stores, EMPTY, shards, 3)
    check(given_stores, members, shards)
    share, found = shares(given_stores, 64, shards, 3), loads(members)
    assert all(abs(found[store.id] - share[store.id]) <= 1 + 1e-9 for store in given_stores)


@settings(max_examples=100, deadline=None)
@given(st.integers(6, 20), st.integers(1, 4), st.integers(1, 3))
def test_growing_moves_no_more_than_the_new_stores_take(count: int, shards_less: int, more: int) -> None:
    shards = 7 - shards_less
    before = place(stores(count), EMPTY, shards, 3)
    grown = stores(count + more)
    after = place(grown, before, shards, 3)
    check(grown, after, shards)
    taken = sum(loads(after)[store.id] for store in grown[count:])
    least = sum(max(0, held - math.ceil(64 * shards / (count + more))) for held in loads(before).values())
    assert least <= moved(before, after) <= taken + max(2, taken // 10)


@settings(max_examples=100, deadline=None)
@given(st.integers(7, 20), st.integers(2, 6), st.integers(0, 6), st.sampled_from([DRAINING, GONE]))
def test_a_store_that_goes_moves_little_but_its_own(count: int, shards: int, which: int, state: str) -> None:
    given_stores = stores(count)
    before = place(given_stores, EMPTY, shards, 3)
    left = [
        Store(store.id, store.domain, 1.0, state if number == which else "serving")
        for number, store in enumerate(given_stores)
    ]
    after = place(left, before, shards, 3)
    check(left, after, shards)
    held = loads(before)[f"s{which}"]
    assert loads(after)[f"s{which}"] == 0
    assert held <= moved(before, after) <= held + max(2, held // 5)


@settings(max_examples=60, deadline=None)
@given(st.integers(6, 12), st.integers(2, 6))
def test_nothing_moves_where_nothing_changed(count: int, shards: int) -> None:
    before = place(stores(count), EMPTY, shards, 3)
    assert place(stores(count), before, shards, 3) == before
    assert place(list(reversed(stores(count))), before, shards, 3) == before


def test_a_replaced_store_gets_just_what_the_old_one_held() -> None:
    given_stores = stores(6)
    before = place(given_stores, EMPTY, 6, 3)
    heir = Store("new", given_stores[2].domain)
    after = place([*(store for number, store in enumerate(given_stores) if number != 2), heir], before, 6, 3)
    assert [[heir.id if store == "s2" else store for store in row] for row in before] == after


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(2, 4))
def test_metadata_is_in_domains_of_its_own_and_spread(domains: int, each: int) -> None:
    given_stores = stores(domains * each, domains)
    shards = min(6, len(given_stores))
    assume(domains >= 3)
    members = place(given_stores, EMPTY, shards, 3)
    place_of = {store.id: store.domain for store in given_stores}
    assert all(len({place_of[store] for store in row[:3]}) == 3 for row in members)
    first = Counter(store for row in members for store in row[:3])
    even = 64 * 3 / len(given_stores)
    assert max(first.values()) <= 2 * even + 2


def test_too_few_stores_are_refused() -> None:
    with pytest.raises(PlacementError, match="6 shards need as many stores; 5 serve"):
        place([*stores(5), Store("s9", "d9", 1.0, DRAINING)], EMPTY, 6, 3)


def test_a_large_cluster_is_placed_in_seconds() -> None:
    given_stores = stores(60, 20)
    before = place(given_stores, [[] for _ in range(1024)], 6, 3)
    check(given_stores, before, 6)
    grown = stores(66, 22)
    check(grown, place(grown, before, 6, 3), 6)


@pytest.mark.parametrize(("before", "after"), [(6, 7), (6, 8), (6, 12)])
def test_new_stores_get_their_share_of_metadata_too(before: int, after: int) -> None:
    """Of 256 partitions with three copies, as of their shards; the old way gave a seventh store shards alone, and it
    led nothing."""
    old = place(stores(before, 0), [[] for _ in range(256)], 6, 3)
    new = place(stores(after, 0), old, 6, 3)
    check(stores(after, 0), new, 6)
    copies = Counter(store for row in new for store in row[:3])
    share = 256 * 3 / after
    for number in range(before, after):
        assert copies[f"s{number}"] >= 0.7 * share, copies
    assert moved(old, new) <= math.ceil(256 * 6 * (after - before) / after) + after


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=4), min_size=2, max_size=8),
    st.integers(3, 6),
    st.lists(st.tuples(st.sampled_from(["grow", "lose", "drain"]), st.integers(0, 7)), max_size=4),
)
def test_hosts_with_several_disks_share_out_every_partition(
    hosts: list[list[float]], shards: int, changes: list[tuple[str, int]]
) -> None:
    """Whatever becomes of hosts: of a partition no more on one than there must be, and its metadata on different ones."""
    known = {
        f"h{host}-{disk}": Store(f"h{host}-{disk}", f"h{host}", weight)
        for host, weights in enumerate(hosts)
        for disk, weight in enumerate(weights)
    }
    assume(len(known) >= shards)
    members = place(list(known.values()), EMPTY, shards, 3)
    for number, (change, which) in enumerate([("grow", 0), *changes]):
        before = dict(known)
        if change == "grow":
            known |= {f"n{number}-{disk}": Store(f"n{number}-{disk}", f"n{number}") for disk in range(1 + which % 3)}
        else:
            host = sorted({one.domain for one in known.values()})[which % len({one.domain for one in known.values()})]
            known = {name: one for name, one in known.items() if one.domain != host}
        if len(known) < shards:
            known = before
            continue
        members = place(list(known.values()), members, shards, 3)
        check(list(known.values()), members, shards)
        most = domain_limit(list(known.values()), 3)
        for row in members:
            assert max(Counter(known[store].domain for store in row[:3]).values()) <= most, row


@pytest.mark.parametrize(("zones", "hosts", "disks"), [(3, 2, 2), (3, 4, 3), (2, 3, 2)])
def test_zones_share_out_over_the_hosts_in_them(zones: int, hosts: int, disks: int) -> None:
    """No two shards on a host where its zone has another one, from the first plan, and after a host was taken in."""

    def made(count: int) -> list[Store]:
        return [
            Store(f"s{zone}-{host}-{disk}", f"z{zone}", host=f"h{zone}-{host}")
            for host in range(count)
            for zone in range(zones)
            for disk in range(disks)
        ]

    members = place(made(hosts), EMPTY, 6, 3)
    for known, row in ((made(hosts), members), (made(hosts + 1), place(made(hosts + 1), members, 6, 3))):
        check(known, row, 6)
        at = {store.id: store.host for store in known}
        assert max(Counter(at[store] for store in one).most_common(1)[0][1] for one in row) == 1

"""A server's drives as values: added, drained, taken away, lost and replaced, with the process ended between any two
steps. A model of shards says where each is; the map must never say more than is so."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from s4.cluster import growing, shardmap
from s4.cluster.coordinator import LocalCoordinator, QuorumError
from s4.cluster.planner import PlanError
from s4.cluster.shardmap import ShardMap
from s4.storage.files import Files
from tiers import amount

STORES = [f"{number:032x}" for number in range(6)]
PARTITIONS = 4
MAP = growing.located(shardmap.spread("c" * 32, STORES, 4, 2, 16), [f"/d{number}" for number in range(6)])


def grown(old: ShardMap, *stores: str) -> ShardMap:
    for store in stores:
        old = growing.seated(old, store, f"/{store[:4]}")
    return growing.planned(old, {}, old.order)


def moved(old: ShardMap) -> ShardMap:
    """All moves done."""
    old = shardmap.restarted(old, old.order, [one for one in old.order if one in old.status[0].in_sync])
    for partition, one in enumerate(old.status):
        for store in one.joining:
            old = shardmap.filled(old, partition, store)
    for store in old.copies:
        old = shardmap.joined(old, store)
    return old


def test_six_drives_become_eight() -> None:
    new = ["a" * 32, "b" * 32]
    after = grown(MAP, *new)
    assert after.format == shardmap.GROWN
    assert after.order == [*STORES, *new]
    held = Counter(store for members in after.spec.members for store in members)
    assert set(held.values()) == {12}, "each has its share"
    assert all(len(set(members)) == 6 for members in after.spec.members)
    assert growing.moves(after) == 24, "and nothing else moves"
    assert (after.spec.data, after.spec.parity, after.spec.later) == (4, 2, False)
    assert [one.members for one in after.status] == [one.members for one in MAP.status], "who has what is as it was"
    assert all(after.live(partition, STORES) < 6 for partition in range(16) if after.moving(partition))
    done = moved(after)
    assert [one.members for one in done.status] == done.spec.members
    assert growing.planned(done, {}, done.order).spec == done.spec, "a plan that is made twice is made once"


def test_a_small_drive_is_drained_and_a_bigger_one_takes_its_place() -> None:
    with pytest.raises(PlanError, match=r"4\+2 needs 6 drives, and 5 would be left: add others first"):
        growing.planned(growing.drained(MAP, STORES[1]), {}, STORES)
    bigger = "a" * 32
    current = moved(grown(MAP, bigger))
    with pytest.raises(PlanError, match="it is in use"):
        growing.unseated(current, STORES[1])
    current = growing.planned(growing.drained(current, STORES[1]), {bigger: 2.0}, current.order)
    assert not any(STORES[1] in members for members in current.spec.members)
    with pytest.raises(PlanError, match=r"it is not empty: 1\d positions are on it still"):
        growing.unseated(current, STORES[1])
    assert STORES[1] not in current.copies
    assert STORES[3] in current.copies
    after = shardmap.restarted(current, current.order, STORES[:3])
    for partition, one in enumerate(after.status):
        for store in one.joining:
            after = shardmap.filled(after, partition, store)
    with pytest.raises(PlanError, match="its copy of the metadata is needed"):
        growing.unseated(after, STORES[1])
    done = growing.unseated(moved(current), STORES[1])
    assert done.order == [STORES[0], *STORES[2:], bigger]
    assert done.spec.directories == ["/d0", "/d2", "/d3", "/d4", "/d5", "/aaaa"]
    assert all(STORES[1] not in one.in_sync and one.primary == one.in_sync[0] for one in done.status)
    with pytest.raises(PlanError, match="is gone, which is for good"):
        growing.seated(done, STORES[1], "/d1")
    assert shardmap.decode(shardmap.encode(done)) == done


def test_a_drive_that_was_to_be_drained_may_stay() -> None:
    current = moved(grown(MAP, "a" * 32))
    draining = growing.planned(growing.drained(current, STORES[5]), {}, current.order)
    kept = growing.seated(draining, STORES[5], "")
    assert kept.spec.later
    going = growing.planned(kept, {}, kept.order)
    for partition in filter(draining.moving, range(16)):
        assert going.spec.members[partition] == draining.spec.members[partition], "what moves is finished first"
    assert going.spec.later
    back = growing.planned(moved(going), {}, kept.order)
    assert growing.holds(back, STORES[5]) > 10


def test_a_change_of_drives_counts_once_majorities_of_both_sets_have_it(tmp_path: Path) -> None:
    """Four drives become three: two have the new map, which is a majority of the three and none of the four."""

    async def whole() -> None:
        four = [tmp_path / f"d{number}" for number in range(1, 5)]
        for path in four:
            path.mkdir()
        coordinator = LocalCoordinator(Files(), four, 3)
        await coordinator.replace("map", b"four", 0)
        coordinator.count_on(four[:3])
        for path in four[2:]:
            path.rename(path.with_name(f"{path.name}-away"))
        with pytest.raises(QuorumError, match="written to 2 directories of which 3 are needed"):
            await coordinator.replace("map", b"three", 1)
        four[2].with_name("d3-away").rename(four[2])
        four[3].with_name("d4-away").rename(four[3])
        assert await coordinator.replace("map", b"three", 1) == 2, "the same change again"
        assert LocalCoordinator(Files(), four[3:]).newest("map") == (b"four", 1), (
            "who leaves cannot be the only one to know"
        )
        for old in itertools.combinations(four, 3):
            there = [path for path in old if path.exists()]
            assert LocalCoordinator(Files(), there).newest("map") == (b"three", 2), "nobody with a majority misses it"

    asyncio.run(whole())


class World:
    """A server's shards: `shards[partition][blob][position]` are the stores that have it, `heals` those queued."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.map = growing.located(shardmap.spread("c" * 32, STORES, 4, 2, PARTITIONS), STORES)
        self.there = set(STORES)
        self.shards: list[dict[int, list[set[str]]]] = [{} for _ in range(PARTITIONS)]
        self.heals: set[tuple[int, int, int]] = set()
        self.made = 0
        self.restart()

    def restart(self) -> None:
        """The process ends and starts: from now on shards go where the plan says."""
        level = [one for one in self.map.status[0].in_sync if one in self.there] or [sorted(self.there)[0]]
        self.map = shardmap.restarted(self.map, self.there, level)
        for store in self.map.copies:
            if store in self.there:
                self.map = shardmap.joined(self.map, store)
        self.target = [list(members) for members in self.map.spec.members]

    def write(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        goes = [{store} & self.there for store in self.target[partition]]
        if sum(map(bool, goes)) >= 5:
            self.made += 1
            self.shards[partition][self.made] = goes
            self.heals |= {(partition, self.made, at) for at, stores in enumerate(goes) if not stores}

    def fill(self) -> None:
        """One position is filled, and the map says so."""
        joining = [(number, store) for number, one in enumerate(self.map.status) for store in one.joining]
        if joining:
            partition, store = self.random.choice(joining)
            at = self.target[partition].index(store)
            for blob in self.shards[partition]:
                self.make(partition, blob, at)
            self.map = shardmap.filled(self.map, partition, store)

    def make(self, partition: int, blob: int, at: int) -> None:
        row = self.shards[partition][blob]
        store = self.target[partition][at]
        if row[at] & self.there or sum(bool(stores & self.there) for stores in row) >= 4:
            row[at].add(store)
            self.heals.discard((partition, blob, at))
        else:
            self.heals.add((partition, blob, at))

    def heal(self) -> None:
        for partition, blob, at in list(self.heals):
            if self.target[partition][at] in self.there:
                self.make(partition, blob, at)

    def leave(self) -> None:
        for number, one in enumerate(self.map.status):
            if list(one.members) == self.map.spec.members[number] and not any(heal[0] == number for heal in self.heals):
                for row in self.shards[number].values():
                    for at, stores in enumerate(row):
                        stores &= {self.map.spec.members[number][at]}

    def change(self) -> None:
        """Somebody asks for something, and may be refused."""
        store = self.random.choice(self.map.order)
        try:
            match self.random.randrange(4):
                case 0:
                    new = f"{self.random.getrandbits(128):032x}"
                    self.map = growing.seated(self.map, new, new)
                    self.there.add(new)
                case 1:
                    growing.planned(growing.drained(self.map, store), {}, self.there)
                    self.map = growing.drained(self.map, store)
                case 2:
                    self.map = growing.seated(self.map, store, "")
                case 3 if not self.heals:
                    self.map = growing.unseated(self.map, store)
                    self.there.discard(store)
        except PlanError:
            return

    def plan(self) -> None:
        if self.map.spec.later:
            weights = {store: 1.0 + int(store[:2], 16) / 256 for store in self.map.order}
            self.map = growing.planned(self.map, weights, self.there)
            if self.random.randrange(2):
                self.write()  # the process goes on for a moment as it was
            self.restart()

    def strike(self) -> None:
        """A drive goes away, comes back, or is replaced by an empty one: the next once what that cost was made again,
        moves or not."""
        missing = set(self.map.order) - self.there
        lost = next(iter(missing), None)
        if lost is None and (self.heals or not all(all(one.members) for one in self.map.status)):
            return
        if lost is None:
            self.there.discard(self.random.choice(self.map.order))
        elif self.random.randrange(3):
            self.there.add(lost)
        else:
            new = f"{self.random.getrandbits(128):032x}"
            for rows in self.shards:
                for row in rows.values():
                    for stores in row:
                        stores.discard(lost)
            self.map = shardmap.replaced(self.map, lost, new)
            self.there.add(new)
        self.restart()

    def check(self) -> None:
        for partition, one in enumerate(self.map.status):
            wanted = self.map.spec.members[partition]
            assert len(set(wanted)) == 6, "no two positions on one drive"
            for at, (have, want) in enumerate(zip(one.members, wanted, strict=True)):
                for blob, row in self.shards[partition].items():
                    known = row[at] & {have, want} or (partition, blob, at) in self.heals
                    assert not have or known, f"{partition}: {have[:4]} does not have all of position {at}"
            for blob, row in self.shards[partition].items():
                assert sum(bool(stores & self.there) for stores in row) >= 4, f"blob {blob} is lost"
        assert set(self.map.spec.stores) >= set(self.map.order)

    def end(self) -> None:
        """All drives come back, and all is done that was begun."""
        for lost in set(self.map.order) - self.there:
            self.there.add(lost)
        self.restart()
        for _ in range(3):
            while any(one.joining for one in self.map.status):
                self.fill()
                self.check()
            self.heal()
            self.plan()
        assert not self.map.spec.later
        self.leave()
        self.check()
        for partition, rows in enumerate(self.shards):
            for row in rows.values():
                assert [list(stores) for stores in row] == [[store] for store in self.map.spec.members[partition]]
        for store in [one for one in self.map.order if self.map.spec.stores[one] == "draining"]:
            self.map = growing.unseated(self.map, store)
        self.check()


@settings(max_examples=amount("S4_GROWTHS", 40, 3000), deadline=None)
@example(200078)  # a plan that changes the aim of a move whose drive is away
@example(2910)  # a drive that is lost while something moves to it
@given(st.integers(0, 2**32))
def test_no_shard_is_lost_and_the_map_says_no_more_than_is_so(seed: int) -> None:
    world = World(seed)
    steps = [world.write] * 4 + [world.fill] * 3 + [world.heal, world.leave, world.change, world.plan, world.strike]
    for _ in range(120):
        world.random.choice(steps)()
        world.check()
    world.end()

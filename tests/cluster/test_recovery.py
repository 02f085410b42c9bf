"""A lost map is made again of what stores keep: who leads, who does not, what is refused, and in what words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.memory import MemoryCoordinator
from s4.cluster import clustermap, etcd, kubernetes, planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.coordinator import RemoteCoordinator
from s4.cluster.keeper import MapKeeper
from s4.cluster.messages import LOST, Config
from s4.cluster.placement import GONE
from s4.cluster.recovery import Held, Recovery, Replica, pack, recovery, restored
from s4.node.held import NAME, Holding, must_be_known, packed, read
from s4.storage.directory import DirectoryError
from s4.storage.files import Files

ID = "ab" * 16
STORES = [f"{number}" * 32 for number in range(1, 7)]


def formed(count: int = 4, data: int = 4, parity: int = 2) -> ClusterMap:
    made = begun(count, data, parity)
    return planner.added(made, STORES)


def begun(count: int = 4, data: int = 4, parity: int = 2, stores: list[str] = STORES) -> ClusterMap:
    """A map without partitions, with which stores have started."""
    made = planner.new(ID, data, parity, count)
    for number, store in enumerate(stores):
        made = planner.registered(made, store, f"node-{number}", f"10.0.0.{number}:9002", f"node-{number}", 1.0)
    return made


def at_epoch(old: ClusterMap, number: int, config: Config) -> ClusterMap:
    parts = list(old.partitions)
    parts[number] = replace(parts[number], config=config, revision=parts[number].revision + 1)
    return replace(old, partitions=tuple(parts))


def held(seen: ClusterMap, **others: Replica) -> Held:
    """All of a store's replicas at 10 in the epoch that the map has, and those of some partitions otherwise."""
    replicas = [Replica(one.config.epoch, 10, 10) for one in seen.partitions]
    for name, one in others.items():
        replicas[int(name[1:])] = one
    return Held(clustermap.encode(seen), replicas)


def told(seen: ClusterMap, but: dict[str, Held | None] | None = None) -> dict[str, bytes | None]:
    found: dict[str, Held | None] = {store: held(seen) for store in STORES} | (but or {})
    return {store: None if one is None else pack(one) for store, one in found.items()}


def made_of(found: Recovery) -> ClusterMap:
    assert not found.reasons, found.reasons
    return clustermap.decode(found.map)


def test_it_is_what_it_was_one_epoch_on() -> None:
    old = formed()
    made = made_of(recovery(begun(), told(old), ()))
    for was, now in zip(old.partitions, made.partitions, strict=True):
        assert now.config == replace(was.config, epoch=was.config.epoch + 1)
        assert now.wanted == was.wanted
        assert now.revision > was.revision
    assert made.stores == old.stores


def test_stores_that_hold_nothing_are_a_new_cluster() -> None:
    fresh = pack(Held(b"", [Replica(0, 0, 0)] * 4))
    assert recovery(begun(), dict.fromkeys(STORES, fresh), ()) == Recovery()
    assert recovery(formed(), told(formed()), ()) == Recovery(), "and where the map plans, nothing is asked"


def test_the_newest_configuration_counts_though_one_store_alone_has_seen_it() -> None:
    old = formed()
    config = old.partitions[2].config
    newer = replace(config, epoch=7, primary=config.in_sync[1], in_sync=config.in_sync[1:])
    one = held(old, p2=Replica(7, 10, 12, None, newer))
    made = made_of(recovery(begun(), told(old, {config.in_sync[1]: one}), ()))
    assert made.partitions[2].config == replace(newer, epoch=8)


def test_a_copy_of_the_map_that_is_old_says_nothing_against_a_newer_one() -> None:
    old = formed()
    config = replace(old.partitions[0].config, epoch=9)
    newer = replace(
        at_epoch(old, 0, config), stores={**old.stores, STORES[5]: replace(old.stores[STORES[5]], state="draining")}
    )
    made = made_of(recovery(begun(), told(old, {STORES[3]: held(newer)}), ()))
    assert made.partitions[0].config.epoch == 10
    assert made.stores[STORES[5]].state == "draining"


def test_a_copy_that_lacks_what_another_has_committed_does_not_lead() -> None:
    """Its disk is one from a snapshot of last week: the map counts on it, and on two that have all."""
    old = formed()
    config = old.partitions[1].config
    stale = config.primary
    made = made_of(recovery(begun(), told(old, {stale: held(old, p1=Replica(1, 3, 4))}), ()))
    assert stale not in made.partitions[1].config.in_sync
    assert made.partitions[1].config.primary in config.in_sync
    assert made.partitions[1].config.primary != stale
    assert made.partitions[1].config.members == config.members, "its shards are what they were"


def test_a_copy_that_was_being_filled_counts_only_if_its_primary_added_it() -> None:
    old = formed()
    config = replace(old.partitions[1].config, epoch=6)
    newer = at_epoch(old, 1, config)
    joiner = config.in_sync[2]
    seen_before = held(newer, p1=Replica(5, 10, 10, 5))  # it has not seen that it was added in 6
    made = made_of(recovery(begun(), told(newer, {joiner: seen_before}), ()))
    assert joiner in made.partitions[1].config.in_sync
    still = held(newer, p1=Replica(6, 10, 10, 6))
    made = made_of(recovery(begun(), told(newer, {joiner: still}), ()))
    assert joiner not in made.partitions[1].config.in_sync
    lost = held(newer, p1=Replica(6, 0, 0, LOST))
    made = made_of(recovery(begun(), told(newer, {joiner: lost}), ()))
    assert joiner not in made.partitions[1].config.in_sync


def test_everybody_must_tell_or_be_given_up_by_name() -> None:
    old = formed()
    away = STORES[4]
    here = [store for store in STORES if store != away]
    found = recovery(begun(stores=here), told(old, {away: None}), ())
    assert not found.map
    assert found.missing == {away: "node-4"}
    assert found.reasons == [f"these stores of it do not tell what they hold: node-4 (store {away})"]
    made = made_of(recovery(begun(stores=here), told(old, {away: None}), (away,)))
    assert made.stores[away].state == GONE, "and never comes back (M1)"
    for was, now in zip(old.partitions, made.partitions, strict=True):
        assert now.config.primary != away
        assert now.config.members == was.config.members, "what it held is made again by whoever takes its place"


def test_who_is_gone_stays_gone_and_is_no_witness() -> None:
    """A store that was given up went on by itself for a while (R9): its disk is put in again for the recovery."""
    old = formed()
    out = old.partitions[0].config.in_sync[0]
    after = planner.gone(planner.added(planner.registered(old, "7" * 32, "n", "a:1", "n", 1.0), ["7" * 32]), [out])
    mine = replace(old.partitions[0].config, epoch=40, primary=out, in_sync=(out,))
    other = held(old, p0=Replica(40, 99, 99, None, mine))
    alive = {store: held(after) for store in [*STORES, "7" * 32] if store != out}
    made = made_of(recovery(begun(), told(after, {**alive, out: other}), ()))
    assert made.stores[out].state == GONE
    assert made.partitions[0].config.epoch == 2
    assert set(made.partitions[0].config.in_sync) == set(old.partitions[0].config.in_sync)


def test_where_every_copy_lacks_something_nothing_is_made() -> None:
    old = formed()
    config = old.partitions[3].config
    stale = {store: held(old, p3=Replica(1, 3, 4)) for store in config.in_sync}
    found = recovery(begun(), told(old, stale), ())
    assert not found.map
    assert found.reasons == ["partition 3: every copy of its metadata lacks something that was committed"]


def test_an_epoch_that_nobody_can_tell_of_is_refused() -> None:
    old = formed()
    found = recovery(begun(), told(old, {STORES[0]: held(old, p2=Replica(5, 10, 10))}), ())
    assert found.reasons == [
        f"partition 2: store {STORES[0][:8]} has been in an epoch of which nobody knows who was in it"
    ]


def test_another_geometry_and_stores_of_0_7_are_refused_in_words() -> None:
    old = formed()
    found = recovery(begun(8), told(old), ())
    assert found.reasons == [
        "what stores hold is 4+2 with 4 partitions, and the map was begun anew with 4+2 with 8 partitions: begin it as it was"
    ]
    without = pack(Held(b"", [Replica(3, 10, 10)] * 4))
    found = recovery(begun(), dict.fromkeys(STORES, without), ())
    assert found.holding == STORES
    assert found.reasons == ["no store has a copy of the map: none has run S4 0.8 or newer with it"]


def test_where_stores_are_is_what_they_say_now_and_what_they_weigh_is_what_was() -> None:
    old = formed()
    old = replace(old, stores={name: replace(one, weight=3.0) for name, one in old.stores.items()})
    now = begun()
    there = replace(now.stores[STORES[0]], node="node-9", address="other:1", domain="zone-a", host="host-9")
    moved = replace(now, stores={**now.stores, STORES[0]: there})
    made = restored(moved, made_of(recovery(moved, told(old), ())))
    assert made.stores[STORES[0]] == replace(there, state="serving", weight=3.0)
    assert restored(old, made) is old, "done twice it is done once"


def test_a_store_that_a_map_does_not_know_is_no_new_one(tmp_path: Path) -> None:
    """Yesterday's map, and a store that was added since: under that map it would be taken for an empty one."""
    must_be_known(tmp_path, formed(), "7" * 32)
    (tmp_path / NAME).write_bytes(packed(clustermap.encode(formed())))
    with pytest.raises(DirectoryError, match="the map is an older one, from a backup"):
        must_be_known(tmp_path, formed(), "7" * 32)
    must_be_known(tmp_path, formed(), STORES[0])
    must_be_known(tmp_path, begun(), "7" * 32)


def test_a_copy_of_the_map_that_is_damaged_is_none(tmp_path: Path) -> None:
    """Format 1, byte by byte."""
    path = tmp_path / NAME
    assert read(path) == b""
    path.write_bytes(b"s4 map 1 crc 297bd0aa\n{}")
    assert packed(b"{}") == path.read_bytes()
    assert read(path) == b"{}"
    for wrong in (b"s4 map 1 crc 297bd0aa\n{]", b"s4 map 2 crc fe67b6b9\n{}", b"", b"{}"):
        path.write_bytes(wrong)
        assert read(path) == b""


def test_a_copy_of_the_map_never_becomes_an_older_one(tmp_path: Path) -> None:
    """The coordinator was put back from a backup: a store that is gone since would be forgotten (M1)."""
    keeper = MapKeeper(MemoryCoordinator(), formed(), 1)
    new = planner.gone(
        planner.added(planner.registered(formed(), "7" * 32, "n", "a:1", "n", 1.0), ["7" * 32]), STORES[:1]
    )

    def kept(*maps: ClusterMap) -> ClusterMap:
        """By one process that sees one map after the other."""
        holding = Holding(Files(), tmp_path, keeper, None)  # type: ignore[arg-type]
        for keeper.current in maps:
            asyncio.run(holding.look())
        return clustermap.decode(read(tmp_path / NAME))

    assert kept(formed(), new) == new
    assert kept(formed()) == new, "of another process, too"
    assert kept(new, begun()) == new
    thawed = replace(new, freeze=True)
    assert kept(thawed) == thawed, "what changes no partition is written"


@pytest.mark.parametrize("kind", [kubernetes.KubernetesCoordinator, etcd.EtcdCoordinator])
def test_a_map_that_is_away_is_not_asked_for_without_a_pause(
    kind: type[RemoteCoordinator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted after `since` every watch from there tells at once, again and again."""
    asked, slept = [], []
    coordinator = kind.__new__(kind)

    async def read(document: str) -> tuple[bytes, int]:
        asked.append(document)
        if len(asked) > 5:
            raise InterruptedError
        return b"", 0

    async def at_once(*_: object) -> None:
        pass

    async def pause(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(coordinator, "read", read)
    monkeypatch.setattr(coordinator, "_wait", at_once)
    monkeypatch.setattr(asyncio, "sleep", pause)

    async def watch() -> None:
        async for _ in coordinator.watch("map", 100):
            pass

    with pytest.raises(InterruptedError):
        asyncio.run(watch())
    assert slept == [coordinator.RETRY_S] * 5

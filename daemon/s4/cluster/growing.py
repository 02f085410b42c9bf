"""A single server's drives while it serves: added, drained, taken away. Pure: from a map to a map, by the cluster's
placement (cluster/placement.py). k and m stay as they are.

The design, whole. upkeep/growing.py carries it out, node/drive_set.py finds the drives at a start.

**What is asked is in the map first** (the state of a store, and `later`: the plan is to be made), then the plan is made,
then the process replaces itself, since which drives are there and where a position's shards go is decided at a start
(storage/drives.py). So whoever is killed in between finds at the next start what is left to do, and does it.

Invariants:
1. Of a position whose status names A and whose plan names B every committed shard is on A, or on B, or in a heal row.
   New shards go to B alone, from the start on that lists it as joining; it is filled with the rest from A, or from k
   others. Then status names B (D3). A shard is what its blob, position and stripe say, wherever it lies (D4): one that
   B lacks is read from any drive that has it, so that no read depends on how far a move is.
2. Status says no more than is so. Where a move that was begun gets another aim, or the drive that it went to is lost,
   neither has all any more: the position is named empty, and filled like one whose drive was away.
3. A move that was begun is finished: the plan leaves partitions alone that move to drives that are there, and is made
   again (`later`) when nothing moves. So what may be lost at once is what it always was: a position counts as there
   while both its drives are (`ShardMap.live`).
4. Drives join and leave one in each change of the map. Any majority of n drives and any of n + 1 meet in one, so nobody
   who has a majority of the old ones misses the new map, or the other way about; and it does not count, and nothing
   follows from it, before majorities of both have it (M2).
5. A drive leaves when no position names it, in plan or status; when all copies of the metadata that there are to be
   are in sync without it; and when no shard waits to be made, whose last trace it may have. It is gone for good (M1).
6. What moved away is dropped when no position of its partition moves and none of its shards waits to be made
   (upkeep/leaving.py). So a drive that gets another position of a partition than it had is never the only one with two
   shards of a blob, and several positions of a partition may move at once, unlike a cluster's: there gateways with an
   old map write to where a position was, here a process knows one map for all of its life.

Killed between any two lines:
  an identity is made | the map names the store      the directory has no data and nobody looks at it: `add` takes it up
  the map is on some of the drives                    the newest that is there counts at the next start, which writes it
                                                      to a majority before anything else; it is the old or the new one
  the map names the store | the plan is made          the next start finds `later`, and makes the plan
  the plan is made | the process replaces itself      all was written to A, as the plan before said: B is filled by it
  a position is filled | its status                   it is walked again, and passes over what is there
  its status | what A has is dropped                  dropped after the next start, which looks at all partitions
  the map lacks a store | the process replaces itself its copy of the metadata may get turns that nobody reads again

Where the drives are: a map that was changed so has the directory of each (`directories`), so that a start with the
command line of before finds them all, by the ids in them first and then by path; it says which to add or leave out.

Formats and older programs: such a map has version 2, which S4 0.7 and older refuse in words, and every start of such a
server notes in each store that 0.8 is the oldest program that may open it. A map that was never changed stays what it
was, so that a server which did not grow can go back. A map of 0.7 is one of version 1, and grows like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from s4.cluster.placement import DRAINING, GONE, SERVING, Store, place, replicas_wanted
from s4.cluster.planner import PlanError
from s4.cluster.shardmap import GROWN, PartitionStatus, ShardMap, Spec

OLDEST = "0.8.0"  # the oldest program that may open the stores of a server whose drives were changed


def located(old: ShardMap, directories: Sequence[str]) -> ShardMap:
    """The map with where each of its drives is, in the order of its stores."""
    spec = replace(old.spec, order=old.order, directories=list(directories))
    return replace(old, spec=spec, format=GROWN)


def seated(old: ShardMap, store: str, directory: str) -> ShardMap:
    """The map with one more store, which is empty, or with one that was to be drained. The plan follows."""
    spec = old.spec
    if spec.stores.get(store) == GONE:
        raise PlanError(f"store {store[:8]} is gone, which is for good")
    if store in spec.order:
        return replace(old, spec=_with_state(spec, store, SERVING))
    spec = replace(spec, order=[*spec.order, store], directories=[*spec.directories, directory])
    return replace(old, spec=_with_state(spec, store, SERVING))


def drained(old: ShardMap, store: str) -> ShardMap:
    """The map with a store that is to hold nothing. The plan follows."""
    return replace(old, spec=_with_state(old.spec, store, DRAINING))


def _with_state(spec: Spec, store: str, state: str) -> Spec:
    if spec.stores.get(store) == state:
        return spec
    return replace(spec, stores={**spec.stores, store: state}, later=True)


def serving(shard_map: ShardMap) -> list[str]:
    return [store for store in shard_map.order if shard_map.spec.stores[store] == SERVING]


def planned(old: ShardMap, weights: Mapping[str, float], there: Collection[str]) -> ShardMap:
    """The map with the plan for its drives as they are to be, as far as that can be followed now. `weights` are
    relative, such as bytes; `there` are the stores that are. Raises PlanError."""
    spec, stay = old.spec, serving(old)
    shards = spec.data + spec.parity
    if len(stay) < shards:
        raise PlanError(
            f"{spec.data}+{spec.parity} needs {shards} drives, and {len(stay)} would be left: add others first"
        )
    known = [weights[store] for store in stay if weights.get(store)]
    usual = sum(known) / len(known) if known else 1.0
    stores = [Store(store, store, weights.get(store) or usual) for store in stay]
    wanted = place(stores, spec.members, shards, spec.replicas)
    pinned = {number for number in range(old.partitions) if _goes_on(old, number, there)}
    members = [spec.members[number] if number in pinned else new for number, new in enumerate(wanted)]
    replicas = replicas_wanted(len(stay), spec.parity)
    new = replace(spec, members=members, replicas=replicas, later=members != wanted)
    status = [_aimed(one, before, after) for one, before, after in zip(old.status, spec.members, members, strict=True)]
    return replace(old, spec=new, status=status)


def _goes_on(old: ShardMap, partition: int, there: Collection[str]) -> bool:
    """Whether a partition moves to drives that are there (invariant 3)."""
    both = zip(old.status[partition].members, old.spec.members[partition], strict=True)
    return any(have not in ("", want) and want in there for have, want in both)


def _aimed(one: PartitionStatus, before: Sequence[str], after: Sequence[str]) -> PartitionStatus:
    """The status of a partition whose plan changed: a position that moved already has all of its shards nowhere
    (invariant 2)."""
    members = [
        "" if have not in ("", was) and will != was else have
        for have, was, will in zip(one.members, before, after, strict=True)
    ]
    return replace(one, members=members) if members != one.members else one


def holds(shard_map: ShardMap, store: str) -> int:
    """Positions that a store holds, or is to hold."""
    both = ((one.members, wanted) for one, wanted in zip(shard_map.status, shard_map.spec.members, strict=True))
    return sum(store in pair for held, wanted in both for pair in zip(held, wanted, strict=True))


def moves(shard_map: ShardMap) -> int:
    """Positions that are on their way from one drive to another."""
    both = ((one.members, wanted) for one, wanted in zip(shard_map.status, shard_map.spec.members, strict=True))
    return sum(have not in ("", want) for held, wanted in both for have, want in zip(held, wanted, strict=True))


def may_leave(shard_map: ShardMap, store: str) -> bool:
    """Whether a store was drained, and nothing of it is needed."""
    try:
        return unseated(shard_map, store) != shard_map
    except PlanError:
        return False


def unseated(old: ShardMap, store: str) -> ShardMap:
    """The map without a store that was drained, which is gone for good. Raises PlanError (invariant 5)."""
    spec = old.spec
    if store not in spec.order:
        return old
    if spec.stores[store] != DRAINING:
        raise PlanError("it is in use: `s4 admin drives drain` it first")
    if held := holds(old, store):
        raise PlanError(f"it is not empty: {held} positions are on it still, and move while the server runs")
    if spec.later:
        raise PlanError("the plan without it is not made yet")
    for one in old.status:
        if not set(old.copies) <= set(one.in_sync):
            raise PlanError("its copy of the metadata is needed until another drive has one")
    at = spec.order.index(store)
    new = replace(
        spec,
        stores={**spec.stores, store: GONE},
        order=[*spec.order[:at], *spec.order[at + 1 :]],
        directories=[*spec.directories[:at], *spec.directories[at + 1 :]],
    )
    status = []
    for one in old.status:
        left = [copy for copy in one.in_sync if copy != store]
        status.append(replace(one, in_sync=left, primary=left[0] if one.primary == store else one.primary))
    return replace(old, spec=new, status=status)

"""Placement: which stores are meant to hold which positions of each partition. Values in, values out.

What is kept, in this order: a partition's positions are on different stores, in as many failure domains as there are
(so that the loss of one domain costs as few positions as it can), and its copies of the metadata are in domains of
their own where there are enough; only serving stores hold any; each store holds its share by weight, to within one
position where the rest allows; and of all that satisfies this, little moves.

A kept position costs nothing, so kept ones are taken first. Vacancies go to the stores furthest below their share.
Then positions are shifted from stores above their share to stores below it along the shortest chains of single
replacements, as in a maximum flow: each shift along a chain of length one moves one position, which is the least.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

SERVING, DRAINING, GONE = "serving", "draining", "gone"


class PlacementError(Exception):
    """There are too few stores."""


@dataclass(frozen=True, slots=True)
class Store:
    """`domain` is what fails together, such as a node or a zone. `weight` is relative: bytes, or 1 for all. Stores of one
    `host` inside a domain are members of a partition together only where others would not do."""

    id: str
    domain: str
    weight: float = 1.0
    state: str = SERVING
    host: str = ""


def replicas_wanted(stores: int, parity: int) -> int:
    """Copies of metadata: three, and one more than may be lost at once, as far as there are stores. More may be asked
    for in a cluster, and fewer nowhere (D1)."""
    return min(stores, max(3, parity + 1))


def place(stores: Sequence[Store], previous: Sequence[Sequence[str]], shards: int, replicas: int) -> list[list[str]]:
    """The members of each partition, by position. `previous` has a row for each partition, empty for a new one.

    The first `replicas` positions keep metadata too. Raises PlacementError.
    """
    serving = {store.id: store for store in stores if store.state == SERVING}
    if len(serving) < shards:
        raise PlacementError(f"{shards} shards need as many stores; {len(serving)} serve")
    plan = _Plan(serving, previous, shards, replicas, domain_limit(list(serving.values()), shards))
    plan.keep()
    plan.fill()
    plan.balance(
        lambda store: plan.load[store] > math.ceil(plan.share[store]),
        lambda store: plan.load[store] < math.ceil(plan.share[store]),
    )
    plan.balance(
        lambda store: plan.load[store] > math.floor(plan.share[store]),
        lambda store: plan.load[store] < math.floor(plan.share[store]),
    )
    return [list(members) for members in plan.members]


def moved(previous: Sequence[Sequence[str]], members: Sequence[Sequence[str]]) -> int:
    """Positions that are on another store than before."""
    return sum(
        old != new
        for before, after in zip(previous, members, strict=True)
        for old, new in zip(before, after, strict=False)
    )


def domain_limit(serving: Sequence[Store], shards: int) -> int:
    """The most positions of a partition that one failure domain must take: 1 where there are domains enough."""
    sizes = Counter(store.domain for store in serving).values()
    return next(limit for limit in range(1, shards + 1) if sum(min(limit, size) for size in sizes) >= shards)


def shares(serving: Sequence[Store], partitions: int, shards: int, replicas: int) -> dict[str, float]:
    """The positions that each store should hold: by weight, but no more than one for each partition, and for a domain
    no more than `domain_limit` for each, and no fewer than copies of the metadata that the others have no room for;
    what is over goes to the others by weight, and what is missing comes from them."""
    domains: dict[str, list[Store]] = {}
    for store in serving:
        domains.setdefault(store.domain, []).append(store)
    weights = {name: sum(store.weight for store in inside) for name, inside in domains.items()}
    limit, copies = domain_limit(serving, shards), min(replicas, shards)
    together = domain_limit(serving, copies)
    room = {name: min(together, len(inside)) for name, inside in domains.items()}
    least = {name: partitions * max(0, copies - sum(room.values()) + held) for name, held in room.items()}
    bounds = {name: partitions * min(limit, len(inside)) for name, inside in domains.items()}
    found, totals = dict[str, float](), dict[str, float]()
    short: dict[str, float] = {}
    while not totals or any(totals[name] < least[name] for name in weights):
        short |= {name: least[name] for name, total in totals.items() if total < least[name]}
        others = {name: weight for name, weight in weights.items() if name not in short}
        totals = short | _pour(partitions * shards - sum(short.values()), others, bounds)
    for name, total in totals.items():
        inside = {store.id: store.weight for store in domains[name]}
        found.update(_pour(total, inside, dict.fromkeys(inside, partitions)))
    return found


def _pour(total: float, weights: Mapping[str, float], bounds: Mapping[str, float]) -> dict[str, float]:
    """`total` shared out by weight, none above its bound."""
    found: dict[str, float] = {}
    left = dict(weights)
    while left:
        whole = sum(left.values())
        full = [name for name, weight in left.items() if total * weight / whole >= bounds[name]]
        if not full:
            found.update({name: total * weight / whole for name, weight in left.items()})
            break
        for name in full:
            found[name] = bounds[name]
            total -= bounds[name]
            del left[name]
    return found


@dataclass(slots=True)
class _Plan:
    """The members while they are made; an empty name is a vacancy."""

    serving: dict[str, Store]
    previous: Sequence[Sequence[str]]
    shards: int
    replicas: int
    limit: int
    members: list[list[str]] = field(init=False)
    load: Counter[str] = field(init=False)
    share: dict[str, float] = field(init=False)
    _first: Counter[str] = field(init=False)  # positions with metadata
    _together: int = field(init=False)  # the most copies of metadata that a domain must have
    _full: dict[str, tuple[float, float]] = field(
        init=False
    )  # what part of its share of metadata, and of all, a store has

    def __post_init__(self) -> None:
        self._together = domain_limit(list(self.serving.values()), min(self.replicas, self.shards))
        self.members = [[""] * self.shards for _ in self.previous]
        self.load, self._first = Counter(), Counter()
        self.share = shares(list(self.serving.values()), len(self.previous), self.shards, self.replicas)
        self._full = dict.fromkeys(self.serving, (0.0, 0.0))

    def keep(self) -> None:
        """Take over every position that may stay where it is."""
        for partition, before in enumerate(self.previous):
            for position, store in enumerate(before[: self.shards]):
                if store in self.serving and self._fits(partition, position, store):
                    self._set(partition, position, store)

    def fill(self) -> None:
        for position in range(self.shards):
            for partition, members in enumerate(self.members):
                if not members[position]:
                    self._fill(partition, position)

    def _fill(self, partition: int, position: int) -> None:
        """The store furthest below its share among those that fit takes the position. Where none fits for a copy of the
        metadata, the domain that lacks one has a later member, as it would have room otherwise: that takes the
        position, and another what it held."""
        if fit := self._fitting(partition, position):
            self._set(partition, position, self._best(partition, position, fit))
            return
        members, copies = self.members[partition], self._copies(partition)
        later = next(
            place
            for place in range(self.replicas, self.shards)
            if members[place] and copies[self.serving[members[place]].domain] < self._together
        )
        moved = members[later]
        self._set(partition, later, "")
        self._set(partition, position, moved)
        self._fill(partition, later)

    def _copies(self, partition: int) -> Counter[str]:
        """How many copies of a partition's metadata each domain has."""
        return Counter(self.serving[one].domain for one in self.members[partition][: self.replicas] if one)

    def _fitting(self, partition: int, position: int) -> list[str]:
        """The stores that may take a vacancy: `_fits` of each, for all at once."""
        members, copies = self.members[partition], self._copies(partition)
        inside = Counter(self.serving[one].domain for one in members if one)
        closed = {domain for domain, count in inside.items() if count >= self.limit}
        if position < self.replicas:
            closed |= {domain for domain, count in copies.items() if count >= self._together}
        return [name for name, one in self.serving.items() if one.domain not in closed and name not in members]

    def _best(self, partition: int, position: int, fit: Sequence[str]) -> str:
        """The store furthest below its share, for metadata one in a domain that has least of it."""
        metadata = position < self.replicas
        if metadata:
            copies = self._copies(partition)
            fewest = min(copies[self.serving[store].domain] for store in fit)
            fit = [store for store in fit if copies[self.serving[store].domain] == fewest]

        hosts = self._hosts(partition)

        def rank(store: str) -> tuple[int, float, float]:
            part, full = self._full[store]
            return (hosts[self.serving[store].host], part if metadata else 0.0, full)

        least = min(map(rank, fit))
        alike = [store for store in fit if rank(store) == least]
        return min(alike, key=lambda store: blake2b(f"{partition} {store}".encode(), digest_size=8).digest())

    def _fits(self, partition: int, position: int, store: str, instead: str = "") -> bool:
        """Whether a store may take a position, in place of another or of none."""
        members = self.members[partition]
        if store in members:
            return False
        domain = self.serving[store].domain
        inside = [
            place for place, one in enumerate(members) if one and one != instead and self.serving[one].domain == domain
        ]
        if position < self.replicas and sum(place < self.replicas for place in inside) >= self._together:
            return False
        if instead and self._company(partition, store, instead) > self._company(partition, instead, instead):
            return False
        return len(inside) < self.limit

    def _company(self, partition: int, store: str, besides: str) -> int:
        """Members of a partition that are on a store's host, without one."""
        host = self.serving[store].host
        return (
            sum(self.serving[one].host == host for one in self.members[partition] if one and one != besides)
            if host
            else 0
        )

    def _hosts(self, partition: int) -> Counter[str]:
        """How many members of a partition each host has."""
        hosts = Counter(self.serving[one].host for one in self.members[partition] if one)
        del hosts[""]
        return hosts

    def _set(self, partition: int, position: int, store: str) -> None:
        old = self.members[partition][position]
        for name, change in ((old, -1), (store, 1)):
            if name:
                self.load[name] += change
                self._first[name] += change * (position < self.replicas)
                share = self.share[name] or 1e-9
                self._full[name] = (self._first[name] / share, self.load[name] / share)
        self.members[partition][position] = store

    def balance(self, above: Callable[[str], bool], below: Callable[[str], bool]) -> None:
        """Shift positions from stores above their share to stores below it, one chain at a time."""
        while chain := self._chain([store for store in self.serving if above(store)], below):
            for partition, position, store in chain:
                self._set(partition, position, store)

    def _chain(self, sources: list[str], below: Callable[[str], bool]) -> list[tuple[int, int, str]]:
        """The shortest chain of replacements (partition, position, new store) from a source to a store below."""
        came: dict[str, tuple[str, int, int]] = {}
        seen, queue = set(sources), deque(sources)
        while queue:
            store = queue.popleft()
            passed = {partition for partition, _, _ in self._back(store, came)}
            for partition, position, other in self._replacements(store, seen, passed):
                seen.add(other)
                came[other] = (store, partition, position)
                if below(other):
                    return list(self._back(other, came))
                queue.append(other)
        return []

    @staticmethod
    def _back(store: str, came: Mapping[str, tuple[str, int, int]]) -> Iterator[tuple[int, int, str]]:
        """From the end of the chain to its source: so each replacement finds its partition as it was looked at."""
        while store in came:
            before, partition, position = came[store]
            yield partition, position, store
            store = before

    def _replacements(self, store: str, seen: set[str], passed: set[int]) -> Iterator[tuple[int, int, str]]:
        """One replacement of `store` by each other store that was not seen, cheap ones first. Each partition is changed
        once in a chain: what fits was looked at in the partition as it is."""
        held = [
            (partition, members.index(store))
            for partition, members in enumerate(self.members)
            if store in members and partition not in passed
        ]
        # A new store gets its share of metadata too: who has more of it than of the rest gives that away first.
        sheds = self._first[store] * self.shards > self.load[store] * self.replicas
        held.sort(key=lambda place: (self._stayed(*place), (place[1] < self.replicas) != sheds, self._moved(place[0])))
        left = [one for one in self.serving if one not in seen]
        for partition, position in held:
            for other in list(left):
                if other not in seen and self._fits(partition, position, other, instead=store):
                    left.remove(other)
                    yield partition, position, other
            if not left:
                return

    def _stayed(self, partition: int, position: int) -> bool:
        before = self.previous[partition]
        return position < len(before) and before[position] == self.members[partition][position]

    def _moved(self, partition: int) -> int:
        return sum(not self._stayed(partition, position) for position in range(self.shards))

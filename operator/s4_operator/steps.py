"""What the operator may do to a cluster, one value each, what that makes of the map, and how it is told to people.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s4.cluster import planner
from s4.cluster.clustermap import ClusterMap
from s4.cluster.placement import DRAINING, SERVING
from s4.cluster.recovery import restored
from s4_operator.observed import Claim, Pod


@dataclass(frozen=True, slots=True)
class MakeMap:
    """A map without stores."""


@dataclass(frozen=True, slots=True)
class RestoreMap:
    """The map was lost, and `made` is it again, of what its stores hold."""

    made: ClusterMap


@dataclass(frozen=True, slots=True)
class AddStores:
    """`weights` are set with it: of stores that are there, too."""

    stores: tuple[str, ...]
    weights: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class DrainStores:
    """`why` is for people."""

    stores: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseStore:
    """An empty store that was drained is planned with no more; it may come back as a new one."""

    store: str


@dataclass(frozen=True, slots=True)
class SwapStore:
    """`lost` is gone for good, and `instead` makes its shards again."""

    lost: str
    instead: str


@dataclass(frozen=True, slots=True)
class Freeze:
    freeze: bool


@dataclass(frozen=True, slots=True)
class SetDomains:
    """Failure domains of stores, where they are not what the stores say themselves."""

    domains: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """Shards move from where more of a partition are together than must be."""


@dataclass(frozen=True, slots=True)
class SetCopies:
    """Each partition has so many copies of its metadata."""

    copies: int


@dataclass(frozen=True, slots=True)
class Weigh:
    """Stores get the share of the data that their size is of all."""

    weights: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class RetainVolume:
    """A volume outlives its claim (M1)."""

    volume: str


@dataclass(frozen=True, slots=True)
class DeleteClaim:
    """`empty` says that nothing is on its volume any more."""

    claim: Claim
    empty: bool = False


@dataclass(frozen=True, slots=True)
class GrowClaim:
    """Its volume is to have `size`, a Quantity."""

    claim: Claim
    size: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """`stores` are asked about together once more before a pod that serves is deleted, and who else than `besides` is
    away; `force` does not wait for its host."""

    pod: Pod
    stores: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()
    force: bool = False


TAKES = DeletePod | DeleteClaim  # only under a disruption budget that counts with it

Step = (
    MakeMap
    | RestoreMap
    | AddStores
    | DrainStores
    | ReleaseStore
    | SwapStore
    | Freeze
    | SetDomains
    | Spread
    | Weigh
    | SetCopies
    | RetainVolume
    | DeleteClaim
    | GrowClaim
    | DeletePod
)


def host_of(step: Step) -> str:
    """The host that a step takes for gone, or empty."""
    if isinstance(step, DeleteClaim):
        return "" if step.empty else step.claim.host
    return step.pod.host if isinstance(step, DeletePod) and step.force else ""


def changed(step: Step, old: ClusterMap) -> ClusterMap:
    """The map once a step was made that is one of the map. Raises PlanError."""
    if isinstance(step, RestoreMap):
        return restored(old, step.made)
    if isinstance(step, AddStores):
        return planner.added(planner.weighted(old, dict(step.weights)), step.stores)
    if isinstance(step, DrainStores):
        return planner.drained(old, step.stores)
    if isinstance(step, ReleaseStore):
        return planner.released(old, step.store)
    if isinstance(step, SwapStore):
        return planner.swapped(old, step.lost, step.instead)
    if isinstance(step, SetDomains):
        return planner.placed(old, dict(step.domains))
    if isinstance(step, Spread):
        return planner.rebalanced(old)
    if isinstance(step, Weigh):
        return planner.rebalanced(planner.weighted(old, dict(step.weights)))
    if isinstance(step, Freeze):
        return planner.frozen(old, step.freeze)
    if isinstance(step, SetCopies):
        return planner.copied(old, step.copies)
    raise TypeError(f"{step} is no change of the map")


FEW = 4  # names in a sentence; of more it says how many


def few(names: Sequence[str]) -> str:
    """Names as a person lists them."""
    shown = list(names) if len(names) <= FEW else [*names[: FEW - 1], f"{len(names) - FEW + 1} others"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else ""


def in_words(step: Step, current: ClusterMap) -> str:
    """What a step that `changed` the map did, for those who read a cluster's events."""

    def named(*stores: str) -> str:
        return few([current.stores[one].node or one[:8] if one in current.stores else one[:8] for one in stores])

    def are(stores: Sequence[object]) -> str:
        return "1 store was" if len(stores) == 1 else f"{len(stores)} stores were"

    if isinstance(step, RestoreMap):
        return f"the lost shard map was made again of what {len(step.made.in_state(SERVING, DRAINING))} stores hold"
    if isinstance(step, AddStores):
        return f"{are(step.stores)} added to the plan and will be filled: {named(*step.stores)}"
    if isinstance(step, DrainStores) and step.why:
        return f"{named(*step.stores)} is drained, {step.why}"
    if isinstance(step, DrainStores):
        return f"{are(step.stores)} told to go, and what is there goes to the others: {named(*step.stores)}"
    if isinstance(step, ReleaseStore):
        return f"{named(step.store)} is empty and left the plan"
    if isinstance(step, SwapStore):
        return f"store {step.lost[:8]} of {named(step.lost)} is lost for good; what it held is made again on {named(step.instead)}"
    if isinstance(step, Freeze):
        return "planned moves wait while nodes start again; repairs do not" if step.freeze else "planned moves go on"
    if isinstance(step, Weigh):
        sizes = few([f"{named(store)} {weight:.0f} GiB" for store, weight in step.weights])
        return f"data is shared out by the size of disks: {sizes}"
    if isinstance(step, SetCopies):
        return f"each partition is to have {step.copies} copies of its metadata"
    if isinstance(step, Spread):
        return "shards that share a host, or a zone, though they need not, are moved apart"
    if not isinstance(step, SetDomains):
        raise TypeError(f"{step} is no change of the map")
    return f"failure domains: {few([f'{named(store)} in {domain}' for store, domain in step.domains])}"

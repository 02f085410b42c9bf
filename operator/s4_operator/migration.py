"""Volumes that are made anew on another class (storage.storageClassName with storage.migrate). Pure, for plan.py.

One node at a time, highest ordinal first: its store is drained as one that is surplus; empty, it leaves the plan; once
every partition is whole without it its claim and pod go, and the StatefulSet makes both anew of its template, which
names the new class by then; the new store joins and is filled as any that is added. Only then is the next one drained.
How far it is is seen in the claims' classes and the states of their nodes' stores, and kept nowhere:

| the claim's class | the store | next |
|---|---|---|
| another | serves | it is drained, if nothing else is under way or waits, and the others suffice |
| another | is drained | it leaves the plan, once nothing is on it |
| the right one, or no `migrate` | is drained | it is taken back |
| another | stands by, or is none | its claim and pod go, once every partition is whole |
| the right one | stands by | it is added, as every store of a new node |

Repair, more nodes, fewer nodes and upgrades come first. A node that dies meanwhile is replaced as any, on the new
class.
"""

from __future__ import annotations

from s4.base.text import human
from s4.cluster.clustermap import ClusterMap
from s4.cluster.placement import DRAINING, SERVING, Store, domain_limit
from s4.cluster.status import Said
from s4_operator import sizes
from s4_operator.observed import Claim, Observed
from s4_operator.steps import DeleteClaim, DeletePod, DrainStores, ReleaseStore, RetainVolume, Step
from s4_operator.stores import is_empty, is_whole, pod_name, store_of


def others(seen: Observed) -> dict[int, Claim]:
    """Claims of nodes, by ordinal, that are of another class than is asked for."""
    wanted = seen.spec.storage.storageClassName
    return {
        claim.ordinal: claim
        for claim in seen.claims
        if wanted is not None and claim.storage_class != wanted and claim.ordinal < seen.spec.nodes
    }


def leaving(seen: Observed) -> dict[int, Claim]:
    """Those of them that are to be made anew."""
    return others(seen) if seen.spec.storage.migrate else {}


def drained(seen: Observed, current: ClusterMap) -> str:
    """The store that is drained for it, or empty."""
    stores = (store_of(current, pod_name(seen.name, one), DRAINING) for one in sorted(leaving(seen), reverse=True))
    return next(filter(None, stores), "")


def progress(seen: Observed) -> str:
    """How far it is, in words; empty where every claim is of the class that is asked for."""
    if not others(seen):
        return ""
    nodes, wanted = seen.spec.nodes, seen.spec.storage.storageClassName
    on = sum(claim.ordinal < nodes and claim.storage_class == wanted for claim in seen.claims)
    where = f"on class {wanted}" if wanted else "on volumes without a class"
    return f"{on} of {nodes} nodes {'is' if on == 1 else 'are'} {where}"


def next_steps(
    seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None, waits: str
) -> tuple[list[Step], str]:
    """What to do now, and what is under way, in words. `waits` is what comes first; empty where nothing does."""
    going = leaving(seen)
    if not going:
        return [], ""
    far = progress(seen)
    if store := drained(seen, current):
        is_done = not waits and known is not None and is_empty(seen, current, store)
        return [ReleaseStore(store)] if is_done else [], f"{far}; {current.stores[store].node} is drained"
    holding = {one for one in going if store_of(current, pod_name(seen.name, one), SERVING)}
    if empty := [claim for one, claim in going.items() if one not in holding]:
        claim = max(empty, key=lambda one: (one.deleting, one.ordinal))
        name = pod_name(seen.name, claim.ordinal)
        waits = waits or _not_whole(seen, current, known)
        if waits and not claim.deleting:
            return [], f"{far}; {name} is made anew once {waits}"
        return _let_go(seen, claim), f"{far}; {name} is made anew"
    name = pod_name(seen.name, max(going))
    store = store_of(current, name, SERVING)
    waits = waits or _not_whole(seen, current, known) or _away(seen, current)
    if waits:
        return [], f"{far}; {name} is next, once {waits}"
    if blocked := _too_few(seen, current, store):
        return [], f"{far}; {name} stays: {blocked}"
    return [DrainStores((store,), f"to be made anew on another class: {far}")], f"{far}; {name} is drained"


def _let_go(seen: Observed, claim: Claim) -> list[Step]:
    steps: list[Step] = []
    if not claim.deleting:
        if claim.volume and seen.spec.storage.reclaim == "Retain":
            steps.append(RetainVolume(claim.volume))
        steps.append(DeleteClaim(claim, empty=True))
    return steps + [DeletePod(pod) for pod in seen.pods if pod.ordinal == claim.ordinal and not pod.deleting]


def _not_whole(seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None) -> str:
    if seen.replicas is None or seen.template_class != seen.spec.storage.storageClassName:
        return "the StatefulSet was made anew"
    return "" if is_whole(seen, current, known) else "every partition is whole"


def _away(seen: Observed, current: ClusterMap) -> str:
    """Who has to serve first, in words; empty where everybody does."""
    ready = {pod.name for pod in seen.pods if pod.ready}
    names = [pod_name(seen.name, one) for one in range(seen.spec.nodes)]
    away = [name for name in names if name not in ready or not store_of(current, name, SERVING)]
    return f"{away[0]} serves" if away else ""


def _too_few(seen: Observed, current: ClusterMap, store: str) -> str:
    """Why the others cannot do without a store, and what to add; empty where they can."""
    stay = len(current.in_state(SERVING)) - 1
    more = f"add nodes, which may go afterwards (nodes: {seen.spec.nodes + _several(seen)})"
    if stay < current.shards:
        return f"{current.data}+{current.parity} needs {current.shards} others that serve; {more}"
    members = [Store(one, current.stores[one].domain) for one in current.in_state(SERVING)]
    others = [one for one in members if one.id != store]
    most = domain_limit(others, current.shards)
    if most > current.parity >= domain_limit(members, current.shards):
        where = f"{'a zone' if seen.spec.placement.failureDomain == 'zone' else 'a host'} would have {most}"
        return f"without it {where} of an object's {current.shards} shards, and {current.parity} may be lost; {more}"
    said = [one for one in seen.status.stores if one.up and one.total_bytes] if seen.status is not None else []
    held = sum(one.used_bytes for one in said if one.store == store)
    keep = 1 - sizes.LOW
    room = sum(
        max(0, one.free_bytes - int(keep * one.total_bytes))
        for one in said
        if one.store != store and one.state == SERVING
    )
    return f"the others have room for {human(room)} of the {human(held)} that it holds; {more}" if held > room else ""


def _several(seen: Observed) -> int:
    disks = seen.spec.storage.disksPerHost
    return disks if isinstance(disks, int) else 1

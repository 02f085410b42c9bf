"""Hosts, with one store or several (storage.disksPerHost): what leaves, dies and starts again together. Pure, for
plan.py.

A store is still one pod with one volume. A host is nothing that is kept anywhere: it is seen, each time anew, as the
Kubernetes node that a pod's volume is bound to, or where there is none that its pod is on. Which state is where:

| what | where | written by |
|---|---|---|
| how many stores a host may have | the pods' template: a bound that the scheduler keeps, pods.py | the operator |
| what fails together with a store | its domain in the map: the host that its pod said when it started; with zones, or where no failure domain counts, what the plan sets (SetDomains) | the daemon; the operator |
| the host of a store that is gone | the same: the status half of the ShardMap keeps it (Observed.said) | the daemon |
| who may be evicted now | selector and number of the one disruption budget | the operator |

What must hold, and what holds it:
- Of a partition no host has more shards than it must, and copies of its metadata are on different hosts:
  s4/cluster/placement.py, for whatever stores there are. The plan only names stores.
- No step leaves a partition below what must stay up. Stores that leave together are asked about together
  (`safe_to_stop` of all of them), those of the host that are away already included: what is written meanwhile waits for
  them alone. So each order in which pods of a host go and come back is allowed once the first one may go, the operator
  may die between any two, and nobody of another host goes before the last one is back and nothing waits for it.
- A budget that lets a host go takes its pods out of its selector and keeps everybody else: two hosts that are drained at
  once cannot take one pod each. It is written before anything else is done in a round.
- A pod whose volume is elsewhere than on its host (one that a network gives) may come back on another host: its domain
  changes with its start, and what the bound of a partition then wants the next plan moves. One with a local volume
  cannot: it waits for its host, or for failure.replaceAfter.
- Pods of a dead host are made again as one repair: `failure.maxConcurrent` counts hosts. One is begun while fewer are
  being made again, and each of its stores is swapped for the new one of the same pod when that has registered, while
  fewer are being filled: of two that were begun at once neither waits for the other.
- A host that Kubernetes has lost is not dead while its daemons answer: after an API server that was away, or under a
  load that lets no kubelet speak, all hosts are lost at once, with everything on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from s4.cluster.clustermap import ClusterMap
from s4.cluster.placement import DRAINING, GONE, SERVING
from s4.cluster.status import Said, safe_to_stop
from s4_operator.observed import Observed, Pod
from s4_operator.state_models import HostStatus
from s4_operator.stores import is_empty, store_of

Known = Mapping[str, Said | None]


def places(seen: Observed) -> dict[str, str]:
    """Where each pod is, or has to be, by its name; empty where that is open."""
    bound = {claim.ordinal: claim.host for claim in seen.claims}
    there = {pod.ordinal: pod.host for pod in seen.pods}
    numbers = {*range(seen.replicas or 0), *bound, *there}
    return {f"{seen.name}-node-{one}": bound.get(one, "") or there.get(one, "") for one in numbers}


def stores_on(seen: Observed, current: ClusterMap, host: str) -> list[str]:
    """The stores of a host that hold something, those that are away too."""
    names = {name for name, place in places(seen).items() if place == host}
    return [store for store, one in current.stores.items() if one.node in names and one.state in (SERVING, DRAINING)]


def is_taken(seen: Observed, host: str, besides: Pod) -> str:
    """Who has the place of a pod on a host; empty where there is room, or nothing keeps pods of one host apart."""
    others = [one for one in seen.pods if one.host == host and one is not besides]
    most = seen.spec.storage.disksPerHost
    if seen.spec.storage.shares_hosts:  # what bounds a host is in the template unless people wrote their own
        bounded = not seen.spec.placement.topologySpread
    else:
        bounded = any(one.alone for one in (besides, *others))
    return ", ".join(one.name for one in others) if bounded and isinstance(most, int) and len(others) >= most else ""


def repairs(seen: Observed, current: ClusterMap, moving: Iterable[str]) -> set[str]:
    """Hosts whose stores are being made again: `moving` are filled now, others have a new claim and no store yet, or
    one that is being deleted, which takes as long as its host likes."""
    claims = {claim.name.removeprefix("data-"): claim for claim in seen.claims}
    units = {unit_of(seen, current, store, moving=True) for store in moving}
    names = places(seen)
    for store, one in current.stores.items():
        was = seen.said.get(store, "")
        if not was or one.node not in names or one.state not in (SERVING, DRAINING):
            continue
        claim = claims.get(one.node)
        elsewhere = claim is None or not claim.volume or (claim.host and claim.host != was)
        if elsewhere or (claim is not None and claim.deleting and not is_empty(seen, current, store)):
            units.add(was)
    return units


def unit_of(seen: Observed, current: ClusterMap, store: str, *, moving: bool) -> str:
    """What a store is repaired together with: its host, or while it is filled the one whose place it takes."""
    node = current.stores[store].node
    lost = [name for name, one in current.stores.items() if one.node == node and one.state == GONE]
    store = lost[-1] if moving and lost else store
    return seen.said.get(store, "") or store


def unit_of_roll(seen: Observed, pod: Pod) -> str:
    """What starts again together with a pod: the host that it was on, where upgrade.unit says so, or itself alone."""
    if seen.spec.upgrade.unit == "node" or not seen.spec.storage.shares_hosts:
        return pod.name
    store = store_of(seen.map, pod.name, SERVING, DRAINING) if seen.map is not None else ""
    return seen.said.get(store, "") or pod.host


def waits_for_room(seen: Observed) -> bool:
    """Whether pods of a template of one store a host are there yet: they let nobody onto their hosts, and who was made
    beside them would take the place of one that starts again."""
    return seen.spec.storage.shares_hosts and any(pod.alone for pod in seen.pods)


def leaving(seen: Observed, current: ClusterMap, known: Known | None) -> tuple[tuple[str, ...], str]:
    """Pods of cordoned hosts that may all be evicted now, and why the others may not. Hosts that are half away come
    first; one more may go with them if the data can do without both."""
    cordoned = [name for name, one in seen.hosts.items() if not one.schedulable]
    waiting = [name for name in cordoned if any(pod.host == name and pod.ready for pod in seen.pods)]
    waiting.sort(key=lambda name: (sum(pod.host == name and pod.ready for pod in seen.pods), name))
    going: list[str] = []
    blocked = []
    for host in waiting:
        stores = [store for name in (*going, host) for store in stores_on(seen, current, name)]
        reasons = safe_to_stop(current, known, stores) if known is not None else ["no daemon answers"]
        if reasons:
            blocked.append(f"{_listed(pod.name for pod in seen.pods if pod.host == host)} on {host}: {reasons[0]}")
        else:
            going.append(host)
    return tuple(pod.name for pod in seen.pods if pod.host in going), "; ".join(blocked)


def restarted(seen: Observed, current: ClusterMap, known: Known, first: Pod, outdated: Collection[Pod]) -> list[Pod]:
    """The pods that start again with `first`: all outdated ones of its host where upgrade.unit says so and the data can
    do without them at once."""
    together = [pod for pod in outdated if unit_of_roll(seen, pod) == unit_of_roll(seen, first)]
    names = {pod.name for pod in together}
    stores = [store for store in stores_on(seen, current, first.host) if current.stores[store].node in names]
    return [first] if safe_to_stop(current, known, stores) else together


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


# -- what a loss costs


def survives(seen: Observed, current: ClusterMap) -> tuple[bool, str]:
    """Whether the loss of any one host leaves everything readable, and what may be lost, in words."""
    domains = _hosts(seen, current)
    shape = f"{current.data}+{current.parity} on {len(set(domains.values()))} hosts"
    worst, copies = 1, current.replicas
    for one in current.partitions:
        hosts = [domains.get(store, store) for store in one.wanted]
        worst = max(worst, Counter(hosts).most_common(1)[0][1])
        copies = min(copies, len(set(hosts[: current.replicas])))
    at_once = min(current.parity // worst, copies - 1)
    if not at_once:
        why = f"up to {worst} of an object's {current.shards} shards, and {current.parity} may be lost"
        why = why if worst > current.parity else "every copy of some metadata"
        return False, f"{shape}: the loss of one host would lose data, for a host has {why}; add hosts"
    hosts_lost = "one host may be lost" if at_once == 1 else f"{at_once} hosts may be lost at once"
    disks = "one disk" if current.parity == 1 else f"any {current.parity} disks"
    needed = current.parity - (1 if current.parity > 1 else 0)
    writes = "" if worst <= needed else "; while one is away writes are refused, and none can be drained: add hosts"
    return True, f"{shape}: {hosts_lost}, or {disks}{writes}"


def _hosts(seen: Observed, current: ClusterMap) -> dict[str, str]:
    """Hosts by store: as pods and volumes are now, else as the store said."""
    by_node = places(seen)
    found = {store: by_node.get(one.node, "") or seen.said.get(store, "") for store, one in current.stores.items()}
    return {store: host for store, host in found.items() if host and current.stores[store].state in (SERVING, DRAINING)}


# -- for people


def by_host(seen: Observed) -> list[HostStatus]:
    """The pods of each host, with what their stores hold; pods that may go anywhere are on none."""
    said = {one.node: one for one in seen.status.stores if one.up} if seen.status is not None else {}
    pods: dict[str, list[Pod]] = {}
    at = places(seen)
    for pod in seen.pods:
        pods.setdefault(at[pod.name], []).append(pod)
    found = []
    for name, there in sorted(pods.items()):
        ready, host = sum(pod.ready for pod in there), seen.hosts.get(name)
        state = "Ready" if ready == len(there) else ("Partly" if ready else "Away")
        stores = [said[pod.name] for pod in there if pod.name in said]
        found.append(
            HostStatus(
                name=name,
                zone=host.zone if host is not None else "",
                ready=f"{ready}/{len(there)}",
                state="Cordoned" if host is not None and not host.schedulable else state,
                nodes=[pod.name for pod in there],
                used=sum(one.used_bytes for one in stores),
                total=sum(one.total_bytes for one in stores),
            )
        )
    return [one for one in found if one.name]


def away(seen: Observed) -> list[str]:
    """Hosts and disks that do not serve, as sentences; none where a host has but one."""
    if not seen.spec.storage.shares_hosts:
        return []
    told = []
    ready = {pod.name for pod in seen.pods if pod.ready}
    for one in by_host(seen):
        gone = [name for name in one.nodes if name not in ready]
        if gone and len(gone) == len(one.nodes):
            told.append(f"host {one.name} is away with its {len(gone)} stores ({_listed(gone)})")
        elif gone:
            told.append(f"{len(gone)} of the {len(one.nodes)} stores of host {one.name} are away ({_listed(gone)})")
    return told

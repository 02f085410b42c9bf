"""What to do next for one cluster: a pure function from what is to a few steps. It remembers nothing.

Every step is one that is safe by itself in the state that was seen, and that leads to a state from which the rest
follows; so the operator may die between any two, and doing a step twice is doing it once. A step that takes something
away (a pod, a claim, a store) comes only where the data plane itself has said that everything stays readable
and writable without it; not knowing means waiting. Before it is done, clusters.py asks once more.

Order, which is also what waits for what: the map is made; stores are added to it; lost stores are replaced and nodes
added (repair never waits for an upgrade); surplus stores are drained, highest ordinals first, and let go of when empty;
then, with everything whole, outdated pods start again one at a time, under a freeze of planned moves; volumes of
another class than is asked for are made anew last (migration.py). Where hosts have several stores, what leaves, is lost
or starts again together is for hosts.py to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from s4.cluster import planner
from s4.cluster.clustermap import STANDBY, ClusterMap
from s4.cluster.placement import DRAINING, SERVING
from s4.cluster.status import Said, any_may_stop, safe_to_stop
from s4_operator import copies, hosts, lost, migration, sizes, volumes
from s4_operator.models import seconds
from s4_operator.observed import Observed, Pod
from s4_operator.steps import (
    AddStores,
    DeleteClaim,
    DeletePod,
    DrainStores,
    Freeze,
    MakeMap,
    ReleaseStore,
    RetainVolume,
    SetDomains,
    Spread,
    Step,
    SwapStore,
    Weigh,
    few,
)
from s4_operator.stores import (
    FOREIGN,
    fresh_of,
    half_moved,
    is_empty,
    lacking_shards,
    ordinal_of,
    pod_name,
    replacing,
    said,
    store_of,
    whole_positions,
)

UNBOUND_S = 20.0  # after which a pod on a host whose claim has no volume was scheduled with another claim


@dataclass(slots=True)
class Plan:
    """What to do now. `doing` says what is under way, in words; the others are why something does not go on."""

    replicas: int
    image: str
    steps: list[Step] = field(default_factory=list)
    max_unavailable: int = 0  # of the pods that are not leaving
    leaving: tuple[str, ...] = ()  # pods of hosts that may be evicted all of them
    doing: list[str] = field(default_factory=list)
    at_risk: str = ""
    upgrade_blocked: str = ""
    blocked_image: str = ""
    drain_blocked: str = ""
    outdated: int = 0


def plan(seen: Observed) -> Plan:
    """The next steps."""
    made = Plan(_replicas(seen), _image(seen), blocked_image=_blocked(seen))
    if seen.map is None:
        made.steps.append(MakeMap())
        made.doing.append("making the shard map")
        return made
    if not seen.map.partitions:
        _form(seen, seen.map, made)
        _grow(seen, made)
        return made
    if hosts.waits_for_room(seen) and made.replicas < seen.spec.nodes:
        made.doing.append("nodes are added once the others let them onto their hosts: these start again one by one")
    else:
        made.replicas = max(made.replicas, seen.spec.nodes)
    known = said(seen)
    _domains(seen, seen.map, made)
    _repair(seen, seen.map, known, made)
    _scale_in(seen, seen.map, known, made)
    _disruptions(seen, seen.map, known, made)
    _roll(seen, seen.map, known, made)
    _grow(seen, made)
    steps, doing = migration.next_steps(seen, seen.map, known, _comes_first(seen, seen.map, made))
    made.steps += steps
    made.doing += [doing] if doing else []
    if any(isinstance(step, DeletePod) and step.stores for step in made.steps):
        made.leaving, made.max_unavailable = (), 0  # who serves starts again: nobody else goes meanwhile
    return made


def _comes_first(seen: Observed, current: ClusterMap, made: Plan) -> str:
    """What volumes that are made anew wait for, in words; empty where nothing comes first."""
    if seen.replicas != seen.spec.nodes:
        return f"there are {seen.spec.nodes} nodes"
    if made.outdated or current.freeze or not seen.settled:
        return "every node has its new version"
    if seen.spec.upgrade.pause:
        return "upgrade.pause is off again"
    return "what is under way is done" if made.steps else ""


def _replicas(seen: Observed) -> int:
    """How many nodes the StatefulSet has. While it is made anew around its pods, as many as there are: with fewer it
    would end those that are drained."""
    if seen.replicas is not None:
        return seen.replicas
    numbers = [one.ordinal for one in seen.pods]
    if seen.map is not None:
        there = [ordinal_of(seen, seen.map, store) for store in seen.map.in_state(SERVING, DRAINING)]
        numbers += [number for number in there if number < FOREIGN]
    return max([seen.spec.nodes, *(number + 1 for number in numbers)])


def _grow(seen: Observed, made: Plan) -> None:
    step = volumes.next_step(seen)
    if step is not None:
        made.steps.append(step)
    if doing := volumes.doing(seen):
        made.doing.append(doing)


# -- formation


def _form(seen: Observed, current: ClusterMap, made: Plan) -> None:
    made.replicas = max(made.replicas, seen.spec.nodes)
    known = said(seen)
    stores = [fresh_of(current, known, pod_name(seen.name, number)) for number in range(seen.spec.nodes)]
    present = [store for store in stores if store]
    made.doing.append(f"waiting for nodes: {len(present)} of {seen.spec.nodes} have a store")
    made.max_unavailable = seen.spec.nodes
    if present and lost.is_lost(seen):
        _domains(seen, current, made)
        made.steps += filter(None, [lost.next_step(seen)])
        made.doing.append(lost.words(seen))
        made.at_risk = lost.words(seen) if lost.needs_a_person(seen, len(present)) else ""
    elif len(present) == len(stores):
        _domains(seen, current, made)
        made.steps.append(AddStores(tuple(present), sizes.weights(seen, current, tuple(present))))
    _unstick(seen, made)


def _unstick(seen: Observed, made: Plan) -> None:
    """While nothing is kept yet, pods of an older template, and broken ones, need no care."""
    if seen.settled and seen.revision:
        made.steps += [DeletePod(pod) for pod in seen.pods if pod.revision != seen.revision and not pod.deleting]


def _domains(seen: Observed, current: ClusterMap, made: Plan) -> None:
    """With failure domains that are zones, or none, the planner says what a store's is; pods know their host only,
    which counts again once hosts are the domains again."""
    kind, wanted = seen.spec.placement.failureDomain, []
    for pod in seen.pods:
        store = store_of(current, pod.name, STANDBY, SERVING)
        zone = seen.hosts[pod.host].zone if pod.host in seen.hosts else ""
        domain = {"zone": zone, "none": pod.name, "hostname": seen.said.get(store, "")}[kind]
        if store and domain and current.stores[store].domain != domain:
            wanted.append((store, domain))
    if wanted:
        made.steps.append(SetDomains(tuple(wanted)))


# -- repair


def _repair(seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None, made: Plan) -> None:
    moving = replacing(current)
    added, going = [], migration.leaving(seen)
    filled = {hosts.unit_of(seen, current, store, moving=True) for store in moving}
    ending = {claim.ordinal for claim in seen.claims if claim.deleting}
    for ordinal in range(seen.spec.nodes):
        name = pod_name(seen.name, ordinal)
        fresh, old = fresh_of(current, known, name), store_of(current, name, SERVING, DRAINING)
        if not fresh and not old:
            made.doing.append(f"waiting for {name}, which has no store yet")
        elif fresh and not old and ordinal in going:
            continue  # its volume is made anew first
        elif fresh and (known is None or known.get(fresh) is None):
            made.doing += [] if old else [f"waiting for {name}, whose store does not answer yet"]
        elif fresh and ordinal in ending:  # what came to be on it would go with its pod
            made.steps += [DeletePod(pod) for pod in seen.pods if pod.ordinal == ordinal and not pod.deleting]
            made.doing.append(f"{name} is made anew: its claim is being deleted")
        elif fresh and not old:
            added.append(fresh)
        elif fresh and known is not None:
            why, unit = _cannot_lose(seen, current, known, old), hosts.unit_of(seen, current, old, moving=old in moving)
            if why:
                made.at_risk = f"store {old[:8]} of {name} is lost, and {why}; to give it up, annotate the S4Cluster with s4.dev/confirm-data-loss={old}"
            elif len(filled - {unit}) >= max(1, seen.spec.failure.maxConcurrent):
                made.doing.append(f"{name} is replaced once another store is")
            else:
                filled.add(unit)
                made.steps.append(SwapStore(old, fresh))
                made.doing.append(f"replacing the lost store {old[:8]} of {name}")
    draining_back = [
        store
        for store in current.in_state(DRAINING)
        if (ordinal := ordinal_of(seen, current, store)) < seen.spec.nodes
        and ordinal not in ending  # what is on it goes with its pod
        and store != migration.drained(seen, current)
    ]
    if added or draining_back:
        more = (*added, *draining_back)
        made.steps.append(AddStores(more, sizes.weights(seen, current, more)))
        made.doing.append(f"adding {len(added) + len(draining_back)} stores")
    _dead_hosts(seen, current, known, made, filled | hosts.repairs(seen, current, moving))
    _unbound(seen, made)
    if not made.steps and not moving and not current.freeze and not volumes.is_growing(seen):
        weights = sizes.weights(seen, current) if sizes.is_followed(seen, current) else ()
        if step := copies.next_step(seen, current):
            made.steps.append(step)
        elif weights:
            made.steps.append(Weigh(weights))
        elif planner.crowded(current):
            made.steps.append(Spread())
    made.doing += filter(None, [copies.doing(seen, current)])
    if moving:
        made.doing.append(f"making again what {len(moving)} lost stores held")


def _cannot_lose(seen: Observed, current: ClusterMap, known: dict[str, Said | None], store: str) -> str:
    """Why declaring a store gone would lose data, as far as is known; empty where every shard can be made again, or a
    person has confirmed the loss. Of who was away, what waits to be made again may be on the lost store and few others:
    it counts once it has that. What waits for the lost store itself, or for others that are away, holds up nothing."""
    if store in seen.confirmed:
        return ""
    up = {name for name, one in known.items() if one is not None} - {store}
    lacking = lacking_shards(seen, up)
    whole, unreadable, copies = up - lacking, 0, 0
    for one in current.partitions:
        if store in (*one.config.members, one.config.joining):
            unreadable += whole_positions(one.config, whole) < current.data
        if store in one.config.in_sync:
            copies += not any(name in up for name in one.config.in_sync)
    if not unreadable and not copies:
        return ""
    waits = f", while shards wait on {few(sorted(current.stores[name].node for name in lacking))} to be made again"
    text = f"without it {unreadable} partitions have too few shards and {copies} have no copy of their metadata"
    return text + (waits if lacking else "")


def _dead_hosts(
    seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None, made: Plan, busy: set[str]
) -> None:
    """Free pods and claims of hosts that are away for too long, so that they are made again elsewhere."""
    claims = {claim.ordinal: claim for claim in seen.claims}
    pods = {pod.ordinal: pod for pod in seen.pods}
    moving, at_risk = replacing(current), dict[str, list[str]]()
    for ordinal in range(made.replicas):
        claim, pod, name = claims.get(ordinal), pods.get(ordinal), pod_name(seen.name, ordinal)
        host = (claim.host if claim is not None else "") or (pod.host if pod is not None else "")
        gone = f"{host}, which is gone" if _is_dead(seen, host) else _taken(seen, pod, host)
        if not host or not gone or (pod is not None and pod.ready):
            continue
        own = [store for store, one in current.stores.items() if one.node == name]
        if host in seen.hosts and known is not None and any(known.get(store) is not None for store in own):
            made.doing.append(f"{name} answers, though Kubernetes has lost {host}: it stays as long as it does")
            continue
        if claim is None or not claim.host:  # the volume can follow its pod
            if pod is not None:
                made.steps.append(DeletePod(pod, force=True))
                made.doing.append(f"{name} is started again away from {gone}")
            continue
        store = store_of(current, name, SERVING, DRAINING)
        if store and known is None:
            made.doing.append(f"{name} was on {gone}; no daemon says what would be lost")
            continue
        why = _cannot_lose(seen, current, known or {}, store) if store else ""
        units = {host, hosts.unit_of(seen, current, store, moving=store in moving) if store else host}
        if why:
            at_risk.setdefault(f"on {gone}, and {why}", []).append(store)
        elif len(busy - units) >= seen.spec.failure.maxConcurrent:
            made.doing.append(f"{name} was on {gone}; it is replaced after others (failure.maxConcurrent)")
        else:
            busy.add(host)
            made.doing.append(f"{name} is made again elsewhere: it was on {gone}")
            if not claim.deleting:
                made.steps += [RetainVolume(claim.volume)] if claim.volume else []
                made.steps.append(DeleteClaim(claim))
            if pod is not None:
                made.steps.append(DeletePod(pod, force=True))
    for where, stores in at_risk.items():
        named = " and ".join(current.stores[store].node for store in stores)
        made.at_risk = f"{named} {'was' if len(stores) == 1 else 'were'} {where}; bring the host back, or annotate the S4Cluster with s4.dev/confirm-data-loss={','.join(stores)}"


def _unbound(seen: Observed, made: Plan) -> None:
    """A pod that was scheduled with a claim that went right then waits for ever: its new claim is bound by
    scheduling."""
    claims = {claim.ordinal: claim for claim in seen.claims}
    for pod in seen.pods:
        claim = claims.get(pod.ordinal)
        late = seen.now_s - pod.created_s > UNBOUND_S
        if claim is not None and not claim.volume and pod.host and late and not pod.ready and not pod.deleting:
            made.steps.append(DeletePod(pod))
            made.doing.append(f"{pod.name} is scheduled again, with the claim that it has now")


def _taken(seen: Observed, pod: Pod | None, host: str) -> str:
    """Why a pod can never start where its volume is: another store has moved there meanwhile. Empty where none has."""
    if pod is None or pod.host:
        return ""
    other = hosts.is_taken(seen, host, pod)
    if not other or seen.now_s - pod.created_s <= seconds(seen.spec.failure.replaceAfter):
        return ""
    return f"{host}, where {other} is now"


def _is_dead(seen: Observed, host: str) -> bool:
    found = seen.hosts.get(host)
    if found is None:
        return True
    return found.gone_since_s is not None and seen.now_s - found.gone_since_s > seconds(seen.spec.failure.replaceAfter)


# -- fewer nodes


def _scale_in(seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None, made: Plan) -> None:
    if seen.replicas is None or seen.replicas <= seen.spec.nodes:
        return
    surplus = {pod_name(seen.name, number) for number in range(seen.spec.nodes, seen.replicas)}
    stay = [store for store in current.in_state(SERVING) if current.stores[store].node not in surplus]
    leave = tuple(store for store in current.in_state(SERVING) if current.stores[store].node in surplus)
    if leave:
        if len(stay) < current.shards:
            made.doing.append(
                f"{len(leave)} nodes stay: {current.data}+{current.parity} needs {current.shards} others that serve"
            )
            return
        made.steps.append(DrainStores(leave))
    last = pod_name(seen.name, seen.replicas - 1)
    store = store_of(current, last, DRAINING)
    if store:
        made.doing.append(f"draining {last}")
        if known is not None and is_empty(seen, current, store):
            made.steps.append(ReleaseStore(store))
    elif not leave:
        made.doing.append(f"{last} is let go")
        made.replicas = seen.replicas - 1
        if seen.spec.storage.reclaim == "Delete":
            made.steps += [DeleteClaim(claim) for claim in seen.claims if claim.ordinal == seen.replicas - 1]


# -- disruptions


def _disruptions(seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None, made: Plan) -> None:
    """Pods of hosts that are drained go by name, as hosts.py says; else one may go, where all serve and any may stop.
    Who is away is never counted in: it is Ready before anybody has looked, without what was written meanwhile or with
    nothing, and would leave room for another."""
    made.leaving, made.drain_blocked = hosts.leaving(seen, current, known)
    serve = sum(pod.ready for pod in seen.pods) == len(seen.pods) == seen.replicas == made.replicas
    if known is not None and serve and not made.leaving and not made.drain_blocked:
        ready = [store_of(current, pod.name, SERVING, DRAINING) for pod in seen.pods]
        made.max_unavailable = int(any_may_stop(current, known, [store for store in ready if store]))


# -- new templates


def _image(seen: Observed) -> str:
    return seen.before.image if _blocked(seen) and seen.before.image else seen.image


def _blocked(seen: Observed) -> str:
    """The image that the spec asks for, if it was rolled back."""
    return seen.image if seen.before.blockedImage == seen.image else ""


def _roll(seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None, made: Plan) -> None:
    """Start outdated pods again, one at a time, highest ordinals first."""
    outdated = [pod for pod in seen.pods if pod.revision != seen.revision] if seen.settled and seen.revision else []
    made.outdated = len(outdated)
    held = not seen.settled or bool(_repairs(made.steps))
    if outdated or not seen.settled:
        made.doing.append(
            f"{len(outdated)} nodes wait for their new version" if outdated else "the new version is being rolled out"
        )
    if made.blocked_image:
        made.upgrade_blocked = (
            f"{made.blocked_image} was rolled back: a node did not come up with it; set another image"
        )
    down = [pod for pod in seen.pods if not pod.ready and not pod.deleting and (pod.broken or _is_late(seen, pod))]
    failed = sorted((pod for pod in down if pod not in outdated), key=lambda pod: not pod.broken)
    stopped = bool(outdated and failed) and not any(_host_is_away(seen, pod) for pod in failed)
    if stopped:
        pod = failed[0]
        made.upgrade_blocked = (
            f"{pod.name} does not come up with {pod.image}: {pod.broken or 'it is not ready in time'}"
        )
        if _goes_back(seen, known, failed):
            made.blocked_image, made.image = seen.image, seen.before.image
    useless = [step for pod in down if pod in outdated for step in _ended(seen, current, known, pod)]
    if useless and not seen.spec.upgrade.pause:
        made.steps.append(useless[-1])  # the newest template may do
        return
    wait = _wait(seen, current, known, outdated)
    if wait and not seen.spec.upgrade.pause and outdated and not stopped:
        made.doing.append(wait)
    moves = replacing(current) or half_moved(current)
    if not outdated or held or stopped or seen.spec.upgrade.pause or moves:
        if current.freeze:
            made.steps.append(Freeze(False))
        return
    if wait or known is None:
        return
    group = hosts.restarted(seen, current, known, max(outdated, key=lambda one: one.ordinal), outdated)
    if not current.freeze:
        made.steps.append(Freeze(True))
    else:
        stores = tuple(filter(None, (store_of(current, pod.name, SERVING, DRAINING) for pod in group)))
        besides = tuple(pod.name for pod in group)
        made.steps += [DeletePod(pod, stores, besides) for pod in group]
    made.doing.append(f"restarting {', '.join(pod.name for pod in group)}")


def _wait(seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None, outdated: list[Pod]) -> str:
    """Why no pod may be restarted now; empty where one may."""
    away = [pod.name for pod in seen.pods if not pod.ready or pod.deleting]
    if away or len(seen.pods) < (seen.replicas or 0):
        return f"waiting until {', '.join(away) or 'every pod'} serves"
    if known is None:
        return "waiting until a daemon answers"
    if outdated:
        store = store_of(current, max(outdated, key=lambda one: one.ordinal).name, SERVING, DRAINING)
        reasons = safe_to_stop(current, known, [store]) if store else []
        if reasons:
            return f"waiting: {'; '.join(reasons)}"
    return ""


def _is_late(seen: Observed, pod: Pod) -> bool:
    """Whether it has not served for longer than it may take, since it was made, ceased to, or its host came back."""
    host = seen.hosts.get(pod.host)
    since_s = max(pod.created_s, pod.since_s, host.since_s if host is not None else 0.0)
    return seen.now_s - since_s > seconds(seen.spec.upgrade.progressDeadline)


def _is_silent(seen: Observed, known: dict[str, Said | None] | None, pod: Pod) -> bool:
    """Whether daemons answer, and none of this pod does."""
    stores = seen.map.stores.items() if seen.map is not None else ()
    return known is not None and not any(known.get(store) for store, one in stores if one.node == pod.name)


def _goes_back(seen: Observed, known: dict[str, Said | None] | None, failed: list[Pod]) -> bool:
    """Whether the image that the template has is to be the one before: where a node fails with it and nobody wants to
    look; else where a second one does and none runs it. One unit is tried at a time: another was added, or made for a
    repair, which waits for no person."""
    if not seen.before.image or not seen.before.image != seen.image == seen.template_image:
        return False
    there = [pod for pod in failed if pod.host]
    if seen.spec.upgrade.strategy == "Automatic":
        return bool(there)
    units = {hosts.unit_of_roll(seen, pod) for pod in there if pod.broken or _is_silent(seen, known, pod)}
    return len(units) > 1 and not any(pod.ready and pod.revision == seen.revision for pod in seen.pods)


def _ended(seen: Observed, current: ClusterMap, known: dict[str, Said | None] | None, pod: Pod) -> list[DeletePod]:
    """An outdated pod that is not ready is made again at once, where it serves nothing or may stop."""
    if pod.broken or (_is_silent(seen, known, pod) and not _host_is_away(seen, pod)):
        return [DeletePod(pod)]
    store = store_of(current, pod.name, SERVING, DRAINING)
    if known is None or _host_is_away(seen, pod) or (store and safe_to_stop(current, known, [store])):
        return []
    return [DeletePod(pod, (store,) if store else (), (pod.name,))]


def _host_is_away(seen: Observed, pod: Pod) -> bool:
    host = seen.hosts.get(pod.host)
    return bool(pod.host) and (host is None or host.gone_since_s is not None)


def _repairs(steps: Iterable[Step]) -> list[Step]:
    return [step for step in steps if isinstance(step, AddStores | SwapStore | DeleteClaim)]

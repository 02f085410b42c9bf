"""The status of a cluster, in words that a person can act on: pure, from what is seen and what is planned."""

from __future__ import annotations

import datetime
from typing import Any

from s4.base.text import human
from s4_operator import hosts, migration, sizes, volumes
from s4_operator.observed import Observed
from s4_operator.plan import Plan
from s4_operator.state_models import ClusterState, Condition, NodeStatus, PartitionCounts, RebuildStatus
from s4_operator.stores import store_of

COLUMN = 34  # characters of a message in `kubectl get -o wide`, which has 120 for all columns


def text_time(now_s: float) -> str:
    return datetime.datetime.fromtimestamp(int(now_s), datetime.UTC).isoformat().replace("+00:00", "Z")


def conditions(
    before: list[Condition], found: list[tuple[str, str, str, str]], now_s: float, generation: int
) -> list[Condition]:
    """Conditions of (type, status, reason, message); the time is when a status last changed."""
    known = {one.type: one for one in before}
    made = []
    for kind, status, reason, message in found:
        old = known.get(kind)
        since = old.lastTransitionTime if old is not None and old.status == status else text_time(now_s)
        made.append(
            Condition(
                type=kind,
                status=status,
                reason=reason,
                message=message[:1024],
                lastTransitionTime=since,
                observedGeneration=generation,
            )
        )
    return made


def _found(seen: Observed, made: Plan, health: str, reasons: str, trouble: str) -> list[tuple[str, str, str, str]]:
    """The conditions as (type, status, reason, message)."""
    status, formed = seen.status, seen.map is not None and bool(seen.map.partitions)
    ready, degraded, doing = formed and not seen.served, formed and health != "ok", "; ".join(made.doing)
    return [
        (
            "Ready",
            _truth(ready),
            "Serving" if ready else ("Forming" if not formed else "NotServing"),
            "an object was written and read back" if ready else (seen.served or doing),
        ),
        (
            "Progressing",
            _truth(bool(made.steps or made.doing)),
            "Working" if made.steps or made.doing else "Done",
            doing or "nothing is to be done",
        ),
        (
            "Degraded",
            _truth(degraded) if status is not None and formed else "Unknown",
            health.title().replace(" ", "") if formed else "Forming",
            reasons if degraded else "",
        ),
        ("DataAtRisk", _truth(bool(made.at_risk)), "NeedsConfirmation" if made.at_risk else "Safe", made.at_risk),
        (
            "UpgradeBlocked",
            _truth(bool(made.upgrade_blocked)),
            "NodeFailed" if made.upgrade_blocked else "Free",
            made.upgrade_blocked,
        ),
        (
            "DrainBlocked",
            _truth(bool(made.drain_blocked)),
            "DataWouldBeUnavailable" if made.drain_blocked else "Free",
            made.drain_blocked,
        ),
        ("SurvivesHostLoss", *_loss(seen)),
        ("CapacityLow", *_capacity(seen, formed)),
        (
            "VolumesSmaller",
            _truth(bool(volumes.smaller(seen))),
            "NotGrown" if volumes.smaller(seen) else "AsAsked",
            volumes.smaller(seen),
        ),
        ("VolumesOtherClass", *_classes(seen)),
        ("DeletionBlocked", *_users(seen)),
        (
            "CertificatesReady",
            _truth(not seen.certificates),
            "Valid" if not seen.certificates else "Renewing",
            seen.certificates,
        ),
        ("Reconciled", _truth(not trouble), "Done" if not trouble else "Failed", trouble),
    ]


def report(seen: Observed, made: Plan, generation: int, remaining_s: int | None, trouble: str = "") -> ClusterState:
    """`trouble` is an error that keeps the operator from going on."""
    status, formed = seen.status, seen.map is not None and bool(seen.map.partitions)
    health = status.health if status is not None else "unknown"
    reasons = "; ".join([*hosts.away(seen), *status.reasons]) if status is not None else "no daemon answers"
    ready = formed and not seen.served
    doing = "; ".join(made.doing)
    degraded = formed and health != "ok"
    # What a person should read first: what needs a decision, then what is broken, then what is under way.
    first = made.at_risk or trouble or made.upgrade_blocked or (seen.served if formed else "") or made.drain_blocked
    message = first or doing or sizes.low(seen) or (reasons if degraded else "")
    return ClusterState(
        observedGeneration=generation,
        phase=_phase(seen, made, formed, ready, health),
        message=message[:500],
        conditions=conditions(
            seen.before.conditions, _found(seen, made, health, reasons, trouble), seen.now_s, generation
        ),
        nodes=_nodes(seen),
        hosts=hosts.by_host(seen),
        nodesReady=f"{sum(pod.ready for pod in seen.pods)}/{seen.spec.nodes}",
        replicas=len(seen.pods),
        selector=f"s4.dev/cluster={seen.name},app.kubernetes.io/component=node",
        epoch=max((one.config.epoch for one in seen.map.partitions), default=0) if seen.map is not None else 0,
        partitions=_partitions(seen),
        usedBytes=_used(seen),
        rawBytes=_raw(seen),
        used=f"{human(_used(seen))} of {human(_raw(seen))}",
        filled=f"{100 * _used(seen) // _raw(seen)}%" if _raw(seen) else "",
        summary=summary(message),
        rebuild=RebuildStatus(
            percent=int(100 * status.filled) if status else 100,
            waitingShards=status.heals if status else 0,
            remainingSeconds=remaining_s,
        ),
        image=_good_image(seen, made),
        blockedImage=made.blocked_image,
        version=_versions(seen),
        buckets=seen.buckets,
    )


def blocked(before: ClusterState, message: str, now_s: float, generation: int) -> ClusterState:
    """The status as it was, with why the operator cannot even look."""
    (said,) = conditions(before.conditions, [("Reconciled", "False", "Failed", message)], now_s, generation)
    kept = [one for one in before.conditions if one.type != "Reconciled"]
    return before.model_copy(
        update={
            "observedGeneration": generation,
            "message": message[:500],
            "summary": summary(message),
            "conditions": [*kept, said],
        }
    )


def summary(message: str) -> str:
    """As much of a message as fits beside the other columns into a terminal, by whole words."""
    if len(message) <= COLUMN:
        return message
    return message[: COLUMN - 1].rpartition(" ")[0].rstrip(",;:") + "…"


def _truth(value: bool) -> str:
    return "True" if value else "False"


def _loss(seen: Observed) -> tuple[str, str, str]:
    if seen.map is None or not seen.map.partitions:
        return "Unknown", "Forming", ""
    good, words = hosts.survives(seen, seen.map)
    return _truth(good), "Spread" if good else "TooFewHosts", words


def _users(seen: Observed) -> tuple[str, str, str]:
    if seen.buckets:
        return "True", "InUse", f"{seen.buckets} Buckets use this cluster: delete them first"
    if seen.sees_all:
        return "False", "Free", ""
    why = "no Bucket of the namespaces that this operator serves uses this cluster; those of others are not seen"
    return "Unknown", "OthersNotSeen", why


def _capacity(seen: Observed, formed: bool) -> tuple[str, str, str]:
    if seen.status is None or not formed:
        return "Unknown", "NobodySays" if formed else "Forming", ""
    low = sizes.low(seen)
    return _truth(bool(low)), "AddDisks" if low else "Enough", low


def _classes(seen: Observed) -> tuple[str, str, str]:
    far = migration.progress(seen)
    if not far or seen.spec.storage.migrate:
        return _truth(bool(far)), "Moving" if far else "AsAsked", far
    return "True", "NotMigrated", f"{far}; the others are made anew with storage.migrate: true"


def _phase(seen: Observed, made: Plan, formed: bool, ready: bool, health: str) -> str:
    if not formed:
        return "Recovering" if seen.recovery is not None and seen.recovery.holding else "Forming"
    if not ready:
        return "Unavailable"
    if made.at_risk:
        return "DataAtRisk"
    if made.outdated and not made.upgrade_blocked:
        return "Upgrading"
    if made.upgrade_blocked:
        return "UpgradeBlocked"
    if made.steps or made.doing:
        return "Progressing"
    return "Ready" if health == "ok" else "Degraded"


def _nodes(seen: Observed) -> list[NodeStatus]:
    said = {one.store: one for one in seen.status.stores} if seen.status is not None else {}
    found = []
    for pod in seen.pods:
        store = store_of(seen.map, pod.name, "serving", "draining", "standby") if seen.map is not None else ""
        one = said.get(store)
        more: dict[str, Any] = {}
        if one is not None:
            more = {
                "version": one.version,
                "primaries": one.primaries,
                "positions": one.positions,
                "used": one.used_bytes,
            }
        state = seen.map.stores[store].state if store and seen.map is not None else ""
        found.append(NodeStatus(name=pod.name, store=store, host=pod.host, state=state, ready=pod.ready, **more))
    return found


def _partitions(seen: Observed) -> PartitionCounts:
    counts = PartitionCounts()
    if seen.map is None:
        return counts
    up = {one.store for one in seen.status.stores if one.up} if seen.status is not None else set()
    for one in seen.map.partitions:
        live = sum(store in up for store in one.config.members)
        if live < seen.map.data or not any(store in up for store in one.config.in_sync):
            counts.unavailable += 1
        elif live < seen.map.shards or len(one.config.in_sync) < seen.map.replicas:
            counts.degraded += 1
        elif one.config.members != one.wanted:
            counts.moving += 1
        else:
            counts.healthy += 1
    return counts


def _used(seen: Observed) -> int:
    return sum(one.used_bytes for one in seen.status.stores) if seen.status is not None else seen.before.usedBytes


def _raw(seen: Observed) -> int:
    return sum(one.total_bytes for one in seen.status.stores) if seen.status is not None else seen.before.rawBytes


def _versions(seen: Observed) -> str:
    found = sorted({one.version for one in seen.status.stores if one.version}) if seen.status is not None else []
    return " and ".join(found) or seen.before.version


def _good_image(seen: Observed, made: Plan) -> str:
    """The image that every node runs well, or the last one that it was."""
    images = {pod.image for pod in seen.pods if pod.ready}
    whole = len(seen.pods) >= seen.spec.nodes and all(pod.ready for pod in seen.pods) and not made.outdated
    return images.pop() if whole and len(images) == 1 and not seen.served else seen.before.image

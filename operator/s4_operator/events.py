"""What is told as events on an S4Cluster, for people under stress: pure. `kubectl describe s4c` shows the last hour of
them.

- One event for one fact: what a round does to several pods or claims together is one, and what a condition says anyway
  is not told besides.
- In order: Kubernetes keeps seconds, and sorts by them alone. What one round tells gets a second each, later than
  what was told before.
- In sentences: what was done and to whom, by the names that people see; at most FEW of them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from s4_operator.state_models import Condition
from s4_operator.steps import DeleteClaim, DeletePod, RetainVolume, Step, few

REASONS = {
    "MakeMap": "MapMade",
    "RestoreMap": "MapRestored",
    "AddStores": "StoresAdded",
    "DrainStores": "DrainBegan",
    "ReleaseStore": "StoreReleased",
    "SwapStore": "StoreReplaced",
    "Freeze": "MovesHeld",
    "SetDomains": "DomainsSet",
    "Spread": "ShardsSpread",
    "Weigh": "SharesBySize",
    "SetCopies": "CopiesSet",
    "DeleteClaim": "ClaimDeleted",
    "GrowClaim": "VolumeGrows",
    "DeletePod": "PodDeleted",
}

# Conditions of which a change is told, what its reason is when it is as it should be, and the words where it has none.
WELL = {
    "Ready": ("Ready", "an object was written and read back"),
    "Degraded": ("Healed", "every shard and every copy of the metadata is where it should be"),
    "DataAtRisk": ("OutOfRisk", "no lost store keeps data at risk any more"),
    "UpgradeBlocked": ("UpgradeGoesOn", "nothing keeps the upgrade from going on"),
    "DrainBlocked": ("DrainGoesOn", "hosts that are drained can be left"),
    "CertificatesReady": ("CertificatesReady", "the certificates are valid"),
    "SurvivesHostLoss": ("SurvivesHostLoss", "the loss of a host loses no data"),
    "CapacityLow": ("RoomAgain", "every store has room again"),
    "VolumesOtherClass": ("VolumesMoved", "every volume is of the class that was asked for"),
    "VolumesSmaller": ("VolumesGrown", "every volume has the size that was asked for"),
}
GOOD_IF_TRUE = ("Ready", "CertificatesReady", "SurvivesHostLoss")


@dataclass(frozen=True, slots=True)
class Told:
    reason: str
    message: str
    warning: bool = False


def of_steps(done: Sequence[tuple[Step, str]]) -> list[Told]:
    """What a round did, each step with its own words."""
    told = []
    for kind, group in groupby(done, lambda one: type(one[0])):
        steps = list(group)
        if kind is RetainVolume:
            continue  # it is said with the claim
        if kind is DeletePod:
            told += _pods([step for step, _ in steps if isinstance(step, DeletePod)])
        elif kind is DeleteClaim:
            claims = [step.claim for step, _ in steps if isinstance(step, DeleteClaim)]
            volumes = [one.volume for one in claims if one.volume]
            empty = all(step.empty for step, _ in steps if isinstance(step, DeleteClaim))
            retained = volumes and any(isinstance(one, RetainVolume) for one, _ in done)
            kept = f"; {'the volume' if empty else 'the data on'} {few(volumes)} stays" if retained else ""
            told.append(
                Told(
                    "ClaimDeleted",
                    f"{few([one.name for one in claims])} {'was' if len(claims) == 1 else 'were'} deleted"
                    f"{', and nothing was on it any more' if empty else ''}{kept}",
                )
            )
        else:
            told += [Told(_reason(step), words) for step, words in steps]
    return told


def _reason(step: Step) -> str:
    found = REASONS.get(type(step).__name__, type(step).__name__)
    return "MovesResumed" if found == "MovesHeld" and not getattr(step, "freeze", True) else found


def _pods(steps: Sequence[DeletePod]) -> list[Told]:
    told = []
    for kind, group in groupby(steps, lambda one: (bool(one.stores), one.force)):
        serves, force = kind
        pods = [one.pod.name for one in group]
        names, be, were = few(pods), *(("is", "was") if len(pods) == 1 else ("are", "were"))
        if serves:
            told.append(
                Told("PodRestarted", f"{names} {be} started again: everything stays readable and writable meanwhile")
            )
        elif force:
            told.append(Told("PodDeleted", f"{names} {were} deleted without waiting for the host, which is away"))
        else:
            told.append(Told("PodDeleted", f"{names} {were} deleted, to be made anew, having served nobody"))
    return told


def of_conditions(before: Mapping[str, str], now: Sequence[Condition]) -> list[Told]:
    """Conditions whose status is another than it was; what is seen for the first time is no change, and neither is what
    nobody knows for a while."""
    told = []
    for one in now:
        if one.type not in WELL or one.status == "Unknown" or before.get(one.type, one.status) == one.status:
            continue
        reason, words = WELL[one.type]
        good = (one.status == "True") == (one.type in GOOD_IF_TRUE)
        if good:
            told.append(Told(reason, one.message or words))
        else:
            told.append(
                Told(one.type if one.type not in GOOD_IF_TRUE else f"Not{one.type}", one.message or one.reason, True)
            )
    return told


def known(before: Mapping[str, str], now: Sequence[Condition]) -> dict[str, str]:
    """What is known of each condition, now or from before."""
    return {**before, **{one.type: one.status for one in now if one.status != "Unknown"}}


def stamps(count: int, now_s: float, last_s: float) -> list[float]:
    """When each of what a round tells is said to have been: whole seconds, each later than the one before, the last one
    now unless that would be before what was told already."""
    first = max(int(now_s) - count + 1, int(last_s) + 1)
    return [float(first + number) for number in range(count)]


def text(stamp_s: float) -> str:
    return datetime.datetime.fromtimestamp(int(stamp_s), datetime.UTC).isoformat().replace("+00:00", "Z")

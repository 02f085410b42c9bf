"""The alerts of a cluster, for Prometheus. tests/monitoring makes the cause of each and sees it fire.

What is not there says nothing: a pod that is gone takes its series with it. So whoever looks for something that is away
asks those that are there (S4StoreAway), or for the series themselves (S4NotSeen).
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

POD = "{{ $labels.pod }}"


def alerts(cluster: str, here: str) -> list[Object]:
    """Rules of Prometheus; `here` selects what the cluster's pods say."""
    return [*_of_pods(cluster, here), *_of_disks(cluster, here), *_of_others(cluster, here)]


def _alert(name: str, check: str, wait: str, grade: str, text: str) -> Object:
    return {
        "alert": name,
        "expr": check,
        "for": wait,
        "labels": {"severity": grade},
        "annotations": {"summary": text},
    }


def _of_pods(cluster: str, here: str) -> list[Object]:
    moving = f"max(s4_positions_moving{{{here}}})"  # as planned: nothing is missing meanwhile, and one reason says so
    return [
        _alert(
            "S4NodeDown",
            f"up{{{here}}} == 0",
            "5m",
            "critical",
            f"{POD} of {cluster} does not answer Prometheus: it is down, or networkPolicy.adminFrom does not name "
            "Prometheus.",
        ),
        _alert(
            "S4NotSeen",
            f"absent(up{{{here}}})",
            "5m",
            "critical",
            f"Prometheus finds no pod of {cluster}: none is there, or the Services do not name any.",
        ),
        _alert(
            "S4StoreAway",
            f"max(s4_stores{{{here}}} - s4_stores_up{{{here}}}) > 0",
            "5m",
            "warning",
            f"Stores of {cluster} do not answer the others: {{{{ $value }}}}. `s4 admin cluster status` names them.",
        ),
        _alert(
            "S4NotWell",
            f"max(s4_health{{{here}}}) >= 2",
            "5m",
            "critical",
            f"{cluster} is at risk or down: `s4 admin cluster status` says why.",
        ),
        _alert(
            "S4Degraded",
            f"max(s4_health{{{here}}}) >= 1 unless (max(s4_alarms{{{here}}}) == 1 and {moving} > 0)",
            "30m",
            "warning",
            f"{cluster} is not whole for half an hour: `s4 admin cluster status` says why.",
        ),
        _alert(
            "S4MovesStand",
            f"{moving} > 0 and max(changes(s4_positions_moving{{{here}}}[1h])) == 0",
            "6h",
            "warning",
            f"What {cluster} moves to where the plan wants it has not come further for hours: is it frozen "
            "(s4_frozen), or bounded (rebuild.bandwidthPerNode), or are stores full?",
        ),
        _alert(
            "S4HealQueue",
            f"sum(s4_partition_heal{{{here}}}) > 0",
            "30m",
            "warning",
            f"Shards of {cluster} wait to be made again for half an hour.",
        ),
    ]


def _of_disks(cluster: str, here: str) -> list[Object]:
    filled = f"s4_disk_free_bytes{{{here}}} / s4_disk_bytes{{{here}}}"
    return [
        _alert(
            "S4SlowDrive",
            f"s4_drive_slow{{{here}}} > 0",
            "5m",
            "warning",
            f"The disk of {POD} of {cluster} is slow.",
        ),
        _alert(
            "S4FailingDrive",
            f"s4_drive_failing{{{here}}} > 0",
            "1m",
            "warning",
            f"The disk of {POD} of {cluster} fails to read many places: drain or replace it.",
        ),
        _alert(
            "S4CapacityLow",
            f"{filled} < 0.15",
            "10m",
            "warning",
            f"The store of {POD} of {cluster} is 85 % full: the condition CapacityLow says what to add.",
        ),
        _alert(
            "S4DiskFull",
            f"{filled} < 0.1 or s4_accepts_writes{{{here}}} == 0",
            "10m",
            "critical",
            f"The store of {POD} of {cluster} is 90 % full, or has reached its reserve and takes nothing more: "
            "add nodes now, or delete.",
        ),
    ]


def _of_others(cluster: str, here: str) -> list[Object]:
    """Of what S4 needs others for: receivers of events, and whoever renews certificates."""
    events = "sum by (receiver) ({}) > 0".format
    waiting = events(f"s4_events_waiting{{{here}}}")
    sent, failed = (events(f"increase(s4_events_{what}_total{{{here}}}[10m])") for what in ("sent", "failed"))
    begins, ends = (f"s4_certificate_{what}_timestamp_seconds{{{here}}}" for what in ("begins", "ends"))
    return [
        _alert(
            "S4EventsWaiting",
            f"{waiting} unless ({sent} unless {failed})",
            "15m",
            "warning",
            f"Events of {cluster} wait, and the receiver {{{{ $labels.receiver }}}} does not take them.",
        ),
        _alert(
            "S4CertificateEnds",
            f"({ends} - time() < 14 * 86400) and ({ends} - time() < 0.2 * ({ends} - {begins}))",
            "1h",
            "critical",
            f"The certificate for {{{{ $labels.certificate }}}} of {POD} of {cluster} ends in "
            "{{ $value | humanizeDuration }}, and should have been renewed.",
        ),
    ]

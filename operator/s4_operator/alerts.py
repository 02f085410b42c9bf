"""The alerts of a cluster, for Prometheus."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def alerts(cluster: str, here: str) -> list[Object]:
    """Rules of Prometheus; `here` selects what the cluster's nodes say."""
    listed = (
        ("S4NodeDown", f"up{{{here}}} == 0", "5m", "critical", "A node of {cluster} does not answer."),
        (
            "S4NotWell",
            f"max(s4_health{{{here}}}) >= 2",
            "5m",
            "critical",
            "{cluster} is at risk or down: `s4 admin cluster status` says why.",
        ),
        ("S4SlowDrive", f"max(s4_drive_slow{{{here}}}) > 0", "5m", "warning", "A disk of {cluster} is slow."),
        (
            "S4FailingDrive",
            f"max(s4_drive_failing{{{here}}}) > 0",
            "1m",
            "warning",
            "A disk of {cluster} fails to read many places: drain or replace it.",
        ),
        (
            "S4HealQueue",
            f"sum(s4_partition_heal{{{here}}}) > 0",
            "30m",
            "warning",
            "Shards of {cluster} wait to be made again for half an hour.",
        ),
        (
            "S4CapacityLow",
            f"s4_disk_free_bytes{{{here}}} / s4_disk_bytes{{{here}}} < 0.15",
            "10m",
            "warning",
            "A store of {cluster} is 85 % full: the condition CapacityLow says what to add.",
        ),
        (
            "S4DiskFull",
            f"s4_disk_free_bytes{{{here}}} / s4_disk_bytes{{{here}}} < 0.1",
            "10m",
            "critical",
            "A store of {cluster} is 90 % full, and takes nothing more once its reserve is reached: add nodes now, or delete.",
        ),
    )
    return [
        {
            "alert": name,
            "expr": check,
            "for": wait,
            "labels": {"severity": grade},
            "annotations": {"summary": text.format(cluster=cluster)},
        }
        for name, check, wait, grade, text in listed
    ]

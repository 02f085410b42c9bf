"""What the operator and the chart give Prometheus, read by promtool; and what takes too long to be waited for, with
series that are written down: how long events may wait, and when a certificate is late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.test_chart import needs_helm, rendered
from monitoring.watching import CLUSTER, NAMESPACE, Object, promtool, rules

DAY = 86400
LABELS = f'namespace="{NAMESPACE}",service="{CLUSTER}-nodes",pod="n1"'


def of_the_chart() -> Object:
    (found,) = (one for one in rendered("--set", "serviceMonitor.enabled=true") if one["kind"] == "PrometheusRule")
    spec: Object = found["spec"]
    return spec


@pytest.mark.parametrize("made", [rules, pytest.param(of_the_chart, marks=needs_helm)])
def test_rules_are_read(tmp_path: Path, made: Callable[[], Object]) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(made()))
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(made()['groups'][0]['rules'])} rules found" in done.stdout


def judged(
    tmp_path: Path, series: dict[str, str], at: str, alert: str, wanted: list[Object], made: Object | None = None
) -> None:
    """That the rules as they are, unhurried, say `wanted` (labels) of an alert at a time, for series of a minute a
    step from 1970 on."""
    (rule,) = (one for group in (made or rules())["groups"] for one in group["rules"] if one["alert"] == alert)
    del rule["annotations"]  # whose words are none of this
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "s4", "rules": [rule]}]}))
    expected: list[Any] = [{"exp_labels": {**one, **rule["labels"]}} for one in wanted]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [test]}))
    done = promtool("test", "rules", tmp_path / "test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("waiting", "sent", "failed", "fires"),
    [
        ("7x30", "0+60x30", "0x30", False),  # always some on their way
        ("7x30", "100x30", "0+2x30", True),  # nobody takes them
        ("7x30", "100x30", "0x30", True),  # a receiver that hangs
        ("7x30", "0+60x30", "0+2x30", True),  # one event that is never taken, while others are
        ("0x30", "0+60x30", "0+2x30", False),  # a receiver that is asked twice
    ],
)
def test_how_long_events_may_wait(tmp_path: Path, waiting: str, sent: str, failed: str, fires: bool) -> None:
    of = f'{{{LABELS},receiver="r"}}'
    series = {
        f"s4_events_waiting{of}": waiting,
        f"s4_events_sent_total{of}": sent,
        f"s4_events_failed_total{of}": failed,
    }
    judged(tmp_path, series, "10m", "S4EventsWaiting", [])
    judged(tmp_path, series, "25m", "S4EventsWaiting", [{"receiver": "r"}] if fires else [])


@pytest.mark.parametrize(
    ("health", "alarms", "moving", "degraded", "stands"),
    [
        ("0x600", "0x600", "0x600", False, False),
        ("1x600", "1x600", "900-1x600", False, False),  # it grows
        ("1x600", "2x600", "900-1x600", True, False),  # and a store is away
        ("1x600", "1x600", "0x600", True, False),  # what a lost store held is made again
        ("1x600", "1x600", "9x600", False, True),
    ],
)
def test_planned_moves_are_told_once_they_stand(
    tmp_path: Path, health: str, alarms: str, moving: str, degraded: bool, stands: bool
) -> None:
    said = {"s4_health": health, "s4_alarms": alarms, "s4_positions_moving": moving}
    series = {f"{name}{{{LABELS}}}": values for name, values in said.items()}
    judged(tmp_path, series, "9h", "S4Degraded", [{}] if degraded else [])
    judged(tmp_path, series, "9h", "S4MovesStand", [{}] if stands else [])


@pytest.mark.parametrize(
    ("lasts", "left", "fires"),
    [
        (90 * DAY, 30 * DAY, False),  # when the operator renews its own
        (90 * DAY, 15 * DAY, False),
        (90 * DAY, 13 * DAY, True),
        (3650 * DAY, 30 * DAY, False),  # one's own
        (3650 * DAY, 13 * DAY, True),
        (DAY, DAY // 3, False),  # a chart with certificates.validSeconds of a day
        (DAY, DAY // 8, True),
    ],
)
def test_when_a_certificate_is_late(tmp_path: Path, lasts: int, left: int, fires: bool) -> None:
    """Two hours after 1970 began, so much is left of it."""
    ends = 7200 + left
    of = f'{{{LABELS},certificate="S3"}}'
    series = {
        f"s4_certificate_begins_timestamp_seconds{of}": f"{ends - lasts}x130",
        f"s4_certificate_ends_timestamp_seconds{of}": f"{ends}x130",
    }
    found = {"namespace": NAMESPACE, "service": f"{CLUSTER}-nodes", "pod": "n1", "certificate": "S3"}
    judged(tmp_path, series, "2h", "S4CertificateEnds", [found] if fires else [])


UP, FAILURES = (f'{name}{{job="s4/s4-operator",pod="o"}}' for name in ("up", "s4_operator_failures_total"))


@needs_helm
@pytest.mark.parametrize(
    ("alert", "series", "fires"),
    [
        ("S4OperatorDown", {UP: "1x60"}, False),
        ("S4OperatorDown", {UP: "1x30 0x30"}, True),
        ("S4OperatorDown", {UP: "1x30"}, True),  # its pod is gone
        ("S4OperatorDown", {UP: "1x30 0x12 1x18"}, False),  # it was upgraded
        ("S4OperatorFails", {FAILURES: "7x60"}, False),
        ("S4OperatorFails", {FAILURES: "7x20 8x40"}, False),  # once, and it went on
        ("S4OperatorFails", {FAILURES: "7x10 8x9 9x9 10x9 11x9 12x9"}, True),
    ],
)
def test_when_the_operator_is_missed(tmp_path: Path, alert: str, series: dict[str, str], fires: bool) -> None:
    """No daemon shows these: they are about a Deployment that is away, or fails for hours."""
    judged(tmp_path, series, "58m", alert, [{}] if fires else [], of_the_chart())

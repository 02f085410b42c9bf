"""Every panel of the dashboard, asked as Grafana does, after some load: each has something to show."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import pytest
from botocore.exceptions import ClientError

from monitoring.conftest import World
from monitoring.watching import CLUSTER, NAMESPACE, made, metrics, promtool
from process import wait_until


def panels() -> dict[str, list[str]]:
    (text,) = made()["ConfigMap"]["data"].values()
    board = json.loads(text)
    assert (board["title"], len(board["uid"]) <= 40) == (f"S4 {NAMESPACE}/{CLUSTER}", True)
    assert [one["name"] for one in board["templating"]["list"]] == ["source"]
    for panel in board["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
    return {panel["title"]: [one["expr"] for one in panel["targets"]] for panel in board["panels"]}


@pytest.fixture(scope="module")
def loaded(shared: World) -> World:
    """A cluster that has taken, given back, healed and refused something through its gateway."""
    cluster = shared.cluster
    cluster.settled()
    client = cluster.client("gateway-1", attempts=1)
    client.create_bucket(Bucket="shown")
    for number in range(10):
        client.put_object(Bucket="shown", Key=f"k{number}", Body=os.urandom(150_000))
        client.get_object(Bucket="shown", Key=f"k{number}")["Body"].read()
    cluster.ask("PUT", "/buckets/shown/rate", {"requests_per_s": 1})
    refused: list[str] = []

    def is_refused() -> bool:
        try:
            client.head_bucket(Bucket="shown")
            client.list_objects_v2(Bucket="shown")
        except ClientError as error:
            refused.append(error.response["Error"]["Code"])
        return "SlowDown" in refused

    wait_until(is_refused, "too many requests are refused")
    wait_until(lambda: shared.prometheus.query('s4_requests_total{code="SlowDown"}'), "Prometheus knows of them")
    return shared


@pytest.mark.parametrize("title", panels())
def test_a_panel_shows_something(loaded: World, title: str) -> None:
    for expression in panels()[title]:
        assert "$" not in expression, "a variable that nothing replaces"
        assert f'namespace="{NAMESPACE}"' in expression, "another cluster of this name elsewhere is not meant"

        def shown(asked: str = expression) -> list[dict[str, Any]]:
            return [one for one in loaded.prometheus.query(asked) if not math.isnan(float(one["value"][1]))]

        wait_until(shown, f"{expression} has an answer")


def test_requests_at_gateways_are_shown(loaded: World) -> None:
    """All of them came through the gateway."""
    (expression,) = panels()["Requests a second"]
    shown = loaded.prometheus.query(expression)
    assert {"PutObject", "GetObject"} <= {one["metric"]["operation"] for one in shown}


def test_metrics_are_as_they_should_be(loaded: World) -> None:
    """promtool's own judgement of names, kinds and help."""
    for address in loaded.pods.values():
        done = promtool("check", "metrics", given=metrics(address))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

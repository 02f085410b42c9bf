"""A real Prometheus that is told what the operator tells one: the same rules, and targets with the labels that its
ServiceMonitor gives them.

`make prometheus` builds it, and promtool. Two things differ from a cluster's: it asks every second, and what the rules
wait for is shortened, here alone (`hastened`).
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from addresses import free_ports, own_address
from process import wait_until
from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec

PROGRAMS = Path(__file__).parents[2] / ".tools" / "prometheus"
NAMESPACE, CLUSTER = "storage", "photos"
WAIT, WINDOW = "2s", "15s"  # what `for` and ranges are here

Object = dict[str, Any]


def made() -> dict[str, Object]:
    """What the operator makes for monitoring, by kind."""
    return {one["kind"]: one for one in Builder(NAMESPACE, CLUSTER, "uid", ClusterSpec()).monitoring()}


def rules() -> Object:
    """As they come from the operator: what a file of rules holds."""
    spec: Object = made()["PrometheusRule"]["spec"]
    return spec


def names() -> set[str]:
    return {rule["alert"] for group in rules()["groups"] for rule in group["rules"]}


def hastened(asked: Object) -> Object:
    """The same rules that do not wait half an hour."""
    return {
        "groups": [
            {
                **group,
                "rules": [
                    {**rule, "for": WAIT, "expr": re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", rule["expr"])}
                    for rule in group["rules"]
                ],
            }
            for group in asked["groups"]
        ]
    }


def promtool(*words: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAMS / "promtool"), *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def metrics(address: str) -> str:
    """What an admin port tells, by its URL."""
    with urlopen(f"{address}/metrics", timeout=30) as answer:
        told: bytes = answer.read()
        return told.decode()


class Prometheus:
    """Runs below `directory`. `targets` are the admin addresses of pods by their names; see `see`."""

    def __init__(self, directory: Path, targets: dict[str, str]) -> None:
        directory.mkdir()
        host = own_address()
        (port,) = free_ports(1, host)
        self._address, self._targets = f"{host}:{port}", directory / "targets.json"
        (directory / "rules.yaml").write_text(yaml.safe_dump(hastened(rules())))
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": "s4",
                    "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}],
                    "relabel_configs": [{"source_labels": ["service"], "target_label": "job"}],
                }
            ],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        self.see(targets)
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    PROGRAMS / "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={self._address}",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"Prometheus is ready: {directory / 'log'}")

    def see(self, targets: dict[str, str]) -> None:
        """The pods that there are from now on. A pod of a gateway is named gateway-…, any other is a node."""
        listed = [
            {
                "targets": [address.partition("//")[2]],
                "labels": {
                    "namespace": NAMESPACE,
                    "service": f"{CLUSTER}-{'gateways' if pod.startswith('gateway') else 'nodes'}",
                    "pod": pod,
                    "container": "s4",
                    "endpoint": "admin",
                },
            }
            for pod, address in targets.items()
        ]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(listed))
        new.replace(self._targets)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            with urlopen(f"http://{self._address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _ask(self, path: str, **query: str) -> Any:
        with urlopen(f"http://{self._address}/api/v1/{path}?{urlencode(query)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Object]:
        """The series of an instant query."""
        found: list[Object] = self._ask("query", query=expression)["result"]
        return found

    def alerts(self, state: str = "firing") -> list[Object]:
        return [one for one in self._ask("alerts")["alerts"] if one["state"] == state]

    def fires(self) -> set[str]:
        """The names of alerts that do now."""
        return {one["labels"]["alertname"] for one in self.alerts()}

    def is_quiet(self) -> None:
        """Return once every target was asked, and no alert fires or is about to, by a judgement later than this
        call."""
        asked = time.time()

        def look() -> bool:
            told = [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]
            later = all(_moment(rule["lastEvaluation"]) > asked + 1.0 for rule in told)
            assert all(rule["health"] != "err" for rule in told), told
            return later and len(told) == len(names()) and all(rule["state"] == "inactive" for rule in told)

        wait_until(lambda: all(one["health"] == "up" for one in self._ask("targets")["activeTargets"]), "all are up")
        wait_until(look, "no alert is left", 0.5)

    def until(self, *wanted: str) -> list[Object]:
        """The alerts that fire, once those that are `wanted` do."""
        last: set[str] = set()

        def look() -> bool:
            last.clear()
            last.update(self.fires())
            return last >= set(wanted)

        wait_until(look, f"{wanted} fire", 0.5)
        return self.alerts()


def _moment(text: str) -> float:
    """Seconds since 1970 of Go's RFC 3339, which has nanoseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()

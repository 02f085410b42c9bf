"""Counting in a directory that is full: requests go on, no process ends, and what was counted before is still added
up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from server.test_running import small_disk  # noqa: F401

COUNT = """
import os, sys
from prometheus_client import CollectorRegistry
from s4.http.metrics import RequestMetrics, StoreCollector, exposition

directory = os.environ["PROMETHEUS_MULTIPROC_DIR"]
registry = CollectorRegistry()
if sys.argv[1] == "later":
    metrics = RequestMetrics(registry)
    metrics.observe("GetObject", "OK", 0.1, 10, 20)
    metrics.tell()
with open(directory + "/all", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
if sys.argv[1] == "from the start":
    metrics = RequestMetrics(registry)
for number in range(3000):  # more than fits into what was there
    metrics.observe("GetObject", f"Code{number}", 0.1, 10, 20)
metrics.tell()
os.unlink(directory + "/all")
text = exposition(registry, directory, StoreCollector(lambda: [])).decode()
assert ('s4_requests_total{code="OK",operation="GetObject"} 1.0' in text) == (sys.argv[1] == "later"), text[:2000]
print("done")
"""


@pytest.mark.parametrize("full", ["later", "from the start"])
def test_a_full_directory_ends_nothing(small_disk: Path, full: str) -> None:  # noqa: F811
    done = subprocess.run(
        [sys.executable, "-c", COUNT, full],
        env={"PROMETHEUS_MULTIPROC_DIR": str(small_disk), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]

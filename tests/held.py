"""A pytest plugin: what held the loop of a test's server for more than 100 ms of its processor, printed at the end of
a run.

Servers note it themselves (watching/sitecustomize.py). One that brings a sitecustomize of its own is not watched.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

WATCHING = str(Path(__file__).parent / "watching")
MOST = 25  # lines


class Held:
    """Lives in the process that reports: with workers, in the one that started them."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="held-"))
        os.environ["HELD"] = str(self.directory)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (WATCHING, os.environ.get("PYTHONPATH", ""))))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        found = read(self.directory)
        terminalreporter.section("what held the loop of a server for more than 100 ms of its processor")
        if not found:
            terminalreporter.write_line("  nothing")
        for line in found[:MOST]:
            terminalreporter.write_line(line)
        if len(found) > MOST:
            terminalreporter.write_line(f"  and {len(found) - MOST} places more")

    def pytest_unconfigure(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def read(directory: Path) -> list[str]:
    """A line for each place, the longest first."""
    places: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in directory.iterdir():
        for line in path.read_text().splitlines():
            one = json.loads(line)
            places[" > ".join(one["where"])].append(one)
    lines = []
    for where, held in sorted(places.items(), key=lambda item: -max(one["ms"] for one in item[1])):
        longest = max(held, key=lambda one: one["ms"])
        traced = " (traced for coverage)" if longest["traced"] else ""
        lines.append(
            f"{longest['ms']:7} ms {len(held):5} times  {longest['program']} of {longest['test'].partition(' ')[0]}{traced}: {where}"
        )
    return lines


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Held(), "s4-held")

"""A pytest plugin: what the tests cost, by folder and for the dearest files: minutes, and processor minutes of their
own process, its children, and what these forked for it (`process.loaded`).

A child's time counts where it is waited for; what a server cost that many tests share is in the last one that used it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import process

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
DEAREST = 25


def processor_s() -> float:
    """So far. What is forked from a process that has the program loaded is that one's child, and counts once it has
    ended."""
    times = os.times()
    spent = times.user + times.system + times.children_user + times.children_system
    for pid in process.loaded():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += TICK_S * sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return spent


class Costs:
    """Lives in the process that reports: with workers, in the one that started them."""

    def __init__(self) -> None:
        self.tests, self.wall_s, self.processor_s = Counter[str](), Counter[str](), Counter[str]()
        self.files_s = Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = folder_of(report.nodeid)
        self.wall_s[folder] += report.duration
        self.tests[folder] += report.when == "call"
        if report.when == "teardown":
            spent: Any = dict(report.user_properties).get("processor_s", 0.0)
            self.processor_s[folder] += spent
            self.files_s[report.nodeid.partition("::")[0]] += spent

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("minutes by folder (all workers together)")
        for folder, wall in self.wall_s.most_common():
            terminalreporter.write_line(
                f"{wall / 60:6.1f} min {self.processor_s[folder] / 60:6.1f} of a processor {self.tests[folder]:6} tests  {folder}"
            )
        total, processor = sum(self.wall_s.values()), sum(self.processor_s.values())
        terminalreporter.write_line(
            f"{total / 60:6.1f} min {processor / 60:6.1f} of a processor {sum(self.tests.values()):6} tests"
        )
        terminalreporter.section(f"the {DEAREST} files that cost most of a processor")
        for file, spent in self.files_s.most_common(DEAREST):
            terminalreporter.write_line(f"{spent:7.1f} s  {file}")


def folder_of(nodeid: str) -> str:
    return nodeid.partition("::")[0].rpartition("/")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[STARTED] = processor_s()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        item.user_properties.append(("processor_s", processor_s() - item.stash[STARTED]))


STARTED = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Costs(), "s4-costs")

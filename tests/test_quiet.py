"""No line more than once a minute for one fact, with a count; a start names what looks like a setting and is none."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest

from s4.cli import main as cli
from s4.server import starting
from s4.telemetry.quiet import AGAIN_S, OF_A_KIND, Quiet


class Log:
    """What a handler with the filter writes."""

    def __init__(self) -> None:
        self.now, self.lines = 100.0, list[str]()
        self.quiet = Quiet(lambda: self.now)
        self.logger = logging.Logger("s4.test")
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        handler.addFilter(self.quiet)
        self.logger.addHandler(handler)


@pytest.fixture
def log() -> Log:
    return Log()


def test_one_fact_has_one_line_a_minute_with_a_count(log: Log) -> None:
    for _ in range(481):  # eight a second, for more than a minute
        log.logger.warning("%s was refused", "node-3")
        log.now += 1 / 8
    assert log.lines == ["node-3 was refused", "node-3 was refused [479 times more in the minute before]"]


def test_another_fact_is_not_held_back(log: Log) -> None:
    for name in ("node-1", "node-2", "node-1"):
        log.logger.warning("%s was refused", name)
    assert log.lines == ["node-1 was refused", "node-2 was refused"]


def test_many_facts_of_a_kind_are_bounded(log: Log) -> None:
    for number in range(1000):
        log.logger.error("blob %d cannot be healed", number)
    assert len(log.lines) == OF_A_KIND
    log.logger.error("something else")
    assert log.lines[-1] == "something else"


def test_what_has_ended_is_counted_in_the_end(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(8):
        log.logger.warning("it fails")
    log.quiet.settle()
    assert not caplog.messages
    log.now += AGAIN_S
    log.quiet.settle()
    assert caplog.messages == ["it fails [7 times more within a minute]"]


def test_debug_and_requests_are_left_alone(log: Log) -> None:
    for _ in range(3):
        log.logger.debug("seen")
        log.logger.handle(logging.LogRecord("s4.http", logging.INFO, "", 0, {"event": "request"}, (), None))  # type: ignore[arg-type]
    assert len(log.lines) == 6


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("S4_LISTN", "did you mean S4_LISTEN?"),
        ("S4_DEGRADED", "does nothing"),
        ("S4_ROOT_ACCES_KEY", "did you mean S4_ROOT_ACCESS_KEY?"),
        ("S4_RESERVE", ""),
        ("S4_LIMIT_REQUESTS", ""),
        ("S4_COORDINATOR", ""),
        ("S4_PORT_9000_TCP_ADDR", ""),
        ("S4_SERVICE_HOST", ""),
        ("S4_NODES_SERVICE_PORT_S3", ""),
        ("PATH", ""),
    ],
)
def test_variables_that_are_no_settings_are_named(name: str, said: str) -> None:
    found = starting.unknown({name: "x"}, starting.variables(cli.build_parser()))
    assert [one for one in found if name in one and said in one] if said else not found


def test_variables_of_every_command_are_known() -> None:
    found = starting.variables(cli.build_parser())
    assert {"S4_LISTEN", "S4_WORKERS", "S4_ADVERTISE", "S4_ACCESS_LOG"} <= found
    assert not starting.variables(argparse.ArgumentParser())


def test_files_with_secrets_that_others_may_read_are_named(tmp_path: Path) -> None:
    for name, mode in (("tight", 0o600), ("loose", 0o644), ("of-a-group", 0o640)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    said = starting.loose(tmp_path / name for name in ("tight", "loose", "of-a-group", "none"))
    assert ["loose" in said[0], "of-a-group" in said[1], len(said)] == [True, True, 2]
    assert "chmod 600" in said[0]

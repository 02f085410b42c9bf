"""What a Starter starts is as if its command line had been run."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from process import wait_until
from s4.cli.starter import Starter, has_ended


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    made = Starter()
    yield made
    made.close()


def test_a_command_has_its_own_arguments_output_and_status(starter: Starter, tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        told = starter.start(["server", "--help"], {}, errors)
        refused = starter.start(["server", "x", "--no-such-option"], {}, errors)
        assert b"usage: s4 server" in told.stdout.read()
        assert refused.stdout.read() == b""
        assert (refused.wait(60), told.wait(60)) == (2, 0)
        refused.stdout.close()
        told.stdout.close()
    assert "--no-such-option" in (tmp_path / "errors").read_text()
    assert told.poll() == told.returncode == 0


def test_a_server_is_ended_by_signals_and_its_starter_tells_by_which(starter: Starter, tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        begun = [
            starter.start(
                ["server", str(tmp_path / name), "--admin-listen", "127.0.0.1:0"],
                {**os.environ, "S4_LISTEN": "127.0.0.9:0"},
                errors,
            )
            for name in ("a", "b")
        ]
        for one in begun:
            assert b"S3 at http://127.0.0.9:" in one.stdout.readline()
            assert os.getsid(one.pid) == one.pid
            with pytest.raises(subprocess.TimeoutExpired):
                one.wait(0)
        begun[0].kill()
        begun[1].send_signal(signal.SIGTERM)
        assert [one.wait(60) for one in begun] == [-signal.SIGKILL, 0]
        for one in begun:
            one.stdout.close()


def test_a_signal_to_one_that_has_just_ended_is_none(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a Popen: it is gone, and its starter is about to say so."""
    with (tmp_path / "errors").open("wb") as errors:
        refused = starter.start(["server", "x", "--no-such-option"], {}, errors)
    assert refused.wait(60) == 2
    refused.stdout.close()
    refused.returncode = None
    monkeypatch.setattr(refused, "poll", lambda: None)
    refused.kill()


def test_one_that_has_ended_does_not_run_though_its_starter_has_yet_to_say_so(starter: Starter, tmp_path: Path) -> None:
    """Or `s4 dev start` of a node that just died would do nothing."""
    with (tmp_path / "errors").open("wb") as errors:
        command = ["server", str(tmp_path / "a"), "--listen", "127.0.0.9:0", "--admin-listen", "127.0.0.1:0"]
        server = starter.start(command, dict(os.environ), errors)
    assert b"S3 at http://127.0.0.9:" in server.stdout.readline()
    assert server.poll() is None
    os.kill(starter.pid, signal.SIGSTOP)
    try:
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: has_ended(server.pid), "it has ended")
        with ThreadPoolExecutor(1) as pool:
            said = pool.submit(server.poll)
            os.kill(starter.pid, signal.SIGCONT)
            assert said.result(60) == -signal.SIGKILL
    finally:
        os.kill(starter.pid, signal.SIGCONT)
    server.stdout.close()


def test_a_starter_that_is_gone_is_an_error(tmp_path: Path) -> None:
    made = Starter()
    made.close()
    with (tmp_path / "errors").open("wb") as errors, pytest.raises(OSError):
        made.start(["server", "--help"], {}, errors)


def test_a_starter_of_a_process_with_a_thousand_open_files(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], min(2048, limits[1])), limits[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        made = Starter()
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with (tmp_path / "errors").open("wb") as errors:
        begun = made.start(["--version"], {}, errors)
        assert begun.stdout.read().startswith(b"s4 ")
        begun.stdout.close()
        assert begun.wait(60) == 0
    made.close()

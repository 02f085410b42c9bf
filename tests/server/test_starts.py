"""What a start, a SIGHUP and a misspelt setting say in the log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from process import ServerProcess, wait_until
from s4.crypto.authority import Authority


def events(server: ServerProcess, word: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [one for one in found if word in one["event"]]


def test_a_start_and_a_reload_say_what_they_did(own_server: Any) -> None:
    server: ServerProcess = own_server(
        "--log-format",
        "json",
        "--dedup",
        "off",
        environment={"S4_INLIN": "1KiB", "S4_STRICT": "off", "S4_ROOT_ACCESS_KEY": "", "S4_ROOT_SECRET_KEY": ""},
    )
    (started,) = events(server, "server started")
    assert started["settings"]["dedup"] is False
    assert started["settings"]["reserve_bytes"] == 64 << 20
    assert "volume_bytes" not in started["settings"], "what is as by default is not said"
    assert [one["event"] for one in events(server, "S4_")] == ["S4_INLIN is no setting; did you mean S4_INLINE?"]
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    (said,) = wait_until(lambda: events(server, "SIGHUP"), "what SIGHUP did")
    assert (said["read_again"], said["unchanged"]) == ([], [])
    server.kill()
    (server.directory / "root.json").chmod(0o644)
    server.start()
    wait_until(lambda: events(server, "holds secrets and can be read by others"), "a loose mode is warned of")


def test_a_process_that_waits_for_its_cluster_lives_through_a_reload(tmp_path: Path) -> None:
    """All that a SIGHUP has read again is read once the cluster is there."""
    authority, certificate, key = Authority(tmp_path).issue("gateway-1")
    log = tmp_path / "log"
    words = [
        "gateway",
        "--coordinator",
        "etcd://127.0.0.1:1/none",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]
    trust = ["--authority", str(authority), "--peer-certificate", str(certificate), "--peer-key", str(key)]
    environment = {**os.environ, "S4_ROOT_ACCESS_KEY": "a", "S4_ROOT_SECRET_KEY": "s"}
    with (
        log.open("w") as said,
        subprocess.Popen([sys.executable, "-m", "s4.cli", *words, *trust], stderr=said, env=environment) as process,
    ):
        try:
            wait_until(lambda: "waiting for the cluster" in log.read_text(), "it waits")
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0
        finally:
            process.kill()


def test_a_thread_that_writes_does_not_wait_for_the_loop() -> None:
    """The loop kept the interpreter for 5 ms from the writer's thread, three times for each turn: beside a flood of
    reads, which nobody has to wait for, a write took five times as long."""
    code = (
        "import asyncio, sys\n"
        "from s4.server.parts import ServerSettings, prepare_process\n"
        "async def main(): prepare_process(ServerSettings(directories=[]))\n"
        "asyncio.run(main())\n"
        "print(sys.getswitchinterval())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert float(said.split()[-1]) <= 0.001

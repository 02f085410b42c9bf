"""What a start, a SIGHUP and a misspelt setting say in the log."""

from __future__ import annotations

import json
import signal
from typing import Any

from process import ServerProcess, wait_until


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

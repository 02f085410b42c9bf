"""What a server keeps among the temporary files ends with it, or with the next that starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_a_killed_servers_metrics_are_removed_by_the_next(own_server: Any, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def left() -> set[str]:
        return {path.name for path in temporary.iterdir()}

    server, other = (
        own_server("--workers", "1", name=name, environment={"TMPDIR": str(temporary)}) for name in ("killed", "other")
    )
    running = left()
    assert len(running) == 2
    server.kill()
    assert left() == running
    server.start()
    assert len(left()) == 2
    assert len(left() & running) == 1, "the one that runs keeps its own, the other has a new one"
    assert server.stop() == 0
    assert other.stop() == 0
    assert left() == set()

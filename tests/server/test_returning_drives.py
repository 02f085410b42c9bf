"""A drive that is away comes back without anybody starting the server: mounted again, told to, or replaced by an empty
one."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any

from process import ServerProcess, wait_until
from s4.cli.admin_client import AdminError
from server.test_drives import compare, fill, state, status
from server.test_drives import whole as is_whole

SIZES = [100, 9500, 70_000, 300_000, *[9000] * 60]  # some for each partition


def whole(server: ServerProcess) -> bool:
    try:
        return is_whole(server)
    except AdminError:
        return False


def test_drives_come_back_by_themselves_and_when_told(own_server: Any, client: Any) -> None:
    server: ServerProcess = own_server("--limit", "look_s=0.2", drives=4)
    s3 = client(server.endpoint, retries={"max_attempts": 8, "mode": "standard"})
    bodies = fill(s3, "back", SIZES)
    third, aside = server.directories[2], server.directory / "aside"
    server.kill()
    third.rename(aside)
    server.start()
    assert server.process is not None
    process = server.process.pid
    wait_until(lambda: state(server, 3) == "away", "the drive is away")
    assert server.admin_cli("status", check=False).returncode == 4
    s3.put_object(Bucket="back", Key="meanwhile", Body=b"m" * 50_000)
    bodies["meanwhile"] = b"m" * 50_000

    aside.rename(third)  # mounted again: nobody says anything
    wait_until(lambda: whole(server), "it is back, and has what it lacked")
    compare(s3, "back", bodies)

    assert "it is put aside" in server.admin_cli("drives", "replace", str(third)).stdout
    wait_until(lambda: state(server, 3) == "away", "it is put aside")
    s3.put_object(Bucket="back", Key="later", Body=b"l" * 50_000)
    bodies["later"] = b"l" * 50_000
    assert "it is taken in" in server.admin_cli("drives", "retry", "3").stdout
    wait_until(lambda: whole(server), "told to, it is taken in with what it has")

    server.admin_cli("drives", "replace", "3")
    wait_until(lambda: state(server, 3) == "away", "it is put aside again")
    store = status(server)["drives"][2]["store"]
    shutil.rmtree(third)
    third.mkdir()  # another disk, mounted in its place
    wait_until(lambda: whole(server) and status(server)["drives"][2]["store"] != store, "an empty one is filled")
    compare(s3, "back", bodies)
    made = int(re.findall(r"is filled: (\d+) bytes made", server.log.read_text())[-1])
    assert made >= sum(len(body) // 2 for body in set(bodies.values()) if len(body) > 8192), "each is counted"
    assert server.process.pid == process
    assert os.path.exists(f"/proc/{process}")  # noqa: PTH110 - it never ended
    done = server.admin_cli("drives", "retry", "9", check=False)
    assert "there is no drive 9" in done.stderr
    assert "is there" in server.admin_cli("drives", "retry", "1", check=False).stderr

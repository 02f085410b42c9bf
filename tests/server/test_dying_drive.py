"""A drive of a running server dies: system calls on its files fail, through strace, under load.

The server ends what is in doubt, starts again by itself on the same port, leaves the drive out when it fails
again, and goes on; nothing that was acknowledged is lost. Mended, the drive is filled again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from process import ServerProcess, injected, needs_strace, wait_until
from s4.base.said import FAILED
from server.test_drives import compare, status, whole

pytestmark = needs_strace


class Load:
    """Puts and reads back, through failures, until told to stop. `kept` is what was acknowledged."""

    def __init__(self, make: Any) -> None:
        self.kept: dict[str, bytes] = {}
        self.maybe: set[str] = set()
        self.wrong: list[str] = []
        self._make, self._stop = make, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        s3, number = self._make(), 0
        while not self._stop.is_set():
            number += 1
            key, body = f"n{number % 40}", os.urandom((300, 9_000, 150_000)[number % 3])
            try:
                s3.put_object(Bucket="dying", Key=key, Body=body)
                self.kept[key] = body
                self.maybe.discard(key)
            except Exception:
                self.maybe.add(key)  # old or new: not known until the next one succeeds
            look = f"n{(number * 7) % 40}"
            if look in self.kept and look not in self.maybe:
                try:
                    found = s3.get_object(Bucket="dying", Key=look)["Body"].read()
                except Exception:
                    continue
                if found != self.kept[look]:
                    self.wrong.append(look)


def files_of(drive: Path) -> list[str]:
    return [str(path) for path in drive.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("calls", "fault"),
    [
        ("fdatasync", "error=EIO:when=1+"),
        ("pwritev,pwritev2", "error=EIO:when=2+"),
        ("write", "error=EIO:when=3+"),
        ("fdatasync,fsync", "error=ENOSPC:when=1+"),
        ("write", "error=ENOSPC:when=2+"),
    ],
)
def test_a_drive_dies_under_load(own_server: Any, client: Any, calls: str, fault: str) -> None:
    server: ServerProcess = own_server(drives=6)
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="dying")
    with Load(lambda: client(server.endpoint, read_timeout=5)) as load:
        wait_until(lambda: len(load.kept) >= 10, "load")
        assert server.process is not None
        paths = [option for path in files_of(server.directories[1]) for option in ("-P", path)]
        with injected(server, calls, fault, *paths):
            wait_until(lambda: "durability is in doubt" in server.log.read_text(), "noticed")
        count = sum(map(len, load.kept.values()))
        wait_until(lambda: sum(map(len, load.kept.values())) != count, "writes after the failure")
    assert server.process.poll() is None
    assert "Traceback" not in server.log.read_text()  # a disk's fault is told in a line
    assert not load.wrong
    sure = {key: body for key, body in load.kept.items() if key not in load.maybe}
    compare(s3, "dying", sure)
    server.stop()
    server.start()
    wait_until(lambda: whole(server), "filled again")
    compare(s3, "dying", sure)
    assert server.admin_cli("audit", "--age", "0").returncode == 0
    assert server.admin_cli("verify", "--deep").returncode == 0


def test_a_drive_that_fails_twice_is_left_out(own_server: Any, client: Any) -> None:
    server: ServerProcess = own_server(drives=6)
    s3 = client(server.endpoint, read_timeout=10, retries={"max_attempts": 0})
    s3.create_bucket(Bucket="dying")
    s3.put_object(
        Bucket="dying", Key="first", Body=os.urandom(50_000)
    )  # each drive has its volume now, which is to fail
    for _ in range(2):
        assert server.process is not None
        number = server.log.read_text().count("starting again")
        with injected(
            server,
            "fdatasync,pwritev,pwritev2",
            "error=EIO:when=1+",
            *(option for path in files_of(server.directories[4]) for option in ("-P", path)),
        ):
            for attempt in range(100):
                with contextlib.suppress(Exception):  # it is what is waited for
                    s3.put_object(Bucket="dying", Key=f"{attempt}", Body=os.urandom(50_000))
                if server.log.read_text().count("starting again") > number:
                    break
        wait_until(lambda: _answers(server), "up again")
    found = status(server)["drives"][4]
    assert (found["state"], "failed while the server ran" in found["reason"]) == ("away", True)
    s3.put_object(Bucket="dying", Key="after", Body=b"x" * 100_000)
    compare(s3, "dying", {"after": b"x" * 100_000})
    server.stop()
    server.start()  # whoever starts it anew says that the drive was mended
    wait_until(lambda: whole(server), "filled again")


def _answers(server: ServerProcess) -> bool:
    done: subprocess.CompletedProcess[str] = server.admin_cli("status", check=False)
    return done.returncode != FAILED  # the drive that is away has an exit status of its own

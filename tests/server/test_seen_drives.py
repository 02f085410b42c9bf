"""A slow, a full, an emptied and a missing drive, and what says so: `s4 admin status` and its exit status, `drives`,
/readyz, metrics.

One server over four drives of which one is a small tmpfs (where the test may mount one), with looks that come often.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from process import ServerProcess, ended, injected, make_client, needs_strace, small_disk, wait_until
from s4.cli.admin_client import AdminError

SOON = ("--reserve", "16MiB", "--limit", "look_s=0.2", "--limit", "slow_drive_s=0.5")


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("seen") / "data", *SOON, "--preallocate", "1MiB", drives=4)
    with small_disk(server.directories[3], "192m", needed=False), ended(server):
        yield server.start()
        assert server.stop() == 0


@pytest.fixture
def s3(drives: ServerProcess) -> Iterator[Any]:
    client = make_client(drives.endpoint)
    if "seen" not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket="seen")
    yield client
    client.close()


def got(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        found: str = answer.read().decode()
        return found


def metric(server: ServerProcess, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", got(f"{server.admin}/metrics"), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def seen(server: ServerProcess, level: str, number: int, word: str, code: int) -> None:
    """Wait until all that tells of health tells this, in the same words: each looks at a time of its own."""
    wait_until(
        lambda: any(word in reason for reason in server.ask("GET", "/status")["reasons"]), f"the status says {word}"
    )

    def told() -> subprocess.CompletedProcess[str] | None:
        said: subprocess.CompletedProcess[str] = server.admin_cli("status", check=False)
        return (
            said if said.stdout.splitlines()[0].split()[1:] == level.upper().split() and word in said.stdout else None
        )

    assert wait_until(told, f"status begins with {level}, and says {word}").returncode == code
    wait_until(
        lambda: (said := got(f"{server.admin}/readyz")).startswith(f"ready, {level}") and word in said,
        f"/readyz says {level}: {word}",
    )
    wait_until(lambda: got(f"{server.endpoint}/readyz") == f"{level}\n", "a word for strangers, and no names")
    wait_until(lambda: metric(server, "s4_health") == number and metric(server, "s4_alarms") >= 1, "the metrics say it")


def well(server: ServerProcess) -> None:
    """Once it is: a server that takes a drive in starts again for it, and answers nobody meanwhile."""

    def health() -> str:
        with contextlib.suppress(AdminError):
            return str(server.ask("GET", "/status")["health"])
        return ""

    wait_until(lambda: health() == "ok", "all is well")
    wait_until(lambda: got(f"{server.admin}/readyz") == "ready\n", "and told so")
    said = server.admin_cli("status")
    assert said.stdout.splitlines()[0].split() == ["health", "ok"]
    assert metric(server, "s4_health") == 0


def test_a_server_that_is_well_says_so(drives: ServerProcess) -> None:
    well(drives)
    found = drives.ask("GET", "/status")
    assert found["storable_bytes"] == metric(drives, "s4_storable_bytes") or found["storable_bytes"] > 0
    if drives.directories[3].is_mount():
        assert found["storable_rows_bytes"] > found["storable_bytes"], "the smallest drive has no copy of the metadata"
    assert metric(drives, f's4_drive_up{{drive="{drives.directories[0]}"}}') == 1


@needs_strace
def test_a_slow_drive_is_seen(drives: ServerProcess, s3: Any) -> None:
    slow = drives.directories[1]
    s3.put_object(Bucket="seen", Key="first", Body=os.urandom(200_000))
    paths = [option for path in slow.rglob("*") if path.is_file() for option in ("-P", str(path))]
    with injected(drives, "fdatasync", "delay_enter=600000", *paths):
        for number in range(8):
            s3.put_object(Bucket="seen", Key=f"slow-{number}", Body=os.urandom(200_000))
        seen(drives, "degraded", 1, f"{slow}, is slow", 4)
        assert metric(drives, f's4_drive_slow{{drive="{slow}"}}') == 1
        assert "is slow" in drives.admin_cli("drives").stdout
        listed = json.loads(drives.admin_cli("--json", "drives").stdout)
        assert listed[1]["milliseconds"]["sync"] > listed[2]["milliseconds"]["sync"]


def test_an_emptied_drive_is_seen(drives: ServerProcess) -> None:
    """Its files are open and go on working: nothing but a look tells."""
    directory = drives.directories[2]
    (directory / "s4.json").rename(directory / "hidden")
    try:
        seen(drives, "degraded", 1, f"{directory}, has lost its files: s4.json is gone", 4)
    finally:
        (directory / "hidden").rename(directory / "s4.json")
    wait_until(lambda: "lost its files" not in drives.admin_cli("status", check=False).stdout, "it is there again")


def test_a_full_drive_is_seen_and_restarts_nobody(drives: ServerProcess, s3: Any) -> None:
    small = drives.directories[3]
    if not small.is_mount():
        pytest.skip("a tmpfs cannot be mounted here")
    assert drives.process is not None
    process, before = drives.process.pid, drives.ask("GET", "/status")["storable_bytes"]
    assert before < 2 * (192 << 20), "of the smallest drive, not of the first one"
    filler = small / "somebody-elses"
    filler.write_bytes(bytes(shutil.disk_usage(small).free - (8 << 20)))
    try:
        seen(drives, "at risk", 2, f"{small}, is full", 3)
        assert drives.ask("GET", "/status")["storable_bytes"] == 0
        with pytest.raises(s3.exceptions.ClientError, match="StorageFull"):
            s3.put_object(Bucket="seen", Key="refused", Body=os.urandom(100_000))
        assert len(s3.get_object(Bucket="seen", Key="first")["Body"].read()) == 200_000
    finally:
        filler.unlink()
    wait_until(lambda: "is full" not in drives.admin_cli("status", check=False).stdout, "freed")
    s3.put_object(Bucket="seen", Key="taken", Body=os.urandom(100_000))
    assert drives.process.pid == process
    assert "starting again" not in drives.log.read_text()


def test_a_drive_without_a_free_byte_at_a_start_comes_back_once_it_is_freed(drives: ServerProcess, s3: Any) -> None:
    """Whether a start goes on with it or without it, it says so; and nobody has to start it again."""
    small = drives.directories[3]
    if not small.is_mount():
        pytest.skip("a tmpfs cannot be mounted here")
    well(drives)
    assert drives.stop() == 0
    filler = small / "somebody-elses"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    drives.start()
    assert drives.process is not None
    process = drives.process.pid
    try:
        wait_until(
            lambda: any(f"{small}, is" in reason for reason in drives.ask("GET", "/status")["reasons"]),
            "it is full, or away",
        )
    finally:
        filler.unlink()
    well(drives)
    s3.put_object(Bucket="seen", Key="after", Body=os.urandom(100_000))
    assert metric(drives, f's4_drive_up{{drive="{small}"}}') == 1
    assert drives.process.pid == process
    assert not list(small.glob("index.damaged-*")), "a full disk is no damaged one"


def test_a_drive_that_hangs_is_seen(drives: ServerProcess) -> None:
    """Who looked at it waited, and health kept the last word that it had."""
    well(drives)
    directory = drives.directories[2]
    (directory / "s4.json").rename(directory / "hidden")
    os.mkfifo(directory / "s4.json")  # who reads it waits for somebody who writes
    try:
        seen(drives, "degraded", 1, f"{directory}, is slow: a read has not ended", 4)
    finally:
        with (directory / "s4.json").open("wb"):
            (directory / "hidden").rename(directory / "s4.json")
    well(drives)

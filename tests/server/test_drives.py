"""A server over six drives: drives away, replaced, mixed up; damage under load, and what is beyond repair."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import damage
from process import ServerProcess, wait_until
from s4.base.clock import boot_clock
from s4.cli.admin_client import AdminError
from s4.cluster.coordinator import LocalCoordinator
from s4.storage.files import Files
from s4.storage.records import BLOCK

SIZES = [0, 100, 4095, 4096, 4097, 65_536, 65_537, BLOCK * 4 + 1, 1 << 20, (1 << 20) + 1, 3_333_333]


@pytest.fixture
def six(own_server: Any) -> Callable[..., ServerProcess]:
    def make(*options: str, name: str = "data", drives: int = 6, **more: Any) -> ServerProcess:
        server: ServerProcess = own_server(*options, name=name, drives=drives, **more)
        return server

    return make


def fill(s3: Any, bucket: str, sizes: list[int], prefix: str = "") -> dict[str, bytes]:
    s3.create_bucket(Bucket=bucket)
    bodies = {f"{prefix}{number}-{size}": os.urandom(size) for number, size in enumerate(sizes)}
    for key, body in bodies.items():
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    return bodies


def compare(s3: Any, bucket: str, bodies: dict[str, bytes]) -> None:
    for key, body in bodies.items():
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body, key
        if len(body) > 10:
            first, last = len(body) // 3, len(body) * 2 // 3
            answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={first}-{last}")
            assert answer["Body"].read() == body[first : last + 1], key


def status(server: ServerProcess) -> dict[str, Any]:
    found: dict[str, Any] = server.ask("GET", "/status")
    return found


def state(server: ServerProcess, number: int) -> str:
    try:
        return str(status(server)["drives"][number - 1]["state"])
    except AdminError:  # cut off: it replaces itself just now
        return ""


def whole(server: ServerProcess) -> bool:
    found = status(server)
    return (
        all(drive["state"] == "online" for drive in found["drives"])
        and not found["heal_waiting"]
        and found["metadata_copies"] == found["metadata_copies_wanted"]
    )


@pytest.mark.parametrize(
    "away", [(1, 2), (3,), pytest.param((2, 5), marks=pytest.mark.soak), pytest.param((4, 6), marks=pytest.mark.soak)]
)
def test_drives_go_away_and_come_back(six: Any, client: Any, away: tuple[int, ...]) -> None:
    server = six()
    s3 = client(server.endpoint)
    bodies = fill(s3, "away", SIZES)
    server.kill()
    for number in away:
        server.directories[number - 1].rename(server.directory / f"unplugged-{number}")
    server.start()
    compare(s3, "away", bodies)
    shown = server.admin_cli("drives").stdout
    assert shown.count("does not exist") == len(away)
    if len(away) == 1:  # k+1 shards can be stored: writes go on, and heal later
        later = {f"later-{size}": os.urandom(size) for size in SIZES}
        for key, body in later.items():
            s3.put_object(Bucket="away", Key=key, Body=body)
        s3.delete_object(Bucket="away", Key="0-0")
        del bodies["0-0"]
        compare(s3, "away", later)
        bodies |= later
    else:
        with pytest.raises(ClientError, match="ServiceUnavailable"):
            s3.put_object(Bucket="away", Key="big", Body=os.urandom(100_000))
    server.stop()
    for number in away:
        (server.directory / f"unplugged-{number}").rename(server.directories[number - 1])
    server.start()
    wait_until(lambda: whole(server), "everything filled and healed")
    assert server.admin_cli("audit", "--age", "0").returncode == 0
    assert server.admin_cli("verify", "--deep").returncode == 0
    for others in itertools.islice(
        (set(pair) for pair in itertools.combinations(range(1, 7), 2) if set(pair).isdisjoint(away)), 1
    ):
        server.kill()  # what came back carries its share: do without two others
        for number in others:
            shutil.rmtree(server.directories[number - 1])
        server.start()
        compare(s3, "away", bodies)


def test_replaced_drives_are_filled_under_load(six: Any, client: Any) -> None:
    server = six()
    s3 = client(server.endpoint)
    bodies = fill(s3, "swap", SIZES * 4)
    server.kill()
    for number in (1, 4):
        shutil.rmtree(server.directories[number - 1])
        server.directories[number - 1].mkdir()
    server.start()
    for number in range(20):
        bodies[f"during-{number}"] = os.urandom(number * 9000)
        s3.put_object(Bucket="swap", Key=f"during-{number}", Body=bodies[f"during-{number}"])
    compare(s3, "swap", bodies)
    wait_until(lambda: whole(server), "both filled")
    assert "is filled" in server.log.read_text()
    assert server.admin_cli("verify", "--deep").returncode == 0
    server.kill()
    for number in (2, 3):  # the new ones carry everything, metadata too
        shutil.rmtree(server.directories[number - 1])
    server.start()
    compare(s3, "swap", bodies)


DAMAGES: dict[str, Callable[[list[Path], random.Random], int]] = {
    "flip": lambda drives, chosen: sum(damage.flip(drive, chosen) for drive in drives),
    "headers": lambda drives, chosen: sum(damage.wipe_headers(drive, chosen) for drive in drives),
    "truncate": lambda drives, chosen: sum(damage.truncate(drive, chosen) for drive in drives),
    "delete": lambda drives, chosen: sum(damage.delete(drive, chosen) for drive in drives),
    "misplace": lambda drives, chosen: sum(damage.misplace(drive, chosen) for drive in drives),
    "swap": lambda drives, _: damage.swap(*drives),
}


@pytest.mark.parametrize(
    ("kind", "running"),
    [
        *((kind, True) for kind in DAMAGES),
        ("headers", False),
        ("delete", False),
        *(pytest.param(kind, False, marks=pytest.mark.soak) for kind in DAMAGES if kind not in ("headers", "delete")),
    ],
)
def test_damage_to_two_drives_under_load(six: Any, client: Any, kind: str, running: bool) -> None:
    """Every byte is right while it happens, and afterwards everything is whole, by content."""
    server = six("--volume-size", "2MiB")
    s3 = client(server.endpoint, retries={"max_attempts": 0})
    bodies = fill(s3, "hurt", SIZES * 3)
    chosen = random.Random(kind)
    stop, wrong, written = threading.Event(), [], {}

    def load() -> None:
        own, number = client(server.endpoint), 0
        while not stop.is_set():
            key, body = f"load-{number}", os.urandom(chosen.choice([5000, 200_000, 1_500_000]))
            own.put_object(Bucket="hurt", Key=key, Body=body)
            written[key] = body
            old = f"load-{number // 2}"
            if own.get_object(Bucket="hurt", Key=old)["Body"].read() != written[old]:
                wrong.append(old)
            number += 1
            time.sleep(0.02)  # a load, not all that fits: all of it is compared three times

    if not running:
        server.stop()
    else:
        worker = threading.Thread(target=load)
        worker.start()
        wait_until(lambda: len(written) > 3, "load")
    assert DAMAGES[kind]([server.directories[1], server.directories[4]], chosen) > 0
    if running:
        compare(s3, "hurt", bodies)
        stop.set()
        worker.join()
        assert not wrong
    else:
        server.start()
        compare(s3, "hurt", bodies)
    server.admin_cli("scrub", "--deep", check=False)
    wait_until(lambda: whole(server), "everything healed")
    compare(s3, "hurt", bodies | written)
    if running:  # what was damaged below an open file shows only to a new process
        server.stop()
        server.start()
        compare(s3, "hurt", bodies | written)
    server.admin_cli("scrub", "--deep", check=False)
    wait_until(lambda: whole(server), "everything healed after the restart")
    assert "0 shards missing or damaged" in server.admin_cli("scrub", "--deep").stdout
    assert server.admin_cli("audit", "--age", "0").returncode == 0
    report = server.admin_cli("verify", "--deep", check=False)
    assert report.returncode == 0, report.stdout
    server.kill()
    for number in (1, 3):  # two undamaged drives away: what was healed is needed now
        shutil.rmtree(server.directories[number - 1])
    server.start()
    compare(s3, "hurt", bodies | written)


def test_damage_beyond_parity_is_an_error_for_that_object_alone(six: Any, client: Any) -> None:
    server = six()
    s3 = client(server.endpoint)
    bodies = fill(s3, "lost", [300_000, 300_001, 2_500_000])
    blobs: dict[bytes, list[damage.Place]] = {}
    for drive in server.directories:
        for place in damage.places(drive):
            blobs.setdefault(place.record.shard.blob, []).append(place)
    small = [group for group in blobs.values() if len(group) == 6]
    assert len(small) == 2
    for place in small[0][:3]:
        place.flip(random.Random(1))
    failed = []
    for key, body in bodies.items():
        try:
            assert s3.get_object(Bucket="lost", Key=key)["Body"].read() == body
        except ClientError as error:
            assert error.response["Error"]["Code"] == "InternalError"
            assert "damaged" in error.response["Error"]["Message"]
            failed.append(key)
    assert len(failed) == 1
    wait_until(lambda: status(server)["heal_failed"] > 0, "said in the status")
    assert "CANNOT BE MADE" in server.admin_cli("status", check=False).stdout
    assert server.admin_cli("verify", "--read", check=False).returncode == 3
    s3.delete_object(Bucket="lost", Key=failed[0])
    wait_until(lambda: whole(server), "forgotten with the object")


def test_strict_refuses_what_not_every_drive_can_take(six: Any, client: Any) -> None:
    server = six("--strict", "on")
    s3 = client(server.endpoint)
    bodies = fill(s3, "strict", [100, 100_000])
    server.kill()
    shutil.rmtree(server.directories[5])
    server.start()
    compare(s3, "strict", bodies)
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        s3.put_object(Bucket="strict", Key="big", Body=os.urandom(100_000))
    s3.put_object(Bucket="strict", Key="inline", Body=b"x")  # the metadata has all its copies


def start_fails(server: ServerProcess) -> str:
    with pytest.raises(AssertionError, match="did not start"):
        server.start()
    assert server.process is not None
    assert server._wait() == 2
    text: str = server.log.read_text().strip().splitlines()[-1]
    return text


def test_wrong_directories_are_refused_and_change_nothing(six: Any, client: Any, tmp_path: Path) -> None:
    server = six(drives=4)
    other = six(name="other", drives=4)
    s3 = client(server.endpoint)
    bodies = fill(s3, "right", SIZES)
    server.stop()
    other.stop()
    right = server.directories

    def refused(directories: list[Path], *expected: str, options: tuple[str, ...] = ()) -> None:
        server.directories, before = directories, server.options
        server.options = (*before, *options)
        text = start_fails(server)
        for word in expected:
            assert re.search(word, text), text
        server.directories, server.options = right, before

    d1, d2, d3, d4 = right
    refused([d2, d1, d3, d4], "not in their order", f"{d1} {d2} {d3} {d4}")
    refused([d1, d2, d3, d3], "mounted or named twice")
    shutil.copytree(d3, tmp_path / "copy")
    refused([d1, d2, d3, tmp_path / "copy"], "hold the same store")
    refused([d1, d2, d3, other.directories[3]], "belongs to another server")
    refused([d1, d2, d3], "4 directories and 3 are given")
    refused([*right, tmp_path / "d5"], "to have more, start it with those", "Growing")
    assert not (tmp_path / "d5").exists()
    refused([d1, d2, d3, d4], r"made with --erasure 2\+2", options=("--erasure", "3+1"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    refused([d1, d2, d3, tmp_path / "photos"], "not S4's, such as cat.jpg")
    refused(
        [tmp_path / "no1", tmp_path / "no2", d3, d4], "3 of 4 drives are needed to know the newest state", "--degraded"
    )
    d4.rename(tmp_path / "old")
    d4.mkdir()
    server.start()  # d4 is a new drive
    wait_until(lambda: whole(server), "filled")
    compare(s3, "right", bodies)
    server.stop()
    refused([d1, d2, d3, tmp_path / "old"], "replaced by another drive", "Empty it")
    server.start()
    compare(s3, "right", bodies)


def test_degraded_starts_with_half_and_the_rest_catches_up(six: Any, client: Any) -> None:
    server = six(drives=2)
    s3 = client(server.endpoint)
    bodies = fill(s3, "mirror", SIZES)
    server.stop()
    server.directories[0].rename(server.directory / "away")
    assert "--degraded" in start_fails(server)
    server.options = (*server.options, "--degraded")
    server.start()
    compare(s3, "mirror", bodies)
    s3.put_object(Bucket="mirror", Key="more", Body=b"m" * 50_000)
    server.stop()
    server.options = server.options[:-1]
    (server.directory / "away").rename(server.directories[0])
    server.start()
    wait_until(lambda: whole(server), "caught up")
    server.stop()
    shutil.rmtree(server.directories[1])
    server.options = (*server.options, "--degraded")
    server.start()
    compare(s3, "mirror", bodies | {"more": b"m" * 50_000})


def test_a_drive_that_was_put_aside_is_not_all_there_is_once_the_other_fails(six: Any, client: Any) -> None:
    """Half of the drives were enough after any failure: what was written since was gone, and then wiped (M2)."""
    server: ServerProcess = six(drives=2)
    s3, first = client(server.endpoint), str(server.directories[0])
    fill(s3, "mirror", [100, 100_000])
    server.admin_cli("drives", "replace", "2")
    wait_until(lambda: state(server, 2) == "away", "it is put aside")
    bodies = fill(s3, "later", [100, 100_000])
    assert server.process is not None
    environment = Path(f"/proc/{server.process.pid}/environ").read_bytes().split(b"\0")
    left = json.loads(next(one for one in environment if one.startswith(b"S4_FAILURES=")).partition(b"=")[2])
    newest = LocalCoordinator(Files(), server.directories[:1]).newest("map")[1]
    assert 0 < left["map"] < newest, "as of when it was put aside"
    server.stop()
    failed = {"failures": [[boot_clock(), first]] * 2, "map": newest}  # as a process leaves it whose drive fails
    server.environment["S4_FAILURES"] = json.dumps(failed)
    assert "2 of 2 drives are needed to know the newest state" in start_fails(server)
    del server.environment["S4_FAILURES"]
    server.start()
    compare(s3, "later", bodies)


@pytest.mark.parametrize(
    ("drives", "options", "geometry", "may_lose"),
    [
        (2, (), "1+1", 0),
        (3, (), "2+1", 1),
        (5, (), "3+2", 2),
        (4, ("--erasure", "3+0"), "3+0", 0),
        (16, (), "12+4", 4),
        (7, ("--erasure", "4+2"), "4+2", 2),
    ],
)
def test_geometries(six: Any, client: Any, drives: int, options: tuple[str, ...], geometry: str, may_lose: int) -> None:
    server = six(*options, drives=drives)
    s3 = client(server.endpoint)
    bodies = fill(s3, "shape", SIZES)
    compare(s3, "shape", bodies)
    assert status(server)["erasure"] == geometry
    assert server.admin_cli("verify", "--deep").returncode == 0
    server.kill()
    for number in range(may_lose):
        shutil.rmtree(server.directories[number * 2])
    server.start()
    compare(s3, "shape", bodies)


def test_workers_use_all_drives(six: Any, client: Any) -> None:
    server = six("--workers", "2")
    s3 = client(server.endpoint)
    bodies = fill(s3, "work", SIZES)
    server.kill()
    shutil.rmtree(server.directories[2])
    server.start()
    compare(s3, "work", bodies)
    s3.put_object(Bucket="work", Key="later", Body=b"l" * 70_000)
    server.stop()
    server.directories[2].mkdir()
    server.start()
    wait_until(lambda: whole(server), "filled")
    assert server.admin_cli("verify", "--deep").returncode == 0

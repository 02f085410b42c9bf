"""A server gets more drives, gives one up and gets a larger one in its place, while it serves and is killed.

Some seconds of a processor: a server of eight drives starts a dozen times, under a load, and is asked by its commands.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from process import ServerProcess, ended, small_disk, wait_until
from s4.cli.admin_client import AdminError
from tiers import amount

KILLS = amount("S4_GROWING_KILLS", 1, 6)  # for each thing that is asked


class Load(threading.Thread):
    """Writes, and reads what it wrote, until it is stopped. What was not acknowledged is never looked at."""

    def __init__(self, s3: Any) -> None:
        super().__init__(daemon=True)
        self.s3, self.known, self.wrong = s3, dict[str, bytes](), list[str]()
        self._stopped = threading.Event()
        self.answered = 0

    def run(self) -> None:
        chosen, number = random.Random(1), 0
        while not self._stopped.wait(0.01):
            number += 1
            key, body = f"load-{number}", os.urandom(chosen.choice((100, 5000, 70_000, 400_000)))
            try:
                self.s3.put_object(Bucket="grow", Key=key, Body=body)
                self.known[key] = body
                self.read(chosen.choice(list(self.known)))
                self.answered += 1
            except (ClientError, BotoCoreError):
                continue  # it was killed just then

    def read(self, key: str) -> None:
        try:
            if self.s3.get_object(Bucket="grow", Key=key)["Body"].read() != self.known[key]:
                self.wrong.append(key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                self.wrong.append(key)
            raise

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def shown(server: ServerProcess) -> dict[str, Any]:
    """What the server says of itself; nothing is known while it starts again."""
    try:
        return dict(server.ask("GET", "/status"))
    except AdminError:
        return {"drives": [], "heal_waiting": 0}


def settled(server: ServerProcess, count: int, drained: int = 0) -> bool:
    found = shown(server)
    states = [one["state"] for one in found["drives"]]
    return sorted(states) == ["drained"] * drained + ["online"] * (count - drained) and not found["heal_waiting"]


def killed(server: ServerProcess, chosen: random.Random) -> None:
    """End it without a word a few times: as soon as it has answered, then anywhere on its way."""
    for number in range(KILLS):
        if number:
            time.sleep(chosen.random() * 2.0)  # wherever that is
        server.kill()
        server.start()


def asked(server: ServerProcess, *arguments: str, refused: str = "") -> subprocess.CompletedProcess[str]:
    done = server.admin_cli("drives", *arguments, check=not refused)
    assert refused in done.stderr
    return done


def test_six_drives_become_eight_and_a_small_one_is_exchanged(own_server: Any, client: Any) -> None:
    """What is acknowledged is read at all times, though the process is killed (kill -9) after each thing asked."""
    server: ServerProcess = own_server(drives=6)
    chosen = random.Random(7)
    more = [server.directory / f"d{number}" for number in (7, 8)]
    s3 = client(server.endpoint, retries={"max_attempts": 8, "mode": "standard"})
    s3.create_bucket(Bucket="grow")
    load = Load(s3)
    for number in range(40):
        load.known[f"first-{number}"] = os.urandom(20_000 + number)
        s3.put_object(Bucket="grow", Key=f"first-{number}", Body=load.known[f"first-{number}"])
    asked(server, "drain", "2", refused="4+2 needs 6 drives, and 5 would be left: add others first")
    asked(server, "remove", "2", refused="it is in use: `s4 admin drives drain` it first")
    asked(server, "add", str(more[0]), refused="is no directory: mount the drive and make it first")
    asked(server, "add", str(server.directories[0]), refused="is one of this server's drives already")
    asked(server, "drain", "9", refused="there is no drive 9")
    load.start()
    for path in more:
        path.mkdir()
    assert "it is taken in" in asked(server, "add", *map(str, more)).stdout
    killed(server, chosen)  # with the command line of before
    wait_until(lambda: settled(server, 8), "eight have their share")
    assert [one["positions"] for one in shown(server)["drives"]] == [12] * 8
    asked(server, "remove", "2", refused="drain` it first")

    assert "it is drained" in asked(server, "drain", "2").stdout
    killed(server, chosen)
    wait_until(lambda: settled(server, 8, drained=1), "one is empty")
    assert "is no drive of this server any more" in asked(server, "remove", "2").stdout
    killed(server, chosen)
    wait_until(lambda: settled(server, 7), "seven are left")
    asked(server, "add", str(server.directories[1]), refused="what it has is out of date")
    shutil.rmtree(server.directories[1])
    server.directories[1].mkdir()  # a larger one, mounted in its place
    asked(server, "add", str(server.directories[1]))
    wait_until(lambda: settled(server, 8), "the larger one has its share")
    wait_until(lambda: load.answered > 10, "it served meanwhile, and goes on")
    load.stop()
    assert not load.wrong
    for key in load.known:
        load.read(key)
    assert not load.wrong
    assert server.admin_cli("verify", "--deep").returncode == 0
    server.stop()
    for path in server.directories:
        assert json.loads((path / "s4.json").read_text())["oldest"] == "0.8.0"
    log = server.log.read_text()
    assert f"{more[0]} is one of this server's drives: name it where the server is started, too" in log
    server.directories = [*more, *server.directories]  # in any order
    server.start()
    assert settled(server, 8)
    assert server.log.read_text()[len(log) :].count("name it where") == 0
    server.kill()
    for path in (server.directories[2], server.directories[5]):  # what came has its share: do without two others
        shutil.rmtree(path)
    server.start()
    for key in list(load.known)[:60]:
        load.read(key)
    assert not load.wrong


def test_what_cannot_become_a_drive_is_refused_and_changes_nothing(own_server: Any, tmp_path: Path) -> None:
    server: ServerProcess = own_server(drives=2)
    other: ServerProcess = own_server(name="other")
    asked(other, "add", str(tmp_path / "x"), refused="a server over one directory has no parity")
    theirs, foreign, new = other.directory, tmp_path / "foreign", tmp_path / "new"
    for path in (foreign, new):
        path.mkdir()
    (foreign / "photo.jpg").write_bytes(b"x")
    before = {path: (path / "map").read_bytes() for path in server.directories}
    asked(server, "add", str(theirs), refused="is a drive of another server: give an empty directory")
    asked(server, "add", str(foreign), refused="has files that are not S4's, such as photo.jpg")
    asked(server, "add", "new", refused="give the whole path of the directory")
    asked(server, "add", str(new), str(new), refused="is named twice")
    asked(server, "add", refused="say which drive to add")
    asked(server, "drain", "1", refused="1+1 needs 2 drives, and 1 would be left")
    assert {path: (path / "map").read_bytes() for path in server.directories} == before
    assert list(new.iterdir()) == []


def test_a_drive_is_drained_only_where_what_it_holds_has_room(tmp_path: Path, client: Any) -> None:
    """Of five drives the first three have the metadata; the fourth, which would be the next, is small."""
    options = ("--erasure", "2+2", "--inline", "64KiB", "--preallocate", "1MiB", "--reserve", "64MiB")
    server = ServerProcess(tmp_path / "data", *options, drives=5)
    with small_disk(server.directories[3], "80m"), ended(server):
        s3 = client(server.start().endpoint)
        s3.create_bucket(Bucket="rows")
        for number in range(800):  # more than LevelDB keeps in memory before a table is made
            s3.put_object(Bucket="rows", Key=f"{number}", Body=os.urandom(60_000))
        asked(server, "drain", "1", refused="of metadata and small objects are to be copied to drive 4")
        asked(server, "drain", "5")
        wait_until(lambda: settled(server, 5, drained=1), "what it held is on the others")


@pytest.mark.parametrize("given", [2, 4])
def test_a_start_with_other_directories_says_how_to_have_more(own_server: Any, tmp_path: Path, given: int) -> None:
    server: ServerProcess = own_server(drives=3)
    server.stop()
    server.directories = [*server.directories[:2], *(tmp_path / f"n{number}" for number in range(given - 2))]
    said = "s4 admin drives add" if given > 3 else "name all of them in their order"
    with pytest.raises(AssertionError, match=said):
        server.start()

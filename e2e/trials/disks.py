"""An admin of six disks: file systems of their own, in loop devices, that are forgotten, swapped, full, emptied, slow,
dying and dead.

What a disk does is done to the running server's own calls (strace), and to the mounts. Each condition has a minute to
be seen by all that tells of health; a table has the seconds.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.config import Config

from process import injected
from s4.storage.directory import PROBE
from trials.log import Machine, Started, Trial, clean_environment, short
from trials.texts import Texts

KEYS = {"S4_ROOT_ACCESS_KEY": "trialroot", "S4_ROOT_SECRET_KEY": "trialrootsecret"}
MOST_S = 60.0
SIZE = "700M"
LEVELS = ("ok", "degraded", "at risk", "down")


class Disks:
    """disk1 to disk6, and a seventh to exchange one with."""

    def __init__(self, here: Path) -> None:
        self.here = here
        for number in range(1, 8):
            (here / f"disk{number}").mkdir(parents=True)
            self.empty(number)
            if number < 7:
                self.mount(number)

    def image(self, number: int) -> Path:
        return self.here / f"image{number}"

    def empty(self, number: int) -> None:
        self.image(number).unlink(missing_ok=True)
        subprocess.run(["truncate", "-s", SIZE, str(self.image(number))], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(self.image(number))], check=True)

    def mount(self, number: int, image: int = 0, at: int = 0) -> None:
        subprocess.run(
            ["mount", "-o", "loop", str(self.image(image or number)), str(self.here / f"disk{at or number}")],
            check=True,
        )

    def unmount(self, number: int) -> None:
        """Also while somebody uses it: as a disk that is pulled, but that what is open goes on working."""
        subprocess.run(["umount", "-l", str(self.here / f"disk{number}")], check=False, capture_output=True)

    def end(self) -> None:
        for number in range(1, 8):
            for _ in range(2):
                self.unmount(number)


class Load(threading.Thread):
    """Puts objects and reads them back, once in a while, whatever is wrong; what it was refused is counted."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=KEYS["S4_ROOT_ACCESS_KEY"],
            aws_secret_access_key=KEYS["S4_ROOT_SECRET_KEY"],
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}, read_timeout=20),
        )
        self.kept: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.wrong, self.stopped, self.paused = list[str](), threading.Event(), False

    def run(self) -> None:
        number = 0
        while not self.stopped.wait(0.1):
            if self.paused:
                continue
            number += 1
            key, size = f"k{number % 150}", (300, 9_000, 200_000)[number % 3]
            try:
                self.client.put_object(Bucket="load", Key=key, Body=bytes([number % 251]) * size)
                self.kept[key] = number % 251
            except Exception as error:
                self.kept.pop(key, None)  # old or new
                self._count(error)
            look = f"k{number * 7 % 150}"
            if look in self.kept:
                try:
                    found = self.client.get_object(Bucket="load", Key=look)["Body"].read()
                except Exception as error:
                    self._count(error)
                else:
                    if found != bytes([self.kept[look]]) * len(found):
                        self.wrong.append(look)

    def _count(self, error: Exception) -> None:
        answer = getattr(error, "response", None) or {}
        said = answer.get("Error", {}).get("Code", type(error).__name__)
        self.refused[said] = self.refused.get(said, 0) + 1


class Admin:
    """The terminal, the server, and who watches it."""

    def __init__(self, trial: Trial, here: Path) -> None:
        self.trial, self.disks, self.here = trial, Disks(here), here
        self.shell = Machine(
            "disks",
            here,
            clean_environment({"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", **KEYS}),
        )
        self.rows = ["| what happened | status, exit | /readyz | metrics | log | said |", "|---|---|---|---|---|---|"]
        self.server: Started | None = None
        self._starts = 0
        self.directories = [str(here / f"disk{number}" / "s4") for number in range(1, 7)]

    def does(self, line: str, expected: str, **options: object) -> str:
        return self.trial.does(self.shell, line, expected, **options)  # type: ignore[arg-type]

    def serve(
        self,
        name: str,
        expected: str,
        directories: list[str] | None = None,
        more: str = "--reserve 64MiB --preallocate 8MiB",
    ) -> Started:
        self._starts += 1
        name = f"{name}-{self._starts}"
        self.server = self.shell.start(f"s4 server {' '.join(directories or self.directories)} {more}", name)
        shown = (
            f"s4 server {' '.join(one.removeprefix(str(self.here)) for one in directories or self.directories)} {more}"
        )
        self.trial.sees(self.server, shown, expected)
        return self.server

    def seen(
        self, what: str, reason: str, level: str, metric: str = "", log: str = "", within_s: float = MOST_S
    ) -> None:
        """Until status, /readyz, metrics and the log tell of it: the seconds of each."""
        assert self.server is not None
        began, at, said = time.monotonic(), dict[str, float](), ""
        written = len(self.server.text())
        asked: dict[str, Callable[[], bool]] = {
            "status": lambda: self._status(reason, level),
            "readyz": lambda: _ready(got("readyz"), reason, level),
            "metrics": lambda: (
                f"s4_health {LEVELS.index(level)}.0" in (text := got("metrics")) and bool(re.search(metric, text, re.M))
            ),
            "log": lambda: not log or bool(re.search(log, self.server.text()[max(0, written - 4000) :])),  # type: ignore[union-attr]
        }
        while len(at) < len(asked) and time.monotonic() - began < within_s:
            for name, ask in asked.items():
                if name not in at and ask():
                    at[name] = time.monotonic() - began
                    print("   ", what, name, f"{at[name]:.1f} s", flush=True)
            time.sleep(0.3)
        _, text = self.shell.run("s4 admin --dir disk1/s4 status; s4 admin --dir disk2/s4 status")
        said = next((line for line in text.splitlines() if re.search(reason, line)), "")
        times = [f"{at[name]:.0f} s" if name in at else "**never**" for name in asked]
        if not log:
            times[3] = ""
        self.rows.append(
            f"| {what} | {times[0]}, {(0, 4, 3, 3)[LEVELS.index(level)]} | {times[1]} | {times[2]} | {times[3]} | {short(said.replace(str(self.here), ''), 160)} |"
        )
        missing = ", ".join(name for name in asked if name not in at)
        self.trial.does(
            self.shell,
            "s4 admin --dir disk1/s4 status || s4 admin --dir disk2/s4 status",
            reason if not missing else f"seen by {missing} within {within_s:.0f} s",
            status=(0, 3, 4),
        )

    def comes(self, line: str, expected: str, within_s: float) -> bool:
        """Whether a command says something within a time; no step of the trial."""
        until = time.monotonic() + within_s
        while not (found := re.search(expected, self.shell.run(line)[1])) and time.monotonic() < until:
            time.sleep(0.5)
        return found is not None

    def _status(self, reason: str, level: str) -> bool:
        code, text = self.shell.run("s4 admin --dir disk2/s4 status")
        first = (text.splitlines() or [""])[0].lower()
        return first.endswith(level) and bool(re.search(reason, text)) and code == (0, 4, 3, 3)[LEVELS.index(level)]

    def files(self, number: int) -> list[str]:
        directory = self.here / f"disk{number}" / "s4"
        paths = [*(path for path in directory.rglob("*") if path.is_file()), directory / PROBE]
        return [option for path in paths for option in ("-P", str(path))]

    @contextmanager
    def ailing(self, number: int, calls: str, fault: str) -> Iterator[None]:
        assert self.server is not None
        with injected(self.server.process.pid, calls, fault, *self.files(number)):
            yield


def _ready(text: str, reason: str, level: str) -> bool:
    return text == "ready\n" if level == "ok" else text.startswith(f"ready, {level}") and bool(re.search(reason, text))


def got(path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:9001/{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


def follow(here: Path, texts: Texts) -> Trial:
    trial = Trial("An admin of six disks")
    texts.said("s4 server /disk1/s4 … /disk6/s4")
    admin = Admin(trial, here)
    try:
        first_start(admin, texts)
        load = Load("http://127.0.0.1:9000")
        load.client.create_bucket(Bucket="load")
        load.start()
        time.sleep(20)  # so that each drive holds some of the load before the first is taken away
        for part in (away, full, slow, dying, dead, replaced, too_many):
            part(admin, load, texts)
        load.stopped.set()
        load.join(60)
        wrong_starts(admin)
        trial.notes.append(
            f"Under a load that puts and reads back: {len(load.wrong)} wrong answers; refused: {load.refused or 'none'}."
        )
        if load.wrong:
            admin.does("echo wrong bytes", "right bytes")
    finally:
        trial.notes += [
            "Seconds from what happened until it was seen, with the limits as they come:\n",
            "\n".join(admin.rows),
        ]
        admin.shell.end()
        admin.disks.end()
    return trial


def first_start(admin: Admin, texts: Texts) -> None:
    """Small disks, and one that is not mounted yet."""
    admin.disks.unmount(6)
    admin.serve(
        "forgotten",
        r"disk6/s4, is on the file system of /, where the others are not: is its disk mounted",
        more="--reserve 64MiB",
    )
    admin.server.end()  # type: ignore[union-attr]
    for number in range(1, 7):
        subprocess.run(["rm", "-rf", str(admin.here / f"disk{number}" / "s4")], check=True)
    admin.disks.mount(6)
    admin.serve("small", "S3 at", more="")
    admin.does("s4 admin --dir disk1/s4 status", "reserve", status=(3, 4))
    admin.server.end()  # type: ignore[union-attr]
    admin.serve("server", "S3 at")
    admin.does(texts.said("s4 admin drives") + " --dir disk1/s4", "online")
    admin.seen("all is well", "^health", "ok", r'^s4_drive_up\{drive="[^"]*disk6/s4"\} 1.0')


def away(admin: Admin, load: Load, texts: Texts) -> None:
    admin.trial.note("disk3 is unmounted under the server, and later mounted again")
    admin.disks.unmount(3)
    admin.seen(
        "unmounted while in use",
        "disk3/s4, (has lost its files|is away)",
        "degraded",
        r'^s4_drive_alarms\{drive="[^"]*disk3/s4"\} 1.0',
    )
    admin.disks.mount(3)
    admin.seen("mounted again", "^health", "ok", "")
    assert admin.server is not None
    admin.trial.note("The server is stopped, disk3 unmounted, the server started; then disk3 is mounted")
    admin.server.end()
    admin.disks.unmount(3)
    admin.serve("server", "S3 at")
    admin.seen(
        "away at a start",
        "disk3/s4, is away: no drive is mounted there|disk3/s4, is away: it does not exist",
        "degraded",
        r'^s4_drive_up\{drive="[^"]*disk3/s4"\} 0.0',
    )
    time.sleep(10)  # the load goes on without it
    admin.disks.mount(3)
    admin.seen("returned", "^health", "ok", r'^s4_drive_up\{drive="[^"]*disk3/s4"\} 1.0', "disk3/s4, is back")
    admin.does("s4 admin --dir disk1/s4 drives", r"disk3/s4 +online", within_s=60)


def full(admin: Admin, load: Load, texts: Texts) -> None:
    admin.trial.note("Somebody fills disk4")
    file = admin.here / "disk4" / "somebody-elses"
    subprocess.run(["sh", "-c", f"fallocate -l $(($(stat -f -c '%a*%S' {file.parent}) - 33554432)) {file}"], check=True)
    admin.seen("full", "disk4/s4, is full", "at risk", r'^s4_drive_alarms\{drive="[^"]*disk4/s4"\} 1.0')
    admin.does(
        "python -c \"import boto3; boto3.client('s3', endpoint_url='http://127.0.0.1:9000', aws_access_key_id='trialroot', aws_secret_access_key='trialrootsecret').put_object(Bucket='load', Key='refused', Body=b'x' * 100000)\" 2>&1 | tail -n 1",
        "StorageFull",
        status=1,
    )
    file.unlink()
    admin.seen("freed", "^health", "ok", r"^s4_accepts_writes 1.0")
    admin.trial.note("Somebody fills disk1, which has metadata, to the last byte")
    file = admin.here / "disk1" / "somebody-elses"
    subprocess.run(
        [
            "sh",
            "-c",
            f"dd if=/dev/zero of={file} bs=1M 2>/dev/null; dd if=/dev/zero of={file}.2 bs=4k 2>/dev/null; true",
        ],
        check=True,
    )
    admin.seen("full to the last byte", "disk1/s4, is (full|away)", "at risk", "")
    file.unlink()
    Path(f"{file}.2").unlink(missing_ok=True)
    admin.seen("freed", "^health", "ok", r'^s4_drive_up\{drive="[^"]*disk1/s4"\} 1.0')


def slow(admin: Admin, load: Load, texts: Texts) -> None:
    admin.trial.note("disk2 takes three seconds for each sync")
    with admin.ailing(2, "fdatasync", "delay_enter=3000000"):
        admin.seen("slow", "disk2/s4, is slow", "degraded", r'^s4_drive_slow\{drive="[^"]*disk2/s4"\} 1.0')
        admin.does("s4 admin --dir disk1/s4 drives", "is slow")
    admin.seen("quick again: told for a minute after", "^health", "ok", within_s=90)


def dying(admin: Admin, load: Load, texts: Texts) -> None:
    admin.trial.note("disk5 fails every read of its volumes")
    with admin.ailing(5, "pread64,preadv,preadv2", "error=EIO"):
        admin.does(texts.said("s4 admin scrub") + " --dir disk1/s4", ".", status=(0, 1, 3, 4))
        admin.seen(
            "dying: it reads nothing",
            "disk5/s4, (is away|fails to read)|disk5/s4 ",
            "degraded",
            r'^s4_drive_(failing|up)\{drive="[^"]*disk5/s4"\} [01].0',
            "disk5/s4",
        )
    admin.does("s4 admin --dir disk1/s4 drives", "disk5", within_s=20)
    admin.does(
        texts.said("s4 admin drives retry DRIVE").replace("DRIVE", "5") + " --dir disk1/s4",
        "taken in|is there",
        status=(0, 1),
    )
    admin.seen("told that it is well", "^health", "ok", r'^s4_drive_up\{drive="[^"]*disk5/s4"\} 1.0')


def dead(admin: Admin, load: Load, texts: Texts) -> None:
    """Taken out while it fails: one that is well again is taken in by itself."""
    admin.trial.note("disk6 fails every write")
    for _ in range(8):  # until it is left out: after the first failure it is tried once more
        with admin.ailing(6, "fdatasync,pwritev,pwritev2,pwrite64,write", "error=EIO"):
            if admin.comes("s4 admin --dir disk1/s4 drives", r"disk6/s4 +away", 10):
                admin.seen(
                    "dead: it takes no write",
                    "disk6/s4, is away: ",
                    "degraded",
                    r'^s4_drive_up\{drive="[^"]*disk6/s4"\} 0.0',
                    "durability is in doubt",
                )
                admin.does("s4 admin --dir disk1/s4 drives retry 66", "there is no drive 66", status=1)
                admin.does("s4 admin --dir disk1/s4 drives retri 6", "retry", status=2)
                admin.disks.unmount(6)
                admin.trial.note("An empty disk is mounted in its place")
                admin.disks.mount(7, at=6)
                return
    admin.does("s4 admin --dir disk1/s4 drives", r"disk6/s4 +away")


def replaced(admin: Admin, load: Load, texts: Texts) -> None:
    admin.does("s4 admin --dir disk1/s4 drives", r"disk6/s4 +away", within_s=20)
    (admin.here / "disk6" / "s4").mkdir(exist_ok=True)
    admin.seen("replaced by an empty one, and filled", "^health", "ok", r'^s4_drive_up\{drive="[^"]*disk6/s4"\} 1.0')
    admin.trial.note("One that works is exchanged")
    admin.does(texts.said("s4 admin drives replace DRIVE").replace("DRIVE", "4") + " --dir disk1/s4", "put aside")
    admin.disks.unmount(4)
    admin.disks.empty(4)
    admin.disks.mount(4)
    (admin.here / "disk4" / "s4").mkdir()
    admin.does("s4 admin --dir disk1/s4 drives", r"disk4/s4 +(filling|online)", within_s=60)
    admin.seen("exchanged for an empty one, and filled", "^health", "ok", r'^s4_drive_up\{drive="[^"]*disk4/s4"\} 1.0')


def too_many(admin: Admin, load: Load, texts: Texts) -> None:
    admin.trial.note("Two, then three disks are away at a start")
    assert admin.server is not None
    load.paused = True
    admin.server.end()
    admin.disks.unmount(5)
    admin.disks.unmount(6)
    admin.serve("server", "S3 at")
    admin.seen("two are away", "writes are refused", "at risk", "")
    admin.server.end()
    admin.disks.unmount(3)
    admin.serve("three", "(?s)needed.*disk3.*disk5.*disk6")
    for number in (3, 5, 6):
        admin.disks.mount(number, image=7 if number == 6 else number)
    admin.serve("server", "S3 at")
    admin.seen("all are back", "^health", "ok", "")
    load.paused = False
    time.sleep(5)  # the load goes on
    admin.does("s4 admin --dir disk1/s4 scrub --deep", "0 shards missing or damaged")
    admin.does("s4 admin --dir disk1/s4 verify --deep", " 0 problems")
    admin.server.end()


def wrong_starts(admin: Admin) -> None:
    """In another order, one twice, one too few, one too many, one of another server."""
    ways = {
        "order": ([1, 0, 2, 3, 4, 5], "not in their order.*give them as"),
        "twice": ([0, 0, 2, 3, 4, 5], "same directory"),
        "fewer": ([0, 1, 2, 3, 4], "name all of them"),
        "one": ([0], "6 directories and 1 are given"),
    }
    for name, (order, expected) in ways.items():
        admin.serve(f"wrong-{name}", expected, [admin.directories[at] for at in order])
    admin.serve(
        "wrong-more", "to have more, start it with those", [*admin.directories, str(admin.here / "disk7" / "s4")]
    )
    admin.serve("wrong-erasure", "cannot be changed", more="--erasure 3+3")
    other = admin.serve("other", "S3 at", [str(admin.here / "disk7" / "other")])
    other.end()
    admin.serve(
        "wrong-other", "belongs to another server", [*admin.directories[:5], str(admin.here / "disk7" / "other")]
    )

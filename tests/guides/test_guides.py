"""docs/operations.md, followed: every block of commands, in order, with a server that is started and stopped as the
guides say.

It takes some ten seconds of a processor, as each command is a process of its own: commands are run as people run them.
What stands in for the machine is small: absolute paths are below a directory of the test, ports are its own, and
`systemctl`, `pipx` and who makes users are the scripts below; `make trials` follows the guides with real ones. Between
the guides the test looks whether objects are what they were.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from addresses import free_ports, own_address
from process import make_client

GUIDE = Path(__file__).parents[2] / "docs" / "operations.md"
PATHS = ("/var/lib/s4", "/etc/s4", "/etc/systemd", "/backup", "/mnt")

# Waits until a process says that it is ready, as systemd does for Type=notify.
LISTENER = """import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
    one.bind(sys.argv[1])
    one.settimeout(300)
    while one.recv(100) != b"READY=1":
        pass
"""
SYSTEMCTL = """#!/bin/bash
# Starts and stops the unit s4, as systemd would: waits until it says that it serves, and until it has ended.
root=$GUIDE_ROOT; pid=$(cat $root/pid 2>/dev/null)
stop() { [ -z "$pid" ] || { kill -TERM $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done; rm -f $root/pid; }; }
start() {
  rm -f $root/notify; $LISTENING $root/notify & listener=$!
  until [ -S $root/notify ]; do sleep 0.05; done
  ( set -a; . $root/etc/s4/s4.env; NOTIFY_SOCKET=$root/notify; exec s4 server $root/var/lib/s4/data --reserve 16MiB >> $root/out 2>> $root/log ) &
  echo $! > $root/pid
  while kill -0 $listener; do kill -0 $! || { cat $root/log; kill $listener; exit 1; }; sleep 0.05; done 2>/dev/null
  wait $listener
}
case $1 in
  start) start;; stop) stop;; restart) stop; start;; reload) kill -HUP $pid;;
  enable) [ "$2" = --now ] && start;; disable) [ "$2" = --now ] && stop;; daemon-reload) ;; *) exit 1;;
esac
"""
S4 = f'#!/bin/sh\nexec {sys.executable} -m s4.cli "$@"\n'


def blocks(text: str) -> list[tuple[str, str, str]]:
    """(guide, what a block asks for besides, commands) of each block."""
    found, guide = [], ""
    for match in re.finditer(r"^## ([^\n]+)$|^```sh ?([^\n]*)\n(.*?)^```$", text, re.M | re.S):
        guide = match[1] or guide
        if match[3]:
            found.append((guide, match[2], match[3]))
    return found


class Machine:
    """A directory that stands for a machine's `/`, and what the guides' commands are run with."""

    def __init__(self, root: Path) -> None:
        self.root, self.host = root, own_address()
        names = (":9000", ":9001", ":9100", ":9101")
        own = (f":{port}" for port in free_ports(4, self.host))
        self.ports = dict(zip(names, own, strict=True))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("S4_", "AWS_"))}
        self.environment = {
            **clean,
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "GUIDE_ROOT": str(root),
            "LISTENING": f"{sys.executable} {root / 'listener.py'}",
            "HOME": str(root / "home"),
            "RCLONE_CONFIG": str(root / "home" / "rclone.conf"),
        }

    def placed(self, text: str) -> str:
        """A guide's text with the paths and ports of this machine."""
        for path in PATHS:
            text = re.sub(rf"(?<![\w.]){path}\b", str(self.root / path[1:]), text)
        for port, own in self.ports.items():
            text = text.replace(f"127.0.0.1{port}", f"{self.host}{own}")
        return text

    def keys(self, at: str) -> tuple[str, str]:
        """The root keys of the server whose directory that is."""
        access, secret = re.findall(r'": ?"([^"]+)"', (self.root / at / "root.json").read_text())[:2]
        return access, secret

    def client(self) -> contextlib.closing[Any]:
        made = make_client(f"http://{self.host}{self.ports[':9000']}", *self.keys("var/lib/s4/data"))
        return contextlib.closing(made)

    def write_remotes(self) -> None:
        """Tell rclone of the server that there is, and of the one that it is moved to."""
        text = ""
        for name, at, port in (("old", "var/lib/s4/data", ":9000"), ("new", "mnt/d1", ":9100")):
            access, secret = self.keys(at)
            text += f"[{name}]\ntype = s3\nprovider = Other\nendpoint = http://{self.host}{self.ports[port]}\n"
            text += f"access_key_id = {access}\nsecret_access_key = {secret}\n\n"
        (self.root / "home" / "rclone.conf").write_text(text)

    def follow(self, guide: str, commands: str) -> None:
        """Run a block of a guide."""
        with (self.root / "said").open("w+") as said:  # no pipe: what a guide starts has it too, and goes on
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", self.placed(commands)],
                cwd=self.root / "home",
                env=self.environment,
                check=False,
                stdout=said,
                stderr=said,
            )
            said.seek(0)
            text = said.read()
        log = self.root / "log"
        assert done.returncode == 0, f"{guide}:\n{self.placed(commands)}\n{text}\n{log.read_text()[-2000:]}"
        assert "Traceback" not in text

    def has(self, path: str) -> bool:
        return (self.root / path).exists()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    programs = tmp_path / "bin"
    programs.mkdir()
    said = {name: f'#!/bin/sh\necho "$@" >> $GUIDE_ROOT/{name}\n' for name in ("pipx", "useradd", "userdel", "chown")}
    for name, content in {"systemctl": SYSTEMCTL, "s4": S4, **said}.items():
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    for path in ("mnt", "home"):
        (tmp_path / path).mkdir()
    (tmp_path / "listener.py").write_text(LISTENER)
    (tmp_path / "home" / "deploy").symlink_to(GUIDE.parents[1] / "deploy")
    yield Machine(tmp_path)
    for name in ("pid", "home/new.pid"):
        if (tmp_path / name).exists():
            with contextlib.suppress(ProcessLookupError):  # the guide ended it itself
                os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)


OBJECTS = {f"{number}": bytes([number]) * number * 3000 for number in range(20)}


def put_objects(machine: Machine) -> None:
    with machine.client() as s3:
        s3.create_bucket(Bucket="photos-2026")
        for key, body in OBJECTS.items():
            s3.put_object(Bucket="photos-2026", Key=key, Body=body)


def objects_there(machine: Machine) -> dict[str, bytes]:
    with machine.client() as s3:
        return {key: s3.get_object(Bucket="photos-2026", Key=key)["Body"].read() for key in OBJECTS}


def test_the_guides_are_followed(machine: Machine) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    followed = []
    for guide, asks, commands in blocks(GUIDE.read_text()):
        if asks.startswith("optional"):
            if shutil.which(asks.split()[1]) is None:
                continue
            machine.write_remotes()
        if guide == "Installing":
            settings = machine.root / "etc" / "s4" / "s4.env"
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text(machine.placed("S4_ADMIN_LISTEN=127.0.0.1:9001\n"))
        machine.follow(guide, commands)
        if guide == "Installing":
            put_objects(machine)
        elif guide != "Uninstalling" and machine.has("pid"):
            assert objects_there(machine) == OBJECTS, guide
        followed.append(guide)
    assert set(followed) == set(re.findall(r"^## (.+)$", GUIDE.read_text(), re.M)) - {
        "Is it well?",
        "Commands",
        "Bounds",
        "What scrub, fills and draining cover",
    }
    left = ("pid", "var/lib/s4", "etc/s4", "etc/systemd/system/s4.service")
    assert not [path for path in left if machine.has(path)]
    assert (machine.root / "pipx").read_text().splitlines() == [
        "install .",
        "install --force .",
        "install --force .",
        "uninstall s4",
    ]

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


@pytest.fixture
def machine(tmp_path: Path) -> Any:
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
    yield tmp_path
    for name in ("pid", "home/new.pid"):
        if (tmp_path / name).exists():
            with contextlib.suppress(ProcessLookupError):  # the guide ended it itself
                os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)


def test_the_guides_are_followed(machine: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    host = own_address()
    ports = dict(zip((":9000", ":9001", ":9100", ":9101"), (f":{port}" for port in free_ports(4, host)), strict=True))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("S4_", "AWS_"))}
    environment = {
        **clean,
        "PATH": f"{machine / 'bin'}:{os.environ['PATH']}",
        "GUIDE_ROOT": str(machine),
        "LISTENING": f"{sys.executable} {machine / 'listener.py'}",
        "HOME": str(machine / "home"),
        "RCLONE_CONFIG": str(machine / "home" / "rclone.conf"),
    }

    def placed(text: str) -> str:
        for path in PATHS:
            text = re.sub(rf"(?<![\w.]){path}\b", str(machine / path[1:]), text)
        for port, own in ports.items():
            text = text.replace(f"127.0.0.1{port}", f"{host}{own}")
        return text

    def client(at: str = "var/lib/s4/data", port: str = ":9000") -> Any:
        keys = re.findall(r'": ?"([^"]+)"', (machine / at / "root.json").read_text())
        return make_client(f"http://{host}{ports[port]}", *keys[:2])

    def remote(at: str, port: str) -> str:
        """A remote of rclone, with the root keys of its server."""
        access, secret = re.findall(r'": ?"([^"]+)"', (machine / at / "root.json").read_text())[:2]
        return f"type = s3\nprovider = Other\nendpoint = http://{host}{ports[port]}\naccess_key_id = {access}\nsecret_access_key = {secret}\n"

    followed = []
    for guide, asks, commands in blocks(GUIDE.read_text()):
        if asks.startswith("optional"):
            if shutil.which(asks.split()[1]) is None:
                continue
            remotes = {"old": ("var/lib/s4/data", ":9000"), "new": ("mnt/d1", ":9100")}
            (machine / "home" / "rclone.conf").write_text(
                "".join(f"[{name}]\n{remote(*where)}\n" for name, where in remotes.items())
            )
        if guide == "Installing":
            (machine / "etc" / "s4").mkdir(parents=True, exist_ok=True)
            (machine / "etc" / "s4" / "s4.env").write_text(placed("S4_ADMIN_LISTEN=127.0.0.1:9001\n"))
        with (machine / "said").open("w+") as said:  # no pipe: what a guide starts has it too, and goes on
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", placed(commands)],
                cwd=machine / "home",
                env=environment,
                check=False,
                stdout=said,
                stderr=said,
            )
            said.seek(0)
            text = said.read()
        assert done.returncode == 0, f"{guide}:\n{placed(commands)}\n{text}\n{(machine / 'log').read_text()[-2000:]}"
        assert "Traceback" not in text
        if guide == "Installing":
            s3 = client()
            s3.create_bucket(Bucket="photos-2026")
            for number in range(20):
                s3.put_object(Bucket="photos-2026", Key=f"{number}", Body=bytes([number]) * number * 3000)
            s3.close()
        elif guide != "Uninstalling" and (machine / "pid").exists():
            s3 = client()
            assert [s3.get_object(Bucket="photos-2026", Key=f"{number}")["Body"].read() for number in range(20)] == [
                bytes([number]) * number * 3000 for number in range(20)
            ], guide
            s3.close()
        followed.append(guide)
    assert set(followed) == set(re.findall(r"^## (.+)$", GUIDE.read_text(), re.M)) - {
        "Is it well?",
        "What scrub, fills and draining cover",
    }
    assert not any(
        (machine / path).exists() for path in ("pid", "var/lib/s4", "etc/s4", "etc/systemd/system/s4.service")
    )
    assert (machine / "pipx").read_text().splitlines() == [
        "install .",
        "install --force .",
        "install --force .",
        "uninstall s4",
    ]

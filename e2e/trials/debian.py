"""A bare Debian of its own below a directory: made once by debootstrap, unpacked for each trial.

Packages and their registries are reached as this machine reaches them: it gets this machine's mirror, names and trust.
Devices are its own too, so that nothing that is mounted there is seen here. `opened` has terminals in it, `booted` its
own systemd.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from trials.log import Machine
from trials.texts import ROOT

CALLED = {"bookworm": "Debian 12", "trixie": "Debian 13", "forky": "Debian 14 in the making, with Python 3.14"}
USER = 1000
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TRUST = dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), "/opt/trusted.pem")
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def _mirror() -> str:
    """Where this machine has its own packages from."""
    texts = [
        path.read_text()
        for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources"))
        if path.exists()
    ]
    found = re.search(r"^(?:URIs:|deb(?: +\[[^]]*\])?) *(\S+)", "\n".join(texts), re.M)
    if found is None:
        raise SystemExit("no mirror of Debian is set up on this machine: /etc/apt names none")
    return found[1]


def base(suite: str, cache: Path) -> Path:
    """The archive of a bare Debian, made once."""
    made = cache / f"{suite}.tar"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        root, script = cache / f"{suite}.root", Path("/usr/share/debootstrap/scripts") / suite
        subprocess.run(
            ["debootstrap", "--variant=minbase", suite, str(root), *([] if script.exists() else [_mirror(), "sid"])],
            check=True,
            capture_output=True,
        )
        subprocess.run(["tar", "-C", str(root), "-cf", f"{made}.new", "."], check=True)
        shutil.rmtree(root)
        Path(f"{made}.new").rename(made)
    return made


def unpacked(suite: str, cache: Path, root: Path, tree: str) -> None:
    """A bare Debian in `root`, with the tree as its last commit has it."""
    root.mkdir(parents=True)
    subprocess.run(["tar", "-C", str(root), "-xf", str(base(suite, cache))], check=True)
    root.chmod(0o755)
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copy(Path("/", name), root / name)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "opt" / "trusted.pem")
    (root / "etc/apt/apt.conf.d/mirror").write_text('Acquire::Check-Valid-Until "false";\n')  # which may be behind
    (root / "etc/dpkg/dpkg.cfg.d/quick").write_text("force-unsafe-io\n")
    (root / "etc" / "pip.conf").write_text("[global]\ncert = /opt/trusted.pem\n")
    subprocess.run(
        ["chroot", str(root), "useradd", "--create-home", "--uid", str(USER), "--shell", "/bin/bash", "dev"], check=True
    )
    (root / tree[1:]).mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-C", str(root / tree[1:]), "-x"], input=archive, check=True)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(root / tree[1:])], check=True)


def _devices(root: Path) -> list[list[str]]:
    """The commands that give it devices of its own."""
    dev = str(root / "dev")
    nodes = [
        ["mknod", "-m", "666", f"{dev}/{name}", "c", str(major), str(minor)] for name, (major, minor) in DEVICES.items()
    ]
    return [
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", dev],
        *nodes,
        ["mkdir", f"{dev}/pts", f"{dev}/shm"],
        ["mount", "-t", "devpts", "-o", "newinstance,ptmxmode=666,mode=620", "devpts", f"{dev}/pts"],
        ["mount", "-t", "tmpfs", "tmpfs", f"{dev}/shm"],
        ["ln", "-s", "pts/ptmx", f"{dev}/ptmx"],
        ["ln", "-s", "/proc/self/fd", f"{dev}/fd"],
    ]


def environment(**more: str) -> dict[str, str]:
    return {"PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb", **TRUST, **more}


@contextmanager
def opened(suite: str, cache: Path, here: Path, tree: str) -> Iterator[tuple[Machine, Machine]]:
    """(the terminal of somebody who is not root, in the tree, and root's)."""
    root = here / suite
    unpacked(suite, cache, root, tree)
    developer = Machine(
        "dev",
        here,
        environment(HOME="/home/dev", USER="dev"),
        ["chroot", f"--userspec={USER}:{USER}", str(root), "/usr/bin/env", "-C", tree],
    )
    admin = Machine(
        "root",
        here,
        environment(HOME="/root", DEBIAN_FRONTEND="noninteractive"),
        ["chroot", str(root), "/usr/bin/env", "-C", "/root"],
    )
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        for command in (["mount", "-t", "proc", "proc", str(root / "proc")], *_devices(root)):
            subprocess.run(command, check=True)
            if command[0] == "mount":
                stack.callback(subprocess.run, ["umount", "-l", command[-1]], check=False)
        stack.callback(developer.end)
        yield developer, admin


# Its own namespaces, and a part of the tree of control groups; the network is this machine's, as registries are reached by it.
_BOOT = """echo $$ > {group}/cgroup.procs
exec unshare --mount --pid --fork --cgroup --uts --ipc --kill-child sh -c '
set -e
mount --make-rprivate /
mount --bind {root} {root}
{devices}
cd {root}
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p .old
pivot_root . .old
umount -l /.old
exec env -i container=lxc PATH={path} /lib/systemd/systemd --log-target=journal --show-status=0'
"""


@contextmanager
def booted(root: Path, tree: str) -> Iterator[Machine]:
    """Root's terminal, in the tree, of an unpacked Debian that runs its own systemd."""
    unified = re.search(r"^\S+ (\S+) cgroup2 ", Path("/proc/mounts").read_text(), re.M)
    if unified is None:
        raise SystemExit("this machine has no control groups of version 2, which systemd wants")
    group = Path(unified[1]) / f"s4-trial-{os.getpid()}"
    group.mkdir()
    for name in ("console-getty", "getty@", "serial-getty@", "container-getty@", "systemd-resolved"):
        (root / "etc/systemd/system" / f"{name}.service").symlink_to("/dev/null")
    devices = "\n".join(" ".join(command) for command in _devices(root))
    boot = _BOOT.format(group=group, root=root, devices=devices, path=PATH)
    started = subprocess.Popen(["sh", "-c", boot], start_new_session=True, stdin=subprocess.DEVNULL)
    try:
        first = _first(started)
        enter = [
            "nsenter",
            "--target",
            first,
            *(f"--{one}" for one in ("mount", "pid", "uts", "ipc", "cgroup", "root")),
        ]
        root_s = environment(HOME="/root", DEBIAN_FRONTEND="noninteractive")
        machine = Machine("root", root.parent, root_s, [*enter, "/usr/bin/env", "-C", tree])
        until = time.monotonic() + 300
        while machine.run("systemctl is-system-running")[1].strip() not in ("running", "degraded"):
            if started.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"systemd does not come up: {machine.run('systemctl --failed; journalctl -n 40')[1]}")
            time.sleep(0.5)
        yield machine
    finally:
        started.kill()  # with all that runs there
        started.wait()
        for folder in sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True):
            _removed(folder)
        _removed(group)


def _removed(folder: Path, within_s: float = 20) -> None:
    """A control group, once what was in it has ended."""
    until = time.monotonic() + within_s
    while folder.exists() and time.monotonic() < until:
        with suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.1)


def _first(started: subprocess.Popen[bytes]) -> str:
    """The id, out here, of what is process 1 in there."""
    while started.poll() is None:
        for found in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = found.read_text().rpartition(")")
                if fields[2].split()[1] == str(started.pid) and "systemd" in fields[0]:
                    return fields[0].split()[0]
        time.sleep(0.05)
    raise SystemExit("systemd did not start")

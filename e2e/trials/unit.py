"""An admin of one server on a Debian with systemd: a release is made and installed, and each guide of
docs/operations.md followed, with the real unit, `systemctl` and `pipx`.

tests/guides follows the same blocks at each commit with stand-ins for these; what the unit allows, who owns a file and
what is read-only is seen here alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from guides.test_guides import GUIDE, blocks
from trials import debian
from trials.log import Machine, Trial, clean_environment
from trials.texts import ROOT

TREE = "/root/s4"
# What an installed Debian has, and one of debootstrap has not; rclone is for one of the guides.
BROUGHT = "systemd systemd-sysv dbus procps python3 openssl curl rclone ca-certificates"
NOT_FOLLOWED = ("Is it well?", "What scrub, fills and draining cover")
REMOTES = """for at in old:/var/lib/s4/data:9000 new:/mnt/d1:9100; do IFS=: read name dir port <<< $at; mkdir -p ~/.config/rclone
printf '[%s]\\ntype = s3\\nprovider = Other\\nendpoint = http://127.0.0.1:%s\\naccess_key_id = %s\\nsecret_access_key = %s\\n' $name $port \
  $(grep -o '": *"[^"]*"' $dir/root.json | cut -d '"' -f 3 | head -n 2) >> ~/.config/rclone/rclone.conf; done; rclone lsd old:; rclone lsd new:"""


def follow(suite: str, cache: Path, here: Path) -> Trial:
    trial = Trial(f"An admin of one server: {debian.CALLED[suite]} with systemd")
    root = here / suite
    debian.unpacked(suite, cache, root, TREE)
    desk = Machine("desk", here, clean_environment({}))
    bring = "export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8; apt-get update -qq && apt-get install -y -qq --no-install-recommends"
    try:
        trial.does(desk, f"chroot {root} sh -c '{bring} {BROUGHT}'", "", quiet=True, limit_s=1500)
        wheel = released(trial, desk, root)
        with debian.booted(root, TREE) as admin:
            text = GUIDE.read_text().partition("\n## Installing\n")[2].partition("```")[0]
            for line in re.findall(r"`(apt-get install [^`]+)`", text):
                trial.does(admin, line, "", quiet=True, limit_s=1500)
            for guide, asks, said in blocks(GUIDE.read_text()):
                if guide in NOT_FOLLOWED:
                    continue
                commands = said.replace("pipx install .", f"pipx install ~/{wheel}")
                if asks.startswith("optional rclone"):
                    trial.does(admin, REMOTES, "", quiet=True)
                trial.note(guide)
                trial.does(admin, f"set -e\n{commands}", "", quiet=True, limit_s=900)
                if guide == "Installing":
                    lived_with(trial, admin)
                elif guide != "Uninstalling":
                    trial.does(admin, "systemctl is-active s4; s4 admin --dir /var/lib/s4/data du", "^photos-2026 +1 ")
            trial.does(admin, "ls -d /var/lib/s4 /etc/s4 /opt/s4/venvs/s4 /usr/local/bin/s4 2>&1", "No such", status=2)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return trial


def released(trial: Trial, desk: Machine, root: Path) -> str:
    """The wheel of `make release`, made of the last commit, where the admin finds it; its name."""
    clone = desk.here / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    trial.does(desk, "cd clone && make release", r"\.whl", limit_s=1500)
    wheel = next((clone / "dist").glob("*.whl"), None)
    if wheel is None:
        raise SystemExit("no wheel, so nothing to install")
    shutil.copy(wheel, root / "root" / wheel.name)
    return wheel.name


def lived_with(trial: Trial, admin: Machine) -> None:
    """What systemd does with it: looked at, told to read again, killed, refused a start, stopped."""

    def does(line: str, expected: str, **options: object) -> str:
        return trial.does(admin, line, expected, **options)  # type: ignore[arg-type]

    does("systemd-analyze verify /etc/systemd/system/s4.service && echo verified", r"\Averified")
    does("systemd-analyze security s4 --no-pager | tail -n 1", "OK|MEDIUM")
    does("systemctl status s4 --no-pager", r"active \(running\)")
    does("stat -c '%U %a' /var/lib/s4 /var/lib/s4/data/root.json /var/lib/s4/data/master.key", "s4 700\ns4 600\ns4 600")
    keys = '$(grep -o \'": *"[^"]*"\' /var/lib/s4/data/root.json | cut -d \'"\' -f 3 | head -n 2 | paste -sd:)'
    curl = f'curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user "{keys}"'
    does(
        f"{curl} -X PUT http://127.0.0.1:9000/photos-2026 && {curl} -T /etc/hostname http://127.0.0.1:9000/photos-2026/k",
        "",
        quiet=True,
    )
    does("systemctl reload s4", "", quiet=True)
    does("journalctl -u s4 --no-pager -n 20", "SIGHUP: files were looked at again", within_s=20)
    does("systemctl kill -s KILL s4; systemctl is-active s4", "activating|active", status=(0, 3))
    does("s4 admin --dir /var/lib/s4/data status", r"^health +ok", within_s=60)
    does("systemctl show -p NRestarts s4", "NRestarts=1")
    does(f"{curl} http://127.0.0.1:9000/photos-2026/k | cmp - /etc/hostname && echo the same", "the same")
    does("systemctl stop s4; systemctl show -p ActiveState,Result s4", "(?s)success.*inactive|inactive.*success")
    does("s4 admin --dir /var/lib/s4/data status", "nobody listens", status=1)
    journal = "journalctl -u s4 --no-pager -n 20"
    does("echo S4_LISEN=:9100 >> /etc/s4/s4.env; systemctl start s4", "", quiet=True)
    does(journal, "S4_LISEN is no setting")
    does("s4 admin --dir /var/lib/s4/data user add visitor --grant Reader:photos-2026", "secret key")
    does("sed -i /S4_LISEN/d /etc/s4/s4.env; systemctl stop s4; mv /var/lib/s4/data/master.key /root", "", quiet=True)
    does("systemctl start s4", "systemctl status s4|journalctl", status=1)
    does(journal, "master.key is gone")
    does("mv /root/master.key /var/lib/s4/data/", "", quiet=True)
    does("s4 admin --dir /var/lib/s4/data status", r"^health +ok", within_s=60)

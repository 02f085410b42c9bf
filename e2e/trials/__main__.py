"""Runs the trials that are named, else all: python -m trials [NAME ...] [--page FILE].

A trial that came to its end is kept below `.tools/trials`, with the day, the commit and how busy the machine was; the page
shows the last whole run of each, and none that was cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from trials import cluster, debian, disks, laptop, texts, unit
from trials.log import Trial, page

WRITTEN = texts.ROOT / ".tools" / "trials"
GROUPS = {"laptop": ("bookworm", "trixie")}
RARE = ("forky",)  # only by name
HEAD = """# As users meet it

What people did who had these texts alone, what they were told, and whether that was what the text lets one expect. `make trials` does it all again
(root; debootstrap and etcd for some; `TRIALS="disks cluster"` for some of them), with commands from the blocks and tables of README and docs/, and the mistakes
that people make, and writes this page from the last whole run of each. A row is a command; a number in brackets is its exit status. A finding is a
traceback, a silence, other words or another status than expected. Long answers are cut to the telling line; all of them are below `.tools/trials`."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="trials")
    names = ", ".join([*GROUPS, *debian.CALLED, "systemd", "disks", "cluster"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{names} [all but {', '.join(RARE)}]")
    parser.add_argument("--page", type=Path, default=None, help="where the page goes")
    parser.add_argument(
        "--cache", type=Path, default=Path(os.environ.get("S4_E2E_CACHE", Path.home() / ".cache" / "s4-e2e")) / "trials"
    )
    arguments = parser.parse_args()
    if os.getuid() != 0:
        raise SystemExit("trials: mounts, namespaces and chroots need root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted and started is taken away again
    read = texts.Texts()
    WRITTEN.mkdir(parents=True, exist_ok=True)
    done = Trial.made
    with tempfile.TemporaryDirectory(prefix="s4-trials-") as scratch:
        here = Path(scratch)
        ways: dict[str, Callable[[], Trial]] = {
            **{
                suite: (lambda suite=suite: laptop.follow(suite, arguments.cache, here / "laptop", read))
                for suite in debian.CALLED
            },  # type: ignore[misc]
            "systemd": lambda: unit.follow("trixie", arguments.cache, here / "systemd"),
            "disks": lambda: disks.follow(here / "disks", read),
            "cluster": lambda: cluster.follow(here / "cluster", read),
        }
        wanted = [one for name in arguments.names for one in GROUPS.get(name, (name,))]
        for name in wanted or (name for name in ways if name not in RARE):
            try:
                keep(name, ways[name]())
            finally:
                (WRITTEN / f"{name}.log").write_text("".join(done[-1].full))
    if arguments.page:
        arguments.page.write_text(page([kept for name in ways if (kept := again(name))], HEAD))
    found = [f"{one.title}: {step.did}: {step.verdict}: {step.said}" for one in done for step in one.findings()]
    sys.stdout.write("\n".join([*found, f"{sum(len(one.steps) for one in done)} steps, {len(found)} findings"]) + "\n")
    return 1 if found else 0


def keep(name: str, trial: Trial) -> None:
    """A whole run, for the page; where what it needs is not there, the last one stays."""
    if not trial.steps:
        return
    commit = subprocess.run(
        ["git", "-C", str(texts.ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    trial.notes.insert(
        0,
        f"A whole run of {time.strftime('%Y-%m-%d')}, commit {commit}, Linux {platform.release().partition('-')[0]}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[2]:.0f}.",
    )
    steps = [asdict(step) for step in trial.steps]
    (WRITTEN / f"{name}.json").write_text(json.dumps({"title": trial.title, "notes": trial.notes, "steps": steps}))


def again(name: str) -> Trial | None:
    path = WRITTEN / f"{name}.json"
    return Trial.of(json.loads(path.read_text())) if path.exists() else None


if __name__ == "__main__":
    raise SystemExit(main())

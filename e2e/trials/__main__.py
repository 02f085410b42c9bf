"""Runs the trials that are named, else all: python -m trials [NAME ...] [--log FILE] [--keep DIR]."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trials import cluster, debian, disks, laptop, texts, unit
from trials.log import Trial, page

HEAD = """# As users meet it

What three people did who had these texts alone, what they were told, and whether that was what the text lets one expect: `make trials`
({when}, commit {commit}, {kernel}). Each row is a command; a number in brackets is its exit status. A finding is a traceback, a silence, other
words or another status than expected. Long answers are cut to the telling line; the whole log of a run is below `.tools/trials`."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="trials")
    parser.add_argument("names", nargs="*", metavar="NAME", help="bookworm, trixie, forky, disks, cluster [all]")
    parser.add_argument("--log", type=Path, default=None, help="where the page goes")
    parser.add_argument(
        "--cache", type=Path, default=Path(os.environ.get("S4_E2E_CACHE", Path.home() / ".cache" / "s4-e2e")) / "trials"
    )
    arguments = parser.parse_args()
    if os.getuid() != 0:
        raise SystemExit("trials: mounts, namespaces and chroots need root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted and started is taken away again
    written, read = texts.ROOT / ".tools" / "trials", texts.Texts()
    written.mkdir(parents=True, exist_ok=True)
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
        for name in arguments.names or (name for name in ways if name != "forky"):
            try:
                ways[name]()
            finally:
                (written / f"{name}.log").write_text("".join(done[-1].full))
                (written / f"{name}.md").write_text(page([done[-1]], f"# {done[-1].title}"))
    if arguments.log:
        commit = subprocess.run(
            ["git", "-C", str(texts.ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        arguments.log.write_text(
            page(
                done,
                HEAD.format(
                    when=time.strftime("%Y-%m-%d"),
                    commit=commit,
                    kernel=f"Linux {platform.release().partition('-')[0]}",
                ),
            )
        )
    found = [f"{one.title}: {step.did}: {step.verdict}: {step.said}" for one in done for step in one.findings()]
    sys.stdout.write("\n".join([*found, f"{sum(len(one.steps) for one in done)} steps, {len(found)} findings"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())

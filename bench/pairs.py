"""`python -m bench.pairs REVISION`: whether this tree is as fast as another commit, in interleaved pairs of runs.

    python -m bench.pairs f08044e [--pairs 10] [--seconds 4]

Each pair starts a server of either tree, which goes first alternating, on an empty directory; the ratio is this tree's
operations a second over the other's. What counts is the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench.__main__ import build, commit, machine
from bench.peers import start_s4

ROOT = Path(__file__).parents[1]
WORK = {
    "PUT 1 KiB (16)": ("put", 1024, 16),
    "GET 1 KiB (16)": ("get", 1024, 16),
    "HEAD (16)": ("head", 1024, 16),
    "LIST 1000 keys (4)": ("list", 1024, 4),
}


def measure(program: Path, tree: Path, seconds: float) -> dict[str, float]:
    """Operations a second of a server of that tree."""
    os.environ["PYTHONPATH"] = str(tree / "daemon")
    with tempfile.TemporaryDirectory() as scratch:
        peer = start_s4(Path(scratch) / "s4")
        try:
            found = {}
            for name, (operation, size, workers) in WORK.items():
                command = [
                    str(program),
                    "-endpoint",
                    peer.endpoint,
                    "-access",
                    peer.access,
                    "-secret",
                    peer.secret,
                    "-op",
                    operation,
                    "-size",
                    str(size),
                    "-workers",
                    str(workers),
                    "-seconds",
                    str(seconds),
                    "-objects",
                    "2000",
                ]
                report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                if report["errors"]:
                    raise RuntimeError(report["first_error"])
                found[name] = float(report["ops_per_s"])
            return found
        finally:
            peer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.pairs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    program, scratch = build(), tempfile.TemporaryDirectory(prefix="s4-pairs-")
    other = Path(scratch.name) / "tree"
    subprocess.run(
        ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(other), arguments.revision], check=True
    )
    ratios: dict[str, list[float]] = {name: [] for name in WORK}
    try:
        for number in range(arguments.pairs):
            trees = (ROOT, other) if number % 2 else (other, ROOT)
            found = {tree: measure(program, tree, arguments.seconds) for tree in trees}
            for name, listed in ratios.items():
                listed.append(found[ROOT][name] / found[other][name])
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(other)], check=True)
        scratch.cleanup()
    print(
        f"Commit {commit()} over {arguments.revision}, {arguments.pairs} pairs, {machine()}.\n\n| | median ratio | all |\n|---|---|---|"
    )
    for name, listed in ratios.items():
        print(f"| {name} | {statistics.median(listed):.3f} | {' '.join(f'{one:.2f}' for one in sorted(listed))} |")


if __name__ == "__main__":
    main()

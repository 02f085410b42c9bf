"""`python -m bench.pairs REVISION`: whether this tree is as fast as another commit, in interleaved pairs of runs.

    python -m bench.pairs f08044e [--pairs 10] [--seconds 4]

Each pair starts a server of either tree, which goes first alternating, on an empty directory; the ratio is this tree's
operations a second over the other's. What counts is the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from bench.load import ROOT, Work, commit, machine, run, start_tree, tree_of

WORK = {
    "PUT 1 KiB (16)": Work("put", 1024, 16, 2000),
    "GET 1 KiB (16)": Work("get", 1024, 16, 2000),
    "HEAD (16)": Work("head", 1024, 16, 2000),
    "LIST 1000 keys (4)": Work("list", 1024, 4, 2000),
}


def measure(tree: Path, seconds: float) -> dict[str, float]:
    """Operations a second of a server of that tree."""
    with tempfile.TemporaryDirectory() as scratch:
        peer = start_tree(tree, Path(scratch) / "s4")
        try:
            return {name: run(peer, work, seconds).ops_per_s for name, work in WORK.items()}
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
    ratios: dict[str, list[float]] = {name: [] for name in WORK}
    with tree_of(arguments.revision) as other:
        for number in range(arguments.pairs):
            trees = (ROOT, other) if number % 2 else (other, ROOT)
            found = {tree: measure(tree, arguments.seconds) for tree in trees}
            for name, listed in ratios.items():
                listed.append(found[ROOT][name] / found[other][name])
    print(
        f"Commit {commit()} over {arguments.revision}, {arguments.pairs} pairs, {machine()}.\n\n| | median ratio | all |\n|---|---|---|"
    )
    for name, listed in ratios.items():
        print(f"| {name} | {statistics.median(listed):.3f} | {' '.join(f'{ratio:.2f}' for ratio in sorted(listed))} |")


if __name__ == "__main__":
    main()

"""`python -m bench.pairs REVISION`: whether this tree is as fast as another commit, in interleaved pairs of runs.

    python -m bench.pairs f08044e [--pairs 10] [--seconds 4]

Each pair starts a server of either tree, which goes first alternating, on an empty directory; the ratio is this tree's
operations a second over the other's. What counts is the median of the ratios.
"""

from __future__ import annotations

import statistics
from functools import partial

from bench.load import ROOT, Work, commit, machine, run, start_tree, tree_of
from bench.turns import THIS, asked, in_turns

WORK = {
    "PUT 1 KiB (16)": Work("put", 1024, 16, 2000),
    "GET 1 KiB (16)": Work("get", 1024, 16, 2000),
    "HEAD (16)": Work("head", 1024, 16, 2000),
    "LIST 1000 keys (4)": Work("list", 1024, 4, 2000),
}


def main() -> None:
    arguments = asked("pairs", __doc__, pairs=10, seconds=4.0)
    with tree_of(arguments.revision) as other:
        starts = {arguments.revision: partial(start_tree, other), THIS: partial(start_tree, ROOT)}
        found = in_turns(starts, WORK, partial(run, seconds=arguments.seconds), arguments.pairs)
    print(f"Commit {commit()} over {arguments.revision}, {arguments.pairs} pairs, {machine()}.\n")
    print("| | median ratio | all |\n|---|---|---|")
    for name in WORK:
        pairs = zip(found[name, THIS], found[name, arguments.revision], strict=True)
        ratios = sorted(mine.ops_per_s / its.ops_per_s for mine, its in pairs)
        print(f"| {name} | {statistics.median(ratios):.3f} | {' '.join(f'{ratio:.2f}' for ratio in ratios)} |")


if __name__ == "__main__":
    main()

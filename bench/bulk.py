"""`python -m bench.bulk REVISION`: what large objects and deletes cost a cluster, beside another commit, in turns.

    python -m bench.bulk 0bab319 [--nodes 6] [--rounds 2] [--seconds 4] [--only get-64m]

A cluster of each tree (`s4 dev`, 4+2, asked through its first node), each work on one and then on the other. Processor
time of all processes of a cluster together, without what they take when nobody asks: seconds for each GB, or
microseconds for each request that has few bytes; the least of the rounds, as whatever disturbs a machine only adds to
it, and their median. Rates are the best of the rounds.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from bench.load import ROOT, Report, Work, commit, machine, run, tree_of
from bench.small import Server
from bench.turns import THIS, asked, compared, in_turns

MIB, AFTER_S = 1 << 20, 3.0
# The prefix of each work's objects is the name of the work that puts them.
WORK = {
    "put-64m": Work("put", 64 * MIB, 3, existing="put-64m"),
    "get-64m": Work("get", 64 * MIB, 3, existing="put-64m"),
    "put-1m": Work("put", MIB, 8, existing="put-1m"),
    "get-1m": Work("get", MIB, 8, existing="put-1m"),
    "put-4k": Work("put", 4096, 16, existing="put-4k"),
    "delete": Work("delete", 4096, 16, existing="put-4k"),
}


class Cluster(Server):
    """Of a tree; `put` has how many objects there are under a prefix."""

    def __init__(self, directory: Path, tree: Path, port: int, nodes: int) -> None:
        os.environ["PYTHONPATH"] = str(tree / "daemon")
        super().__init__(directory, port, 0, 1, nodes)
        self.put = dict[str, int]()

    def measure(self, work: Work, seconds: float) -> Report:
        """A report whose processor time is that of all processes, without what they take at rest."""
        spent_s, started = self.spent_s(), time.monotonic()
        there = 0 if work.operation == "put" else self.put[work.existing]
        report = run(self.peer, replace(work, objects=there), seconds)
        if work.operation == "put":
            self.put[work.existing] = report.ops
        if work.size < MIB:
            time.sleep(AFTER_S)  # content rows, references and dead blobs come after the answers
        report.cpu_s = self.spent_s() - spent_s - self.idle * (time.monotonic() - started)
        return report


def main() -> None:
    arguments = asked("bulk", __doc__, nodes=6, port=9100, rounds=2, seconds=4.0, only=",".join(WORK))
    works = {name: WORK[name] for wanted in arguments.only.split(",") for name in (WORK[wanted].existing, wanted)}
    with tree_of(arguments.revision) as other:
        ports = count(arguments.port, 100)
        starts = {
            who: lambda directory, tree=tree: Cluster(directory, tree, next(ports), arguments.nodes)
            for who, tree in ((arguments.revision, other), (THIS, ROOT))
        }
        measure = partial(Cluster.measure, seconds=arguments.seconds)
        found = in_turns(starts, works, measure, arguments.rounds, beside=True)
    print(f"Commit {commit()}, {arguments.nodes} nodes, {machine()}.\n")
    print(f"| work | {arguments.revision} | this | ratio of the least, of medians | of rates |\n|---|---|---|---|---|")
    for name, work in works.items():
        least, middle, best = compared(found, name, work, starts)
        unit, size = ("s a GB", f"{work.size >> 20} MiB") if work.is_large else ("µs", f"{work.size >> 10} KiB")
        shown = " | ".join(f"{cost:.4g} {unit}, {rate:.0f} /s" for cost, rate in zip(least, best, strict=True))
        ratios = f"{least[1] / least[0]:.2f}, {middle[1] / middle[0]:.2f} | {best[1] / best[0]:.2f}"
        print(f"| {work.operation.upper()} {size} ({work.workers}) | {shown} | {ratios} |")


if __name__ == "__main__":
    main()

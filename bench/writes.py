"""`python -m bench.writes REVISION`: what large writes cost a server, beside another commit and MinIO, in turns.

    python -m bench.writes 761a9e5 [--drives 6] [--rounds 2] [--seconds 4]

Seconds of the server's processor for each GB (/proc), and how many of them are the kernel's: the least of the rounds, as
whatever disturbs a machine only adds to them. MB/s are the best of the rounds.
"""

from __future__ import annotations

from functools import partial

from bench.load import ROOT, Work, commit, machine, run, start_tree, tree_of
from bench.peers import start_minio
from bench.turns import asked, in_turns

WORK = {"PUT 64 MiB (3)": Work("put", 64 << 20, 3), "PUT 1 MiB (8)": Work("put", 1 << 20, 8)}


def main() -> None:
    arguments = asked("writes", __doc__, drives=1, rounds=2, seconds=4.0)
    with tree_of(arguments.revision) as other:
        starts = {
            arguments.revision: partial(start_tree, other, count=arguments.drives),
            "S4": partial(start_tree, ROOT, count=arguments.drives),
            "MinIO": partial(start_minio, count=arguments.drives),
        }
        found = in_turns(starts, WORK, partial(run, seconds=arguments.seconds), arguments.rounds)
    print(f"Commit {commit()}, {arguments.drives} directories, {machine()}.\n")
    print("| work | server | s a GB | of them the kernel's | MB/s |\n|---|---|---|---|---|")
    for (work, name), reports in found.items():
        least = min(reports, key=WORK[work].cost)
        cost = WORK[work].cost(least)
        kernel, best = cost * least.kernel_s / max(least.cpu_s, 1e-9), max(report.mb_per_s for report in reports)
        print(f"| {work} | {name} | {cost:.2f} | {kernel:.2f} | {best:.0f} |")


if __name__ == "__main__":
    main()

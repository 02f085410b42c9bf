"""`python -m bench.writes REVISION`: what large writes cost a server, beside another commit and MinIO, in turns.

    python -m bench.writes 761a9e5 [--drives 6] [--rounds 2] [--seconds 4]

Seconds of the server's processor for each GB (/proc), and how many of them are the kernel's: the least of the rounds, as
whatever disturbs a machine only adds to them. MB/s are the best of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.load import ROOT, Report, Work, commit, machine, run, start_tree, tree_of
from bench.peers import Peer, start_minio

WORK = {"PUT 64 MiB (3)": Work("put", 64 << 20, 3), "PUT 1 MiB (8)": Work("put", 1 << 20, 8)}
Found = dict[tuple[str, str], list[Report]]


def once(servers: dict[str, Callable[[Path], Peer | None]], seconds: float, found: Found) -> None:
    """Each server in turn, on empty directories."""
    for name, start in servers.items():
        with tempfile.TemporaryDirectory() as scratch:
            peer = start(Path(scratch) / "data")
            if peer is None:
                continue
            try:
                for work, asked in WORK.items():
                    found.setdefault((work, name), []).append(run(peer, asked, seconds))
            finally:
                peer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.writes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision")
    parser.add_argument("--drives", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    found = Found()
    with tree_of(arguments.revision) as other:
        servers: dict[str, Callable[[Path], Peer | None]] = {
            arguments.revision: lambda directory: start_tree(other, directory, arguments.drives),
            "S4": lambda directory: start_tree(ROOT, directory, arguments.drives),
            "MinIO": lambda directory: start_minio(directory, arguments.drives),
        }
        for _ in range(arguments.rounds):
            once(servers, arguments.seconds, found)
    print(f"Commit {commit()}, {arguments.drives} directories, {machine()}.\n")
    print("| work | server | s a GB | of them the kernel's | MB/s |\n|---|---|---|---|---|")
    for (work, name), reports in found.items():
        least = min(reports, key=WORK[work].cost)
        cost = WORK[work].cost(least)
        kernel, best = cost * least.kernel_s / max(least.cpu_s, 1e-9), max(report.mb_per_s for report in reports)
        print(f"| {work} | {name} | {cost:.2f} | {kernel:.2f} | {best:.0f} |")


if __name__ == "__main__":
    main()

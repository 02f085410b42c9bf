"""`python -m bench.bulk REVISION`: what large objects and deletes cost a cluster, beside another commit, in turns.

    python -m bench.bulk 0bab319 [--nodes 6] [--rounds 2] [--seconds 4] [--only get-64m]

A cluster of each tree (`s4 dev`, 4+2, asked through its first node), each work on one and then on the other. Processor
time of all processes of a cluster together, without what they take when nobody asks: seconds for each GB, or
microseconds for each request that has few bytes; the least of the rounds, as whatever disturbs a machine only adds to
it, and their median. Rates are the best of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.load import ROOT, Work, commit, machine, run, tree_of
from bench.small import Server

MIB, AFTER_S = 1 << 20, 3.0
# name: what is put before under a prefix of its own, operation, bytes, workers, label
WORK = {
    "put-64m": ("", "put", 64 * MIB, 3, "PUT 64 MiB (3)"),
    "get-64m": ("put-64m", "get", 64 * MIB, 3, "GET 64 MiB (3)"),
    "put-1m": ("", "put", MIB, 8, "PUT 1 MiB (8)"),
    "get-1m": ("put-1m", "get", MIB, 8, "GET 1 MiB (8)"),
    "put-4k": ("", "put", 4096, 16, "PUT 4 KiB (16)"),
    "delete": ("put-4k", "delete", 4096, 16, "DELETE (16)"),
}
Found = dict[tuple[str, str], list[tuple[float, float]]]


def once(servers: dict[str, Server], names: list[str], seconds: float, found: Found) -> None:
    """Each work on each server, in order; a work that was put for another is measured too."""
    put = dict[tuple[str, str], int]()
    for name in dict.fromkeys(each for asked in names for each in (WORK[asked][0], asked) if each):
        for who, server in servers.items():
            spent_s, started = server.spent_s(), time.monotonic()
            before, operation, size, workers, _ = WORK[name]
            work = Work(operation, size, workers, put.get((before, who), 0), existing=before or name)
            report = run(server.peer, work, seconds)
            if size < MIB:
                time.sleep(AFTER_S)  # content rows, references and dead blobs come after the answers
            worked_s = server.spent_s() - spent_s - server.idle * (time.monotonic() - started)
            put[name, who] = report.ops
            unit = size / 1e9 if size >= MIB else 1e-6
            found.setdefault((name, who), []).append((worked_s / report.ops / unit, work.rate(report)))


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.bulk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision")
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default=",".join(WORK))
    arguments = parser.parse_args()
    found, names = Found(), arguments.only.split(",")
    with tree_of(arguments.revision) as other, tempfile.TemporaryDirectory() as scratch:
        these = {arguments.revision: other, "this": ROOT}
        servers = dict[str, Server]()
        try:
            for at, (who, tree) in enumerate(these.items()):
                os.environ["PYTHONPATH"] = str(tree / "daemon")
                servers[who] = Server(Path(scratch) / str(at), arguments.port + 100 * at, 0, 1, arguments.nodes)
            for _ in range(arguments.rounds):
                once(servers, names, arguments.seconds, found)
                servers = dict(reversed(servers.items()))
        finally:
            for server in servers.values():
                server.peer.stop()
    print(f"Commit {commit()}, {arguments.nodes} nodes, {machine()}.\n")
    print(f"| work | {arguments.revision} | this | ratio of the least, of medians | of rates |\n|---|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in found):
        unit = "s a GB" if WORK[name][2] >= MIB else "µs"
        both = [[[row[kind] for row in found[name, who]] for who in these] for kind in (0, 1)]
        least, best = [min(costs) for costs in both[0]], [max(rates) for rates in both[1]]
        middle = [statistics.median(costs) for costs in both[0]]
        shown = " | ".join(f"{cost:.4g} {unit}, {rate:.0f} /s" for cost, rate in zip(least, best, strict=True))
        ratios = f"{least[1] / least[0]:.2f}, {middle[1] / middle[0]:.2f} | {best[1] / best[0]:.2f}"
        print(f"| {WORK[name][4]} | {shown} | {ratios} |")


if __name__ == "__main__":
    main()

"""`python -m bench`: prints a Markdown table of S4 and the peers that are on this machine, with ratios.

    python -m bench [--seconds 5] [--rounds 2] [--only put-4k,get-4k] [--drives 6 | --nodes 6] [--s4-options
    "--workers 2"] [--memory]

Peers are `minio`, `garage` and `weed` on the PATH, in .tools/ (`make peers`), or where S4_BENCH_MINIO, S4_BENCH_GARAGE
and S4_BENCH_WEED say. Each round runs each work on every server, one after the other; the best round counts for all
alike. With --nodes MinIO is as many processes (which needs root, for a network namespace).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench.load import Report, Work, command, commit, machine, run
from bench.memory import memory_figures
from bench.peers import (
    Peer,
    start_cluster,
    start_garage,
    start_minio,
    start_minio_nodes,
    start_s4,
    start_seaweedfs,
)

WORK = {
    "put-1k": ("PUT 1 KiB, inline (16)", Work("put", 1024, 16, 0)),
    "get-1k": ("GET 1 KiB, inline (16)", Work("get", 1024, 16, 200)),
    "put-4k": ("PUT 4 KiB (16)", Work("put", 4096, 16, 0)),
    "get-4k": ("GET 4 KiB (16)", Work("get", 4096, 16, 200)),
    "head": ("HEAD (16)", Work("head", 4096, 16, 200)),
    "delete": ("DELETE (16)", Work("delete", 4096, 16, 8000)),
    "list-1000": ("LIST 1000 keys (4)", Work("list", 4096, 4, 2000)),
    "put-1m": ("PUT 1 MiB (8)", Work("put", 1 << 20, 8, 0)),
    "get-1m": ("GET 1 MiB (8)", Work("get", 1 << 20, 8, 200)),
    "range-64m": ("GET 64 KiB ranges of 64 MiB (8)", Work("range", 64 << 20, 8, 4)),
    "put-64m": ("PUT 64 MiB (3)", Work("put", 64 << 20, 3, 0)),
    "get-64m": ("GET 64 MiB (3)", Work("get", 64 << 20, 3, 6)),
    "multipart-256m": ("multipart 256 MiB (1)", Work("multipart", 256 << 20, 1, 0)),
}


def main() -> None:
    parser = command("", __doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default=",".join(WORK))
    parser.add_argument("--s4-options", default="")
    parser.add_argument("--drives", type=int, default=1, help="directories of S4 and MinIO; six are 4+2")
    parser.add_argument(
        "--nodes", type=int, default=0, help="a cluster of so many S4 nodes, 4+2, beside MinIO of as many processes"
    )
    parser.add_argument("--memory", action="store_true", help="measure S4's memory instead")
    arguments = parser.parse_args()
    print(f"Date {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {machine()}.\n")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        if arguments.memory:
            print(memory_figures(directory, arguments.drives))
            return
        with ExitStack() as stack:
            peers = []
            for start in starts(directory, arguments.nodes, arguments.drives, arguments.s4_options.split()):
                if (peer := start()) is not None:
                    peers.append(peer)
                    stack.callback(peer.stop)
                    print(f"- {peer.name} {peer.version}: {peer.settings}")
            print(
                f"- {arguments.seconds:g} s each, best of {arguments.rounds} rounds; operations a second, MB/s from 1 MiB"
                " up; (workers)\n- µs: least processor time of the server for a request; s/GB from 1 MiB up\n"
            )
            table(peers, arguments.only.split(","), arguments.seconds, arguments.rounds)


def starts(directory: Path, nodes: int, drives: int, options: list[str]) -> list[Callable[[], Peer | None]]:
    """What starts each server."""
    if nodes:
        return [
            lambda: start_cluster(directory / "s4", nodes),
            lambda: start_minio_nodes(directory / "minio", nodes),
        ]
    return [
        lambda: start_s4(directory / "s4", *options, count=drives),
        lambda: start_minio(directory / "minio", drives),
        lambda: start_garage(directory / "garage"),
        lambda: start_seaweedfs(directory / "seaweedfs"),
    ]


def table(peers: list[Peer], names: list[str], seconds: float, rounds: int) -> None:
    others = [peer.name for peer in peers[1:]]
    columns = [*(peer.name for peer in peers), "S4 p99", *(f"S4 / {name}" for name in others)]
    columns += [f"{peer.name} µs" for peer in peers]
    print(f"| work | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for name in names:
        label, work = WORK[name]
        found: dict[str, list[Report]] = {peer.name: [] for peer in peers}
        for _ in range(rounds):
            for peer in peers:
                try:
                    found[peer.name].append(run(peer, work, seconds))
                except RuntimeError as error:
                    print(error, file=sys.stderr)
                time.sleep(0.3)  # what a server has still to do is not the next one's
        rates = [max([work.rate(report) for report in listed], default=0.0) for listed in found.values()]
        costs = [min([work.cost(report) for report in listed], default=0.0) for listed in found.values()]
        p99 = min([report.p99_ms for report in found[peers[0].name]], default=0.0)
        cells = [*(f"{rate:.0f}" for rate in rates), f"{p99:.1f} ms"]
        cells += [f"{rates[0] / rate:.2f}" if rate else "-" for rate in rates[1:]]
        cells += [f"{cost:.2f} s/GB" if work.is_large else f"{cost:.0f}" for cost in costs]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

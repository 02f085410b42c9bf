"""`python -m bench`: prints a Markdown table of S4 and the peers that are on this machine, with ratios.

    python -m bench [--seconds 5] [--rounds 2] [--only put-4k,get-4k] [--drives 6 | --nodes 6] [--s4-options
    "--workers 2"] [--memory]

Peers are found as `minio` and `garage` on the PATH, in .tools/, or through S4_BENCH_MINIO and S4_BENCH_GARAGE.
Each round runs each work on every server, one after the other; the better round counts for all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.memory import memory_figures
from bench.peers import Peer, start_cluster, start_garage, start_minio, start_s4

# name: operation, bytes, workers, objects put before, label, unit
WORK = {
    "put-1k": ("put", 1024, 16, 0, "PUT 1 KiB, inline (16)"),
    "get-1k": ("get", 1024, 16, 200, "GET 1 KiB, inline (16)"),
    "put-4k": ("put", 4096, 16, 0, "PUT 4 KiB (16)"),
    "get-4k": ("get", 4096, 16, 200, "GET 4 KiB (16)"),
    "head": ("head", 4096, 16, 200, "HEAD (16)"),
    "delete": ("delete", 4096, 16, 8000, "DELETE (16)"),
    "list-1000": ("list", 4096, 4, 2000, "LIST 1000 keys (4)"),
    "put-1m": ("put", 1 << 20, 8, 0, "PUT 1 MiB (8)"),
    "get-1m": ("get", 1 << 20, 8, 200, "GET 1 MiB (8)"),
    "range-64m": ("range", 64 << 20, 8, 4, "GET 64 KiB ranges of 64 MiB (8)"),
    "put-64m": ("put", 64 << 20, 3, 0, "PUT 64 MiB (3)"),
    "get-64m": ("get", 64 << 20, 3, 6, "GET 64 MiB (3)"),
    "multipart-256m": ("multipart", 256 << 20, 1, 0, "multipart 256 MiB (1)"),
}
HERE = Path(__file__).parent


def build() -> Path:
    """The load program, from its source here."""
    program = HERE / "s3load" / "s3load"
    if not program.exists():
        if shutil.which("go") is None:
            sys.exit("bench needs Go to build bench/s3load, the load program")
        subprocess.run(["go", "build", "-o", "s3load", "."], cwd=HERE / "s3load", check=True)
    return program


def measure(program: Path, peer: Peer, name: str, seconds: float) -> tuple[float, float]:
    """(operations a second, or MB a second from 1 MiB up; p99 in ms). Errors give zeros."""
    operation, size, workers, objects, _ = WORK[name]
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
        str(objects),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"{peer.name} {name}: {done.stderr.strip()[:200]}\n")
        return 0.0, 0.0
    report = json.loads(done.stdout)
    if report["errors"]:
        sys.stderr.write(f"{peer.name} {name}: {report['errors']} errors: {report.get('first_error', '')[:200]}\n")
    return report["mb_per_s" if size >= 1 << 20 else "ops_per_s"], report["p99_ms"]


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} cores of {model}, {memory} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default=",".join(WORK))
    parser.add_argument("--s4-options", default="")
    parser.add_argument("--drives", type=int, default=1, help="directories of S4 and MinIO; six are 4+2")
    parser.add_argument(
        "--nodes", type=int, default=0, help="a cluster of so many S4 nodes, 4+2, beside MinIO with as many drives"
    )
    parser.add_argument("--memory", action="store_true", help="measure S4's memory instead")
    arguments = parser.parse_args()
    program = build()
    print(f"Date {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {machine()}.\n")
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.memory:
            print(memory_figures(program, Path(scratch), arguments.drives))
            return
        if arguments.nodes:
            started = [
                start_cluster(Path(scratch) / "s4", arguments.nodes),
                start_minio(Path(scratch) / "minio", arguments.nodes),
            ]
        else:
            started = [
                start_s4(Path(scratch) / "s4", *arguments.s4_options.split(), count=arguments.drives),
                start_minio(Path(scratch) / "minio", arguments.drives),
                start_garage(Path(scratch) / "garage"),
            ]
        peers = [peer for peer in started if peer is not None]
        try:
            for peer in peers:
                print(f"- {peer.name} {peer.version}: {peer.settings}")
            print(
                f"- {arguments.seconds:g} s each, best of {arguments.rounds} rounds; operations a second, MB/s from 1 MiB up; (workers)\n"
            )
            table(program, peers, arguments.only.split(","), arguments.seconds, arguments.rounds)
        finally:
            for peer in peers:
                peer.stop()


def table(program: Path, peers: list[Peer], names: list[str], seconds: float, rounds: int) -> None:
    print(
        "| work | "
        + " | ".join(peer.name for peer in peers)
        + " | S4 p99 | "
        + " | ".join(f"S4 / {peer.name}" for peer in peers[1:])
        + " |"
    )
    print("|---|" + "---|" * (2 * len(peers)))
    for name in names:
        best: dict[str, tuple[float, float]] = {}
        for _ in range(rounds):
            for peer in peers:
                best[peer.name] = max(best.get(peer.name, (0.0, 0.0)), measure(program, peer, name, seconds))
                time.sleep(0.3)
        figures = [best[peer.name][0] for peer in peers]
        ratios = [f"{figures[0] / figure:.2f}" if figure else "-" for figure in figures[1:]]
        print(
            f"| {WORK[name][4]} | "
            + " | ".join(f"{figure:.0f}" for figure in figures)
            + f" | {best['S4'][1]:.1f} ms | "
            + " | ".join(ratios)
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()

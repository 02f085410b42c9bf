"""`python -m bench.bulk REVISION`: what large objects and deletes cost a cluster, beside another commit, in turns.

    python -m bench.bulk 0bab319 [--nodes 6] [--rounds 2] [--seconds 4] [--only get-64m]

A cluster of each tree (`s4 dev`, 4+2, asked through its first node), each work on one and then on the other. Processor time
of all processes of a cluster together, without what they take when nobody asks: seconds for each GB, or microseconds for
each request that has few bytes; the least of the rounds, as whatever disturbs a machine only adds to it, and their
median. Rates are the best of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.__main__ import build, commit, machine
from bench.peers import ACCESS, SECRET
from bench.small import Server

ROOT = Path(__file__).parents[1]
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


def load(program: Path, server: Server, name: str, seconds: float, objects: int) -> dict[str, Any]:
    """What the load program says, of operations on names that go by the work which put them."""
    before, operation, size, workers, _ = WORK[name]
    command = [str(program), "-endpoint", server.endpoint, "-access", ACCESS, "-secret", SECRET, "-op", operation]
    command += ["-size", str(size), "-workers", str(workers), "-seconds", str(seconds)]
    command += ["-existing", before or name, "-objects", str(objects)]
    report: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if report["errors"]:
        raise RuntimeError(report["first_error"])
    return report


def once(program: Path, servers: dict[str, Server], names: list[str], seconds: float, found: Found) -> None:
    """Each work on each server, in order; a work that was put for another is measured too."""
    put = dict[tuple[str, str], int]()
    for name in dict.fromkeys(each for asked in names for each in (WORK[asked][0], asked) if each):
        for who, server in servers.items():
            size = WORK[name][2]
            spent_s, started = server.spent_s(), time.monotonic()
            report = load(program, server, name, seconds, put.get((WORK[name][0], who), 0))
            if WORK[name][2] < MIB:
                time.sleep(AFTER_S)  # content rows, references and dead blobs come after the answers
            worked_s = server.spent_s() - spent_s - server.idle * (time.monotonic() - started)
            put[name, who] = report["ops"]
            unit = size / 1e9 if size >= MIB else 1e-6
            rate = report["mb_per_s" if size >= MIB else "ops_per_s"]
            found.setdefault((name, who), []).append((worked_s / report["ops"] / unit, rate))


@contextmanager
def trees(revision: str) -> Iterator[dict[str, Path]]:
    """The other commit's files and these, by name."""
    with tempfile.TemporaryDirectory(prefix="s4-bulk-") as scratch:
        other = Path(scratch) / "tree"
        worktree = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*worktree, "add", "--quiet", "--detach", str(other), revision], check=True)
        for extension in (ROOT / "daemon/s4/s3").glob("_fused*.so"):  # built, not kept
            (other / "daemon/s4/s3" / extension.name).write_bytes(extension.read_bytes())
        try:
            yield {revision: other, "this": ROOT}
        finally:
            subprocess.run([*worktree, "remove", "--force", str(other)], check=True)


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
    program, found, names = build(), Found(), arguments.only.split(",")
    with trees(arguments.revision) as these, tempfile.TemporaryDirectory() as scratch:
        servers = dict[str, Server]()
        try:
            for at, (who, tree) in enumerate(these.items()):
                os.environ["PYTHONPATH"] = str(tree / "daemon")
                servers[who] = Server(Path(scratch) / str(at), arguments.port + 100 * at, 0, 1, arguments.nodes)
            for _ in range(arguments.rounds):
                once(program, servers, names, arguments.seconds, found)
                servers = dict(reversed(servers.items()))
        finally:
            for server in servers.values():
                server.process.terminate()
                server.process.wait(60)
    load_now = os.getloadavg()[0]
    print(f"Commit {commit()}, {arguments.nodes} nodes, {machine()}; load {load_now:.0f}.\n")
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

"""`python -m bench.writes REVISION`: what large writes cost a server, beside another commit and MinIO, in turns.

    python -m bench.writes 761a9e5 [--drives 6] [--rounds 2] [--seconds 4]

Seconds of the server's processor for each GB (/proc), and how many of them are the kernel's: the least of the rounds, as
whatever disturbs a machine only adds to them. MB/s are the best of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.__main__ import build, commit, machine
from bench.peers import Peer, start_minio, start_s4

ROOT = Path(__file__).parents[1]
WORK = {"PUT 64 MiB (3)": (64 << 20, 3), "PUT 1 MiB (8)": (1 << 20, 8)}
Found = dict[tuple[str, str], list[tuple[float, float, float]]]


def used(pid: int) -> tuple[float, float]:
    """Seconds of a processor that a process took, and those in the kernel."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    second = os.sysconf("SC_CLK_TCK")
    return (int(user) + int(system)) / second, int(system) / second


def measure(program: Path, peer: Peer, size: int, workers: int, seconds: float) -> tuple[float, float, float]:
    """(seconds a GB, those in the kernel, MB/s)."""
    command = [str(program), "-endpoint", peer.endpoint, "-access", peer.access, "-secret", peer.secret, "-op", "put"]
    command += ["-size", str(size), "-workers", str(workers), "-seconds", str(seconds)]
    before = used(peer.process.pid)
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    after = used(peer.process.pid)
    if report["errors"]:
        raise RuntimeError(report["first_error"])
    gigabytes = report["ops"] * size / 1e9
    return (after[0] - before[0]) / gigabytes, (after[1] - before[1]) / gigabytes, report["mb_per_s"]


def once(program: Path, servers: dict[str, Callable[[Path], Peer | None]], seconds: float, found: Found) -> None:
    """Each server in turn, on empty directories."""
    for name, start in servers.items():
        with tempfile.TemporaryDirectory() as scratch:
            peer = start(Path(scratch) / "data")
            if peer is None:
                continue
            try:
                for work, (size, workers) in WORK.items():
                    found.setdefault((work, name), []).append(measure(program, peer, size, workers, seconds))
            finally:
                peer.stop()


def of_tree(tree: Path, drives: int) -> Callable[[Path], Peer | None]:
    def start(directory: Path) -> Peer | None:
        os.environ["PYTHONPATH"] = str(tree / "daemon")
        return start_s4(directory, count=drives)

    return start


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.writes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision")
    parser.add_argument("--drives", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    program, found = build(), Found()
    with tempfile.TemporaryDirectory(prefix="s4-writes-") as scratch:
        other = Path(scratch) / "tree"
        worktree = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*worktree, "add", "--quiet", "--detach", str(other), arguments.revision], check=True)
        for extension in (ROOT / "daemon/s4/s3").glob("_fused*.so"):  # built, not kept
            (other / "daemon/s4/s3" / extension.name).write_bytes(extension.read_bytes())
        servers = {
            arguments.revision: of_tree(other, arguments.drives),
            "S4": of_tree(ROOT, arguments.drives),
            "MinIO": lambda directory: start_minio(directory, arguments.drives),
        }
        try:
            for _ in range(arguments.rounds):
                once(program, servers, arguments.seconds, found)
        finally:
            subprocess.run([*worktree, "remove", "--force", str(other)], check=True)
    print(f"Commit {commit()}, {arguments.drives} directories, {machine()}.\n")
    print("| work | server | s a GB | of them the kernel's | MB/s |\n|---|---|---|---|---|")
    for (work, name), rows in found.items():
        least = min(rows)
        print(f"| {work} | {name} | {least[0]:.2f} | {least[1]:.2f} | {max(row[2] for row in rows):.0f} |")


if __name__ == "__main__":
    main()

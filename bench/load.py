"""What every benchmark shares: the load program, what a server's processes take meanwhile, another commit's tree."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.peers import Peer, start_s4

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "bench/s3load"


class Report(msgspec.Struct, kw_only=True):
    """What the load program found: of its timed part, without the objects that it put before."""

    ops: int
    errors: int
    ops_per_s: float
    mb_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s: float  # seconds of a processor that the server's processes took, and those in the kernel
    kernel_s: float
    first_error: str = ""


@dataclass(frozen=True)
class Work:
    """Requests: what each does, bytes of an object, clients at once, objects that are put before."""

    operation: str
    size: int
    workers: int
    objects: int = 0
    existing: str = ""  # prefix of objects that are there already: none are put before
    encrypted: bool = False  # SSE-S3

    @property
    def is_large(self) -> bool:
        """Told in MB and GB."""
        return self.size >= 1 << 20 and self.operation != "range"

    def rate(self, report: Report) -> float:
        """Operations a second, or MB."""
        return report.mb_per_s if self.size >= 1 << 20 else report.ops_per_s

    def cost(self, report: Report) -> float:
        """Processor time of the server: seconds for a GB, microseconds for a request."""
        if self.is_large:
            return report.cpu_s / max(1e-9, report.ops * self.size / 1e9)
        return report.cpu_s * 1e6 / max(1, report.ops)


def build() -> Path:
    """The load program, from its source here."""
    program = SOURCE / "s3load"
    if not program.exists() or program.stat().st_mtime < (SOURCE / "main.go").stat().st_mtime:
        if shutil.which("go") is None:
            sys.exit("bench needs Go to build bench/s3load, the load program")
        subprocess.run(["go", "build", "-o", "s3load", "."], cwd=SOURCE, check=True)
    return program


def processes(pid: int) -> list[int]:
    """A process and all that it started and that still runs."""
    found, left = list[int](), [pid]
    while left:
        found.append(left.pop())
        try:
            for task in Path(f"/proc/{found[-1]}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def spent_s(pid: int) -> float:
    """Seconds of a processor that a process took so far; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(peer: Peer, work: Work, seconds: float) -> Report:
    """Raises RuntimeError where a request failed."""
    command = [
        *peer.beside,
        str(build()),
        *("-endpoint", peer.endpoint, "-access", peer.access, "-secret", peer.secret),
        *("-op", work.operation, "-size", str(work.size), "-workers", str(work.workers)),
        *("-seconds", str(seconds), "-objects", str(work.objects), "-existing", work.existing),
        f"-sse={str(work.encrypted).lower()}",
        *("-pids", ",".join(str(pid) for each in peer.processes for pid in processes(each.pid))),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{peer.name}, {work.operation}: {done.stderr.strip()[:500]}")
    report = msgspec.json.decode(done.stdout, type=Report)
    if report.errors:
        raise RuntimeError(f"{peer.name}, {work.operation}: {report.errors} errors: {report.first_error[:500]}")
    return report


@contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """A tree of that commit, with the extension as it is built here."""
    with tempfile.TemporaryDirectory(prefix="s4-bench-") as scratch:
        tree = Path(scratch) / "tree"
        worktree = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*worktree, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            for extension in (ROOT / "daemon/s4/s3").glob("_fused*.so"):  # built, not kept
                if (tree / "daemon/s4/s3").is_dir():
                    shutil.copy(extension, tree / "daemon/s4/s3")
            yield tree
        finally:
            subprocess.run([*worktree, "remove", "--force", str(tree)], check=True)


def start_tree(tree: Path, directory: Path, count: int = 1) -> Peer:
    """`s4 server` of that tree on so many directories."""
    os.environ["PYTHONPATH"] = str(tree / "daemon")
    return start_s4(directory, count=count)


def command(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Of `python -m bench.MODULE`; its help is the module's docstring."""
    name = f"python -m bench.{module}".rstrip(".")
    return argparse.ArgumentParser(name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


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
    system = f"Linux {platform.release()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.0f}"
    return f"{os.cpu_count()} cores of {model}, {memory} GiB, {system}"


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"

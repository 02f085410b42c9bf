"""`python -m bench.small`: what content in rows (`--small`) gives and costs.

    python -m bench.small [--drives 6 | --nodes 6] [--seconds 2] [--rounds 2]
    python -m bench.small --ingest 2 [--size 16384]

Two servers, without and with `--small 64KiB`, in turns on one machine: operations a second, their ratio, and processor
time of the server's processes for each operation, which others on the machine disturb less. `--ingest`: so many GiB of
such objects, each a turn's rows as the server makes them, put into LevelDB with the server's sizes: bytes that the
process wrote for each byte that came in, as it grows. A store in shards writes a little more than one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from bench.load import Work, commit, machine, processes, run, spent_s
from bench.peers import start_cluster, start_s4

SIZES = (4096, 8192, 16_384, 32_768, 65_536)
SMALL, IDLE_S = 65_536, 4.0


class Server:
    """`s4 server`, or `s4 dev` with so many nodes."""

    def __init__(self, directory: Path, port: int, small: int, count: int, nodes: int) -> None:
        os.environ["S4_SMALL"] = str(small)
        if nodes:
            self.peer = start_cluster(directory, nodes, port=port)
            time.sleep(8)  # until all nodes know that all can read such rows
        else:
            self.peer = start_s4(directory, count=count, port=port)
        before_s = self.spent_s()
        time.sleep(IDLE_S)
        self.idle = (self.spent_s() - before_s) / IDLE_S  # of a processor, with nothing to do: left out of each figure

    def spent_s(self) -> float:
        return sum(spent_s(pid) for process in self.peer.processes for pid in processes(process.pid))

    def run(self, operation: str, size: int, seconds: float) -> tuple[float, float]:
        """(operations a second, processor time of each in microseconds)."""
        before = {"put": 0, "get": 20, "delete": int(200 * seconds)}[operation]
        work = Work(operation, size, 16, before)
        report = run(self.peer, work, seconds)
        idle_us = self.idle * 1e6 / max(1.0, report.ops_per_s)
        return report.ops_per_s, work.cost(report) - idle_us


def rates(count: int, nodes: int, seconds: float, rounds: int, sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        servers = [
            Server(Path(scratch) / f"{small}", 9300 + 100 * at, small, count, nodes)
            for at, small in enumerate((0, SMALL))
        ]
        try:
            print("| | in shards /s | in rows /s | ratio | in shards µs | in rows µs | ratio |")
            print("|---|---|---|---|---|---|---|")
            for operation in ("put", "get", "delete"):
                for size in sizes:
                    best, least = [0.0, 0.0], [float("inf")] * 2
                    for _ in range(rounds):
                        for at, server in enumerate(servers):
                            rate, spent = server.run(operation, size, seconds)
                            best[at], least[at] = max(best[at], rate), min(least[at], spent)
                    print(
                        f"| {operation.upper()} {size >> 10} KiB | {best[0]:.0f} | {best[1]:.0f} | {best[1] / best[0]:.2f} "
                        f"| {least[0]:.0f} | {least[1]:.0f} | {least[1] / least[0]:.2f} |",
                        flush=True,
                    )
        finally:
            for server in servers:
                server.peer.stop()


def written() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


def ingest(gib: float, size: int) -> None:
    """A synced batch for each sixteen objects."""
    from s4.metadata import keys  # noqa: PLC0415
    from s4.metadata.rows import Answer, Blob, Content, Extent, Object, Reference, encode, encode_object  # noqa: PLC0415
    from s4.metadata.small import encode_blob  # noqa: PLC0415
    from s4.storage.leveldb import Database  # noqa: PLC0415

    total, came, told = int(gib * (1 << 30)), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        database = Database(Path(scratch) / "meta", cache_bytes=64 << 20, write_buffer_bytes=16 << 20, open_files=500)
        begun, started, sequence = written(), time.monotonic(), 0
        print(f"objects of {size >> 10} KiB\n\n| GiB that came in | bytes written for each |\n|---|---|")
        while came < total:
            rows: list[tuple[bytes, bytes | None]] = []
            for _ in range(16):
                sequence += 1
                blob, reference, sha256, key = os.urandom(16), os.urandom(16), os.urandom(32), b"%020d" % sequence
                where = int.from_bytes(blob[:1], "big") % 16
                row = Object(1, size, "e" * 32, False, True, "root", extents=[Extent(0, size, where, blob, reference)])
                rows += [
                    (keys.object_row(where, 7, key, 1, sequence), encode_object(row)),
                    (keys.blob_row(where, blob), encode_blob(Blob(size, 0, 0, 0, sha256, 1), os.urandom(size))),
                    (keys.reference_row(where, blob, reference), encode(Reference(where, 7, key, b"", 1))),
                    (keys.content_row(where, sha256), encode(Content(where, blob, size))),
                    (keys.answer_row(where, keys.command_id(sequence, blob[:10])), encode(Answer(1, bytes(60)))),
                ]
                came += size
            database.write(rows, True)
            if came >= told + (1 << 28):
                told = came
                print(f"| {came / (1 << 30):.2f} | {(written() - begun) / came:.1f} |", flush=True)
        print(f"\n{came / (1 << 20) / (time.monotonic() - started):.0f} MiB/s came in")
        database.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.small", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drives", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--ingest", type=float, default=0, metavar="GIB")
    parser.add_argument("--size", type=int, default=16_384)
    arguments = parser.parse_args()
    print(f"commit {commit()}, {machine()}; load {os.getloadavg()[0]:.0f}\n")
    if arguments.ingest:
        ingest(arguments.ingest, arguments.size)
    else:
        rates(arguments.drives, arguments.nodes, arguments.seconds, arguments.rounds, arguments.sizes)


if __name__ == "__main__":
    main()

"""`python -m bench.small`: what content in rows (`--small`) gives and costs.

    python -m bench.small [--drives 6 | --nodes 6] [--seconds 2] [--rounds 2]
    python -m bench.small --ingest 2 [--size 16384]

Two servers, without and with `--small 64KiB`, in turns on one machine: operations a second, their ratio, and processor
time of the server's processes for each operation, which others on the machine disturb less. `--ingest`: so many GiB of
such objects, each a turn's rows as the server makes them, put into LevelDB with the server's sizes: bytes that the
process wrote for each byte that came in, as it grows, and at the end what a read of any of them costs. A store in
shards writes a little more than one.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.load import Report, Work, command, commit, machine, processes, run, spent_s
from bench.peers import start_cluster, start_s4
from bench.turns import compared, in_turns

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

    def stop(self) -> None:
        self.peer.stop()

    def spent_s(self) -> float:
        return sum(spent_s(pid) for process in self.peer.processes for pid in processes(process.pid))

    def measure(self, work: Work, seconds: float) -> Report:
        """A report without the processor time that it takes at rest."""
        report = run(self.peer, work, seconds)
        report.cpu_s -= self.idle * report.ops / max(1.0, report.ops_per_s)
        return report


def rates(count: int, nodes: int, seconds: float, rounds: int, sizes: list[int]) -> None:
    before = {"put": 0, "get": 20, "delete": int(200 * seconds)}
    works = {
        f"{operation.upper()} {size >> 10} KiB": Work(operation, size, 16, objects)
        for operation, objects in before.items()
        for size in sizes
    }
    starts = {
        "shards": partial(Server, port=9300, small=0, count=count, nodes=nodes),
        "rows": partial(Server, port=9400, small=SMALL, count=count, nodes=nodes),
    }
    found = in_turns(starts, works, partial(Server.measure, seconds=seconds), rounds, beside=True)
    print("| | in shards /s | in rows /s | ratio | in shards µs | in rows µs | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, work in works.items():
        least, _, best = compared(found, name, work, starts)
        shown = (f"{both[0]:.0f} | {both[1]:.0f} | {both[1] / both[0]:.2f}" for both in (best, least))
        print(f"| {name} | {' | '.join(shown)} |")


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
    some: list[bytes] = []  # one of a hundred, to be read
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
                if sequence % 100 == 0:
                    some.append(keys.blob_row(where, blob))
            database.write(rows, True)
            if came >= told + (1 << 28):
                told = came
                print(f"| {came / (1 << 30):.2f} | {(written() - begun) / came:.1f} |", flush=True)
        print(f"\n{came / (1 << 20) / (time.monotonic() - started):.0f} MiB/s came in")
        random.shuffle(some)
        before_s = time.process_time()
        for row in some[:10_000]:
            database.get(row)
        print(
            f"{(time.process_time() - before_s) / len(some[:10_000]) * 1e6:.0f} µs of a processor to read one of them"
        )
        database.close()


def main() -> None:
    parser = command("small", __doc__)
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

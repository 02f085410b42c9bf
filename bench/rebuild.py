"""`python -m bench.rebuild`: how fast a replaced drive of six (4+2) is filled, and what that does to requests
meanwhile.

    python -m bench.rebuild [--gib 2]

A drive is wiped while the server is down; after the start GETs of 4 KiB go on while it is filled. Source bytes are
those read to reconstruct: four for each that is made. Figures are those of the server's own metrics.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from bench.load import Report, Work, command, commit, machine, run
from bench.peers import Peer, drives, start_s4

GETS = Work("get", 4096, 16, 2000)
ADMIN = "http://127.0.0.1:9101"


def metric(name: str) -> float:
    """The sum over labels of one of the server's metrics."""
    text = urllib.request.urlopen(f"{ADMIN}/metrics", timeout=30).read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def wipe(drive: str) -> None:
    """An empty drive where one was."""
    shutil.rmtree(drive)
    Path(drive).mkdir()


def main() -> None:
    parser = command("rebuild", __doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="data to put before")
    arguments = parser.parse_args()
    print(f"Commit {commit()}, {machine()}.\n")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "s4"
        running = [start_s4(directory, count=6)]
        try:
            measure(directory, running, arguments.gib)
        finally:
            running[0].stop()


def measure(directory: Path, running: list[Peer], gib: float) -> None:
    run(running[0], Work("get", 16 << 20, 4, int(gib * 64)), 0.1)
    before = run(running[0], GETS, 5)
    during: list[Report] = []
    for drive, busy in ((2, False), (3, True)):
        running[0].stop()
        wipe(drives(directory, 6)[drive])
        started = time.monotonic()
        running[0] = start_s4(directory, count=6)
        thread = threading.Thread(target=lambda: during.append(run(running[0], GETS, 4)))
        if busy:
            thread.start()
        while metric("s4_drives_filling") or metric("s4_heal_waiting"):
            time.sleep(0.2)
        took = time.monotonic() - started
        made, read = metric("s4_healed_bytes_total") / 1e6, metric("s4_heal_read_bytes_total") / 1e6
        print(
            f"- {'beside GETs' if busy else 'alone'}: {made:.0f} MB made from {read:.0f} MB in {took:.1f} s with the start: {read / took:.0f} MB/s of source, {made / took:.0f} MB/s made"
        )
        if busy:
            thread.join()
            after = during[0]
            print(
                f"- GET 4 KiB (16): p50 {before.p50_ms:.1f} ms before, {after.p50_ms:.1f} ms beside the filling; "
                f"p99 {before.p99_ms:.1f} and {after.p99_ms:.1f} ms"
            )


if __name__ == "__main__":
    main()

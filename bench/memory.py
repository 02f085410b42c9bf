"""S4's resident memory: idle, under 64 uploads of 64 MiB at once, during one upload of 5 GiB, and while listing."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.load import Work, run
from bench.peers import ACCESS, SECRET, Peer, start_s4
from s4.s3 import sigv4


def resident(peer: Peer) -> int:
    status = Path(f"/proc/{peer.processes[0].pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


def peak(peer: Peer, work: Callable[[], object]) -> int:
    """The largest resident size seen while `work` runs, looked at ten times a second."""
    seen, stop = [resident(peer)], threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            seen.append(resident(peer))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        stop.set()
        thread.join()
    return max(seen)


def put_large(peer: Peer, size: int) -> None:
    """One PUT of `size` bytes, streamed."""
    host = peer.endpoint.partition("//")[2]
    headers = {
        "host": host,
        "x-amz-content-sha256": sigv4.UNSIGNED,
        "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
    }
    headers["authorization"] = sigv4.authorization(ACCESS, SECRET, "us-east-1", "PUT", "/s3load/large", headers)
    connection = http.client.HTTPConnection(host, timeout=600)
    connection.putrequest("PUT", "/s3load/large", skip_host=True)
    for name, value in {**headers, "content-length": str(size)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    block = bytes(range(256)) * 4096
    for _ in range(size // len(block)):
        connection.send(block)
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"the upload was answered {answer.status}: {answer.read()[:300]!r}")
    connection.close()


def memory_figures(scratch: Path, drives: int) -> str:
    """A Markdown table of resident sizes in MiB."""
    peer = start_s4(scratch / "s4", count=drives)

    def load(work: Work, seconds: int) -> Callable[[], object]:
        return lambda: run(peer, work, seconds)

    try:
        rows = [("idle after start", resident(peer))]
        rows.append(("64 uploads of 64 MiB at once, 20 s", peak(peer, load(Work("put", 64 << 20, 64), 20))))
        rows.append(("the same, 20 s more", peak(peer, load(Work("put", 64 << 20, 64), 20))))
        rows.append(("one upload of 5 GiB", peak(peer, lambda: put_large(peer, 5 << 30))))
        rows.append(("64 downloads of 64 MiB at once, 10 s", peak(peer, load(Work("get", 64 << 20, 64, 4), 10))))
        rows.append(("lists of 20,000 keys, 5 s", peak(peer, load(Work("list", 100, 4, 20_000), 5))))
    finally:
        peer.stop()
    return f"| S4, {drives} drives | resident MiB |\n|---|---|\n" + "".join(
        f"| {name} | {size / (1 << 20):.0f} |\n" for name, size in rows
    )

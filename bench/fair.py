"""`python -m bench.fair [REVISION …]`: how long one tenant waits while another floods the server.

    python -m bench.fair 81ee94b [--seconds 8] [--flood 200]

For this tree, or each revision that is named, one server with two users, each with a bucket. One of them reads and
writes 8 KiB, one request after the other, alone and beside each of the other's floods; the median and the 95th
percentile of its latency in ms, and how many of its requests were refused. The flood comes from a process of its own,
of low priority, so that what is measured is the server's doing and not the machine's; `a second` is how many requests
of the flood were answered with 200. Whether a disk is slow, or others use it, is in these figures too:
`TMPDIR=/dev/shm` leaves it out.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.held import ROOT, Server
from bench.load import command, tree_of

SMALL, MIDDLE, LARGE = 8192, 4 << 20, 64 << 20


class Tenants(Server):
    """A server, and requests of two users."""

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        return self.head(method, path, "", len(body)) + body


async def _flood(host: str, raw: bytes, clients: int, seconds: float) -> int:
    """Sends one request again and again on each of so many connections, and says so once all have begun; how many were
    answered with 200. What is uploaded is another content each time: what was there before would be stored by a
    reference alone."""
    name, _, port = host.rpartition(":")
    changes = raw.startswith(b"PUT ")
    end, done, begun = time.monotonic() + seconds, 0, set[int]()

    async def client(number: int) -> None:
        nonlocal done
        while time.monotonic() < end:
            reader, writer = await asyncio.open_connection(name, int(port), limit=1 << 20)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while time.monotonic() < end:
                    writer.write(raw[:-8] + os.urandom(8) if changes else raw)
                    if number not in begun:
                        begun.add(number)
                        if len(begun) == clients:
                            print("begun", flush=True)
                    head = await reader.readuntil(b"\r\n\r\n")
                    left = int((re.search(rb"(?i)content-length: (\d+)", head) or [b"", b"0"])[1])
                    while left:
                        left -= len(await reader.readexactly(min(left, 1 << 18)))
                    done += head.startswith(b"HTTP/1.1 200")
                    if b"onnection: close" in head:
                        break
            writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return done


class Probe:
    """The tenant that asks for little."""

    def __init__(self, server: Tenants, access: str, secret: str) -> None:
        self._connection = http.client.HTTPConnection(server.host, timeout=600)
        self._server, self._access, self._secret = server, access, secret

    def run(self, method: str, path: str, body: bytes, seconds: float) -> tuple[float, float, int]:
        """Median and 95th percentile in ms, and refusals. A body is as long as the one that is given, and another
        each time: for what is there already a PUT is two commits."""
        self._connection.close()  # the server may have closed it meanwhile; the next request opens another
        took, refused, end = list[float](), 0, time.monotonic() + seconds
        while time.monotonic() < end:
            headers = self._server.signed(self._access, self._secret, method, path)
            began = time.perf_counter()
            self._connection.request(method, path, os.urandom(len(body)) if body else None, headers)
            answer = self._connection.getresponse()
            answer.read()
            took.append((time.perf_counter() - began) * 1000)
            refused += answer.status != 200
            time.sleep(0.005)  # it asks for little
        cut = statistics.quantiles(took, n=20) if len(took) > 1 else [took[0]] * 19
        return statistics.median(took), cut[18], refused


@contextlib.contextmanager
def flooding(
    server: Tenants, raw: bytes, clients: int, seconds: float, scratch: Path
) -> Iterator[subprocess.Popen[bytes]]:
    (scratch / "raw").write_bytes(raw)
    asked = [
        "nice",
        "-n",
        "5",
        sys.executable,
        "-m",
        "bench.fair",
        "--as-flood",
        server.host,
        str(scratch / "raw"),
        str(clients),
        str(seconds),
    ]
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.readline()  # it says so once all of its clients have asked
    try:
        yield process
    finally:
        process.wait()


def measure(server: Tenants, tree: Path, scratch: Path, clients: int, seconds: float) -> None:
    for bucket in ("flood", "calm"):
        server.ask("PUT", f"/{bucket}")
    for size, name in ((SMALL, "small"), (LARGE, "large")):
        server.ask("PUT", f"/flood/{name}", body=bytes(size))
    user = server.add_user(tree, "calm", "calm")
    probe = Probe(server, user["access_key"], user["secret_key"])
    probe.run("PUT", "/calm/small", os.urandom(SMALL), 1.0)
    floods = {
        "alone": (b"", 0),
        f"{clients} that read 8 KiB": (server.request("GET", "/flood/small"), clients),
        f"{clients} that write 8 KiB": (server.request("PUT", "/flood/new", os.urandom(SMALL)), clients),
        "32 that read 64 MiB": (server.request("GET", "/flood/large"), 32),
        "32 that write 4 MiB": (server.request("PUT", "/flood/much", os.urandom(MIDDLE)), 32),
    }
    for name, (raw, number) in floods.items():
        with flooding(server, raw, number, 2 * seconds + 3, scratch) if raw else contextlib.nullcontext() as process:
            get = probe.run("GET", "/calm/small", b"", seconds)
            put = probe.run("PUT", "/calm/new", os.urandom(SMALL), seconds)
        answered = (
            int(process.stdout.read()) / (2 * seconds + 3) if process is not None and process.stdout is not None else 0
        )
        print(
            f"| {name} | {get[0]:.1f} | {get[1]:.1f} | {put[0]:.1f} | {put[1]:.1f} | {get[2] + put[2]} | {answered:.0f} |",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] == ["--as-flood"]:
        host, path, clients, seconds = sys.argv[2:]
        print(asyncio.run(_flood(host, Path(path).read_bytes(), int(clients), float(seconds))))
        return
    parser = command("fair", __doc__)
    parser.add_argument("revisions", nargs="*")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--flood", type=int, default=200)
    arguments = parser.parse_args()
    for revision in arguments.revisions or [""]:
        with (
            tempfile.TemporaryDirectory(prefix="s4-fair-") as scratch,
            tree_of(revision) if revision else contextlib.nullcontext(ROOT) as tree,
        ):
            server = Tenants(tree, Path(scratch))
            print(
                f"\n| {revision or 'this tree'} | GET ms | p95 | PUT ms | p95 | refused | a second |\n|---|---|---|---|---|---|---|",
                flush=True,
            )
            try:
                measure(server, tree, Path(scratch), arguments.flood, arguments.seconds)
            finally:
                server.process.kill()
                server.process.wait()


if __name__ == "__main__":
    main()

"""`python -m bench.path [REVISION]`: what one small request costs the event loop of a server, beside another commit.

    python -m bench.path f08044e [--rounds 5] [--connections 8]

A whole S3 endpoint in one process, asked over one connection, or over several at once on the loop that servers run on:
the least time of the process over blocks of a hundred requests or more, its client's part included, which is the same
on both sides. What disturbs a machine only ever adds time, so that the least of many blocks tells trees apart where
operations a second do not. LIST is a page of 1,000 keys.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.load import ROOT, command, tree_of

NOW_S, STAMP = 1767225600.0, "20260101T000000Z"
BLOCKS, BLOCK, WARM = 25, 100, 100
LISTED = 1000
CALLS = {
    "GET 6 B": ("GET", "/bbb/k", b"", ""),
    "HEAD": ("HEAD", "/bbb/k", b"", ""),
    "PUT 1 KiB": ("PUT", "/bbb/n", b"x" * 1024, ""),
    "DELETE": ("DELETE", "/bbb/none", b"", ""),
    "LIST": ("GET", "/bbb?list-type=2&prefix=l/", b"", ""),
    "PUT 1 KiB, signed chunks": ("PUT", "/bbb/n", b"x" * 1024, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
    "PUT 1 KiB, chunks and a CRC32": ("PUT", "/bbb/n", b"x" * 1024, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
}


def signed(server: Any, method: str, target: str, body: bytes, chunks: str = "") -> bytes:
    from raw import encode_chunks  # noqa: PLC0415 - of the tree that is measured, as all that follows
    from s4.s3 import sigv4  # noqa: PLC0415

    payload = chunks or hashlib.sha256(body).hexdigest()
    headers = {"host": "localhost", "x-amz-date": STAMP, "x-amz-content-sha256": payload}
    if chunks:
        headers |= {"x-amz-decoded-content-length": str(len(body)), "content-encoding": "aws-chunked"}
    mode = "unsigned-trailer" if "TRAILER" in chunks else "signed"
    if mode == "unsigned-trailer":
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    headers["authorization"] = sigv4.authorization(server.access, server.secret, "us-east-1", method, target, headers)
    if chunks:
        told = {"X-Amz-Date": STAMP, "Authorization": headers["authorization"]}
        body = encode_chunks(told, server.secret, "us-east-1", body, mode)
    lines = [
        f"{method} {target} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"content-length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(server: Any) -> Streams:
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().connect_accepted_socket(server._server, theirs)
    return await asyncio.open_connection(sock=ours, limit=1 << 20)


async def ask(streams: Streams, raw: bytes, body: bool) -> None:
    reader, writer = streams
    writer.write(raw)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")):
        raise RuntimeError(head.decode())
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if body and length is not None:
        await reader.readexactly(int(length[1]))


async def measure(connections: int) -> None:
    """Runs where the tree's own daemon/ and tests/ are on the path; prints microseconds, in order of CALLS."""
    from fuzz.endpoint import endpoint  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as scratch:
        async with endpoint(Path(scratch), lambda: NOW_S) as server:
            made = [await connect(server) for _ in range(connections)]
            for number in range(LISTED):
                await ask(made[0], signed(server, "PUT", f"/bbb/l/{number:06}", b"x"), True)
            for name, (method, target, content, chunks) in CALLS.items():
                raw, body = signed(server, method, target, content, chunks), method != "HEAD"

                async def turn(raw: bytes = raw, body: bool = body) -> None:
                    if connections == 1:
                        await ask(made[0], raw, body)
                    else:
                        await asyncio.gather(*(ask(one, raw, body) for one in made))

                turns = 2 if name == "LIST" else BLOCK
                for _ in range(min(turns, WARM)):
                    await turn()
                gc.freeze()
                least = float("inf")
                for _ in range(BLOCKS):
                    began = time.thread_time()
                    for _ in range(turns):
                        await turn()
                    least = min(least, (time.thread_time() - began) / turns / connections)
                print(f"{least * 1e6:.1f}")
            for _, writer in made:
                writer.close()


def of_tree(tree: Path, connections: int) -> list[float]:
    path = os.pathsep.join((str(tree / "daemon"), str(tree / "tests"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "bench.path", "--measure", "--connections", str(connections)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    parser = command("path", __doc__)
    parser.add_argument("revision", nargs="?", default="HEAD")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--connections", type=int, default=1, help="how many ask at once, where more than one on uvloop [1]"
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        import uvloop  # noqa: PLC0415 - of the tree that is measured

        (asyncio.run if arguments.connections == 1 else uvloop.run)(measure(arguments.connections))
        return
    with tree_of(arguments.revision) as other:
        rounds = [
            (of_tree(ROOT, arguments.connections), of_tree(other, arguments.connections))
            for _ in range(arguments.rounds)
        ]
    print(
        f"| microseconds, least of {arguments.rounds} rounds | this tree | {arguments.revision} | ratio |\n|---|---|---|---|"
    )
    for number, name in enumerate(CALLS):
        mine, its = (min(one[side][number] for one in rounds) for side in (0, 1))
        print(f"| {name} | {mine:.0f} | {its:.0f} | {its / mine:.3f} |")


if __name__ == "__main__":
    main()

"""`python -m bench.rpc`: the peer protocol beside plain aiohttp, both over TLS 1.3 with certificates on both sides.

    python -m bench.rpc [--seconds 3]

Two processes on loopback. A small call finds a bucket; a large one reads 1 MiB of a shard. The aiohttp server
answers the same bytes from memory without looking for them, so it has the easier part. Beside the rates: microseconds
of a processor that a call costs, both processes together.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bench.load import command, commit, machine
from inprocess import opened
from s4.base.clock import boot_clock
from s4.crypto.authority import Authority
from s4.metadata import commands
from s4.peer.client import RemoteNode
from s4.peer.server import PeerServer
from s4.peer.trust import Credentials
from s4.storage.records import Shard

SHARD = Shard(0, b"b" * 16, 0, 0)
MIB = 1 << 20


def serve(directory: Path, files: tuple[Path, Path, Path], ready: Connection) -> None:
    """The other process."""

    async def whole() -> None:
        async with opened(directory) as (store, _):
            await store.node.execute(0, commands.CreateBucket("bucket", "root", 10, 10))
            body = os.urandom(MIB)
            await store.node.append(SHARD, body, True)
            small = b"x" * 120
            peers = PeerServer(store.node, ("127.0.0.1", 0), context=Credentials(*files).server)
            await peers.start()

            async def answer(request: web.BaseRequest) -> web.Response:
                return web.Response(body=body if request.path == "/large" else small)

            http = await asyncio.get_running_loop().create_server(
                web.Server(answer), "127.0.0.1", 0, ssl=Credentials(*files).server
            )
            ready.send((peers.port, http.sockets[0].getsockname()[1]))
            await asyncio.Event().wait()

    uvloop.run(whole())


def processor_s(pid: int) -> float:
    """Of this process and that one, so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return time.process_time() + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def rate(seconds: float, workers: int, pid: int, call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Calls a second, and seconds of a processor for each."""
    count, end, before = 0, time.monotonic() + seconds, processor_s(pid)

    async def work() -> None:
        nonlocal count
        while time.monotonic() < end:
            await call()
            count += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return count / seconds, (processor_s(pid) - before) / count


async def measure(ports: tuple[int, int], pid: int, context: ssl.SSLContext, seconds: float) -> None:
    remote = await RemoteNode.connect(("127.0.0.1", ports[0]), boot_clock, lambda: None, context=context)
    connector = aiohttp.TCPConnector(ssl=context, limit=16)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{ports[1]}", connector=connector) as session:

        async def http(path: str) -> bytes:
            async with session.get(path) as answer:
                return await answer.read()

        async def find() -> object:
            return await remote._call("find_bucket", "bucket")  # uncached

        works: list[tuple[str, int, float, Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]] = [
            ("small calls a second, 1 at a time", 1, 1, find, lambda: http("/small")),
            ("small calls a second, 16 at a time", 16, 1, find, lambda: http("/small")),
            (
                "reads of 1 MiB, MB/s, 4 at a time",
                4,
                MIB / 1e6,
                lambda: remote.read(SHARD, 0, MIB),
                lambda: http("/large"),
            ),
        ]
        print("| | frames | aiohttp | frames / aiohttp | µs | µs of aiohttp |\n|---|---|---|---|---|---|")
        for name, workers, unit, ours, theirs in works:
            found = [[await rate(seconds, workers, pid, call) for call in (ours, theirs)] for _ in range(3)]
            a, b = (max(turn[kind][0] for turn in found) * unit for kind in (0, 1))
            costs = " | ".join(f"{min(turn[kind][1] for turn in found) * 1e6:.0f}" for kind in (0, 1))
            print(f"| {name} | {a:.0f} | {b:.0f} | {a / b:.2f} | {costs} |")
    await remote.close()


def main() -> None:
    parser = command("rpc", __doc__)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    print(f"Commit {commit()}, {machine()}.\n")
    with tempfile.TemporaryDirectory() as scratch:
        authority = Authority(Path(scratch) / "authority")
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(Path(scratch) / "data", authority.issue("node"), theirs)
        )
        process.start()
        try:
            context = Credentials(*authority.issue("gateway")).client
            uvloop.run(measure(ours.recv(), process.pid or 0, context, arguments.seconds))
        finally:
            process.kill()
            process.join()


if __name__ == "__main__":
    main()

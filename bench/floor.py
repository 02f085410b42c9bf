"""`python -m bench.floor`: what each work costs at least in this design, beside S4 and MinIO in the same run.

    python -m bench.floor [--drives 6] [--seconds 3] [--rounds 2] [--only get-1k,put-1m]

The floor is a server of S4's port (its loop, parser and answers) with nothing behind it but what the work itself is:
for small writes a row in each copy of the metadata, synced, of all that wait together; for listings a walk over a
thousand rows and a line for each; for large writes one pass of hashes, the code, and synced records on each drive; for
large reads records with their checks. It looks at no signature, bucket, policy or older version, and finds nothing
again by its name. What S4 takes above it is S4's to save; where the floor is below a target, it cannot be met so.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop
from aiohttp.base_protocol import BaseProtocol

from bench.__main__ import WORK
from bench.load import Report, command, commit, machine, run
from bench.peers import Peer, drives, start_minio, start_s4, wait_for
from s4.config.limits import Limits
from s4.erasure.codec import codec, shard_length
from s4.gateway.buffers import StripeMemory
from s4.http.answers import Answer, respond, respond_xml
from s4.http.connection import Connections, Exchange
from s4.s3 import hashing
from s4.storage.files import Files
from s4.storage.leveldb import Database
from s4.storage.records import Shard
from s4.storage.shards import ShardSettings, ShardStore

PORT, MIB = 9400, 1 << 20
STRIPE, PIECE, SMALL = 2 * MIB, MIB, 64 * 1024
HEADERS = {"ETag": '"0"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "Content-Type": "a/b"}
ROW = bytes(300)  # of an object, without its bytes


class Floor:
    """An endpoint. Whatever is asked for again is the last that was put of its size."""

    def __init__(self, stores: list[ShardStore], copies: list[Database]) -> None:
        self._stores, self._copies = stores, copies
        parity = 2 if len(stores) == 6 else 0
        self._codec = codec(len(stores) - parity, parity)
        self._memory = StripeMemory(self._codec.memory_bytes(STRIPE))
        self._pool = ThreadPoolExecutor(8)
        self._numbers = itertools.count(1)
        self._waiting: list[tuple[tuple[bytes, bytes], asyncio.Future[None]]] = []
        self._writing = False
        self._last = (b"", 0)  # blob and size of the last large object
        self._small = b""
        rows = [(b"l%06d" % number, ROW) for number in range(1000)]
        for copy in copies:
            copy.write(rows)

    async def __call__(self, http: Exchange) -> Answer:
        length = int(http.headers.get("Content-Length", "0"))
        if http.method == "PUT" and length > SMALL:
            await self._keep(http)
        elif http.method in ("PUT", "DELETE"):
            body = await http.content.read()
            self._small = body or self._small
            await self._commit(ROW + body)
        elif "list-type" in http.raw_path:
            return self._list()
        elif http.method == "GET" and self._last[1]:
            return await self._send(http)
        else:
            return respond(200, dict(HEADERS), self._small)
        return respond(204 if http.method == "DELETE" else 200, dict(HEADERS))

    async def _commit(self, value: bytes) -> None:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(((b"o%012d" % next(self._numbers), value), done))
        if self._writing:
            await done
            return
        self._writing, loop = True, asyncio.get_running_loop()
        while self._waiting:
            turn, self._waiting = self._waiting, []
            rows = [row for row, _ in turn]
            await asyncio.gather(*(loop.run_in_executor(self._pool, copy.write, rows) for copy in self._copies))
            for _, future in turn:
                future.set_result(None)
        self._writing = False

    def _list(self) -> Answer:
        lines = [
            f"<Contents><Key>{key.decode()}</Key><Size>{len(value)}</Size></Contents>"
            for key, value in self._copies[0].scan(b"l", b"m")
        ]
        return respond_xml(f"<ListBucketResult>{''.join(lines)}</ListBucketResult>".encode())

    async def _keep(self, http: Exchange) -> None:
        loop, blob, stripes = asyncio.get_running_loop(), os.urandom(16), itertools.count()
        digest, memory, filled, size = hashing.new(content=True), self._memory.take(), 0, 0
        while True:
            data = await http.content.readany()
            while data:
                taken = data[: STRIPE - filled]
                memory[filled : filled + len(taken)] = taken
                filled, data, size = filled + len(taken), data[len(taken) :], size + len(taken)
                if filled == STRIPE:
                    await loop.run_in_executor(self._pool, digest.update, memory[:filled])
                    await self._append(blob, next(stripes), memory, filled, sync=False)
                    memory, filled = self._memory.take(), 0
            if http.content.at_eof():
                break
        if filled:
            digest.update(memory[:filled])
        await self._append(blob, next(stripes), memory, max(filled, 4096), sync=True)
        await self._commit(ROW + digest.md5() + digest.sha256())
        self._last = blob, int(http.headers.get("X-Amz-Decoded-Content-Length", size))  # a chunk's front is stored, too

    async def _append(self, blob: bytes, stripe: int, memory: memoryview, size: int, *, sync: bool) -> None:
        shards = self._codec.encode_in(memory, size, STRIPE)
        await asyncio.gather(
            *(
                store.append(Shard(0, blob, position, stripe), [shard], sync=sync)
                for position, (store, shard) in enumerate(zip(self._stores, shards, strict=True))
            )
        )

    async def _send(self, http: Exchange) -> Answer:
        blob, left = self._last
        answer = Answer(200, dict(HEADERS), b"", left)
        await answer.begin(http)
        for stripe in itertools.count():
            length = shard_length(min(STRIPE, left), self._codec.k)
            for position, start in itertools.product(range(self._codec.k), range(0, length, PIECE)):
                taken = min(PIECE, length - start, left)
                if not taken:
                    return answer
                await http.write(await self._stores[position].read(Shard(0, blob, position, stripe), start, taken))
                left -= taken
            if not left:
                break
        return answer

    def failed(self, http: Exchange, error: Exception) -> Answer:
        raise error

    def lost(self, connection: BaseProtocol) -> None: ...


async def serve(directories: list[str]) -> None:
    stores, copies = list[ShardStore](), list[Database]()
    settings = ShardSettings(mark=lambda: True)
    for directory in map(Path, directories):
        directory.mkdir(parents=True)
        stores.append(await ShardStore.open(Files(), directory, bytes(16), settings, lambda error: os._exit(1)))
        if len(copies) < (3 if len(directories) == 6 else 1):
            copies.append(
                Database(directory / "meta", cache_bytes=64 * MIB, write_buffer_bytes=16 * MIB, open_files=64)
            )
    connections = Connections(Floor(stores, copies), Limits())
    await asyncio.get_running_loop().create_server(connections, "127.0.0.1", PORT)
    await asyncio.Event().wait()


def start_floor(directory: Path, count: int) -> Peer:
    process = subprocess.Popen([sys.executable, "-m", "bench.floor", "--serve", *drives(directory, count)])
    wait_for(f"http://127.0.0.1:{PORT}/", process)
    return Peer("floor", "", f"http://127.0.0.1:{PORT}", [process])


def main() -> None:
    parser = command("floor", __doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--drives", type=int, default=1, help="directories: one, or six, which are 4+2")
    parser.add_argument("--only", default="get-1k,head,put-1k,put-4k,delete,list-1000,get-1m,get-64m,put-1m,put-64m")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        uvloop.run(serve(arguments.serve))
    print(f"Commit {commit()}, {machine()}; {arguments.drives} directories.\n")
    print("| work | floor | S4 | MinIO | floor / MinIO | S4 / MinIO | floor µs, s/GB | S4 | MinIO |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.only.split(","):
        measure(name, arguments)


def measure(name: str, arguments: argparse.Namespace) -> None:
    """One work, on servers of its own: what the floor keeps is the last that was put."""
    label, work = WORK[name]
    found: dict[str, list[Report]] = {"floor": [], "S4": [], "MinIO": []}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        peers = [
            start_floor(directory / "floor", arguments.drives),
            start_s4(directory / "s4", count=arguments.drives),
            start_minio(directory / "minio", arguments.drives),
        ]
        for _ in range(arguments.rounds):
            for peer in filter(None, peers):
                found[peer.name].append(run(peer, work, arguments.seconds))
                time.sleep(0.3)
        for peer in filter(None, peers):
            peer.stop()
    rates = [max([work.rate(report) for report in reports], default=0.0) for reports in found.values()]
    costs = [min([work.cost(report) for report in reports], default=0.0) for reports in found.values()]
    ratios = [f"{rate / rates[2]:.2f}" if rates[2] else "-" for rate in rates[:2]]
    shown = [f"{cost:.2f}" if work.is_large else f"{cost:.0f}" for cost in costs]
    print(f"| {label} | {' | '.join([*(f'{rate:.0f}' for rate in rates), *ratios, *shown])} |", flush=True)


if __name__ == "__main__":
    main()

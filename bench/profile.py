"""`python -m bench.profile get-1k`: where one core's time goes in S4, and what the bare HTTP library costs.

First the same requests against an aiohttp server whose handler answers from a constant: the floor under any
server on this library. Then S4 under cProfile, which slows it down but keeps the shares: time by layer.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop
from aiohttp import web

from bench.__main__ import WORK
from bench.load import command, run
from bench.peers import ACCESS, SECRET, Peer, wait_for
from s4.cli import main as cli

LAYERS = (
    ("s4/s3/sigv4", "signatures"),
    ("s4/s3/", "S3 protocol, other"),
    ("s4/http/", "HTTP layer of S4"),
    ("s4/audit", "audit log"),
    ("s4/gateway/", "gateway"),
    ("s4/metadata/", "metadata decisions"),
    ("s4/replica/", "writer loop"),
    ("s4/storage/", "storage"),
    ("s4/", "S4, other"),
    ("aiohttp/", "aiohttp"),
    ("multidict", "aiohttp"),
    ("yarl", "aiohttp"),
    ("prometheus_client/", "metrics"),
    ("asyncio/", "asyncio"),
    ("hmac_digest", "signatures"),
    ("HASH", "hashing of bodies"),
    ("openssl_", "signatures"),
    ("msgspec", "rows, encoded and decoded"),
    ("pwritev", "storage"),
    ("plyvel", "storage"),
)


def layer_of(name: tuple[str, int, str]) -> str:
    text = f"{name[0]} {name[2]}"
    return next((layer for part, layer in LAYERS if part in text), "interpreter and C code between")


async def bare(port: int) -> None:
    """An aiohttp server that does nothing but HTTP."""
    body = bytes(1024)

    async def handler(request: web.BaseRequest) -> web.Response:
        if request.method == "PUT":
            await request.read()
            return web.Response(headers={"ETag": '"0"'})
        return web.Response(
            body=body, headers={"ETag": '"0"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "Content-Type": "a/b"}
        )

    await asyncio.get_running_loop().create_server(web.Server(handler, access_log=None), "127.0.0.1", port)
    await asyncio.Event().wait()


def profiled(directory: str) -> None:
    """S4 under cProfile; SIGUSR1 prints the shares and ends it."""
    profile = cProfile.Profile()

    def stop() -> None:
        profile.disable()
        shares: dict[str, float] = {}
        for name, (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            shares[layer_of(name)] = shares.get(layer_of(name), 0.0) + own
        total = sum(shares.values())
        for layer, own in sorted(shares.items(), key=lambda item: -item[1]):
            print(f"| {layer} | {own / total:.0%} |")
        sys.stdout.flush()
        os._exit(0)

    async def announce(_: object) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop)
        profile.enable()

    cli._announce = announce
    sys.exit(cli.main(["server", directory, "--listen", "127.0.0.1:9100", "--admin-listen", "127.0.0.1:9101"]))


def main() -> None:
    parser = command("profile", __doc__)
    parser.add_argument("work", nargs="?", default="get-1k")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve == "bare":
        uvloop.run(bare(9400))
    elif arguments.serve:
        profiled(arguments.serve)
    else:
        report(arguments.work, arguments.seconds)


def report(work: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for serve, port, what in (
            ("bare", 9400, "aiohttp with an empty handler"),
            (str(Path(scratch) / "data"), 9100, "S4 under the profiler"),
        ):
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.profile", "--serve", serve],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET},
            )
            wait_for(f"http://127.0.0.1:{port}/healthz", process)
            peer = Peer(what, "", f"http://127.0.0.1:{port}", [process])
            print(f"{what}: {run(peer, WORK[work][1], seconds).ops_per_s:.0f} {work} a second", flush=True)
            process.send_signal(signal.SIGUSR1 if serve != "bare" else signal.SIGTERM)
            print(process.communicate()[0].decode(), end="")


if __name__ == "__main__":
    main()

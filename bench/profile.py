"""`python -m bench.profile get-1k`: where one core's time goes in S4, and the floors under it.

First, of small ones, the same requests against an aiohttp server whose handler answers from a constant, and against
S4's port with an endpoint that does so: what S4's processor time is above that is what S4 does to a request. Then S4 as
it is, and under cProfile, which slows it down but keeps the shares: time by layer.
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
from aiohttp.base_protocol import BaseProtocol

from bench.__main__ import WORK
from bench.load import command, commit, machine, run
from bench.peers import ACCESS, SECRET, Peer, wait_for
from s4.cli import main as cli
from s4.config.limits import Limits
from s4.http.answers import Answer, respond
from s4.http.connection import Connections, Exchange

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


HEADERS = {"ETag": '"0"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "Content-Type": "a/b"}
BODY = bytes(1024)
SERVED = {
    "aiohttp, a constant": 9400,
    "S4's port, a constant": 9401,
    "S4": 9100,
    "S4 under the profiler": 9100,
}
AIOHTTP, CONSTANT, PLAIN, PROFILED = SERVED


class Constant:
    """An endpoint that reads the body and answers the same."""

    async def __call__(self, http: Exchange) -> Answer:
        await http.content.read()
        return respond(200, dict(HEADERS), b"" if http.method == "PUT" else BODY)

    def failed(self, http: Exchange, error: Exception) -> Answer:
        raise error

    def lost(self, connection: BaseProtocol) -> None: ...


async def constant(port: int) -> None:
    """S4's port without S4."""
    await asyncio.get_running_loop().create_server(Connections(Constant(), Limits()), "127.0.0.1", port)
    await asyncio.Event().wait()


async def bare(port: int) -> None:
    """An aiohttp server that does nothing but HTTP."""

    async def handler(request: web.BaseRequest) -> web.Response:
        if request.method == "PUT":
            await request.read()
            return web.Response(headers=HEADERS)
        return web.Response(body=BODY, headers=HEADERS)

    await asyncio.get_running_loop().create_server(web.Server(handler, access_log=None), "127.0.0.1", port)
    await asyncio.Event().wait()


def serve(directory: str, profile: cProfile.Profile | None) -> None:
    """S4. Under a profiler SIGUSR1 prints the shares and ends it."""

    def stop(profile: cProfile.Profile) -> None:
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
        if profile is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop, profile)
            profile.enable()

    cli._announce = announce
    sys.exit(cli.main(["server", directory, "--listen", "127.0.0.1:9100", "--admin-listen", "127.0.0.1:9101"]))


def main() -> None:
    parser = command("profile", __doc__)
    parser.add_argument("work", nargs="?", default="get-1k", choices=WORK)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.serve:
        report(arguments.work, arguments.seconds)
        return
    what, directory = arguments.serve
    if what in (AIOHTTP, CONSTANT):
        uvloop.run((bare if what == AIOHTTP else constant)(SERVED[what]))
    else:
        serve(directory, cProfile.Profile() if what == PROFILED else None)


def report(name: str, seconds: float) -> None:
    work = WORK[name][1]
    print(f"{commit()}, {machine()}\n\n| {name} | a second | {'s/GB' if work.is_large else 'µs'} |\n|---|---|---|")
    for what, port in SERVED.items():
        if work.is_large and what in (AIOHTTP, CONSTANT):
            continue  # what costs there is the bytes: the constants are small
        with tempfile.TemporaryDirectory() as scratch:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.profile", "--serve", what, str(Path(scratch) / "data")],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET},
            )
            wait_for(f"http://127.0.0.1:{port}/healthz", process)
            peer = Peer(what, "", f"http://127.0.0.1:{port}", [process])
            found = run(peer, work, seconds)
            print(f"| {what} | {work.rate(found):.0f} | {work.cost(found):.2f} |", flush=True)
            process.send_signal(signal.SIGUSR1 if what == PROFILED else signal.SIGTERM)
            said = process.communicate()[0].decode()
    print(f"\n| of its time | |\n|---|---|\n{said}", end="")


if __name__ == "__main__":
    main()

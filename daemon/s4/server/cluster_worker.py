"""Entry of one more gateway process: `python -m s4.server.cluster_worker SETTINGS`, started by `s4 gateway --workers`
and by nobody else. It is a gateway as that one is, on the same S3 port, without an admin port, and ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec
import uvloop

from s4.server.cluster import ClusterServer, ClusterSettings, run_cluster


async def _announce(server: ClusterServer) -> None:
    loop = asyncio.get_running_loop()
    for number, everything in ((signal.SIGUSR1, True), (signal.SIGUSR2, False)):
        loop.add_signal_handler(number, server.set_access_log, everything)
    os.write(sys.stdin.fileno(), b"u")


async def _run(settings: ClusterSettings, environment: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()

    def alone() -> None:  # a socket that nobody writes to: its gateway ended, maybe while this one waits for a map
        loop.remove_reader(sys.stdin.fileno())
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(sys.stdin.fileno(), alone)
    await run_cluster(settings, environment, _announce)


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1].encode(), type=ClusterSettings)
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    uvloop.run(_run(settings, environment))


if __name__ == "__main__":
    main()

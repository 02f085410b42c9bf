"""Entry of a gateway process: `python -m s4.server.worker SETTINGS SOCKET`, started by the server and by nobody
else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from prometheus_client import CollectorRegistry

from s4.config.listening import listening_socket
from s4.gateway.context import Readers
from s4.peer.client import RemoteNode
from s4.server.heap import settle_garbage_collector
from s4.server.parts import S3Endpoint, ServerSettings, make_gateway, prepare_process
from s4.telemetry.audit import AuditLog


async def run_worker(settings: ServerSettings, socket_path: Path, say: Callable[[], Any]) -> None:
    """Run one gateway process of a server with workers."""
    stop = prepare_process(settings)
    readers = Readers()
    node = await RemoteNode.connect(socket_path, readers.oldest, stop.set)
    gateway = make_gateway(node, await node.layout(), settings, readers)
    gateway.far = True
    audit = AuditLog(settings.audit_log)
    endpoint = S3Endpoint(settings, gateway, CollectorRegistry(), audit, lambda: "")
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, endpoint.reload)
    for number, everything in ((signal.SIGUSR1, True), (signal.SIGUSR2, False)):
        asyncio.get_running_loop().add_signal_handler(number, endpoint.set_access_log, everything)
    await endpoint.start(listening_socket(settings.listen, shared=True))
    settle_garbage_collector()
    say()
    await stop.wait()
    await endpoint.close()
    await node.close()
    gateway.pool.shutdown()
    audit.close()


def _say() -> None:
    os.write(sys.stdin.fileno(), b"u")


def main() -> None:
    uvloop.run(run_worker(msgspec.json.decode(sys.argv[1].encode(), type=ServerSettings), Path(sys.argv[2]), _say))


if __name__ == "__main__":
    main()

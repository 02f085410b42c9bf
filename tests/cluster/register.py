"""A process for tests: one store's replicas over real LevelDB, TCP with TLS and etcd, with registers on top of them.

    python register.py '{"store": ..., "directory": ..., ...}'

HTTP on loopback: POST /do runs a command, GET /state tells what it knows, POST /cut drops what is exchanged with the
stores that it names, or with "etcd".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from s4.cluster.coordinator import CoordinatorError, UnknownOutcomeError
from s4.cluster.etcd import EtcdCoordinator
from s4.cluster.messages import AnyMessage
from s4.peer.api import UnknownResultError
from s4.peer.links import Links
from s4.peer.server import PeerServer
from s4.peer.trust import Credentials
from s4.replica.group import Group, View
from s4.replica.terms import NotServingError, Timing, TooFewError
from s4.storage.leveldb import Database

TIMING = Timing(
    beacon=0.15, lease=0.6, grace=0.9, resend=0.2
)  # the proportions of the real ones, to fit more into a test


def die(error: BaseException) -> None:
    traceback.print_exception(error)
    os._exit(70)


class CutOff(EtcdCoordinator):
    """etcd as it is seen over a link that may be cut."""

    def __init__(self, endpoints: list[str], prefix: str, cut: Callable[[], set[str]]) -> None:
        super().__init__(endpoints, prefix)
        self._cut = cut

    async def read(self, document: str) -> tuple[bytes, int]:
        if "etcd" in self._cut():
            raise CoordinatorError("cut off")
        return await super().read(document)

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        if "etcd" in self._cut():
            raise UnknownOutcomeError("cut off")
        return await super().replace(document, value, revision)


class Register:
    """What PeerServer sees as a node; and the commands."""

    on_settings = None

    def __init__(self, settings: dict[str, Any]) -> None:
        self.store, self.cut = settings["store"], set[str]()
        self.stale: bool = settings["stale"]  # planted: reads are answered by whoever is asked
        self.partitions: int = settings["partitions"]
        trust = [Path(settings["trust"]) / name for name in ("ca.pem", "node.pem", "node.key")]
        addresses = {store: tuple(address) for store, address in settings["addresses"].items()}
        self.links = Links(self.store, "cluster", addresses, Credentials(*trust).client)
        database = Database(Path(settings["directory"]), cache_bytes=1 << 20, write_buffer_bytes=4 << 20, open_files=50)
        self.database = database
        self.group = Group(
            self.store,
            database,
            CutOff(settings["etcd"], "s4/register", lambda: self.cut),
            self.send,
            partitions=self.partitions,
            clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
            fatal=die,
            timing=TIMING,
        )
        self.server = PeerServer(
            self, addresses[self.store], cluster="cluster", store=self.store, context=Credentials(*trust).server
        )  # type: ignore[arg-type]

    def may_cache(self) -> bool:
        return False

    def send(self, store: str, partition: int, message: AnyMessage) -> None:
        if store not in self.cut:
            self.links.send(store, partition, message)

    async def deliver(self, sender: str, messages: list[tuple[int, AnyMessage]]) -> None:
        if sender not in self.cut:
            self.group.deliver(sender, messages)

    async def do(self, request: web.Request) -> web.Response:
        told = await request.json()
        try:
            return web.json_response({"result": await self.command(**told)})
        except (NotServingError, TooFewError, UnknownResultError) as error:
            return web.json_response({"again": str(error)})

    async def command(self, id: str, attempt: int, kind: str, key: str, value: str) -> Any:
        partition = zlib.crc32(key.encode()) % self.partitions
        number = partition.to_bytes(2, "big")
        row, answer = number + b"k" + key.encode(), number + b"a" + id.encode()
        if kind == "get":
            found = self.database.get(row) if self.stale else self.group.read(partition, row)
            return found.decode() if found is not None else None
        result = True

        def decide(view: View) -> list[tuple[bytes, bytes | None]]:
            nonlocal result
            known = view(answer)
            if known is not None:  # R12
                result = known == b"1"
                return []
            if kind == "create" and view(row) is not None:
                result = False
                return [(answer, b"0")] if attempt > 1 else []
            return [(row, None if kind == "delete" else value.encode()), (answer, b"1")]

        await self.group.write(partition, decide)
        return result

    async def state(self, _: web.Request) -> web.Response:
        replicas = [self.group.replica(partition) for partition in range(self.partitions)]
        return web.json_response(
            [
                {
                    "serves": self.group.serves(partition),
                    "epoch": replica.state.epoch,
                    "commit": replica.state.commit,
                    "last": replica.last,
                    "in_sync": list(replica.document.config.in_sync) if replica.document else [],
                    "alarm": replica.alarm,
                    "rows": sorted(
                        (key.hex(), value.hex())
                        for key, value in self.database.scan(
                            partition.to_bytes(2, "big"), (partition + 1).to_bytes(2, "big")
                        )
                    ),
                }
                for partition, replica in enumerate(replicas)
            ]
        )

    async def cut_off(self, request: web.Request) -> web.Response:
        self.cut = set(await request.json())
        return web.json_response({})


async def main(settings: dict[str, Any]) -> None:
    node = Register(settings)
    app = web.Application()
    app.add_routes([web.post("/do", node.do), web.get("/state", node.state), web.post("/cut", node.cut_off)])
    runner = web.AppRunner(app)
    await runner.setup()
    await node.server.start()
    await node.group.start()
    await web.TCPSite(runner, *settings["http"]).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))

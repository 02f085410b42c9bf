"""What replicas say to each other, over connections that break or never come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from inprocess import opened, until
from s4.cluster.messages import AnyMessage, Leave
from s4.crypto.authority import Authority
from s4.peer.links import Links
from s4.peer.server import PeerServer
from s4.peer.trust import Credentials

CLUSTER, STORE, ME = "c" * 32, "5" * 32, "6" * 32


@pytest.fixture
def silent() -> Iterator[int]:
    """A port at which nobody ever answers, as where a host is away or a network is cut: no packet comes back."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]  # beyond what it takes: the kernel drops whatever else comes
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(listening.getsockname())
    yield listening.getsockname()[1]
    for one in (*waiting, listening):
        one.close()


class Addresses(dict[str, tuple[str, int]]):
    """`asked` is how often somebody wanted to know where a store is."""

    asked = 0

    def __getitem__(self, store: str) -> tuple[str, int]:
        self.asked += 1
        return super().__getitem__(store)


def test_a_store_that_is_elsewhere_by_now_is_not_waited_for_where_it_was(tmp_path: Path, silent: int) -> None:
    """Else a connection that was begun while its host was away hangs for two minutes, though the store is back: its
    replicas are told nothing, and where two of three are meant nothing of their partitions is served."""

    async def whole() -> None:
        authority = Authority(tmp_path / "authority")
        told: list[tuple[str, AnyMessage]] = []
        async with opened(tmp_path / "data") as (store, _):

            async def deliver(sender: str, messages: list[tuple[int, AnyMessage]]) -> None:
                told.extend((sender, message) for _, message in messages)

            store.node.deliver = deliver  # type: ignore[method-assign]
            context = Credentials(*authority.issue("node")).server
            server = PeerServer(store.node, ("127.0.0.1", 0), cluster=CLUSTER, store=STORE, context=context)
            await server.start()
            addresses = Addresses({STORE: ("127.0.0.1", silent)})
            links = Links(ME, CLUSTER, addresses, Credentials(*authority.issue("node")).client)
            try:
                links.send(STORE, 0, Leave(1))
                await until(lambda: addresses.asked)
                addresses[STORE] = "127.0.0.1", server.port

                def tell() -> bool:
                    links.send(STORE, 0, Leave(1))
                    return (ME, Leave(1)) in told

                await until(tell)
            finally:
                await links.close()
                await server.close()

    asyncio.run(whole())

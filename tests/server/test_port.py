"""Connections that the loop takes itself: what they cost, who gives way, and who is refused."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvloop
from aiohttp.base_protocol import BaseProtocol

from inprocess import until
from s4.http.port import Port

GIVEN_UP_S = 60.0


class Silent(BaseProtocol):
    """A server's side of a connection, which says when it is lost."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        super().__init__(asyncio.get_running_loop())
        self._port = port

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._port.lost(self)


async def read(client: socket.socket) -> bytes:
    """All that comes until its end; what is reset has ended too."""
    client.setblocking(False)
    loop, found = asyncio.get_running_loop(), b""
    async with asyncio.timeout(GIVEN_UP_S):
        while more := await loop.sock_recv(client, 1000):
            found += more
    return found


def test_sockets_that_say_nothing_cost_no_task_each() -> None:
    async def test() -> None:
        made: list[Any] = []

        def count(loop: asyncio.AbstractEventLoop, coroutine: Any, **given: Any) -> asyncio.Task[Any]:
            made.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **given)

        bound = socket.create_server(("127.0.0.1", 0), backlog=200)
        port = Port(bound, None, most=200, first_s=600.0, backlog=200)
        await port.serve(lambda: Silent(port))
        asyncio.get_running_loop().set_task_factory(count)
        clients = [socket.create_connection(bound.getsockname()) for _ in range(100)]
        await until(lambda: port.count == 100)
        assert not made
        for client in clients:
            client.close()
        await until(lambda: port.count == 0)
        await port.close()

    uvloop.run(test())


def test_who_is_silent_longest_gives_way_and_who_finds_no_place_is_told() -> None:
    async def test() -> None:
        protocols: list[Silent] = []

        def make() -> Silent:
            protocols.append(Silent(port))
            return protocols[-1]

        bound = socket.create_server(("127.0.0.1", 0))
        port = Port(bound, None, most=2, first_s=600.0, refusal=lambda: b"no place")
        await port.serve(make)
        address = bound.getsockname()
        first = socket.create_connection(address)
        await until(lambda: protocols and protocols[0].transport)
        second = socket.create_connection(address)
        await until(lambda: len(protocols) == 2 and protocols[1].transport)
        third = socket.create_connection(address)
        assert await read(first) == b""
        await until(lambda: protocols[0].transport is None)
        for protocol in protocols[1:]:
            port.begins(protocol)
        fourth = socket.create_connection(address)
        assert await read(fourth) == b"no place"
        assert (len(protocols), port.count) == (3, 2)
        port.ends(protocols[2])
        fifth = socket.create_connection(address)
        assert await read(third) == b""
        for client in (first, second, third, fourth, fifth):
            client.close()
        await port.close()

    uvloop.run(test())


def test_who_brings_no_request_is_ended() -> None:
    async def test() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        port = Port(bound, None, most=2, first_s=0.05)
        await port.serve(lambda: Silent(port))
        with socket.create_connection(bound.getsockname()) as client:
            assert await read(client) == b""
        assert port.count == 0
        await port.close()

    uvloop.run(test())

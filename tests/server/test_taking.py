"""Clients that take what they are sent too slowly, over real sockets with small buffers; how long they are waited for
is a clock of the test's, or is without an end. What is waited for here is that they are gone, never that they are
still there."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol

from fuzz.endpoint import Endpoint, endpoint
from inprocess import put, until
from s4.config.limits import KIB, Limits
from s4.http.answers import Answer, respond
from s4.http.connection import Connections, Exchange
from s4.http.port import Port
from s4.http.taking import Taking

LARGE = 8 << 20
GIVEN_UP_S = 60.0


class Clock:
    """Each look at it is a hundred seconds after the last."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 100.0
        return self.now


def _tcp() -> tuple[socket.socket, socket.socket]:
    """The client's end, whose kernel takes little, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(listening.getsockname())
        theirs, _ = listening.accept()
        ours = made.dup()
    for one in (ours, theirs):
        one.setblocking(False)
    return ours, theirs


@asynccontextmanager
async def _connected(
    server: Endpoint, limits: Limits, clock: Callable[[], float] | None = None, *, counted: bool = False
) -> AsyncIterator[tuple[socket.socket, Connections]]:
    memory = server.gateway.memory if counted else None
    made = Connections(server._server.endpoint, limits, clock, memory)
    ours, theirs = _tcp()
    with ours:
        await asyncio.get_running_loop().connect_accepted_socket(made, theirs)
        try:
            yield ours, made
        finally:
            await made.shutdown(0.0)


async def _takes_all(one: socket.socket) -> int:
    """Bytes until there come no more."""
    taken, loop = 0, asyncio.get_running_loop()
    while taken < LARGE and (data := await loop.sock_recv(one, 16 * KIB)):
        taken += len(data)
    return taken


@pytest.mark.parametrize(("least", "ends"), [(40 * KIB, True), (100, False)])
def test_a_download_is_ended_whose_client_takes_less_than_the_least_and_no_other(
    tmp_path: Path, least: int, ends: bool
) -> None:
    async def test() -> int:
        limits = Limits(stall_s=250.0, least_rate_bytes=least)
        async with endpoint(tmp_path, time.time, limits) as server:
            await put(server.gateway, "bbb", b"large", bytes(LARGE))
            async with _connected(server, limits, Clock()) as (one, _):
                one.send(server.signed("GET", "/bbb/large"))
                try:
                    return await _takes_all(one)
                except ConnectionError:
                    return 0

    taken = asyncio.run(test())
    assert (taken < LARGE) == ends


@pytest.mark.parametrize(
    ("count", "what"), [(40, "waits for room"), (3, "has ended, and what is left of it stands here")]
)
def test_who_takes_nothing_of_small_answers_holds_them_for_a_while_only(tmp_path: Path, count: int, what: str) -> None:
    """They have no end of their own, as a download has; nor has a connection that closes."""

    async def test() -> None:
        limits = Limits(stall_s=0.3)
        async with endpoint(tmp_path, time.time, Limits()) as server, _connected(server, limits) as (one, made):
            (connection,) = made.open
            asked = [server.signed("GET", "/bbb/big")] * (count - 1) + [
                server.signed("GET", "/bbb/big", {"connection": "close"})
            ]
            loop = asyncio.get_running_loop()
            sending = asyncio.ensure_future(loop.sock_sendall(one, b"".join(asked)))
            await until(lambda: connection.written >= min(count, 3) * 100_000 or not made.open)
            assert not made.open or connection.transport.get_write_buffer_size(), what  # type: ignore[union-attr]
            await until(lambda: not made.open)
            sending.cancel()

    asyncio.run(test())


def test_a_whole_answer_that_nobody_takes_counts_and_gives_way(tmp_path: Path) -> None:
    """Listings were nobody's memory: as many as anybody had connections for."""

    async def test() -> None:
        limits = Limits(stall_s=600.0)
        async with (
            endpoint(tmp_path, time.time, limits) as server,
            _connected(server, limits, counted=True) as (one, made),
        ):
            memory = server.gateway.memory
            for number in range(300):
                await put(server.gateway, "bbb", b"%0900d" % number, b"")
            await asyncio.get_running_loop().sock_sendall(one, server.signed("GET", "/bbb") * 5)
            await until(lambda: memory.waiting and memory.used_bytes)
            async with asyncio.timeout(GIVEN_UP_S):
                await memory.take(memory.limit_bytes)
            await until(lambda: not made.open)
            memory.give_back(memory.limit_bytes)
            assert (memory.used_bytes, memory.waiting, memory.ending_bytes) == (0, 0, 0)

    asyncio.run(test())


def test_a_connection_that_closes_over_what_nobody_took_gives_way_as_others_do(tmp_path: Path) -> None:
    """It was not counted any more, and kept its descriptor: as many as anybody liked."""

    async def test() -> None:
        limits = Limits(stall_s=600.0)
        async with endpoint(tmp_path, time.time, limits) as server:
            made, bound = Connections(server._server.endpoint, limits), socket.create_server(("127.0.0.1", 0))
            port = Port(bound, None, most=1, first_s=600.0)
            port.start(made)
            with socket.socket() as first, socket.socket() as second:
                first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                first.connect(bound.getsockname())
                asked = [server.signed("GET", "/bbb/big")] * 2 + [
                    server.signed("GET", "/bbb/big", {"connection": "close"})
                ]
                first.send(b"".join(asked))
                await until(lambda: any(one.transport is not None and one.transport.is_closing() for one in made.open))
                (closing,) = made.open
                second.connect(bound.getsockname())
                await until(lambda: closing not in made.open)
            await port.close()
            await made.shutdown(0.0)

    asyncio.run(test())


def _judged(left: Callable[[], int], take: Callable[[], Any], ends: tuple[socket.socket, socket.socket]) -> bool:
    """Whether a client is ended that `take`s while it is waited for, once and again."""

    async def test() -> bool:
        clock, ended = Clock(), list[bool]()
        ours, theirs = ends
        with ours, theirs:
            theirs.setblocking(False)
            theirs.send(bytes(LARGE))
            one = Taking(Limits(stall_s=60.0, least_rate_bytes=10), theirs, left, lambda: ended.append(True), clock)
            one.waits()
            take()
            one.goes_on()
            one.stop()
            return bool(ended)

    return asyncio.run(test())


def test_what_counts_is_what_the_clients_machine_has_taken() -> None:
    counted = iter(range(0, 1 << 40, 1 << 30))
    assert _judged(lambda: next(counted), lambda: None, _tcp()), "a gigabyte more went to the kernel each time"
    ends = _tcp()

    def reads() -> None:
        for _ in range(4):
            ends[0].setblocking(True)
            ends[0].recv(4096, socket.MSG_WAITALL)

    assert not _judged(lambda: 0, reads, ends)


def test_where_the_kernel_does_not_say_what_has_left_us_counts() -> None:
    counted = iter(range(0, 1 << 40, 1 << 30))
    assert not _judged(lambda: next(counted), lambda: None, socket.socketpair())
    assert _judged(lambda: 0, lambda: None, socket.socketpair())


def test_nothing_is_answered_or_said_where_the_client_left_before_its_answer_began() -> None:
    """It was logged as an error that nobody expected."""
    failed: list[Exception] = []

    class Leaving:
        async def __call__(self, http: Exchange) -> Answer:
            assert http.transport is not None
            http.transport.abort()
            await respond(200, {}, b"x").begin(http)
            raise AssertionError("written to nobody")

        def failed(self, http: Exchange, error: Exception) -> Answer:
            failed.append(error)
            return respond(500)

        def lost(self, connection: BaseProtocol) -> None:
            pass

    async def test() -> None:
        made, (ours, theirs) = Connections(Leaving(), Limits()), _tcp()
        with ours:
            await asyncio.get_running_loop().connect_accepted_socket(made, theirs)
            ours.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: not made.open)

    asyncio.run(test())
    assert failed == []

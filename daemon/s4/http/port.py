"""Who may come to a port and how long they may say nothing: the connections of one bound socket, with a bound on their
number.

A connection counts from when it is taken, its handshake included. It has `first_s` to bring its first whole request;
the HTTP server bounds how long it may wait for later ones. When all connections are taken, the one that has waited
longest without a request in progress gives way to who comes: nobody holds the port by saying nothing. Only where a
request is in progress on every one of them is a newcomer refused.

For editors: whoever serves requests calls `begins` and `ends` around each with its connection's protocol. What is in
`_idle` is in the order in which it fell silent. Beside a protocol stands its socket, or the port's own for what the
loop took (`serve`): of that `lost` alone says that it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp.base_protocol import BaseProtocol

log = logging.getLogger(__name__)

RETRY_S = 0.1
AT_ONCE = 64  # connections are taken, then others have their turn
_HELLO = b"\x16"  # a TLS record with a handshake


class Port:
    """`start` begins to take connections for the server of HTTP that `make` makes protocols of.

    Without `context` it speaks plain HTTP only; `mixed` takes both, and the first byte says which. `refusal` is told
    to who finds no place, where that needs no handshake; `plain` to who speaks no TLS where it is needed.
    """

    def __init__(
        self,
        bound: socket.socket,
        context: ssl.SSLContext | None,
        *,
        most: int,
        first_s: float,
        backlog: int = 128,
        mixed: bool = False,
        refusal: Callable[[], bytes] = bytes,
        plain: Callable[[], bytes] = bytes,
    ) -> None:
        self._bound, self._context, self._mixed, self._refusal = bound, context, mixed, refusal
        self._plain = plain
        self._most, self._first_s, self._backlog = most, first_s, backlog
        self._idle: dict[BaseProtocol, socket.socket] = {}  # silent longest first
        self._busy: dict[BaseProtocol, socket.socket] = {}
        self._first: dict[BaseProtocol, asyncio.TimerHandle] = {}  # who has not brought a request yet
        self._beginning: set[asyncio.Task[None]] = set()
        self._taking = False
        self._server: asyncio.Server | None = None  # that takes connections, where the loop does

    @property
    def count(self) -> int:
        """Connections that are open, or were when somebody looked last."""
        return len(self._idle) + len(self._busy)

    def start(self, make: Callable[[], BaseProtocol]) -> None:
        self._taking = True
        self._bound.setblocking(False)
        self._bound.listen(self._backlog)
        asyncio.get_running_loop().add_reader(self._bound, self._accept, make)

    async def serve(self, make: Callable[[], BaseProtocol]) -> None:
        """As `start`, for a server that says `lost` of each connection. The loop takes what needs no handshake itself,
        for half of what it costs here: thousands of sockets that say nothing hold others up for less."""
        if self._context is not None:
            self.start(make)
            return
        self._server = await asyncio.get_running_loop().create_server(
            partial(self._taken, make), sock=self._bound, backlog=self._backlog
        )

    def _taken(self, make: Callable[[], BaseProtocol]) -> asyncio.BaseProtocol:
        return self._count(make(), self._bound) if self._make_room() else _Refused(self._refusal())

    def stop(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()
        if self._taking:
            self._taking = False
            asyncio.get_running_loop().remove_reader(self._bound)
        self._bound.close()

    async def close(self) -> None:
        """What has begun no request ends too; the rest is for the server of HTTP to end."""
        self.stop()
        for timer in self._first.values():
            timer.cancel()
        for task in self._beginning:
            task.cancel()
        await asyncio.gather(*self._beginning, return_exceptions=True)

    def begins(self, protocol: BaseProtocol) -> None:
        """A request is in progress."""
        timer = self._first.pop(protocol, None)
        if timer is not None:
            timer.cancel()
        connection = self._idle.pop(protocol, None)
        if connection is not None:
            self._busy[protocol] = connection

    def ends(self, protocol: BaseProtocol) -> None:
        connection = self._busy.pop(protocol, None)
        if connection is not None and connection.fileno() >= 0:
            self._idle[protocol] = connection

    def lost(self, protocol: BaseProtocol) -> None:
        """A connection is closed. Where nobody says so, it is found when room is looked for."""
        self._busy.pop(protocol, None)
        self._forget(protocol)

    def _accept(self, make: Callable[[], BaseProtocol]) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left
                log.warning("no connection is taken: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._bound)
                loop.call_later(RETRY_S, self._again, make)
                return
            self._take(connection, make)

    def _again(self, make: Callable[[], BaseProtocol]) -> None:
        if self._taking:
            asyncio.get_running_loop().add_reader(self._bound, self._accept, make)

    def _take(self, connection: socket.socket, make: Callable[[], BaseProtocol]) -> None:
        connection.setblocking(False)
        if not self._make_room():
            if self._context is None:
                with contextlib.suppress(OSError):
                    connection.send(self._refusal())
            connection.close()
            return
        protocol = self._count(make(), connection)
        task = asyncio.create_task(self._begin(protocol, connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    def _count(self, protocol: BaseProtocol, connection: socket.socket) -> BaseProtocol:
        self._idle[protocol] = connection
        self._first[protocol] = asyncio.get_running_loop().call_later(self._first_s, self._end, protocol)
        return protocol

    def _make_room(self) -> bool:
        if self.count < self._most:
            return True
        for protocol, connection in list(self._idle.items()):
            if connection.fileno() < 0:  # one that closes still has its descriptor, and what its client has not taken
                self._forget(protocol)
        if self.count < self._most:
            return True
        silent = next((one for one, held in self._idle.items() if held is not self._bound or one.transport), None)
        if silent is not None:
            self._end(silent)
        return silent is not None

    def _forget(self, protocol: BaseProtocol) -> None:
        self._idle.pop(protocol, None)
        timer = self._first.pop(protocol, None)
        if timer is not None:
            timer.cancel()

    def _end(self, protocol: BaseProtocol) -> None:
        """It said nothing for too long, or others come."""
        connection = self._idle.get(protocol)
        self._forget(protocol)
        if connection is None:
            return
        if protocol.transport is not None:
            protocol.transport.abort()
        elif (
            connection is not self._bound and connection.fileno() >= 0
        ):  # it waits for its first byte, or is in its handshake: both see the end
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    async def _begin(self, protocol: BaseProtocol, connection: socket.socket) -> None:
        loop, context = asyncio.get_running_loop(), self._context
        try:
            if context is not None and await _peek(connection) not in (_HELLO, b""):
                if not self._mixed:
                    await self._answer_plain(connection)
                    raise ConnectionResetError  # it was told
                context = None
            if protocol not in self._idle:
                raise ConnectionResetError  # it had to give way meanwhile
            await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._first_s if context is not None else None,
            )
        except (OSError, TimeoutError):  # a handshake that fails included
            self._forget(protocol)
            connection.close()
        except BaseException:
            self._forget(protocol)
            connection.close()
            raise
        else:
            if protocol not in self._idle and protocol not in self._busy and protocol.transport is not None:
                protocol.transport.abort()  # the same

    async def _answer_plain(self, connection: socket.socket) -> None:
        """Say in HTTP that HTTP is not spoken here. What it sends is read meanwhile, or the answer would be lost."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, self._plain())
        connection.shutdown(socket.SHUT_WR)
        for _ in range(AT_ONCE):
            if not await loop.sock_recv(connection, 1 << 16):
                return


class _Refused(asyncio.Protocol):
    """Who finds no place."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made: Any = transport
        made.write(self._said)
        made.close()


def _tell(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


async def _peek(connection: socket.socket) -> bytes:
    """The first byte, which stays; empty where there comes none."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(BlockingIOError):
        return connection.recv(1, socket.MSG_PEEK)
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _tell, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)

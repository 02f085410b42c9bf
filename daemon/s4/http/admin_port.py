"""The admin port's listener: TLS and plain HTTP on one address, and a bound on how many connections there are.

The first byte of a connection says which of the two it is, so that probes, metrics and the words of a refusal reach those
who speak no TLS; what has to come over TLS is for admin.py to say. When all connections are taken, the one that
has waited longest without a request in progress gives way: nobody holds the port by saying nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl

from aiohttp import web
from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

FIRST_BYTE_S = 10.0
HANDSHAKE_S = 10.0
RETRY_S = 0.1
_HELLO = b"\x16"  # a TLS record with a handshake


def is_local(address: object) -> bool:
    """Whether a connection to this address of ours can only have come from this machine."""
    host = address[0] if isinstance(address, tuple) and address else ""
    try:
        found = ipaddress.ip_address(str(host))
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


class AdminPort:
    """Serves an application on a bound socket. Without `context` it speaks plain HTTP only."""

    def __init__(
        self, application: web.Application, bound: socket.socket, context: ssl.SSLContext | None, most: int
    ) -> None:
        self._bound, self._context, self._most = bound, context, most
        self._open: dict[socket.socket, asyncio.BaseTransport | None] = {}  # in the order in which they came
        self._busy: set[asyncio.BaseTransport] = set()
        self._beginning: set[asyncio.Task[None]] = set()
        application.middlewares.append(self._in_progress)
        self._runner = web.AppRunner(application, access_log=None)
        self._accepting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._runner.setup()
        self._bound.setblocking(False)
        self._bound.listen(128)
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        for task in self._beginning:
            task.cancel()
        await asyncio.gather(*filter(None, (self._accepting, *self._beginning)), return_exceptions=True)
        self._bound.close()
        await self._runner.cleanup()

    @web.middleware
    async def _in_progress(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            return await handler(request)
        self._busy.add(transport)
        try:
            return await handler(request)
        finally:
            self._busy.discard(transport)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._bound)
            except OSError as error:  # no descriptor is left, or the client is gone
                log.warning("the admin port takes no connection: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            if not self._make_room():
                connection.close()
                continue
            self._open[connection] = None
            task = asyncio.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    def _make_room(self) -> bool:
        for connection, transport in list(self._open.items()):
            if connection.fileno() < 0 or (transport is not None and transport.is_closing()):
                del self._open[connection]
        if len(self._open) < self._most:
            return True
        silent = next((one for one, transport in self._open.items() if transport not in self._busy), None)
        if silent is None:
            return False
        transport = self._open.pop(silent)
        if transport is None:
            with contextlib.suppress(OSError):  # it is gone by itself
                silent.shutdown(socket.SHUT_RDWR)  # what waits for its first byte sees the end
        else:
            transport.abort()  # type: ignore[attr-defined]  # a socket's transport
        return True

    async def _begin(self, connection: socket.socket) -> None:
        server = self._runner.server
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(FIRST_BYTE_S):
                secure = self._context is not None and await _peek(connection) == _HELLO
            if server is None or connection not in self._open:
                raise ConnectionResetError
            transport, _ = await loop.connect_accepted_socket(
                server,
                connection,
                ssl=self._context if secure else None,
                ssl_handshake_timeout=HANDSHAKE_S if secure else None,
            )
        except (OSError, TimeoutError):  # a handshake that fails included
            self._open.pop(connection, None)
            connection.close()
        except BaseException:
            connection.close()
            raise
        else:
            if connection in self._open:
                self._open[connection] = transport
            else:
                transport.abort()  # it had to give way meanwhile


def _tell(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


async def _peek(connection: socket.socket) -> bytes:
    """The first byte, which stays; empty where there comes none."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return connection.recv(1, socket.MSG_PEEK)
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _tell, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)

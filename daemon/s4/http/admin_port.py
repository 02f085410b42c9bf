"""The admin port's listener: TLS and plain HTTP on one address, and a bound on how many connections there are.

The first byte of a connection says which of the two it is, so that probes, metrics and the words of a refusal reach
those who speak no TLS; what has to come over TLS is for admin.py to say. Who has to give way is port.py's.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl

from aiohttp import web
from aiohttp.typedefs import Handler

from s4.http.port import Port

FIRST_REQUEST_S = 20.0  # with its handshake


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
        self._port = Port(bound, context, most=most, first_s=FIRST_REQUEST_S, mixed=True)
        application.middlewares.append(self._in_progress)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        await self._runner.setup()
        if self._runner.server is not None:  # it is there once the runner is set up
            self._port.start(self._runner.server)

    async def close(self) -> None:
        await self._port.close()
        await self._runner.cleanup()

    @web.middleware
    async def _in_progress(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._port.begins(request.protocol)
        try:
            return await handler(request)
        finally:
            self._port.ends(request.protocol)

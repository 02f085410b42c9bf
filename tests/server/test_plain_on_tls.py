"""Who speaks HTTP at a port that speaks HTTPS is told so in HTTP; TLS goes on as it did."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

from aiohttp import web

from s4.crypto.authority import Authority
from s4.http.port import Port

SAID = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 9\r\n\r\nuse HTTPS"


def test_http_at_a_port_of_https_is_answered_in_words(tmp_path: Path) -> None:
    authority, certificate, key = Authority(tmp_path).issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=authority)
    trusting.check_hostname = False

    async def ask(where: tuple[str, int], body: bytes, secure: ssl.SSLContext | None = None) -> bytes:
        reader, writer = await asyncio.open_connection(*where, ssl=secure)
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        said = await reader.read()
        writer.close()
        return said

    async def served(_: web.BaseRequest) -> web.Response:
        return web.Response(text="ok")

    async def work() -> None:
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        port, server = Port(bound, context, most=8, first_s=20.0, plain=lambda: SAID), web.Server(served)
        port.start(server)
        where = bound.getsockname()
        for body in (b"", b"x" * 100_000):
            assert await ask(where, body) == SAID
        assert (await ask(where, b"", trusting)).startswith(b"HTTP/1.1 200")
        _, silent = await asyncio.open_connection(*where)
        silent.close()  # before it said anything
        assert (await ask(where, b"", trusting)).startswith(b"HTTP/1.1 200")
        await port.close()
        await server.shutdown(1.0)

    asyncio.run(work())

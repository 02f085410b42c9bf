"""One connection of the S3 port: what is sent ahead, what is not read, what is no HTTP, and what is cut off."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from fuzz.endpoint import Endpoint, endpoint
from fuzz.targets import NOW_S, signed
from inprocess import until
from s4.http import connection
from s4.http.answers import Answer

GET = b"\x01GET /bbb/k\n\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def run(
    tmp_path: Path,
    work: Callable[[Endpoint, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    receive_bytes: int = 0,
) -> None:
    async def test() -> None:
        async with endpoint(tmp_path, lambda: NOW_S) as server:
            ours, theirs = socket.socketpair()
            if receive_bytes:
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, receive_bytes)
            await asyncio.get_running_loop().connect_accepted_socket(server._server, theirs)
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                await work(server, reader, writer)
            finally:
                writer.close()

    asyncio.run(test())


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length[1]) if length else 0)


def test_what_is_sent_ahead_is_answered_in_order(tmp_path: Path) -> None:
    """Many times what may wait here, at once, and no more of it waits here than may."""

    async def work(server: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        puts = [
            signed(server, b"\x01PUT /bbb/n\n\n%d" % number)[0].replace(b"connection: close\r\n", b"")
            for number in range(5 * connection.AHEAD)
        ]
        get = signed(server, GET.replace(b"/k", b"/n"))[0].replace(b"connection: close\r\n", b"")
        writer.write(b"".join(put + get for put in puts))
        for number in range(len(puts)):
            assert (await answer(reader))[0] == 200
            assert await answer(reader) == (200, b"%d" % number)

    run(tmp_path, work)


def test_bodies_that_are_sent_ahead_wait_in_the_kernel(tmp_path: Path) -> None:
    """Some MiB of them are here at most, however many come; each is taken in its turn, one that is cut in two by that
    too."""

    async def work(server: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = signed(server, b"\x01GET /bbb/k\n\n")[0].replace(b"connection: close\r\n", b"")
        puts = [
            signed(server, b"\x00PUT /bbb/n%d\n\n" % number + b"%04d" % number * 80_000)[0].replace(
                b"connection: close\r\n", b""
            )
            for number in range(40)
        ]
        (made,) = server._server.open
        endpoint, most = server._server.endpoint, 0

        async def slow(http: connection.Exchange) -> Answer:
            nonlocal most
            await asyncio.sleep(0.01)  # so that more comes than is served
            most = max(most, sum(content.total_bytes for _, content in made._messages))
            return await endpoint(http)

        slow.failed, slow.lost = endpoint.failed, endpoint.lost  # type: ignore[attr-defined]
        server._server.endpoint = slow  # type: ignore[assignment]
        writer.write(first + b"".join(puts))
        assert (await answer(reader))[0] == 200
        for _ in puts:
            assert (await answer(reader))[0] == 200
        assert 0 < most < 4 * connection.READ_BYTES
        for number in range(40):
            writer.write(signed(server, b"\x01GET /bbb/n%d\n\n" % number)[0].replace(b"connection: close\r\n", b""))
            assert await answer(reader) == (200, b"%04d" % number * 80_000)

    run(tmp_path, work)


def test_who_reads_nothing_is_answered_no_more(tmp_path: Path) -> None:
    """What a client asks for and does not take is not piled up for it."""

    async def work(server: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        get = signed(server, b"\x01GET /bbb/page\n\n")[0].replace(b"connection: close\r\n", b"")
        await server.send(signed(server, b"\x01PUT /bbb/page\n\n" + b"x" * 4000)[0])
        transport = writer.transport
        transport.pause_reading()
        (made,) = server._server.open
        writer.write(get * 2000)
        last = -1
        while made.transport is not None and made.transport.get_write_buffer_size() != last:  # until it stands still
            last = made.transport.get_write_buffer_size()
            for _ in range(50):
                await asyncio.sleep(0)
        assert made.transport is not None
        assert made.transport.get_write_buffer_size() < 1 << 20
        transport.resume_reading()
        for _ in range(2000):
            assert await answer(reader) == (200, b"x" * 4000)

    run(tmp_path, work, receive_bytes=4096)


def test_a_body_that_nobody_reads_is_thrown_away_and_the_answer_seen(tmp_path: Path) -> None:
    async def work(server: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        put = signed(server, b"\x00PUT /none/k\n\n" + b"x" * (8 << 20))[0].replace(b"connection: close\r\n", b"")
        writer.write(put)
        assert (await answer(reader))[0] == 404
        writer.write(signed(server, GET)[0])
        assert await answer(reader) == (200, b"inline")

    run(tmp_path, work)


def test_what_is_no_http_is_told_so_and_nothing_after_it_is_done(tmp_path: Path) -> None:
    async def work(server: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        get = signed(server, GET)[0].replace(b"connection: close\r\n", b"")
        writer.write(get)
        assert await answer(reader) == (200, b"inline")
        writer.write(b"no such thing\r\n\r\n" + get)
        status, body = await answer(reader)
        assert status == 400
        assert b"<Code>InvalidRequest</Code>" in body
        assert await reader.read() == b""

    run(tmp_path, work)


def test_a_body_that_breaks_off_is_refused_at_once(tmp_path: Path) -> None:
    """A chunk without a length: nobody waits for the rest of it."""

    async def work(server: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        put = signed(server, b"\x02PUT /bbb/k\nx-amz-decoded-content-length: 10\n\n")[0]
        writer.write(put.replace(b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n"))
        await until(lambda: server._server.endpoint.in_flight)  # type: ignore[attr-defined]
        writer.write(b"zz\r\n")
        status, body = await answer(reader)
        assert status == 400
        assert b"<Code>IncompleteBody</Code>" in body
        assert await reader.read() == b""

    run(tmp_path, work)

"""Connections of the S3 port: HTTP/1.1 by aiohttp's parser, each request begun in the round of the loop that brought
it.

    data_received  ->  parser  ->  once all sockets were read:  Exchange  ->  the endpoint's coroutine, as far as it goes  ->  Answer

Most requests have nothing to wait for: they are answered in one go, by the same functions as all others, without a
task of their own. One that waits, for its body, a commit or a place, goes on in a task. What one round brought is
begun together: the processor has the code at hand then, a tenth of a small request's time with eight connections. But
where several users ask, a round begins few, those who asked for least first, by what they say of themselves: it is
known only later who they are, and each signature of a flood would be looked at before anybody else goes on.

For editors:
- A connection serves one request after the other. What its client sends ahead waits here, at most `AHEAD` and some
  `READ_BYTES` of their bodies, then in the kernel.
- Where a request begins there is no task; what needs one says so (base/tasks.py).
- An answer that has begun ends whole, or the connection is cut: nothing else may follow its head.
- Whoever takes too little of its answer is ended (taking.py), also after its request is over and while its
  connection closes.
- A body that nobody wanted is read for `LINGER_S` and thrown away, so that its client comes to read the answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from aiohttp import ClientPayloadError
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.http_writer import HttpVersion10
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from s4.base import tasks
from s4.base.fair import Company, FairQueue, Flow
from s4.config.limits import Limits
from s4.gateway.memory import MemoryBudget, Share
from s4.http.answers import Answer
from s4.http.taking import Taking
from s4.s3.errors import S3Error

log = structlog.get_logger("s4.http")

AT_ONCE = 4  # connections that are served in a round of the loop where several users ask
NAME = 64  # characters of a key that is claimed: longer ones are one to us
AHEAD = 32  # requests of one connection that wait for their turn
LINGER_S = 5.0
READ_BYTES = 1 << 20  # of a body that may wait to be read; twice that, and no more is taken from the kernel
UNSENT_BYTES = 256 * 1024  # of one connection, in the kernel


class Endpoint(Protocol):
    """Who answers."""

    async def __call__(self, http: Exchange) -> Answer:
        """Raises only what cuts the connection: where an answer has begun."""

    def failed(self, http: Exchange, error: Exception) -> Answer:
        """For what is not even HTTP (HttpProcessingError), or should not have happened."""

    def lost(self, connection: BaseProtocol) -> None:
        """A connection is closed."""


class Exchange:
    """One request as it came, and where its answer goes. `begun`: something of that has gone out."""

    __slots__ = ("_connection", "begun", "content", "headers", "keep_alive", "method", "raw_path", "version")

    def __init__(
        self, connection: Connection, message: RawRequestMessage | HttpProcessingError, content: StreamReader
    ) -> None:
        self._connection, self.content, self.begun = connection, content, False
        if isinstance(message, HttpProcessingError):
            self.method, self.raw_path, self.version, self.keep_alive = "UNKNOWN", "/", HttpVersion10, False
            self.headers = CIMultiDictProxy[str](CIMultiDict())
        else:
            self.method, self.raw_path, self.version = message.method, message.path, message.version
            self.headers, self.keep_alive = message.headers, not message.should_close

    @property
    def connection(self) -> BaseProtocol:
        return self._connection

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._connection.transport

    @property
    def remote(self) -> str:
        return self._connection.remote

    @property
    def secure(self) -> bool:
        return self._connection.secure

    async def write(self, data: bytes | memoryview, *, whole: bool = False) -> None:
        """Returns when there is room for more. What is `whole` counts among the memory of requests while its client does
        not take it; who streams counts that itself. Raises ConnectionError, or S3Error RequestTimeout of a client that
        takes too little."""
        connection = self._connection
        transport = connection.transport
        if transport is None or transport.is_closing():
            raise connection.gone()
        self.begun = True
        connection.written += len(data)
        transport.write(data)
        if connection.writing_paused:
            share = connection.share(transport) if whole else None
            try:
                await connection._drain_helper()
            finally:
                if share is not None:
                    share.drop()
            if connection.transport is None:
                raise connection.gone()


class Connection(BaseProtocol):
    """`remote` is the client's address; `written` are bytes of answers, whoever has taken them."""

    __slots__ = (
        "_closing",
        "_connections",
        "_content",
        "_context",
        "_messages",
        "_silent_since",
        "_taking",
        "_task",
        "_timer",
        "_working",
        "remote",
        "secure",
        "written",
    )

    def __init__(self, connections: Connections) -> None:
        limits, loop = connections.limits, asyncio.get_running_loop()
        super().__init__(
            loop,
            HttpRequestParser(
                self,
                loop,
                READ_BYTES,
                max_line_size=limits.request_line_bytes,
                max_field_size=limits.header_bytes,
                max_headers=limits.headers,
                payload_exception=ClientPayloadError,
                auto_decompress=False,
                max_msg_queue_size=AHEAD,
            ),
        )
        self._connections = connections
        self._messages: deque[tuple[RawRequestMessage | HttpProcessingError, StreamReader]] = deque()
        self._content: StreamReader | None = None  # of the request that is served
        self._task: asyncio.Task[None] | None = None  # that serves it, where it had to wait
        self._working = False
        self._closing = False  # nothing more is read, or answered but for what is served
        self._silent_since = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._context = contextvars.copy_context()
        self.remote, self.secure, self.written = "", False, 0
        self._taking: Taking | None = None  # from when its client was waited for first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made: Any = transport
        self.transport = made  # as the base has it, which would ask once more for no delay: that loops do
        peer = made.get_extra_info("peername")
        self.remote = str(peer[0] if isinstance(peer, (list, tuple)) else peer or "")
        self.secure = made.get_extra_info("sslcontext") is not None
        held = made.get_extra_info("socket")
        if held is not None and held.family != socket.AF_UNIX:
            # of an answer that its client does not read the kernel would take megabytes, at the loop's cost
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connections.open[self] = None
        self._timer = self._loop.call_later(self._connections.limits.keepalive_s, self._look)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._taking is not None:
            self._taking.stop()
        if self._content is not None:
            self._content.set_exception(exc or ConnectionResetError("the client has gone"))
        super().connection_lost(exc)
        self._parser = None  # it knows us: a cycle would wait for the garbage collector
        self._messages.clear()
        self._connections.lost(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_client()

    def resume_writing(self) -> None:
        if self._taking is not None and not self._closing:  # of what closes the rest counts too
            self._taking.goes_on()
        super().resume_writing()

    def _wait_for_client(self) -> None:
        transport = self.transport
        if self._taking is None and transport is not None:
            self._taking = Taking(
                self._connections.limits,
                transport.get_extra_info("socket"),
                lambda: self.written - transport.get_write_buffer_size(),
                transport.abort,
                self._connections.clock or self._loop.time,
            )
        if self._taking is not None:
            self._taking.waits()

    def share(self, transport: asyncio.Transport) -> Share | None:
        """Of the memory of requests, for what waits here for the client from now on."""
        if self._connections.memory is None:
            return None
        share = Share(self._connections.memory, transport.get_write_buffer_size, transport.abort)
        share.await_client()
        return share

    def _is_gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def gone(self) -> Exception:
        """Why nothing more can be written."""
        if self._taking is None or not self._taking.trickled:
            return ConnectionResetError("the client has gone")
        error = S3Error("RequestTimeout", headers={"Connection": "close"})
        error.why = lambda: (
            f"the client took less than {self._connections.limits.least_rate_bytes} bytes a second of its answer"
        )
        return error

    def data_received(self, data: bytes) -> None:
        if self._closing or self._parser is None:
            return
        try:
            messages, last, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            if self._content is not None and not self._content.is_eof():
                self._content.set_exception(error)
            messages, last = [(error, EMPTY_PAYLOAD)], True
        self._messages.extend(messages)
        if last:
            self._parser = None  # what follows is no HTTP
        held = len(self._messages) + (self._content is not None)
        if held > 1 and not self._buffer_paused and self._is_full():
            self._pause_reading_for_buffer()
        if messages and not self._working and self._content is None:
            self._connections.ready(self)

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # the end of every body says it
            super().resume_reading(resume_parser)

    def _is_full(self) -> bool:
        """Whether what was sent ahead is as much as may wait here."""
        held = sum(content.total_bytes for _, content in self._messages)
        return held > READ_BYTES or len(self._messages) + (self._content is not None) >= AHEAD

    def _go_on(self) -> None:
        """Read again: first what the parser held back."""
        self.data_received(b"")
        if not self._is_full():
            self._resume_reading_for_buffer()

    def claims(self) -> Flow:
        """From where the request that is next comes, and whose it claims to be."""
        message = self._messages[0][0] if self._messages else None
        said = message.headers.get("Authorization", "") if isinstance(message, RawRequestMessage) else ""
        return Flow(self.remote, said.partition("Credential=")[2].partition("/")[0][:NAME])

    def work(self) -> None:
        """Serve what has come, until something has to wait."""
        self._working = True
        try:
            while self._content is None and not self._closing:
                if self._buffer_paused and not self._messages:
                    self._go_on()
                if not self._messages:
                    return
                message, self._content = self._messages.popleft()
                if self._buffer_paused and len(self._messages) <= AHEAD // 2 and not self._is_full():
                    self._go_on()
                exchange = Exchange(self, message, self._content)
                error = message if isinstance(message, HttpProcessingError) else None
                self._task = tasks.begin(self._serve(exchange, error), self._context.copy(), self._loop)
        finally:
            self._working = False

    async def _serve(self, exchange: Exchange, error: HttpProcessingError | None) -> None:
        goes_on, endpoint = False, self._connections.endpoint
        try:
            try:
                answer = await endpoint(exchange) if error is None else endpoint.failed(exchange, error)
            except Exception as failure:
                if exchange.begun or (isinstance(failure, ConnectionError) and self._is_gone()):
                    return
                answer = endpoint.failed(exchange, failure)
            await answer.end(exchange)
            goes_on = (exchange.content.is_eof() or await _thrown_away(exchange.content)) and answer.goes_on
        except (ConnectionError, S3Error):
            pass  # the client has gone, or had to
        finally:
            self._served(goes_on)

    def _served(self, goes_on: bool) -> None:
        self._content = self._task = None
        if self._parser is not None:
            self._parser.message_consumed()
        if self.transport is None:
            return
        if not goes_on or self._closing or (self._parser is None and not self._messages):
            self.close()
            return
        self._silent_since = self._loop.time()
        if not self._working and (self._messages or self._buffer_paused):
            self._connections.ready(self)

    def _look(self) -> None:
        """Whether the client has said nothing for too long."""
        keepalive_s, silent_s = self._connections.limits.keepalive_s, self._loop.time() - self._silent_since
        if self._content is not None:
            silent_s = 0.0
        if silent_s >= keepalive_s:
            self.close()
        else:
            self._timer = self._loop.call_later(keepalive_s - silent_s, self._look)

    def close(self) -> None:
        """Once what was written has gone."""
        self._closing = True
        if self.transport is not None:
            if self.transport.get_write_buffer_size():
                self._wait_for_client()
            self.transport.close()

    def finish(self) -> asyncio.Task[None] | None:
        """End, with the request that is served now; the task that serves it."""
        self._closing = True
        if self._content is None:
            self.close()
        return self._task


async def _thrown_away(content: StreamReader) -> bool:
    """Read what is left of a body; whether that was all of it."""
    try:
        async with tasks.within(LINGER_S):
            while not content.is_eof():
                await content.readany()
    except (TimeoutError, ClientPayloadError, HttpProcessingError):
        return False
    return True


class Connections:
    """Makes connections for one endpoint, and ends them. `clock` measures how long clients are waited for: the
    loop's. `memory` is what whole answers that nobody takes count in."""

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        clock: Callable[[], float] | None = None,
        memory: MemoryBudget | None = None,
        company: Company | None = None,
    ) -> None:
        self.endpoint, self.limits, self.clock, self.memory = endpoint, limits, clock, memory
        self.open: dict[Connection, None] = {}
        self._context = contextvars.copy_context()
        self._company = company or Company()
        self._ready: list[Connection] = []  # with requests that are not begun
        self._queue: FairQueue[Connection] = FairQueue()  # those of rounds before

    def ready(self, connection: Connection) -> None:
        """Serve it once all sockets that can be read now were read."""
        if not self._ready and not self._queue.length:
            asyncio.get_running_loop().call_soon(self._serve, context=self._context)
        self._ready.append(connection)

    def _serve(self) -> None:
        ready, self._ready = self._ready, []
        if self._queue.length or (len(ready) > AT_ONCE and not self._company.alone):
            for connection in ready:
                self._queue.push(connection.claims(), 1, connection)
            ready = [self._queue.pop()[1] for _ in range(min(AT_ONCE, len(self._queue)))]
            if self._queue:
                asyncio.get_running_loop().call_soon(self._serve, context=self._context)
        for connection in ready:
            try:
                connection.work()
            except Exception as error:  # others stand behind it
                log.error("connection failed", exc_info=error)
                connection.close()

    def __call__(self) -> Connection:
        return Connection(self)

    def lost(self, connection: Connection) -> None:
        self.open.pop(connection, None)
        self.endpoint.lost(connection)

    async def shutdown(self, limit_s: float) -> None:
        """Let what is served end within `limit_s`, and close all."""
        served = [task for task in [connection.finish() for connection in self.open] if task is not None]
        if served:
            _, late = await asyncio.wait(served, timeout=limit_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self.open):
            connection.close()

"""The frames of one connection, received straight into the buffers that are handed out, and sent without being joined.

Lengths, headers and short payloads come together: one read brings many, and they are taken from where it was received.
Of what is longer the rest is received into a buffer of its own, so that a stripe's bytes are copied once, out of TLS.
What is short goes out at the end of this round of the loop, with all that is sent in it: one record of TLS, one call,
one packet.

For editors: frames are read in their order, and after all that came what ended the connection. Who reads slowly stops
the peer at WAITING_BYTES; who sends much awaits `drain`. A header keeps what it was decoded from, so that is never the
buffer into which the next bytes are received.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from s4.base.memory import unset
from s4.peer import frames
from s4.peer.frames import FrameError, Header

WAITING_BYTES = 8 << 20  # of frames that nobody has read yet
SHARED_BYTES = 64 << 10  # one read
FRAME_BYTES = 512  # what a frame costs besides
OWN_BYTES = 16 << 10  # what is as long as this and not all there has a buffer of its own
SHORT_BYTES = 4 << 10  # what is as short as this waits for the end of the round

Payload = bytes | memoryview


class FrameStream(asyncio.BufferedProtocol):
    """One connection; `began` is called once it is there."""

    transport: asyncio.Transport

    def __init__(self, began: Callable[[FrameStream], None] | None = None) -> None:
        self._began = began
        self._shared = bytearray(SHARED_BYTES)
        self._view = memoryview(self._shared)
        self._at = self._end = 0  # what was received into it and not taken yet
        self._own: memoryview | None = None  # the piece that is received now
        self._filled = 0
        self._need = frames.LENGTHS.size  # bytes of the next piece: lengths, a header, or its payload
        self._payload_bytes = -1  # of the header that is next; -1: lengths are next
        self._header: Header | None = None  # whose payload is next
        self._header_bytes = 0
        self._frames: deque[tuple[Header, Payload, int]] = deque()
        self._waiting_bytes, self._stopped = 0, False
        self._reader: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._lost = self._full = False
        self._short: list[Payload] = []  # sent in this round of the loop
        self._writers: list[asyncio.Future[None]] = []

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._began is not None:
            self._began(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._ended(exc or ConnectionResetError("the connection has ended"))
        self.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._end :] if self._own is None else self._own[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._error is not None:
            return
        try:
            if self._own is None:
                self._end += nbytes
                while self._take():
                    pass
                return
            self._filled += nbytes
            if self._filled == len(self._own):
                piece, self._own = self._own, None
                self._came(piece)
        except FrameError as error:
            self._ended(error)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)

    def _take(self) -> bool:
        """The next piece, where it is all there; else room is made for the rest of it."""
        there = self._end - self._at
        if there >= self._need:
            piece = bytes(self._view[self._at : self._at + self._need])
            self._at += self._need
            self._came(piece)
            return True
        rest = self._view[self._at : self._end]
        if self._need >= OWN_BYTES:
            self._own, self._filled = memoryview(unset(self._need)), there
            self._own[:there] = rest
            there = 0
        elif self._at:
            self._view[:there] = bytes(rest)
        self._at, self._end = 0, there
        return False

    def _came(self, piece: Payload) -> None:
        """One piece is whole. Raises FrameError."""
        if self._header is not None:
            self._frame(self._header, piece)
        elif self._payload_bytes < 0:
            self._need, self._payload_bytes = frames.sizes(piece)
        else:
            header, self._header_bytes = frames.header_of(piece), len(piece)
            if self._payload_bytes:
                self._header, self._need = header, self._payload_bytes
            else:
                self._frame(header, b"")

    def _frame(self, header: Header, payload: Payload) -> None:
        size = FRAME_BYTES + len(payload) + self._header_bytes
        self._frames.append((header, payload, size))
        self._header, self._payload_bytes, self._need = None, -1, frames.LENGTHS.size
        self._waiting_bytes += size
        if self._waiting_bytes > WAITING_BYTES and not self._stopped:
            self._stopped = True
            self.transport.pause_reading()
        self._wake()

    def _ended(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # -- called by who has the connection

    async def read(self) -> tuple[Header, Payload]:
        """The next frame. Raises FrameError, and OSError at the end."""
        while not self._frames:
            if self._error is not None:
                raise self._error
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        header, payload, size = self._frames.popleft()
        self._waiting_bytes -= size
        if self._stopped and self._waiting_bytes <= WAITING_BYTES // 2:
            self._stopped = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return header, payload

    @property
    def closed(self) -> bool:
        """Whether nothing goes out any more. Who reads learns of it a moment later."""
        return self._lost or self.transport.is_closing()

    def send(self, pieces: Sequence[Payload]) -> None:
        """Without waiting: what the network does not take waits here. Once it is closed, nothing happens."""
        if self.closed:
            return
        if len(pieces) == 1 and len(pieces[0]) <= SHORT_BYTES:
            if not self._short:
                asyncio.get_running_loop().call_soon(self._flush)
            self._short.append(pieces[0])
            return
        self._flush()
        self.transport.writelines(pieces)

    def _flush(self) -> None:
        short, self._short = self._short, []
        if short and not self.closed:
            self.transport.write(b"".join(short) if len(short) > 1 else short[0])

    async def drain(self) -> None:
        """Return once the network takes more. Raises ConnectionResetError."""
        while self._full and not self._lost:
            writer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append(writer)
            await writer
        if self._lost:
            raise ConnectionResetError("the connection has ended")

    def close(self) -> None:
        """Once what was sent is on its way."""
        self._flush()
        self.transport.close()

    def abort(self) -> None:
        """At once, whatever was sent."""
        self.transport.abort()

    def info(self, name: str) -> Any:
        return self.transport.get_extra_info(name)


async def connect(address: Path | tuple[str, int], context: ssl.SSLContext | None = None) -> FrameStream:
    """To a Unix socket, or over TCP with TLS. Raises OSError."""
    loop = asyncio.get_running_loop()
    if isinstance(address, Path):
        return (await loop.create_unix_connection(FrameStream, str(address)))[1]
    return (await loop.create_connection(FrameStream, *address, ssl=context))[1]


async def listen(
    began: Callable[[FrameStream], None],
    address: Path | tuple[str, int],
    context: ssl.SSLContext | None = None,
    handshake_s: float | None = None,
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if isinstance(address, Path):
        return await loop.create_unix_server(lambda: FrameStream(began), str(address))
    return await loop.create_server(
        lambda: FrameStream(began), *address, ssl=context, ssl_handshake_timeout=handshake_s
    )

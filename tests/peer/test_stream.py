"""Frames come out whole and in their order however the network cuts them; who reads slowly stops the peer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest

from s4.peer import frames, stream
from s4.peer.frames import FrameError, Header
from s4.peer.stream import FrameStream


class Transport(asyncio.Transport):
    """What a stream asks of its connection."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.closed, self.sent = True, False, list[Any]()

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: Any) -> None:
        self.sent.append(data)

    def writelines(self, list_of_data: Any) -> None:
        self.sent += list_of_data

    def close(self) -> None:
        self.closed = True


def opened() -> tuple[FrameStream, Transport]:
    made, transport = FrameStream(), Transport()
    made.connection_made(transport)
    return made, transport


def packed(number: int, value: bytes, payload: bytes = b"") -> bytes:
    header = Header(number, 7, "append", frames.OK, msgspec.Raw(frames.encode(value)))
    return b"".join(bytes(piece) for piece in frames.pack(header, payload))


def feed(made: FrameStream, data: bytes, most: int) -> None:
    view = memoryview(data)
    while view:
        buffer = made.get_buffer(-1)
        assert len(buffer) > 0
        taken = min(len(buffer), len(view), most)
        buffer[:taken] = view[:taken]
        made.buffer_updated(taken)
        view = view[taken:]


def test_frames_are_whole_wherever_they_are_cut() -> None:
    chosen = random.Random(3)
    sizes = (0, 1, 100, stream.OWN_BYTES - 1, stream.OWN_BYTES, stream.SHARED_BYTES, stream.SHARED_BYTES + 1, 300_000)

    async def test() -> None:
        for most in (1_000_000, stream.SHARED_BYTES, 5000, 7):
            made, _ = opened()
            sent = [
                (number, chosen.randbytes(chosen.choice(sizes[:6])), chosen.randbytes(chosen.choice(sizes)))
                for number in range(1, 4 if most == 7 else 30)
            ]
            reading = asyncio.ensure_future(collect(made, len(sent)))
            for one in sent:
                feed(made, packed(*one), most)
                await asyncio.sleep(0)
            assert await reading == sent

    async def collect(made: FrameStream, count: int) -> list[tuple[int, bytes, bytes]]:
        found, kept = [], []
        for _ in range(count):
            header, payload = await made.read()
            kept.append((header, payload))  # read once all has come: nothing that was handed out is written to again
        for header, payload in kept:
            found.append((header.id, msgspec.msgpack.decode(header.value), bytes(payload)))
        return found

    asyncio.run(test())


def test_what_came_is_read_before_the_end_is_told() -> None:
    async def test() -> None:
        made, _ = opened()
        feed(made, packed(1, b"a") + packed(2, b"b", b"payload") + b"\x01", 10**6)
        made.connection_lost(None)
        assert [(await made.read())[0].id for _ in range(2)] == [1, 2]
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await made.read()
        with pytest.raises(ConnectionResetError):
            await made.drain()

    asyncio.run(test())


def test_nothing_is_sent_on_what_has_ended() -> None:
    """uvloop raises RuntimeError for it, and a GET was an internal error where another store should have been asked."""

    async def test() -> None:
        made, transport = opened()
        made.send([b"a"])
        await asyncio.sleep(0)
        made.send([b"lost"])
        transport.closed = True
        made.send([b"b"])
        await asyncio.sleep(0)
        transport.closed = False
        made.connection_lost(None)
        made.send([b"c"])
        assert made.closed
        assert transport.sent == [b"a"]

    asyncio.run(test())


def test_short_frames_of_one_round_go_out_together_and_all_in_their_order() -> None:
    async def test() -> None:
        made, transport = opened()
        for piece in (b"a", b"b", b"c"):
            made.send([piece])
        assert transport.sent == []
        await asyncio.sleep(0)
        assert transport.sent == [b"abc"]
        made.send([b"d"])
        made.send([b"e", bytes(8192)])  # what is long waits for nothing, and passes nothing
        made.send([b"f"])
        made.close()
        assert transport.sent == [b"abc", b"d", b"e", bytes(8192), b"f"]
        await asyncio.sleep(0)
        assert len(transport.sent) == 5

    asyncio.run(test())


def test_nonsense_ends_the_stream_and_nothing_after_it_counts() -> None:
    async def test() -> None:
        made, _ = opened()
        feed(made, packed(1, b"a") + b"\xff" * 8 + packed(2, b"b"), 10**6)
        feed(made, packed(3, b"c") * 5000, 10**6)
        assert (await made.read())[0].id == 1
        with pytest.raises(FrameError, match="too large"):
            await made.read()

    asyncio.run(test())


def test_who_reads_slowly_stops_the_peer_until_half_is_read() -> None:
    async def test() -> None:
        made, transport = opened()
        count = 0
        while transport.reading:
            count += 1
            feed(made, packed(count, b"", bytes(1 << 20)), 1 << 20)
        assert count == stream.WAITING_BYTES >> 20
        for number in range(1, count // 2 + 2):  # each costs a little besides its payload
            assert not transport.reading
            assert (await made.read())[0].id == number
        assert transport.reading

    asyncio.run(test())


def test_who_sends_much_waits_for_the_network() -> None:
    async def test() -> None:
        made, _ = opened()
        await made.drain()
        made.pause_writing()
        waiting = [asyncio.ensure_future(made.drain()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        waiting[0].cancel()
        made.resume_writing()
        await asyncio.gather(*waiting[1:])

    asyncio.run(test())

"""A network of simulated hosts: connections as TCP gives them, over links that lose, delay and cut, one way too.

What a connection carries comes in order and once, or not at all: a lost segment is a delay, a cut link holds bytes back
until it heals or the sender gives up; a process that ends resets its connections where its host still runs, and leaves
them silent where it does not. Messages that come twice are the callers' repeats: TCP has none of its own.

Not simulated: TLS (the certificates' handshake is `tests/peer/test_tcp.py`), host names, half-open FIN states.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from whole.loop import Loop, Process

HIGH_BYTES = 256 * 1024  # in flight, before a writer is told to wait
GIVE_UP_S = 60.0  # that a sender tries to get bytes through
SYN_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Network:
    """`cut` has pairs (from host, to host) whose packets are lost, `off` hosts without power."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        loop.network = self
        self.cut: set[tuple[str, str]] = set()
        self.off: set[str] = set()
        self.latency_s, self.slow, self.slow_s, self.reset, self.late_s = 0.0004, 0.01, 0.3, 0.0, 0.0
        self.listening: dict[tuple[str, int], Listener] = {}
        self.bytes = self.packets = 0
        self.ends: list[Transport] = []

    def passes(self, sender: str, to: str) -> bool:
        return sender == to or ((sender, to) not in self.cut and sender not in self.off and to not in self.off)

    def break_all(self, process: Process) -> None:
        """Every connection of a process breaks, with what it was about to say."""
        self.ends = [one for one in self.ends if not one.is_closing()]
        for one in self.ends:
            if one.process is process:
                one.break_off()

    def delay(self) -> float:
        chance = self.loop.random.random()
        if chance < self.slow:
            return self.loop.random.random() * self.slow_s
        return self.latency_s * (0.5 + chance)

    def listen(self, process: Process, factory: Callable[[], Any], host: str, port: int) -> Listener:
        address = (process.host, port)
        if address in self.listening and self.listening[address].process.alive:
            raise OSError(errno.EADDRINUSE, "address in use")
        found = self.listening[address] = Listener(self, process, factory, address)
        return found

    async def connect(self, process: Process, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        for wait in SYN_S:
            await asyncio.sleep(wait + self.delay())
            if not self.passes(process.host, host) or not self.passes(host, process.host):
                self.loop.effects["packet held"] += 1
                continue
            listener = self.listening.get((host, port))
            if listener is None or not listener.process.alive or listener.closed:
                raise ConnectionRefusedError(errno.ECONNREFUSED, f"{host}:{port} refuses connections")
            ours, theirs = Transport(self, process), Transport(self, listener.process)
            ours.peer, theirs.peer = theirs, ours
            self.ends += [ours, theirs]
            listener.accept(theirs)
            protocol = factory()
            ours.begin(protocol)
            return ours, protocol
        raise TimeoutError(errno.ETIMEDOUT, f"{host}:{port} does not answer")


class Listener:
    """What `start_server` gives."""

    def __init__(
        self, network: Network, process: Process, factory: Callable[[], Any], address: tuple[str, int]
    ) -> None:
        self._network, self.process, self._factory, self.closed = network, process, factory, False
        self.sockets = [SimpleNamespace(getsockname=lambda: address)]

    def accept(self, transport: Transport) -> None:
        def come() -> None:
            transport.begin(self._factory())

        self._network.loop.call_soon(come, context=self.process.context)

    def close(self) -> None:
        self.closed = True

    async def start_serving(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


class Transport(asyncio.Transport):
    """One end. What it sends goes to `peer`, in order."""

    peer: Transport

    def __init__(self, network: Network, process: Process) -> None:
        super().__init__()
        self._network, self.process = network, process
        self._protocol: Any = None
        self._sent: list[bytes | None] = []  # on its way to the peer; None is the end
        self._size = 0
        self._moving = self._closing = self._lost = self._full = self._reading_paused = False
        self._stuck_since = -1.0
        self._held: list[bytes | None] = []
        process.on_death.append(self._process_died)

    def begin(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.connection_made(self)
        held, self._held = self._held, []
        for piece in held:
            self._take(piece)

    # -- what protocols call

    def write(self, data: Any) -> None:
        if self._lost or self._closing or not self.process.alive:
            return
        self._send(bytes(data))

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def _send(self, piece: bytes | None) -> None:
        self._sent.append(piece)
        self._size += len(piece or b"")
        if self._size > HIGH_BYTES and not self._full:
            self._full = True
            self._protocol.pause_writing()
        if not self._moving:
            self._moving = True
            self._network.loop.at(self._network.delay(), self._move)

    def close(self) -> None:
        if not self._closing and not self._lost:
            self._send(None)
            self._closing = True
            self._lose(None)

    def abort(self) -> None:
        self._closing = True
        self._lose(None)

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        held, self._held = self._held, []
        for piece in held:
            self._take(piece)

    def is_reading(self) -> bool:
        return not self._reading_paused

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return self._size

    # -- the way to the peer

    def _move(self) -> None:
        """What was sent so far arrives, if the link lets it through."""
        network, loop = self._network, self._network.loop
        peer = self.peer
        if not network.passes(self.process.host, peer.process.host):
            if self._stuck_since < 0:
                self._stuck_since = loop.now
                loop.effects["packet held"] += 1
            if loop.now - self._stuck_since > GIVE_UP_S:
                self._moving = False
                self._lose(TimeoutError(errno.ETIMEDOUT, "the peer does not take what is sent"))
                return
            loop.at(0.2 + loop.random.random() * min(3.0, loop.now - self._stuck_since + 0.2), self._move)
            return
        self._stuck_since = -1.0
        self._moving = False
        if not self._sent:  # it broke meanwhile
            return
        if not peer.process.alive or peer._lost:
            self._sent.clear()
            self._lose(ConnectionResetError(errno.ECONNRESET, "the peer is gone"))
            return
        if network.reset and loop.random.random() < network.reset:
            self.break_off()
            return
        pieces, self._sent = self._sent, []
        self._size = 0
        network.packets += 1
        ends = pieces[-1] is None
        data = b"".join(pieces[:-1] if ends else pieces)
        network.bytes += len(data)
        if data:
            loop.happens(peer.process, peer._take, data)
        if ends:
            loop.happens(peer.process, peer._take, None)
        if self._full:
            self._full = False
            if not self._lost:
                loop.call_soon(self._protocol.resume_writing, context=self.process.context)

    def break_off(self, late_s: float = 0.0) -> None:
        """The connection breaks for its sender; what was on its way is lost, or arrives late, as from a peer's own
        socket that is read late. Nothing comes after it."""
        network, loop, peer = self._network, self._network.loop, self.peer
        loop.note(f"connection {self.process.name} -> {peer.process.name} breaks")
        loop.effects["connection broke"] += 1
        data = b"".join(piece for piece in self._sent if piece is not None)
        self._sent.clear()
        self._lose(ConnectionResetError(errno.ECONNRESET, "the connection broke"))
        most_s = late_s or network.late_s
        late_s = loop.random.random() * most_s if most_s else -1.0

        def arrive() -> None:
            if data and not peer._lost and network.passes(self.process.host, peer.process.host):
                loop.effects["arrived late"] += 1
                loop.call_soon(peer._take, data, context=peer.process.context)
            loop.call_soon(
                peer._lose, ConnectionResetError(errno.ECONNRESET, "the connection broke"), context=peer.process.context
            )

        if late_s >= 0:
            loop.at(late_s, arrive)
        else:
            peer._lose(ConnectionResetError(errno.ECONNRESET, "the connection broke"))

    def _take(self, piece: bytes | None) -> None:
        if self._lost:
            return
        if self._reading_paused or self._protocol is None:
            self._held.append(piece)
        elif piece is None:
            self._protocol.eof_received()
            self._lose(None)
        else:
            self._arrived(piece)

    def _arrived(self, piece: bytes) -> None:
        protocol, view = self._protocol, memoryview(piece)
        while view and isinstance(protocol, asyncio.BufferedProtocol):
            buffer = protocol.get_buffer(len(view))
            taken = min(len(buffer), len(view))
            buffer[:taken] = view[:taken]
            protocol.buffer_updated(taken)
            view = view[taken:]
        if view:
            protocol.data_received(piece)

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        if self._protocol is not None and self.process.alive:
            self._network.loop.call_soon(self._protocol.connection_lost, error, context=self.process.context)

    def _process_died(self) -> None:
        """The kernel ends what the process had; a host without power says nothing."""
        self._lost = True
        if self.process.host not in self._network.off:
            self._network.loop.at(self._network.delay(), self._reset_peer)

    def _reset_peer(self) -> None:
        if self._network.passes(self.process.host, self.peer.process.host):
            self.peer._lose(ConnectionResetError(errno.ECONNRESET, "the peer is gone"))
        elif not self.peer._lost:
            self._network.loop.at(5.0, self._reset_peer)

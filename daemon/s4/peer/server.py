"""Serves a node to gateways: over the Unix socket of `--workers`, or over TCP with TLS on both sides.

Each connection is a gateway. It must say HELLO first: what is of another cluster, means another store, or speaks no
version that we speak is told so and cut off before anything else is looked at. Over TCP the certificate has been
checked by then: only those of the cluster's authority get as far. It sends a beacon now and then with the start of its
oldest reader, which holds back the freeing of shards (rule D6) and renews its lease on cached settings. When a
setting changes, the call that changed it waits until every gateway said that it forgot, or until that gateway's lease
has run out (L2).
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from s4.base.clock import boot_clock
from s4.crypto.roles import NODE, may
from s4.peer import frames
from s4.peer.api import NodeApi, UnavailableError
from s4.peer.frames import Failure, Header
from s4.peer.stream import FrameStream, Payload, listen
from s4.telemetry import tracing

log = logging.getLogger(__name__)

LEASE_S = 2.0
CALLS_PER_CONNECTION = 1024
CLOSE_S = 5.0  # for calls in progress when the server ends
HELLO_S = 10.0  # for a caller to show its certificate and say who it is


class Served(NodeApi, Protocol):
    """A node as its server needs it."""

    on_settings: Callable[[], Awaitable[None]] | None

    def may_cache(self) -> bool: ...


@dataclass(eq=False, slots=True)
class _Gateway:
    """One connected gateway."""

    stream: FrameStream
    oldest: float
    beacon_at: float
    welcome: bool = False
    version: int = 0
    caller: str = ""
    role: str = NODE
    acked: int = 0
    heard_at: float = field(default_factory=time.monotonic)  # while we sleep nobody can be heard
    changed: asyncio.Event = field(default_factory=asyncio.Event)


def new_incarnation() -> int:
    """A name for this process (rule D2)."""
    return int.from_bytes(os.urandom(7), "big")


class PeerServer:
    """Listens on a Unix socket (a Path) or on (host, port). `incarnation` names this process (rule D2).

    `context` is for TCP and must ask for the caller's certificate. A gateway whose connection ended counts as a reader
    for another `ghost_s`. Raises ValueError for TCP without a context.
    """

    def __init__(
        self,
        node: Served,
        address: Path | tuple[str, int],
        incarnation: int = 0,
        *,
        cluster: str = "",
        store: str = "",
        context: ssl.SSLContext | None = None,
        versions: tuple[int, int] = frames.VERSIONS,
        ghost_s: float = 60.0,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        if not isinstance(address, Path) and (context is None or context.verify_mode != ssl.CERT_REQUIRED):
            raise ValueError("peers are served over TCP only to those who show a certificate of this cluster")
        self._node, self._address, self._context, self._clock = node, address, context, clock
        self._cluster, self._store, self._versions, self._ghost_s = cluster, store, versions, ghost_s
        self.incarnation = incarnation or new_incarnation()
        self._lasting = not isinstance(address, Path)  # a worker ends with its connection, a gateway goes on
        self._gateways: dict[_Gateway, None] = {}  # in the order in which they came
        self._ghosts: list[_Gateway] = []  # whose connection ended: they may still read, and use settings
        self._serving: set[asyncio.Task[None]] = set()
        self._revision = 0
        self._server: asyncio.Server | None = None
        node.on_settings = self.settings_changed

    async def start(self) -> None:
        if isinstance(self._address, Path):
            self._address.unlink(missing_ok=True)
            self._server = await listen(self._began, self._address)
            self._address.chmod(0o600)
        else:
            self._server = await listen(self._began, self._address, self._context, HELLO_S)

    def spoken(self) -> int:
        """The oldest version that any caller speaks now."""
        return min((gateway.version for gateway in self._gateways if gateway.welcome), default=self._versions[1])

    def only(self, least: int) -> None:
        """Have nobody call any more who speaks less."""
        self._versions = (least, self._versions[1])
        for gateway in list(self._gateways):
            if gateway.version < least:
                gateway.stream.close()

    @property
    def port(self) -> int:
        """Where it listens on TCP."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server is not None else 0

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for gateway in list(self._gateways):
            gateway.stream.close()
        if self._serving:  # Server.wait_closed of Python 3.11 does not wait for them
            await asyncio.wait(self._serving, timeout=CLOSE_S)
        if isinstance(self._address, Path):
            self._address.unlink(missing_ok=True)

    def oldest_reader(self) -> float:
        """Start of the oldest request of any gateway that may still read."""
        awake = time.monotonic()
        self._ghosts = [ghost for ghost in self._ghosts if ghost.heard_at + self._ghost_s > awake]
        silent = [gateway for gateway in self._gateways if gateway.heard_at + self._ghost_s <= awake]
        for gateway in silent:  # its machine lost power: TCP does not tell, where nothing is sent to it
            gateway.stream.abort()
        there = (gateway for gateway in self._gateways if gateway not in silent)
        return min((gateway.oldest for gateway in (*there, *self._ghosts)), default=self._clock())

    async def settings_changed(self) -> None:
        """Return once no gateway uses older settings."""
        self._revision += 1
        revision = self._revision
        header = Header(0, self.incarnation, frames.INVALIDATE, frames.OK, msgspec.Raw(frames.encode(revision)))
        waiting = list(self._gateways)
        for gateway in waiting:
            gateway.stream.send(frames.pack(header))
        await asyncio.gather(*(self._forgotten(gateway, revision) for gateway in waiting))
        last = max((ghost.beacon_at for ghost in self._ghosts), default=0.0)
        await asyncio.sleep(max(0.0, last + LEASE_S - self._clock()))

    async def _forgotten(self, gateway: _Gateway, revision: int) -> None:
        while gateway in self._gateways and gateway.acked < revision:
            left = gateway.beacon_at + LEASE_S - self._clock()
            if left <= 0:
                return
            gateway.changed.clear()
            try:
                await asyncio.wait_for(gateway.changed.wait(), left)
            except TimeoutError:
                continue

    def _began(self, stream: FrameStream) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, stream: FrameStream) -> None:
        now = self._clock()
        gateway = _Gateway(stream, now, now)
        self._gateways[gateway] = None
        calls: set[asyncio.Task[None]] = set()
        limit = asyncio.Semaphore(CALLS_PER_CONNECTION)
        try:
            async with asyncio.timeout(HELLO_S):
                header, payload = await stream.read()
            gateway.welcome = self._hello(stream, header, gateway)
            while gateway.welcome:
                header, payload = await stream.read()
                gateway.heard_at = time.monotonic()
                if header.name == frames.ACK:
                    gateway.acked = frames.value_of(frames.revision_decoder, header.value)
                    gateway.changed.set()
                elif header.name == frames.BEACON:
                    # It may have come late: it was sent once the one before was answered, no more is known of when.
                    gateway.oldest = gateway.beacon_at - frames.value_of(frames.age_decoder, header.value)
                    gateway.beacon_at = self._clock()
                    self._answer(stream, header.id, self._node.may_cache())
                elif not may(gateway.role, header.name):
                    self._refuse(stream, header, gateway)
                elif header.id == 0:
                    await self._posted(header)
                else:
                    came = self._clock()
                    await limit.acquire()
                    if header.patience_ms and self._clock() - came > header.patience_ms / 1000:
                        limit.release()  # nobody waits for it any more
                        continue
                    task = asyncio.create_task(self._call(stream, header, payload))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
                    task.add_done_callback(lambda _: limit.release())
        except OSError:
            pass
        except frames.FrameError as error:
            log.error("%s sent nonsense: %s", _caller(stream), error)
        finally:
            self._gateways.pop(gateway, None)
            if self._lasting and gateway.welcome:
                self._ghosts.append(gateway)
            gateway.changed.set()
            if calls:
                await asyncio.wait(calls)
            stream.close()

    def _hello(self, stream: FrameStream, header: Header, gateway: _Gateway) -> bool:
        """Whether the caller may go on; else it is told why not."""
        if header.name != frames.HELLO:
            raise frames.FrameError(f"a connection begins with hello, not {header.name}")
        hello = frames.value_of(frames.hello_decoder, header.value)
        reason = ""
        if hello.cluster != self._cluster:
            reason = f"this is cluster {self._cluster}, not {hello.cluster}"
        elif hello.store != self._store:
            reason = f"this is store {self._store}, not {hello.store}"
        gateway.role = self._role(stream)
        if not gateway.role:
            reason = "the caller's certificate is not that of a node or gateway"
        try:
            version = frames.agree(hello, self._versions)
        except frames.FrameError as error:
            reason = str(error)
        if reason:
            log.info("%s was refused: %s", _caller(stream), reason)
            self._fail(stream, header.id, Failure("refused", "ServiceUnavailable", reason))
            return False
        gateway.caller, gateway.version = hello.caller, version
        before = [ghost for ghost in self._ghosts if ghost.caller and ghost.caller == hello.caller]
        gateway.oldest = min([gateway.oldest, *(ghost.oldest for ghost in before)])  # until its first beacon
        self._ghosts = [ghost for ghost in self._ghosts if ghost not in before]
        self._answer(stream, header.id, frames.Welcome(version, self.incarnation))
        return True

    def _refuse(self, stream: FrameStream, header: Header, gateway: _Gateway) -> None:
        """A call that is not for the caller's role."""
        reason = f"a {gateway.role}'s certificate is not good for {header.name}"
        log.warning("%s was refused: %s", _caller(stream), reason)
        if header.id == 0:
            raise frames.FrameError(reason)
        self._fail(stream, header.id, Failure("unavailable", "ServiceUnavailable", reason))

    def _role(self, stream: FrameStream) -> str:
        """The caller's role by its certificate; a worker of ours, which shows none, is as good as we are."""
        rule = getattr(self._context, "rule", None)
        return rule.role(stream.info("peercert"), time.time()) if rule is not None else NODE

    def _answer(self, stream: FrameStream, call: int, value: Any, payload: bytes | memoryview = b"") -> None:
        raw = msgspec.Raw(frames.encode(value))
        stream.send(frames.pack(Header(call, self.incarnation, "", frames.OK, raw), payload))

    def _fail(self, stream: FrameStream, call: int, failure: Failure) -> None:
        raw = msgspec.Raw(frames.encode(failure))
        stream.send(frames.pack(Header(call, self.incarnation, "", frames.FAILED, raw)))

    async def _posted(self, header: Header) -> None:
        """A call that nobody waits for: messages of replicas, handled in their order."""
        method = frames.METHODS.get(header.name)
        if method is None or method.payload_at is not None or header.incarnation != self.incarnation:
            raise frames.FrameError(f"{header.name} cannot be posted to this process")
        try:
            await getattr(self._node, header.name)(*frames.value_of(method.arguments, header.value))
        except UnavailableError as error:
            log.info("what a peer posted was lost: %s", error)

    async def _call(self, stream: FrameStream, header: Header, payload: Payload) -> None:
        try:
            method = frames.METHODS.get(header.name)
            if method is None or header.incarnation != self.incarnation:
                raise UnavailableError("ServiceUnavailable", "The store has restarted or speaks another version.")
            arguments = list(frames.value_of(method.arguments, header.value))
            if method.payload_at is not None:
                arguments.insert(method.payload_at, payload)
            with tracing.span(f"serve {header.name}", header.trace) if header.trace else nullcontext():
                result = await getattr(self._node, header.name)(*arguments)
            if method.raw_result:
                self._answer(stream, header.id, None, result)
            else:
                self._answer(stream, header.id, result)
            await stream.drain()
        except frames.FAILURES as error:
            self._fail(stream, header.id, frames.failure_of(error))
        except ConnectionError:
            return
        except Exception as error:
            log.exception("a peer's call failed: %s", header.name)
            self._fail(stream, header.id, Failure("internal", "InternalError", str(error)))


def _caller(stream: FrameStream) -> str:
    """Who a caller is, as far as people can find it: its certificate's name, and where it comes from."""
    place, certificate = stream.info("peername"), stream.info("peercert") or {}
    names = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"]
    where = f" at {place[0]}" if isinstance(place, tuple) else ""
    return f"the peer {' or '.join(names[:2]) or 'without a name'}{where}"

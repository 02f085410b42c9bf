"""A node on the other end of a socket, with the face of `peer.api.NodeApi`.

Calls share one connection; each has a deadline. Settings (buckets, identities) are cached while the lease holds, which
a beacon renews and the server's word ends. When the connection breaks, calls in flight fail with UnavailableError, and
the next one connects again; but a worker of `s4 server --workers` ends with the process that has the store, and is
started again with it (one owner, one life).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from s4.base import tasks
from s4.base.clock import boot_clock
from s4.crypto.roles import NODE
from s4.metadata.rows import Bucket
from s4.peer import frames
from s4.peer.api import Identity, LostError, NodeApi, UnavailableError
from s4.peer.frames import Failure, Header
from s4.peer.server import LEASE_S
from s4.peer.stream import FrameStream, Payload, connect
from s4.storage.records import Shard
from s4.telemetry import tracing

log = logging.getLogger(__name__)

CALL_S = 120.0
CONNECT_S = 2.0  # for a store to answer whoever connects: where its host is away nothing says so for minutes
BEACON_S = 0.5
QUIET_S = 2.5  # between beacons where nothing is asked for
BEACON_LIMIT_S = 5.0
LOOKS = 10  # in that time, whether anything was heard
CACHED = 10_000
DISCARDS_ALL = 2  # the version that knows it


class RefusedError(Exception):
    """The one who answers is not the store that is meant, or speaks another version. The message says which."""


class RemoteNode(NodeApi):
    """Open with `await RemoteNode.connect(...)`. What is not written here of NodeApi's methods is a stub, made below."""

    def __init__(
        self,
        stream: FrameStream,
        oldest: Callable[[], float],
        lost: Callable[[], None],
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._stream, self._oldest, self._lost = stream, oldest, lost
        self._clock = clock
        self._calls: dict[int, asyncio.Future[tuple[Header, Payload]]] = {}
        self._next = self._frames = 0
        self._incarnation = self.version = 0
        self._gone, self.store = False, ""
        self._lease_until = 0.0
        self._asked = asyncio.Event()  # since the last beacon, so that the next one is due
        self._watch: asyncio.TimerHandle | None = None  # over calls that are under way
        self._generation, self._acked = 0, msgspec.Raw(frames.encode(0))  # the last revision of settings that was told
        self._buckets: dict[str, Bucket | None] = {}
        self._identities: dict[str, Identity | None] = {}
        self._tasks = [asyncio.create_task(self._read())]

    @classmethod
    async def connect(
        cls,
        address: Path | tuple[str, int],
        oldest: Callable[[], float],
        lost: Callable[[], None],
        *,
        cluster: str = "",
        store: str = "",
        caller: str = "",
        context: ssl.SSLContext | None = None,
        versions: tuple[int, int] = frames.VERSIONS,
        clock: Callable[[], float] = boot_clock,
    ) -> RemoteNode:
        """`oldest` is the start of the oldest request that may still read, by `clock`, which also ends the lease on
        what is cached: it must go on while this machine sleeps, since whoever changes a setting waits no longer.
        `context` is for TCP: it shows our certificate and checks the store's (peer/trust.py).

        Raises OSError where nobody answers, RefusedError where the one who does is not whom we mean.
        """
        stream = await connect(address, None if isinstance(address, Path) else context)
        rule = None if isinstance(address, Path) else getattr(context, "rule", None)
        if rule is not None and rule.role(stream.info("peercert"), time.time()) != NODE:
            stream.close()
            raise RefusedError("who answers there has no node's certificate")
        self = cls(stream, oldest, lost, clock)
        self.store = store
        try:
            header, _ = await self._send(
                frames.HELLO, frames.Hello(*versions, cluster, store, caller), limit_s=BEACON_LIMIT_S
            )
            if header.outcome == frames.FAILED:
                raise RefusedError(msgspec.msgpack.decode(header.value, type=Failure).message)
            welcome = frames.value_of(frames.welcome_decoder, header.value)
            self.version, self._incarnation = welcome.version, welcome.incarnation
            await self._beacon()
        except BaseException:
            await self.close()
            raise
        self._tasks.append(asyncio.create_task(self._beacons()))
        return self

    @property
    def gone(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._gone or self._stream.closed

    def read_now(self, shard: Shard, offset: int, length: int) -> memoryview | None:
        return None  # nothing of another process is at hand

    async def find_bucket(self, name: str) -> Bucket | None:
        found: Bucket | None = await self._cached(self._buckets, "find_bucket", name)
        return found

    async def find_identity(self, access_key: str) -> Identity | None:
        found: Identity | None = await self._cached(self._identities, "find_identity", access_key)
        return found

    async def discard_all(self, partition: int, blobs: list[bytes]) -> None:
        if self.version >= DISCARDS_ALL:
            await self._call("discard_all", partition, blobs)
        else:
            for blob in blobs:
                await self._call("discard", partition, blob)

    def known_bucket(self, name: str) -> Bucket | None:
        """What `find_bucket` gives, where it is cached."""
        return self._buckets.get(name) if self._leased() else None

    def known_identity(self, access_key: str) -> Identity | None:
        return self._identities.get(access_key) if self._leased() else None

    def _leased(self) -> bool:
        """Whether what is cached holds. Asking has the next beacons renew the lease."""
        self._asked.set()
        return self._clock() < self._lease_until

    async def _cached(self, cache: dict[str, Any], method: str, name: str) -> Any:
        if self._leased() and name in cache:
            return cache[name]
        generation = self._generation
        value = await self._call(method, name)
        # Only what no change overtook, and only what is there: a miss is asked again.
        if value is not None and generation == self._generation:
            if len(cache) >= CACHED:
                cache.clear()
            cache[name] = value
        return value

    async def _call(self, name: str, *arguments: Any) -> Any:
        method = frames.METHODS[name]
        sent = list(arguments)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(BEACON_S, self._look)
        payload: bytes | memoryview = sent.pop(method.payload_at) if method.payload_at is not None else b""
        with tracing.span(f"call {name}", store=self.store):
            header, raw = await self._send(name, method.whole(sent), payload)
        if header.outcome == frames.FAILED:
            raise frames.error_of(msgspec.msgpack.decode(header.value, type=Failure))
        return memoryview(raw) if method.raw_result else method.result.decode(header.value)

    def _look(self) -> None:
        """Whether a call still waits: a beacon says whether the other side is there."""
        self._watch = None
        if self._calls and not self._gone:
            self._asked.set()
            self._watch = asyncio.get_running_loop().call_later(BEACON_S, self._look)

    def post(self, name: str, *arguments: Any) -> None:
        """Send a call that nobody answers; what becomes of it is not known. Await `drained` now and then."""
        header = Header(0, self._incarnation, name, frames.OK, msgspec.Raw(frames.encode(arguments)))
        self._stream.send(frames.pack(header))

    async def drained(self) -> None:
        """Return once the connection takes more. Raises ConnectionError."""
        await self._stream.drain()

    async def _send(
        self,
        name: str,
        value: Any,
        payload: bytes | memoryview = b"",
        limit_s: float = CALL_S,
        goes_on: Callable[[], bool] | None = None,
    ) -> tuple[Header, Payload]:
        """`goes_on` is asked each LOOKS'th of the limit whether to wait for longer."""
        if self._gone or self._stream.closed:
            raise LostError("ServiceUnavailable", "The store does not answer. Try again.")
        self._next += 1
        number = self._next
        future: asyncio.Future[tuple[Header, Payload]] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        header = Header(
            number,
            self._incarnation,
            name,
            frames.OK,
            msgspec.Raw(frames.encode(value)),
            int(limit_s * 1000),
            tracing.current(),
        )
        try:
            self._stream.send(frames.pack(header, payload))
            if payload:
                await self._stream.drain()
            while goes_on is not None and not future.done():
                try:
                    async with tasks.awake_within(limit_s / LOOKS):
                        await asyncio.shield(future)
                except TimeoutError:
                    if not goes_on():
                        raise
            async with tasks.awake_within(limit_s):
                return await future
        except OSError as error:
            raise LostError("ServiceUnavailable", "The store does not answer. Try again.") from error
        finally:
            self._calls.pop(number, None)

    async def _read(self) -> None:
        try:
            while True:
                header, payload = await self._stream.read()
                self._frames += 1
                if header.id == 0:
                    self._forget(header)
                    continue
                future = self._calls.get(header.id)
                if future is not None and not future.done():
                    future.set_result((header, payload))
        except (OSError, frames.FrameError):
            self._ended()
        except Exception as error:
            log.error("the connection to store %s is given up", self.store[:8], exc_info=error)
            self._ended()

    def _ended(self) -> None:
        """However it ended: whoever asks here is to know, and to connect anew. It is cut off: TLS would wait for the
        other side's farewell, half a minute of one that is dead."""
        if self._gone:
            return
        self._gone = True
        self._stream.abort()
        self._give_up_calls()
        self._lost()

    def _give_up_calls(self) -> None:
        for future in self._calls.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the store is gone"))

    def _drop_settings(self) -> None:
        self._generation += 1
        self._buckets.clear()
        self._identities.clear()

    def _forget(self, header: Header) -> None:
        self._drop_settings()
        self._acked = header.value
        self._stream.send(frames.pack(Header(0, self._incarnation, frames.ACK, frames.OK, self._acked)))

    async def _beacon(self) -> None:
        """The next one is sent once this is answered: the server reckons with that. While anything is heard of it the
        answer stands behind bulk, and it hears of us."""
        sent, heard, quiet = self._clock(), self._frames, 0

        def goes_on() -> bool:
            nonlocal heard, quiet
            heard, quiet = self._frames, 0 if self._frames != heard else quiet + 1
            self._stream.send(frames.pack(Header(0, self._incarnation, frames.ACK, frames.OK, self._acked)))
            return quiet < LOOKS

        age_s = max(0.0, sent - self._oldest())
        header, _ = await self._send(frames.BEACON, age_s, limit_s=BEACON_LIMIT_S, goes_on=goes_on)
        serves = frames.value_of(frames.lease_decoder, header.value)
        if not serves or self._clock() >= self._lease_until:  # meanwhile another may have served the settings (L2)
            self._drop_settings()
        self._lease_until = sent + LEASE_S if serves else 0.0

    async def _beacons(self) -> None:
        while True:
            await asyncio.sleep(BEACON_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_S - BEACON_S):
                    await self._asked.wait()
            self._asked.clear()
            try:
                await self._beacon()
            except UnavailableError:  # a peer whose machine died says nothing, on TCP for minutes
                self._ended()
                return
            except Exception as error:
                log.error("store %s answers beacons with nonsense", self.store[:8], exc_info=error)
                self._ended()
                return

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stream.close()
        self._give_up_calls()


def _stub(name: str) -> Callable[..., Awaitable[Any]]:
    """What sends a method's call."""
    signature = inspect.signature(getattr(NodeApi, name))

    async def call(self: RemoteNode, *arguments: Any, **named: Any) -> Any:
        if named:
            bound = signature.bind(self, *arguments, **named)
            bound.apply_defaults()
            arguments = bound.args[1:]
        return await self._call(name, *arguments)

    return call


for _name in frames.METHODS.keys() - vars(RemoteNode).keys():
    setattr(RemoteNode, _name, _stub(_name))

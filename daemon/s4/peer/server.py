"""Serves a node to gateways over a socket: here the Unix socket of `--workers`.

Each connection is a gateway. It sends a beacon twice a second with the start of its oldest reader, which holds
back the freeing of shards (rule D6) and renews its lease on cached settings. When a setting changes, the call
that changed it waits until every gateway said that it forgot, or until that gateway's lease has run out (L2).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from s4.node import Node
from s4.peer import frames
from s4.peer.api import UnavailableError
from s4.peer.frames import Failure, Header
from s4.storage.records import DamagedError, DiskFullError, OfflineError

log = logging.getLogger(__name__)

LEASE_S = 2.0
CALLS_PER_CONNECTION = 1024


@dataclass(eq=False, slots=True)
class _Gateway:
    """One connected gateway."""

    writer: asyncio.StreamWriter
    oldest: float
    beacon_at: float
    acked: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class PeerServer:
    """Listens on a Unix socket. `incarnation` names this process (rule D2)."""

    def __init__(self, node: Node, path: Path) -> None:
        self._node, self._path = node, path
        self.incarnation = int.from_bytes(os.urandom(7), "big")
        self._gateways: set[_Gateway] = set()
        self._revision = 0
        self._server: asyncio.Server | None = None
        node.on_settings = self.settings_changed

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, self._path, limit=4 << 20)
        self._path.chmod(0o600)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for gateway in list(self._gateways):
            gateway.writer.close()
        self._path.unlink(missing_ok=True)

    def oldest_reader(self) -> float:
        """Start of the oldest request of any gateway that may still read."""
        return min((gateway.oldest for gateway in self._gateways), default=time.monotonic())

    async def settings_changed(self) -> None:
        """Return once no gateway uses older settings."""
        self._revision += 1
        revision = self._revision
        header = Header(0, self.incarnation, frames.INVALIDATE, frames.OK, msgspec.Raw(frames.encode(revision)))
        waiting = list(self._gateways)
        for gateway in waiting:
            gateway.writer.writelines(frames.pack(header))
        await asyncio.gather(*(self._forgotten(gateway, revision) for gateway in waiting))

    async def _forgotten(self, gateway: _Gateway, revision: int) -> None:
        while gateway in self._gateways and gateway.acked < revision:
            left = gateway.beacon_at + LEASE_S - time.monotonic()
            if left <= 0:
                return
            gateway.changed.clear()
            try:
                await asyncio.wait_for(gateway.changed.wait(), left)
            except TimeoutError:
                continue

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = time.monotonic()
        gateway = _Gateway(writer, now, now)
        self._gateways.add(gateway)
        calls: set[asyncio.Task[None]] = set()
        limit = asyncio.Semaphore(CALLS_PER_CONNECTION)
        try:
            while True:
                header, payload = await frames.read_frame(reader)
                if header.name == frames.ACK:
                    gateway.acked = frames.value_of(frames.revision_decoder, header.value)
                    gateway.changed.set()
                elif header.name == frames.BEACON:
                    gateway.oldest = frames.value_of(frames.age_decoder, header.value)
                    gateway.beacon_at = time.monotonic()
                    self._answer(writer, header.id, None)
                elif header.name == frames.HELLO:
                    self._answer(writer, header.id, self.incarnation)
                else:
                    await limit.acquire()
                    task = asyncio.create_task(self._call(writer, header, payload))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
                    task.add_done_callback(lambda _: limit.release())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except frames.FrameError as error:
            log.error("gateway sent nonsense: %s", error)
        finally:
            self._gateways.discard(gateway)
            gateway.changed.set()
            if calls:
                await asyncio.wait(calls)
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, call: int, value: Any, payload: bytes | memoryview = b"") -> None:
        raw = msgspec.Raw(frames.encode(value))
        writer.writelines(frames.pack(Header(call, self.incarnation, "", frames.OK, raw), payload))

    def _fail(self, writer: asyncio.StreamWriter, call: int, failure: Failure) -> None:
        raw = msgspec.Raw(frames.encode(failure))
        writer.writelines(frames.pack(Header(call, self.incarnation, "", frames.FAILED, raw)))

    async def _call(self, writer: asyncio.StreamWriter, header: Header, payload: bytes) -> None:
        try:
            method = frames.METHODS.get(header.name)
            if method is None or header.incarnation != self.incarnation:
                raise UnavailableError("ServiceUnavailable", "The store has restarted or speaks another version.")
            arguments = list(frames.value_of(method.arguments, header.value))
            if method.payload_at is not None:
                arguments.insert(method.payload_at, payload)
            result = await getattr(self._node, header.name)(*arguments)
            if method.raw_result:
                self._answer(writer, header.id, None, result)
            else:
                self._answer(writer, header.id, result)
            await writer.drain()
        except UnavailableError as error:
            self._fail(writer, header.id, Failure("unavailable", error.code, error.message))
        except DiskFullError as error:
            self._fail(writer, header.id, Failure("full", "StorageFull", str(error)))
        except OfflineError as error:
            self._fail(writer, header.id, Failure("offline", "InternalError", str(error)))
        except DamagedError as error:
            self._fail(writer, header.id, Failure("damaged", "InternalError", str(error)))
        except ConnectionError:
            return
        except Exception as error:
            log.exception("a peer's call failed: %s", header.name)
            self._fail(writer, header.id, Failure("internal", "InternalError", str(error)))

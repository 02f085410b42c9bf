"""The whole S3 endpoint in this process, fed through a pair of sockets, with a bucket `b`, a key and an upload in
it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from inprocess import opened, put
from s4.base.tasks import in_task
from s4.config.limits import Limits
from s4.gateway.accounts import kept_secret
from s4.gateway.buckets import create_bucket
from s4.gateway.context import Gateway, execute
from s4.gateway.multipart import create_upload
from s4.gateway.objects import Attributes
from s4.http.answers import Answer
from s4.http.connection import Connections, Exchange
from s4.http.metrics import RequestMetrics
from s4.http.server import S3Server
from s4.metadata.commands import PutAccessKey, PutUser
from s4.metadata.rows import Grant
from s4.s3 import sigv4
from s4.telemetry.audit import AuditLog

REGION = "us-east-1"
IMPATIENT = Limits(stall_s=1.0)


@dataclass
class Endpoint:
    """`send` gives the whole answer to the bytes of one connection."""

    access: str
    secret: str
    upload: str  # id of a multipart upload of key `m`
    gateway: Gateway
    registry: CollectorRegistry  # of its metrics
    _server: Connections

    async def add_user(self, name: str) -> tuple[str, str]:
        """Somebody else who may do everything; the two keys."""
        keys = f"key{name}", f"secret{name}"
        await execute(self.gateway, 0, PutUser(name, [Grant("SuperUser")], create=True))
        await execute(self.gateway, 0, PutAccessKey(keys[0], name, kept_secret(self.gateway, *keys)))
        return keys

    def signed(
        self, method: str, path: str, headers: dict[str, str] | None = None, keys: tuple[str, str] | None = None
    ) -> bytes:
        """The head of a request of the root key, or of others, whose body is not signed."""
        given = {
            "host": "localhost",
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "x-amz-content-sha256": sigv4.UNSIGNED,
            **(headers or {}),
        }
        given["authorization"] = sigv4.authorization(*(keys or (self.access, self.secret)), REGION, method, path, given)
        return "\r\n".join(
            [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        ).encode()

    async def send(self, data: bytes, limit_s: float = 10.0) -> bytes:
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(self._server, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), limit_s)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class _InTask(S3Server):
    """Serves no request where its bytes arrive: each gets a task before anything is looked at."""

    async def __call__(self, http: Exchange) -> Answer:
        await in_task()
        return await super().__call__(http)


@contextlib.asynccontextmanager
async def endpoint(
    directory: Path, clock: Callable[[], float], limits: Limits = IMPATIENT, *, tasks: bool = False, drives: int = 1
) -> AsyncIterator[Endpoint]:
    """`tasks`: each request is served in a task of its own, from its beginning."""
    directories = [directory / (f"data{number}" if number else "data") for number in range(drives)]
    async with opened(directories, durability="none") as (store, gateway):
        await create_bucket(gateway, "bbb", "root")
        await put(gateway, "bbb", b"k", b"inline")
        await put(gateway, "bbb", b"big", b"x" * 100_000)
        upload, _ = await create_upload(gateway, "bbb", b"m", Attributes(), "root", "", "")
        audit, registry = AuditLog(str(directory / "audit.log")), CollectorRegistry()
        kind = _InTask if tasks else S3Server
        server = kind(
            gateway,
            limits,
            RequestMetrics(registry),
            audit,
            region=REGION,
            domains=(),
            health=lambda _: (200, b"ok\n"),
            clock=clock,
        )
        http = server.connections()
        try:
            yield Endpoint(store.root.access_key, store.root.secret_key, upload, gateway, registry, http)
        finally:
            await http.shutdown(1.0)
            audit.close()

"""What every process that serves S3 is made of: its settings, its gateway, and the S3 port. The single server, its
workers, the nodes and the gateways of a cluster put it together in their own ways (server/standalone.py,
server/worker.py, server/cluster.py)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from s4.base.health import Health, probed
from s4.base.jobs import Job, Jobs
from s4.config.limits import MIB, Limits
from s4.crypto import keyring
from s4.crypto.kms import FileKms, Kms, allowed_of
from s4.crypto.pem import CHECK_S
from s4.gateway.context import BlobCache, Gateway, Readers
from s4.gateway.memory import MemoryBudget
from s4.http.connection import Connections
from s4.http.metrics import RequestMetrics
from s4.http.port import Port
from s4.http.server import S3Server
from s4.http.tls import Certificate
from s4.metadata.commands import NoteUses
from s4.notify import receivers
from s4.peer.api import Layout, NodeApi
from s4.server.heap import keep_buffers_on_the_heap
from s4.storage.records import BLOCK
from s4.telemetry import logs
from s4.telemetry.audit import AuditLog

log = structlog.get_logger("s4")

STRIPE_BYTES = 2 * MIB
FAR_STRIPE_BYTES = 4 * MIB  # where shards go to other machines: each is a frame, which costs what it costs
HASHING_THREADS = 8
SWITCH_S = 0.0005  # that the loop keeps the interpreter while a thread wants it: a commit wants it three times
GAUGE_S = 0.5
NOTE_S = 60.0  # how late it may be known that an access key was used


class ServerSettings(msgspec.Struct, frozen=True):
    """Everything a server is told. Addresses are HOST:PORT; `certificate` and `key` are files, both or neither.

    `erasure` is (k, m); `degraded` starts with less than a majority of the drives.
    """

    directories: list[str]
    erasure: tuple[int, int] | None = None
    strict: bool = False
    degraded: bool = False
    scrub_every_s: float = 7 * 86_400.0
    scrub_bytes_per_s: int = 32 * MIB
    heal_bytes_per_s: int = 0
    listen: str = "0.0.0.0:9000"
    admin_listen: str = "127.0.0.1:9001"
    admin_tls: bool = True
    bucket_metrics: bool = False
    workers: int = 0
    region: str = "us-east-1"
    domains: list[str] = []
    website_domains: list[str] = []
    certificate: str = ""
    key: str = ""
    master_key: str = ""
    kms: str = ""
    kms_key: str = ""
    kms_token: str = ""
    kms_mount: str = "transit"
    kms_allow: str = ""
    bare_keys: bool = False
    signature_v2: str = "query"
    new_buckets: str = "aws"
    receivers: str = ""
    durability: str = "sync"
    inline_bytes: int = 4096
    small_bytes: int = 0
    dedup: bool = True
    reserve_bytes: int = 1 << 30
    volume_bytes: int = 1 << 30
    preallocate_bytes: int = 64 * MIB
    garbage_ratio: float = 0.5
    lifecycle_day_s: float = 86_400.0
    orphan_age_s: float = 86_400.0
    audit_log: str = ""
    access_log: bool = False
    log_level: str = "info"
    log_format: str = "auto"
    limits: Limits = Limits()


def make_gateway(
    node: NodeApi, layout: Layout, settings: ServerSettings, readers: Readers, stripe_bytes: int = STRIPE_BYTES
) -> Gateway:
    """`stripe_bytes` of data at least are in a full stripe."""
    limits = settings.limits
    stripe_bytes = layout.data * -(-stripe_bytes // layout.data // BLOCK) * BLOCK  # shards of whole blocks
    return Gateway(
        node,
        layout,
        limits,
        settings.inline_bytes,
        stripe_bytes,
        settings.dedup,
        MemoryBudget(limits.memory_bytes, limits.memory_wait_s),
        readers,
        BlobCache(limits.blob_cache_bytes),
        ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="hash"),
        settings.strict,
        keyring=keyring.read(Path(settings.master_key)) if settings.master_key else None,
        kms=_kms(settings),
        kms_allowed=allowed_of(settings.kms_allow),
        receivers=frozenset(receivers_of(settings)),
        bare_keys=settings.bare_keys,
        open_buckets=settings.new_buckets == "open",
        day_ms=int(settings.lifecycle_day_s * 1000),
        small_bytes=settings.small_bytes,
    )


def receivers_of(settings: ServerSettings) -> dict[str, receivers.Settings]:
    """Raises ValueError."""
    return receivers.read(Path(settings.receivers)) if settings.receivers else {}


def _kms(settings: ServerSettings) -> Kms | None:
    """Raises KeyringError."""
    if not settings.kms.startswith(("http://", "https://")):
        return FileKms(Path(settings.kms), settings.kms_key) if settings.kms else None
    from s4.crypto.vault import VaultKms  # noqa: PLC0415 - hvac and requests take a moment, and memory, where there is no Vault

    return VaultKms(settings.kms, settings.kms_key, Path(settings.kms_token), settings.kms_mount)


class S3Endpoint:
    """The S3 port of one process."""

    def __init__(
        self,
        settings: ServerSettings,
        gateway: Gateway,
        registry: CollectorRegistry,
        audit: AuditLog,
        ready: Callable[[], str],
        known: Callable[[], Health] = Health,
    ) -> None:
        self._certificate = (
            Certificate(Path(settings.certificate), Path(settings.key)) if settings.certificate else None
        )
        self._metrics = RequestMetrics(registry)
        self.server = S3Server(
            gateway,
            settings.limits,
            self._metrics,
            audit,
            region=settings.region,
            domains=tuple(settings.domains),
            websites=tuple(settings.website_domains),
            health=lambda path: probed(path, ready, known),
            access_log=settings.access_log,
            signature_v2=settings.signature_v2,
        )
        self._gateway = gateway
        self._http: Connections | None = None
        self._port: Port | None = None
        self._jobs = Jobs()

    async def start(self, bound: socket.socket) -> None:
        self._http = self.server.connections()
        context = self._certificate.context if self._certificate else None
        self._port = self.server.port(bound, context)
        await self._port.serve(self._http)
        self._jobs.start(
            Job("counts of requests", 0.0, GAUGE_S, self._gauge),
            Job("uses of access keys", NOTE_S, NOTE_S, self._note_uses),
        )
        if self._certificate is not None:
            self._jobs.start(Job("certificate", CHECK_S, CHECK_S, self._certificate.look))

    def set_access_log(self, everything: bool) -> None:
        self.server.access_log.everything = everything

    async def _gauge(self) -> None:
        self._metrics.in_flight.set(self.server.in_flight)
        self._metrics.tell()

    async def _note_uses(self) -> None:
        """Keep when access keys were used."""
        uses = self.server.take_uses()
        if uses:
            await self._gateway.node.execute(0, NoteUses(uses))

    def reload(self) -> bool | None:
        """Whether there was a new certificate; None where there is none at all."""
        return self._certificate.reload() if self._certificate is not None else None

    @property
    def certificate_holds(self) -> tuple[float, float] | None:
        """From when until when, in seconds since 1970; None where there is none."""
        return self._certificate.holds if self._certificate is not None else None

    async def close(self) -> None:
        """Stop listening, let requests in flight end, close connections."""
        if self._port is not None:
            self._port.stop()
        await self.server.drain()
        if self._port is not None:
            await self._port.close()
        if self._http is not None:
            await self._http.shutdown(1.0)
        await self._jobs.close()
        self._metrics.tell()  # what nobody was told yet


def prepare_process(settings: ServerSettings) -> asyncio.Event:
    """What every process of a server needs; the event is set by SIGTERM and SIGINT."""
    logs.configure(settings.log_level, settings.log_format)
    os.umask(0o077)  # LevelDB's files hold users' secrets: nobody else reads what this process makes
    keep_buffers_on_the_heap()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again: by default it ends a process
    sys.setswitchinterval(SWITCH_S)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop

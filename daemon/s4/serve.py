"""Puts a server together from its parts, runs it, and takes it down in order.

Alone, one process has the store and serves S3. With workers, this process has the store and the admin
endpoint, and each worker is a gateway process of its own that reaches the store over a Unix socket and shares
the S3 port. A worker that dies is started again; when the store's process dies, its workers end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, multiprocess

from s4 import logs
from s4.audit import AuditLog
from s4.embedded import OpenStore, StoreSettings, open_store
from s4.gateway.buckets import resume_deletes
from s4.gateway.context import BlobCache, Buffers, Gateway, MemoryBudget, Readers
from s4.http.admin import AdminApi, AdminContext
from s4.http.metrics import RequestMetrics, StoreCollector, exposition
from s4.http.server import S3Server
from s4.http.tls import Certificate
from s4.limits import MIB, Limits
from s4.peer.api import NodeApi
from s4.peer.client import RemoteNode
from s4.peer.server import PeerServer
from s4.upkeep import compaction, orphans
from s4.upkeep.renames import Renames

log = structlog.get_logger("s4")

EXIT_FATAL = 70
STRIPE_BYTES = MIB
HASHING_THREADS = 8
COMPACT_EVERY_S = 30.0
GAUGE_S = 0.5
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>
AUDIT_FIRST_S = 60.0
AUDIT_EVERY_S = 3600.0
COMPACT_BYTES_PER_S = 64 * MIB
WORKER_RESTART_S = 1.0


class ServerSettings(msgspec.Struct, frozen=True):
    """Everything a server is told. Addresses are HOST:PORT; `certificate` and `key` are files, both or neither."""

    directory: str
    listen: str = "0.0.0.0:9000"
    admin_listen: str = "127.0.0.1:9001"
    workers: int = 0
    region: str = "us-east-1"
    domains: list[str] = []
    certificate: str = ""
    key: str = ""
    durability: str = "sync"
    inline_bytes: int = 4096
    dedup: bool = True
    reserve_bytes: int = 1 << 30
    volume_bytes: int = 1 << 30
    preallocate_bytes: int = 64 * MIB
    garbage_ratio: float = 0.5
    orphan_age_s: float = 86_400.0
    audit_log: str = ""
    access_log: bool = False
    log_level: str = "info"
    log_format: str = "auto"
    limits: Limits = Limits()

    @property
    def socket_path(self) -> Path:
        return Path(self.directory) / "peer.sock"

    @property
    def audit_path(self) -> str:
        return self.audit_log or str(Path(self.directory) / "audit.log")


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, [v6]:PORT or :PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address; write HOST:PORT, such as 127.0.0.1:9000")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what ":PORT" means everywhere


def listening_socket(address: str, *, shared: bool = False) -> socket.socket:
    """A bound socket. Raises OSError with the address in its message."""
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from error
    return bound


def die(error: BaseException) -> None:
    """End at once after an error that leaves durability in doubt (rule D7); the next start recovers."""
    traceback.print_exception(error)
    sys.stderr.write(f"s4: durability is in doubt, stopping to recover at the next start: {error}\n")
    sys.stderr.flush()
    os._exit(EXIT_FATAL)


def make_gateway(node: NodeApi, partitions: int, settings: ServerSettings, readers: Readers) -> Gateway:
    limits = settings.limits
    return Gateway(
        node, partitions, limits, settings.inline_bytes, STRIPE_BYTES, settings.dedup,
        MemoryBudget(limits.memory_bytes, limits.memory_wait_s), readers, BlobCache(limits.blob_cache_bytes),
        Buffers(STRIPE_BYTES), ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="hash"),
    )  # fmt: skip


class S3Endpoint:
    """The S3 port of one process."""

    def __init__(self, settings: ServerSettings, gateway: Gateway, registry: CollectorRegistry, audit: AuditLog,
                 ready: Callable[[], str]) -> None:  # fmt: skip
        self._certificate = (
            Certificate(Path(settings.certificate), Path(settings.key)) if settings.certificate else None
        )
        self._metrics = RequestMetrics(registry)
        self.server = S3Server(
            gateway, settings.limits, self._metrics, audit, region=settings.region,
            domains=tuple(settings.domains), health=lambda path: _health(path, ready), access_log=settings.access_log,
        )  # fmt: skip
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._http = self.server.http_server()
        context = self._certificate.context if self._certificate else None
        self._listener = await loop.create_server(self._http, sock=bound, ssl=context, backlog=1024)
        self._tasks.append(asyncio.create_task(self._gauge()))
        if self._certificate is not None:
            self._tasks.append(asyncio.create_task(self._certificate.watch()))

    async def _gauge(self) -> None:
        while True:
            self._metrics.in_flight.set(self.server.in_flight)
            await asyncio.sleep(GAUGE_S)

    def reload(self) -> None:
        if self._certificate is not None:
            self._certificate.reload()

    async def close(self) -> None:
        """Stop listening, let requests in flight end, close connections."""
        if self._listener is not None:
            self._listener.close()
        await self.server.drain()
        if self._http is not None:
            await self._http.shutdown(1.0)
        await _cancel(self._tasks)


def _health(path: str, ready: Callable[[], str]) -> tuple[int, bytes]:
    reason = ready() if path == "/readyz" else ""
    return (503, reason.encode() + b"\n") if reason else (200, b"ok\n")


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Server:
    """A running server: the store, the admin endpoint, and S3 here or in workers."""

    def __init__(self, settings: ServerSettings, environment: dict[str, str]) -> None:
        self.settings, self._environment = settings, environment
        self._readers = Readers()
        self._peers: PeerServer | None = None
        self._s3: S3Endpoint | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: list[asyncio.subprocess.Process] = []
        self._not_ready = "starting"
        self._stopping = False
        self._registry = CollectorRegistry()

    def horizon(self) -> float:
        """Start of the oldest request that may still read shards, in any process."""
        local = self._readers.oldest()
        return min(local, self._peers.oldest_reader()) if self._peers is not None else local

    async def start(self) -> None:
        """Raises DirectoryError, OSError, ValueError with messages for people."""
        settings = self.settings
        bound = listening_socket(settings.listen, shared=settings.workers > 0)
        admin_bound = listening_socket(settings.admin_listen)
        self.endpoint, self.admin_endpoint = _shown(bound), _shown(admin_bound)
        self.store = await open_store(Path(settings.directory), StoreSettings(
            settings.durability, settings.reserve_bytes, settings.volume_bytes, settings.preallocate_bytes,
        ), settings.limits, horizon=self.horizon, fatal=die, environment=self._environment)  # fmt: skip
        self._gateway = make_gateway(self.store.node, self.store.node.partitions, settings, self._readers)
        await resume_deletes(self._gateway)
        self._renames = Renames(self.store.node, self._gateway)
        self._renames.resume()
        self.audit = AuditLog(settings.audit_path)
        await self._start_admin(admin_bound)
        if settings.workers:
            await self._start_workers(bound)
        else:
            self._s3 = S3Endpoint(settings, self._gateway, self._registry, self.audit, self._ready)
            await self._s3.start(bound)
        self._tasks += [
            asyncio.create_task(self._every(COMPACT_EVERY_S, COMPACT_EVERY_S, self._compact)),
            asyncio.create_task(self._every(AUDIT_FIRST_S, AUDIT_EVERY_S, self._audit_orphans)),
        ]
        self._not_ready = ""

    def _ready(self) -> str:
        return self._not_ready

    async def _start_admin(self, bound: socket.socket) -> None:
        limits = self.settings.limits
        collector = StoreCollector(lambda: _store_figures(self.store))
        directory = self._environment.get("PROMETHEUS_MULTIPROC_DIR")
        shown = msgspec.to_builtins(self.settings)
        context = AdminContext(
            self.store.node, self._gateway, self._renames, self.audit, limits, self.settings.region, self.horizon,
            self._ready, lambda: exposition(self._registry, directory if self.settings.workers else None, collector), shown,
        )  # fmt: skip
        self._admin = web.AppRunner(AdminApi(context).application(), access_log=None)
        await self._admin.setup()
        await web.SockSite(self._admin, bound).start()

    async def _start_workers(self, bound: socket.socket) -> None:
        self._peers = PeerServer(self.store.node, self.settings.socket_path)
        await self._peers.start()
        self._bound = bound  # kept bound, never listening: it holds the port for the workers
        address = f"{'[' + bound.getsockname()[0] + ']' if bound.family == socket.AF_INET6 else bound.getsockname()[0]}:{bound.getsockname()[1]}"
        settings = msgspec.structs.replace(self.settings, listen=address)
        started = [asyncio.Event() for _ in range(self.settings.workers)]
        for number, event in enumerate(started):
            self._tasks.append(asyncio.create_task(self._keep_worker(number, settings, event)))
        async with asyncio.timeout(60):
            await asyncio.gather(*(event.wait() for event in started))

    async def _keep_worker(self, number: int, settings: ServerSettings, started: asyncio.Event) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "s4.worker", msgspec.json.encode(settings).decode(), str(number),
                stdout=asyncio.subprocess.PIPE, env={**os.environ, **self._environment},
            )  # fmt: skip
            self._processes.append(process)
            if process.stdout is not None and await process.stdout.readline():
                started.set()
            code = await process.wait()
            self._processes.remove(process)
            multiprocess.mark_process_dead(process.pid, self._environment.get("PROMETHEUS_MULTIPROC_DIR"))  # type: ignore[no-untyped-call]
            if self._stopping:
                return
            log.error("worker ended and is started again", worker=number, code=code)
            await asyncio.sleep(WORKER_RESTART_S)

    async def _every(self, first_s: float, then_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do background work for ever; one failure is logged and does not end it."""
        await asyncio.sleep(first_s)
        while True:
            try:
                await work()
            except Exception as error:
                log.error("background work failed and is tried again", work=work.__name__, exc_info=error)
            await asyncio.sleep(then_s)

    async def _compact(self) -> None:
        self.audit.rotate()
        for number in compaction.candidates(self.store.shards, self.settings.garbage_ratio):
            await compaction.compact_one(self.store.shards, number, self.horizon, bytes_per_s=COMPACT_BYTES_PER_S)

    async def _audit_orphans(self) -> None:
        found = await orphans.audit(self.store.node, age_s=self.settings.orphan_age_s)
        if found.orphan_blobs or found.orphan_references:
            log.info(
                "orphans dropped",
                blobs=found.orphan_blobs,
                bytes=found.orphan_bytes,
                references=found.orphan_references,
            )

    def reload(self) -> None:
        """Read the certificate again, here and in the workers."""
        if self._s3 is not None:
            self._s3.reload()
        for process in self._processes:
            process.send_signal(signal.SIGHUP)

    async def close(self) -> None:
        """Take no more requests, let those in flight end, then close the store."""
        self._not_ready, self._stopping = "stopping", True
        if self._s3 is not None:
            await self._s3.close()
        waiting = [process.wait() for process in self._processes]
        for process in list(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*waiting)
        await self._admin.cleanup()
        await self._renames.close()
        await _cancel(self._tasks)
        if self._peers is not None:
            await self._peers.close()
            self._bound.close()
        await self.store.close()
        self._gateway.pool.shutdown()
        self.audit.close()


def keep_buffers_on_the_heap() -> None:
    """Have glibc use memory of large buffers over again instead of mapping fresh pages for each: a sixth more GETs."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, size in ((_M_MMAP_THRESHOLD, 32 * MIB), (_M_TRIM_THRESHOLD, 256 * MIB), (_M_TOP_PAD, 16 * MIB)):
            libc.mallopt(parameter, size)


def settle_garbage_collector() -> None:
    """What is there now stays; look for cycles less often. Requests make few: 5 percent more reads a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def _shown(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _store_figures(store: OpenStore) -> Iterator[tuple[str, str, float, bool]]:
    shards, host = store.shards, store.host
    use = shards.usage().values()
    sums = store.node.counters()
    free, total = shards.files.free_bytes(shards.directory)
    yield "s4_objects", "Object versions that are not delete markers", sums.objects, False
    yield "s4_logical_bytes", "Bytes of these as clients see them", sums.bytes, False
    yield "s4_blobs", "Unique blobs", sums.blobs, False
    yield "s4_references", "References to blobs", sums.references, False
    yield "s4_blob_bytes", "Bytes of unique blobs", sums.blob_bytes, False
    yield "s4_volumes", "Volume files", len(use), False
    yield "s4_volume_bytes", "Bytes of records in volumes", sum(volume.used for volume in use), False
    yield "s4_garbage_bytes", "Bytes of dead records in volumes", sum(volume.dead for volume in use), False
    yield "s4_disk_free_bytes", "Free bytes of the file system", free, False
    yield "s4_disk_bytes", "All bytes of the file system", total, False
    yield "s4_accepts_writes", "1 while free disk is above the reserve", float(shards.has_room()), False
    yield "s4_commands_waiting", "Commands that wait for the writer loop", host.waiting, False
    yield "s4_turns", "Turns of the writer loop, one synced batch each", host.turns, True
    yield "s4_commands", "Commands decided", host.commands, True
    yield "s4_freeing_blobs", "Dead blobs whose shards are not freed yet", store.node.outbox_waiting, False
    yield "s4_row_cache_bytes", "Bytes of the row cache", host.cache_bytes, False
    yield "s4_shard_read_bytes", "Bytes read from shards", shards.bytes_read, True
    yield "s4_shard_written_bytes", "Bytes written to volumes", shards.bytes_written, True
    yield "s4_damaged_reads", "Reads that found a shard missing or damaged", shards.damaged, True


def _prepare_process(settings: ServerSettings) -> asyncio.Event:
    """What every process of a server needs; the event is set by SIGTERM and SIGINT."""
    logs.configure(settings.log_level, settings.log_format)
    os.umask(0o077)  # LevelDB's files hold users' secrets: nobody else reads what this process makes
    keep_buffers_on_the_heap()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def run(
    settings: ServerSettings, environment: dict[str, str], announce: Callable[[Server], Awaitable[None]]
) -> None:
    """Run until SIGTERM or SIGINT; `announce` is called once the server is up."""
    stop = _prepare_process(settings)
    server = Server(settings, environment)
    await server.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, server.reload)
    started = time.monotonic()
    settle_garbage_collector()
    await announce(server)
    await stop.wait()
    log.info("stopping", uptime_s=round(time.monotonic() - started, 1))
    await server.close()


async def run_worker(settings: ServerSettings, say: Callable[[], Any]) -> None:
    """Run one gateway process of a server with workers."""
    stop = _prepare_process(settings)
    readers = Readers()
    node = await RemoteNode.connect(settings.socket_path, readers.oldest, stop.set)
    gateway = make_gateway(node, await node.partition_count(), settings, readers)
    audit = AuditLog(settings.audit_path)
    endpoint = S3Endpoint(settings, gateway, CollectorRegistry(), audit, lambda: "")
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, endpoint.reload)
    await endpoint.start(listening_socket(settings.listen, shared=True))
    settle_garbage_collector()
    say()
    await stop.wait()
    await endpoint.close()
    await node.close()
    gateway.pool.shutdown()
    audit.close()

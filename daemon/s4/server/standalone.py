"""Puts a server together from its parts, runs it, and takes it down in order.

Alone, one process has the store and serves S3. With workers, this process has the store and the admin
endpoint, and each worker is a gateway process of its own that reaches the store over a Unix socket and shares
the S3 port. A worker that dies is started again; when the store's process dies, its workers end.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import structlog
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from s4.base.health import Health
from s4.base.jobs import Job, Jobs
from s4.config.listening import listening_socket, shown
from s4.config.settings import StoreSettings
from s4.crypto.pem import CHECK_S
from s4.gateway.context import Readers
from s4.gateway.keychecks import KeyCheck
from s4.http.admin import AdminContext
from s4.http.admin_port import AdminPort
from s4.http.admin_server import ServerAdmin
from s4.http.metrics import StoreCollector, exposition
from s4.http.tls import Certificate
from s4.node.local import RootChange, open_store, own_master_key
from s4.notify.delivery import Sender
from s4.peer.server import PeerServer
from s4.s3.errors import S3Error
from s4.server import given, restart, starting
from s4.server.heap import settle_garbage_collector
from s4.server.metrics import certificate_metrics, store_metrics
from s4.server.parts import S3Endpoint, ServerSettings, make_gateway, prepare_process, receivers_of
from s4.server.workers import Workers
from s4.storage.files import Files
from s4.telemetry import logs, tracing
from s4.telemetry.audit import ROTATE_S, AuditLog
from s4.upkeep import compaction, orphans
from s4.upkeep.confirm import confirm_doubtful
from s4.upkeep.deletions import LOOK_S as DELETIONS_LOOK_S
from s4.upkeep.deletions import Deletions
from s4.upkeep.drives import server_health
from s4.upkeep.growing import Growing
from s4.upkeep.heal import Healer
from s4.upkeep.inventory import Inventory
from s4.upkeep.leaving import Leaving
from s4.upkeep.lifecycle import Lifecycle
from s4.upkeep.renames import Renames
from s4.upkeep.repair import Repairer
from s4.upkeep.returning import Returning
from s4.upkeep.rewrap import Rewrapper
from s4.upkeep.scrub import Scrubber

log = structlog.get_logger("s4")

HEAL_EVERY_S = 0.5
SCRUB_FIRST_S, SCRUB_LOOK_S = 60.0, 600.0
COMPARE_LOOK_S = 5.0
AUDIT_FIRST_S = 60.0
INVENTORY_S = 30.0
PLAN_LOOK_S, LEAVE_LOOK_S = 0.5, 5.0
LIFECYCLE_FIRST_S, LIFECYCLE_LOOK_S = 60.0, 60.0
REPAIR_FIRST_S, REPAIR_LOOK_S = 1.0, 60.0
REWRAP_FIRST_S, REWRAP_LOOK_S = 5.0, 60.0
AUDIT_EVERY_S = 3600.0


def lifecycle_looks(settings: ServerSettings) -> tuple[float, float]:
    """When to look first whether a day of lifecycle has begun, and then how often, in seconds."""
    return min(LIFECYCLE_FIRST_S, settings.lifecycle_day_s), min(LIFECYCLE_LOOK_S, settings.lifecycle_day_s / 4)


class Server:
    """A running server: the store, the admin endpoint, and S3 here or in workers."""

    def __init__(self, settings: ServerSettings, environment: dict[str, str]) -> None:
        self.settings = self._settings = settings
        self._environment = environment
        self._readers = Readers()
        self._peers: PeerServer | None = None
        self._s3: S3Endpoint | None = None
        self.jobs = Jobs()
        self._s3_workers: Workers | None = None
        self._not_ready, self._known = "starting", Health()
        self._registry = CollectorRegistry()
        self._tls: Certificate | None = None  # of the admin port, the same files as those of S3

    def horizon(self) -> float:
        """Start of the oldest request that may still read shards, in any process."""
        local = self._readers.oldest()
        return min(local, self._peers.oldest_reader()) if self._peers is not None else local

    async def start(self) -> None:
        """Raises DirectoryError, OSError, ValueError with messages for people."""
        settings = self.settings
        given.check(settings)
        bound = restart.kept_open("s3") or listening_socket(settings.listen, shared=settings.workers > 0)
        admin_bound = restart.kept_open("admin") or listening_socket(settings.admin_listen)
        restart.keep_open("s3", bound)
        restart.keep_open("admin", admin_bound)
        self.endpoint, self.admin_endpoint = shown(bound), shown(admin_bound)
        self.store = await open_store(
            [Path(one) for one in settings.directories],
            self._of_store(),
            settings.limits,
            horizon=self.horizon,
            fatal=restart.die,
            environment=self._environment,
            jobs=self.jobs,
        )
        restart.remember(lambda: self.store.membership.revision)
        self._settings = settings = self._completed(settings)
        self.audit = AuditLog(settings.audit_log)
        self._gateway = make_gateway(self.store.node, await self.store.node.layout(), settings, self._readers)
        self._make_upkeep(settings)
        self._compactor = compaction.Compactor(
            lambda: self.store.drives.stores, settings.garbage_ratio, self.horizon, self.store.node.found
        )
        self._scrubber = Scrubber(self.store.node, settings.scrub_bytes_per_s, restart.die)
        self._renames = Renames(self._gateway, self.jobs)
        await self._renames.resume()
        await self._start_admin(admin_bound)
        if settings.workers:
            await self._start_workers(bound)
        else:
            self._s3 = S3Endpoint(settings, self._gateway, self._registry, self.audit, self._ready, self._health)
            await self._s3.start(bound)
        self.jobs.start(
            Job("audit log", ROTATE_S, ROTATE_S, self.audit.rotate),
            Job("compaction", compaction.EVERY_S, compaction.EVERY_S, self._compactor.run),
            Job("audit of orphans", AUDIT_FIRST_S, AUDIT_EVERY_S, self._audit_orphans),
            Job("heal", 0.0, HEAL_EVERY_S, self._healer.work),
            Job("comparison of drives", 0.0, COMPARE_LOOK_S, self._confirm),
            Job("scrub", SCRUB_FIRST_S, SCRUB_LOOK_S, self._scrub),
            Job("deletions of buckets", 0.0, DELETIONS_LOOK_S, Deletions(self._gateway, alone=True).look, (S3Error,)),
            Job("lifecycle", *lifecycle_looks(settings), self._lifecycle.run),
            Job("inventory", 0.0, INVENTORY_S, self._inventory.look),
            *self._of_drives,
            Job("health", 0.0, settings.limits.look_s, self._look),
            Job("repair after an upgrade", REPAIR_FIRST_S, None, self._repairer.run),
            Job("rewrap", REWRAP_FIRST_S, REWRAP_LOOK_S, self._rewrapper.run),
        )
        self._not_ready = ""

    def _of_store(self) -> StoreSettings:
        settings, history = self.settings, restart.History.read(self._environment)
        return StoreSettings(
            settings.durability,
            settings.reserve_bytes,
            settings.volume_bytes,
            settings.preallocate_bytes,
            geometry=settings.erasure,
            degraded=settings.degraded,
            known=history.map if history.failures else 0,
            failed=history.failed(),
            strict=settings.strict,
            small=settings.small_bytes > 0,
        )

    def _completed(self, settings: ServerSettings) -> ServerSettings:
        """With what the store says of it."""
        if settings.small_bytes and not self.store.small:
            log.warning("--small is off: not every drive takes the mark that keeps programs out which cannot read it")
            settings = replace(settings, small_bytes=0)
        if not settings.master_key:
            settings = replace(settings, master_key=str(own_master_key(self.store)))
        return replace(settings, audit_log=settings.audit_log or str(self.store.directory / "audit.log"))

    def _make_upkeep(self, settings: ServerSettings) -> None:
        self._keys = KeyCheck(self._gateway, None)
        self._returning = Returning(
            self.store.node,
            settings.reserve_bytes,
            restart.renew,
            restart.may_renew,
            Files(),
            lambda: self._s3.server.in_flight if self._s3 is not None else 0,
        )
        self._healer = Healer(self.store.node, self.store.joiners, bytes_per_s=settings.heal_bytes_per_s)
        self._growing = Growing(
            self.store.node,
            self.store.coordinator,
            self._healer,
            self._returning,
            restart.renew,
            restart.may_renew,
            settings.reserve_bytes,
            Files(),
        )
        self._of_drives = (
            Job("plan of drives", 0.0, PLAN_LOOK_S, self._growing.look),
            Job("drives that are back", 0.0, settings.limits.look_s, self._returning.look),
            Job("shards that moved", LEAVE_LOOK_S, LEAVE_LOOK_S, Leaving(self.store.node, self.horizon).run),
        )
        self._lifecycle = Lifecycle(
            self._gateway,
            self.store.host,
            lambda: range(self.store.node.partitions),
            audit=self.audit.write,
        )
        self._inventory = Inventory(self.store.node, lambda: settings.bucket_metrics)
        self._rewrapper = Rewrapper(self._gateway, self.store.host, lambda: range(self.store.node.partitions))
        self._sender = Sender(
            self.store.host,
            lambda: range(self.store.node.partitions),
            receivers_of(settings),
            settings.region,
            settings.limits.waiting_events,
        )
        self._sender.start(self.jobs)
        self._repairer = Repairer(
            lambda: self.store.host.database,
            partial(self.store.host.submit, own=True),
            lambda: range(self.store.node.partitions),
        )
        self._workers = self._lifecycle, self._inventory, self._rewrapper, self._sender, self._repairer, self.jobs

    def _ready(self) -> str:
        return self._not_ready or self._keys.wrong

    def _s3_refuses(self, why: str) -> None:
        """Serve nobody, while there is a reason. Workers look for themselves."""
        if self._s3 is not None:
            self._s3.server.refusing = why

    def _health(self) -> Health:
        """As of the last look: probes come often, and from anybody."""
        return self._known

    def _alarms(self) -> list[str]:
        return [*self._keys.alarms(), *self._scrubber.alarms(), *self.jobs.alarms()]

    async def _look(self) -> None:
        """Look at what nobody else would notice."""
        await asyncio.gather(*(shards.watch.look() for shards in self.store.drives.stores))
        self._known = server_health(self.store.node, self._healer, self._alarms())
        await self._keys.look()
        self._s3_refuses(self._keys.wrong)
        logs.settle()

    async def _start_admin(self, bound: socket.socket) -> None:
        limits = self.settings.limits
        if self.settings.certificate:
            self._tls = Certificate(Path(self.settings.certificate), Path(self.settings.key))
        tls = self._tls
        collector = StoreCollector(
            lambda: [
                *store_metrics(self.store, self._healer, self._scrubber, self._workers, self._alarms()),
                *certificate_metrics("S3", tls.holds if tls is not None else None),
            ]
        )
        directory = self._environment.get("PROMETHEUS_MULTIPROC_DIR")
        shown = msgspec.to_builtins(self.settings)
        context = AdminContext(
            self._gateway,
            self._renames,
            self.audit,
            limits,
            self.settings.region,
            self._ready,
            lambda: exposition(self._registry, directory if self.settings.workers else None, collector),
            shown,
            not self.settings.admin_tls,
            self._health,
            self._set_log,
            self._root_keys,
            self._alarms,
            lambda: self._keys.wrong,
            self.jobs.table,
        )
        admin = ServerAdmin(
            context, self.store.node, self._healer, self._scrubber, self._compactor, self._returning, self._growing
        )
        self._admin = AdminPort(admin.application(), bound, tls.context if tls else None, limits.admin_connections)
        await self._admin.start()
        if tls is not None:
            self.jobs.start(Job("certificate of the admin port", CHECK_S, CHECK_S, tls.look))

    async def _start_workers(self, bound: socket.socket) -> None:
        socket_path = self.store.directory / "peer.sock"
        self._peers = PeerServer(self.store.node, socket_path)
        await self._peers.start()
        self._bound = bound  # kept bound, never listening: it holds the port for the workers
        address = f"{'[' + bound.getsockname()[0] + ']' if bound.family == socket.AF_INET6 else bound.getsockname()[0]}:{bound.getsockname()[1]}"
        self._address = address
        self._s3_workers = Workers(
            lambda: ["-m", "s4.server.worker", self._told().decode(), str(socket_path)], self._environment, self.jobs
        )
        await self._s3_workers.start(self.settings.workers)

    def _told(self) -> bytes:
        """What a worker is told, as of now."""
        return msgspec.json.encode(replace(self._settings, listen=self._address))

    async def _scrub(self) -> None:
        if self._scrubber.due(self.settings.scrub_every_s):
            await self._scrubber.run(deep=True)

    async def _confirm(self) -> None:
        await confirm_doubtful(self.store.node, self.store.node)

    async def _audit_orphans(self) -> None:
        (await orphans.audit(self.store.node, self.store.node, age_s=self.settings.orphan_age_s)).report()

    async def _root_keys(self, action: str, _: str) -> dict[str, str]:
        """New root keys, which count at once. Raises ValueError, OSError."""
        if action != "change":
            raise ValueError(f"a server's root keys are changed in one step: there is nothing to {action}")
        new = RootChange(Files(), self.store, self._environment).change()
        await self._keys.tell()
        return {"access_key": new.access_key, "secret_key": new.secret_key}

    def _set_log(self, everything: bool | None, level: str) -> None:
        """What is logged from now on, here and in the workers: those that are there, and those that come."""
        if level:
            logs.set_level(level)
        if everything is None:
            return
        self._settings = replace(self._settings, access_log=everything)
        if self._s3 is not None:
            self._s3.server.access_log.everything = everything
        if self._s3_workers is not None:
            self._s3_workers.tell(signal.SIGUSR1 if everything else signal.SIGUSR2)

    def reload(self) -> None:
        """Read the certificate again, here and in the workers."""
        starting.reloaded(
            {
                "certificate": self._s3.reload() if self._s3 is not None else None,
                "certificate of the admin port": self._tls.reload() if self._tls is not None else None,
                "certificates of workers": True if self._s3_workers else None,
            }
        )
        if self._s3_workers is not None:
            self._s3_workers.tell(signal.SIGHUP)

    async def close(self) -> None:
        """Take no more requests, let those in flight end, then close the store."""
        self._not_ready = "stopping"
        if self._s3 is not None:
            await self._s3.close()
        if self._s3_workers is not None:
            await self._s3_workers.close()
        await self._admin.close()
        await self.jobs.close()
        await self._sender.close()
        if self._peers is not None:
            await self._peers.close()
            self._bound.close()
        await self.store.close()
        self._gateway.pool.shutdown()
        self.audit.close()


async def run(
    settings: ServerSettings, environment: dict[str, str], announce: Callable[[Server], Awaitable[None]]
) -> None:
    """Run until SIGTERM or SIGINT; `announce` is called once the server is up."""
    stop = prepare_process(settings)
    send_traces = tracing.configure(environment, "s4-server")
    server = Server(settings, environment)
    await server.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, server.reload)
    started = time.monotonic()
    settle_garbage_collector()
    starting.say_started(
        "server",
        settings,
        starting.secret_files([one.directory for one in server.store.drives.stores], server.settings),
        s3=server.endpoint,
        admin=server.admin_endpoint,
        drives=len(server.store.drives.all),
    )
    await announce(server)
    starting.say_ready(environment)
    await stop.wait()
    log.info("stopping", uptime_s=round(time.monotonic() - started, 1))
    await server.close()
    send_traces()

"""Puts a node or a gateway of a cluster together from its parts, runs it, and takes it down in order.

A node is a member (node/member.py) with a gateway beside it and the upkeep of what it leads and holds; a gateway has
neither store nor state, only the map. Both wait at start until there is a cluster. While a node stops, it first lets
requests end, then has others lead what it led, and go on without it where enough are left.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import structlog
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from s4.base.health import Health
from s4.base.jobs import Job, Jobs
from s4.base.metrics import Metric
from s4.cluster.contact import Contact
from s4.cluster.coordinator import CoordinatorError, RemoteCoordinator
from s4.cluster.keeper import MapKeeper, NoMapError
from s4.cluster.placement import GONE
from s4.cluster.status import ClusterStatus, Said, status
from s4.config.listening import listening_socket, shown
from s4.config.settings import RootKeys, StoreSettings
from s4.crypto.pem import CHECK_S
from s4.gateway.context import Gateway, Readers
from s4.gateway.keychecks import KeyCheck
from s4.http.admin import AdminContext
from s4.http.admin_cluster import ClusterAdmin, NodeAdmin, said
from s4.http.admin_port import AdminPort
from s4.http.metrics import StoreCollector, exposition
from s4.node import held
from s4.node.held import Holding
from s4.node.member import Location, Member, open_member
from s4.notify.delivery import Sender
from s4.peer.api import CallError
from s4.peer.router import Router
from s4.peer.trust import Credentials
from s4.replica.terms import Timing
from s4.server import given, restart
from s4.server.heap import settle_garbage_collector
from s4.server.metrics import certificate_metrics, health_metrics, member_metrics, router_metrics
from s4.server.parts import FAR_STRIPE_BYTES, S3Endpoint, ServerSettings, make_gateway, prepare_process, receivers_of
from s4.server.standalone import (
    AUDIT_EVERY_S,
    AUDIT_FIRST_S,
    COMPARE_LOOK_S,
    INVENTORY_S,
    REPAIR_FIRST_S,
    REPAIR_LOOK_S,
    REWRAP_FIRST_S,
    REWRAP_LOOK_S,
    SCRUB_FIRST_S,
    SCRUB_LOOK_S,
    lifecycle_looks,
)
from s4.server.starting import reloaded, say_ready, say_started
from s4.server.workers import METRICS, Workers
from s4.telemetry import logs, tracing
from s4.telemetry.audit import ROTATE_S, AuditLog
from s4.upkeep import compaction, mend
from s4.upkeep.confirm import confirm_doubtful
from s4.upkeep.contents import NAME, Checked, Contents
from s4.upkeep.inventory import Inventory
from s4.upkeep.leader import Leader
from s4.upkeep.lifecycle import Lifecycle
from s4.upkeep.mend import Mender
from s4.upkeep.ownstore import OwnStore
from s4.upkeep.progress import ProgressFile
from s4.upkeep.renames import Renames
from s4.upkeep.repair import Repairer
from s4.upkeep.rewrap import Rewrapper
from s4.upkeep.small import LOOK_S, SmallRows

log = structlog.get_logger("s4")

LEAVE_EVERY_S = 2.0
RENEW_EVERY_S = 5.0
WAIT_S = 0.5


class EtcdFiles(msgspec.Struct, frozen=True):
    """How an etcd with TLS or a login is reached (cluster/etcd.py): files, or nothing."""

    etcd_authority: str = ""
    etcd_certificate: str = ""
    etcd_key: str = ""
    etcd_login: str = ""


class ClusterSettings(ServerSettings, frozen=True):
    """`coordinator` is etcd://HOST:PORT[,HOST:PORT]/NAME. Without a directory it is a gateway, which has `workers`
    beside it; one of these is told no admin address. `timing_scale` shortens leases and graces, for tests."""

    coordinator: str = ""
    name: str = ""
    peer_listen: str = "0.0.0.0:9002"
    advertise: str = ""
    zone: str = ""
    weight: float = 1.0
    authority: str = ""
    peer_certificate: str = ""
    peer_key: str = ""
    timing_scale: float = 1.0
    etcd: EtcdFiles = EtcdFiles()


def check_coordinator(text: str) -> None:
    """Raises ValueError that says how to write it."""
    if text.startswith("kubernetes:"):
        from s4.cluster.kubernetes import parse  # noqa: PLC0415

        parse(text)
    else:
        parse_coordinator(text)


def parse_coordinator(text: str) -> tuple[list[str], str]:
    """(endpoints, prefix) of etcd://HOST:PORT,HOST:PORT/NAME. Raises ValueError."""
    match = re.fullmatch(r"etcd://([^/]+:\d+(?:,[^/,]+:\d+)*)/([A-Za-z0-9._-]{1,63})", text)
    if match is None:
        raise ValueError(
            f"--coordinator {text!r}: write etcd://HOST:PORT,HOST:PORT/NAME, NAME being the cluster's, "
            "or kubernetes://NAMESPACE/NAME"
        )
    return match[1].split(","), f"/s4/{match[2]}"


def open_coordinator(text: str, etcd: EtcdFiles | None = None) -> RemoteCoordinator:
    """Raises ValueError, OSError. Imports what is needed for the one that is named."""
    if text.startswith("kubernetes:"):
        from s4.cluster.kubernetes import KubernetesCoordinator, parse  # noqa: PLC0415

        return KubernetesCoordinator(*parse(text))
    from s4.cluster.etcd import Access, EtcdCoordinator  # noqa: PLC0415

    files = etcd or EtcdFiles()
    access = Access(files.etcd_authority, files.etcd_certificate, files.etcd_key, files.etcd_login)
    access.check()
    return EtcdCoordinator(*parse_coordinator(text), access)


# Errors of a job that are the fault of others, who are known to be away.
OTHERS = (CallError, CoordinatorError)


class ClusterServer:
    """A running node, or a gateway where the settings name no directory."""

    def __init__(self, settings: ClusterSettings, environment: dict[str, str]) -> None:
        self.settings, self._environment = settings, environment
        access, secret = environment.get("S4_ROOT_ACCESS_KEY", ""), environment.get("S4_ROOT_SECRET_KEY", "")
        if settings.directories and (len(access) < 3 or len(secret) < 8 or "/" in access):
            raise ValueError(
                "set S4_ROOT_ACCESS_KEY (3 characters or more) and S4_ROOT_SECRET_KEY (8 or more), the same for every node"
            )
        self._root = RootKeys(access, secret)
        self._credentials = Credentials(
            Path(settings.authority), Path(settings.peer_certificate), Path(settings.peer_key)
        )
        self._readers = Readers()
        self._registry = CollectorRegistry()
        self.jobs, self._connecting = Jobs(), Jobs()  # what ends first at the end, what last
        self._following: asyncio.Task[None] | None = None
        self._not_ready = "starting"
        self.member: Member | None = None
        self._contents: Contents | None = None
        self._known: ClusterStatus | None = None
        self._access_log = settings.access_log
        self._s3_workers = Workers(
            lambda: ["-m", "s4.server.cluster_worker", self._told()], {"S4_RESTART": "off"}, self.jobs
        )

    def horizon(self) -> float:
        """Start of the oldest request that may still read shards, at any gateway (D6)."""
        local = self._readers.oldest()
        return min(local, self.member.peers.oldest_reader()) if self.member is not None else local

    async def start(self) -> None:
        """Raises DirectoryError, OSError, ValueError, CoordinatorError with messages for people."""
        settings = self.settings
        given.check(settings)
        bound, admin_bound = self._bind()
        self._coordinator = open_coordinator(settings.coordinator, settings.etcd)
        await self._coordinator.check_versions()
        self._keeper = await self._wait_for_map()
        self._contact = Contact(self._keeper, settings.coordinator)
        if settings.directories:
            await self._start_member()
        else:
            self._router = Router(self._keeper, self._credentials.client, self._readers.oldest, self._connecting)
            self._router.start()
            self._following = asyncio.create_task(
                self._keeper.follow(partial(restart.die, what="the cluster's map cannot be followed"))
            )
        made = make_gateway(self._router, await self._router.layout(), settings, self._readers, FAR_STRIPE_BYTES)
        self._gateway: Gateway = made
        made.commit_syncs, made.far, made.small_bytes = False, True, 0  # until all can read it (upkeep/small.py)
        directory = Path(settings.directories[0]) if settings.directories else None
        self.audit = AuditLog(settings.audit_log or (str(directory / "audit.log") if directory else "none"))
        root = (self._root.access_key, self._root.secret_key) if self._root.access_key else None
        self._keys = KeyCheck(made, root)
        self._renames = Renames(self._gateway, self.jobs)
        if self.member is not None:
            self._start_upkeep(self.member)
        self._s3 = S3Endpoint(settings, self._gateway, self._registry, self.audit, self._ready, self._health)
        if admin_bound is not None:
            await self._start_admin(admin_bound)
            self.jobs.start(Job("audit log", ROTATE_S, ROTATE_S, self.audit.rotate))
        await self._s3.start(bound)
        self.jobs.start(
            Job("certificate for peers", CHECK_S, CHECK_S, self._credentials.look),
            Job("health", 0.0, settings.limits.look_s, self._look),
        )
        small = SmallRows(made, self._router, self.member, settings.small_bytes)
        if settings.small_bytes or self.member is not None:
            self.jobs.start(Job("content in rows", 0.0, LOOK_S, small.look, OTHERS))
        await self._s3_workers.start(settings.workers)
        self._not_ready = ""

    def _bind(self) -> tuple[socket.socket, socket.socket | None]:
        """The S3 port, and the admin port where there is one. A worker's life is its own: it hands nothing on."""
        settings = self.settings
        if not settings.admin_listen:
            bound = listening_socket(settings.listen, shared=True)
            self.endpoint, self.admin_endpoint = shown(bound), ""
            return bound, None
        bound = restart.kept_open("s3") or listening_socket(settings.listen, shared=settings.workers > 0)
        admin_bound = restart.kept_open("admin") or listening_socket(settings.admin_listen)
        restart.keep_open("s3", bound)
        restart.keep_open("admin", admin_bound)
        self.endpoint, self.admin_endpoint = shown(bound), shown(admin_bound)
        self._address = f"{settings.listen.rpartition(':')[0]}:{bound.getsockname()[1]}"
        return bound, admin_bound

    def _told(self) -> str:
        """What a worker is told, as of now."""
        worker = replace(self.settings, listen=self._address, admin_listen="", workers=0, access_log=self._access_log)
        return msgspec.json.encode(worker).decode()

    async def _wait_for_map(self) -> MapKeeper:
        said = ""
        while True:
            try:
                return await MapKeeper.open(self._coordinator)
            except (NoMapError, CoordinatorError) as error:
                if str(error) != said:
                    log.warning("waiting for the cluster", reason=str(error))
                    said = str(error)
                await asyncio.sleep(WAIT_S)

    async def _start_member(self) -> None:
        settings, scale = self.settings, self.settings.timing_scale
        location = Location(
            settings.name, settings.peer_listen, settings.advertise, settings.zone or settings.name, settings.weight
        )
        self.member = await open_member(
            Path(settings.directories[0]),
            location,
            self._keeper,
            self._credentials,
            StoreSettings(
                reserve_bytes=settings.reserve_bytes,
                volume_bytes=settings.volume_bytes,
                preallocate_bytes=settings.preallocate_bytes,
                strict=settings.strict,
            ),
            settings.limits,
            root=self._root,
            horizon=self.horizon,
            oldest=self._readers.oldest,
            fatal=restart.die,
            jobs=self._connecting,
            timing=Timing(0.5 * scale, 2.0 * scale, 3.0 * scale, 0.5 * scale),
            alarms=self._alarms,
        )
        self._router = self.member.router

    def _start_upkeep(self, member: Member) -> None:
        node, settings = member.node, self.settings
        self._mender = Mender(node, settings.heal_bytes_per_s)
        self._leader = Leader(node, self._gateway, self._renames)
        self._own = OwnStore(node)
        self._compactor = compaction.Compactor(
            lambda: [node.shards], settings.garbage_ratio, self.horizon, self._router.report
        )
        progress = ProgressFile(node.shards.files, node.shards.directory, Checked, NAME)
        self._contents = Contents(self._gateway, node.host, node.led, progress)
        self._holding = Holding(node.shards.files, node.shards.directory, node.keeper, node.host.group)
        node.held = self._holding.told
        self._inventory = Inventory(self._router, lambda: settings.bucket_metrics and node.host.group.serves(0))
        self._lifecycle = Lifecycle(self._gateway, node.host, node.led, node.clocks_agree, audit=self.audit.write)
        self._rewrapper = Rewrapper(self._gateway, node.host, node.led)
        self._sender = Sender(
            node.host, node.led, receivers_of(settings), settings.region, settings.limits.waiting_events
        )
        self._sender.start(self.jobs)
        self._repairer = Repairer(lambda: node.host.group.database, partial(node.host.submit, own=True), node.led)
        self._workers = self._lifecycle, self._inventory, self._rewrapper, self._sender, self._repairer
        node.figures = lambda: (self._mender.repair.failed, self._mender.repair.made_bytes, self._mender.filled)
        self._leader.start(self.jobs)
        cycle = settings.scrub_every_s, settings.scrub_bytes_per_s  # of either by itself: disks may take days
        self.jobs.start(
            Job("heal", 0.0, mend.WORK_S, self._mender.run, OTHERS),
            Job("shards that moved away", LEAVE_EVERY_S, LEAVE_EVERY_S, self._own.leave, OTHERS),
            Job("renewal of damaged metadata", RENEW_EVERY_S, RENEW_EVERY_S, node.copy.renew, OTHERS),
            Job("comparison of the drive", 0.0, COMPARE_LOOK_S, partial(confirm_doubtful, node, node.router), OTHERS),
            Job("audit of orphans", AUDIT_FIRST_S, AUDIT_EVERY_S, self._audit_own, OTHERS),
            Job("compaction", compaction.EVERY_S, compaction.EVERY_S, self._compactor.run),
            Job("lifecycle", *lifecycle_looks(settings), self._lifecycle.run, OTHERS),
            Job("copy of the map", 0.0, held.LOOK_S, self._holding.look),
            Job("inventory", 0.0, INVENTORY_S, self._inventory.look, OTHERS),
            Job("repair after an upgrade", REPAIR_FIRST_S, REPAIR_LOOK_S, self._repairer.run, OTHERS),
            Job("rewrap", REWRAP_FIRST_S, REWRAP_LOOK_S, self._rewrapper.run, OTHERS),
            Job("scrub", SCRUB_FIRST_S, SCRUB_LOOK_S, partial(self._own.scrub_when_due, *cycle), OTHERS),
            Job("contents", SCRUB_FIRST_S, SCRUB_LOOK_S, partial(self._contents.run_when_due, *cycle), OTHERS),
        )

    async def _audit_own(self) -> None:
        (await self._own.audit(self.settings.orphan_age_s)).report()

    def _ready(self) -> str:
        """Why requests should go elsewhere: the start is not over, or partition 0, with all settings, is not served."""
        if self._not_ready or not self._keeper.current.partitions:
            return self._not_ready or "the cluster has no stores yet"
        return self._keys.wrong

    async def _look(self) -> None:
        """Look at what nobody else would notice, and see how the cluster is as far as this process knows it."""
        await self._contact.ask()
        await self._keys.look()
        self._s3.server.refusing = self._keys.wrong
        logs.settle()
        current, known = self._keeper.current, dict[str, Said | None]()
        for store, one in current.stores.items():
            if one.state == GONE:
                continue
            led = [number for number, part in enumerate(current.partitions) if part.config.primary == store]
            known[store] = Said(led, 0) if self._router.is_up(store) else None
        if self.member is not None:
            await self.member.node.shards.watch.look()
            known[self.member.node.store] = said(await self.member.node.census())
            self._known = status(current, known)
        else:
            alarms = self._alarms()
            self._known = status(current, known, {"this gateway": alarms} if alarms else {})

    def _alarms(self) -> list[str]:
        found = [*self._contact.alarms(), *self._keys.alarms(), *self.jobs.alarms()]
        return found if self._contents is None else [*found, *self._contents.alarms()]

    def _health(self) -> Health:
        """As far as this process knows."""
        return Health(self._known.health, self._known.reasons) if self._known is not None else Health()

    def _metrics(self) -> Iterator[Metric]:
        known = self._known
        storable = (known.storable_bytes, known.storable_rows_bytes) if known is not None else (0, 0)
        yield from health_metrics(self._health(), storable)
        yield from (*router_metrics(self._router), *self.jobs.metrics(), *self._connecting.metrics())
        yield from certificate_metrics("S3", self._s3.certificate_holds)
        yield from certificate_metrics("peers", self._credentials.holds)
        if self.member is not None:
            yield from member_metrics(self.member, self._mender, self._own, self._workers)

    async def _start_admin(self, bound: socket.socket) -> None:
        collector = StoreCollector(self._metrics)
        hidden = msgspec.to_builtins(replace(self.settings, peer_key="", key=""))
        context = AdminContext(
            self._gateway,
            self._renames,
            self.audit,
            self.settings.limits,
            self.settings.region,
            self._ready,
            lambda: exposition(self._registry, self._environment.get(METRICS), collector),
            hidden,
            not self.settings.admin_tls,
            self._health,
            self._set_log,
            self._root_keys,
            self._alarms if self.member is None else list,
            lambda: self._keys.wrong,
            lambda: [*self.jobs.table(), *self._connecting.table()],
        )
        if self.member is not None:
            admin: ClusterAdmin = NodeAdmin(
                context, self._router, self._keeper, self._own, self._contents, self._compactor
            )
        else:
            admin = ClusterAdmin(context, self._router, self._keeper)
        most = self.settings.limits.admin_connections
        self._admin = AdminPort(admin.application(), bound, self._credentials.admin, most)
        await self._admin.start()

    async def _root_keys(self, action: str, access_key: str) -> dict[str, str]:
        """A second pair of root keys, which counts beside the first, or the end of either. Raises S3Error."""
        if action != "change":
            await self._keys.end_change(access_key, finish=action == "finish")
            return {"access_key": access_key}
        new = RootKeys("S4" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))
        await self._keys.begin_change(new.access_key, new.secret_key)
        return {"access_key": new.access_key, "secret_key": new.secret_key}

    def _set_log(self, everything: bool | None, level: str) -> None:
        if level:
            logs.set_level(level)
        if everything is not None:
            self.set_access_log(everything)

    def set_access_log(self, everything: bool) -> None:
        """Whether every request is logged from now on, here and in the workers: those that are there, and those that
        come."""
        self._access_log = everything
        self._s3.set_access_log(everything)
        self._s3_workers.tell(signal.SIGUSR1 if everything else signal.SIGUSR2)

    def reload(self) -> None:
        """Read the certificates again, here and in the workers."""
        self._s3_workers.tell(signal.SIGHUP)
        reloaded({"certificate": self._s3.reload(), "certificate for peers": self._credentials.reload()})

    async def close(self) -> None:
        self._not_ready = "stopping"
        await asyncio.gather(self._s3.close(), self._s3_workers.close())
        if self.settings.admin_listen:
            await self._admin.close()
        await self.jobs.close()
        if self.member is not None:
            await self._sender.close()
            await self._mender.close()
            await self.member.close()
        else:
            await self._router.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._coordinator.close()
        pool: ThreadPoolExecutor = self._gateway.pool
        pool.shutdown()
        self.audit.close()


async def run_cluster(
    settings: ClusterSettings, environment: dict[str, str], announce: Callable[[ClusterServer], Awaitable[None]]
) -> None:
    """Run a node or a gateway until SIGTERM or SIGINT; `announce` is called once it is up."""
    stop = prepare_process(settings)
    send_traces = tracing.configure(environment, "s4-node" if settings.directories else "s4-gateway")
    server = ClusterServer(settings, environment)
    starting = asyncio.ensure_future(server.start())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # told to end while it waited for a cluster
        starting.cancel()
        return
    starting.result()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, server.reload)
    started = time.monotonic()
    settle_garbage_collector()
    secrets = [
        one for one in (settings.master_key, settings.kms, settings.kms_token, settings.key, settings.peer_key) if one
    ]
    say_started(
        "node" if settings.directories else "gateway",
        settings,
        secrets,
        s3=server.endpoint,
        admin=server.admin_endpoint,
    )
    await announce(server)
    say_ready(environment)
    await stopped
    log.info("stopping", uptime_s=round(time.monotonic() - started, 1))
    await server.close()
    send_traces()

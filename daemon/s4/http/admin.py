"""The admin endpoint: health and metrics for anyone who reaches it, the rest for SuperUsers who sign.

It listens on loopback unless told otherwise. Long work answers with one JSON line for each step, so that
`s4 admin` can draw progress. Everything that changes something is in the audit log.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import structlog
from aiohttp import web

from s4 import __version__
from s4.audit import AuditLog
from s4.gateway.context import Gateway, execute
from s4.limits import Limits
from s4.metadata import commands
from s4.node import Node
from s4.peer.api import Identity
from s4.s3 import roles, sigv4
from s4.s3.errors import S3Error
from s4.upkeep import compaction, orphans
from s4.upkeep.drives import drives_status
from s4.upkeep.heal import Healer
from s4.upkeep.renames import Renames
from s4.upkeep.scrub import Scrubber, progress
from s4.upkeep.verify import verify

log = structlog.get_logger("s4.admin")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class AdminContext:
    """What the admin endpoint works on. `ready` says "" or why not; `metrics` gives the exposition text."""

    node: Node
    gateway: Gateway
    renames: Renames
    healer: Healer
    scrubber: Scrubber
    audit: AuditLog
    limits: Limits
    region: str
    horizon: Callable[[], float]
    ready: Callable[[], str]
    metrics: Callable[[], bytes]
    settings: dict[str, Any]


class AdminApi:
    """Handlers of the admin endpoint. Build the application with `application()`."""

    def __init__(self, context: AdminContext) -> None:
        self._context = context
        self._node, self._gateway = context.node, context.gateway

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/stats", self._stats)
        for method, path, handler in (
            ("GET", "/admin/v1/status", self._status),
            ("GET", "/admin/v1/users", self._users),
            ("PUT", "/admin/v1/users/{name}", self._put_user),
            ("DELETE", "/admin/v1/users/{name}", self._delete_user),
            ("POST", "/admin/v1/users/{name}/keys", self._make_key),
            ("DELETE", "/admin/v1/users/{name}/keys/{key}", self._delete_key),
            ("GET", "/admin/v1/buckets", self._buckets),
            ("POST", "/admin/v1/compact", self._compact),
            ("POST", "/admin/v1/verify", self._verify),
            ("POST", "/admin/v1/scrub", self._scrub),
            ("POST", "/admin/v1/audit", self._audit),
            ("GET", "/admin/v1/renames", self._rename_jobs),
            ("POST", "/admin/v1/renames", self._start_rename),
            ("DELETE", "/admin/v1/renames/{id}", self._forget_rename),
        ):
            app.router.add_route(method, path, self._guarded(handler))
        return app

    # -- open to whoever reaches the port

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        reason = self._context.ready()
        return web.Response(text=(reason or "ready") + "\n", status=503 if reason else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._context.metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _stats(self, _: web.Request) -> web.Response:
        return _json(await self._node.stats())

    # -- for SuperUsers

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            started, code, user = time.perf_counter(), "OK", ""
            try:
                user = (await self._authenticate(request)).user
                response = await handler(request)
            except S3Error as error:
                code = error.code
                response = _json({"error": error.code, "message": error.message}, error.status)
            except (msgspec.MsgspecError, ValueError) as error:
                code = "InvalidArgument"
                response = _json({"error": code, "message": str(error)}, 400)
            except Exception as error:
                code = "InternalError"
                log.error("admin request failed", path=request.path, exc_info=error)
                response = _json({"error": code, "message": "An internal error occurred; see the log."}, 500)
            if request.method != "GET":
                self._context.audit.write(operation=f"admin {request.method} {request.path}", user=user, code=code, key=b"",
                                          status=response.status, remote=request.remote or "",
                                          seconds=time.perf_counter() - started)  # fmt: skip
            return response

        return guarded

    async def _authenticate(self, request: web.Request) -> Identity:
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, _, query = request.raw_path.partition("?")
        signed = sigv4.Request(request.method, path, sigv4.parse_query(query), headers)
        claim = sigv4.parse(signed)
        if claim is None:
            raise S3Error("AccessDenied")
        identity = await self._node.find_identity(claim.access_key)
        if identity is None:
            raise S3Error("InvalidAccessKeyId")
        limits = self._context.limits
        sigv4.check(
            claim, signed, identity.secret, self._context.region, time.time(), limits.clock_skew_s, limits.presign_s
        )
        if not roles.allowed(identity.grants, roles.ADMIN, ""):
            raise S3Error("AccessDenied")
        return identity

    async def _status(self, _: web.Request) -> web.Response:
        node, drives, healer = self._node, self._node.drives, self._context.healer
        space = [store.files.free_bytes(store.directory) for store in drives.stores]
        use = [volume for store in drives.stores for volume in store.usage().values()]
        data, parity = node.membership.geometry
        return _json({
            "version": __version__, "ready": self._context.ready() or "ready", **await node.stats(),
            "disk_free_bytes": min(free for free, _ in space), "disk_total_bytes": min(total for _, total in space),
            "disk_reserve_bytes": drives.stores[0].settings.reserve_bytes,
            "accepts_writes": drives.has_room(), "volumes": len(use),
            "volume_bytes": sum(volume.used for volume in use), "garbage_bytes": sum(volume.dead for volume in use),
            "freeing_blobs": node.outbox_waiting, "damaged_reads": sum(store.damaged for store in drives.stores),
            "erasure": f"{data}+{parity}", "drives": drives_status(node, healer),
            "metadata_copies": len(node.membership.current.status[0].in_sync),
            "metadata_copies_wanted": node.membership.current.spec.replicas,
            "heal_waiting": healer.waiting, "heal_failed": healer.failed, "healed_shards": healer.healed,
            "scrub": dict(progress(self._context.scrubber.place, node.partitions)),
            "partitions": node.partitions, "epoch": node.host.epochs[0], "settings": self._context.settings,
        })  # fmt: skip

    async def _users(self, _: web.Request) -> web.Response:
        listed = []
        for user, access_keys in await self._node.list_users():
            grants = [f"{grant.role}:{grant.buckets}" for grant in await self._node.grants_of(user.name)]
            listed.append(
                {
                    "name": user.name,
                    "enabled": user.enabled,
                    "grants": grants,
                    "access_keys": access_keys,
                    "created_ms": user.created_ms,
                }
            )
        return _json({"users": listed})

    async def _put_user(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        body = msgspec.json.decode(await request.read(), type=_UserBody)
        if not name.isprintable() or not 1 <= len(name) <= 64 or name == "root":
            raise ValueError("a user's name has 1 to 64 printable characters and is not root")
        users = await self._node.list_users()
        if len(users) >= self._context.limits.users and body.create:
            raise S3Error("TooManyEntities", f"There are {len(users)} users, which is the limit named users.")
        grants = [roles.parse_grant(text) for text in body.grants]
        await execute(self._gateway, 0, commands.PutUser(name, grants, body.enabled, body.create))
        return _json({"name": name, "grants": body.grants, "enabled": body.enabled})

    async def _delete_user(self, request: web.Request) -> web.Response:
        await execute(self._gateway, 0, commands.DeleteUser(request.match_info["name"]))
        return _json({})

    async def _make_key(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        raw = await request.read()
        body = msgspec.json.decode(raw, type=_KeyBody) if raw else _KeyBody()
        held = next((access for user, access in await self._node.list_users() if user.name == name), [])
        if len(held) >= self._context.limits.keys_per_user:
            raise S3Error(
                "TooManyEntities", f"{name} has {len(held)} access keys, which is the limit named keys_per_user."
            )
        access, secret = (
            body.access_key or "S4" + secrets.token_hex(9).upper(),
            body.secret_key or secrets.token_urlsafe(30),
        )
        if not 3 <= len(access) <= 128 or "/" in access or len(secret) < 8:
            raise ValueError("an access key has 3 to 128 characters without a slash, a secret key 8 or more")
        await execute(self._gateway, 0, commands.PutAccessKey(access, name, secret))
        return _json({"access_key": access, "secret_key": secret})

    async def _delete_key(self, request: web.Request) -> web.Response:
        await execute(self._gateway, 0, commands.DeleteAccessKey(request.match_info["key"], request.match_info["name"]))
        return _json({})

    async def _buckets(self, _: web.Request) -> web.Response:
        listed = []
        for name, row in await self._node.list_buckets():
            sums = self._node.bucket_counters(row.id)
            listed.append({"name": name, "owner": row.owner, "versioning": row.versioning or "Off", "objects": sums.objects,
                           "bytes": sums.bytes, "created_ms": row.created_ms})  # fmt: skip
        return _json({"buckets": listed})

    async def _compact(self, request: web.Request) -> web.StreamResponse:
        ratio = float(request.query.get("ratio", "0.5"))
        if not 0 < ratio <= 1:
            raise ValueError("ratio is a share of garbage above 0 and at most 1")
        steps = _Lines(request)
        await steps.start()
        await self._node.reap()
        numbers = [(store, number) for store in self._node.drives.stores
                   for number in compaction.candidates(store, ratio)]  # fmt: skip
        freed = 0
        for done, (store, number) in enumerate(numbers):
            await steps.send({"done": done, "total": len(numbers), "freed_bytes": freed})
            freed += await compaction.compact_one(store, number, self._context.horizon)
        return await steps.end({"done": len(numbers), "total": len(numbers), "freed_bytes": freed})

    async def _verify(self, request: web.Request) -> web.StreamResponse:
        read, deep = request.query.get("read") == "1", request.query.get("deep") == "1"
        steps = _Lines(request)
        await steps.start()
        last: dict[str, Any] = {}
        with self._gateway.readers.reading():
            async for report in verify(self._node, read=read, deep=deep):
                last = {"done": report.blobs, "total": report.total_blobs, **asdict(report)}
                await steps.send({name: value for name, value in last.items() if name != "problems"})
        return await steps.end(last)

    async def _scrub(self, request: web.Request) -> web.StreamResponse:
        steps = _Lines(request)
        await steps.start()
        scrubber = self._context.scrubber
        total = self._node.counters().blobs
        run = asyncio.create_task(scrubber.run(deep=request.query.get("deep") == "1", bytes_per_s=0))
        while not run.done():
            await steps.send({"done": scrubber.place.blobs, "total": total, "damaged": scrubber.place.damaged})
            await asyncio.wait([run], timeout=0.2)
        place = run.result()
        return await steps.end(
            {"done": place.blobs, "total": place.blobs, **dict(progress(place, self._node.partitions))}
        )

    async def _audit(self, request: web.Request) -> web.Response:
        age_s = float(request.query.get("age_s", "86400"))
        return _json(asdict(await orphans.audit(self._node, age_s=age_s)))

    async def _rename_jobs(self, _: web.Request) -> web.Response:
        jobs = self._context.renames.jobs()
        return _json({"renames": [
            {"id": name, "bucket": job.bucket, "from": job.source, "to": job.destination, "done": job.done,
             "finished": job.finished, "error": job.error} for name, job in jobs.items()
        ]})  # fmt: skip

    async def _start_rename(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read(), type=_RenameBody)
        return _json({"id": await self._context.renames.start(body.bucket, body.source, body.destination)})

    async def _forget_rename(self, request: web.Request) -> web.Response:
        await self._context.renames.forget(request.match_info["id"])
        return _json({})


class _UserBody(msgspec.Struct, forbid_unknown_fields=True):
    grants: list[str]
    enabled: bool = True
    create: bool = False


class _KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    access_key: str = ""
    secret_key: str = ""


class _RenameBody(msgspec.Struct, forbid_unknown_fields=True):
    bucket: str
    source: str
    destination: str


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value) + b"\n", status=status, headers={"Content-Type": "application/json"}
    )


class _Lines:
    """An answer of JSON lines, at most ten a second but for the last."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        self._sent = 0.0

    async def start(self) -> None:
        await self._response.prepare(self._request)

    async def send(self, value: dict[str, Any]) -> None:
        if time.monotonic() - self._sent >= 0.1:
            self._sent = time.monotonic()
            await self._response.write(msgspec.json.encode(value) + b"\n")

    async def end(self, value: dict[str, Any]) -> web.StreamResponse:
        await self._response.write(msgspec.json.encode({**value, "finished": True}) + b"\n")
        await self._response.write_eof()
        return self._response

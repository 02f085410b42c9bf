"""The admin endpoint: health and metrics for anyone who reaches it, the rest for who may do `s4:Admin`
(admin_access.py).

It listens on loopback unless told otherwise. Long work answers with one JSON line for each step, so that
`s4 admin` can draw progress. Everything that changes something is in the audit log.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from aiohttp import web

from s4.access import documents
from s4.access.actions import bucket_arn
from s4.access.policy import Ask
from s4.access.requester import ROOT
from s4.base.health import OK, Health
from s4.cluster.coordinator import CoordinatorError
from s4.cluster.planner import PlanError
from s4.config.limits import Limits
from s4.gateway.buckets import set_document
from s4.gateway.context import Gateway, find_bucket
from s4.http.admin_access import BODY_BYTES, Caller, Door
from s4.http.admin_access_of import AdminAccess
from s4.http.admin_providers import AdminProviders
from s4.http.admin_rates import AdminRates, shown
from s4.http.admin_users import CALLER, AdminUsers
from s4.http.iam.protocol import IamError
from s4.metadata.rows import Bucket
from s4.peer.api import UnavailableError
from s4.s3.errors import S3Error
from s4.telemetry.audit import AuditLog
from s4.telemetry.logs import LEVELS
from s4.upkeep.compaction import Compactor
from s4.upkeep.renames import Renames

log = structlog.get_logger("s4.admin")

NO_S3 = (
    "This is S4's admin port, for `s4 admin`, /metrics, /healthz and /readyz. "
    "S3 is at the port of --listen, 9000 unless told."
)

_MOVES = ("s3:GetObject", "s3:DeleteObject", "s3:PutObject", "s3:PutObjectTagging", "s3:PutObjectAcl")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]


@dataclass(frozen=True, slots=True)
class AdminContext:
    """What the admin endpoint works on. `ready` says "" or why not; `metrics` gives the exposition text."""

    gateway: Gateway
    renames: Renames
    audit: AuditLog
    limits: Limits
    region: str
    ready: Callable[[], str]
    metrics: Callable[[], bytes]
    settings: dict[str, Any]
    in_the_clear: bool = False  # calls from other machines are taken without TLS too
    health: Callable[[], Health] = Health  # as this process knows it
    set_log: Callable[[bool | None, str], None] | None = (
        None  # (whether all requests are logged, level); None and "" leave it
    )
    root_keys: Callable[[str, str], Awaitable[dict[str, str]]] | None = (
        None  # (change, finish or cancel; who asks by access key)
    )
    alarms: Callable[[], list[str]] = list  # of a process without a store
    wrong: Callable[[], str] = str  # why this process serves nobody
    jobs: Callable[[], list[dict[str, object]]] = list


class AdminApi:
    """What every admin endpoint has. Build the application with `application()`; `routes` are for SuperUsers."""

    LACKING = ""  # what this is, and who has what it lacks

    def __init__(self, context: AdminContext) -> None:
        self._context = context
        self._node, self._gateway = context.gateway.node, context.gateway
        self._door = Door(context.gateway, context.limits, context.region, in_the_clear=context.in_the_clear)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/stats", self._stats)
        for method, path, handler in self.routes():
            app.router.add_route(method, path, self._guarded(handler))
        app.router.add_route("*", "/admin/v1/{call:.*}", self._guarded(self._lacking))
        app.router.add_route("*", "/{path:.*}", _no_s3)
        return app

    def routes(self) -> list[Route]:
        return [
            *(
                (method, path, _answering(handler))
                for of in (AdminUsers, AdminAccess, AdminRates, AdminProviders)
                for method, path, handler in of(self._gateway).routes()
            ),
            ("GET", "/admin/v1/buckets", self._buckets),
            ("PUT", "/admin/v1/buckets/{name}/quota", self._put_quota),
            ("PUT", "/admin/v1/log", self._put_log),
            ("GET", "/admin/v1/jobs", self._jobs),
            ("POST", "/admin/v1/root-keys/{action}", self._root_keys),
            ("GET", "/admin/v1/renames", self._rename_jobs),
            ("POST", "/admin/v1/renames", self._start_rename),
            ("DELETE", "/admin/v1/renames/{id}", self._forget_rename),
        ]

    async def _lacking(self, request: web.Request) -> web.Response:
        message = f"{self.LACKING} It has no {request.method} {request.path}."
        return as_json({"error": "NoSuchCall", "message": message}, 404)

    # -- open to whoever reaches the port

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        reason = self._context.ready()
        known = self._context.health()
        text = reason + "\n" if reason else "ready\n" if known.level == OK else f"ready, {known.text()}"
        return web.Response(text=text, status=503 if reason else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._context.metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _stats(self, _: web.Request) -> web.Response:
        return as_json(await self._node.stats())

    # -- for those who may do s4:Admin

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            started, code, user = time.perf_counter(), "OK", ""
            try:
                caller = request[CALLER] = await self._admit(request)
                user = caller.who.name
                response = await handler(request)
            except (S3Error, IamError) as error:
                code = error.code
                response = as_json({"error": error.code, "message": error.message}, error.status)
            except (msgspec.MsgspecError, ValueError, PlanError) as error:
                code = "InvalidArgument"
                response = as_json({"error": code, "message": str(error)}, 400)
            except UnavailableError as error:
                code = error.code
                response = as_json({"error": code, "message": error.message}, 503)
            except CoordinatorError as error:
                code = "ServiceUnavailable"
                response = as_json({"error": code, "message": f"the coordinator does not answer: {error}"}, 503)
            except Exception as error:
                code = "InternalError"
                log.error("admin request failed", path=request.path, exc_info=error)
                response = as_json({"error": code, "message": "An internal error occurred; see the log."}, 500)
            if request.method != "GET":
                self._context.audit.write(
                    operation=f"admin {request.method} {request.path}",
                    user=user,
                    code=code,
                    key=b"",
                    status=response.status,
                    remote=request.remote or "",
                    seconds=time.perf_counter() - started,
                )
            return response

        return guarded

    async def _admit(self, request: web.Request) -> Caller:
        """Where this process does not have its cluster's keys, it knows nobody by them, and says so to who has the
        right ones too. /readyz tells it to whoever asks. Raises S3Error."""
        try:
            return await self._door.admit(request)
        except S3Error as error:
            if (wrong := self._context.wrong()) and error.code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
                raise S3Error("ServiceUnavailable", f"This process serves nobody: {wrong}.") from error
            raise

    async def _buckets(self, _: web.Request) -> web.Response:
        listed = []
        for name, row in await self._node.list_buckets():
            sums = await self._node.bucket_counters(row.id)
            listed.append(
                {
                    "name": name,
                    "owner": row.owner,
                    "versioning": row.versioning or "Off",
                    "objects": sums.objects,
                    "quota_bytes": documents.quota_of(row),
                    "bytes": sums.bytes,
                    "saved_bytes": sums.saved,
                    "created_ms": row.created_ms,
                    **shown(documents.rate_of(row)),
                }
            )
        return as_json({"buckets": listed})

    async def _put_quota(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read(), type=_QuotaBody)
        if not 0 <= body.bytes < 1 << 63:
            raise ValueError("a quota is a number of bytes; 0 is none")
        name = request.match_info["name"]
        await set_document(self._gateway, name, documents.QUOTA, str(body.bytes) if body.bytes else "")
        return as_json({"name": name, "quota_bytes": body.bytes})

    async def _root_keys(self, request: web.Request) -> web.Response:
        """For root alone: who changes the root keys is root afterwards."""
        caller, action = request[CALLER], request.match_info["action"]
        if caller.who.kind != ROOT or caller.temporary:
            raise S3Error("AccessDenied", "The root keys are changed by root alone, with its own keys.")
        if self._context.root_keys is None or action not in ("change", "finish", "cancel"):
            raise S3Error("MethodNotAllowed")
        return as_json(await self._context.root_keys(action, caller.access_key))

    async def _jobs(self, _: web.Request) -> web.Response:
        return as_json({"jobs": self._context.jobs()})

    async def _put_log(self, request: web.Request) -> web.Response:
        """What is logged from now on, until this process ends."""
        body = msgspec.json.decode(await request.read(), type=_LogBody)
        if body.access not in ("", "all", "refused") or body.level not in ("", *LEVELS):
            raise ValueError(f"access is all or refused, and level one of {', '.join(LEVELS)}")
        if self._context.set_log is not None:
            self._context.set_log(body.access == "all" if body.access else None, body.level)
        return as_json({"access": body.access, "level": body.level})

    async def _rename_jobs(self, _: web.Request) -> web.Response:
        jobs = await self._context.renames.jobs()
        return as_json(
            {
                "renames": [
                    {
                        "id": name,
                        "bucket": job.bucket,
                        "from": job.source,
                        "to": job.destination,
                        "done": job.done,
                        "finished": job.finished,
                        "error": job.error,
                    }
                    for name, job in jobs
                ]
            }
        )

    async def _start_rename(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read(), type=_RenameBody)
        _must_move(request[CALLER], body.bucket, await find_bucket(self._gateway, body.bucket))
        return as_json({"id": await self._context.renames.start(body.bucket, body.source, body.destination)})

    async def _forget_rename(self, request: web.Request) -> web.Response:
        await self._context.renames.forget(request.match_info["id"])
        return as_json({})


class _QuotaBody(msgspec.Struct, forbid_unknown_fields=True):
    bytes: int


class _LogBody(msgspec.Struct, forbid_unknown_fields=True):
    access: str = ""
    level: str = ""


class _RenameBody(msgspec.Struct, forbid_unknown_fields=True):
    bucket: str
    source: str
    destination: str


def _must_move(caller: Caller, name: str, bucket: Bucket) -> None:
    """A rename of a prefix is one of every key there, which by S3 is asked for each: nothing may stand against any of
    them. Raises S3Error."""
    who, policy = caller.who, documents.policy_of(bucket)
    for action in () if who.kind == ROOT else _MOVES:
        ask = Ask(who.asker, action, bucket_arn(name), caller.context)
        if not (who.everything or who.plainly(action, name, keys=True)) or (
            policy is not None and policy.may_deny(ask)
        ):
            raise S3Error("AccessDenied", f"{action} on all that is in {name} is needed for this, with nothing denied.")


def as_json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value) + b"\n", status=status, headers={"Content-Type": "application/json"}
    )


async def _no_s3(request: web.Request) -> web.Response:
    """S3's clients are told where they are in a form that they print; so is whoever looks here with a browser."""
    error = S3Error("InvalidRequest", NO_S3)
    return web.Response(body=error.xml(request.path, ""), status=404, content_type="application/xml")


def _answering(handler: Callable[[web.Request], Awaitable[Any]]) -> Handler:
    async def answered(request: web.Request) -> web.Response:
        return as_json(await handler(request))

    return answered


async def compacted(
    request: web.Request, compactor: Compactor, first: Callable[[], Awaitable[None]] | None = None
) -> web.StreamResponse:
    """Compact what has the share of garbage that a request names, once `first` was done."""
    ratio = float(request.query.get("ratio", "0.5"))
    if not 0 < ratio <= 1:
        raise ValueError("ratio is a share of garbage above 0 and at most 1")
    lines, step = Lines(request), {}
    await lines.start()
    if first is not None:
        await first()
    async for step in compactor.steps(ratio):
        await lines.send(step)
    return await lines.end(step)


class Lines:
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

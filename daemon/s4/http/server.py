"""The S3 endpoint: one handler for every request, in a fixed order.

    bounds -> authenticate -> admit -> route -> authorize -> operation -> answer, metrics, audit

Authentication is here and nowhere else, before routing; everything not allowed is denied. Requests at work and those
that wait are bounded for each user (`admission.py`): one more is answered 503 SlowDown at once, while health stays
open. Whatever an operation raises becomes an S3 error with a request id; what is not expected is logged with its
traceback and is a 500.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError

from s4.access.actions import WRITES
from s4.access.policy import Ask
from s4.base.clock import wall_ms
from s4.config.limits import Limits
from s4.gateway.context import Gateway
from s4.http import control, website
from s4.http.access_log import AccessLog
from s4.http.admission import Admission
from s4.http.answers import XML, Answer, respond
from s4.http.authorize import authorize, context_of, hidden
from s4.http.connection import Connections, Exchange
from s4.http.credentials import find
from s4.http.doorstep import Doorstep
from s4.http.iam import tokens
from s4.http.iam.endpoint import IAM, QueryEndpoint, is_call
from s4.http.metrics import RequestMetrics
from s4.http.operations import forms, run
from s4.http.operations.settings import cross_origin, preflight
from s4.http.port import Port
from s4.http.request import S3Request, bucket_of, check_unsigned, parse_request, split_address
from s4.http.responses import common_headers
from s4.metadata.rows import LastUse
from s4.peer.api import UnavailableError
from s4.s3 import amz, conditions, names, parameters, sigv2, sigv4
from s4.s3.errors import S3Error
from s4.s3.routing import route
from s4.storage.records import DamagedError, DiskFullError, OfflineError
from s4.telemetry import logs, tracing
from s4.telemetry.audit import AuditLog

log = structlog.get_logger("s4.http")

USES = 10_000
AUDITED = (
    WRITES
    | {name for name in IAM if not name.startswith(("Get", "List"))}
    | {"AssumeRole", "AssumeRoleWithWebIdentity"}
)


class S3Server:
    """Serves S3 over one gateway. `health` answers /healthz and /readyz as (status, body)."""

    def __init__(
        self,
        gateway: Gateway,
        limits: Limits,
        metrics: RequestMetrics,
        audit: AuditLog,
        *,
        region: str,
        domains: tuple[str, ...],
        websites: tuple[str, ...] = (),
        health: Callable[[str], tuple[int, bytes]],
        access_log: bool = False,
        signature_v2: str = "query",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._gateway, self._limits, self._metrics, self._audit = gateway, limits, metrics, audit
        self._region, self._health, self._clock = region, health, clock
        self._domains, self._websites = domains, websites
        self.access_log, self._signature_v2 = AccessLog(access_log), signature_v2
        self._doorstep = Doorstep(limits)
        self._admission = Admission(gateway, limits, metrics)
        self._query = QueryEndpoint(gateway, region, clock, self.note_use, self._doorstep, self._admission)
        self._uses: dict[str, tuple[str, str]] = {}  # of access keys, since they were noted last
        self._in_flight = 0
        self._port: Port | None = None
        self._draining, self.refusing = False, ""  # why nobody is served now
        self._ids = wall_ms() << 20
        self._idle = asyncio.Event()
        self._idle.set()

    def connections(self) -> Connections:
        """What makes the connections of the port."""
        return Connections(self, self._limits, memory=self._gateway.memory, company=self._gateway.turns.company)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def port(self, bound: socket.socket, context: ssl.SSLContext | None) -> Port:
        """The port that S3 is served on. Its connections give way to others while they bring no request."""
        limits = self._limits
        self._port = Port(
            bound,
            context,
            most=limits.connections,
            first_s=limits.first_head_s,
            backlog=1024,
            refusal=self._no_place,
            plain=self._no_tls,
        )
        return self._port

    def lost(self, connection: BaseProtocol) -> None:
        """A connection is closed."""
        if self._port is not None:
            self._port.lost(connection)

    def _no_place(self) -> bytes:
        return self._bare("503 Service Unavailable\r\nRetry-After: 1", S3Error("SlowDown"))

    def _no_tls(self) -> bytes:
        return self._bare(
            "400 Bad Request", S3Error("InvalidRequest", "This port speaks HTTPS: use https:// in the address.")
        )

    def _bare(self, status: str, error: S3Error) -> bytes:
        """An answer to who has no request yet."""
        body = error.xml("/", self.request_id())
        head = f"HTTP/1.1 {status}\r\nContent-Type: {XML}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def request_id(self) -> str:
        self._ids += 1
        return f"{self._ids:016X}"

    async def drain(self) -> None:
        """Let requests in flight end, for at most `shutdown_s`; new ones are refused."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), self._limits.shutdown_s)
        except TimeoutError:
            log.warning("requests cut off at shutdown", count=self._in_flight)

    def failed(self, http: Exchange, error: Exception) -> Answer:
        """S3's face on what is not even HTTP, and on what should not have happened."""
        request_id = self.request_id()
        if isinstance(error, HttpProcessingError):
            refusal = S3Error("InvalidRequest", error.message or "Bad request")
            self.access_log.write(http, None, request_id, refusal.status, refusal.code, error=refusal)
        else:
            log.error("connection failed", request_id=request_id, exc_info=error)
            refusal = S3Error("InternalError")
        answer = respond(
            refusal.status,
            {"x-amz-request-id": request_id, "Content-Type": XML, "Server": "S4"},
            refusal.xml("/", request_id),
        )
        answer.goes_on = False
        return answer

    async def __call__(self, http: Exchange) -> Answer:
        port = self._port
        if port is None:
            return await self._answer(http)
        connection = http.connection
        port.begins(connection)
        try:
            return await self._answer(http)
        finally:
            port.ends(connection)

    async def _answer(self, http: Exchange) -> Answer:
        request_id = self.request_id()
        if http.raw_path in ("/healthz", "/readyz") and self._asks_for_health(http):
            status, body = self._health(http.raw_path)
            return respond(status, {"Content-Type": "text/plain", **common_headers(request_id)}, body)
        if self.refusing:
            error = S3Error("ServiceUnavailable", headers={"Connection": "close"})
            error.why = lambda: self.refusing
            self.access_log.write(http, None, request_id, error.status, error.code, error=error)
            return self._error(error, http.method, http.raw_path, request_id)
        if self._draining or (self._in_flight >= self._limits.requests and self._is_full()):
            self._metrics.refused.inc()
            error = S3Error("SlowDown", headers={"Retry-After": "1", "Connection": "close"})
            bound = "the server stops" if self._draining else f"the limit named requests ({self._limits.requests})"
            error.why = lambda: bound
            self.access_log.write(http, None, request_id, error.status, error.code, error=error)
            return self._error(error, http.method, http.raw_path, request_id)
        self._in_flight += 1
        self._idle.clear()
        try:
            if not tracing.is_on():
                return await self._serve(http, request_id)
            with tracing.span(f"S3 {http.method}", http.headers.get("traceparent", ""), request_id=request_id):
                return await self._serve(http, request_id)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    def _asks_for_health(self, http: Exchange) -> bool:
        """Whether a request of such a path is not for a bucket's object of that name."""
        bucket = bucket_of(http.headers.get("Host", ""), (*self._domains, *self._websites))
        return not bucket and http.method in ("GET", "HEAD")

    def _is_full(self) -> bool:
        """Whether no more is taken, of requests whose places are not counted by the admission, and that wait for no
        issuer."""
        return self._in_flight - self._admission.known - tokens.waiting() >= self._limits.requests

    async def _serve(self, http: Exchange, request_id: str) -> Answer:
        started = time.perf_counter()
        request: S3Request | None = None
        code, refusal = "OK", None
        try:
            request = parse_request(http, request_id, self._limits, self._domains, self._websites)
            response = await self._operate(request)
            code, refusal = request.failure or code, request.refusal
        except S3Error as error:
            if request is not None and request.begun:
                self._cut(http, request, request_id, error, time.perf_counter() - started)
                raise  # as below
            code, refusal = error.code, error
            response = self._error(error, http.method, http.raw_path, request_id)
        except Exception as error:
            failure = self._unexpected(error, http, request_id)
            code, refusal = failure.code, failure
            if request is not None and request.begun:
                self._cut(http, request, request_id, failure, time.perf_counter() - started)
                raise  # cutting the connection is the only way left to tell the client
            response = self._error(failure, http.method, http.raw_path, request_id)
        finally:
            if request is not None:
                self._admission.leave(request)
        headers = response.headers
        if not response.begun:
            headers.update(common_headers(request_id))
            if request is not None and request.extra:
                headers.update(request.extra)
            if request is not None and request.bucket and not request.key and code != "NoSuchBucket":
                headers["x-amz-bucket-region"] = self._region  # refused ones have it whether the bucket exists or not
        if not request.continued if request is not None else "Expect" in http.headers:
            response.goes_on = False  # whether the client still sends the body cannot be known
        self._account(request, http, response, code, time.perf_counter() - started, request_id, refusal)
        return response

    async def _operate(self, request: S3Request) -> Answer:
        """Authenticate, route, authorize, run."""
        if request.method == "OPTIONS":
            request.operation = "Preflight"
            await self._admission.enter(request)
            return await preflight(self._gateway, request)
        if "origin" in request.headers:
            request.extra = await cross_origin(self._gateway, request)
        if request.website:
            await self._admission.enter(request)
            return await website.serve(self._gateway, request)
        if is_call(request):
            return await self._query(request)
        if control.is_call(request):
            return await control.serve(self._gateway, request, self._enter)
        if forms.is_form(request):
            await self._authenticate_form(request)
            await self._admission.enter(request)
            request.operation = "PostObject"
        else:
            await self._authenticate(request)
            if not self._admission.enter_now(request):
                await self._admission.enter(request)
            if request.pairs:
                presigned = request.claim is not None and request.claim.presigned
                request.headers = amz.hoisted(request.pairs, request.headers, presigned=presigned)
            if (request.bucket, request.key) == ("api", b"stats"):  # no bucket can have this name
                return await self._stats(request)
            self._route(request)
            parameters.check(request.operation, request.query, request.pairs)
        amz.check(request.operation, request.headers)
        conditions.check_write(request.operation, request.headers)
        if request.claim is None:
            check_unsigned(request)
        call = await authorize(self._gateway, request)
        try:
            return await run(self._gateway, call)
        except S3Error as error:
            conditions.told(error, request.headers)
            raise await hidden(call.authorizer, error) from error
        finally:
            request.form = None  # it knows the request: a cycle would wait for the garbage collector

    def _route(self, request: S3Request) -> None:
        try:
            request.operation = route(request.method, request.bucket, request.key, request.query, request.headers)
        except S3Error as error:
            raise (error if request.claim else S3Error("AccessDenied")) from error

    async def _enter(self, request: S3Request) -> None:
        await self._authenticate(request)
        await self._admission.enter(request)

    async def _authenticate(self, request: S3Request) -> None:
        signed = sigv4.Request(request.method, request.path, request.pairs, request.headers)
        try:
            claim = sigv4.parse(signed)
        except sigv4.OldSignatureError:
            await self._authenticate_old(request, signed)
            return
        if claim is None:  # anonymous: what a bucket's policy or ACLs give to everybody
            request.payload = sigv4.unsigned_payload(request.headers)
            return
        if claim.service != "s3":
            raise S3Error("SignatureDoesNotMatch", "The request is signed for another service than S3.")
        secret, who = await find(self._gateway, claim)
        limits = self._limits
        request.signing_key = sigv4.check(
            claim, signed, secret, self._region, self._clock(), limits.clock_skew_s, limits.presign_s
        )
        request.claim, request.requester, request.payload = claim, who, claim.payload_hash
        if claim.access_key not in self._uses:
            self.note_use(claim)

    async def _authenticate_old(self, request: S3Request, signed: sigv4.Request) -> None:
        """By version 2 of the signature, where that is taken."""
        virtual, _ = split_address("/", request.headers.get("host", ""), self._domains)
        old = sigv2.parse(signed, virtual, self._signature_v2, self._region)
        secret, who = await find(self._gateway, old.claim)
        limits = self._limits
        sigv2.check(old, secret, self._clock(), limits.clock_skew_s, limits.presign_s)
        request.claim, request.requester, request.payload = old.claim, who, old.claim.payload_hash
        request.headers = old.headers
        self.note_use(old.claim)

    async def _authenticate_form(self, request: S3Request) -> None:
        async with self._doorstep.place(request):
            form = request.form = await forms.read_form(request, self._signature_v2, self._region)
        claim, policy = form.claim, form.policy
        if claim is None or policy is None:
            return  # anonymous
        secret, who = await find(self._gateway, claim)
        if claim.algorithm == sigv2.ALGORITHM:
            sigv2.check_form(claim, form.fields["policy"], secret)
        else:
            sigv4.check_form(claim, form.fields["policy"], secret, self._region)
        policy.check({**form.fields, "bucket": request.bucket}, self._clock())
        request.claim, request.requester = claim, who
        self.note_use(claim)

    def note_use(self, claim: sigv4.Claim) -> None:
        if not claim.token and len(self._uses) < USES:
            self._uses[claim.access_key] = claim.service, claim.region

    def take_uses(self) -> list[tuple[str, LastUse]]:
        """The access keys that were used since this was asked last."""
        uses, self._uses, now_ms = self._uses, {}, int(self._clock() * 1000)
        return [(name, LastUse(now_ms, *where)) for name, where in uses.items()]

    async def _stats(self, request: S3Request) -> Answer:
        """What the whole holds: for who may administer it, as on the admin port, and not for every user."""
        who = request.requester
        if request.claim is None or not who.allowed(Ask(who.asker, "s4:Admin", "*", context_of(request, self._clock))):
            raise S3Error("AccessDenied")
        if request.method != "GET":
            raise S3Error("MethodNotAllowed")
        request.operation = "Stats"
        amz.check(request.operation, request.headers)
        node = self._gateway.node
        stats: dict[str, Any] = dict(await node.stats())
        if request.requester.everything:
            listed = [(name, await node.bucket_counters(row.id)) for name, row in await node.list_buckets()]
            stats["buckets"] = {
                name: {"objects": sums.objects, "bytes": sums.bytes, "saved_bytes": sums.saved} for name, sums in listed
            }
        return respond(200, {"Content-Type": "application/json"}, msgspec.json.encode(stats))

    def _unexpected(self, error: Exception, http: Exchange, request_id: str) -> S3Error:
        if isinstance(error, DiskFullError):
            return S3Error("StorageFull")
        if isinstance(error, UnavailableError):
            return S3Error(error.code, error.message, headers={"Retry-After": "1"})
        if isinstance(error, TimeoutError):
            return S3Error("RequestTimeout", headers={"Connection": "close"})
        if isinstance(error, ConnectionError):
            return S3Error("IncompleteBody")
        if isinstance(error, OfflineError):
            message = "Too few of the stores that keep this object can be reached. Try again."
            return S3Error("ServiceUnavailable", message, headers={"Retry-After": "1"})
        if isinstance(error, DamagedError):
            log.error("damaged data", path=logs.address(http.raw_path), request_id=request_id, error=str(error))
            return S3Error("InternalError", "The object's bytes are damaged beyond repair on this server.")
        log.error(
            "request failed",
            path=logs.address(http.raw_path),
            method=http.method,
            request_id=request_id,
            exc_info=error,
        )
        return S3Error("InternalError")

    def _error(self, error: S3Error, method: str, resource: str, request_id: str) -> Answer:
        headers = {**common_headers(request_id), **error.headers}
        if error.status == 503:
            headers.setdefault("Retry-After", "1")
        if method == "HEAD" or error.status == 304:
            return respond(error.status, headers)
        headers["Content-Type"] = XML
        body = error.xml(resource.partition("?")[0], request_id)
        return respond(error.status, headers, body)

    def _cut(self, http: Exchange, request: S3Request, request_id: str, error: S3Error, seconds: float) -> None:
        """An answer ends before its end: logged, and counted by what happened, for its status said that all is well."""
        self.access_log.write(http, request, request_id, 500, f"cut off: {error.code}", error=error)
        self._metrics.observe(request.operation, error.code, seconds, 0, request.sent)

    def _account(
        self,
        request: S3Request | None,
        http: Exchange,
        response: Answer,
        code: str,
        seconds: float,
        request_id: str,
        refusal: S3Error | None,
    ) -> None:
        operation = request.operation if request and request.operation else "Unknown"
        length = request.headers.get("content-length", "") if request else ""
        received = (names.number(length, 0, 10**18) or 0) if length else 0
        sent = response.length if http.method != "HEAD" else 0
        self._metrics.observe(operation, code, seconds, received, sent)
        if request is not None and code == "OK" and not request.begun:
            self._admission.went(request, sent)
        if operation in AUDITED and request is not None:
            self._audit.write(
                request_id=request_id,
                user=request.user,
                operation=operation,
                bucket=request.bucket,
                key=request.key,
                version=response.headers.get("x-amz-version-id", ""),
                status=response.status,
                code=code,
                remote=http.remote or "",
                seconds=seconds,
            )
        if self.access_log.wants(response.status):
            self.access_log.write(
                http,
                request,
                request_id,
                response.status,
                code,
                error=refusal,
                received=received,
                sent=sent,
                milliseconds=round(seconds * 1000, 2),
            )

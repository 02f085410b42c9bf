"""Who may call the admin port: a signature for this port alone, over the whole request, by who may do `s4:Admin`.

A request that was signed for S3, or whose signature is in its address, was made for somebody else to send, and says
nothing of what its signer wants here. So the credential's scope names the service `s4-admin`, the signature is in a
header, and the body is what x-amz-content-sha256 says, which is signed. Nothing of a body is read before its sender is
known and allowed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from s4.access.patterns import Context
from s4.access.policy import Ask
from s4.access.requester import Requester
from s4.config.limits import Limits
from s4.gateway.context import Gateway
from s4.http.admin_port import is_local
from s4.http.authorize import context_of
from s4.http.credentials import find
from s4.http.request import parse_request
from s4.s3 import sigv4
from s4.s3.errors import S3Error

ACTION = "s4:Admin"
BODY_BYTES, BODY_S = 1 << 20, 30.0

IN_THE_CLEAR = (
    "The admin port takes calls from other machines over TLS only: use https://HOST:PORT with the cluster's authority "
    "(s4 admin --endpoint https://HOST:PORT --authority FILE). "
    "A server without a certificate gets one by --certificate and --key; --admin-tls off takes calls in the clear."
)
OLD_CLIENT = (
    f"Since 0.8 calls on the admin port are signed for the service {sigv4.ADMIN}, in headers, with the body's SHA-256 in "
    "x-amz-content-sha256: use the `s4 admin` of this version or a later one."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may do `s4:Admin`. `context` are the condition keys of the request."""

    who: Requester
    context: Context
    temporary: bool
    access_key: str = ""


class Door:
    """Lets callers in. `in_the_clear`: from other machines without TLS too; `here` tells which address is this
    machine's own."""

    def __init__(
        self,
        gateway: Gateway,
        limits: Limits,
        region: str,
        *,
        in_the_clear: bool,
        here: Callable[[object], bool] = is_local,
    ) -> None:
        self._gateway, self._limits, self._region = gateway, limits, region
        self._in_the_clear, self._here = in_the_clear, here

    async def admit(self, http: web.Request) -> Caller:
        """The caller, once its whole request is verified; the body can be read again. Raises S3Error."""
        self._check_transport(http)
        request = parse_request(http, "", self._limits, ())
        if any(name.lower().startswith("x-amz-") for name, _ in request.pairs):
            raise S3Error("AccessDenied", "A call on the admin port is signed in its headers: no address carries it.")
        signed = sigv4.Request(request.method, request.path, request.pairs, request.headers)
        claim = sigv4.parse(signed)
        if claim is None:
            raise S3Error("AccessDenied")
        if claim.service != sigv4.ADMIN:
            raise S3Error("SignatureDoesNotMatch", OLD_CLIENT)
        secret, who = await find(self._gateway, claim)
        limits = self._limits
        sigv4.check(claim, signed, secret, self._region, time.time(), limits.clock_skew_s, limits.presign_s)
        request.claim, request.requester = claim, who
        caller = Caller(who, context_of(request, self._gateway.clock), bool(claim.token), claim.access_key)
        if not who.allowed(Ask(who.asker, ACTION, "*", caller.context)):
            raise S3Error("AccessDenied")
        await _read_body(http, claim.payload_hash)
        return caller

    def _check_transport(self, http: web.Request) -> None:
        transport = http.transport
        secure = transport is not None and transport.get_extra_info("ssl_object") is not None
        own = transport.get_extra_info("sockname") if transport is not None else None
        if not (secure or self._in_the_clear or self._here(own)):
            raise S3Error("InvalidRequest", IN_THE_CLEAR)


async def _read_body(http: web.Request, sha256: str) -> None:
    try:
        async with asyncio.timeout(BODY_S):
            raw = await http.read()
    except TimeoutError:
        raise S3Error("RequestTimeout") from None
    except web.HTTPRequestEntityTooLarge:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(BODY_BYTES)) from None
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise S3Error("XAmzContentSHA256Mismatch")

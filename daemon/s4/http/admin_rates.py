"""Rates of single users and buckets on the admin port: `s4 admin user rate`, `s4 admin bucket rate`.

They are kept with the user and with the bucket, so that every gateway of a cluster knows them, and count instead of
the limits that are the same for all (gateway/rates.py). Each process that serves S3 counts for itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from s4.access import documents
from s4.config.limits import NO_RATE as ENDLESS
from s4.gateway.accounts import Accounts, change
from s4.gateway.buckets import set_document
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.rates import NO_RATE
from s4.http.admin_users import CALLER
from s4.http.iam.endpoint import check_lasting
from s4.http.iam.protocol import missing
from s4.metadata.rows import User


class AdminRates:
    """Handlers; what they raise is IamError, S3Error, or ValueError of a body."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[tuple[str, str, Callable[[web.Request], Awaitable[dict[str, Any]]]]]:
        return [
            ("PUT", "/admin/v1/users/{name}/rate", self.put_user),
            ("PUT", "/admin/v1/buckets/{name}/rate", self.put_bucket),
        ]

    async def put_user(self, request: web.Request) -> dict[str, Any]:
        check_lasting(request[CALLER].who, temporary=request[CALLER].temporary)
        body, name = _read(await request.read()), request.match_info["name"]

        async def work(accounts: Accounts) -> dict[str, Any]:
            row = await accounts.get(User, name)
            if row is None:
                raise missing("user", name)
            rate = body.over(row.rate)
            accounts.put(name, replace(row, rate=rate))
            return {"name": name, **shown(rate)}

        return await change(self._gateway, work)

    async def put_bucket(self, request: web.Request) -> dict[str, Any]:
        body, name = _read(await request.read()), request.match_info["name"]
        row = await find_bucket(self._gateway, name)
        rate = body.over(documents.rate_of(row))
        text = "" if rate == NO_RATE else f"{rate[0]} {rate[1]}"
        await set_document(self._gateway, name, documents.RATE, text, row, (documents.RATE,))
        return {"name": name, **shown(rate)}


class _RateBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is not said stays; 0 leaves it to the limits."""

    requests_per_s: int | None = None
    bytes_per_s: int | None = None

    def over(self, rate: tuple[int, int]) -> tuple[int, int]:
        requests = rate[0] if self.requests_per_s is None else self.requests_per_s
        return requests, rate[1] if self.bytes_per_s is None else self.bytes_per_s


def _read(raw: bytes) -> _RateBody:
    body = msgspec.json.decode(raw, type=_RateBody)
    said = [value for value in (body.requests_per_s, body.bytes_per_s) if value is not None]
    if not said:
        raise ValueError("say how many requests or bytes a second; 0 leaves it to the limits that all have")
    if not all(0 <= value < ENDLESS for value in said):
        raise ValueError("a rate is a whole number a second; 0 leaves it to the limits that all have")
    return body


def shown(rate: tuple[int, int]) -> dict[str, int]:
    return {"requests_per_s": rate[0], "bytes_per_s": rate[1]}

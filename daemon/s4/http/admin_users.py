"""Users and access keys on the admin port: calls of IAM by other words, for `s4 admin user` and the operator.

Each is one transaction of IAM's (gateway/accounts.py): judged as IAM's calls are, each by its own action, and done by
IAM's own functions. What is here besides are the roles of `s4 admin` (grants), which are policies of their user,
whether a user is enabled, and keys whose secret the caller chose: the operator writes it into a Secret first, and so
may ask twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from s4.access.requester import parse_grant
from s4.gateway.accounts import Accounts, change
from s4.gateway.context import Gateway
from s4.http.admin_access import Caller
from s4.http.iam import users
from s4.http.iam.endpoint import check_lasting, do, judge
from s4.http.iam.policies import holder
from s4.http.iam.protocol import Call, Form, missing
from s4.metadata.rows import AccessKey, Policy, User

CALLER = "s4.caller"  # of a request that was let in


class _Given(Form):
    """A name that is there already: 0.7 took all printable ones, IAM fewer."""

    def name(self, parameter: str, most: int = 64) -> str:
        return self.need(parameter)


class AdminUsers:
    """Handlers; what they raise is IamError, S3Error, or ValueError of a body."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[tuple[str, str, Callable[[web.Request], Awaitable[dict[str, Any]]]]]:
        return [
            ("GET", "/admin/v1/users", self.listed),
            ("PUT", "/admin/v1/users/{name}", self.put),
            ("DELETE", "/admin/v1/users/{name}", self.delete),
            ("POST", "/admin/v1/users/{name}/keys", self.make_key),
            ("DELETE", "/admin/v1/users/{name}/keys/{key}", self.delete_key),
        ]

    def _call(
        self, request: web.Request, accounts: Accounts, kind: type[Form] = _Given, named: dict[str, str] | None = None
    ) -> Call:
        """A call of IAM about the user that the address names."""
        caller: Caller = request[CALLER]
        form = kind({"UserName": request.match_info.get("name", ""), **(named or {})})
        return Call(self._gateway, form, caller.who, accounts, caller.context, caller.temporary)

    async def _change(
        self, work: Callable[[Accounts], Awaitable[dict[str, Any]]], request: web.Request
    ) -> dict[str, Any]:
        check_lasting(request[CALLER].who, temporary=request[CALLER].temporary)
        return await change(self._gateway, work)

    async def listed(self, request: web.Request) -> dict[str, Any]:
        accounts = Accounts(self._gateway)
        await judge(self._call(request, accounts), "ListUsers")
        held: dict[str, list[str]] = {}
        for name, key in await accounts.all(AccessKey):
            held.setdefault(key.user, []).append(name)
        grants = dict(await accounts.all(Policy))
        return {
            "users": [
                {
                    "name": name,
                    "enabled": row.enabled,
                    "grants": _texts(grants.get(name)),
                    "access_keys": held.get(name, []),
                    "created_ms": row.created_ms,
                    "requests_per_s": row.rate[0],
                    "bytes_per_s": row.rate[1],
                }
                for name, row in await accounts.all(User)
            ]
        }

    async def put(self, request: web.Request) -> dict[str, Any]:
        body, name = msgspec.json.decode(await request.read(), type=_UserBody), request.match_info["name"]
        grants = None if body.grants is None else [parse_grant(text) for text in body.grants]
        if grants is None and (body.create or body.enabled is None):
            raise ValueError("say what is to change: grants, or whether the user is enabled")

        async def work(accounts: Accounts) -> dict[str, Any]:
            call = self._call(request, accounts)
            if grants is not None:
                await judge(call, "PutUserPolicy")
            if body.create:
                await do(self._call(request, accounts, Form), "CreateUser")
            else:
                await judge(call, "UpdateAccessKey")  # to be enabled or not is what its keys' status says
            row = await accounts.get(User, name)
            if row is None:
                raise missing("user", name)
            enabled = row.enabled if body.enabled is None else body.enabled
            accounts.put(name, replace(row, enabled=enabled))
            if grants is not None:
                accounts.put(name, Policy(grants))
            return {"name": name, "grants": _texts(await accounts.get(Policy, name)), "enabled": enabled}

        return await self._change(work, request)

    async def delete(self, request: web.Request) -> dict[str, Any]:
        """With all that it has, which IAM wants taken away first: the caller may do each of these steps."""

        async def work(accounts: Accounts) -> dict[str, Any]:
            call = self._call(request, accounts)
            await judge(call, "DeleteUser")
            row = await holder(call, User)
            for action, named in await _steps(accounts, row):
                await judge(self._call(request, accounts, named=named), action)
            accounts.delete(User, row.name)
            return {}

        return await self._change(work, request)

    async def make_key(self, request: web.Request) -> dict[str, Any]:
        raw = await request.read()
        body = msgspec.json.decode(raw, type=_KeyBody) if raw else _KeyBody()
        access = body.access_key or "S4" + secrets.token_hex(9).upper()
        secret = body.secret_key or secrets.token_urlsafe(30)
        if not 3 <= len(access) <= 128 or "/" in access or len(secret) < 8:
            raise ValueError("an access key has 3 to 128 characters without a slash, a secret key 8 or more")

        async def work(accounts: Accounts) -> dict[str, Any]:
            call = self._call(request, accounts)
            await judge(call, "CreateAccessKey")
            await users.put_key(call, await holder(call, User), access, secret)
            return {"access_key": access, "secret_key": secret}

        return await self._change(work, request)

    async def delete_key(self, request: web.Request) -> dict[str, Any]:
        async def work(accounts: Accounts) -> dict[str, Any]:
            call = self._call(request, accounts, named={"AccessKeyId": request.match_info["key"]})
            return dict(await do(call, "DeleteAccessKey"))

        return await self._change(work, request)


async def _steps(accounts: Accounts, row: User) -> list[tuple[str, dict[str, str]]]:
    """The calls of IAM that take away what a user has."""
    steps: list[tuple[str, dict[str, str]]] = [("DetachUserPolicy", {"PolicyArn": arn}) for arn in row.attached]
    steps += [("RemoveUserFromGroup", {"GroupName": group}) for group in row.groups]
    granted = await accounts.get(Policy, row.name)
    if row.inline or (granted is not None and granted.grants):
        steps.append(("DeleteUserPolicy", {}))
    if await users.keys_of(accounts, row.name):
        steps.append(("DeleteAccessKey", {}))
    return steps


def _texts(held: Policy | None) -> list[str]:
    return [f"{grant.role}:{grant.buckets}" for grant in held.grants] if held is not None else []


class _UserBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is not said of a user that is there stays."""

    grants: list[str] | None = None
    enabled: bool | None = None
    create: bool = False


class _KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    access_key: str = ""
    secret_key: str = ""

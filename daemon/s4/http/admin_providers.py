"""Providers of web identities on the admin port: what the operator knows of Kubernetes' tokens, which IAM cannot say.

IAM has an issuer's keys fetched from the issuer. That of a Kubernetes may have an address that nobody here reaches, or
one that asks for a token; its keys are at the API server, where the operator reads them. So here a provider is had with
keys beside it, and with one more audience; other audiences, and all else that IAM's clients set, stay. Each call is
judged as the calls of IAM that it stands for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from s4.gateway.accounts import Accounts, change
from s4.gateway.context import Gateway
from s4.http.admin_access import Caller
from s4.http.admin_users import CALLER
from s4.http.iam import roles, tokens
from s4.http.iam.endpoint import check_lasting, judge
from s4.http.iam.protocol import Call, Form
from s4.metadata.rows import Provider

KEYS_BYTES = 64 * 1024


class AdminProviders:
    """Handlers; what they raise is IamError, S3Error, or ValueError of a body."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[tuple[str, str, Callable[[web.Request], Awaitable[dict[str, Any]]]]]:
        return [
            ("PUT", "/admin/v1/providers", self.put),
            ("DELETE", "/admin/v1/providers", self.delete),
        ]

    def _call(self, request: web.Request, accounts: Accounts, body: _ProviderBody) -> Call:
        caller: Caller = request[CALLER]
        check_lasting(caller.who, temporary=caller.temporary)
        address = f"https://{body.url}"
        form = Form({"Url": address, "OpenIDConnectProviderArn": roles.provider_arn(body.url), "ClientID": body.client})
        return Call(self._gateway, form, caller.who, accounts, caller.context, caller.temporary)

    async def put(self, request: web.Request) -> dict[str, Any]:
        """Have a provider with this audience and these keys."""
        body = msgspec.json.decode(await request.read(), type=_ProviderBody)
        _check_keys(body.keys)

        async def work(accounts: Accounts) -> dict[str, Any]:
            call = self._call(request, accounts, body)
            row = await accounts.get(Provider, body.url)
            if row is None:
                await judge(call, "CreateOpenIDConnectProvider")
                await roles.create_provider(call)
                row = await roles.find_provider(call)
            await judge(call, "AddClientIDToOpenIDConnectProvider")
            await judge(call, "UpdateOpenIDConnectProviderThumbprint")  # what says whose signature is the issuer's
            clients = row.clients if body.client in row.clients else roles.check_clients([*row.clients, body.client])
            wanted = replace(row, clients=clients, keys=body.keys)
            if wanted != row:
                accounts.put(row.url, wanted)
            return {"arn": roles.provider_arn(row.url)}

        return await change(self._gateway, work)

    async def delete(self, request: web.Request) -> dict[str, Any]:
        """Have it without this audience, and not at all where there is no other. That it is gone is success."""
        body = msgspec.json.decode(await request.read(), type=_ProviderBody)

        async def work(accounts: Accounts) -> dict[str, Any]:
            call = self._call(request, accounts, body)
            await judge(call, "RemoveClientIDFromOpenIDConnectProvider")
            row = await accounts.get(Provider, body.url)
            if row is None or body.client not in row.clients:
                return {}
            left = [one for one in row.clients if one != body.client]
            if left:
                accounts.put(row.url, replace(row, clients=left))
            else:
                await judge(call, "DeleteOpenIDConnectProvider")
                accounts.delete(Provider, row.url)
            return {}

        return await change(self._gateway, work)


def _check_keys(text: str) -> None:
    if len(text) > KEYS_BYTES:
        raise ValueError(f"keys are at most {KEYS_BYTES} bytes")
    try:
        tokens.given_keys(text)
    except tokens.UNREADABLE as error:
        raise ValueError(f"keys must be a JSON Web Key Set: {error}") from error


class _ProviderBody(msgspec.Struct, forbid_unknown_fields=True):
    """`url` is the issuer's without https://, `client` an audience, `keys` a JSON Web Key Set as it was told."""

    url: str
    client: str
    keys: str = ""

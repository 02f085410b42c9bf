"""Roles, and the OpenID Connect providers whose tokens may assume them."""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from s4.access.patterns import PolicyError
from s4.access.policy import ACCOUNT
from s4.gateway import principals
from s4.http.credentials import role_arn
from s4.http.iam.policies import check_arn, holder
from s4.http.iam.protocol import Call, Handler, IamError, date, exists, new_id, quoted, tag_list
from s4.metadata.canonical import canonical_id
from s4.metadata.rows import Provider, Role

TRUST_BYTES, CLIENTS = 4096, 100
LEAST_S, MOST_S = 3600, 43_200
_URL = re.compile(r"https://[A-Za-z0-9.:\[\]_~/-]{1,240}")
_THUMBPRINT = re.compile(r"[0-9a-fA-F]{40}")


async def shown(call: Call, row: Role) -> dict[str, Any]:
    trust = await principals.show(call.accounts, row.trust)
    found: dict[str, Any] = {
        "Path": row.path,
        "RoleName": row.name,
        "RoleId": row.id,
        "Arn": role_arn(row.name, row.path),
        "CreateDate": date(row.created_ms),
        "AssumeRolePolicyDocument": quoted(trust),
        "Description": row.description or None,
        "MaxSessionDuration": row.session_s,
        "Tags": tag_list(row.tags),
    }
    if row.boundary:
        found["PermissionsBoundary"] = {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": row.boundary}
    return found


async def create(call: Call) -> dict[str, Any]:
    name = call.form.name("RoleName")
    if await call.taken(Role, name):
        raise exists("Role", name)
    await call.room(Role, "Roles")
    boundary = (
        await check_arn(call.accounts, call.form.arn("PermissionsBoundary"))
        if call.form.has("PermissionsBoundary")
        else ""
    )
    trust = await _trust(call, "AssumeRolePolicyDocument")
    unique = new_id("AROA")
    row = Role(
        name,
        call.gateway.now_ms(),
        unique,
        call.form.path(),
        trust,
        call.form.text("Description", 1000),
        call.form.number("MaxSessionDuration", LEAST_S, LEAST_S, MOST_S),
        call.form.tags(),
        boundary=boundary,
        canonical=canonical_id(unique),
    )
    call.accounts.put(name, row)
    return {"Role": await shown(call, row)}


async def _trust(call: Call, parameter: str) -> str:
    """A document of trust, as it is kept. Raises IamError."""
    try:
        return await principals.keep(call.accounts, call.form.document(parameter, TRUST_BYTES, trust=True))
    except PolicyError as error:
        raise IamError("MalformedPolicyDocument", str(error)) from error


async def get(call: Call) -> dict[str, Any]:
    return {"Role": await shown(call, await holder(call, Role))}


async def list_roles(call: Call) -> dict[str, Any]:
    prefix = call.form.get("PathPrefix", "/")
    page, more = call.page(
        [row for _, row in await call.accounts.all(Role) if row.path.startswith(prefix)], lambda row: row.name
    )
    return {"Roles": [await shown(call, row) for row in page], **more}


async def update(call: Call) -> dict[str, Any]:
    row = await holder(call, Role)
    description = call.form.text("Description", 1000, row.description)
    session_s = call.form.number("MaxSessionDuration", row.session_s, LEAST_S, MOST_S)
    call.accounts.put(row.name, replace(row, description=description, session_s=session_s))
    return {}


async def update_trust(call: Call) -> dict[str, Any]:
    row = await holder(call, Role)
    call.accounts.put(row.name, replace(row, trust=await _trust(call, "PolicyDocument")))
    return {}


async def delete(call: Call) -> dict[str, Any]:
    row = await holder(call, Role)
    for held, what in ((row.attached, "detach all policies"), (row.inline, "delete policies")):
        if held:
            raise IamError("DeleteConflict", f"Cannot delete entity, must {what} first.")
    call.accounts.delete(Role, row.name)
    return {}


# -- providers


def provider_arn(url: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:oidc-provider/{url}"


async def find_provider(call: Call) -> Provider:
    arn = call.form.arn("OpenIDConnectProviderArn")
    row = await call.accounts.get(Provider, arn.partition(":oidc-provider/")[2])
    if row is None or provider_arn(row.url) != arn:
        raise IamError("NoSuchEntity", f"OpenIDConnect Provider not found for arn {arn}")
    return row


def _thumbprints(call: Call) -> list[str]:
    found = call.form.members("ThumbprintList")
    if len(found) > 5 or not all(_THUMBPRINT.fullmatch(one) for one in found):
        raise IamError("InvalidInput", "Thumbprints are up to 5 texts of 40 hexadecimal digits")
    return found


def check_clients(clients: list[str]) -> list[str]:
    """The audiences of a provider. Raises IamError."""
    if len(clients) > CLIENTS:
        raise IamError("LimitExceeded", f"Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: {CLIENTS}")
    if any(not 1 <= len(one) <= 255 for one in clients):
        raise IamError("InvalidInput", "Client ids are texts of 1 to 255 characters")
    return clients


async def create_provider(call: Call) -> dict[str, Any]:
    address = call.form.need("Url")
    if not _URL.fullmatch(address):
        raise IamError(
            "InvalidInput", "Invalid Open ID Connect Provider URL: it must begin with https:// and have no query"
        )
    url, clients = address.removeprefix("https://"), call.form.members("ClientIDList")
    if await call.accounts.get(Provider, url) is not None:
        raise exists("Provider", address)
    await call.room(Provider, "OpenIDConnectProviders")
    call.accounts.put(
        url, Provider(url, call.gateway.now_ms(), check_clients(clients), _thumbprints(call), call.form.tags())
    )
    return {"OpenIDConnectProviderArn": provider_arn(url)}


async def get_provider(call: Call) -> dict[str, Any]:
    row = await find_provider(call)
    return {
        "Url": row.url,
        "ClientIDList": row.clients,
        "ThumbprintList": row.thumbprints,
        "CreateDate": date(row.created_ms),
        "Tags": tag_list(row.tags),
    }


async def list_providers(call: Call) -> dict[str, Any]:
    return {
        "OpenIDConnectProviderList": [{"Arn": provider_arn(row.url)} for _, row in await call.accounts.all(Provider)]
    }


async def delete_provider(call: Call) -> dict[str, Any]:
    call.accounts.delete(Provider, (await find_provider(call)).url)
    return {}


async def add_client(call: Call) -> dict[str, Any]:
    row, client = await find_provider(call), call.form.need("ClientID")
    if client not in row.clients:
        call.accounts.put(row.url, replace(row, clients=check_clients([*row.clients, client])))
    return {}


async def remove_client(call: Call) -> dict[str, Any]:
    row, client = await find_provider(call), call.form.need("ClientID")
    call.accounts.put(row.url, replace(row, clients=[one for one in row.clients if one != client]))
    return {}


async def update_thumbprint(call: Call) -> dict[str, Any]:
    row = await find_provider(call)
    call.accounts.put(row.url, replace(row, thumbprints=_thumbprints(call)))
    return {}


OPERATIONS: dict[str, Handler] = {
    "CreateRole": create,
    "GetRole": get,
    "ListRoles": list_roles,
    "UpdateRole": update,
    "UpdateAssumeRolePolicy": update_trust,
    "DeleteRole": delete,
    "CreateOpenIDConnectProvider": create_provider,
    "GetOpenIDConnectProvider": get_provider,
    "ListOpenIDConnectProviders": list_providers,
    "DeleteOpenIDConnectProvider": delete_provider,
    "AddClientIDToOpenIDConnectProvider": add_client,
    "RemoveClientIDFromOpenIDConnectProvider": remove_client,
    "UpdateOpenIDConnectProviderThumbprint": update_thumbprint,
}

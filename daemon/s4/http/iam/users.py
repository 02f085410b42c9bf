"""Users, their access keys, and groups."""

from __future__ import annotations

import secrets
from typing import Any

from msgspec.structs import replace

from s4.access.policy import ACCOUNT
from s4.access.requester import ROLE, ROOT, user_arn
from s4.gateway.accounts import Accounts, kept_secret
from s4.http.iam.policies import check_arn, holder
from s4.http.iam.protocol import Call, Handler, IamError, date, exists, invalid, new_id, tag_list
from s4.metadata import keys
from s4.metadata.canonical import canonical_id
from s4.metadata.rows import AccessKey, Group, LastUse, User, decode

GROUPS = 10  # of one user, as on AWS
RESERVED = ("root", "anonymous")


def shown(row: User) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Path": row.path,
        "UserName": row.name,
        "UserId": row.id or row.name,
        "Arn": user_arn(row.name, row.path),
        "CreateDate": date(row.created_ms),
        "Tags": tag_list(row.tags),
    }
    if row.boundary:
        found["PermissionsBoundary"] = {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": row.boundary}
    return found


def shown_group(row: Group) -> dict[str, Any]:
    arn = f"arn:aws:iam::{ACCOUNT}:group{row.path}{row.name}"
    return {"Path": row.path, "GroupName": row.name, "GroupId": row.id, "Arn": arn, "CreateDate": date(row.created_ms)}


async def create(call: Call) -> dict[str, Any]:
    name = call.form.name("UserName")
    if name.casefold() in RESERVED or await call.taken(User, name):
        raise exists("User", name)
    await call.room(User, "Users")
    boundary = (
        await check_arn(call.accounts, call.form.arn("PermissionsBoundary"))
        if call.form.has("PermissionsBoundary")
        else ""
    )
    unique = new_id("AIDA")
    row = User(
        name,
        call.gateway.now_ms(),
        id=unique,
        path=call.form.path(),
        tags=call.form.tags(),
        boundary=boundary,
        canonical=canonical_id(unique),
    )
    call.accounts.put(name, row)
    return {"User": shown(row)}


async def get(call: Call) -> dict[str, Any]:
    if not call.form.has("UserName") and call.who.kind == ROOT:
        return {
            "User": {
                "Path": "/",
                "UserName": "root",
                "UserId": ACCOUNT,
                "Arn": f"arn:aws:iam::{ACCOUNT}:root",
                "CreateDate": date(0),
            }
        }
    return {"User": shown(await holder(call, User, default=call.who.name))}


async def list_users(call: Call) -> dict[str, Any]:
    prefix = call.form.get("PathPrefix", "/")
    page, more = call.page(
        [row for _, row in await call.accounts.all(User) if row.path.startswith(prefix)], lambda row: row.name
    )
    return {"Users": [shown(row) for row in page], **more}


async def update(call: Call) -> dict[str, Any]:
    """Another path. Names stay: buckets and objects know their owners by name."""
    row = await holder(call, User)
    if call.form.get("NewUserName", row.name) != row.name:
        raise IamError("NotImplemented", "S4 does not rename users: buckets and objects know their owners by name.")
    if call.form.has("NewPath"):
        call.accounts.put(row.name, replace(row, path=call.form.path("NewPath")))
    return {}


async def delete(call: Call) -> dict[str, Any]:
    row = await holder(call, User)
    for held, what in (
        (row.attached, "detach all policies"),
        (row.inline, "delete policies"),
        (row.groups, "remove users from groups"),
        (await keys_of(call.accounts, row.name), "delete access keys"),
    ):
        if held:
            raise IamError("DeleteConflict", f"Cannot delete entity, must {what} first.")
    call.accounts.delete(User, row.name)
    return {}


# -- access keys


async def keys_of(accounts: Accounts, user: str) -> list[tuple[str, AccessKey]]:
    return [(name, row) for name, row in await accounts.all(AccessKey) if row.user == user]


def _status(row: AccessKey) -> str:
    return "Active" if row.enabled else "Inactive"


async def put_key(call: Call, user: User, access: str, secret: str) -> AccessKey:
    """A key of a user's own that is there already gets the secret. Raises IamError."""
    held = await call.accounts.get(AccessKey, access)
    if held is not None and held.user != user.name:
        raise IamError("EntityAlreadyExists", f"The access key {access} is another user's.")
    most = call.gateway.limits.keys_per_user
    if held is None and len(await keys_of(call.accounts, user.name)) >= most:
        raise IamError("LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {most}")
    row = AccessKey(user.name, kept_secret(call.gateway, access, secret), call.gateway.now_ms())
    call.accounts.put(access, row)
    return row


async def create_key(call: Call) -> dict[str, Any]:
    if call.who.kind == ROLE and not call.form.has("UserName"):
        raise invalid("Must specify userName when calling with non-User credentials")
    user = await holder(call, User, default=call.who.name)
    access, secret = new_id("AKIA", 16), secrets.token_urlsafe(30)
    row = await put_key(call, user, access, secret)
    return {
        "AccessKey": {
            "UserName": user.name,
            "AccessKeyId": access,
            "Status": "Active",
            "SecretAccessKey": secret,
            "CreateDate": date(row.created_ms),
        }
    }


async def list_keys(call: Call) -> dict[str, Any]:
    user = await holder(call, User, default=call.who.name)
    page, more = call.page(await keys_of(call.accounts, user.name), lambda one: one[0])
    listed = [
        {"UserName": user.name, "AccessKeyId": name, "Status": _status(row), "CreateDate": date(row.created_ms)}
        for name, row in page
    ]
    return {"AccessKeyMetadata": listed, **more}


async def _key(call: Call) -> tuple[str, AccessKey]:
    user, name = await holder(call, User, default=call.who.name), call.form.need("AccessKeyId")
    row = await call.accounts.get(AccessKey, name)
    if row is None or row.user != user.name:
        raise IamError("NoSuchEntity", f"The Access Key with id {name} cannot be found.")
    return name, row


async def update_key(call: Call) -> dict[str, Any]:
    name, row = await _key(call)
    status = call.form.need("Status")
    if status not in ("Active", "Inactive"):
        raise invalid(
            f"Value '{status}' at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]"
        )
    call.accounts.put(name, replace(row, enabled=status == "Active"))
    return {}


async def delete_key(call: Call) -> dict[str, Any]:
    call.accounts.delete(AccessKey, (await _key(call))[0])
    return {}


async def last_used(call: Call) -> dict[str, Any]:
    name = call.form.need("AccessKeyId")
    row = await call.accounts.get(AccessKey, name)
    if row is None:
        raise IamError("NoSuchEntity", f"The Access Key with id {name} cannot be found.")
    value = (await call.gateway.node.find_accounts([keys.named_row(keys.LAST_USE, name)]))[0]
    use = decode(LastUse, value) if value is not None else None
    shown_use = (
        {"LastUsedDate": date(use.used_ms), "ServiceName": use.service, "Region": use.region}
        if use
        else {"ServiceName": "N/A", "Region": "N/A"}
    )
    return {"UserName": row.user, "AccessKeyLastUsed": shown_use}


# -- groups


async def create_group(call: Call) -> dict[str, Any]:
    name = call.form.name("GroupName", 128)
    if await call.taken(Group, name):
        raise exists("Group", name)
    await call.room(Group, "Groups")
    row = Group(name, call.gateway.now_ms(), new_id("AGPA"), call.form.path())
    call.accounts.put(name, row)
    return {"Group": shown_group(row)}


async def _members(call: Call, group: str) -> list[User]:
    return [row for _, row in await call.accounts.all(User, seen=True) if group in row.groups]


async def get_group(call: Call) -> dict[str, Any]:
    row = await holder(call, Group, 128)
    page, more = call.page(await _members(call, row.name), lambda user: user.name)
    return {"Group": shown_group(row), "Users": [shown(user) for user in page], **more}


async def list_groups(call: Call) -> dict[str, Any]:
    prefix = call.form.get("PathPrefix", "/")
    page, more = call.page(
        [row for _, row in await call.accounts.all(Group) if row.path.startswith(prefix)], lambda row: row.name
    )
    return {"Groups": [shown_group(row) for row in page], **more}


async def update_group(call: Call) -> dict[str, Any]:
    """Another path, another name, or both; its members follow."""
    row = await holder(call, Group, 128)
    name = call.form.name("NewGroupName", 128) if call.form.has("NewGroupName") else row.name
    if name != row.name:
        if await call.taken(Group, name, but=row.name):
            raise exists("Group", name)
        for user in await _members(call, row.name):
            call.accounts.put(
                user.name, replace(user, groups=[name if one == row.name else one for one in user.groups])
            )
        call.accounts.delete(Group, row.name)
    call.accounts.put(
        name, replace(row, name=name, path=call.form.path("NewPath") if call.form.has("NewPath") else row.path)
    )
    return {}


async def delete_group(call: Call) -> dict[str, Any]:
    row = await holder(call, Group, 128)
    for held, what in (
        (row.attached, "detach all policies"),
        (row.inline, "delete policies"),
        (await _members(call, row.name), "remove users"),
    ):
        if held:
            raise IamError("DeleteConflict", f"Cannot delete entity, must {what} first.")
    call.accounts.delete(Group, row.name)
    return {}


async def add_to_group(call: Call) -> dict[str, Any]:
    group, user = await holder(call, Group, 128), await holder(call, User)
    if group.name not in user.groups:
        if len(user.groups) >= GROUPS:
            raise IamError("LimitExceeded", f"Cannot exceed quota for GroupsPerUser: {GROUPS}")
        call.accounts.put(user.name, replace(user, groups=[*user.groups, group.name]))
    return {}


async def remove_from_group(call: Call) -> dict[str, Any]:
    group, user = await holder(call, Group, 128), await holder(call, User)
    if group.name not in user.groups:
        raise IamError("NoSuchEntity", f"User {user.name} is not in group {group.name}.")
    call.accounts.put(user.name, replace(user, groups=[one for one in user.groups if one != group.name]))
    return {}


async def list_groups_of(call: Call) -> dict[str, Any]:
    page, more = call.page((await holder(call, User)).groups, str)
    rows = [row for name in page if (row := await call.accounts.get(Group, name)) is not None]
    return {"Groups": [shown_group(row) for row in rows], **more}


OF_GROUPS = ("CreateGroup", "GetGroup", "UpdateGroup", "DeleteGroup", "AddUserToGroup", "RemoveUserFromGroup")
OPERATIONS: dict[str, Handler] = {
    "CreateUser": create,
    "GetUser": get,
    "ListUsers": list_users,
    "UpdateUser": update,
    "DeleteUser": delete,
    "CreateAccessKey": create_key,
    "ListAccessKeys": list_keys,
    "UpdateAccessKey": update_key,
    "DeleteAccessKey": delete_key,
    "GetAccessKeyLastUsed": last_used,
    "CreateGroup": create_group,
    "GetGroup": get_group,
    "ListGroups": list_groups,
    "UpdateGroup": update_group,
    "DeleteGroup": delete_group,
    "AddUserToGroup": add_to_group,
    "RemoveUserFromGroup": remove_from_group,
    "ListGroupsForUser": list_groups_of,
}

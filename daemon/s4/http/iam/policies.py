"""Managed policies with versions; inline policies, attachments and boundaries of users, groups and roles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from msgspec.structs import replace

from s4.access.policy import ACCOUNT
from s4.gateway.accounts import Accounts
from s4.http.iam.protocol import Call, Handler, IamError, bounded_tags, date, exists, missing, new_id, quoted, tag_list
from s4.metadata.builtin import BUILT_IN
from s4.metadata.rows import Group, Managed, Role, User
from s4.s3 import names

VERSIONS, ATTACHED = 5, 20
INLINE = {User: 2048, Group: 5120, Role: 10240}  # bytes of all inline policies together
H = TypeVar("H", User, Group, Role)
KINDS: dict[str, Any] = {"User": User, "Group": Group, "Role": Role}


def policy_arn(row: Managed) -> str:
    return f"arn:aws:iam::{ACCOUNT}:policy{row.path}{row.name}"


async def find(accounts: Accounts, arn: str) -> Managed:
    """A policy of this account. Raises IamError."""
    name = arn.rpartition("/")[2]
    row = await accounts.get(Managed, name) if arn.startswith(f"arn:aws:iam::{ACCOUNT}:policy/") else None
    if row is None or policy_arn(row) != arn:
        raise IamError("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.")
    return row


async def check_arn(accounts: Accounts, arn: str) -> str:
    """An ARN that can be attached. Raises IamError."""
    if arn not in BUILT_IN:
        await find(accounts, arn)
    return arn


async def users_of(accounts: Accounts, arn: str, *, seen: bool = False) -> dict[str, list[Any]]:
    """Who has a policy attached, by kind; and whose boundary it is."""
    found: dict[str, list[Any]] = {}
    for kind, row_kind in KINDS.items():
        rows = [row for _, row in await accounts.all(row_kind, seen=seen)]
        found[kind] = [row for row in rows if arn in row.attached]
        found[f"{kind} boundary"] = [row for row in rows if getattr(row, "boundary", "") == arn]
    return found


async def shown(accounts: Accounts, row: Managed) -> dict[str, Any]:
    used = await users_of(accounts, policy_arn(row))
    return {
        "PolicyName": row.name,
        "PolicyId": row.id,
        "Arn": policy_arn(row),
        "Path": row.path,
        "DefaultVersionId": f"v{row.default}",
        "AttachmentCount": sum(len(used[kind]) for kind in KINDS),
        "PermissionsBoundaryUsageCount": sum(len(used[f"{kind} boundary"]) for kind in KINDS),
        "IsAttachable": True,
        "Description": row.description or None,
        "CreateDate": date(row.created_ms),
        "UpdateDate": date(row.updated_ms),
        "Tags": tag_list(row.tags),
    }


def _built_in(arn: str) -> dict[str, Any]:
    return {
        "PolicyName": arn.rpartition("/")[2],
        "PolicyId": "ANPA" + arn.rpartition("/")[2].upper()[:17],
        "Arn": arn,
        "Path": "/",
        "DefaultVersionId": "v1",
        "AttachmentCount": 0,
        "IsAttachable": True,
        "CreateDate": date(0),
        "UpdateDate": date(0),
    }


async def create_policy(call: Call) -> dict[str, Any]:
    name, now = call.form.name("PolicyName", 128), call.gateway.now_ms()
    if await call.taken(Managed, name):
        raise exists("Policy", name)
    await call.room(Managed, "Policies")
    document = call.form.document()
    row = Managed(
        name,
        now,
        new_id("ANPA"),
        call.form.path(),
        {1: (document, now)},
        description=call.form.text("Description", 1000),
        updated_ms=now,
        tags=call.form.tags(),
    )
    call.accounts.put(name, row)
    return {"Policy": await shown(call.accounts, row)}


async def get_policy(call: Call) -> dict[str, Any]:
    arn = call.form.arn("PolicyArn")
    return {"Policy": _built_in(arn) if arn in BUILT_IN else await shown(call.accounts, await find(call.accounts, arn))}


async def list_policies(call: Call) -> dict[str, Any]:
    scope, prefix = call.form.one_of("Scope", "All", "AWS", "Local"), call.form.get("PathPrefix", "/")
    rows = [await shown(call.accounts, row) for _, row in await call.accounts.all(Managed)] if scope != "AWS" else []
    rows += [_built_in(arn) for arn in BUILT_IN] if scope != "Local" else []
    rows = [row for row in rows if row["Path"].startswith(prefix)]
    if call.form.get("OnlyAttached") == "true":
        rows = [row for row in rows if row["AttachmentCount"]]
    page, more = call.page(rows, lambda row: str(row["Arn"]))
    return {"Policies": page, **more}


async def delete_policy(call: Call) -> dict[str, Any]:
    row = await find(call.accounts, call.form.arn("PolicyArn"))
    if any((await users_of(call.accounts, policy_arn(row), seen=True)).values()):
        raise IamError("DeleteConflict", "Cannot delete a policy attached to entities.")
    if len(row.versions) > 1:
        raise IamError(
            "DeleteConflict",
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.",
        )
    call.accounts.delete(Managed, row.name)
    return {}


async def create_version(call: Call) -> dict[str, Any]:
    row, now = await find(call.accounts, call.form.arn("PolicyArn")), call.gateway.now_ms()
    if len(row.versions) >= VERSIONS:
        raise IamError(
            "LimitExceeded",
            f"A managed policy can have up to {VERSIONS} versions. Before you create a new version, you must delete an existing version.",
        )
    number = row.last + 1
    default = number if call.form.get("SetAsDefault") == "true" else row.default
    versions = {**row.versions, number: (call.form.document(), now)}
    call.accounts.put(row.name, replace(row, versions=versions, last=number, default=default, updated_ms=now))
    return {
        "PolicyVersion": {"VersionId": f"v{number}", "IsDefaultVersion": default == number, "CreateDate": date(now)}
    }


def _version(call: Call, row: Managed) -> int:
    text = call.form.need("VersionId")
    number = names.number(text[1:], 1, 10**9) if text[:1] == "v" else None
    if number is None or number not in row.versions:
        raise IamError("NoSuchEntity", f"Policy {policy_arn(row)} version {text} does not exist or is not attachable.")
    return number


async def get_version(call: Call) -> dict[str, Any]:
    arn = call.form.arn("PolicyArn")
    if arn in BUILT_IN:
        row = Managed("", 0, "", "/", {1: (BUILT_IN[arn], 0)})
    else:
        row = await find(call.accounts, arn)
    number = _version(call, row)
    document, created = row.versions[number]
    return {
        "PolicyVersion": {
            "Document": quoted(document),
            "VersionId": f"v{number}",
            "IsDefaultVersion": number == row.default,
            "CreateDate": date(created),
        }
    }


async def list_versions(call: Call) -> dict[str, Any]:
    row = await find(call.accounts, call.form.arn("PolicyArn"))
    page, more = call.page(sorted(row.versions.items(), reverse=True), lambda one: f"{one[0]:08d}")
    return {
        "Versions": [
            {"VersionId": f"v{number}", "IsDefaultVersion": number == row.default, "CreateDate": date(created)}
            for number, (_, created) in reversed(page)
        ],
        **more,
    }


async def delete_version(call: Call) -> dict[str, Any]:
    row = await find(call.accounts, call.form.arn("PolicyArn"))
    number = _version(call, row)
    if number == row.default:
        raise IamError("DeleteConflict", "Cannot delete the default version of a policy.")
    call.accounts.put(
        row.name, replace(row, versions={one: held for one, held in row.versions.items() if one != number})
    )
    return {}


async def set_default(call: Call) -> dict[str, Any]:
    row = await find(call.accounts, call.form.arn("PolicyArn"))
    call.accounts.put(row.name, replace(row, default=_version(call, row), updated_ms=call.gateway.now_ms()))
    return {}


async def list_entities(call: Call) -> dict[str, Any]:
    used = await users_of(call.accounts, await check_arn(call.accounts, call.form.arn("PolicyArn")))
    only = call.form.one_of("EntityFilter", *KINDS, "LocalManagedPolicy", "AWSManagedPolicy")
    page, more = call.page(
        [(kind, row) for kind in KINDS if only in ("", kind) for row in used[kind]],
        lambda entity: f"{entity[0]}/{entity[1].name}",
    )
    listed = {
        f"Policy{kind}s": [{f"{kind}Name": row.name, f"{kind}Id": row.id or row.name} for of, row in page if of == kind]
        for kind in KINDS
    }
    return {**listed, **more}


# -- of users, groups and roles: one function for each, made for every kind


def _without(tags: dict[str, str], gone: Iterable[str]) -> dict[str, str]:
    """Tags but for some, whose keys IAM does not tell apart by case."""
    lower = {name.lower() for name in gone}
    return {name: value for name, value in tags.items() if name.lower() not in lower}


async def holder(call: Call, kind: type[H], most: int = 64, *, default: str = "") -> H:
    """The user, group or role that is named, or `default` where none is. Raises IamError."""
    called = kind.__name__
    name = call.form.name(f"{called}Name", most) if call.form.has(f"{called}Name") or not default else default
    row = await call.accounts.get(kind, name)
    if row is None:
        raise missing(called.lower(), name)
    return row


class Held:
    """The operations on the policies and tags of a kind: User, Group or Role."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def _holder(self, call: Call) -> Any:
        return await holder(call, KINDS[self.kind], 128)

    async def put_inline(self, call: Call) -> dict[str, Any]:
        row, name = await self._holder(call), call.form.name("PolicyName", 128)
        most = INLINE[KINDS[self.kind]]
        inline = {**row.inline, name: call.form.document(most=most)}
        if sum(len("".join(text.split())) for text in inline.values()) > most:
            raise IamError(
                "LimitExceeded", f"Maximum policy size of {most} bytes exceeded for {self.kind.lower()} {row.name}"
            )
        call.accounts.put(row.name, replace(row, inline=inline))
        return {}

    async def get_inline(self, call: Call) -> dict[str, Any]:
        row, name = await self._holder(call), call.form.name("PolicyName", 128)
        if name not in row.inline:
            raise missing(f"{self.kind.lower()} policy", name)
        return {f"{self.kind}Name": row.name, "PolicyName": name, "PolicyDocument": quoted(row.inline[name])}

    async def delete_inline(self, call: Call) -> dict[str, Any]:
        row, name = await self._holder(call), call.form.name("PolicyName", 128)
        if name not in row.inline:
            raise missing(f"{self.kind.lower()} policy", name)
        call.accounts.put(row.name, replace(row, inline={one: text for one, text in row.inline.items() if one != name}))
        return {}

    async def list_inline(self, call: Call) -> dict[str, Any]:
        page, more = call.page((await self._holder(call)).inline, str)
        return {"PolicyNames": page, **more}

    async def attach(self, call: Call) -> dict[str, Any]:
        row, arn = await self._holder(call), await check_arn(call.accounts, call.form.arn("PolicyArn"))
        if arn not in row.attached:
            if len(row.attached) >= ATTACHED:
                raise IamError("LimitExceeded", f"Cannot exceed quota for PoliciesPer{self.kind}: {ATTACHED}")
            call.accounts.put(row.name, replace(row, attached=[*row.attached, arn]))
        return {}

    async def detach(self, call: Call) -> dict[str, Any]:
        row, arn = await self._holder(call), call.form.arn("PolicyArn")
        if arn not in row.attached:
            raise IamError("NoSuchEntity", f"Policy {arn} was not found.")
        call.accounts.put(row.name, replace(row, attached=[one for one in row.attached if one != arn]))
        return {}

    async def list_attached(self, call: Call) -> dict[str, Any]:
        prefix = call.form.get("PathPrefix", "/")
        attached = (await self._holder(call)).attached
        page, more = call.page([arn for arn in attached if f"/{arn.partition('/')[2]}".startswith(prefix)], str)
        return {"AttachedPolicies": [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in page], **more}

    async def put_boundary(self, call: Call) -> dict[str, Any]:
        row = await self._holder(call)
        call.accounts.put(
            row.name, replace(row, boundary=await check_arn(call.accounts, call.form.arn("PermissionsBoundary")))
        )
        return {}

    async def delete_boundary(self, call: Call) -> dict[str, Any]:
        row = await self._holder(call)
        if not row.boundary:
            raise IamError("NoSuchEntity", f"{self.kind} {row.name} has no permissions boundary.")
        call.accounts.put(row.name, replace(row, boundary=""))
        return {}

    async def tag(self, call: Call) -> dict[str, Any]:
        row, given = await self._holder(call), call.form.tags()
        kept = _without(row.tags, given)
        call.accounts.put(row.name, replace(row, tags=bounded_tags({**kept, **given})))
        return {}

    async def untag(self, call: Call) -> dict[str, Any]:
        row = await self._holder(call)
        call.accounts.put(row.name, replace(row, tags=_without(row.tags, call.form.members("TagKeys"))))
        return {}

    async def list_tags(self, call: Call) -> dict[str, Any]:
        page, more = call.page((await self._holder(call)).tags.items(), lambda one: one[0])
        return {"Tags": tag_list(dict(page)), **more}

    def operations(self) -> dict[str, Handler]:
        kind = self.kind
        found: dict[str, Handler] = {
            f"Put{kind}Policy": self.put_inline,
            f"Get{kind}Policy": self.get_inline,
            f"Delete{kind}Policy": self.delete_inline,
            f"List{kind}Policies": self.list_inline,
            f"Attach{kind}Policy": self.attach,
            f"Detach{kind}Policy": self.detach,
            f"ListAttached{kind}Policies": self.list_attached,
        }
        if kind != "Group":
            found |= {
                f"Put{kind}PermissionsBoundary": self.put_boundary,
                f"Delete{kind}PermissionsBoundary": self.delete_boundary,
                f"Tag{kind}": self.tag,
                f"Untag{kind}": self.untag,
                f"List{kind}Tags": self.list_tags,
            }
        return found


OPERATIONS: dict[str, Handler] = {
    "CreatePolicy": create_policy,
    "GetPolicy": get_policy,
    "ListPolicies": list_policies,
    "DeletePolicy": delete_policy,
    "CreatePolicyVersion": create_version,
    "GetPolicyVersion": get_version,
    "ListPolicyVersions": list_versions,
    "DeletePolicyVersion": delete_version,
    "SetDefaultPolicyVersion": set_default,
    "ListEntitiesForPolicy": list_entities,
    **Held("User").operations(),
    **Held("Group").operations(),
    **Held("Role").operations(),
}

"""The condition keys of what a call of IAM asks: the tags and boundary of the user or role that it is about, tags and
policies that it names. They are read in the call's own step, so that what was judged is what is changed."""

from __future__ import annotations

from typing import Any

from s4.access import keys
from s4.http.iam.protocol import Call
from s4.metadata.rows import Managed, Provider, Role, User

# What tagging a thing that is created needs besides. Source: IAM API, "CreateUser", parameter Tags, and the like.
TAGGING = {
    "CreateUser": "TagUser",
    "CreateRole": "TagRole",
    "CreatePolicy": "TagPolicy",
    "CreateOpenIDConnectProvider": "TagOpenIDConnectProvider",
}
# What gives a boundary: in any other call a boundary that is named says nothing of the one that there is.
_BINDING = frozenset(("CreateUser", "CreateRole", "PutUserPermissionsBoundary", "PutRolePermissionsBoundary"))


async def _row(call: Call, kind: str) -> User | Role | Managed | Provider | None:
    """What a call is about, where it is there."""
    form = call.form
    if kind == "user":
        return await call.accounts.get(User, form.get("UserName") if form.has("UserName") else call.who.name)
    if kind == "role":
        return await call.accounts.get(Role, form.get("RoleName"))
    if kind == "policy":
        return await call.accounts.get(Managed, form.get("PolicyArn").rpartition("/")[2])
    if kind == "provider":
        return await call.accounts.get(Provider, form.get("OpenIDConnectProviderArn").partition(":oidc-provider/")[2])
    return None


def tags_of(call: Call, action: str) -> dict[str, str]:
    """The tags that a call brings. Raises IamError."""
    return call.form.tags() if action in TAGGING or action.startswith("Tag") else {}


async def asked(call: Call, action: str, kind: str) -> keys.Values:
    """Keys for an action of IAM on a thing of a kind. Raises IamError."""
    row: Any = await _row(call, kind)
    found = keys.resource_tags(row.tags) if row is not None else {}
    found |= keys.of_labels(tags_of(call, action))
    if action.startswith("Untag"):
        found["aws:tagkeys"] = tuple(call.form.members("TagKeys"))
    if action.startswith(("Attach", "Detach")):
        found["iam:policyarn"] = (call.form.get("PolicyArn"),)
    named = action in _BINDING and call.form.has("PermissionsBoundary")
    boundary = call.form.get("PermissionsBoundary") if named else getattr(row, "boundary", "")
    if boundary:
        found["iam:permissionsboundary"] = (boundary,)
    return found

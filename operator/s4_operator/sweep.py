"""Users, roles and policies of resources that are no more: in S4 they go too.

A Bucket's user is removed here only. S4Users, S4Roles and S4Policies have finalizers that do it; here goes what is left
where somebody took one away, or where a cluster was away for good and came back with its volumes.

An operator of some namespaces sees no resources of others, which may have another operator. So it looks at the users,
roles and policies whose path says that their resource was in one of its own; a Bucket's user has no path, and is looked
at only where no namespace may use the cluster but those.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable

from s4_operator.daemons import DaemonError, Daemons
from s4_operator.iam import ROOT_PATH, Iam, namespace_path
from s4_operator.kube import Kube

log = logging.getLogger(__name__)

BUCKET_USER, USER, ROLE = "bucket-", "user-", "role-"  # and the uid of a Bucket, of an S4User, of an S4Role
_OF_RESOURCE = re.compile(r"(?:user|role|policy)-([0-9a-f-]{36})")


async def sweep(kube: Kube, daemons: Daemons, where: str, may_use: Collection[str] = ("*",)) -> None:
    """`may_use` are the namespaces whose resources may use the cluster. What S4 has is listed first: a resource that is
    made meanwhile is among those that live. Raises KubeError, DaemonError."""
    iam = Iam(daemons)
    users = list(await daemons.users()) if kube.sees(may_use) else []
    named = await _listed(kube, iam, "users", "ListUsers", "UserName")
    roles = await _listed(kube, iam, "roles", "ListRoles", "RoleName")
    policies = await _listed(kube, iam, "policies", "ListPolicies", "Arn", Scope="Local")
    buckets = await _uids(kube, "Bucket")
    for user in users:
        if user.startswith(BUCKET_USER) and user.removeprefix(BUCKET_USER) not in buckets:
            await daemons.delete_user(user)
            log.info("%s: the keys of a Bucket that is no more were removed", where)
    for user in await _dead(kube, "S4User", named):
        await daemons.delete_user(user)
        log.info("%s: the user of an S4User that is no more was removed", where)
    for role in await _dead(kube, "S4Role", roles):
        await drop_role(iam, role)
        log.info("%s: the role of an S4Role that is no more was removed", where)
    for name in await _dead(kube, "S4Policy", [one.rpartition("/")[2] for one in policies]):
        try:
            await iam.drop_policy(next(one for one in policies if one.endswith(f"/{name}")))
        except DaemonError as error:
            if error.code != "DeleteConflict":  # somebody has it: it stays until they have not
                raise


async def drop_role(iam: Iam, role: str) -> None:
    """A role, with its policies; sessions end with it. Raises DaemonError."""
    holder = iam.holder("Role", role)
    if await holder.find() is not None:
        await holder.strip()
        await iam.find("DeleteRole", RoleName=role)


async def _listed(kube: Kube, iam: Iam, kind: str, action: str, element: str, **fields: str) -> list[str]:
    """What was made for resources of the namespaces that the operator works in."""
    found: list[str] = []
    for path in [namespace_path(kind, one) for one in kube.namespaces] or [ROOT_PATH]:
        found += await iam.listed(action, element, PathPrefix=path, **fields)
    return found


async def _uids(kube: Kube, kind: str) -> set[str]:
    return {one["metadata"]["uid"] for one in await kube.list(kind)}


async def _dead(kube: Kube, kind: str, names: Iterable[str]) -> list[str]:
    """Those names that were made for a resource of a kind that is no more."""
    made = {name: found[1] for name in names if (found := _OF_RESOURCE.fullmatch(name)) is not None}
    alive = await _uids(kube, kind) if made else set()
    return [name for name, uid in made.items() if uid not in alive]

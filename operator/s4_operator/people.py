"""Brings S4Users and S4Policies from what is to what is asked for.

| state | owner |
|---|---|
| the user `user-UID`, under the path /s4.dev/users/NAMESPACE/NAME/ | the S4User of that uid: no name that anybody chooses leads to it |
| its inline policy S4Operator, what it has attached below /s4.dev/, its boundary if that is below /s4.dev/ | the S4User; other policies are IAM clients', and stay |
| which groups the S4User brought it into | tags of the user, `s4.dev/group/NAME`, written before it joins |
| its keys | the S4User, and its Secret (key_secrets.py); such as IAM makes (AKIA...) are IAM clients' |
| the policy `policy-UID` | the S4Policy |

In this order, so that a crash between any two leaves less than was asked for, and the next round goes on: what can be
refused by what is written is; names of Secret and ConfigMap; the finalizer; the user, who may nothing; what bounds it;
its policies; groups; it is let in; keys, and the Secret. A refusal first shuts the user out, sessions too, in one step,
then ends its keys. Deletion removes user, keys and policies in one step, and only then the resource goes. What is left
where a finalizer was taken away by hand is swept (sweep.py).
"""

from __future__ import annotations

from s4_operator import key_secrets, ownership
from s4_operator.bounds import Bounds
from s4_operator.cache import Cache
from s4_operator.clusters import Clusters
from s4_operator.daemons import DaemonError, Daemons, parts
from s4_operator.iam import Iam, path_of
from s4_operator.key_secrets import MADE, rotation_of
from s4_operator.kube import Kube, Object
from s4_operator.manifests import Builder
from s4_operator.people_models import PolicySpec, PolicyState, UserSpec, UserState
from s4_operator.resources import (
    AT_REST_S,
    UnmetError,
    cluster_for,
    cluster_of,
    full_name,
    owned,
    place,
    say,
)
from s4_operator.rights import arn_of, check, grant, names, resolved, statements
from s4_operator.rounds import Reconciler
from s4_operator.secrets_of import Keys
from s4_operator.sweep import USER

GROUP_TAG = "s4.dev/group/"
ENDING = "-s4-user"  # of the names of Secret and ConfigMap: a Bucket's are the Bucket's name


class Users(Reconciler[UserSpec, UserState]):
    """Reconciles S4Users."""

    kind, finalizer, models = "S4User", "s4.dev/user", (UserSpec, UserState)

    def __init__(self, kube: Kube, cache: Cache, clusters: Clusters, bounds: Bounds) -> None:
        super().__init__(kube, cache, clusters)
        self._bounds = bounds
        self._let_in: dict[str, bool] = {}  # by uid: what this process last had it be

    async def _ensure(self, resource: Object, spec: UserSpec, before: UserState) -> tuple[UserState, float]:
        cluster = cluster_for(self._cache, resource, spec.clusterRef)
        statements(spec.inline)
        metadata = resource["metadata"]
        called, user = metadata["name"] + ENDING, USER + metadata["uid"]
        if spec.groups and metadata["namespace"] != cluster["metadata"]["namespace"]:
            raise UnmetError(
                "GroupsNotAllowed",
                "groups are for S4Users in the S4Cluster's own namespace: IAM's groups have no owner",
            )
        for kind in ("Secret", "ConfigMap"):  # before anything is given
            await self._kube.ours(owned(resource, kind, called))
        builder, daemons = await self._connect(cluster)
        iam = Iam(daemons)
        rights = await resolved(self._cache, iam, resource, spec)
        holder = iam.holder("User", user)
        found = await holder.find()  # who never answered has nothing that a finalizer would wait for
        await self._set_finalizer(resource, wanted=True)
        if found is None:
            path = path_of("users", metadata["namespace"], metadata["name"])
            found = await iam.call("CreateUser", UserName=user, Path=path)
        await grant(self._bounds, holder, cluster, resource, rights)
        await _join(iam, user, set(spec.groups))
        if not self._let_in.get(metadata["uid"]):
            await daemons.enable_user(user, enabled=True)
            self._let_in[metadata["uid"]] = True
        kept, wait_s = await key_secrets.ensure(
            self._kube,
            daemons,
            resource,
            user,
            spec.keyGrace,
            lambda keys: _secret(resource, called, keys),
            stays=lambda access: MADE.fullmatch(access) is None,
        )
        await self._kube.have(owned(resource, "ConfigMap", called, data=environment(builder)))
        state = UserState(
            userName=user,
            arn=next(parts(found, "Arn"), ""),
            endpoint=builder.endpoint,
            secretName=called,
            configMapName=called,
            keys=kept,
            rotation=rotation_of(resource),
        )
        say(resource, state, before, "Ready", "the user can be used")
        return state, wait_s

    async def _take_back(self, resource: Object, before: UserState) -> None:
        """All that an S4User was given. The user stays, for what is its own. Raises DaemonError."""
        cluster, uid = cluster_of(self._cache, resource), resource["metadata"]["uid"]
        if cluster is None or self._let_in.get(uid) is False:
            return
        _, daemons = await self._connect(cluster)
        await ownership.shut_out(daemons, USER + uid)
        self._let_in[uid] = False

    async def _drop(self, resource: Object, before: UserState, cluster: Object, daemons: Daemons) -> None:
        await daemons.delete_user(USER + resource["metadata"]["uid"])
        self._let_in.pop(resource["metadata"]["uid"], None)


async def _join(iam: Iam, user: str, wanted: set[str]) -> None:
    """Have a user be in these groups, and in none that it was brought into before. Raises UnmetError, DaemonError."""
    held = set(await iam.listed("ListGroupsForUser", "GroupName", UserName=user))
    ours = {
        tag.removeprefix(GROUP_TAG)
        for tag in await iam.listed("ListUserTags", "Key", UserName=user)
        if tag.startswith(GROUP_TAG)
    }
    for group in sorted(wanted - held):
        named = {"Tags.member.1.Key": GROUP_TAG + group, "Tags.member.1.Value": ""}
        await iam.call("TagUser", UserName=user, **named)
        if await iam.find("AddUserToGroup", UserName=user, GroupName=group) is None:
            raise UnmetError("NoSuchGroup", f"there is no group {group}: make it with IAM's CreateGroup")
    for group in sorted(ours - wanted):
        await iam.find("RemoveUserFromGroup", UserName=user, GroupName=group)
        await iam.find("UntagUser", UserName=user, **{"TagKeys.member.1": GROUP_TAG + group})


def environment(builder: Builder) -> dict[str, str]:
    """What every SDK reads, but for who asks."""
    return {
        "AWS_REGION": builder.spec.region,
        "AWS_DEFAULT_REGION": builder.spec.region,
        "AWS_ENDPOINT_URL_S3": builder.endpoint,
        "AWS_ENDPOINT_URL_STS": builder.endpoint,
        "AWS_ENDPOINT_URL_IAM": builder.endpoint,
    }


def _secret(resource: Object, name: str, keys: Keys) -> Object:
    data = {"AWS_ACCESS_KEY_ID": keys.access, "AWS_SECRET_ACCESS_KEY": keys.secret}
    return owned(resource, "Secret", name, stringData=data)


class Policies(Reconciler[PolicySpec, PolicyState]):
    """Reconciles S4Policies. Nothing is taken back of one: who has it is refused for the same reason (rights.py)."""

    kind, finalizer, models = "S4Policy", "s4.dev/policy", (PolicySpec, PolicyState)

    async def _ensure(self, resource: Object, spec: PolicySpec, before: PolicyState) -> tuple[PolicyState, float]:
        cluster = cluster_for(self._cache, resource, spec.clusterRef)
        check(spec.document, "document")
        _, daemons = await self._connect(cluster)
        iam = Iam(daemons)
        await iam.document(arn_of(resource))  # who never answered has nothing that a finalizer would wait for
        await self._set_finalizer(resource, wanted=True)
        path = path_of("policies", *place(resource))
        arn = await iam.have_policy(path, f"policy-{resource['metadata']['uid']}", spec.document)
        state = PolicyState(arn=arn)
        say(resource, state, before, "Ready", "the policy can be used")
        return state, AT_REST_S

    async def _drop(self, resource: Object, before: PolicyState, cluster: Object, daemons: Daemons) -> None:
        """Once nobody has it: one that denies something would else be missed."""
        if named := users_of(self._cache, resource):
            raise UnmetError("PolicyInUse", f"it is used by {', '.join(named[:10])}")
        try:
            await Iam(daemons).drop_policy(arn_of(resource))
        except DaemonError as error:
            if error.code != "DeleteConflict":
                raise
            raise UnmetError("PolicyInUse", "somebody has it attached: IAM's ListEntitiesForPolicy says who") from error


def users_of(cache: Cache, policy: Object) -> list[str]:
    """The S4Users and S4Roles that ask for an S4Policy."""
    return [
        f"the {kind} {full_name(one)}"
        for kind in ("S4User", "S4Role")
        for one in cache.list(kind)
        if names(one, policy)
    ]

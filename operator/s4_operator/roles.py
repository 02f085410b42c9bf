"""Brings S4Roles from what is to what is asked for: roles of IAM for Kubernetes' ServiceAccounts, without any keys.

A pod's projected token buys its role's credentials (STS AssumeRoleWithWebIdentity). For that each cluster knows the
issuer of Kubernetes' tokens as a provider, with the issuer's keys, which the operator reads from the API server: daemons
need not reach the issuer. The audience is a cluster's own. Who is given a token could else use it at another cluster,
which somebody else may run.

The role `role-UID` is the S4Role's of that uid. In this order: what can be refused by what is written is; the name of
the ConfigMap; the finalizer; the provider; the role, which nobody may assume yet; what it may do, bounded as an S4User
(rights.py); whom it trusts; the ConfigMap. A refusal denies it everything, in one step and for sessions that run too,
and has it trust nobody. Deletion takes all of it, and the audience with the last S4Role of a cluster, whoever serves
its namespace.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from s4_operator.bounds import Bounds
from s4_operator.cache import Cache
from s4_operator.clusters import Clusters
from s4_operator.daemons import Daemons, parts
from s4_operator.iam import ROOT_PATH, Document, Iam, path_of, text_of
from s4_operator.kube import Kube, KubeError, Object
from s4_operator.models import seconds
from s4_operator.people import environment
from s4_operator.people_models import RoleSpec, RoleState
from s4_operator.resources import (
    AT_REST_S,
    UnmetError,
    cluster_for,
    cluster_of,
    is_going,
    owned,
    place,
    reference_of,
    say,
)
from s4_operator.rights import grant, resolved, statements
from s4_operator.rounds import Reconciler
from s4_operator.sweep import ROLE, drop_role

ENDING = "-s4-role"  # of the ConfigMap's name
TOKEN_FILE = "/var/run/secrets/s4.dev/token"  # noqa: S105 - where it is, not what
READ_AGAIN_S = 60.0
HTTPS = "https://"
NOBODY: list[str] = []


def audience_of(cluster: Object) -> str:
    metadata = cluster["metadata"]
    return f"{metadata['name']}.{metadata['namespace']}.s4.dev"


def trust(provider: str, url: str, audience: str, accounts: list[str]) -> Document:
    """Who may assume a role; without accounts nobody."""
    if not accounts:
        who: dict[str, Any] = {"Effect": "Deny", "Principal": "*"}
        return {"Version": "2012-10-17", "Statement": [{**who, "Action": "sts:AssumeRoleWithWebIdentity"}]}
    only = {"StringEquals": {f"{url}:sub": accounts, f"{url}:aud": audience}}
    who = {"Effect": "Allow", "Principal": {"Federated": provider}, "Action": "sts:AssumeRoleWithWebIdentity"}
    return {"Version": "2012-10-17", "Statement": [{**who, "Condition": only}]}


class Roles(Reconciler[RoleSpec, RoleState]):
    """Reconciles S4Roles."""

    kind, finalizer, models = "S4Role", "s4.dev/role", (RoleSpec, RoleState)

    def __init__(self, kube: Kube, cache: Cache, clusters: Clusters, bounds: Bounds) -> None:
        super().__init__(kube, cache, clusters)
        self._bounds = bounds
        self._issuer, self._read_at = ("", ""), -READ_AGAIN_S
        self._reading = asyncio.Lock()

    async def read_issuer(self) -> bool:
        """Read Kubernetes' issuer and its keys; whether they are others than before. Raises KubeError."""
        async with self._reading:
            before = self._issuer
            self._issuer = await self._kube.issuer()
            self._read_at = time.monotonic()
            return self._issuer != before

    async def _ensure(self, resource: Object, spec: RoleSpec, before: RoleState) -> tuple[RoleState, float]:
        cluster = cluster_for(self._cache, resource, spec.clusterRef)
        statements(spec.inline)
        metadata = resource["metadata"]
        called, role, audience = metadata["name"] + ENDING, ROLE + metadata["uid"], audience_of(cluster)
        await self._kube.ours(owned(resource, "ConfigMap", called))
        url, keys = await self._told_issuer()
        builder, daemons = await self._connect(cluster)
        iam = Iam(daemons)
        rights = await resolved(self._cache, iam, resource, spec)
        holder = iam.holder("Role", role)
        found = await holder.find()  # who never answered has nothing that a finalizer would wait for
        await self._set_finalizer(resource, wanted=True)
        provider = await daemons.put_provider(url, audience, keys)
        if found is None:
            path = path_of("roles", metadata["namespace"], metadata["name"])
            nobody = text_of(trust(provider, url, audience, NOBODY))
            found = await iam.call("CreateRole", RoleName=role, Path=path, AssumeRolePolicyDocument=nobody)
        await grant(self._bounds, holder, cluster, resource, rights)
        await iam.call("UpdateRole", RoleName=role, MaxSessionDuration=str(seconds(spec.maxSession)))
        subjects = sorted(
            {
                f"system:serviceaccount:{one.namespace or metadata['namespace']}:{one.name}"
                for one in spec.serviceAccounts
            }
        )
        trusted = text_of(trust(provider, url, audience, subjects))
        await iam.call("UpdateAssumeRolePolicy", RoleName=role, PolicyDocument=trusted)
        arn = next(parts(found, "Arn"), "")
        data = {"AWS_ROLE_ARN": arn, "AWS_WEB_IDENTITY_TOKEN_FILE": TOKEN_FILE, **environment(builder)}
        await self._kube.have(owned(resource, "ConfigMap", called, data=data))
        state = RoleState(
            roleName=role,
            arn=arn,
            endpoint=builder.endpoint,
            configMapName=called,
            audience=audience,
            issuer=HTTPS + url,
        )
        say(resource, state, before, "Ready", "tokens of its ServiceAccounts buy credentials")
        return state, AT_REST_S

    async def _told_issuer(self) -> tuple[str, str]:
        """(the issuer without https://, its keys). Raises UnmetError."""
        if time.monotonic() - self._read_at > READ_AGAIN_S:
            try:
                await self.read_issuer()
            except KubeError as error:
                raise UnmetError("NoIssuer", f"the API server does not tell whose its tokens are: {error}") from error
        issuer, keys = self._issuer
        if not issuer.startswith(HTTPS):
            raise UnmetError(
                "NoIssuer", f"the issuer of this Kubernetes' tokens is {issuer!r}, no https:// address as STS needs one"
            )
        return issuer.removeprefix(HTTPS), keys

    async def _take_back(self, resource: Object, before: RoleState) -> None:
        """What an S4Role was given. Raises DaemonError."""
        cluster = cluster_of(self._cache, resource)
        if cluster is None:
            return
        _, daemons = await self._connect(cluster)
        role = ROLE + resource["metadata"]["uid"]
        holder = Iam(daemons).holder("Role", role)
        if await holder.find() is None:
            return
        await holder.shut_out()
        nobody = text_of(trust("", "", "", NOBODY))
        await holder.iam.call("UpdateAssumeRolePolicy", RoleName=role, PolicyDocument=nobody)

    async def _drop(self, resource: Object, before: RoleState, cluster: Object, daemons: Daemons) -> None:
        iam = Iam(daemons)
        await drop_role(iam, ROLE + resource["metadata"]["uid"])
        if await iam.listed("ListRoles", "RoleName", PathPrefix=f"{ROOT_PATH}roles/"):
            return  # of namespaces that another operator may serve, too
        same = [role for role in self._cache.list("S4Role") if reference_of(role) == reference_of(resource)]
        if all(place(role) == place(resource) or is_going(role) for role in same):
            with suppress(UnmetError):  # then there never was one
                url, _ = await self._told_issuer()
                await daemons.drop_provider(url, audience_of(cluster))

"""S4User, S4Policy and S4Role as people write them (models.py has what these are made of)."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from s4_operator.bucket_models import ClusterRef, IssuedKey, ResourceState
from s4_operator.models import Duration, FreeForm, Model, Name, rule, rules

FIXED = rule("self.clusterRef == oldSelf.clusterRef", "clusterRef cannot be changed: make another resource")
Namespaces = Annotated[
    list[Annotated[str, Field(max_length=63, pattern=r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$")]], Field(max_length=1000)
]
Documents = Annotated[list[FreeForm], Field(max_length=20)]


class PolicyRef(Model):
    name: Name = Field(description="Of an S4Policy.")
    namespace: Name | None = Field(
        None, description="The resource's own where absent. Another's S4Policy allows it by allowedNamespaces."
    )


class PolicySpec(Model):
    model_config = ConfigDict(json_schema_extra=rules(FIXED))
    clusterRef: ClusterRef
    document: FreeForm = Field(description="A policy of IAM: Version 2012-10-17 and Statement.")
    allowedNamespaces: Namespaces = Field(
        default_factory=list, description="Whose S4Users and S4Roles may have it beside its own namespace's; * is all."
    )


class PolicyState(ResourceState):
    arn: str = Field("", description="What IAM's clients call it.")


class HolderSpec(Model):
    """What S4Users and S4Roles have in common."""

    clusterRef: ClusterRef
    inline: Documents = Field(
        default_factory=list,
        description="Policies of IAM, of this resource alone: 2 KiB together of an S4User, 10 KiB of an S4Role.",
    )
    policies: Annotated[list[PolicyRef], Field(max_length=9)] = Field(default_factory=list, description="S4Policies.")
    permissionsBoundary: PolicyRef | None = Field(
        None, description="An S4Policy that bounds what the others allow. Where absent, what IAM's clients set stays."
    )


class UserSpec(HolderSpec):
    model_config = ConfigDict(json_schema_extra=rules(FIXED))
    groups: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_+=,.@-]{1,100}$")]], Field(max_length=10)] = (
        Field(
            default_factory=list,
            description="Groups of IAM, which are there. For S4Users in the S4Cluster's own namespace.",
        )
    )
    keyGrace: Duration = Field("24h", description="How long an old key works after `s4.dev/rotate-key` was changed.")


class UserState(ResourceState):
    userName: str = ""
    arn: str = Field("", description="What policies call it.")
    endpoint: str = ""
    secretName: str = ""
    configMapName: str = ""
    keys: list[IssuedKey] = Field(default_factory=list)
    rotation: str = Field("", description="The value of `s4.dev/rotate-key` that the newest key was made for.")


class AccountRef(Model):
    name: Name = Field(description="Of a ServiceAccount.")
    namespace: Name | None = Field(None, description="The S4Role's own where absent.")


class RoleSpec(HolderSpec):
    model_config = ConfigDict(
        json_schema_extra=rules(
            FIXED,
            rule(
                "!has(self.maxSession) || (duration(self.maxSession) >= duration('1h') && duration(self.maxSession) <= duration('12h'))",
                "maxSession is from 1h to 12h",
            ),
        )
    )
    serviceAccounts: Annotated[list[AccountRef], Field(min_length=1, max_length=20)] = Field(
        description="Whose tokens buy the role's credentials."
    )
    maxSession: Duration = Field("1h", description="How long credentials last at most.")


class RoleState(ResourceState):
    roleName: str = ""
    arn: str = Field("", description="What AWS_ROLE_ARN is.")
    endpoint: str = ""
    configMapName: str = ""
    audience: str = Field("", description="Of the projected token.")
    issuer: str = Field("", description="Of Kubernetes' tokens, as the cluster knows it.")

"""What each S3 operation needs: the actions of IAM, and on what. Pure."""

from __future__ import annotations

from s4.s3.operations import OPERATIONS

# operation -> (action, what it is on); a read of a named version needs the action of versions
NEEDS = {one.name: (one.action or f"s3:{one.name}", one.on or one.at) for one in OPERATIONS}

_OF_VERSION = {
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:DeleteObject": "s3:DeleteObjectVersion",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
    "s3:DeleteObjectTagging": "s3:DeleteObjectVersionTagging",
    "s3:GetObjectAcl": "s3:GetObjectVersionAcl",
    "s3:PutObjectAcl": "s3:PutObjectVersionAcl",
    "s3:GetObjectAttributes": "s3:GetObjectVersionAttributes",
}

# Operations of IAM that are about one user, role, policy or provider, whose tags policies may go by.
ON: dict[str, tuple[str, ...]] = {
    "user": (
        "CreateUser",
        "GetUser",
        "UpdateUser",
        "DeleteUser",
        "CreateAccessKey",
        "ListAccessKeys",
        "UpdateAccessKey",
        "DeleteAccessKey",
        "ListGroupsForUser",
        "PutUserPolicy",
        "GetUserPolicy",
        "DeleteUserPolicy",
        "ListUserPolicies",
        "AttachUserPolicy",
        "DetachUserPolicy",
        "ListAttachedUserPolicies",
        "PutUserPermissionsBoundary",
        "DeleteUserPermissionsBoundary",
        "TagUser",
        "UntagUser",
        "ListUserTags",
    ),
    "role": (
        "CreateRole",
        "GetRole",
        "UpdateRole",
        "UpdateAssumeRolePolicy",
        "DeleteRole",
        "PutRolePolicy",
        "GetRolePolicy",
        "DeleteRolePolicy",
        "ListRolePolicies",
        "AttachRolePolicy",
        "DetachRolePolicy",
        "ListAttachedRolePolicies",
        "PutRolePermissionsBoundary",
        "DeleteRolePermissionsBoundary",
        "TagRole",
        "UntagRole",
        "ListRoleTags",
    ),
    "policy": (
        "GetPolicy",
        "DeletePolicy",
        "CreatePolicyVersion",
        "GetPolicyVersion",
        "ListPolicyVersions",
        "DeletePolicyVersion",
        "SetDefaultPolicyVersion",
        "ListEntitiesForPolicy",
    ),
    "provider": (
        "GetOpenIDConnectProvider",
        "DeleteOpenIDConnectProvider",
        "AddClientIDToOpenIDConnectProvider",
        "RemoveClientIDFromOpenIDConnectProvider",
        "UpdateOpenIDConnectProviderThumbprint",
    ),
}

# Operations that change something: they are audited.
WRITES = frozenset(name for name in NEEDS if not name.startswith(("Get", "Head", "List")))


def of_version(action: str, version: str) -> str:
    """The action on a named version, where S3 has one of its own."""
    return _OF_VERSION.get(action, action) if version else action


def bucket_arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def object_arn(bucket: str, key: bytes) -> str:
    return f"arn:aws:s3:::{bucket}/{key.decode('utf-8', 'replace')}"

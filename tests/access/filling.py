"""Requests that fill condition keys: each action's, and the value by which a policy can tell that it arrived.

`VALUES` says what each key is denied by. `REQUESTS` (of S3), `HEADERS` and `parameters` (of IAM and STS) are what
gives it that value: a key that S4 learns needs a row here, or test_denies.py says that nothing fills it."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field
from typing import Any

from access.accounts import ACCOUNT, allow, trust
from process import REGION
from raw import call
from s4.access import keys as table
from s4.access.actions import ON

POLICY, BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/denied", f"arn:aws:iam::{ACCOUNT}:policy/bounding"
GRANTEE = f'id="{"a" * 64}"'
# Keys of sessions, of TLS and of presigned requests have tests of their own.
ELSEWHERE = (
    "aws:tokenissuetime",
    "aws:multifactorauthpresent",
    "aws:federatedprovider",
    "s3:tlsversion",
    "s3:signatureage",
)


@dataclass
class World:
    """One server, a bucket of everything, and a user whose policy the tests change."""

    endpoint: str
    root: Any
    iam: Any
    own: dict[str, str]
    bucket: str
    versions: dict[str, str] = field(default_factory=dict)

    def placed(self, text: str) -> str:
        return text.replace("{bucket}", self.bucket).replace("{version}", self.versions["k"])

    def may(self, *statements: dict[str, Any]) -> None:
        every = allow("*")["Statement"][0]
        document = {"Version": "2012-10-17", "Statement": [every, *statements]}
        self.iam.put_user_policy(UserName="denied", PolicyName="what", PolicyDocument=json.dumps(document))

    def deny(self, action: str, condition: dict[str, Any]) -> None:
        self.may({"Effect": "Deny", "Action": action, "Resource": "*", "Condition": condition})


# `{bucket}` and `{version}` below are filled in by `World.placed`.

# What each key is denied by, of the values that the requests below give.
VALUES: dict[str, dict[str, Any]] = {
    "aws:currenttime": {"DateGreaterThan": "2020-01-01T00:00:00Z"},
    "aws:epochtime": {"DateGreaterThan": "1600000000"},
    "aws:securetransport": {"Bool": "false"},
    "aws:sourceip": {"IpAddress": "127.0.0.0/8"},
    "aws:useragent": {"StringEquals": "denies/1"},
    "aws:referer": {"StringEquals": "http://from.example/"},
    "aws:requestedregion": {"StringEquals": REGION},
    "aws:resourceaccount": {"StringEquals": ACCOUNT},
    "aws:viaawsservice": {"Bool": "false"},
    "aws:principalisawsservice": {"Bool": "false"},
    "aws:principalarn": {"ArnEquals": f"arn:aws:iam::{ACCOUNT}:user/denied"},
    "aws:principalaccount": {"StringEquals": ACCOUNT},
    "aws:principaltype": {"StringEquals": "User"},
    "aws:principaltag/": {"StringEquals": "blue"},
    "aws:userid": {"StringLike": "AIDA*"},
    "aws:username": {"StringEquals": "denied"},
    "s3:resourceaccount": {"StringEquals": ACCOUNT},
    "s3:authtype": {"StringEquals": "REST-HEADER"},
    "s3:signatureversion": {"StringEquals": "AWS4-HMAC-SHA256"},
    "s3:x-amz-content-sha256": {"StringEquals": "UNSIGNED-PAYLOAD"},
    "s3:prefix": {"StringEquals": ""},
    "s3:delimiter": {"StringEquals": "/"},
    "s3:max-keys": {"NumericEquals": "7"},
    "s3:x-amz-acl": {"StringEquals": "private"},
    **{
        f"s3:x-amz-grant-{what}": {"StringEquals": GRANTEE}
        for what in ("full-control", "read", "read-acp", "write", "write-acp")
    },
    "s3:x-amz-metadata-directive": {"StringEquals": "REPLACE"},
    "s3:x-amz-server-side-encryption": {"StringEquals": "AES256"},
    "s3:x-amz-server-side-encryption-customer-algorithm": {"StringEquals": "AES256"},
    "s3:x-amz-website-redirect-location": {"StringEquals": "/there"},
    "s3:x-amz-server-side-encryption-aws-kms-key-id": {"StringEquals": "first"},
    "s3:x-amz-copy-source": {"StringLike": "/{bucket}/k"},
    "s3:x-amz-storage-class": {"StringEquals": "STANDARD"},
    "s3:x-amz-object-ownership": {"StringEquals": "ObjectWriter"},
    "s3:if-match": {"StringEquals": '"abc"'},
    "s3:if-none-match": {"StringEquals": "*"},
    "s3:objectcreationoperation": {"Bool": "true"},
    "s3:locationconstraint": {"StringEquals": REGION},
    "s3:versionid": {"StringEquals": "{version}"},
    "s3:existingobjecttag/": {"StringEquals": "blue"},
    "s3:requestobjecttag/": {"StringEquals": "red"},
    "s3:requestobjecttagkeys": {"ForAnyValue:StringEquals": "team"},
    "s3:object-lock-mode": {"StringEquals": "GOVERNANCE"},
    "s3:object-lock-retain-until-date": {"DateGreaterThan": "2030-01-01T00:00:00Z"},
    "s3:object-lock-remaining-retention-days": {"NumericGreaterThan": "100"},
    "s3:object-lock-legal-hold": {"StringEquals": "ON"},
    "aws:requesttag/": {"StringEquals": "red"},
    "aws:tagkeys": {"ForAnyValue:StringEquals": "team"},
    "aws:resourcetag/": {"StringEquals": "blue"},
    "iam:resourcetag/": {"StringEquals": "blue"},
    "iam:policyarn": {"ArnEquals": POLICY},
    "iam:permissionsboundary": {"StringEquals": BOUNDARY},
    "sts:externalid": {"StringEquals": "outside"},
    "sts:rolesessionname": {"StringEquals": "session"},
}
UNTIL = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3650)).strftime("%Y-%m-%dT%H:%M:%SZ")
LOCK = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": UNTIL}
# The headers that fill a key; `x-amz-acl` and the like are named as the key is.
HEADERS: dict[str, dict[str, str]] = {
    "s3:x-amz-copy-source": {"x-amz-copy-source": "%2F{bucket}/%6b?versionId={version}"},
    "s3:x-amz-metadata-directive": {"x-amz-copy-source": "{bucket}/k", "x-amz-metadata-directive": "REPLACE"},
    "s3:x-amz-server-side-encryption-aws-kms-key-id": {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "first",
    },
    "s3:requestobjecttag/": {"x-amz-tagging": "team=red"},
    "s3:requestobjecttagkeys": {"x-amz-tagging": "team=red"},
    "s3:object-lock-legal-hold": {"x-amz-object-lock-legal-hold": "ON"},
    **dict.fromkeys(
        ("s3:object-lock-mode", "s3:object-lock-retain-until-date", "s3:object-lock-remaining-retention-days"), LOCK
    ),
}
TAGS = b"<Tagging><TagSet><Tag><Key>team</Key><Value>red</Value></Tag></TagSet></Tagging>"
NEW_BUCKET = (
    f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint>"
    "<Tags><Tag><Key>team</Key><Value>red</Value></Tag></Tags></CreateBucketConfiguration>"
).encode()
# action -> (method, key, query, body). What a request does is done at the end only: first it is refused for each key.
REQUESTS: dict[str, tuple[str, str, str, bytes]] = {
    "s3:GetObject": ("GET", "/k", "", b""),
    "s3:GetObjectVersion": ("GET", "/k", "versionId={version}", b""),
    "s3:GetObjectAcl": ("GET", "/k", "acl", b""),
    "s3:GetObjectVersionAcl": ("GET", "/k", "acl&versionId={version}", b""),
    "s3:GetObjectTagging": ("GET", "/k", "tagging", b""),
    "s3:GetObjectVersionTagging": ("GET", "/k", "tagging&versionId={version}", b""),
    "s3:GetObjectAttributes": ("GET", "/k", "attributes", b""),
    "s3:GetObjectVersionAttributes": ("GET", "/k", "attributes&versionId={version}", b""),
    "s3:ListBucket": ("GET", "", "list-type=2&prefix=&delimiter=%2F&max-keys=7", b""),
    "s3:ListBucketVersions": ("GET", "", "versions&prefix=&delimiter=%2F&max-keys=7", b""),
    "s3:PutObject": ("PUT", "/new", "", b"x"),
    "s3:PutObjectAcl": ("PUT", "/k", "acl", b""),
    "s3:PutObjectVersionAcl": ("PUT", "/k", "acl&versionId={version}", b""),
    "s3:PutBucketAcl": ("PUT", "", "acl", b""),
    "s3:CreateBucket": ("PUT", "-made", "", NEW_BUCKET),
    "s3:PutObjectTagging": ("PUT", "/k", "tagging", TAGS),
    "s3:PutObjectVersionTagging": ("PUT", "/k", "tagging&versionId={version}", TAGS),
    "s3:PutObjectRetention": (
        "PUT",
        "/gone",
        "retention",
        f"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{UNTIL}</RetainUntilDate></Retention>".encode(),
    ),
    "s3:PutObjectLegalHold": ("PUT", "/gone", "legal-hold", b"<LegalHold><Status>ON</Status></LegalHold>"),
    "s3:DeleteObjectTagging": ("DELETE", "/k", "tagging", b""),
    "s3:DeleteObjectVersionTagging": ("DELETE", "/k", "tagging&versionId={version}", b""),
    "s3:DeleteObject": ("DELETE", "/other", "", b""),
    "s3:DeleteObjectVersion": ("DELETE", "/k", "versionId={version}", b""),
}
EVERYWHERE = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:ListBucket",
    "iam:ListUsers",
    "sts:AssumeRole",
)  # where keys of all actions are tried


def keys_of(action: str) -> list[str]:
    found = [name for name, row in table.KEYS.items() if row.applies(action.lower()) and name not in ELSEWHERE]
    return [name for name in found if action in EVERYWHERE or not {"*", "s3:*"} & set(table.KEYS[name].actions)]


def condition(world: World, key: str) -> dict[str, Any]:
    ((operator, value),) = VALUES[key].items()
    return {operator: {f"{key}team" if key.endswith("/") else key: world.placed(value)}}


def headers_of(key: str) -> dict[str, str]:
    """The headers that fill a key, if any do."""
    named = key.removeprefix("s3:")
    itself = named.startswith(("x-amz-", "if-")) and named != "x-amz-content-sha256"
    return HEADERS.get(key, {named: next(iter(VALUES[key].values()))} if itself else {})


def send(world: World, action: str, key: str) -> Any:
    method, path, query, body = REQUESTS[action]
    headers = headers_of(key)
    if "PutObject" in action and action != "s3:PutObject" and not action.endswith("Acl"):
        headers = {}  # the body says it
    if (
        action.endswith("Acl")
        and "Put" in action
        and not any(name.startswith(("x-amz-acl", "x-amz-grant")) for name in headers)
    ):
        headers = {**headers, "x-amz-acl": "private"}
    if action.endswith("Attributes"):
        headers = {"x-amz-object-attributes": "ETag"}
    headers = {name: world.placed(value) for name, value in headers.items()}
    return call(
        world.endpoint,
        method,
        f"/{world.bucket}{path}",
        query=world.placed(query),
        headers={**headers, "User-Agent": "denies/1", "Referer": "http://from.example/"},
        body=body,
        access=world.own["AccessKeyId"],
        secret=world.own["SecretAccessKey"],
        payload="UNSIGNED-PAYLOAD" if key == "s3:x-amz-content-sha256" else None,
    )


# In a form some things are said by fields of another name, and some not at all.
NO_FIELD = ("s3:x-amz-copy-source", "s3:x-amz-metadata-directive", "s3:requestobjecttag/", "s3:requestobjecttagkeys")
FIELDS = {"x-amz-acl": "acl"}


def said_by_headers(world: World, key: str) -> dict[str, str]:
    """The x-amz- headers by which a PutObject fills a key; empty where it is filled by something else."""
    return {name: world.placed(value) for name, value in headers_of(key).items() if name.startswith("x-amz-")}


LAST = ("DeletePolicy", "DeleteOpenIDConnectProvider", "DeleteUser", "DeleteRole")


def parameters(action: str) -> dict[str, str]:
    """Parameters of a call that is refused, or that changes nothing that the others need."""
    kind = next((one for one in ("User", "Role", "Group") if one in action), "User")
    found = {
        f"{kind}Name": "named",
        "PolicyArn": POLICY,
        "PolicyName": "made-by-denies",
        "PolicyDocument": json.dumps(allow("s3:*")),
        "AccessKeyId": "AKIANONE",
        "Status": "Active",
        "VersionId": "v1",
        "OpenIDConnectProviderArn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/issuer.example",
        "ClientID": "s4",
        "Url": "https://issuer.example",
        "ThumbprintList.member.1": "a" * 40,
        "ClientIDList.member.1": "s4",
    }
    if action.startswith(("Create", "Tag")):
        found |= {"Tags.member.1.Key": "team", "Tags.member.1.Value": "red"}
    if action.startswith("Untag"):
        found["TagKeys.member.1"] = "team"
    if action in ("CreateUser", "CreateRole") or action.endswith("PermissionsBoundary"):
        found["PermissionsBoundary"] = BOUNDARY
    if action in ("CreateRole", "UpdateAssumeRolePolicy"):
        trusting = json.dumps(trust("*", "sts:TagSession"))
        found |= {"AssumeRolePolicyDocument": trusting, "PolicyDocument": trusting}
    if action in ("AssumeRole", "TagSession"):
        found = {
            "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/named",
            "RoleSessionName": "session",
            "ExternalId": "outside",
            "Tags.member.1.Key": "team",
            "Tags.member.1.Value": "red",
        }
    return found


CALLS = [
    *(("iam", name) for kind in ON for name in ON[kind] if name not in LAST),
    *(
        ("iam", name)
        for name in (
            "CreatePolicy",
            "CreateOpenIDConnectProvider",
            "AttachGroupPolicy",
            "DetachGroupPolicy",
            "ListUsers",
            "TagPolicy",
            "TagOpenIDConnectProvider",
        )
    ),
    ("sts", "AssumeRole"),
    ("sts", "TagSession"),
    *(("iam", name) for name in LAST),
]

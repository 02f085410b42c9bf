"""Every condition key of every action, filled by a real request and denied by: a key that does not arrive denies
nothing.

Which keys an action has is said by the program's own table, and that table is AWS's (test_condition_keys.py). Here
each of them gets a value by a request over the port, and a Deny by that value must refuse the request, which is let
through without it."""

from __future__ import annotations

import datetime
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from access import where
from access.test_forms import post, presigned
from access.test_iam import allow, client, code
from process import REGION, make_client
from raw import call
from s4.access import keys as table
from s4.access.actions import ON

ACCOUNT = "000000000000"
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

    def may(self, *statements: dict[str, Any]) -> None:
        every = allow("*")["Statement"][0]
        document = {"Version": "2012-10-17", "Statement": [every, *statements]}
        self.iam.put_user_policy(UserName="denied", PolicyName="what", PolicyDocument=json.dumps(document))

    def deny(self, action: str, condition: dict[str, Any]) -> None:
        self.may({"Effect": "Deny", "Action": action, "Resource": "*", "Condition": condition})


@pytest.fixture(scope="module")
def world(open_server: Any) -> Iterator[World]:
    root, iam = make_client(open_server.endpoint), client(open_server, "iam")
    bucket = where.new_name()
    root.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True, ObjectOwnership="ObjectWriter")
    versions = {
        key: root.put_object(Bucket=bucket, Key=key, Body=b"x", Tagging="team=blue")["VersionId"]
        for key in ("k", "gone")
    }
    for name in ("denied", "bounding"):
        iam.create_policy(
            PolicyName=name, PolicyDocument=json.dumps(allow("*")), Tags=[{"Key": "team", "Value": "blue"}]
        )
    for name in ("denied", "named"):
        iam.create_user(
            UserName=name,
            Tags=[{"Key": "team", "Value": "blue"}],
            **({"PermissionsBoundary": BOUNDARY} if name == "named" else {}),
        )
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}],
    }
    iam.create_role(
        RoleName="named",
        AssumeRolePolicyDocument=json.dumps(trust),
        Tags=[{"Key": "team", "Value": "blue"}],
        PermissionsBoundary=BOUNDARY,
    )
    iam.create_group(GroupName="named")
    iam.create_open_id_connect_provider(
        Url="https://issuer.example", ClientIDList=["s4"], Tags=[{"Key": "team", "Value": "blue"}]
    )
    yield World(
        open_server.endpoint, root, iam, dict(iam.create_access_key(UserName="denied")["AccessKey"]), bucket, versions
    )
    root.close()


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
NEW_BUCKET = f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint><Tags><Tag><Key>team</Key><Value>red</Value></Tag></Tags></CreateBucketConfiguration>".encode()

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
    text = {"{bucket}": world.bucket, "{version}": world.versions["k"]}
    ((operator, value),) = VALUES[key].items()
    for name, put in text.items():
        value = value.replace(name, put)
    return {operator: {f"{key}team" if key.endswith("/") else key: value}}


def send(world: World, action: str, key: str) -> Any:
    method, path, query, body = REQUESTS[action]
    row = next(iter(VALUES[key].values()))
    named = key.removeprefix("s3:")
    headers = HEADERS.get(
        key, {named: row} if named.startswith(("x-amz-", "if-")) and named != "x-amz-content-sha256" else {}
    )
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
    told = {"{bucket}": world.bucket, "{version}": world.versions["k"]}
    for name, put in told.items():
        headers, query = {one: value.replace(name, put) for one, value in headers.items()}, query.replace(name, put)
    headers = {**headers, "User-Agent": "denies/1", "Referer": "http://from.example/"}
    return call(
        world.endpoint,
        method,
        f"/{world.bucket}{path}",
        query=query,
        headers=headers,
        body=body,
        access=world.own["AccessKeyId"],
        secret=world.own["SecretAccessKey"],
        payload="UNSIGNED-PAYLOAD" if key == "s3:x-amz-content-sha256" else None,
    )


def test_a_deny_by_any_key_of_s3_bites(world: World) -> None:
    pairs = [(action, key) for action in REQUESTS for key in keys_of(action)]
    assert {key for _, key in pairs} == {
        name for name, row in table.KEYS.items() if any(one.startswith(("s3", "*")) for one in row.actions)
    } - set(ELSEWHERE) - {"aws:resourcetag/"}
    past = []
    for action, key in pairs:
        world.deny(action, condition(world, key))
        answer = send(world, action, key)
        if (answer.status, answer.code) != (403, "AccessDenied"):
            past.append((action, key, answer.status, answer.code))
    world.may()
    shut = [(action, key) for action, key in pairs if send(world, action, key).code == "AccessDenied"]
    assert (past, shut) == ([], [])


# In a form some things are said by fields of another name, and some not at all.
NO_FIELD = ("s3:x-amz-copy-source", "s3:x-amz-metadata-directive", "s3:requestobjecttag/", "s3:requestobjecttagkeys")
FIELDS = {"x-amz-acl": "acl"}


def said_by_headers(world: World, key: str) -> dict[str, str]:
    """The x-amz- headers by which a PutObject fills a key; empty where it is filled by something else."""
    named, told = key.removeprefix("s3:"), {"{bucket}": world.bucket, "{version}": world.versions["k"]}
    headers = HEADERS.get(
        key,
        {named: next(iter(VALUES[key].values()))}
        if named.startswith("x-amz-") and named != "x-amz-content-sha256"
        else {},
    )
    for name, put in told.items():
        headers = {one: value.replace(name, put) for one, value in headers.items()}
    return headers


def test_a_deny_bites_however_the_request_says_it(world: World) -> None:
    """By a presigned address, and by a form, as by headers."""
    v4, access, secret = client_of(world), world.own["AccessKeyId"], world.own["SecretAccessKey"]

    def address(headers: dict[str, str]) -> str:
        said = call(
            world.endpoint,
            "PUT",
            f"/{world.bucket}/new",
            query=urlencode(headers, quote_via=quote),
            body=b"x",
            presign_s=60,
            access=access,
            secret=secret,
        )
        return "AccessDenied" if (said.status, said.code) == (403, "AccessDenied") else ""

    def form(headers: dict[str, str]) -> str:
        fields = {FIELDS.get(name, name): value for name, value in headers.items()}
        said = post(
            world.endpoint,
            world.bucket,
            presigned(v4, world.bucket, "new", b"x", fields, [{name: value} for name, value in fields.items()]),
        )
        return "AccessDenied" if (said.status, said.code) == (403, "AccessDenied") else ""

    tried = [(key, headers) for key in keys_of("s3:PutObject") if (headers := said_by_headers(world, key))]
    assert len(tried) > 15
    past, shut = [], []
    for key, headers in tried:
        world.deny("s3:PutObject", condition(world, key))
        past += [
            (key, way.__name__)
            for way in (address, form)
            if not (way is form and key in NO_FIELD) and way(headers) != "AccessDenied"
        ]
    world.may()
    for key, headers in tried:
        shut += [
            (key, way.__name__)
            for way in (address, form)
            if not (way is form and key in NO_FIELD) and way(headers) == "AccessDenied"
        ]
    assert (past, shut) == ([], [])


def client_of(world: World) -> Any:
    return make_client(world.endpoint, world.own["AccessKeyId"], world.own["SecretAccessKey"], signature_version="s3v4")


# -- IAM and STS


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
        trust = json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}
                ],
            }
        )
        found |= {"AssumeRolePolicyDocument": trust, "PolicyDocument": trust}
    if action in ("AssumeRole", "TagSession"):
        found = {
            "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/named",
            "RoleSessionName": "session",
            "ExternalId": "outside",
            "Tags.member.1.Key": "team",
            "Tags.member.1.Value": "red",
        }
    return found


def ask(world: World, service: str, action: str) -> str:
    form = {"Action": "AssumeRole" if action == "TagSession" else action, "Version": "2010-05-08", **parameters(action)}
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": "denies/1",
        "Referer": "http://from.example/",
    }
    request = AWSRequest("POST", f"{world.endpoint}/", headers=headers, data=urlencode(form))
    SigV4Auth(Credentials(world.own["AccessKeyId"], world.own["SecretAccessKey"]), service, REGION).add_auth(request)
    return (
        "AccessDenied"
        if b"<Code>AccessDenied</Code>" in sent(request.url, dict(request.headers.items()), request.body)[1]
        else ""
    )


def sent(url: str, headers: dict[str, str] | None = None, body: bytes | str | None = None) -> tuple[int, bytes]:
    raw = body.encode() if isinstance(body, str) else body
    try:
        with urllib.request.urlopen(urllib.request.Request(url, raw, headers or {}), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


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


def test_no_key_that_s4_knows_is_left_out_here() -> None:
    tried = {key for action in REQUESTS for key in keys_of(action)}
    tried |= {key for service, name in CALLS for key in keys_of(f"{service}:{name}")}
    assert set(table.KEYS) - tried == set(ELSEWHERE), "a key that no request here fills"
    assert tried <= set(VALUES)


def test_a_deny_by_any_key_of_accounts_bites(world: World) -> None:
    past = []
    for service, name in CALLS:
        action = f"{service}:{name}"
        asked = {"TagPolicy": "CreatePolicy", "TagOpenIDConnectProvider": "CreateOpenIDConnectProvider"}.get(name, name)
        for key in keys_of(action):
            if asked != name and key.endswith(":resourcetag/"):
                continue  # what is made has no tags yet
            world.deny(action, condition(world, key))
            if ask(world, service, asked) != "AccessDenied":
                past.append((action, key))
    world.may()
    shut = [
        name for service, name in CALLS if not name.startswith("Tag") and ask(world, service, name) == "AccessDenied"
    ]
    assert (past, shut) == ([], [])


# -- what sessions, presigned requests and TLS have


def test_keys_of_sessions_and_of_presigned_requests(world: World, open_server: Any) -> None:
    world.may()
    session = client(open_server, "sts", world.own).get_session_token()["Credentials"]
    own, url = (
        client(open_server, "s3", session),
        client(open_server, "s3", world.own, signature_version="s3v4").generate_presigned_url(
            "get_object", Params={"Bucket": world.bucket, "Key": "gone"}
        ),
    )
    get = {"Bucket": world.bucket, "Key": "gone"}
    assert not code(own.get_object, **get)
    for tried in (
        {"DateLessThan": {"aws:TokenIssueTime": "2099-01-01T00:00:00Z"}},
        {"Bool": {"aws:MultiFactorAuthPresent": "false"}},
    ):
        world.deny("s3:GetObject", tried)
        assert code(own.get_object, **get) == "AccessDenied", tried
    world.may()
    assert sent(url)[0] == 200
    for tried in (
        {"NumericGreaterThan": {"s3:signatureAge": "0"}},
        {"StringEquals": {"s3:authType": "REST-QUERY-STRING"}},
        {"StringEquals": {"s3:x-amz-content-sha256": "UNSIGNED-PAYLOAD"}},
    ):
        world.deny("s3:GetObject", tried)
        assert sent(url)[0] == 403, tried
    by_default = client(open_server, "s3", world.own).generate_presigned_url("get_object", Params=get)
    assert "AWSAccessKeyId=" in by_default
    world.may()
    assert sent(by_default)[0] == 200
    for tried in (
        {"NumericGreaterThan": {"s3:signatureAge": "600000"}},
        {"StringEquals": {"s3:authType": "REST-QUERY-STRING"}},
        {"StringEquals": {"s3:signatureversion": "AWS"}},
        {"StringNotEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}},
    ):
        world.deny("s3:GetObject", tried)
        assert sent(by_default)[0] == 403, tried


def test_keys_of_tls_and_of_providers() -> None:
    facts = table.Facts(
        {},
        {},
        "GetObject",
        0.0,
        tls="1.3",
        about={"aws:federatedprovider": ("arn:aws:iam::000000000000:oidc-provider/issuer.example",)},
    )
    found = table.context_of(facts)
    assert (found["s3:tlsversion"], found["aws:securetransport"]) == (("1.3",), ("true",))
    assert found["aws:federatedprovider"] == facts.about["aws:federatedprovider"]  # type: ignore[index]

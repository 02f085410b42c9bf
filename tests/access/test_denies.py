"""Every condition key of every action, filled by a real request and denied by: a key that does not arrive denies
nothing.

Which keys an action has is said by the program's own table, and that table is AWS's (test_condition_keys.py). Here
each of them gets a value by a request over the port (filling.py), and a Deny by that value must refuse the request,
which is let through without it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from access import where
from access.accounts import allow, client, code, trust
from access.filling import (
    BOUNDARY,
    CALLS,
    ELSEWHERE,
    FIELDS,
    NO_FIELD,
    REQUESTS,
    VALUES,
    World,
    condition,
    keys_of,
    parameters,
    said_by_headers,
    send,
)
from access.test_forms import post, presigned
from process import REGION, make_client
from raw import call
from s4.access import keys as table


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
    iam.create_role(
        RoleName="named",
        AssumeRolePolicyDocument=json.dumps(trust("*", "sts:TagSession")),
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

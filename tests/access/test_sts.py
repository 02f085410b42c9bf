"""STS by boto3's own client: sessions of roles and of users, and what a token of somebody else's issuer buys."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import msgspec
import pytest
from botocore import UNSIGNED
from cryptography.hazmat.primitives.asymmetric import ec

from access import accounts, where
from access.accounts import ACCOUNT, TRUST_ALL, allow, client, code, trust
from https import JsonServer
from process import ServerProcess
from s4.crypto.keyring import Keyring
from s4.http.credentials import LONGEST_S, Session, find
from s4.s3 import sigv4
from s4.s3.errors import S3Error

server, s3, bucket = where.server, where.s3, where.bucket
iam, name, keys = accounts.iam, accounts.name, accounts.keys


def test_roles_and_sessions(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    sts = client(server, "sts", keys)
    assert sts.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/{name}"
    role = iam.create_role(RoleName=f"r-{name}", AssumeRolePolicyDocument=json.dumps(TRUST_ALL), Path="/p/")["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/p/r-{name}"
    assert iam.get_role(RoleName=role["RoleName"])["Role"]["AssumeRolePolicyDocument"] == TRUST_ALL
    iam.put_role_policy(RoleName=role["RoleName"], PolicyName="all", PolicyDocument=json.dumps(allow("s3:*")))
    assume = {"RoleArn": role["Arn"], "RoleSessionName": "night"}
    # Trusted as part of the account: a policy of the user's own must allow it too.
    assert code(sts.assume_role, **assume) == "AccessDenied"
    iam.put_user_policy(
        UserName=name, PolicyName="assume", PolicyDocument=json.dumps(allow("sts:AssumeRole", resource=role["Arn"]))
    )
    made = sts.assume_role(**assume)
    assert made["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r-{name}/night"
    session = made["Credentials"]
    own = client(server, "s3", session)
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"y")
    assert client(server, "sts", session).get_caller_identity()["Arn"] == made["AssumedRoleUser"]["Arn"]
    assert code(client(server, "sts", session).get_session_token) == "AccessDenied"
    bound = bounded_by_a_session_policy(server, sts, assume, bucket)
    a_token_belongs_to_its_keys(server, session, bound)
    # What the role loses its sessions lose, and a bucket's policy may name their role.
    iam.delete_role_policy(RoleName=role["RoleName"], PolicyName="all")
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    lent = allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*", Principal={"AWS": role["Arn"]})
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(lent))
    assert not code(own.get_object, Bucket=bucket, Key="k")
    trusted_are_only_those_named(iam, sts, role, assume)
    iam.update_role(RoleName=role["RoleName"], MaxSessionDuration=7200)
    iam.delete_role(RoleName=role["RoleName"])
    assert code(own.get_object, Bucket=bucket, Key="k") == "InvalidAccessKeyId"
    # Another role of that name has nothing to do with the sessions of the one that is gone.
    iam.create_role(RoleName=role["RoleName"], AssumeRolePolicyDocument=json.dumps(TRUST_ALL), Path="/p/")
    assert code(own.get_object, Bucket=bucket, Key="k") == "InvalidAccessKeyId"
    # Tags of a session, by which policies may go, need a right of their own.
    assert code(sts.assume_role, **assume, Tags=[{"Key": "team", "Value": "admins"}]) == "AccessDenied"
    assert not code(sts.assume_role, **assume)
    iam.delete_role(RoleName=role["RoleName"])


def bounded_by_a_session_policy(server: ServerProcess, sts: Any, assume: dict[str, str], bucket: str) -> Any:
    """Nothing can be added by it to what the role has. Returns the credentials of such a session."""
    bound = sts.assume_role(**assume, Policy=json.dumps(allow("s3:GetObject", "iam:*")))["Credentials"]
    assert not code(client(server, "s3", bound).get_object, Bucket=bucket, Key="k")
    assert code(client(server, "s3", bound).put_object, Bucket=bucket, Key="k", Body=b"z") == "AccessDenied"
    assert code(client(server, "iam", bound).list_users) == "AccessDenied"
    managed = [{"arn": "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"}]
    by_arn = sts.assume_role(**assume, PolicyArns=managed)["Credentials"]
    assert code(client(server, "s3", by_arn).put_object, Bucket=bucket, Key="k", Body=b"z") == "AccessDenied"
    return bound


def a_token_belongs_to_its_keys(server: ServerProcess, session: Any, other: Any) -> None:
    for token in (other["SessionToken"], "x"):
        assert code(client(server, "s3", {**session, "SessionToken": token}).list_buckets) == "InvalidToken"
    without = {name: value for name, value in session.items() if name != "SessionToken"}
    assert code(client(server, "s3", without).list_buckets) == "InvalidAccessKeyId"


def trusted_are_only_those_named(iam: Any, sts: Any, role: Any, assume: dict[str, str]) -> None:
    code(iam.create_user, UserName="somebody")
    only = trust(f"arn:aws:iam::{ACCOUNT}:user/somebody")
    iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=json.dumps(only))
    assert code(sts.assume_role, **assume) == "AccessDenied"
    assert code(sts.assume_role, RoleArn=role["Arn"] + "x", RoleSessionName="night") == "AccessDenied"
    assert code(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="not a name") == "ValidationError"


def test_session_tokens_of_a_user(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(allow("s3:*")))
    session = client(server, "sts", keys).get_session_token(DurationSeconds=900)["Credentials"]
    own = client(server, "s3", session)
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"y")
    url, old = (
        client(server, "s3", session, **signer).generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": "k"}
        )
        for signer in ({"signature_version": "s3v4"}, {})
    )
    assert "AWSAccessKeyId=" in old
    assert urllib.request.urlopen(url).read() == urllib.request.urlopen(old).read() == b"y"
    iam.delete_user_policy(UserName=name, PolicyName="all")
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert code(client(server, "sts", keys).get_session_token, DurationSeconds=130_000) == "ValidationError"


def test_no_token_is_good_for_longer_than_a_session_may_last() -> None:
    """Whatever end was sealed into it."""
    ring = Keyring(bytes(32))
    session = Session("user/ana", "AIDA", "ana", "secret", 1000, 10**12)
    token = ring.seal(msgspec.json.encode(session).decode(), "ASIA")
    claim = sigv4.Claim("ASIA", "", "us-east-1", "", (), "", "", presigned=False, token=token)
    gateway: Any = SimpleNamespace(keyring=ring, clock=lambda: 1000 + LONGEST_S)
    with pytest.raises(S3Error) as caught:
        asyncio.run(find(gateway, claim))
    assert caught.value.code == "ExpiredToken"


def test_a_session_of_root_lasts_an_hour_at_most(server: ServerProcess) -> None:
    """As on AWS. Nothing ends it before: not a change of the root keys either."""
    sts = client(server, "sts")
    for given in ({}, {"DurationSeconds": 129_600}, {"DurationSeconds": 900}):
        wanted = min(given.get("DurationSeconds", 3600), 3600)
        left = sts.get_session_token(**given)["Credentials"]["Expiration"].timestamp() - time.time()
        assert wanted - 60 < left <= wanted
    assert code(sts.get_session_token, DurationSeconds=130_000) == "ValidationError"


def test_sessions_have_no_second_factor(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    both = [
        allow("s3:GetObject", "sts:GetSessionToken")["Statement"][0],
        allow("s3:GetObject", effect="Deny", Condition={"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}})[
            "Statement"
        ][0],
    ]
    iam.put_user_policy(
        UserName=name, PolicyName="factor", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": both[:1]})
    )
    session = client(server, "s3", client(server, "sts", keys).get_session_token()["Credentials"])
    assert not code(session.get_object, Bucket=bucket, Key="k")
    both[1]["Condition"] = {"Bool": {"aws:MultiFactorAuthPresent": "false"}}
    iam.put_user_policy(
        UserName=name, PolicyName="factor", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": both})
    )
    assert code(session.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert not code(client(server, "s3", keys).get_object, Bucket=bucket, Key="k"), (
        "long-lived keys have no such key at all, as on AWS"
    )


# -- web identities


class Issuer:
    """An OpenID Connect provider over HTTPS, with a key that can change."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name, self.fetched = "first", 0
        self.server = JsonServer(folder, self.answer)
        self.url = self.server.url

    def answer(self, path: str) -> Any:
        self.fetched += 1
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {
            "keys": [
                {
                    **json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key())),
                    "kid": self.name,
                    "alg": "ES256",
                    "use": "sig",
                }
            ]
        }

    def token(self, *, key: Any = None, **claims: Any) -> str:
        now = int(time.time())
        said = {
            "iss": self.url,
            "aud": ["s4"],
            "sub": "system:serviceaccount:apps:reader",
            "iat": now,
            "exp": now + 600,
            **claims,
        }
        return jwt.encode(
            {name: value for name, value in said.items() if value is not None},
            key or self.key,
            "ES256",
            headers={"kid": self.name},
        )


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    made = Issuer(tmp_path_factory.mktemp("issuer"))
    yield made
    made.server.close()


def test_a_service_accounts_token_buys_credentials(own_server: Callable[..., ServerProcess], issuer: Issuer) -> None:
    server = own_server(environment={"S4_OIDC_AUTHORITY": str(issuer.server.authority)})
    iam, s3 = client(server, "iam"), client(server, "s3")
    s3.create_bucket(Bucket="apps")
    s3.put_object(Bucket="apps", Key="k", Body=b"x")
    arn = iam.create_open_id_connect_provider(Url=issuer.url, ClientIDList=["s4"], ThumbprintList=["0" * 40])[
        "OpenIDConnectProviderArn"
    ]
    host = issuer.url.removeprefix("https://")
    assert arn == f"arn:aws:iam::{ACCOUNT}:oidc-provider/{host}"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": arn},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": {f"{host}:sub": "system:serviceaccount:apps:reader", f"{host}:aud": "s4"}
                },
            }
        ],
    }
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.attach_role_policy(RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    sts = client(server, "sts", signature_version=UNSIGNED)

    def assume(token: str) -> Any:
        return sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="pod", WebIdentityToken=token)

    made = assume(issuer.token())
    assert made["SubjectFromWebIdentityToken"] == "system:serviceaccount:apps:reader"
    own = client(server, "s3", made["Credentials"])
    assert own.get_object(Bucket="apps", Key="k")["Body"].read() == b"x"
    assert code(own.put_object, Bucket="apps", Key="k", Body=b"y") == "AccessDenied"
    now, wrong = int(time.time()), ec.generate_private_key(ec.SECP256R1())
    for token, want in (
        (issuer.token(sub="system:serviceaccount:apps:other"), "AccessDenied"),
        (issuer.token(aud="other"), "InvalidIdentityToken"),
        (issuer.token(exp=now - 60), "ExpiredTokenException"),
        (issuer.token(iss="https://elsewhere.example"), "InvalidIdentityToken"),
        (issuer.token(key=wrong), "InvalidIdentityToken"),
        (issuer.token(sub=None), "InvalidIdentityToken"),
        (
            jwt.encode(
                {"iss": issuer.url, "aud": "s4", "sub": "x", "iat": now, "exp": now + 60},
                "secret" * 8,
                "HS256",
                headers={"kid": issuer.name},
            ),
            "InvalidIdentityToken",
        ),
        ("x.y.z", "InvalidIdentityToken"),
    ):
        assert (
            code(sts.assume_role_with_web_identity, RoleArn=role, RoleSessionName="pod", WebIdentityToken=token) == want
        )
    assert code(client(server, "sts", signature_version=UNSIGNED).get_caller_identity) == "AccessDenied"
    # What the token was bought for is over when the provider's trust is.
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    assert (
        code(sts.assume_role_with_web_identity, RoleArn=role, RoleSessionName="pod", WebIdentityToken=issuer.token())
        == "InvalidIdentityToken"
    )
    assert issuer.fetched == 2

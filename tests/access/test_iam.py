"""IAM and STS by boto3's own clients, against the running server, and what follows for S3."""

from __future__ import annotations

import base64
import itertools
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import jwt
import pytest
from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import ec

from access import where
from process import ACCESS, REGION, SECRET, ServerProcess
from s4.http.iam.endpoint import IAM, KINDS
from s4_operator import certificates
from server.test_admin import admin

server, s3, bucket = where.server, where.s3, where.bucket

ACCOUNT = "000000000000"
_numbers = itertools.count(1)
TRUST_ALL = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    ],
}


def client(server: ServerProcess, service: str, keys: dict[str, str] | None = None, **config: Any) -> Any:
    given = keys or {"AccessKeyId": ACCESS, "SecretAccessKey": SECRET}
    return boto3.client(
        service,
        endpoint_url=server.endpoint,
        region_name=REGION,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given.get("SessionToken"),
        config=Config(
            retries={"max_attempts": 0}, **({"s3": {"addressing_style": "path"}} if service == "s3" else {}), **config
        ),
    )


def code(method: Callable[..., Any], **options: Any) -> str:
    try:
        method(**options)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def allow(*actions: str, resource: str = "*", effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": effect, "Action": list(actions), "Resource": resource, **more}],
    }


@pytest.fixture(scope="module")
def iam(server: ServerProcess) -> Any:
    return client(server, "iam")


@pytest.fixture
def name(iam: Any) -> Iterator[str]:
    """A new user's name; whatever is left of its kind is removed."""
    made = f"u{next(_numbers)}"
    iam.create_user(UserName=made)
    yield made
    for group in iam.list_groups_for_user(UserName=made)["Groups"]:
        iam.remove_user_from_group(UserName=made, GroupName=group["GroupName"])
    for one in iam.list_attached_user_policies(UserName=made)["AttachedPolicies"]:
        iam.detach_user_policy(UserName=made, PolicyArn=one["PolicyArn"])
    for one in iam.list_user_policies(UserName=made)["PolicyNames"]:
        iam.delete_user_policy(UserName=made, PolicyName=one)
    for one in iam.list_access_keys(UserName=made)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=made, AccessKeyId=one["AccessKeyId"])
    iam.delete_user(UserName=made)


@pytest.fixture
def keys(iam: Any, name: str) -> dict[str, str]:
    return dict(iam.create_access_key(UserName=name)["AccessKey"])


def test_users(iam: Any) -> None:
    made = iam.create_user(UserName="ana", Path="/team/", Tags=[{"Key": "a", "Value": "1"}])["User"]
    assert (made["Arn"], made["Path"], made["UserId"][:4]) == (
        f"arn:aws:iam::{ACCOUNT}:user/team/ana",
        "/team/",
        "AIDA",
    )
    assert code(iam.create_user, UserName="ana") == "EntityAlreadyExists"
    assert code(iam.create_user, UserName="root") == "EntityAlreadyExists"
    assert code(iam.create_user, UserName="a b") == "ValidationError"
    assert code(iam.create_user, UserName="b", Path="team") == "ValidationError"
    iam.update_user(UserName="ana", NewPath="/other/")
    assert iam.get_user(UserName="ana")["User"]["Path"] == "/other/"
    assert code(iam.update_user, UserName="ana", NewUserName="bea") == "NotImplemented"
    iam.tag_user(UserName="ana", Tags=[{"Key": "b", "Value": "2"}])
    iam.untag_user(UserName="ana", TagKeys=["a"])
    assert iam.list_user_tags(UserName="ana")["Tags"] == [{"Key": "b", "Value": "2"}]
    for number in range(3):
        iam.create_user(UserName=f"page-{number}", Path="/page/")
    pages = list(iam.get_paginator("list_users").paginate(PathPrefix="/page/", PaginationConfig={"PageSize": 2}))
    assert [[user["UserName"] for user in page["Users"]] for page in pages] == [["page-0", "page-1"], ["page-2"]]
    for user in ("ana", "page-0", "page-1", "page-2"):
        iam.delete_user(UserName=user)
    assert code(iam.get_user, UserName="ana") == code(iam.delete_user, UserName="ana") == "NoSuchEntity"
    assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_access_keys(server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str) -> None:
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(allow("s3:*")))
    first = iam.create_access_key(UserName=name)["AccessKey"]
    assert (first["Status"], first["AccessKeyId"][:4]) == ("Active", "AKIA")
    own = client(server, "s3", first)
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"x")
    iam.update_access_key(UserName=name, AccessKeyId=first["AccessKeyId"], Status="Inactive")
    assert code(own.get_object, Bucket=bucket, Key="k") == "InvalidAccessKeyId"
    iam.update_access_key(UserName=name, AccessKeyId=first["AccessKeyId"], Status="Active")
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert (
        code(iam.update_access_key, UserName=name, AccessKeyId=first["AccessKeyId"], Status="Off") == "ValidationError"
    )
    assert iam.get_access_key_last_used(AccessKeyId=first["AccessKeyId"])["UserName"] == name
    assert [one["AccessKeyId"] for one in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]] == [
        first["AccessKeyId"]
    ]
    assert code(iam.delete_user, UserName=name) == "DeleteConflict"
    iam.delete_access_key(UserName=name, AccessKeyId=first["AccessKeyId"])
    assert code(own.get_object, Bucket=bucket, Key="k") == "InvalidAccessKeyId"
    assert (
        code(iam.delete_access_key, UserName=name, AccessKeyId=first["AccessKeyId"])
        == code(iam.get_access_key_last_used, AccessKeyId=first["AccessKeyId"])
        == "NoSuchEntity"
    )


def test_inline_policies_and_groups(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    own = client(server, "s3", keys)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert code(own.list_buckets) == "AccessDenied"
    group = f"g-{name}"
    made = iam.create_group(GroupName=group)["Group"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:group/{group}"
    iam.put_group_policy(
        GroupName=group,
        PolicyName="read",
        PolicyDocument=json.dumps(allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*")),
    )
    iam.add_user_to_group(GroupName=group, UserName=name)
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert [user["UserName"] for user in iam.get_group(GroupName=group)["Users"]] == [name]
    iam.put_user_policy(
        UserName=name, PolicyName="never", PolicyDocument=json.dumps(allow("s3:GetObject", resource="*", effect="Deny"))
    )
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"  # deny wins over the group
    assert iam.get_user_policy(UserName=name, PolicyName="never")["PolicyDocument"]["Statement"][0]["Effect"] == "Deny"
    iam.delete_user_policy(UserName=name, PolicyName="never")
    assert not code(own.get_object, Bucket=bucket, Key="k")
    iam.update_group(GroupName=group, NewGroupName=group + "-2", NewPath="/p/")
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert [one["GroupName"] for one in iam.list_groups_for_user(UserName=name)["Groups"]] == [group + "-2"]
    assert code(iam.delete_group, GroupName=group + "-2") == "DeleteConflict"
    iam.remove_user_from_group(GroupName=group + "-2", UserName=name)
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert code(iam.remove_user_from_group, GroupName=group + "-2", UserName=name) == "NoSuchEntity"
    iam.delete_group_policy(GroupName=group + "-2", PolicyName="read")
    iam.delete_group(GroupName=group + "-2")
    assert code(iam.get_group, GroupName=group) == "NoSuchEntity"
    assert code(iam.put_user_policy, UserName=name, PolicyName="p", PolicyDocument="{}") == "MalformedPolicyDocument"
    assert (
        code(
            iam.put_user_policy,
            UserName=name,
            PolicyName="p",
            PolicyDocument=json.dumps(allow("s3:*", Condition={"StringEquals": {"a": "x" * 2100}})),
        )
        == "LimitExceeded"
    )


def test_managed_policies(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    own = client(server, "s3", keys)
    made = iam.create_policy(
        PolicyName=f"p-{name}", PolicyDocument=json.dumps(allow("s3:PutObject")), Description="writes"
    )["Policy"]
    arn = made["Arn"]
    assert (made["DefaultVersionId"], made["AttachmentCount"]) == ("v1", 0)
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"x")
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    second = iam.create_policy_version(
        PolicyArn=arn, PolicyDocument=json.dumps(allow("s3:GetObject")), SetAsDefault=True
    )["PolicyVersion"]
    assert (second["VersionId"], second["IsDefaultVersion"]) == ("v2", True)
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert code(own.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"x")
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v2")["PolicyVersion"]["Document"]["Statement"][0][
        "Action"
    ] == ["s3:GetObject"]
    assert {one["VersionId"] for one in iam.list_policy_versions(PolicyArn=arn)["Versions"]} == {"v1", "v2"}
    assert code(iam.delete_policy_version, PolicyArn=arn, VersionId="v1") == "DeleteConflict"
    assert code(iam.delete_policy, PolicyArn=arn) == "DeleteConflict"
    assert [user["UserName"] for user in iam.list_entities_for_policy(PolicyArn=arn)["PolicyUsers"]] == [name]
    for _ in range(3):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(allow("s3:GetObject")))
    assert (
        code(iam.create_policy_version, PolicyArn=arn, PolicyDocument=json.dumps(allow("s3:GetObject")))
        == "LimitExceeded"
    )
    iam.detach_user_policy(UserName=name, PolicyArn=arn)
    assert code(iam.detach_user_policy, UserName=name, PolicyArn=arn) == "NoSuchEntity"
    for version in ("v2", "v3", "v4", "v5"):
        iam.delete_policy_version(PolicyArn=arn, VersionId=version)
    iam.delete_policy(PolicyArn=arn)
    assert (
        code(iam.get_policy, PolicyArn=arn)
        == code(iam.attach_user_policy, UserName=name, PolicyArn=arn)
        == "NoSuchEntity"
    )
    iam.attach_user_policy(UserName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert bucket in [one["Name"] for one in own.list_buckets()["Buckets"]]
    assert code(own.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"
    assert "AdministratorAccess" in [one["PolicyName"] for one in iam.list_policies(Scope="AWS")["Policies"]]


def test_a_boundary_bounds_whatever_is_given(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    own = client(server, "s3", keys)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    iam.attach_user_policy(UserName=name, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    iam.put_user_permissions_boundary(
        UserName=name, PermissionsBoundary="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    )
    assert iam.get_user(UserName=name)["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith(
        "AmazonS3ReadOnlyAccess"
    )
    s3.put_bucket_policy(
        Bucket=bucket,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/{name}"},
                        "Action": "s3:*",
                        "Resource": f"arn:aws:s3:::{bucket}/*",
                    }
                ],
            }
        ),
    )
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert code(own.put_object, Bucket=bucket, Key="k", Body=b"y") == "AccessDenied"
    assert code(client(server, "iam", keys).list_users) == "AccessDenied"
    iam.delete_user_permissions_boundary(UserName=name)
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"y")
    assert not code(client(server, "iam", keys).list_users)


def test_who_may_manage(server: ServerProcess, iam: Any, name: str, keys: dict[str, str]) -> None:
    own = client(server, "iam", keys)
    assert code(own.get_user) == code(own.create_user, UserName="x") == code(own.list_users) == "AccessDenied"
    iam.put_user_policy(
        UserName=name,
        PolicyName="self",
        PolicyDocument=json.dumps(
            allow("iam:GetUser", "iam:*AccessKey*", resource=f"arn:aws:iam::{ACCOUNT}:user/${{aws:username}}")
        ),
    )
    assert own.get_user()["User"]["UserName"] == name
    assert [one["AccessKeyId"] for one in own.list_access_keys()["AccessKeyMetadata"]] == [keys["AccessKeyId"]]
    second = own.create_access_key()["AccessKey"]
    own.delete_access_key(AccessKeyId=second["AccessKeyId"])
    assert code(own.get_user, UserName="root") == code(own.create_access_key, UserName="nobody") == "AccessDenied"
    assert (
        code(client(server, "iam", {"AccessKeyId": keys["AccessKeyId"], "SecretAccessKey": "wrong"}).get_user)
        == "SignatureDoesNotMatch"
    )
    assert (
        code(client(server, "iam", {"AccessKeyId": "AKIANONE", "SecretAccessKey": "wrong"}).get_user)
        == "InvalidClientTokenId"
    )
    assert code(iam.create_saml_provider, Name="x", SAMLMetadataDocument="x" * 1000) == "InvalidAction"


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
    # A session policy bounds it, and nothing can be added to what the role has.
    bound = sts.assume_role(**assume, Policy=json.dumps(allow("s3:GetObject", "iam:*")))["Credentials"]
    assert not code(client(server, "s3", bound).get_object, Bucket=bucket, Key="k")
    assert code(client(server, "s3", bound).put_object, Bucket=bucket, Key="k", Body=b"z") == "AccessDenied"
    assert code(client(server, "iam", bound).list_users) == "AccessDenied"
    by_arn = sts.assume_role(**assume, PolicyArns=[{"arn": "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"}])[
        "Credentials"
    ]
    assert code(client(server, "s3", by_arn).put_object, Bucket=bucket, Key="k", Body=b"z") == "AccessDenied"
    # Tokens belong to their keys; a presigned URL carries one; what the role loses its sessions lose.
    assert code(client(server, "s3", {**session, "SessionToken": bound["SessionToken"]}).list_buckets) == "InvalidToken"
    assert code(client(server, "s3", {**session, "SessionToken": "x"}).list_buckets) == "InvalidToken"
    assert (
        code(
            client(
                server, "s3", {name: value for name, value in session.items() if name != "SessionToken"}
            ).list_buckets
        )
        == "InvalidAccessKeyId"
    )
    iam.delete_role_policy(RoleName=role["RoleName"], PolicyName="all")
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    # A bucket's policy names the session's role.
    s3.put_bucket_policy(
        Bucket=bucket,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": role["Arn"]},
                        "Action": "s3:GetObject",
                        "Resource": f"arn:aws:s3:::{bucket}/*",
                    }
                ],
            }
        ),
    )
    assert not code(own.get_object, Bucket=bucket, Key="k")
    code(iam.create_user, UserName="somebody")
    iam.update_assume_role_policy(
        RoleName=role["RoleName"],
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/somebody"},
                        "Action": "sts:AssumeRole",
                    }
                ],
            }
        ),
    )
    assert code(sts.assume_role, **assume) == "AccessDenied"
    assert code(sts.assume_role, RoleArn=role["Arn"] + "x", RoleSessionName="night") == "AccessDenied"
    assert code(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="not a name") == "ValidationError"
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


# -- web identities


class Issuer:
    """An OpenID Connect provider over HTTPS, with a key that can change."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name, self.fetched = "first", 0
        authority = certificates.make("authority", time.time(), 86_400)
        leaf = certificates.make("issuer", time.time(), 86_400, ["localhost"], authority)
        (folder / "ca.pem").write_text(authority.certificate)
        (folder / "issuer.pem").write_text(leaf.certificate + leaf.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "issuer.pem")
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetched += 1
                body = json.dumps(issuer.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> Any:
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
    made.server.shutdown()
    made.server.server_close()


def test_a_service_accounts_token_buys_credentials(own_server: Callable[..., ServerProcess], issuer: Issuer) -> None:
    server = own_server(environment={"S4_OIDC_AUTHORITY": str(issuer.folder / "ca.pem")})
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


# -- at rest


def test_no_secret_is_on_disk_and_the_key_is_needed(own_server: Callable[..., ServerProcess]) -> None:
    server = own_server()
    iam = client(server, "iam")
    iam.create_user(UserName="ana")
    iam.attach_user_policy(UserName="ana", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    keys = iam.create_access_key(UserName="ana")["AccessKey"]
    by_admin = admin(server, "user", "add", "bea", "--grant", "Reader")
    session = client(server, "sts", keys).get_session_token()["Credentials"]
    assert client(server, "s3", session).list_buckets()["Buckets"] == []
    assert server.stop() == 0
    held = b"".join(path.read_bytes() for path in server.directory.rglob("*") if path.is_file())
    assert keys["AccessKeyId"].encode() in held
    for secret in (keys["SecretAccessKey"], by_admin["secret_key"], session["SecretAccessKey"]):
        assert secret.encode() not in held
    server.start()
    assert client(server, "s3", keys).list_buckets()["Buckets"] == []
    assert client(server, "s3", session).list_buckets()["Buckets"] == []
    assert server.stop() == 0
    key = next(server.directory.rglob("master.key"))
    key.write_bytes(base64.b64encode(b"another" + bytes(25)) + b"\n")
    server.start()
    # By another master key nothing opens; once a look has seen that it is another, nobody is served
    # (tests/server/test_other_keys.py).
    assert code(client(server, "s3", keys).list_buckets) in ("InternalError", "ServiceUnavailable")
    assert code(client(server, "s3", session).list_buckets) in ("InvalidToken", "ServiceUnavailable")


def test_what_a_call_is_about_is_its_operations_to_say(
    server: ServerProcess, iam: Any, name: str, keys: dict[str, str]
) -> None:
    """A parameter that an operation does not read does not say on what it is allowed."""
    mine = [f"arn:aws:iam::{ACCOUNT}:user/{name}", f"arn:aws:iam::{ACCOUNT}:group/mine"]
    iam.put_user_policy(
        UserName=name,
        PolicyName="own",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": mine[1]}]}
        ),
    )
    all_of_it = quote(json.dumps(allow("*")))
    for wanted in (
        f"Action=PutUserPolicy&UserName={name}&GroupName=mine&PolicyName=p&PolicyDocument={all_of_it}",
        f"Action=CreatePolicy&PolicyName=p&GroupName=mine&PolicyDocument={all_of_it}",
        "Action=CreateUser&UserName=other&GroupName=mine",
        f"Action=CreateRole&RoleName=r&GroupName=mine&AssumeRolePolicyDocument={quote(json.dumps(TRUST_ALL))}",
        f"Action=AttachUserPolicy&UserName={name}&GroupName=mine&PolicyArn=arn:aws:iam::aws:policy/AdministratorAccess",
        "Action=GetAccessKeyLastUsed&GroupName=mine&AccessKeyId=x",
    ):
        assert b"<Code>AccessDenied</Code>" in query(server, keys, wanted)
    listed = [action for action in IAM if action not in KINDS]
    assert all(action.startswith("List") or action == "GetAccessKeyLastUsed" for action in listed), listed


def query(server: ServerProcess, keys: dict[str, str], body: str) -> bytes:
    """A call with whatever parameters, signed."""
    request = AWSRequest(
        "POST",
        server.endpoint + "/",
        data=f"{body}&Version=2010-05-08",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    SigV4Auth(Credentials(keys["AccessKeyId"], keys["SecretAccessKey"]), "iam", REGION).add_auth(request)
    sent = urllib.request.Request(
        request.url,
        data=request.data.encode() if isinstance(request.data, str) else request.data,
        headers=dict(request.headers.items()),
        method="POST",
    )
    try:
        with urllib.request.urlopen(sent) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return bytes(error.read())


def test_a_user_may_be_bound_to_a_region(server: ServerProcess, iam: Any, name: str, keys: dict[str, str]) -> None:
    own, bucket = client(server, "s3", keys), f"{name}-located"
    document = allow(
        "s3:CreateBucket", "s3:PutBucketTagging", Condition={"StringLike": {"s3:LocationConstraint": REGION}}
    )
    iam.put_user_policy(UserName=name, PolicyName="located", PolicyDocument=json.dumps(document))
    assert code(own.create_bucket, Bucket=bucket) == "AccessDenied"
    assert (
        code(own.create_bucket, Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-9"})
        == "AccessDenied"
    )
    options = {"LocationConstraint": REGION, "Tags": [{"Key": "a", "Value": "b"}]}
    # who may is told what S3 says to everybody there: us-east-1 is named by naming nothing
    assert code(own.create_bucket, Bucket=bucket, CreateBucketConfiguration=options) == "InvalidLocationConstraint"
    s3 = client(server, "s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"Tags": options["Tags"]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "b"}]
    directory = {
        "Location": {"Type": "AvailabilityZone", "Name": "z"},
        "Bucket": {"DataRedundancy": "SingleAvailabilityZone", "Type": "Directory"},
    }
    assert code(s3.create_bucket, Bucket=bucket + "-directory", CreateBucketConfiguration=directory) == "NotImplemented"


def test_a_copy_brings_tags_only_where_tags_may_be_put(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="tagged", Body=b"x", Tagging="team=blue")
    own = client(server, "s3", keys)
    may = ["s3:GetObject", "s3:PutObject", "s3:GetObjectTagging"]
    iam.put_user_policy(UserName=name, PolicyName="copies", PolicyDocument=json.dumps(allow(*may)))
    assert code(own.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/tagged") == "AccessDenied"
    assert not code(
        own.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/tagged", TaggingDirective="REPLACE"
    )
    only_red = [
        allow(*may)["Statement"][0],
        allow("s3:PutObjectTagging", Condition={"StringEquals": {"s3:RequestObjectTag/team": "red"}})["Statement"][0],
    ]
    iam.put_user_policy(
        UserName=name, PolicyName="copies", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": only_red})
    )
    assert code(own.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/tagged") == "AccessDenied"
    s3.put_object(Bucket=bucket, Key="tagged", Body=b"x", Tagging="team=red")
    assert not code(own.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/tagged")


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

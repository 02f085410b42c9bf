"""S4Roles with tokens that a real API server signs, as a pod's program meets them: boto3, a file, and what the ConfigMap
says. Expiry and renewal are the SDK's and the server's own; only time is moved."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.credentials
import jwt
import pytest
from botocore.exceptions import ClientError

from kube.apiserver import ApiServer
from kube.tenants import HOME, ONE, OTHER, Reconcilers, Tenants
from kube.test_people import EVERYTHING, document, may, own_bucket, swept
from kube.test_tenants import is_refused
from process import ServerProcess

AUDIENCE = f"c.{HOME}.s4.dev"


@pytest.fixture
def tenants(one_api: ApiServer, server: ServerProcess) -> Iterator[Tenants]:
    made = Tenants(one_api, server)
    for namespace in (ONE, OTHER):
        for name in ("program", "another"):
            if not one_api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"):
                one_api.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
    yield made
    for kind in ("s4roles", "s4policies"):
        one_api.remove_at_once(kind)
    made.operate(swept)


def token(api: ApiServer, account: str = "program", namespace: str = ONE, audience: str = AUDIENCE) -> str:
    """What kubelet writes into a pod's file."""
    asked = {"spec": {"audiences": [audience], "expirationSeconds": 600}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    return str(api.call("POST", path, asked)["status"]["token"])


def role(tenants: Tenants, **spec: Any) -> str:
    """What the ConfigMap of an S4Role says AWS_ROLE_ARN is."""
    chosen = {"serviceAccounts": [{"name": "program"}], "inline": [document(EVERYTHING)], **spec}
    tenants.write("S4Role", ONE, "program", **chosen)
    tenants.rounds(("S4Role", ONE, "program"))
    assert tenants.reason(ONE, "program", "S4Role") == "Ready"
    return str(tenants.get("ConfigMap", ONE, "program-s4-role")["data"]["AWS_ROLE_ARN"])


@pytest.fixture
def program(tenants: Tenants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pod's program: its file, and its S3 client, which knows nothing but its environment."""

    def start(text: str) -> tuple[Path, Any]:
        file = tmp_path / "token"
        file.write_text(text)
        data = tenants.get("ConfigMap", ONE, "program-s4-role")["data"]
        # The address that a cluster's Service has leads nowhere here.
        here = {name: tenants.server.endpoint for name in data if name.startswith("AWS_ENDPOINT_URL")}
        for name, value in {**data, **here, "AWS_WEB_IDENTITY_TOKEN_FILE": str(file)}.items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        return file, boto3.Session().client("s3")

    return start


def assume(tenants: Tenants, arn: str, text: str) -> Any:
    sts = boto3.client(
        "sts",
        endpoint_url=tenants.server.endpoint,
        region_name="us-east-1",
        aws_access_key_id="",
        aws_secret_access_key="",
    )
    return sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="program", WebIdentityToken=text)


def test_a_programs_token_is_all_that_it_needs(tenants: Tenants, program: Any) -> None:
    own, others = own_bucket(tenants, ONE), own_bucket(tenants, OTHER)
    arn = role(tenants)
    _, s3 = program(token(tenants.api))
    s3.put_object(Bucket=own, Key="k", Body=b"x")
    assert s3.get_object(Bucket=own, Key="k")["Body"].read() == b"x"
    assert is_refused(lambda: s3.list_objects_v2(Bucket=others), "AccessDenied"), "whatever its policy says"
    said = tenants.status(ONE, "program", "S4Role")
    assert (said["arn"], said["audience"], said["issuer"]) == (arn, AUDIENCE, "https://test")


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({"audience": "https://test"}, "InvalidIdentityToken"),
        ({"audience": f"other.{HOME}.s4.dev"}, "InvalidIdentityToken"),
        ({"account": "another"}, "AccessDenied"),
        ({"namespace": OTHER}, "AccessDenied"),
    ],
    ids=["audience", "of another cluster", "name", "namespace"],
)
def test_a_token_of_somebody_else_buys_nothing(tenants: Tenants, named: dict[str, str], code: str) -> None:
    arn = role(tenants)
    assert is_refused(lambda: assume(tenants, arn, token(tenants.api, **named)), code)
    assert assume(tenants, arn, token(tenants.api))["Credentials"]


def test_a_token_that_has_ended_or_was_signed_by_somebody_else_buys_nothing(tenants: Tenants) -> None:
    arn, good = role(tenants), token(tenants.api)
    claims, head = jwt.decode(good, options={"verify_signature": False}), jwt.get_unverified_header(good)
    key = (tenants.api.directory / "sa.key").read_text()
    now = int(time.time())
    ended = jwt.encode(
        {**claims, "iat": now - 700, "nbf": now - 700, "exp": now - 100}, key, "RS256", {"kid": head["kid"]}
    )
    assert is_refused(lambda: assume(tenants, arn, ended), "ExpiredTokenException")
    forged = good[: good.rindex(".")] + "." + ended.rpartition(".")[2]
    assert is_refused(lambda: assume(tenants, arn, forged), "InvalidIdentityToken")
    renamed = jwt.encode({**claims, "sub": f"system:serviceaccount:{ONE}:another"}, key, "RS256", {"kid": head["kid"]})
    assert is_refused(lambda: assume(tenants, arn, renamed), "AccessDenied")


def test_an_sdk_takes_the_token_that_took_its_files_place(
    tenants: Tenants, program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials last an hour; kubelet writes another token before the first ends, and the SDK asks with that one."""
    own = own_bucket(tenants, ONE)
    role(tenants)
    file, s3 = program(token(tenants.api))
    s3.put_object(Bucket=own, Key="k", Body=b"x")
    held = s3._request_signer._credentials
    first, real = held.get_frozen_credentials(), held._time_fetcher
    for where, name in ((held, "_time_fetcher"), (botocore.credentials, "_local_now")):  # each of its caches asks one
        monkeypatch.setattr(where, name, lambda: real() + datetime.timedelta(minutes=55))
    file.write_text("of nobody")
    assert is_refused(lambda: s3.get_object(Bucket=own, Key="k"), "InvalidIdentityToken")
    file.write_text(token(tenants.api))
    assert s3.get_object(Bucket=own, Key="k")["Body"].read() == b"x"
    assert held.get_frozen_credentials().access_key != first.access_key


def test_keys_of_kubernetes_that_were_changed_reach_the_daemons(tenants: Tenants) -> None:
    """The issuer itself, https://test, is nowhere: only what the operator told them counts."""
    arn = role(tenants)
    other = jwt.algorithms.ECAlgorithm.to_jwk(_curve_key().public_key(), as_dict=True)

    async def replaced(made: Reconcilers) -> None:
        keys = json.dumps({"keys": [{**other, "kid": "of-before", "use": "sig"}]})
        await made.daemons.put_provider("test", AUDIENCE, keys)

    tenants.operate(replaced)
    assert is_refused(lambda: assume(tenants, arn, token(tenants.api)), "IDPCommunicationError")
    tenants.rounds(("S4Role", ONE, "program"))
    assert assume(tenants, arn, token(tenants.api))["Credentials"]


def _curve_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def test_a_refusal_and_a_deletion_end_sessions_that_run(tenants: Tenants, program: Any) -> None:
    own = own_bucket(tenants, ONE)
    arn = role(tenants)
    _, s3 = program(token(tenants.api))
    s3.put_object(Bucket=own, Key="k", Body=b"x")
    let_in = document({**may("s3:*", own), "Principal": {"AWS": arn}})
    tenants.server_client().put_bucket_policy(Bucket=own, Policy=json.dumps(let_in))
    tenants.cluster(allowedNamespaces=[OTHER])
    tenants.rounds(("S4Role", ONE, "program"))
    assert tenants.reason(ONE, "program", "S4Role") == "NotAllowed"
    assert is_refused(lambda: s3.get_object(Bucket=own, Key="k"), "AccessDenied")
    assert is_refused(lambda: assume(tenants, arn, token(tenants.api)), "AccessDenied")
    tenants.cluster()
    tenants.rounds(("S4Role", ONE, "program"))
    s3.get_object(Bucket=own, Key="k")
    tenants.delete(ONE, "program", "S4Role")
    tenants.rounds(("S4Role", ONE, "program"))
    assert not tenants.get("S4Role", ONE, "program")
    assert is_refused(lambda: s3.get_object(Bucket=own, Key="k"))
    with pytest.raises(ClientError, match="No OpenIDConnect provider"):
        assume(tenants, arn, token(tenants.api))


def test_the_last_role_that_an_operator_sees_leaves_the_issuer_to_others(tenants: Tenants) -> None:
    """It served one namespace, and took away what tokens of all others are believed by."""
    arn = role(tenants)
    tenants.write("S4Role", OTHER, "another", serviceAccounts=[{"name": "another"}])
    tenants.rounds(("S4Role", OTHER, "another"))
    tenants.delete(OTHER, "another", "S4Role")

    async def narrow(made: Reconcilers) -> None:
        made.kube.namespaces = (HOME, OTHER)
        await made.cache.refresh(made.kube)
        await made.rounds["S4Role"](OTHER, "another")

    tenants.operate(narrow)
    assert not tenants.get("S4Role", OTHER, "another")
    assert assume(tenants, arn, token(tenants.api))["Credentials"]
    tenants.delete(ONE, "program", "S4Role")
    tenants.rounds(("S4Role", ONE, "program"))
    with pytest.raises(ClientError, match="No OpenIDConnect provider"):
        assume(tenants, arn, token(tenants.api))


def test_what_iam_clients_know_of_the_issuer_stays(tenants: Tenants) -> None:
    from kube.test_people import iam_of

    iam = iam_of(tenants)
    arn = iam.create_open_id_connect_provider(Url="https://test", ClientIDList=["theirs"])["OpenIDConnectProviderArn"]
    try:
        role(tenants)
        assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)["ClientIDList"] == ["theirs", AUDIENCE]
        tenants.delete(ONE, "program", "S4Role")
        tenants.rounds(("S4Role", ONE, "program"))
        assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)["ClientIDList"] == ["theirs"]
    finally:
        iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)


def test_an_issuer_that_is_no_https_address_is_said(tenants: Tenants) -> None:
    from s4_operator.people_models import RoleSpec
    from s4_operator.resources import UnmetError
    from s4_operator.roles import Roles

    class Legacy:
        async def issuer(self) -> tuple[str, str]:
            return "kubernetes/serviceaccount", "{}"

    roles: Any = Roles(Legacy(), *[None] * 3)  # type: ignore[arg-type]
    with pytest.raises(UnmetError, match="'kubernetes/serviceaccount', no https"):
        asyncio.run(roles._told_issuer())
    assert RoleSpec(clusterRef={"name": "c"}, serviceAccounts=[{"name": "a"}]).maxSession == "1h"

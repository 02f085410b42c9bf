"""What a tenant tries on the buckets of others, through the resources that it may write: a Bucket, its status, and a
Secret."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from kube.apiserver import ApiServer
from kube.tenants import HOME, ONE, OTHER, Reconcilers, Tenants
from process import REGION, ServerProcess
from s4_operator import bucket_settings
from s4_operator.buckets import Buckets
from s4_operator.daemons import Daemons


@pytest.fixture
def tenants(one_api: ApiServer, server: ServerProcess) -> Iterator[Tenants]:
    made = Tenants(one_api, server)
    yield made
    for one in server.ask("GET", "/users")["users"]:
        if one["name"].startswith("bucket-"):
            server.ask("DELETE", f"/users/{one['name']}")


def is_refused(call: Any, code: str = "InvalidAccessKeyId") -> bool:
    with pytest.raises(ClientError, match=code):
        call()
    return True


def test_a_bucket_of_ones_own_works(tenants: Tenants) -> None:
    tenants.bucket(ONE, "own", versioning="Enabled")
    for _ in range(2):
        tenants.look((ONE, "own"))
        assert tenants.reason(ONE, "own") == "Ready"
        assert tenants.status(ONE, "own")["owned"]
    name, s3 = tenants.status(ONE, "own")["bucketName"], tenants.client(ONE, "own")
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"x"
    assert tenants.known_keys(tenants.user(ONE, "own")) == [tenants.keys(ONE, "own")[0]], (
        "and no key that nobody knows of"
    )


def test_a_refused_bucket_gives_nothing(tenants: Tenants, bucket: str) -> None:
    tenants.bucket(ONE, "theft", bucketName=bucket)
    tenants.look((ONE, "theft"))
    assert tenants.reason(ONE, "theft") == "BucketExists"
    assert not tenants.get("Secret", ONE, "theft")
    assert not tenants.get("ConfigMap", ONE, "theft")
    assert not tenants.known_keys(tenants.user(ONE, "theft"))


def test_what_an_earlier_operator_gave_a_refused_bucket_is_taken_back(tenants: Tenants, bucket: str) -> None:
    """0.7 made grants and keys before it asked whose the bucket is."""
    tenants.bucket(ONE, "theft", bucketName=bucket)

    async def as_before(_: Buckets, daemons: Daemons) -> None:
        await daemons.put_user(tenants.user(ONE, "theft"), [f"Writer:{bucket}"])
        await daemons.put_key(tenants.user(ONE, "theft"), "S4OFBEFORE", "secret-of-before")

    tenants.run(as_before)
    assert tenants.known_keys(tenants.user(ONE, "theft")) == ["S4OFBEFORE"]
    tenants.look((ONE, "theft"))
    assert tenants.reason(ONE, "theft") == "BucketExists"
    assert tenants.known_keys(tenants.user(ONE, "theft")) == []
    grants = {one["name"]: one["grants"] for one in tenants.server.ask("GET", "/users")["users"]}
    assert grants[tenants.user(ONE, "theft")] == []


def test_a_namespace_that_is_no_longer_allowed_loses_its_keys_and_comes_back(tenants: Tenants) -> None:
    tenants.bucket(ONE, "own")
    tenants.look((ONE, "own"))
    name, s3 = tenants.status(ONE, "own")["bucketName"], tenants.client(ONE, "own")
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    tenants.cluster(allowedNamespaces=[OTHER])
    tenants.look((ONE, "own"))
    assert tenants.reason(ONE, "own") == "NotAllowed"
    assert is_refused(lambda: s3.get_object(Bucket=name, Key="k"))
    assert not tenants.status(ONE, "own")["keys"]
    tenants.cluster()
    tenants.look((ONE, "own"))
    assert tenants.reason(ONE, "own") == "Ready"
    assert tenants.client(ONE, "own").get_object(Bucket=name, Key="k")["Body"].read() == b"x"


def test_a_session_ends_with_the_keys_that_bought_it(tenants: Tenants) -> None:
    """A session lasts longer than the key it was bought with, and a bucket's policy may let its user in."""
    tenants.bucket(ONE, "own")
    tenants.look((ONE, "own"))
    name = tenants.status(ONE, "own")["bucketName"]
    access, secret = tenants.keys(ONE, "own")
    sts = boto3.client(
        "sts",
        endpoint_url=tenants.server.endpoint,
        region_name=REGION,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
    )
    bought = sts.get_session_token()["Credentials"]
    s3 = boto3.client(
        "s3",
        endpoint_url=tenants.server.endpoint,
        region_name=REGION,
        aws_access_key_id=bought["AccessKeyId"],
        aws_secret_access_key=bought["SecretAccessKey"],
        aws_session_token=bought["SessionToken"],
    )
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    in_it = {"Action": "s3:*", "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]}
    arn = f"arn:aws:iam::000000000000:user/{tenants.user(ONE, 'own')}"
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": arn}, **in_it}]}
    tenants.server_client().put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    tenants.cluster(allowedNamespaces=[OTHER])
    tenants.look((ONE, "own"))
    assert is_refused(lambda: s3.get_object(Bucket=name, Key="k"))
    tenants.cluster()
    tenants.look((ONE, "own"))
    tenants.client(ONE, "own").get_object(Bucket=name, Key="k")


def test_nobody_adopts_a_bucket_unasked(tenants: Tenants, bucket: str, s3: Any) -> None:
    tenants.bucket(ONE, "lent", bucketName=bucket, adoptExisting=True, access="PublicRead")
    tenants.look((ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "NotLent"
    assert f"{{bucket: {bucket}, by: {ONE}/lent}}" in tenants.status(ONE, "lent")["message"]
    assert not tenants.get("Secret", ONE, "lent")
    assert not tenants.known_keys(tenants.user(ONE, "lent"))
    assert is_refused(lambda: s3.get_bucket_policy(Bucket=bucket), "NoSuchBucketPolicy")


def test_a_bucket_is_adopted_where_the_cluster_says_so_and_only_as_long(tenants: Tenants, bucket: str) -> None:
    tenants.bucket(ONE, "lent", bucketName=bucket, adoptExisting=True)
    tenants.bucket(OTHER, "lent", bucketName=bucket, adoptExisting=True)
    tenants.cluster(adoptions=[{"bucket": bucket, "by": f"{ONE}/*"}])
    tenants.look((ONE, "lent"), (OTHER, "lent"))
    assert tenants.reason(ONE, "lent") == "Ready"
    assert tenants.reason(OTHER, "lent") == "NotLent"
    assert not tenants.status(ONE, "lent")["owned"]
    s3 = tenants.client(ONE, "lent")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    lent = {"TagSet": [{"Key": "s4.dev/adopted-by", "Value": f"{ONE}/lent"}]}
    assert is_refused(lambda: s3.put_bucket_tagging(Bucket=bucket, Tagging=lent), "AccessDenied"), (
        "it lends it to itself"
    )
    tenants.cluster(adoptions=[])
    tenants.look((ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "NotLent"
    assert is_refused(lambda: s3.get_object(Bucket=bucket, Key="k"))


def test_a_bucket_is_adopted_where_its_own_tag_says_so(tenants: Tenants, bucket: str, s3: Any) -> None:
    tenants.bucket(ONE, "lent", bucketName=bucket, adoptExisting=True)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "s4.dev/adopted-by", "Value": f"{OTHER}/lent"}]})
    tenants.look((ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "NotLent"
    s3.put_bucket_tagging(
        Bucket=bucket, Tagging={"TagSet": [{"Key": "s4.dev/adopted-by", "Value": f"{OTHER}/lent {ONE}/lent"}]}
    )
    tenants.look((ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "Ready"
    tenants.client(ONE, "lent").put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_bucket_tagging(Bucket=bucket)
    tenants.look((ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "NotLent"


OPENED = {
    "policy": {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "s3:GetObject"}
        ],
    }
}
ASKED: dict[str, Any] = {
    "access": "PublicRead",
    "cors": [{"allowedOrigins": ["*"], "allowedMethods": ["GET"]}],
    "website": {"index": "index.html"},
    "quota": "10Gi",
    "tags": {"team": "a"},
    **OPENED,
}


def rows(tenants: Tenants, bucket: str) -> dict[str, Any]:
    return next(one for one in tenants.server.ask("GET", "/buckets")["buckets"] if one["name"] == bucket)


@pytest.mark.parametrize("how", ["the loan ends", "the Bucket goes"])
def test_what_a_lent_bucket_made_goes_with_the_loan(tenants: Tenants, bucket: str, s3: Any, how: str) -> None:
    """All of it but what the owner changed since; and nothing of what the owner had."""
    kept = {"Sid": "mine", "Effect": "Allow", "Principal": "*", "Action": "s3:PutObject"}
    kept |= {"Resource": f"arn:aws:s3:::{bucket}/in/*", "Condition": {"StringEquals": {"aws:username": "ana"}}}
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [kept]}))
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "s4.dev/adopted-by", "Value": f"{ONE}/lent"}]})
    tenants.bucket(ONE, "lent", bucketName=bucket, adoptExisting=True, **ASKED)
    tenants.look((ONE, "lent"), (ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "Ready", tenants.status(ONE, "lent")["message"]
    assert len(json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]) == 3
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "owners.html"}})
    if how == "the loan ends":
        s3.delete_bucket_tagging(Bucket=bucket)
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "of", "Value": "the owner"}]})
    else:
        tenants.delete(ONE, "lent")
    tenants.look((ONE, "lent"))
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"] == [kept]
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    assert is_refused(lambda: s3.get_bucket_cors(Bucket=bucket), "NoSuchCORSConfiguration")
    assert rows(tenants, bucket)["quota_bytes"] == 0
    assert s3.get_bucket_website(Bucket=bucket)["IndexDocument"]["Suffix"] == "owners.html"
    tags = {one["Key"] for one in s3.get_bucket_tagging(Bucket=bucket)["TagSet"]}
    if how == "the loan ends":
        assert tags == {"of"}
        assert tenants.reason(ONE, "lent") == "NotLent"
        assert not tenants.status(ONE, "lent")["applied"]
        assert not tenants.status(ONE, "lent")["marks"]
    else:
        assert tags == {"s4.dev/adopted-by"}
        assert not tenants.get("Bucket", ONE, "lent")


def test_a_bucket_that_was_never_lent_takes_nothing_back(tenants: Tenants, bucket: str, s3: Any) -> None:
    """Whatever its status says."""
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "owners.html"}})
    tenants.bucket(ONE, "lent", bucketName=bucket, adoptExisting=True)

    async def marks(_: Buckets, daemons: Daemons) -> None:
        made.update(await bucket_settings.marks(daemons, bucket, {"website"}))

    made: dict[str, str] = {}
    tenants.run(marks)
    tenants.set_status(ONE, "lent", applied=["website"], marks=made)
    tenants.look((ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "NotLent"
    assert s3.get_bucket_website(Bucket=bucket)["IndexDocument"]["Suffix"] == "owners.html"


def test_a_lent_buckets_statements_stand_beside_those_of_the_bucket_that_made_it(tenants: Tenants) -> None:
    tenants.bucket(OTHER, "own", **OPENED)
    tenants.look((OTHER, "own"))
    name, s3 = tenants.status(OTHER, "own")["bucketName"], tenants.server_client()
    tenants.cluster(adoptions=[{"bucket": name, "by": f"{ONE}/lent"}])
    tenants.bucket(ONE, "lent", bucketName=name, adoptExisting=True, **OPENED)

    def sids() -> list[str]:
        return [one["Sid"][:6] for one in json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"]]

    tenants.look((ONE, "lent"), (OTHER, "own"), (ONE, "lent"))
    assert sorted(sids()) == ["S4Lent", "S4Oper"]
    tenants.cluster(adoptions=[])
    tenants.look((ONE, "lent"))
    assert sids() == ["S4Oper"]


def test_two_buckets_that_ask_for_one_setting_do_not_overwrite_each_other(tenants: Tenants) -> None:
    """The Bucket that made the bucket comes first; the other has what else it asks for, and what was taken once the
    first asks no more."""
    hers, his = ([{"allowedOrigins": [origin], "allowedMethods": ["GET"]}] for origin in ("https://a", "https://b"))
    tenants.bucket(OTHER, "own", cors=hers, access="PublicRead", versioning="Enabled", tags={"team": "a"})
    tenants.look((OTHER, "own"))
    name, s3 = tenants.status(OTHER, "own")["bucketName"], tenants.server_client()
    tenants.cluster(adoptions=[{"bucket": name, "by": f"{ONE}/lent"}])
    asked = {"quota": "10Gi", "versioning": "Suspended", "tags": {"team": "a"}, "publicAccessBlock": {}, "cors": his}
    tenants.bucket(ONE, "lent", bucketName=name, adoptExisting=True, **asked)

    def origins() -> list[str]:
        return list(s3.get_bucket_cors(Bucket=name)["CORSRules"][0]["AllowedOrigins"])

    tenants.look((ONE, "lent"), (OTHER, "own"), (ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "AskedByAnother"
    said = tenants.status(ONE, "lent")["message"]
    assert said == (f"cors, publicAccessBlock, versioning of this bucket is as {OTHER}/own asks, which comes first")
    assert tenants.reason(OTHER, "own") == "Ready"
    assert origins() == ["https://a"]
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    assert s3.get_bucket_policy_status(Bucket=name)["PolicyStatus"]["IsPublic"]
    assert rows(tenants, name)["quota_bytes"] == 10 << 30
    tenants.bucket(OTHER, "own", cors=None, access=None, versioning=None)
    tenants.look((OTHER, "own"), (ONE, "lent"))
    assert tenants.reason(ONE, "lent") == "Ready"
    assert origins() == ["https://b"]
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Suspended"
    assert is_refused(lambda: s3.get_bucket_policy(Bucket=name), "NoSuchBucketPolicy")


def test_a_setting_that_goes_leaves_the_status(tenants: Tenants) -> None:
    tenants.bucket(ONE, "own", tags={"team": "a"})
    tenants.look((ONE, "own"))
    assert tenants.status(ONE, "own")["settings"]["tags"] == "team=a"
    tenants.bucket(ONE, "own", tags=None)
    tenants.look((ONE, "own"))
    assert "tags" not in tenants.status(ONE, "own")["settings"]


def test_a_status_that_names_anothers_bucket_deletes_nothing(tenants: Tenants) -> None:
    tenants.bucket(OTHER, "victim")
    tenants.bucket(ONE, "scratch", deletionPolicy="Delete")
    tenants.look((OTHER, "victim"), (ONE, "scratch"))
    victim, own = tenants.status(OTHER, "victim")["bucketName"], tenants.status(ONE, "scratch")["bucketName"]
    s3 = tenants.client(OTHER, "victim")
    s3.put_object(Bucket=victim, Key="k", Body=b"x")
    thief = tenants.client(ONE, "scratch")
    tenants.delete(ONE, "scratch")
    tenants.set_status(ONE, "scratch", bucketName=victim)
    tenants.look((ONE, "scratch"))
    assert not tenants.get("Bucket", ONE, "scratch")
    assert s3.get_object(Bucket=victim, Key="k")["Body"].read() == b"x"
    assert own not in [one["name"] for one in tenants.server.ask("GET", "/buckets")["buckets"]], "its own is gone"
    assert is_refused(lambda: thief.get_object(Bucket=victim, Key="k"))


def test_a_status_that_names_anothers_bucket_gives_no_keys_to_it(tenants: Tenants, bucket: str) -> None:
    tenants.bucket(ONE, "own")
    tenants.set_status(ONE, "own", bucketName=bucket, owned=True)
    tenants.look((ONE, "own"))
    assert tenants.status(ONE, "own")["bucketName"] != bucket
    assert is_refused(lambda: tenants.client(ONE, "own").put_object(Bucket=bucket, Key="k", Body=b"x"), "AccessDenied")


def test_a_bucket_that_became_anothers_is_not_used_any_more(tenants: Tenants, s3: Any) -> None:
    """Keys are for the bucket that was made with them, not for whatever has its name one day."""
    tenants.bucket(ONE, "first", bucketName="of-two-tenants")
    tenants.bucket(OTHER, "second", bucketName="of-two-tenants")
    tenants.look((ONE, "first"), (OTHER, "second"))
    assert tenants.reason(OTHER, "second") == "BucketExists"
    early = tenants.client(ONE, "first")
    assert is_refused(lambda: early.delete_bucket(Bucket="of-two-tenants"), "AccessDenied")
    s3.delete_bucket(Bucket="of-two-tenants")
    tenants.look((OTHER, "second"))
    assert tenants.reason(OTHER, "second") == "Ready"
    tenants.client(OTHER, "second").put_object(Bucket="of-two-tenants", Key="k", Body=b"x")
    assert is_refused(lambda: early.get_object(Bucket="of-two-tenants", Key="k"))
    tenants.look((ONE, "first"))
    assert tenants.reason(ONE, "first") == "BucketExists"


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
def test_what_is_somebody_elses_is_not_overwritten(tenants: Tenants, kind: str) -> None:
    tenants.make(
        kind, ONE, "own", **({"stringData": {"of": "another"}} if kind == "Secret" else {"data": {"of": "another"}})
    )
    before = tenants.get(kind, ONE, "own")
    tenants.bucket(ONE, "own")
    tenants.look((ONE, "own"))
    assert tenants.reason(ONE, "own") == f"{kind}Exists"
    assert tenants.get(kind, ONE, "own") == before
    assert not tenants.known_keys(tenants.user(ONE, "own"))


@pytest.mark.parametrize("access", ["../../users/somebody", "S4OFSOMEBODY", "a b?c#d%2F"])
def test_keys_that_a_tenant_wrote_into_its_secret_are_not_taken(tenants: Tenants, access: str) -> None:
    tenants.bucket(ONE, "own")
    tenants.look((ONE, "own"))
    name, user = tenants.status(ONE, "own")["bucketName"], tenants.user(ONE, "own")
    old, _ = tenants.keys(ONE, "own")
    tenants.set_data(ONE, "own", AWS_ACCESS_KEY_ID=access, AWS_SECRET_ACCESS_KEY="easily-guessed")
    tenants.annotate("Secret", ONE, "own", **{"s4.dev/previous-keys": f"x=y,,=1e99,z,{old}=999999999999"})
    binary = {"data": {"keystore": b64encode(b"\xff").decode()}}
    tenants.api.change(f"/api/v1/namespaces/{ONE}/secrets/own", binary)
    tenants.look((ONE, "own"))
    assert tenants.reason(ONE, "own") == "Ready"
    made, _ = tenants.keys(ONE, "own")
    assert made != access
    assert tenants.known_keys(user) == [made]
    tenants.client(ONE, "own").put_object(Bucket=name, Key="k", Body=b"x")


def test_a_cluster_that_allows_everybody_still_keeps_buckets_apart(tenants: Tenants) -> None:
    tenants.cluster(allowedNamespaces=["*"])
    tenants.bucket(ONE, "a")
    tenants.bucket(OTHER, "b")
    tenants.look((ONE, "a"), (OTHER, "b"))
    for mine, other in (((ONE, "a"), (OTHER, "b")), ((OTHER, "b"), (ONE, "a"))):
        theirs = tenants.status(*other)["bucketName"]
        s3 = tenants.client(*mine)
        lent = {"TagSet": [{"Key": "s4.dev/adopted-by", "Value": f"{mine[0]}/x"}]}
        assert is_refused(lambda s3=s3, theirs=theirs: s3.list_objects_v2(Bucket=theirs), "AccessDenied")
        assert is_refused(lambda s3=s3, theirs=theirs: s3.put_object(Bucket=theirs, Key="k", Body=b"x"), "AccessDenied")
        assert is_refused(
            lambda s3=s3, theirs=theirs, lent=lent: s3.put_bucket_tagging(Bucket=theirs, Tagging=lent), "AccessDenied"
        )


def rate_of_bucket(tenants: Tenants, name: str) -> tuple[int, int]:
    return next(
        (one["requests_per_s"], one["bytes_per_s"])
        for one in tenants.server.ask("GET", "/buckets")["buckets"]
        if one["name"] == name
    )


def test_a_rate_is_what_the_bucket_asks_for_and_never_more_than_the_clusters(tenants: Tenants) -> None:
    """Whatever was set by hand meanwhile; and what was never asked for is not touched."""
    tenants.bucket(ONE, "own", rate={"requests": 50, "bytes": "64Ki"})
    tenants.look((ONE, "own"))
    name = tenants.status(ONE, "own")["bucketName"]
    assert rate_of_bucket(tenants, name) == (50, 65536)
    tenants.server.admin_cli("bucket", "rate", name, "--requests", "900", "--bytes", "0")
    tenants.look((ONE, "own"))
    assert rate_of_bucket(tenants, name) == (50, 65536)
    tenants.cluster(rates={"bucketRequests": 20, "bucketBytes": "1Mi"})
    tenants.look((ONE, "own"))
    assert rate_of_bucket(tenants, name) == (0, 65536), "20 is what every bucket has, and 50 of its own would lift it"
    tenants.cluster(rates={"bucketRequests": None, "bucketBytes": None})
    tenants.bucket(ONE, "own", rate=None)
    tenants.look((ONE, "own"))
    assert rate_of_bucket(tenants, name) == (0, 0)
    tenants.server.admin_cli("bucket", "rate", name, "--requests", "900")
    tenants.look((ONE, "own"))
    assert rate_of_bucket(tenants, name) == (900, 0)


def test_what_an_autoscaler_says_while_the_operator_looks_is_not_taken_back(tenants: Tenants) -> None:
    deployment = f"/apis/apps/v1/namespaces/{HOME}/deployments/c-gateway"
    tenants.cluster(gateway={"replicas": 2, "autoscaled": True})
    tenants.look_at_cluster()
    assert tenants.api.get(deployment)["spec"]["replicas"] == 2
    tenants.cluster(gateway={"replicas": 2, "autoscaled": True}, region="eu-west-1")
    said = []

    async def look(made: Reconcilers) -> None:
        seen = made.kube.ours

        async def ours(value: dict[str, Any]) -> dict[str, Any] | None:
            found = await seen(value)
            if value["kind"] == "Deployment" and not said:
                said.append(tenants.api.change(f"{deployment}/scale", {"spec": {"replicas": 5}}))
            return found

        made.kube.ours = ours  # type: ignore[method-assign]
        await made.clusters.reconcile(HOME, "c")

    tenants.operate(look)
    spec = tenants.api.get(deployment)["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert {"name": "S4_REGION", "value": "eu-west-1"} in container["env"]
    assert spec["replicas"] == 5

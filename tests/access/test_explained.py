"""`s4 admin bucket` and `s4 admin policy explain`: what they change, what they say, and that both are what requests
meet."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from access import where
from process import ACCESS, REGION, SECRET, ServerProcess, make_client
from s4.cli import main as cli

s3, bucket = where.s3, where.bucket
PARSER = cli.build_parser()


@pytest.fixture(scope="module")
def server(open_server: Any) -> Any:
    return open_server


@pytest.fixture
def said(server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("S4_ROOT_ACCESS_KEY", ACCESS)
    monkeypatch.setenv("S4_ROOT_SECRET_KEY", SECRET)

    def run(*arguments: str) -> tuple[int, str]:
        status = cli.run(PARSER.parse_args(["admin", *arguments, "--endpoint", server.admin]))
        shown = capsys.readouterr()
        return status, shown.out + shown.err

    return run


@pytest.fixture
def nobody(server: ServerProcess) -> Any:
    made = boto3.client(
        "s3", endpoint_url=server.endpoint, region_name=REGION, config=Config(signature_version=UNSIGNED)
    )
    yield made
    made.close()


def allowed(call: Any, **options: Any) -> bool:
    try:
        call(**options)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"
        return False
    return True


def test_a_bucket_is_made_public_and_private_again(said: Any, s3: Any, bucket: str, nobody: Any) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    own = {
        "Sid": "Mine",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/secret*",
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": own}))
    reads = [
        lambda: allowed(nobody.get_object, Bucket=bucket, Key="k"),
        lambda: allowed(nobody.list_objects_v2, Bucket=bucket),
    ]
    assert [one() for one in reads] == [False, False]
    assert said("policy", "explain", "s3:GetObject", f"{bucket}/k")[0] == 3
    for _ in range(2):  # done twice is done once
        assert said("bucket", "public", bucket) == (0, f"everybody may read the objects of {bucket}, without keys\n")
        assert [one() for one in reads] == [True, False]
    assert said("policy", "explain", "s3:GetObject", f"{bucket}/k") == (
        0,
        f"yes: s3:GetObject on arn:aws:s3:::{bucket}/k: allowed by statement 'S4PublicRead' of the bucket's policy\n",
    )
    assert said("policy", "explain", "s3:GetObject", f"{bucket}/secret")[1].startswith("no: ")
    assert (
        "denied by statement 'Mine' of the bucket's policy"
        in said("policy", "explain", "s3:GetObject", f"{bucket}/secret")[1]
    )
    assert said("bucket", "public", "--list", bucket)[0] == 0
    assert [one() for one in reads] == [True, True]
    assert not allowed(nobody.put_object, Bucket=bucket, Key="k", Body=b"y")
    assert said("bucket", "private", bucket)[0] == 0
    assert [one() for one in reads] == [False, False]
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"] == [own]
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())


def test_what_is_explained_is_what_requests_meet(said: Any, server: ServerProcess, s3: Any, bucket: str) -> None:
    name = where.new_name()
    made = json.loads(said("user", "add", name, "--grant", f"Reader:{bucket}", "--json")[1])
    client = make_client(server.endpoint, made["access_key"], made["secret_key"])
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for action, call, options in (
        ("s3:GetObject", client.get_object, {"Key": "k"}),
        ("s3:ListBucket", client.list_objects_v2, {}),
        ("s3:PutObject", client.put_object, {"Key": "k", "Body": b"y"}),
    ):
        status, text = said("policy", "explain", action, f"{bucket}/k" if "Key" in options else bucket, "--user", name)
        assert (status == 0) == allowed(call, Bucket=bucket, **options) == text.startswith("yes: "), text
        assert name in text
    client.close()
    assert said("user", "remove", name)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("s3:GetObjetc", "b/k"), "did you mean s3:getobject"),
        (("GetObject", "b/k"), "no action"),
        (("s3:*", "b/k"), "no action"),
        (("s3:GetObject", "no-such-bucket/k"), "NoSuchBucket"),
        (("s3:ListAllMyBuckets", "--user", "nobody-at-all"), "no user nobody-at-all"),
    ],
)
def test_a_question_that_is_none_is_refused_in_words(said: Any, arguments: tuple[str, ...], expected: str) -> None:
    status, text = said("policy", "explain", *arguments)
    assert status == 1
    assert expected in text


def test_who_administers_needs_the_buckets_permissions_too(
    server: ServerProcess, said: Any, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = where.new_name()
    key = json.loads(said("user", "add", name, "--grant", "SuperUser", "--json")[1])
    deny = {
        "Effect": "Deny",
        "Principal": {"AWS": f"arn:aws:iam::000000000000:user/{name}"},
        "Action": "s3:PutBucketPolicy",
        "Resource": f"arn:aws:s3:::{bucket}",
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": deny}))
    monkeypatch.setenv("S4_ROOT_ACCESS_KEY", key["access_key"])
    monkeypatch.setenv("S4_ROOT_SECRET_KEY", key["secret_key"])
    status, text = said("bucket", "public", bucket)
    assert (status, "AccessDenied" in text) == (1, True)
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())

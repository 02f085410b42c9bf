"""S3 Control's tags of buckets, asked by boto3's own client of that API."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from access import where
from process import ACCESS, REGION, SECRET
from raw import call

server, s3, bucket = where.server, where.s3, where.bucket
ACCOUNT = "000000000000"


def client_of(endpoint: str, access: str = ACCESS, secret: str = SECRET) -> Any:
    config = Config(retries={"max_attempts": 0})
    return boto3.client(
        "s3control",
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name=REGION,
        config=config,
    )


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 puts the account before the endpoint's name; the tests' endpoints are addresses, which have no names below
    them."""
    found = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **named: found(host.removeprefix(f"{ACCOUNT}."), *more, **named)
    )


@pytest.fixture
def control(server: Any) -> Iterator[Any]:
    made = client_of(server.endpoint)
    yield made
    made.close()


def arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def tags(control: Any, bucket: str) -> dict[str, str]:
    return {
        one["Key"]: one["Value"]
        for one in control.list_tags_for_resource(AccountId=ACCOUNT, ResourceArn=arn(bucket))["Tags"]
    }


def put(control: Any, bucket: str, **more: str) -> None:
    control.tag_resource(
        AccountId=ACCOUNT, ResourceArn=arn(bucket), Tags=[{"Key": name, "Value": value} for name, value in more.items()]
    )


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    answer = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_tags_are_added_and_taken_away_one_by_one(control: Any, s3: Any, bucket: str) -> None:
    assert tags(control, bucket) == {}
    put(control, bucket, team="red", stage="a b/ä")
    put(control, bucket, team="blue", cost="")
    assert tags(control, bucket) == {"team": "blue", "stage": "a b/ä", "cost": ""}
    assert len(s3.get_bucket_tagging(Bucket=bucket)["TagSet"]) == 3, "they are the tags that S3 shows"
    control.untag_resource(AccountId=ACCOUNT, ResourceArn=arn(bucket), TagKeys=["stage", "never"])
    assert tags(control, bucket) == {"team": "blue", "cost": ""}
    control.untag_resource(AccountId=ACCOUNT, ResourceArn=arn(bucket), TagKeys=["team", "cost"])
    assert tags(control, bucket) == {}
    with pytest.raises(ClientError) as error:
        s3.get_bucket_tagging(Bucket=bucket)
    assert code_of(error) == ("NoSuchTagSet", 404)


def test_a_bucket_has_fifty_tags_at_most_however_they_come(control: Any, bucket: str) -> None:
    put(control, bucket, **{f"a{number}": "x" for number in range(50)})
    put(control, bucket, a0="y")
    with pytest.raises(ClientError) as error:
        put(control, bucket, more="x")
    assert code_of(error) == ("BadRequest", 400)
    assert len(tags(control, bucket)) == 50
    with pytest.raises(ClientError) as error:
        put(control, bucket, **{"aws:mine": "x"})
    assert code_of(error) == ("InvalidTag", 400)


def test_who_may_what_with_which_tags(server: Any, s3: Any, control: Any, bucket: str) -> None:
    iam = boto3.client(
        "iam", endpoint_url=server.endpoint, aws_access_key_id=ACCESS, aws_secret_access_key=SECRET, region_name=REGION
    )
    name = f"tagger-{bucket}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    policy = '{"Version":"2012-10-17","Statement":[%s]}'
    allowed = f'{{"Effect":"Allow","Action":["s3:TagResource","s3:UntagResource"],"Resource":"{arn(bucket)}","Condition":{{"ForAllValues:StringEquals":{{"aws:TagKeys":["team"]}}}}}}'
    denied = f'{{"Effect":"Deny","Action":"s3:TagResource","Resource":"{arn(bucket)}","Condition":{{"StringEquals":{{"aws:RequestTag/team":"red"}}}}}}'
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy % f"{allowed},{denied}")
    put(control, bucket, stage="a")
    mine = client_of(server.endpoint, key["AccessKeyId"], key["SecretAccessKey"])
    put(mine, bucket, team="blue")
    for refused in (
        lambda: put(mine, bucket, team="red"),
        lambda: put(mine, bucket, stage="b"),
        lambda: tags(mine, bucket),
        lambda: mine.untag_resource(AccountId=ACCOUNT, ResourceArn=arn(bucket), TagKeys=["team", "stage"]),
    ):
        with pytest.raises(ClientError) as error:
            refused()
        assert code_of(error) == ("AccessDenied", 403)
    mine.untag_resource(AccountId=ACCOUNT, ResourceArn=arn(bucket), TagKeys=["team"])
    assert tags(control, bucket) == {"stage": "a"}
    mine.close()
    iam.close()


def test_a_bucket_may_be_called_as_the_apis_version(s3: Any, server: Any) -> None:
    s3.create_bucket(Bucket="v20180820")
    try:
        s3.put_object(Bucket="v20180820", Key="tags/arn:aws:s3:::x", Body=b"an object")
        assert s3.get_object(Bucket="v20180820", Key="tags/arn:aws:s3:::x")["Body"].read() == b"an object"
        assert (
            call(
                server.endpoint,
                "GET",
                "/v20180820/tags/arn%3Aaws%3As3%3A%3A%3Av20180820",
                headers={"x-amz-account-id": ACCOUNT},
            ).body.count(b"ListTagsForResourceResult")
            == 2
        )
        s3.delete_object(Bucket="v20180820", Key="tags/arn:aws:s3:::x")
    finally:
        s3.delete_bucket(Bucket="v20180820")

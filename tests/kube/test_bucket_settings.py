"""Each setting of a Bucket on a real server, by the table: made, made again over what somebody changed, shown, and taken
back; and what S3's clients have besides stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError

from process import ACCESS, REGION, SECRET, ServerProcess
from s4_operator.bucket_models import BucketSpec
from s4_operator.bucket_settings import SETTINGS, Asked, asked_for, check, put, seen
from s4_operator.daemons import DaemonError, Daemons
from s4_operator.models import Rates
from s4_operator.resources import UnmetError

READ = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "s3:GetObject"}


def spec(**parts: Any) -> BucketSpec:
    return BucketSpec(clusterRef={"name": "c"}, **parts)


def put_all(server: ServerProcess, bucket: str, asked: BucketSpec, *touched: str) -> dict[str, str]:
    """What the bucket shows, once a Bucket that asks for this was looked at."""

    async def run() -> dict[str, str]:
        async with aiohttp.ClientSession() as session:
            daemons = Daemons(session, [server.admin.partition("//")[2]], server.endpoint, REGION, ACCESS, SECRET)
            check(asked, bucket)
            await put(daemons, bucket, Asked(asked, Rates()), {*asked_for(asked), *touched})
            return await seen(daemons, bucket)

    return asyncio.run(run())


def gone(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    return False


WEBSITE = {"index": "index.html", "error": "404.html", "rules": [{"prefix": "old/", "replacePrefix": "new/"}]}
BLOCK = {"blockPublicPolicy": False, "restrictPublicBuckets": False}
SHOWN: dict[str, tuple[dict[str, Any], str, str]] = {
    "cors": ({"cors": [{"allowedOrigins": ["*"], "allowedMethods": ["GET"]}]}, "cors", "1 rule"),
    "lifecycle": ({"lifecycle": [{"expireAfterDays": 1}, {"noncurrentAfterDays": 1}]}, "lifecycle", "2 rules"),
    "encryption": ({"encryption": {"mode": "AES256"}}, "encryption", "AES256"),
    "tags": ({"tags": {"team": "a", "cost center": "7"}}, "tags", "team=a, cost center=7"),
    "website": ({"website": WEBSITE}, "website", "index.html"),
    "publicAccessBlock": ({"publicAccessBlock": BLOCK}, "publicAccessBlock", "BlockPublicAcls, IgnorePublicAcls"),
    "access": ({"access": "PublicRead"}, "public", "true"),
}


@pytest.mark.parametrize("name", list(SHOWN))
def test_a_setting_is_made_and_taken_back(server: ServerProcess, bucket: str, name: str) -> None:
    asked, shown, words = SHOWN[name]
    before = put_all(server, bucket, spec())
    for _ in range(2):
        assert put_all(server, bucket, spec(**asked))[shown] == words
    after = put_all(server, bucket, spec(), name)
    assert after == before
    assert put_all(server, bucket, spec(), name) == before, "twice is once"


def test_every_setting_is_tried_somewhere() -> None:
    """Here, in test_daemons.py (quota, rate, objectLock) or in test_people.py (grants)."""
    elsewhere = {"quota", "rate", "objectLock", "grants", "policy", "notifications"}
    assert {name for name, _, _ in SETTINGS} == set(SHOWN) | elsewhere


def test_what_nobody_asked_for_stays(server: ServerProcess, bucket: str, s3: Any) -> None:
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "of", "Value": "a client"}]})
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "i"}})
    found = put_all(server, bucket, spec(access="PublicRead"))
    assert (found["tags"], found["website"]) == ("of=a client", "i")


def test_tags_are_those_of_the_resource_but_for_who_may_adopt_it(server: ServerProcess, bucket: str, s3: Any) -> None:
    lent = {"Key": "s4.dev/adopted-by", "Value": "a/b"}
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [lent, {"Key": "team", "Value": "wrong"}]})
    put_all(server, bucket, spec(tags={"team": "a"}))

    def held() -> list[dict[str, str]]:
        return sorted(s3.get_bucket_tagging(Bucket=bucket)["TagSet"], key=lambda one: one["Key"])

    assert held() == [lent, {"Key": "team", "Value": "a"}]
    put_all(server, bucket, spec(), "tags")
    assert held() == [lent]


def test_a_website_and_its_rules(server: ServerProcess, bucket: str, s3: Any) -> None:
    put_all(server, bucket, spec(website=WEBSITE))
    found = s3.get_bucket_website(Bucket=bucket)
    assert found["ErrorDocument"] == {"Key": "404.html"}
    (rule,) = found["RoutingRules"]
    assert (rule["Condition"], rule["Redirect"]) == ({"KeyPrefixEquals": "old/"}, {"ReplaceKeyPrefixWith": "new/"})
    put_all(server, bucket, spec(website={"redirectAllTo": {"host": "example.org", "protocol": "https"}}))
    assert s3.get_bucket_website(Bucket=bucket)["RedirectAllRequestsTo"] == {
        "HostName": "example.org",
        "Protocol": "https",
    }
    put_all(server, bucket, spec(), "website")
    assert gone(lambda: s3.get_bucket_website(Bucket=bucket))


def test_a_policy_stands_beside_those_of_clients(server: ServerProcess, bucket: str, s3: Any) -> None:
    client = {**READ, "Sid": "of-a-client", "Resource": f"arn:aws:s3:::{bucket}/x"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [client]}))

    def held() -> list[dict[str, Any]]:
        return list(json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"])

    document = {"Version": "2012-10-17", "Statement": [{**READ, "Sid": "Mine"}]}
    for _ in range(2):
        put_all(server, bucket, spec(policy=document))
    kept, ours = held()
    assert kept == client
    assert ours["Sid"] == "S4OperatorPolicy1Mine"
    assert ours["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    put_all(server, bucket, spec(), "policy")
    assert held() == [client]
    s3.delete_bucket_policy(Bucket=bucket)
    put_all(server, bucket, spec(policy=document))
    put_all(server, bucket, spec(), "policy")
    assert gone(lambda: s3.get_bucket_policy(Bucket=bucket))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"Statement": [READ]}, 'needs "Version"'),
        ({"Version": "2012-10-17", "Statement": [{**READ, "Action": "s3:Gets"}]}, "invalid action"),
        ({"Version": "2012-10-17", "Statement": [{**READ, "Resource": "arn:aws:s3:::another/*"}]}, "invalid resource"),
        ({"Version": "2012-10-17", "Statement": ["all"]}, "policy: "),
        ({"Version": "2012-10-17"}, "policy: "),
    ],
)
def test_a_policy_that_daemons_would_not_take_is_refused_before_they_are_asked(
    document: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnmetError, match=words) as caught:
        check(spec(policy=document), "one")
    assert caught.value.reason == "MalformedPolicy"


def test_a_public_policy_needs_the_block_to_be_opened(server: ServerProcess, bucket: str) -> None:
    document = {"Version": "2012-10-17", "Statement": [{**READ, "Principal": "*"}]}
    with pytest.raises(DaemonError, match="BlockPublicPolicy"):
        put_all(server, bucket, spec(policy=document))
    assert put_all(server, bucket, spec(policy=document, publicAccessBlock=BLOCK))["public"] == "true"
    after = put_all(server, bucket, spec(), "policy", "publicAccessBlock")
    assert after.get("public", "false") == "false"
    assert after["publicAccessBlock"].count(",") == 3


def test_a_receiver_that_the_cluster_has_not_is_refused(server: ServerProcess, bucket: str, s3: Any) -> None:
    with pytest.raises(DaemonError, match="destination configurations"):
        put_all(server, bucket, spec(notifications=[{"receiver": "nobody", "events": ["s3:ObjectCreated:*"]}]))
    put_all(server, bucket, spec(), "notifications")
    assert not s3.get_bucket_notification_configuration(Bucket=bucket).get("QueueConfigurations")

"""What is told, of which change, to whom: rules and records on one server and through two gateways, and what a full
queue does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from access import where
from access.accounts import client, code
from access.test_forms import post
from events.processes import Webhook
from events.test_receivers import change_of, listen
from inprocess import Bytes, opened, until
from process import make_client, wait_until
from s4.access import documents
from s4.base.jobs import Jobs
from s4.gateway import buckets, objects
from s4.gateway.objects import Attributes
from s4.gateway.read import open_object
from s4.metadata.events import NotificationRule
from s4.notify import delivery
from s4.notify.delivery import Sender
from s4.notify.receivers import ReceiverError, read
from s4.s3.checksums import Expected
from s4.s3.errors import S3Error

server, s3, bucket = where.server, where.s3, where.bucket


def told(hook: Webhook, bucket: str, count: int) -> list[dict[str, Any]]:
    """The records of a bucket, once there are `count`; all of one key in order."""
    wait_until(
        lambda: len([1 for _, one in hook.arrived() if one["s3"]["bucket"]["name"] == bucket]) >= count,
        f"{count} events of {bucket}",
    )
    return [one for _, one in hook.arrived() if one["s3"]["bucket"]["name"] == bucket]


def test_every_kind_of_change(server: Any, s3: Any, bucket: str, hook: Webhook) -> None:
    listen(s3, "hook", bucket, ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*", "s3:ObjectAcl:Put"])
    other = make_client(server.endpoint)  # obeys at once
    put = other.put_object(Bucket=bucket, Key="k", Body=b"hello")
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    other.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", MetadataDirective="REPLACE")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
    s3.rename_object(Bucket=bucket, Key="renamed", RenameSource="k")
    signer = client(server, "s3", signature_version="s3v4")
    assert (
        post(
            server.endpoint, bucket, {**signer.generate_presigned_post(bucket, "posted")["fields"], "file": ("f", b"x")}
        ).code
        == ""
    )
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "posted"}, {"Key": "never there"}]})
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    s3.put_object_acl(Bucket=bucket, Key="renamed", ACL="private")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    marker = s3.delete_object(Bucket=bucket, Key="renamed")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="renamed", VersionId=marker)
    records = told(hook, bucket, 12)
    assert sorted(change_of(one) for one in records) == sorted(
        [
            ("ObjectCreated:Put", "k", ""),
            ("ObjectTagging:Put", "k", ""),
            ("ObjectTagging:Delete", "k", ""),
            ("ObjectCreated:Copy", "k", ""),
            ("ObjectCreated:CompleteMultipartUpload", "k", ""),
            ("ObjectCreated:Copy", "renamed", ""),
            ("ObjectRemoved:Delete", "k", ""),
            ("ObjectCreated:Post", "posted", ""),
            ("ObjectRemoved:Delete", "posted", ""),
            ("ObjectAcl:Put", "renamed", ""),
            ("ObjectRemoved:DeleteMarkerCreated", "renamed", marker),
            ("ObjectRemoved:Delete", "renamed", marker),
        ]
    )
    first = next(one for one in records if one["eventName"] == "ObjectCreated:Put")
    assert (first["s3"]["object"]["size"], first["s3"]["object"]["eTag"]) == (5, put["ETag"].strip('"'))
    assert first["responseElements"]["x-amz-request-id"] == put["ResponseMetadata"]["RequestId"]
    for one in records:
        said = one["requestParameters"]["sourceIPAddress"], one["userIdentity"]["principalId"]
        assert (said, bool(one["responseElements"]["x-amz-request-id"])) == (("127.0.0.1", "root"), True), one
    assert (first["s3"]["configurationId"], first["s3"]["bucket"]["arn"]) == ("hook", f"arn:aws:s3:::{bucket}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["eventTime"])


def test_rules_choose_by_event_prefix_and_suffix(s3: Any, bucket: str, hook: Webhook) -> None:
    wanted = {
        "QueueConfigurations": [
            {
                "Id": "a",
                "QueueArn": "arn:aws:sqs:us-east-1:1:hook",
                "Events": ["s3:ObjectCreated:Put"],
                "Filter": {
                    "Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".jpg"}]}
                },
            },
        ],
        "TopicConfigurations": [
            {"Id": "b", "TopicArn": "arn:aws:sns:us-east-1:1:hook", "Events": ["s3:ObjectRemoved:*"]}
        ],
    }
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)
    shown = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert {name: shown[name] for name in wanted} == wanted
    for key in ("in/a.jpg", "in/a.png", "out/a.jpg", "in/ü.jpg"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.copy_object(Bucket=bucket, Key="in/copy.jpg", CopySource=f"{bucket}/in/a.jpg")
    s3.delete_object(Bucket=bucket, Key="out/a.jpg")
    listen(s3, "hook", bucket, ["s3:ObjectTagging:*"])
    s3.put_object(Bucket=bucket, Key="in/late.jpg", Body=b"x")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    s3.put_object_tagging(Bucket=bucket, Key="in/late.jpg", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert sorted(change_of(one)[:2] for one in told(hook, bucket, 3)) == [
        ("ObjectCreated:Put", "in/a.jpg"),
        ("ObjectCreated:Put", "in/ü.jpg"),
        ("ObjectRemoved:Delete", "out/a.jpg"),
    ]
    assert "QueueConfigurations" not in s3.get_bucket_notification_configuration(Bucket=bucket)


def test_events_of_a_bucket_that_is_gone_arrive(s3: Any, bucket: str, hook: Webhook) -> None:
    listen(s3, "hook", bucket, ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"])
    for number in range(20):
        s3.put_object(Bucket=bucket, Key=f"{number}", Body=b"x")
        s3.delete_object(Bucket=bucket, Key=f"{number}")
    s3.delete_bucket(Bucket=bucket)
    assert len({change_of(one) for one in told(hook, bucket, 40)}) == 40


def test_lifecycle_tells(s3: Any, bucket: str, hook: Webhook) -> None:
    """Days are seconds long here."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    listen(s3, "hook", bucket, ["s3:LifecycleExpiration:*"])
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"]
    rule = {
        "ID": "r",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Expiration": {"Days": 1},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    names = [change_of(one) for one in told(hook, bucket, 2)]
    assert [name for name, _, _ in names[:2]] == [
        "LifecycleExpiration:DeleteMarkerCreated",
        "LifecycleExpiration:Delete",
    ]
    assert names[1] == ("LifecycleExpiration:Delete", "k", version)


def test_who_may(server: Any, s3: Any, bucket: str) -> None:
    assert (
        code(make_client(server.endpoint, "nobody", "nothing").get_bucket_notification_configuration, Bucket=bucket)
        == "InvalidAccessKeyId"
    )


# -- in this process: a receiver that takes what a test lets it take


class Held:
    """Takes events while it is open."""

    def __init__(self) -> None:
        self.open, self.took = False, list[str]()

    async def send(self, event_id: str, key: bytes, body: bytes) -> None:
        if not self.open:
            raise ReceiverError("closed")
        self.took.append(key.decode())

    async def close(self) -> None: ...


def test_a_full_queue_refuses_what_it_would_have_to_tell_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"slow": Held(), "quick": Held()}
    held["quick"].open = True
    monkeypatch.setattr(delivery, "make", lambda name: held[name])
    monkeypatch.setattr(delivery, "COUNT_S", 0.01)
    monkeypatch.setattr(delivery, "LEAST_S", 0.01)
    monkeypatch.setattr(delivery, "MOST_S", 0.05)

    async def test() -> None:
        async with opened(tmp_path / "data") as (store, gateway):
            sender = Sender(
                store.host, lambda: range(gateway.partitions), {"slow": "slow", "quick": "quick"}, "us-east-1", 20
            )  # type: ignore[dict-item]
            jobs = Jobs()
            sender.start(jobs)
            for name, receivers in (("both", ["slow", "quick"]), ("one", ["quick"]), ("none", [])):
                await buckets.create_bucket(gateway, name, "root")
                rules = [NotificationRule(one, "Queue", f"arn:{one}", one, ["ObjectCreated:*"]) for one in receivers]
                await buckets.set_document(
                    gateway, name, documents.NOTIFICATION, documents.encode(rules) if rules else ""
                )

            async def put(bucket: str, key: str) -> None:
                await objects.put_object(gateway, bucket, key.encode(), Bytes(b"x"), Expected(), Attributes(), "root")

            written: list[str] = []
            with pytest.raises(S3Error) as refused:
                for number in range(1000):
                    await put("both", f"{number}")
                    written.append(f"both/{number}")
                    await asyncio.sleep(0.005)  # the quick one takes it meanwhile, and is never full
            assert refused.value.status == 503
            assert "slow" in refused.value.message
            with pytest.raises(S3Error, match="NoSuchKey"):
                await open_object(gateway, "both", f"{len(written)}".encode(), "")
            for bucket in ("one", "none"):  # who tells nobody, or somebody else, goes on
                for number in range(10):
                    await put(bucket, f"{number}")
            await until(lambda: sender.sent["quick"] >= len(written) + 10)
            assert sender.sent["slow"] == 0
            assert sender.failed["slow"] > 0
            held["slow"].open = True
            await until(lambda: sender.sent["slow"] >= len(written) and not store.host.full_queues)
            await put("both", "again")
            assert sorted(held["slow"].took)[: len(written)] == sorted([*written, "both/again"])[: len(written)]
            await jobs.close()
            await sender.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "write NAME"),
        ("a: {}", "one of webhook"),
        ("a b: {webhook: http://x}", "a name of letters"),
        ("a: {webhook: http://x, kafka: y}", "one of webhook"),
        ("a: {kafka: x}", "topic"),
        ("a: {nats: x, subject: y, more: z}", "more"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_file_of_receivers_that_is_wrong_says_how(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "receivers").write_text(text)
    with pytest.raises(ValueError, match=says):
        read(tmp_path / "receivers")

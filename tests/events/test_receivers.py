"""Every event of an acknowledged change arrives, in order for its key, whoever was killed meanwhile; twice only under
one id."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from cluster.dev import DevCluster
from cluster.etcd_process import need_etcd
from events.processes import KINDS, Kafka, Nats, Receiver, Webhook, said
from process import ServerProcess, make_client, wait_until
from raw import send

BUCKET = "told"
ALL = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*", "s3:ObjectAcl:Put"]
Change = tuple[str, str, str]  # (event, key, version)


def listen(s3: Any, receiver: str, bucket: str = BUCKET, events: list[str] = ALL, **more: Any) -> None:
    rule = {"QueueArn": f"arn:aws:sqs:us-east-1:000000000000:{receiver}", "Events": events, "Id": receiver, **more}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [rule]})


class Writer(threading.Thread):
    """Changes keys of its own, one after the other, and notes what was acknowledged."""

    def __init__(self, endpoint: str, number: int, until: threading.Event) -> None:
        super().__init__()
        self.s3, self.number, self.until = make_client(endpoint, retries={"max_attempts": 0}), number, until
        self.done: list[Change] = []

    def run(self) -> None:
        turn = 0
        while not self.until.is_set():
            turn += 1
            key = f"schlüssel {self.number}/{turn % 5}"
            try:
                self._change(key, turn)
            except (ClientError, BotoCoreError):
                time.sleep(0.05)  # the server is being killed, and comes back

    def _change(self, key: str, turn: int) -> None:
        s3, where = self.s3, {"Bucket": BUCKET, "Key": key}
        match turn % 5:
            case 0:
                self._note("ObjectCreated:Put", key, s3.put_object(**where, Body=b"x" * (turn % 7000))["VersionId"])
            case 1:
                self._note("ObjectCreated:Put", key, s3.put_object(**where, Body=b"y")["VersionId"])
                version = s3.put_object_tagging(**where, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})["VersionId"]
                self._note("ObjectTagging:Put", key, version)
            case 2:
                self._note("ObjectCreated:Put", key, s3.put_object(**where, Body=b"z")["VersionId"])
                copied = s3.copy_object(
                    **where, CopySource={"Bucket": BUCKET, "Key": key}, MetadataDirective="REPLACE"
                )["VersionId"]
                self._note("ObjectCreated:Copy", key, copied)
            case 3:
                self._note("ObjectRemoved:DeleteMarkerCreated", key, s3.delete_object(**where)["VersionId"])
            case 4:
                upload = s3.create_multipart_upload(**where)["UploadId"]
                part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
                made = s3.complete_multipart_upload(
                    **where, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
                )["VersionId"]
                self._note("ObjectCreated:CompleteMultipartUpload", key, made)
                s3.delete_object(**where, VersionId=made)
                self._note("ObjectRemoved:Delete", key, made)

    def _note(self, event: str, key: str, version: str) -> None:
        self.done.append((event, key, version))
        # a load, not all that fits: it goes on while a receiver starts, and all of it is read again and again
        time.sleep(0.05)


def change_of(record: dict[str, Any]) -> Change:
    stored = record["s3"]["object"]
    return record["eventName"], unquote_plus(stored["key"]), stored.get("versionId", "")


def check(arrived: list[tuple[str, dict[str, Any]]], done: list[list[Change]]) -> int:
    """How many came more than once. Fails where one is missing, out of order for its key, or two changes share an
    id."""
    first: dict[str, dict[str, Any]] = {}
    for name, record in arrived:
        assert record["responseElements"]["x-s4-event-id"] == name
        assert first.setdefault(name, record) == record, "one id, one change"
    changes = [change_of(record) for record in first.values()]
    assert len(changes) == len(set(changes)), "a change has one id"
    missing = {change for one in done for change in one} - set(changes)
    assert not missing, f"{len(missing)} missing: {sorted(missing)[:5]}"
    by_key: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        by_key[change[1]].append(change)
    for one in done:
        for key in {change[1] for change in one}:
            wanted = [change for change in one if change[1] == key]
            assert [change for change in by_key[key] if change in set(wanted)] == wanted, key
    for records in ([record for record in first.values() if change_of(record)[1] == key] for key in by_key):
        orders = [record["s3"]["object"]["sequencer"] for record in records]
        assert orders == sorted(orders)
    return len(arrived) - len(first)


@pytest.fixture(params=KINDS)
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    if request.param == "NATS" and Nats.program() is None:
        pytest.skip("no nats-server on this machine")
    if request.param == "Kafka" and Kafka.program() is None:
        pytest.skip("no Kafka on this machine")
    made = KINDS[request.param](tmp_path / "receiver")
    made.start()
    yield made
    made.kill()


class Load:
    """Writers on their way; `more` returns once so many more changes were acknowledged."""

    def __init__(self, endpoints: list[str], receiver: str) -> None:
        self.s3 = make_client(endpoints[0])
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        listen(self.s3, receiver)
        self.until = threading.Event()
        self.writers = [Writer(endpoints[number % len(endpoints)], number, self.until) for number in range(3)]
        for one in self.writers:
            one.start()

    def more(self, count: int) -> None:
        reached = sum(len(one.done) for one in self.writers) + count
        wait_until(lambda: sum(len(one.done) for one in self.writers) >= reached, f"{count} more changes")

    def end(self) -> list[list[Change]]:
        self.until.set()
        for one in self.writers:
            one.join()
        return [one.done for one in self.writers]


def all_arrive(receiver: Receiver, done: list[list[Change]]) -> None:
    total = {change for one in done for change in one}
    wait_until(lambda: total <= {change_of(record) for _, record in receiver.arrived()}, "every change was told", 0.5)
    check(receiver.arrived(), done)


def test_receivers_and_the_server_are_killed(tmp_path: Path, receiver: Receiver) -> None:
    server = ServerProcess(
        tmp_path / "data", "--reserve", "64MiB", "--receivers", said([receiver], tmp_path / "receivers")
    ).start()
    load = Load([server.endpoint], receiver.name)
    try:
        load.more(60)
        receiver.kill()
        load.more(60)
        receiver.start()
        load.more(60)
        server.kill()
        server.start()
        load.more(60)
        receiver.kill()
        server.kill()  # with a queue that nobody takes
        server.start()
        load.more(60)
        receiver.start()
        load.more(30)
    finally:
        done = load.end()
    all_arrive(receiver, done)
    wait_until(
        lambda: (
            f's4_events_waiting{{receiver="{receiver.name}"}} 0.0'
            in send(server.admin, "GET", "/metrics", {}).body.decode()
        ),
        "nothing waits to be told",
    )
    assert server.stop() == 0


def test_nodes_of_a_cluster_are_killed(tmp_path: Path) -> None:
    """Who leads a partition sends its events: another does after a failover, from where it finds the queue."""
    need_etcd()
    receiver = Webhook(tmp_path / "receiver")
    receiver.start()
    options = {"S4_RECEIVERS": said([receiver], tmp_path / "receivers")}
    cluster = DevCluster(
        tmp_path / "cluster", nodes=3, erasure="2+1", partitions=4, gateways=2, environment=options
    ).start()
    try:
        cluster.wait_whole()
        load = Load([str(cluster.lines[f"gateway-{number}"]["s3"]) for number in (1, 2)], receiver.name)
        try:
            load.more(60)
            for node in ("node-1", "node-3"):
                cluster.act("kill", node)
                load.more(60)
                receiver.kill()
                load.more(30)
                receiver.start()
                cluster.act("start", node)
                cluster.wait_whole()
                load.more(30)
        finally:
            done = load.end()
        all_arrive(receiver, done)
    finally:
        cluster.stop()
        receiver.kill()

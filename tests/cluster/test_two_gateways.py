"""Two gateways without state: what one acknowledged, the other sees; under load, many times, without an exception.

S4_ROUNDS says how often.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from cluster.dev import DevCluster
from cluster.etcd_process import program
from cluster.test_six_nodes import Load
from tiers import amount

pytestmark = pytest.mark.skipif(program() is None, reason="no etcd on this machine")

ROUNDS = amount("S4_ROUNDS", 80, 3000)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    made = DevCluster(tmp_path_factory.mktemp("two") / "dev", nodes=3, erasure="2+1", gateways=2)
    try:
        made.start().client("gateway-1").create_bucket(Bucket="bucket")
        with Load(made, ["node-1", "node-2"], writers=1, readers=1):
            yield made
    finally:
        made.stop()


def test_contents_do_not_wait_for_the_scrub(cluster: DevCluster) -> None:
    """On disks that take days it came to them days late: either is a job by itself."""
    answer = list(cluster.admin("node-1").call("GET", "/jobs"))[-1]
    assert {"scrub", "contents"} <= {job["name"] for job in answer["jobs"]}


def test_a_read_sees_every_write_before_it(cluster: DevCluster) -> None:
    one, other, chosen = cluster.client("gateway-1"), cluster.client("gateway-2"), random.Random(1)
    for number in range(ROUNDS):
        writer, reader = (one, other) if number % 2 else (other, one)
        key, body = f"rw/{chosen.randrange(20)}", chosen.randbytes(chosen.choice((20, 5000, 50_000)))
        writer.put_object(Bucket="bucket", Key=key, Body=body)
        assert reader.get_object(Bucket="bucket", Key=key)["Body"].read() == body
        if number % 5 == 0:
            writer.delete_object(Bucket="bucket", Key=key)
            with pytest.raises(ClientError, match="NoSuchKey"):
                reader.get_object(Bucket="bucket", Key=key)


def test_a_listing_sees_every_write_before_it(cluster: DevCluster) -> None:
    one, other, kept = cluster.client("gateway-1"), cluster.client("gateway-2"), set[str]()
    chosen = random.Random(2)
    for number in range(ROUNDS):
        writer, reader = (one, other) if number % 2 else (other, one)
        key = f"ls/{chosen.randrange(60):03}"
        if key in kept and chosen.random() < 0.5:
            writer.delete_object(Bucket="bucket", Key=key)
            kept.discard(key)
        else:
            writer.put_object(Bucket="bucket", Key=key, Body=b"x")
            kept.add(key)
        found = reader.list_objects_v2(Bucket="bucket", Prefix="ls/")
        assert [entry["Key"] for entry in found.get("Contents", [])] == sorted(kept)


def test_a_setting_is_obeyed_once_the_call_returned(cluster: DevCluster) -> None:
    one, other = cluster.client("gateway-1"), cluster.client("gateway-2")
    one.create_bucket(Bucket="settings")
    for number in range(ROUNDS):
        setter, user = (one, other) if number % 2 else (other, one)
        status = "Enabled" if number % 2 == 0 else "Suspended"
        setter.put_bucket_versioning(Bucket="settings", VersioningConfiguration={"Status": status})
        written = user.put_object(Bucket="settings", Key="k", Body=str(number).encode())
        assert (written["VersionId"] != "null") == (status == "Enabled"), number


def test_buckets_come_and_go(cluster: DevCluster) -> None:
    one, other = cluster.client("gateway-1"), cluster.client("gateway-2")
    for number in range(max(10, ROUNDS // 10)):
        maker, user = (one, other) if number % 2 else (other, one)
        maker.create_bucket(Bucket="passing")
        user.put_object(Bucket="passing", Key="k", Body=b"x")
        with pytest.raises(ClientError, match="BucketNotEmpty"):
            maker.delete_bucket(Bucket="passing")
        user.delete_object(Bucket="passing", Key="k")
        maker.delete_bucket(Bucket="passing")
        with pytest.raises(ClientError, match="NoSuchBucket"):
            user.put_object(Bucket="passing", Key="k", Body=b"x")

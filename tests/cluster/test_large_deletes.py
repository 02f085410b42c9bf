"""An object of many parts is deleted, and who lets go of what it held dies in between: whoever leads next goes on
(table GONE).

It starts a cluster, as what goes on over a failover needs one, and puts three hundred parts.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from checker import check_cluster
from cluster.dev import DevCluster
from cluster.etcd_process import needs_etcd
from process import wait_until
from s4.metadata.gone import AT_ONCE

pytestmark = needs_etcd

PARTS = 2 * AT_ONCE + 20  # three pieces
SIZE = 9000  # in shards
# Its row is gone, nothing is let go of yet; and: one piece is, the others are not.
STEPS = ("before:submit-LetGo", "after:submit-LetGo")


def make(s3: Any, key: str, bodies: list[bytes]) -> None:
    upload = s3.create_multipart_upload(Bucket="bucket", Key=key)["UploadId"]
    made = [
        s3.upload_part(Bucket="bucket", Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
        for number, body in enumerate(bodies, 1)
    ]
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(made, 1)]
    s3.complete_multipart_upload(Bucket="bucket", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def leaders(cluster: DevCluster) -> list[str]:
    return [one.config.primary for one in cluster.map().partitions]


def test_what_a_large_object_held_is_let_go_of_by_who_leads_next(tmp_path: Path) -> None:
    crash, chance = tmp_path / "crash", random.Random(1)
    environment = {
        "S4_CRASH_FILE": str(crash),
        "PYTHONPATH": str(Path(__file__).parent / "crashing"),
        "S4_LIMIT_GHOST_S": "5",
        "S4_LIMIT_PART_MIN_BYTES": "1000",
    }
    cluster = DevCluster(tmp_path / "dev", nodes=4, erasure="2+2", partitions=4, environment=environment)
    try:
        cluster.start()
        s3 = cluster.client("node-1")
        s3.create_bucket(Bucket="bucket")
        kept = chance.randbytes(SIZE)
        s3.put_object(Bucket="bucket", Key="kept", Body=kept)
        for number, step in enumerate(STEPS):
            cluster.settled()
            make(s3, f"large-{number}", [kept, *(chance.randbytes(SIZE) for _ in range(PARTS - 1))])
            cluster.settled()
            before = leaders(cluster)
            crash.write_text(step)
            with contextlib.suppress(
                BotoCoreError, ClientError
            ):  # who dies may be who was to answer; the row is gone by then
                cluster.client("node-2").delete_object(Bucket="bucket", Key=f"large-{number}")
            (died,) = wait_until(
                lambda: [one for one in cluster.lines if not cluster.alive(one)], f"a node died {step}"
            )
            led = [at for at, store in enumerate(before) if store == cluster.lines[died]["store"]]
            assert led
            wait_until(
                lambda led=led, before=before: all(leaders(cluster)[at] != before[at] for at in led), "others lead"
            )
            cluster.act("start", died)
            s3 = cluster.client("node-1")
            cluster.wait_whole()
        current, stores = cluster.at_rest()
        assert s3.get_object(Bucket="bucket", Key="kept")["Body"].read() == kept
        assert [one["Key"] for one in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["kept"]
    finally:
        cluster.stop()
    assert check_cluster(current, stores) == []

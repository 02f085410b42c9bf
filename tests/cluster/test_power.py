"""Loss of power everywhere at once: all nodes' system calls are recorded, and replayed up to one moment with what no
sync covered kept, lost or torn; the cluster starts on what that leaves, and has everything that was acknowledged.

S4_POWER_ROUNDS says how many moments are tried; etcd is taken to keep its promises.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

from botocore.exceptions import ClientError

from cluster.dev import DevCluster
from cluster.etcd_process import needs_etcd
from crash.syscalls import CALLS, Recording, parse
from crash.test_power_loss import Told, work
from process import needs_strace, wait_until
from s4.metadata.small import OLDEST
from s4.storage.directory import keeps_out
from tiers import amount

pytestmark = [
    needs_etcd,
    needs_strace,
]

ROUNDS = amount("S4_POWER_ROUNDS", 3, 100)


def record(cluster: DevCluster, told: Told) -> tuple[float, float]:
    """Work on a traced cluster until power fails; when the work began and ended."""
    cluster.start()
    s3 = cluster.client("node-1")
    s3.create_bucket(Bucket="crash")
    cluster.wait_whole()
    wait_until(lambda: all(keeps_out(cluster.directory / name, OLDEST) for name in cluster.lines), "rows have content")
    began = time.time()
    work(s3, told)
    ended = time.time()
    for line in cluster.lines.values():
        subprocess.run(["pkill", "-KILL", "-P", str(line["pid"])], check=True)  # strace's child, the node
    cluster.stop()
    return began, ended


def check(cluster: DevCluster, told: Told, moment: float) -> None:
    history, s3 = told.at(moment), cluster.client("node-2")
    for key in history.known.keys() | history.maybe.keys():
        may = [history.known.get(key)] + ([history.maybe[key]] if key in history.maybe else [])
        try:
            got = s3.get_object(Bucket="crash", Key=key.decode())["Body"].read()
        except ClientError as error:
            assert error.response["Error"]["Code"] == "NoSuchKey", (key, error)
            got = None
        assert got in may, (
            f"{key!r}: {got and len(got)} bytes, of what may be there {[value and len(value) for value in may]}"
        )


def test_power_fails_everywhere_at_once(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    environment = {
        "S4_STRACE_DIR": str(tmp_path / "calls"),
        "S4_STRACE_CALLS": CALLS,
        "S4_DEV_FORK": "off",
        "S4_SMALL": "8KiB",
        "PYTHONPATH": str(Path(__file__).parent / "crashing"),
    }
    told = Told()
    cluster = DevCluster(tmp_path / "dev", nodes=3, erasure="2+1", partitions=4, environment=environment)
    began, ended = record(cluster, told)
    recordings = {name: Recording(parse(tmp_path / "calls" / name), cluster.directory / name) for name in cluster.lines}
    chosen = random.Random(5)
    for number in range(ROUNDS):
        moment, mode = chosen.uniform(began, ended), ("lost", "torn", "kept")[number % 3]
        for name, recording in recordings.items():
            shutil.rmtree(cluster.directory / name)
            upto = next((at for at, call in enumerate(recording.calls) if call.ended > moment), len(recording.calls))
            recording.replay(cluster.directory / name, upto, mode, random.Random(number))
        again = DevCluster(cluster.directory, nodes=3, erasure="2+1", partitions=4)
        try:
            again.start()
            again.wait_whole()
            check(again, told, moment)
            again.client("node-1").put_object(Bucket="crash", Key="after", Body=b"x" * 5000)
        except BaseException as error:
            raise AssertionError(f"{mode}, {moment - began:.3f} s after the work began: {error}") from error
        finally:
            again.stop()

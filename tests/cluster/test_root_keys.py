"""A running cluster's root keys are changed: by the command, step by step, and by somebody who only changes the
environment.

Real processes, because each has the keys that it was started with: three nodes and a gateway, each of which is started
twice (some seconds of a processor, hence the tier)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from cluster.dev import ACCESS, SECRET, DevCluster
from cluster.etcd_process import needs_etcd
from process import make_client, wait_until

pytestmark = [pytest.mark.soak, needs_etcd]
NODES, ALL = ("node-1", "node-2", "node-3"), ("node-1", "node-2", "node-3", "gateway-1")
Keys = tuple[str, str]
OLD: Keys = (ACCESS, SECRET)


def admin(cluster: DevCluster, keys: Keys, *words: str, at: str = "node-1") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "S4_ROOT_ACCESS_KEY": keys[0], "S4_ROOT_SECRET_KEY": keys[1]}
    return subprocess.run(
        [sys.executable, "-m", "s4.cli", "admin", "--endpoint", cluster.lines[at]["admin"], *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=environment,
    )


def told(cluster: DevCluster, name: str, keys: Keys) -> str:
    """What a process says to who has these keys: the code of its error, empty where it serves."""
    client = make_client(cluster.lines[name]["s3"], *keys)
    try:
        client.get_object(Bucket="bucket", Key="k")["Body"].read()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    finally:
        client.close()
    return ""


def start_again(cluster: DevCluster, name: str, keys: Keys) -> None:
    """As people do it: the keys where the process has them from, then a restart."""
    path = cluster.directory / "dev.json"
    plan = json.loads(path.read_text())
    plan["access_key"], plan["secret_key"] = keys
    path.write_text(json.dumps(plan))
    cluster.act("stop", name)
    cluster.act("start", name)


@pytest.fixture
def cluster(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = DevCluster(
        tmp_path / "dev", nodes=3, erasure="2+1", gateways=1, partitions=4, environment={"S4_LIMIT_LOOK_S": "0.5"}
    )
    try:
        client = made.start().client("node-1")
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="k", Body=b"x" * 10_000)
        yield made
    finally:
        made.stop()


def test_root_keys_are_changed_while_a_cluster_serves(cluster: DevCluster) -> None:
    assert "No change of the root keys is under way" in admin(cluster, OLD, "root-keys", "finish").stderr
    said = admin(cluster, OLD, "root-keys", "change")
    assert said.returncode == 0, said.stderr
    access, secret = re.findall(r"root \w+ key: (\S+)", said.stdout)
    new = (access, secret)
    for keys in (OLD, new):
        wait_until(
            lambda keys=keys: [told(cluster, name, keys) for name in ALL] == [""] * 4, f"both pairs count: {keys[0]}"
        )  # type: ignore[misc]
    assert "under way" in admin(cluster, OLD, "root-keys", "change").stderr
    for keys, step in ((OLD, "finish"), (new, "finish"), (new, "cancel")):  # nobody was started with the new ones
        done = admin(cluster, keys, "root-keys", step)
        assert (done.returncode, "Sign this with the" in done.stderr) == (1, True), (step, done)
    for name in ALL:
        start_again(cluster, name, new)
        assert [told(cluster, name, keys) for keys in (OLD, new)] == ["", ""], (
            f"{name} has the new ones, and serves both still"
        )
    done = admin(cluster, new, "root-keys", "finish")
    assert f"{access} is the only root key now" in done.stdout, done.stderr
    wait_until(
        lambda: [told(cluster, name, OLD) for name in ALL] == ["InvalidAccessKeyId"] * 4, "the old ones end everywhere"
    )
    assert [told(cluster, name, new) for name in ALL] == [""] * 4
    start_again(cluster, "node-2", OLD)  # whose environment somebody forgot
    wait_until(
        lambda: told(cluster, "node-2", OLD) == told(cluster, "node-2", new) == "ServiceUnavailable", "it serves nobody"
    )
    assert "root keys are not this cluster's" in admin(cluster, new, "cluster", "status").stdout
    assert [told(cluster, name, new) for name in ("node-1", "node-3", "gateway-1")] == [""] * 3


def test_a_change_that_is_not_to_be_finished_is_cancelled(cluster: DevCluster) -> None:
    access, secret = re.findall(r"root \w+ key: (\S+)", admin(cluster, OLD, "root-keys", "change").stdout)
    wait_until(lambda: told(cluster, "gateway-1", (access, secret)) == "", "the new ones count")
    assert f"{ACCESS} is the only root key now" in admin(cluster, OLD, "root-keys", "cancel").stdout
    wait_until(
        lambda: [told(cluster, name, (access, secret)) for name in ALL] == ["InvalidAccessKeyId"] * 4,
        "and count no more",
    )
    assert [told(cluster, name, OLD) for name in ALL] == [""] * 4
    assert admin(cluster, OLD, "root-keys", "change").returncode == 0


def test_a_key_in_the_environment_alone_changes_nothing_and_is_told(cluster: DevCluster) -> None:
    wrong = ("another", "another secret")
    start_again(cluster, "gateway-1", wrong)
    wait_until(
        lambda: told(cluster, "gateway-1", wrong) == told(cluster, "gateway-1", OLD) == "ServiceUnavailable",
        "it serves nobody, and lets nobody in",
    )
    for keys in (wrong, OLD):
        said = admin(cluster, keys, "status", at="gateway-1")
        assert "serves nobody: the root keys are not this cluster's" in said.stdout + said.stderr, said
    assert [told(cluster, name, OLD) for name in NODES] == [""] * 3
    assert told(cluster, "node-1", wrong) == "InvalidAccessKeyId"
    start_again(cluster, "gateway-1", OLD)
    assert told(cluster, "gateway-1", OLD) == ""

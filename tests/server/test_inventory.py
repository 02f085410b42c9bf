"""What buckets hold and what sharing saves: in `s4 admin du`, `/api/stats` and the metrics, in step with what is
done."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Any

from process import ServerProcess, make_client, wait_until
from raw import call


def du(server: ServerProcess, *buckets: str) -> dict[str, tuple[int, int, int]]:
    told = json.loads(server.admin_cli("--json", "du", *buckets).stdout)
    return {row["name"]: (row["objects"], row["bytes"], row["saved_bytes"]) for row in told["buckets"]}


def test_what_buckets_hold_and_share(server: ServerProcess, s3: Any) -> None:
    one, two = (f"inventory-{name}-{os.getpid()}" for name in ("one", "two"))
    for name in (one, two):
        s3.create_bucket(Bucket=name)
    content = os.urandom(100_000)
    s3.put_object(Bucket=one, Key="a", Body=content)
    s3.put_object(Bucket=one, Key="small", Body=b"x" * 100)
    assert du(server, one, two) == {one: (2, 100_100, 0), two: (0, 0, 0)}
    s3.put_object(Bucket=two, Key="b", Body=content)
    s3.copy_object(Bucket=two, Key="c", CopySource=f"{one}/a")
    s3.put_object(Bucket=two, Key="own", Body=os.urandom(50_000))
    found = du(server, one, two)
    assert (found[one][:2], found[two][:2]) == ((2, 100_100), (3, 250_000))
    assert found[one][2] + found[two][2] == 200_000, "three uses of what is stored once"
    shown = json.loads(call(server.endpoint, "GET", "/api/stats").body)
    assert shown["buckets"][two] == {"objects": 3, "bytes": 250_000, "saved_bytes": found[two][2]}
    assert shown["dedup_saved_bytes"] >= 200_000

    def metric() -> dict[str, float]:
        text = urllib.request.urlopen(server.admin + "/metrics").read().decode()
        return {
            name: float(value) for name, value in re.findall(r's4_bucket_saved_bytes\{bucket="([^"]*)"\} (\S+)', text)
        }

    wait_until(lambda: metric().get(two) == found[two][2] and metric().get(one) == found[one][2], "the metrics follow")
    s3.delete_object(Bucket=one, Key="a")
    found = du(server, one, two)
    assert (found[one], found[two]) == ((1, 100, 0), (3, 250_000, 100_000)), "two uses are left, of which one has it"
    for key in ("b", "c", "own"):
        s3.delete_object(Bucket=two, Key=key)
    assert du(server, two) == {two: (0, 0, 0)}
    assert "total" in server.admin_cli("du").stdout
    assert "there is no bucket nobody" in server.admin_cli("du", "nobody", check=False).stderr


def test_who_reaches_the_admin_port_learns_no_names_unless_a_setting_says_so(
    server: ServerProcess, s3: Any, tmp_path: Path
) -> None:
    name = f"secret-{os.getpid()}"
    s3.create_bucket(Bucket=name)
    assert name in json.loads(call(server.endpoint, "GET", "/api/stats").body)["buckets"]
    quiet = ServerProcess(tmp_path / "quiet").start()
    make_client(quiet.endpoint).create_bucket(Bucket=name)
    for path in ("/metrics", "/api/stats"):
        assert name not in urllib.request.urlopen(quiet.admin + path).read().decode()
    assert quiet.stop() == 0
    wait_until(
        lambda: name in urllib.request.urlopen(server.admin + "/metrics").read().decode(), "it is told where it may be"
    )

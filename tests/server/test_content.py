"""Deduplication as clients and /api/stats see it: shared, counted right, correct under concurrency, space back."""

from __future__ import annotations

import json
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from process import ServerProcess, wait_until
from raw import begun, call, send, signed


def stats(server: ServerProcess) -> dict[str, float]:
    found: dict[str, float] = json.loads(call(server.endpoint, "GET", "/api/stats").body)
    return found


@pytest.fixture
def own(own_server: Any, client: Any) -> tuple[ServerProcess, Any]:
    server = own_server()
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="content")
    return server, s3


def test_equal_content_is_stored_once(own: tuple[ServerProcess, Any]) -> None:
    server, s3 = own
    body = os.urandom(100_000)
    for number in range(5):
        s3.put_object(Bucket="content", Key=f"k{number}", Body=body)
    s3.copy_object(Bucket="content", Key="copy", CopySource="content/k0")
    upload = s3.create_multipart_upload(Bucket="content", Key="mp")["UploadId"]
    part = s3.upload_part(Bucket="content", Key="mp", UploadId=upload, PartNumber=1, Body=body)
    s3.complete_multipart_upload(
        Bucket="content",
        Key="mp",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    s3.put_object(Bucket="content", Key="small", Body=b"inline has no blob")
    found = stats(server)
    assert found["dedup_unique_blobs"] == 1
    assert found["dedup_total_references"] == 7
    assert found["dedup_ratio"] == 7.0
    assert (found["objects_count"], found["buckets_count"]) == (8, 1)
    assert found["storage_used_bytes"] < 250_000
    assert found["uptime_seconds"] > 0
    for key in ("k0", "k1", "k2", "k3", "k4", "copy"):
        s3.delete_object(Bucket="content", Key=key)
        assert s3.get_object(Bucket="content", Key="mp")["Body"].read() == body
    assert stats(server)["dedup_total_references"] == 1
    s3.delete_object(Bucket="content", Key="mp")
    assert stats(server)["dedup_unique_blobs"] == 0
    wait_until(lambda: server.ask("GET", "/status")["garbage_bytes"] > 100_000, "the shards are freed")


def test_a_signed_hash_that_is_known_writes_nothing(own: tuple[ServerProcess, Any]) -> None:
    server, s3 = own
    body = os.urandom(500_000)
    s3.put_object(Bucket="content", Key="first", Body=body)
    before = server.ask("GET", "/status")["volume_bytes"]
    assert call(server.endpoint, "PUT", "/content/second", body=body).status == 200
    assert server.ask("GET", "/status")["volume_bytes"] == before
    assert s3.get_object(Bucket="content", Key="second")["Body"].read() == body
    # A hash that was merely claimed yields nothing.
    target, headers, _ = signed(server.endpoint, "PUT", "/content/stolen", body=body)
    answer = send(server.endpoint, "PUT", target, headers, bytes(500_000))
    assert answer.code == "XAmzContentSHA256Mismatch"
    with pytest.raises(ClientError):
        s3.head_object(Bucket="content", Key="stolen")
    assert stats(server)["dedup_total_references"] == 2


def test_put_and_delete_of_equal_content_at_once(own: tuple[ServerProcess, Any]) -> None:
    """Contents are few, so every put meets a delete of the same bytes somewhere; what was acknowledged reads right."""
    server, s3 = own
    contents = [bytes([number]) * (5000 + 70_000 * number) for number in range(3)]
    last: dict[str, bytes | None] = {}
    problems: list[str] = []

    def work(worker: int) -> None:
        chosen = random.Random(worker)
        for _ in range(120):
            key = f"w{worker}/{chosen.randrange(4)}"
            what = chosen.random()
            if what < 0.5:
                last[key] = contents[chosen.randrange(3)]
                s3.put_object(Bucket="content", Key=key, Body=last[key])
            elif what < 0.75:
                last[key] = None
                s3.delete_object(Bucket="content", Key=key)
            elif what < 0.9 and last.get(key) is not None:
                other = f"w{worker}/{chosen.randrange(4)}"
                if other != key:
                    s3.copy_object(Bucket="content", Key=other, CopySource=f"content/{key}")
                    last[other] = last[key]
            elif last.get(key) is not None and s3.get_object(Bucket="content", Key=key)["Body"].read() != last[key]:
                problems.append(key)

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(work, worker) for worker in range(12)]:
            future.result()
    assert not problems
    for key, body in last.items():
        if body is not None:
            assert s3.get_object(Bucket="content", Key=key)["Body"].read() == body
    report = json.loads(server.admin_cli("--json", "verify", "--deep").stdout)
    assert report["problems"] == []
    assert report["references"] == sum(body is not None for body in last.values())


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_was_acknowledged_survives_kill_under_load(own_server: Any, client: Any, workers: str) -> None:
    server = own_server("--workers", workers)
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="kill")
    acknowledged: dict[str, bytes] = {}
    stop = threading.Event()

    def work(worker: int) -> None:
        chosen = random.Random(worker)
        number = 0
        while not stop.is_set():
            key, body = f"{worker}/{number}", chosen.randbytes(chosen.choice([100, 5000, 70_000]))
            try:
                s3.put_object(Bucket="kill", Key=key, Body=body)
            except Exception:
                return
            acknowledged[key] = body
            number += 1

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) > 150, "some writes")
    server.kill()
    stop.set()
    for thread in threads:
        thread.join()
    server.start()
    for key, body in acknowledged.items():
        assert s3.get_object(Bucket="kill", Key=key)["Body"].read() == body
    # The audit takes away what the killed requests left, however young, and nothing else.
    server.admin_cli("audit", "--age", "0")
    report = json.loads(server.admin_cli("--json", "verify", "--deep").stdout)
    assert report["problems"] == []
    assert json.loads(server.admin_cli("--json", "audit", "--age", "0").stdout)["orphan_blobs"] == 0


def test_orphans_of_a_killed_upload_go(own: tuple[ServerProcess, Any]) -> None:
    server, s3 = own
    s3.put_object(Bucket="content", Key="kept", Body=b"k" * 10_000)
    with begun(server.endpoint, "PUT", "/content/never", os.urandom(5_000_000), 8_000_000):
        wait_until(lambda: server.ask("GET", "/status")["volume_bytes"] > 1_500_000, "stripes on disk")
        server.kill()
    server.start()
    assert json.loads(server.admin_cli("--json", "audit").stdout)["orphan_blobs"] == 0  # too young
    found = json.loads(server.admin_cli("--json", "audit", "--age", "0").stdout)
    assert found["orphan_blobs"] == 1
    assert found["orphan_bytes"] > 1_500_000
    assert s3.get_object(Bucket="content", Key="kept")["Body"].read() == b"k" * 10_000


def test_without_deduplication(own_server: Any, client: Any) -> None:
    server = own_server("--dedup", "off", "--inline", "100")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="plain")
    for number in range(3):
        s3.put_object(Bucket="plain", Key=str(number), Body=b"x" * 100)
    assert stats(server)["dedup_unique_blobs"] == 3
    s3.put_object(Bucket="plain", Key="i", Body=b"x" * 99)
    assert stats(server)["dedup_unique_blobs"] == 3

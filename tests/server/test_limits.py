"""Every bound in s4.limits, each at a small setting on a real server: what is at it passes, what is over is refused."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from process import ServerProcess, make_client, wait_until
from raw import begun, call, exchange, send, signed
from s4.config.limits import Limits, parse_size, with_settings
from s4.crypto.authority import Authority
from s4.gateway.context import BlobCache
from s4.gateway.memory import MemoryBudget
from s4.replica.host import RowCache
from s4.s3.errors import S3Error
from server.test_admin import admin

SMALL = {
    "put_bytes": "100000",
    "object_bytes": "150000",
    "part_min_bytes": "1000",
    "parts": "5",
    "key_bytes": "64",
    "metadata_bytes": "100",
    "header_bytes": "4KiB",
    "headers": "40",
    "request_line_bytes": "4KiB",
    "xml_bytes": "2000",
    "xml_depth": "4",
    "delete_keys": "3",
    "list_keys": "10",
    "buckets_per_user": "3",
    "users": "2",
    "keys_per_user": "2",
    "stall_s": "1",
    "keepalive_s": "1",
    "clock_skew_s": "100",
    "presign_s": "100",
    "open_volumes": "2",
    "open_tables": "20",
    "shutdown_s": "2",
}
TESTED_ELSEWHERE = {
    "least_rate_bytes": "gateway/test_memory.py:test_a_client_that_trickles_is_ended_and_one_that_is_only_slow_is_not",
    **dict.fromkeys(
        ("user_requests_per_s", "user_bytes_per_s", "bucket_requests_per_s", "bucket_bytes_per_s"),
        "server/test_rates.py:test_rates_are_of_users_and_of_buckets",
    ),
    "waiting_requests": "test_overload_is_answered_at_once_and_health_stays_open",
    "requests": "test_overload_is_answered_at_once_and_health_stays_open",
    "connections": "test_connections",
    "first_head_s": "test_who_says_nothing_is_ended",
    "admin_connections": "server/test_admin_port.py:test_admin_connections_who_say_nothing_give_way",
    "memory_bytes": "test_memory_budget",
    "memory_wait_s": "test_memory_budget",
    "row_cache_bytes": "test_caches_are_bounded",
    "blob_cache_bytes": "test_caches_are_bounded",
    "request_s": "test_a_request_has_an_end",
    "unknown_requests": "test_who_is_not_known_takes_no_places",
    "unknown_s": "test_who_is_not_known_takes_no_places",
    "waiting_commands": "test_commands_that_wait_are_bounded",
    "buckets": "test_buckets_in_all",
    "look_s": "server/test_seen_drives.py:seen",
    "slow_drive_s": "server/test_seen_drives.py:test_a_slow_drive_is_seen",
    "waiting_events": "test_events_that_wait_are_bounded",
    "ghost_s": "peer/test_tcp.py:test_a_gateway_that_went_away_is_waited_for",
}


def test_every_limit_has_a_test() -> None:
    assert {field.name for field in fields(Limits)} == set(SMALL) | set(TESTED_ELSEWHERE)
    for named in TESTED_ELSEWHERE.values():
        path, _, name = named.rpartition(":")
        assert f"def {name}(" in (Path(__file__).parents[1] / (path or "server/test_limits.py")).read_text()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = [piece for name, value in SMALL.items() for piece in ("--limit", f"{name}={value}")]
    process = ServerProcess(
        tmp_path_factory.mktemp("small") / "data", "--reserve", "64MiB", "--volume-size", "1MiB", *options
    ).start()
    yield process
    if process.process is not None:
        process.stop()


@pytest.fixture(scope="module")
def small_s3(small: ServerProcess) -> Iterator[Any]:
    from process import make_client

    client = make_client(small.endpoint)
    client.create_bucket(Bucket="limits")
    yield client
    client.close()


def code(call: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**options)
    return str(caught.value.response["Error"]["Code"])


def test_sizes_of_objects_and_parts(small_s3: Any) -> None:
    small_s3.put_object(Bucket="limits", Key="k", Body=bytes(100_000))
    assert code(small_s3.put_object, Bucket="limits", Key="k", Body=bytes(100_001)) == "EntityTooLarge"
    upload = small_s3.create_multipart_upload(Bucket="limits", Key="m")["UploadId"]
    shared = {"Bucket": "limits", "Key": "m", "UploadId": upload}
    assert code(small_s3.upload_part, **shared, PartNumber=1, Body=bytes(100_001)) == "EntityTooLarge"
    assert code(small_s3.upload_part, **shared, PartNumber=6, Body=b"") == "InvalidArgument"
    etags = [
        small_s3.upload_part(**shared, PartNumber=number, Body=bytes(size))["ETag"]
        for number, size in ((1, 100_000), (2, 999), (3, 60_000))
    ]
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    assert code(small_s3.complete_multipart_upload, **shared, MultipartUpload={"Parts": parts}) == "EntityTooSmall"
    assert (
        code(small_s3.complete_multipart_upload, **shared, MultipartUpload={"Parts": [parts[0], parts[2]]})
        == "EntityTooLarge"
    )
    small_s3.complete_multipart_upload(**shared, MultipartUpload={"Parts": parts[:2]})


def test_keys_and_metadata(small_s3: Any) -> None:
    small_s3.put_object(Bucket="limits", Key="k" * 64, Body=b"")
    assert code(small_s3.put_object, Bucket="limits", Key="k" * 65, Body=b"") == "KeyTooLongError"
    small_s3.put_object(Bucket="limits", Key="k", Body=b"", Metadata={"a": "x" * 99})
    assert (
        code(small_s3.put_object, Bucket="limits", Key="k", Body=b"", Metadata={"a": "x" * 100}) == "MetadataTooLarge"
    )


def test_heads_of_requests(small: ServerProcess) -> None:
    host = urlsplit(small.endpoint).netloc
    fine = f"GET /limits HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    assert b" 403 " in exchange(small.endpoint, (fine + "X-A: b\r\n\r\n").encode())
    for bad in (
        fine + "X-Long: " + "a" * 5000 + "\r\n\r\n",
        fine + "".join(f"X-{number}: b\r\n" for number in range(50)) + "\r\n",
        f"GET /limits?{'a' * 5000} HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "NONSENSE\r\n\r\n",
        "GET / HTTP/1.1\r\nbroken\r\n\r\n",
    ):
        answer = exchange(small.endpoint, bad.encode())
        assert answer.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4")), answer
        assert b"<Error>" in answer
        assert b"x-amz-request-id" in answer.lower()


def test_xml_and_counts(small: ServerProcess, small_s3: Any) -> None:
    body = b"<Delete>" + b" " * 2000 + b"</Delete>"
    assert call(small.endpoint, "POST", "/limits", query="delete", body=body).code == "MaxMessageLengthExceeded"
    deep = b"<Delete><a><b><c><d><e/></d></c></b></a></Delete>"
    assert call(small.endpoint, "POST", "/limits", query="delete", body=deep).code == "MalformedXML"
    objects = [{"Key": str(number)} for number in range(4)]
    small_s3.delete_objects(Bucket="limits", Delete={"Objects": objects[:3]})
    assert code(small_s3.delete_objects, Bucket="limits", Delete={"Objects": objects}) == "MalformedXML"
    small_s3.create_bucket(Bucket="many")
    for number in range(12):
        small_s3.put_object(Bucket="many", Key=str(number), Body=b"")
    page = small_s3.list_objects_v2(Bucket="many", MaxKeys=1000)
    assert (page["KeyCount"], page["MaxKeys"], page["IsTruncated"]) == (10, 10, True)
    small_s3.create_bucket(Bucket="third")
    assert code(small_s3.create_bucket, Bucket="fourth") == "TooManyBuckets"


def test_users_and_keys(small: ServerProcess) -> None:
    for name in ("one", "two"):
        small.admin_cli("user", "add", name, "--grant", "Reader")
    assert "UsersPerAccount: 2" in small.admin_cli("user", "add", "three", "--grant", "Reader", check=False).stderr
    small.admin_cli("user", "add-key", "one")
    assert "AccessKeysPerUser: 2" in small.admin_cli("user", "add-key", "one", check=False).stderr


def test_clocks(small: ServerProcess) -> None:
    assert call(small.endpoint, "GET", "/limits/k", presign_s=101).code == "AuthorizationQueryParametersError"
    assert call(small.endpoint, "GET", "/limits/none", presign_s=100).code == "NoSuchKey"


def test_a_body_that_stalls_is_cut_off(small: ServerProcess) -> None:
    target, headers, _ = signed(small.endpoint, "PUT", "/limits/k", body=b"x" * 5000)
    head = f"PUT {target} HTTP/1.1\r\nHost: {urlsplit(small.endpoint).netloc}\r\nContent-Length: 5000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() != "host")
    started = time.monotonic()
    answer = exchange(small.endpoint, head.encode() + b"\r\nxxx")
    assert b"RequestTimeout" in answer
    assert 0.9 < time.monotonic() - started < 10


def test_an_idle_connection_is_closed(small: ServerProcess) -> None:
    started = time.monotonic()
    assert exchange(small.endpoint, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert time.monotonic() - started < 10


def test_open_files_stay_bounded(small: ServerProcess, small_s3: Any) -> None:
    for number in range(60):
        small_s3.put_object(Bucket="limits", Key=f"v{number}", Body=os.urandom(90_000))
    for number in range(60):
        small_s3.get_object(Bucket="limits", Key=f"v{number}")["Body"].read()
    assert small.process is not None
    names = [str(entry.readlink()) for entry in Path(f"/proc/{small.process.pid}/fd").iterdir()]
    assert len([name for name in names if name.endswith(".vol")]) <= 3
    assert len(list((small.directory / "volumes").glob("*.vol"))) > 4


def test_overload_is_answered_at_once_and_health_stays_open(own_server: Any, client: Any) -> None:
    """Of the one who brings it, that is: another user is served meanwhile."""
    server = own_server("--limit", "requests=4", "--limit", "waiting_requests=4")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="busy")
    other = admin(server, "user", "add", "other", "--grant", "Reader:busy")
    body = b"<Delete><Object><Key>k</Key></Object></Delete>"
    # who sends a document is no client that is waited for: one is at work, two have half of where others wait
    asked: dict[str, Any] = {"query": "delete=", "body": body, "payload": None}
    held = [begun(server.endpoint, "POST", "/busy", b"", len(body), **asked) for _ in range(3)]
    refused = wait_until(lambda: (one := call(server.endpoint, "GET", "/busy")).status == 503 and one, "a refusal")
    assert (refused.code, refused.headers["retry-after"]) == ("SlowDown", "1")
    for path in ("/healthz", "/readyz"):
        assert send(server.endpoint, "GET", path, {}).status == 200
    assert call(server.endpoint, "GET", "/busy", access=other["access_key"], secret=other["secret_key"]).status == 200
    for connection in held:
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.close()
    assert wait_until(lambda: call(server.endpoint, "GET", "/busy").status == 200, "service again")


def test_who_is_not_known_takes_no_places(own_server: Any) -> None:
    """Forms and IAM calls that bring a byte now and then, from nobody: others are served, and these end."""
    server = own_server("--limit", "unknown_requests=2", "--limit", "unknown_s=2", "--limit", "requests=4")
    address = urlsplit(server.endpoint)
    kinds = {"/": "application/x-www-form-urlencoded", "/bucket": "multipart/form-data; boundary=b"}
    held = []
    for path, kind in 6 * list(kinds.items()):  # more of each kind than there are places for all
        held.append(socket.create_connection((address.hostname, address.port), timeout=60))
        held[-1].sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 400000\r\n\r\n-".encode()
        )
        assert call(server.endpoint, "GET", "/").status == 200, len(held)
    for connection in held:
        assert b"RequestTimeout" in connection.recv(4096)
        connection.close()


def test_connections(own_server: Any, client: Any) -> None:
    """All of them say nothing, or are between two requests: the next one is served all the same. Where a request is in
    progress on each, it is refused."""
    server = own_server("--limit", "connections=3", "--limit", "stall_s=600")
    client(server.endpoint).create_bucket(Bucket="busy")
    address = urlsplit(server.endpoint)
    silent = [socket.create_connection((address.hostname, address.port), timeout=60) for _ in range(6)]
    once = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for _ in range(6):
        assert exchange(server.endpoint, once).startswith(b"HTTP/1.1 200")
    for connection in silent[:4]:  # the oldest
        assert ended(connection)
    target, headers, _ = signed(server.endpoint, "PUT", "/busy/k", body=b"x" * 10)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() != "host")
    head = f"PUT {target} HTTP/1.1\r\nHost: {address.netloc}\r\nExpect: 100-continue\r\nContent-Length: 10\r\n{lines}\r\n".encode()
    busy = [socket.create_connection((address.hostname, address.port), timeout=60) for _ in range(3)]
    for connection in busy:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
    assert b"SlowDown" in exchange(server.endpoint, b"")
    for connection in busy:
        connection.sendall(b"x" * 10)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert exchange(server.endpoint, once).startswith(b"HTTP/1.1 200")
    for connection in (*silent, *busy):
        connection.close()


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def asked(host: str, port: int) -> socket.socket | None:
    """A connection that has brought a request, if it was in time with it."""
    connection = socket.create_connection((host, port), timeout=60)
    with contextlib.suppress(ConnectionError):
        connection.sendall(HEALTH)
        if connection.recv(1000).startswith(b"HTTP/1.1 200"):
            return connection
    connection.close()
    return None


def ended(connection: socket.socket) -> bool:
    """Waits until the other side ends a connection: without a word, but for HTTP at a port that speaks TLS."""
    try:
        said = connection.recv(1000)
        return said == b"" or (b"HTTPS" in said and connection.recv(1000) == b"")
    except ConnectionError:
        return True


def test_who_says_nothing_is_ended(own_server: Any, tmp_path: Path) -> None:
    """Not a byte, half a head, half a handshake: a new connection has so long for its first request. One that brought
    it may wait longer."""
    certificate, key = Authority(tmp_path / "tls").issue("localhost")[1:]
    for more in ((), ("--certificate", str(certificate), "--key", str(key))):
        server = own_server("--limit", "first_head_s=0.5", "--limit", "keepalive_s=600", *more)
        address = urlsplit(server.endpoint)
        known = wait_until(
            lambda address=address, more=more: more or asked(address.hostname, address.port), "an answer in time"
        )
        said = (b"", b"GET /healthz HTTP/1.1\r\nHo", b"\x16\x03\x01")
        silent = [socket.create_connection((address.hostname, address.port), timeout=60) for _ in said]
        for connection, begin in zip(silent, said, strict=True):
            connection.sendall(begin)
        assert all(ended(connection) for connection in silent if more or connection is not silent[2])
        if not more:
            known.sendall(HEALTH)
            assert known.recv(1000).startswith(b"HTTP/1.1 200")
            known.close()
        for connection in silent:
            connection.close()
        server.stop()


def test_buckets_in_all(own_server: Any, client: Any) -> None:
    s3 = client(own_server("--limit", "buckets=2").endpoint)
    s3.create_bucket(Bucket="one")
    s3.create_bucket(Bucket="two")
    assert code(s3.create_bucket, Bucket="three") == "TooManyBuckets"


def test_a_request_has_an_end(own_server: Any, client: Any) -> None:
    server = own_server("--limit", "request_s=1")
    client(server.endpoint).create_bucket(Bucket="slow")
    target, headers, _ = signed(server.endpoint, "PUT", "/slow/k", body=b"x" * 1_000_000)
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=20)
    connection.putrequest("PUT", target, skip_host=True)
    for name, value in {"Host": urlsplit(server.endpoint).netloc, **headers, "Content-Length": "1000000"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.1):
            try:
                connection.send(b"x")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    response = connection.getresponse()
    assert (response.status, b"RequestTimeout" in response.read()) == (400, True)
    stop.set()
    thread.join()
    connection.close()


def test_commands_that_wait_are_bounded(own_server: Any, client: Any) -> None:
    server = own_server("--limit", "waiting_commands=2")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="queue")

    def put(number: int) -> str:
        try:
            s3.put_object(Bucket="queue", Key=str(number), Body=b"x")
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "OK"

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(put, range(600)))
    assert set(answers) <= {"OK", "SlowDown"}
    listed = s3.get_paginator("list_objects_v2").paginate(Bucket="queue")
    assert sum(page["KeyCount"] for page in listed) == answers.count("OK")


def test_memory_budget() -> None:
    async def test() -> None:
        budget = MemoryBudget(100, 0.05)
        async with budget.hold(80):
            with pytest.raises(S3Error) as caught:
                async with budget.hold(30):
                    pass
            assert (caught.value.code, caught.value.headers["Retry-After"]) == ("SlowDown", "1")
            async with budget.hold(20):
                assert budget.used_bytes == 100
            waiting = asyncio.ensure_future(_hold(budget, 1000))
            await asyncio.sleep(0)
        assert await waiting == 100  # more than there is counts as all there is
        assert budget.used_bytes == 0

    asyncio.run(test())


async def _hold(budget: MemoryBudget, size: int) -> int:
    async with budget.hold(size):
        return budget.used_bytes


def test_caches_are_bounded() -> None:
    rows = RowCache(10_000)
    for number in range(1000):
        rows.put(b"%d" % number, (b"key", b"v" * 100))
    assert rows.size_bytes <= 10_000
    assert rows.get(b"999") == (b"key", b"v" * 100)
    assert rows.get(b"0") is None
    rows.drop(b"999")
    assert rows.get(b"999") is None
    blobs = BlobCache(10_000)
    for number in range(100):
        blobs.put(b"%d" % number, bytes(1000))
    assert blobs.size_bytes <= 10_000
    assert blobs.get(b"99") == bytes(1000)


def test_settings_of_limits() -> None:
    assert with_settings(Limits(), {"put_bytes": "5MiB", "stall_s": "0.5"}).put_bytes == 5 << 20
    assert [parse_size(text) for text in ("1", "2K", "3 MiB", "1g")] == [1, 2048, 3 << 20, 1 << 30]
    for wrong in ({"nonsense": "1"}, {"put_bytes": "-1"}, {"put_bytes": "0"}, {"put_bytes": "five"}):
        with pytest.raises(ValueError, match=r"limit|size"):
            with_settings(Limits(), wrong)


def test_shutdown_waits_and_then_cuts_off(small: ServerProcess) -> None:
    with begun(small.endpoint, "PUT", "/limits/never", b"", 10):
        started = time.monotonic()
        assert small.stop() == 0
        assert time.monotonic() - started < 15


def test_events_that_wait_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "receivers").write_text("away: {webhook: 'http://127.0.0.1:9/'}")
    server = ServerProcess(
        tmp_path / "data",
        "--reserve",
        "64MiB",
        "--limit",
        "waiting_events=5",
        "--receivers",
        str(tmp_path / "receivers"),
    ).start()
    s3 = make_client(server.endpoint)
    s3.create_bucket(Bucket="told")
    rule = {"QueueArn": "arn:aws:sqs:us-east-1:1:away", "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(Bucket="told", NotificationConfiguration={"QueueConfigurations": [rule]})

    def refused() -> bool:
        try:
            s3.put_object(Bucket="told", Key="k", Body=b"x")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "SlowDown"
            return True
        return False

    wait_until(refused, "a change is refused")
    s3.put_bucket_notification_configuration(Bucket="told", NotificationConfiguration={})
    assert not refused()
    assert server.stop() == 0

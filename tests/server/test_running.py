"""Running a server: start and stop, health, metrics over workers, TLS, virtual hosts, full disks, logs, fatal
errors."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from process import ServerProcess, injected, needs_strace, run, start, wait_until
from raw import begun, call, exchange, send, signed
from s4.config.limits import parse_size


def metric(server: ServerProcess, pattern: str) -> float:
    text = send(server.admin, "GET", "/metrics", {}).body.decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(pattern, line))


@pytest.mark.parametrize("workers", ["0", "3"])
def test_metrics_are_right_across_workers(own_server: Any, client: Any, workers: str) -> None:
    server = own_server("--workers", workers)
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="counted")
    for number in range(40):  # each client has connections of its own, so that every worker gets some
        client(server.endpoint).put_object(Bucket="counted", Key=str(number), Body=b"x" * 5000)
    assert wait_until(
        lambda: metric(server, r's4_requests_total\{code="OK",operation="PutObject"\}') == 40, "all are counted"
    )
    assert metric(server, r's4_request_seconds_count\{operation="PutObject"\}') == 40
    assert metric(server, "s4_received_bytes_total") >= 200_000
    assert metric(server, "s4_objects ") == 40
    wait_until(lambda: metric(server, "s4_requests_in_flight") == 0, "the gauge is looked at twice a second")


def test_workers_see_each_others_settings_at_once(own_server: Any, client: Any) -> None:
    """Rule L2: when the call that changes a setting returns, every gateway obeys it."""
    server = own_server("--workers", "3")
    clients = [client(server.endpoint) for _ in range(8)]
    for number in range(10):
        name = f"bucket-{number}"
        clients[0].create_bucket(Bucket=name)
        for other in clients:
            assert "VersionId" not in other.put_object(Bucket=name, Key="k", Body=b"x")
        clients[number % 8].put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        for other in clients:
            assert other.put_object(Bucket=name, Key="k", Body=b"x")["VersionId"] != "null"
    made = json.loads(server.admin_cli("--json", "user", "add", "ana", "--grant", "Writer").stdout)
    people = [client(server.endpoint, made["access_key"], made["secret_key"]) for _ in range(6)]
    for one in people:
        one.put_object(Bucket="bucket-0", Key="a", Body=b"x")
    server.admin_cli("user", "set", "ana", "--grant", "Reader")
    for one in people:
        with pytest.raises(ClientError, match="AccessDenied"):
            one.put_object(Bucket="bucket-0", Key="a", Body=b"x")
    server.admin_cli("user", "remove", "ana")
    for one in people:
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            one.get_object(Bucket="bucket-0", Key="a")
    clients[3].create_bucket(Bucket="gone")
    clients[4].delete_bucket(Bucket="gone")
    for one in clients:
        with pytest.raises(ClientError, match="NoSuchBucket"):
            one.put_object(Bucket="gone", Key="k", Body=b"x")


def test_a_worker_that_dies_is_started_again(own_server: Any, client: Any) -> None:
    server = own_server("--workers", "2")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="workers")
    assert server.process is not None
    children = subprocess.run(
        ["pgrep", "-P", str(server.process.pid), "-f", "s4.server.worker"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(children) == 2
    for child in children:
        os.kill(int(child), 9)

    def works() -> bool:
        try:
            client(server.endpoint).put_object(Bucket="workers", Key="k", Body=b"x" * 5000)
        except Exception:
            return False
        return True

    wait_until(works, "service again")


def test_the_audit_log_of_workers_comes_out_of_the_server(own_server: Any, client: Any) -> None:
    """It was written into a pipe that nobody read, and a worker stood for ever once that was full."""
    server = own_server("--workers", "1", "--audit-log", "-")
    assert server.process is not None
    output, seen = server.process.stdout, list[str]()
    reader = threading.Thread(target=lambda: seen.extend(json.loads(line)["key"] for line in output))
    reader.start()
    s3, keys = client(server.endpoint), [f"{number:0>900}" for number in range(300)]
    s3.create_bucket(Bucket="audited")
    for key in keys:
        s3.put_object(Bucket="audited", Key=key, Body=b"x")
    server.process.send_signal(signal.SIGTERM)
    reader.join()
    server.kill()
    assert [key for key in seen if key in keys] == keys


def test_requests_in_flight_end_before_the_server_does(own_server: Any, client: Any) -> None:
    server = own_server()
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="slow")
    address = urlsplit(server.endpoint)
    with begun(server.endpoint, "PUT", "/slow/k", b"xxxxx", 10) as connection:
        wait_until(lambda: metric(server, "s4_requests_in_flight") == 1, "the request is in flight")
        stopped: list[int] = []
        thread = threading.Thread(target=lambda: stopped.append(server.stop()))
        thread.start()
        wait_until(lambda: _refused(address.hostname, address.port), "no new connections")
        connection.sendall(b"xxxxx")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    thread.join()
    assert stopped == [0]
    server.start()
    assert s3.get_object(Bucket="slow", Key="k")["Body"].read() == b"x" * 10


def _refused(host: str | None, port: int | None) -> bool:
    try:
        socket.create_connection((host or "", port or 0), timeout=1).close()
    except OSError:
        return True
    return False


def make_certificate(directory: Path, name: str, days: int = 1) -> bytes:
    """A self-signed certificate in directory, for so many days to come; returns it as DER."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(pem))
    return certificate.public_bytes(serialization.Encoding.DER)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_https_and_a_new_certificate_without_restart(
    own_server: Any, client: Any, tmp_path: Path, workers: str
) -> None:
    first = make_certificate(tmp_path, "first")
    server = own_server(
        "--certificate", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"), "--workers", workers
    )
    assert server.endpoint.startswith("https://")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="tls")
    body = os.urandom(3_000_000)
    s3.put_object(Bucket="tls", Key="k", Body=body)
    assert s3.get_object(Bucket="tls", Key="k")["Body"].read() == body
    address = urlsplit(server.endpoint)

    def shown() -> bytes:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((address.hostname or "", address.port or 0)))

    assert shown() == first

    def days_left() -> int:
        told = send(server.admin.replace("https:", "http:"), "GET", "/metrics", {}).body.decode()
        found = re.search(r'^s4_certificate_ends_timestamp_seconds\{certificate="S3"\} (\S+)$', told, re.MULTILINE)
        assert found is not None
        return round((float(found[1]) - time.time()) / 86400)

    assert days_left() == 1
    second = make_certificate(tmp_path, "second", days=9)
    assert server.process is not None
    server.process.send_signal(1)
    wait_until(lambda: shown() == second, "the new certificate")
    (tmp_path / "cert.pem").write_text("broken")
    server.process.send_signal(1)
    wait_until(lambda: "cannot be used" in server.log.read_text(), "the complaint")
    assert shown() == second
    wait_until(lambda: days_left() == 9, "it is told until when the new one holds")
    assert s3.get_object(Bucket="tls", Key="k")["ContentLength"] == len(body)


def test_virtual_hosts(own_server: Any, client: Any) -> None:
    server = own_server("--domain", "s4.test,other.test")
    client(server.endpoint).create_bucket(Bucket="virtual")
    for domain in ("s4.test", "other.test:9000"):
        host = f"virtual.{domain}"
        target, headers, body = signed(f"http://{host}", "PUT", "/a/b c", body=b"x")
        assert send(server.endpoint, "PUT", target, {"Host": host, **headers}, body).status == 200
        target, headers, _ = signed(f"http://{host}", "GET", "/", query="list-type=2")
        assert b"<Key>a/b c</Key>" in send(server.endpoint, "GET", target, {"Host": host, **headers}).body
    assert client(server.endpoint).get_object(Bucket="virtual", Key="a/b c")["Body"].read() == b"x"


def test_health_is_not_what_a_host_of_a_bucket_shows(own_server: Any, client: Any) -> None:
    server = own_server("--domain", "s4.test", "--website-domain", "web.test")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="virtual")
    s3.put_bucket_website(Bucket="virtual", WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})
    for path in ("/healthz", "/readyz"):
        health = send(server.endpoint, "GET", path, {}).body
        s3.put_object(Bucket="virtual", Key=path[1:], Body=b"an object")
        host = "virtual.s4.test"
        target, headers, _ = signed(f"http://{host}", "GET", path)
        assert send(server.endpoint, "GET", target, {"Host": host, **headers}).body == b"an object"
        visitor = send(server.endpoint, "GET", path, {"Host": "virtual.web.test"})
        assert visitor.status == 403
        for own in ("s4.test", "web.test:9000", "127.0.0.1", "other.example"):
            said = send(server.endpoint, "GET", path, {"Host": own})
            assert (said.status, said.body) == (200, health)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 96 MiB in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small file system needs root and the right to mount")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("reserve", ["40MiB", "16MiB"])
def test_a_full_disk_is_507_and_deletes_go_on(small_disk: Path, client: Any, reserve: str) -> None:
    server = ServerProcess(small_disk / "data", "--reserve", reserve, "--volume-size", "8MiB", "--preallocate", "1MiB")
    server.log = small_disk.parent / "full.log"
    server.start()
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="full")
    kept: dict[str, bytes] = {}
    for size in (1_000_000, 50_000, 3000):  # down to inline objects, each until it is refused
        for number in range(len(kept), len(kept) + 20_000):
            body = os.urandom(size)
            try:
                s3.put_object(Bucket="full", Key=str(number), Body=body)
            except ClientError as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 507
                assert error.response["Error"]["Code"] == "StorageFull"
                break
            kept[str(number)] = body
        else:
            raise AssertionError(f"objects of {size} bytes were never refused")
    assert len(kept) > 20
    assert shutil.disk_usage(small_disk).free > parse_size(reserve) - 2_000_000
    for key, body in kept.items():
        assert s3.get_object(Bucket="full", Key=key)["Body"].read() == body
    for number in range(15):
        s3.delete_object(Bucket="full", Key=str(number))
        del kept[str(number)]

    def accepted() -> bool:
        try:
            s3.put_object(Bucket="full", Key="again", Body=b"a" * 100_000)
        except ClientError:
            return False
        return True

    wait_until(accepted, "room again")
    server.kill()
    server.start()
    for key, body in kept.items():
        assert s3.get_object(Bucket="full", Key=key)["Body"].read() == body
    assert server.admin_cli("verify", "--deep").returncode == 0
    assert server.stop() == 0


@pytest.mark.parametrize("durability", ["interval", "none"])
def test_other_durabilities_survive_kill_of_the_process(own_server: Any, client: Any, durability: str) -> None:
    """A killed process loses nothing that the kernel has; what loss of power may cost is the setting's meaning."""
    server = own_server("--durability", durability)
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="durable")
    bodies = {str(number): os.urandom(8000) for number in range(20)}
    for key, body in bodies.items():
        s3.put_object(Bucket="durable", Key=key, Body=body)
    server.kill()
    server.start()
    for key, body in bodies.items():
        assert s3.get_object(Bucket="durable", Key=key)["Body"].read() == body


def test_one_server_to_a_directory_and_clear_messages(own_server: Any, tmp_path: Path) -> None:
    server = own_server()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").touch()

    def said(*arguments: str, **environment: str) -> str:
        done = run(["server", *arguments, "--admin-listen", "127.0.0.1:0"], {**os.environ, **environment}, check=False)
        assert done.returncode == 2
        return done.stderr

    assert "in use by another s4 server" in said(str(server.directory), "--listen", "127.0.0.1:0")
    assert "cannot listen" in said(str(tmp_path / "b"), "--listen", urlsplit(server.endpoint).netloc)
    assert "files that are not S4's" in said(str(foreign), "--listen", "127.0.0.1:0")
    assert "HOST:PORT" in said(str(tmp_path / "c"), "--listen", "nonsense")
    assert "no limit named 'x'" in said(str(tmp_path / "c"), "--limit", "x=1")
    assert "go together" in said(str(tmp_path / "c"), "--certificate", "x")
    assert "both" in said(
        str(tmp_path / "c"), "--listen", "127.0.0.1:0", S4_ROOT_ACCESS_KEY="abc", S4_ROOT_SECRET_KEY=""
    )
    assert "--garbage half: give a number from 0.01 to 1" in said(str(tmp_path / "c"), "--garbage", "half")
    assert "not a size" in said(str(tmp_path / "c"), "--reserve", "much")


def test_root_keys_are_made_printed_once_and_kept(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("S4_")}
    said = []
    for _ in range(2):
        where = [str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        with (tmp_path / "log").open("ab") as log:
            process = start(["server", *where, "--check"], clean, log)
        assert process.stdout is not None
        with process.stdout:
            lines = []
            for line in process.stdout:
                lines.append(line.decode())
                if line.startswith(b"first object put and got back"):
                    process.send_signal(signal.SIGTERM)
        said.append("".join(lines))
        assert process.wait(60) == 0
    assert "root secret key: " in said[0]
    assert "secret" not in said[1]
    open_to_others = [path for path in (tmp_path / "data").rglob("*") if path.stat().st_mode & 0o077]
    assert not open_to_others


def test_logs_and_audit(own_server: Any, client: Any) -> None:
    server = own_server("--access-log", "on", "--log-format", "json")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="audit")
    answer = s3.put_object(Bucket="audit", Key="päth/k", Body=b"secret body")
    s3.get_object(Bucket="audit", Key="päth/k")
    with pytest.raises(ClientError):
        s3.delete_bucket(Bucket="audit")
    server.admin_cli("user", "add", "ana", "--grant", "Reader")
    request_id = answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"]
    path = server.directory / "audit.log"
    wait_until(lambda: path.read_text().count("\n") >= 5, "five lines")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["operation"] for line in lines] == [
        "CreateBucket",
        "PutObject",
        "DeleteBucket",
        "admin PUT /admin/v1/users/ana",
        "admin POST /admin/v1/users/ana/keys",
    ]
    put = lines[1]
    assert (put["request_id"], put["user"], put["bucket"], put["key"], put["status"], put["code"]) == (
        request_id,
        "root",
        "audit",
        "päth/k",
        200,
        "OK",
    )
    assert lines[2]["code"] == "BucketNotEmpty"
    logged = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert any(line.get("request_id") == request_id and line["operation"] == "PutObject" for line in logged)
    everything = (
        server.log.read_text()
        + (server.directory / "audit.log").read_text()
        + send(server.admin, "GET", "/metrics", {}).body.decode()
    )
    assert "testrootsecret" not in everything
    assert "secret body" not in everything


@needs_strace
@pytest.mark.parametrize("call_name", ["fdatasync", "pwritev"])
@pytest.mark.parametrize("restart", ["off", "on"])
def test_a_failing_disk_ends_the_process_and_the_next_start_recovers(
    own_server: Any, client: Any, call_name: str, restart: str
) -> None:
    """By itself, on the same port and process id; a disk that keeps failing ends it for good."""
    server = own_server(environment={"S4_RESTART": restart})
    s3 = client(server.endpoint, read_timeout=5)
    s3.create_bucket(Bucket="eio")
    kept = {str(number): os.urandom(9000) for number in range(10)}
    for key, body in kept.items():
        s3.put_object(Bucket="eio", Key=key, Body=body)
    with injected(server, "pwritev,pwritev2" if call_name == "pwritev" else call_name, "error=EIO:when=3+"):
        for number in range(100, 200):
            body = os.urandom(9000)
            try:
                s3.put_object(Bucket="eio", Key=str(number), Body=body)
            except Exception:
                if restart == "on" and server.process is not None and server.process.poll() is None:
                    continue
                break
            kept[str(number)] = body
        assert server._wait() == 70
    assert "durability is in doubt" in server.log.read_text()
    assert server.log.read_text().count("starting again") == (7 if restart == "on" else 0)
    server.start()
    for key, body in kept.items():
        assert s3.get_object(Bucket="eio", Key=key)["Body"].read() == body
    assert server.admin_cli("audit", "--age", "0").returncode == 0
    assert server.admin_cli("verify", "--deep").returncode == 0


def test_nothing_gets_into_headers(server: ServerProcess, bucket: str) -> None:
    for value in ("a%0D%0AX-Evil:1", "a%00b"):
        answer = call(server.endpoint, "GET", f"/{bucket}/k", query=f"response-content-type={value}")
        assert "x-evil" not in answer.headers
    bad = exchange(server.endpoint, b"GET /%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"\r\nX-Evil" not in bad


def test_internal_paths_are_not_reachable(server: ServerProcess) -> None:
    for path in ("/admin/v1/status", "/metrics", "/../s4.json", "/%2e%2e/root.json", "/healthz/../x"):
        answer = send(server.endpoint, "GET", path, {})
        assert (answer.status, answer.code) == (403, "AccessDenied"), path
    assert send(server.endpoint, "GET", "/api/stats", {}).status == 403

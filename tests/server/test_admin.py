"""`s4 admin` against a real server: people, roles, upkeep; and what the admin port refuses."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from botocore.exceptions import ClientError

from process import ServerProcess, run, wait_until
from raw import exchange, send, signed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    process = ServerProcess(
        tmp_path_factory.mktemp("admin") / "data", "--reserve", "64MiB", "--volume-size", "1MiB"
    ).start()
    yield process
    process.stop()


def admin(server: ServerProcess, *arguments: str) -> Any:
    return json.loads(server.admin_cli("--json", *arguments).stdout)


def allowed(call: Any, **options: Any) -> bool:
    try:
        call(**options)
    except ClientError as error:
        assert error.response["Error"]["Code"] in ("AccessDenied", "403"), error
        return False
    return True


def test_roles_and_scopes(server: ServerProcess, client: Any) -> None:
    root = client(server.endpoint)
    for name in ("photos-a", "photos-b", "other"):
        root.create_bucket(Bucket=name)
        root.put_object(Bucket=name, Key="k", Body=b"x")
    clients = {}
    for name, grant in (
        ("reader", "Reader:photos-*"),
        ("writer", "Writer:photos-a"),
        ("super", "SuperUser"),
        ("both", "Reader"),
    ):
        made = admin(server, "user", "add", name, "--grant", grant)
        clients[name] = client(server.endpoint, made["access_key"], made["secret_key"])
    reader, writer, both = clients["reader"], clients["writer"], clients["both"]
    assert allowed(reader.get_object, Bucket="photos-a", Key="k")
    assert allowed(reader.head_object, Bucket="photos-b", Key="k")
    assert allowed(reader.list_objects_v2, Bucket="photos-b")
    assert not allowed(reader.put_object, Bucket="photos-a", Key="k", Body=b"y")
    assert not allowed(reader.delete_object, Bucket="photos-a", Key="k")
    assert not allowed(reader.get_object, Bucket="other", Key="k")
    assert [item["Name"] for item in reader.list_buckets()["Buckets"]] == ["photos-a", "photos-b"]
    assert allowed(writer.put_object, Bucket="photos-a", Key="w", Body=b"y")
    assert not allowed(writer.put_object, Bucket="photos-b", Key="w", Body=b"y")
    assert not allowed(writer.create_bucket, Bucket="mine")
    assert allowed(clients["super"].create_bucket, Bucket="mine")
    # The source of a copy needs to be readable, and nothing tells whether it is there.
    assert not allowed(writer.copy_object, Bucket="photos-a", Key="c", CopySource="other/k")
    assert not allowed(writer.copy_object, Bucket="photos-a", Key="c", CopySource="other/none")
    assert not allowed(writer.copy_object, Bucket="photos-a", Key="c", CopySource="no-such-bucket/none")
    upload = writer.create_multipart_upload(Bucket="photos-a", Key="m")["UploadId"]
    assert not allowed(
        writer.upload_part_copy, Bucket="photos-a", Key="m", UploadId=upload, PartNumber=1, CopySource="other/k"
    )
    assert not allowed(reader.get_object, Bucket="no-such-bucket", Key="k", IfMatch='"x"')
    assert allowed(both.get_object, Bucket="other", Key="k")
    admin(server, "user", "set", "both", "--grant", "Reader:photos-*")
    assert not allowed(both.get_object, Bucket="other", Key="k")
    admin(server, "user", "disable", "both")
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        both.list_buckets()
    admin(server, "user", "set", "both", "--grant", "Reader:photos-*")
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        both.list_buckets()  # other grants serve nobody again who was refused
    assert admin(server, "user", "enable", "both") == {"name": "both", "grants": ["Reader:photos-*"], "enabled": True}
    assert allowed(both.get_object, Bucket="photos-a", Key="k")
    key = admin(server, "user", "add-key", "both")
    newer = client(server.endpoint, key["access_key"], key["secret_key"])
    assert allowed(newer.get_object, Bucket="photos-a", Key="k")
    admin(server, "user", "remove-key", "both", key["access_key"])
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        newer.list_buckets()
    assert "bothe cannot be found" in server.admin_cli("user", "enable", "bothe", check=False).stderr
    users = {user["name"]: user for user in admin(server, "user", "list")["users"]}
    assert users["both"]["grants"] == ["Reader:photos-*"]
    assert "secret" not in json.dumps(users)
    admin(server, "user", "remove", "both")
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        both.list_buckets()


def test_wrong_arguments_say_what_to_change(server: ServerProcess, client: Any) -> None:
    client(server.endpoint).create_bucket(Bucket="two-prefixes")
    for arguments, text in (
        (("user", "add", "x", "--grant", "Boss"), "Reader, Writer, SuperUser"),
        (("user", "add", "root", "--grant", "Reader"), "User with name root already exists"),
        (("user", "remove", "nobody"), "user with name nobody cannot be found"),
        (("user", "add", "a b", "--grant", "Reader"), "alphanumeric characters"),
        (("compact", "--garbage", "7"), "share of garbage"),
        (("rename-prefix", "none", "a/", "b/"), "bucket does not exist"),
        (("rename-prefix", "two-prefixes", "a/", "a/b/"), "neither prefix"),
    ):
        done = server.admin_cli(*arguments, check=False)
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    done = server.admin_cli("--endpoint", "127.0.0.1:1", "status", check=False)
    assert "cannot reach" in done.stderr


def test_the_admin_port_is_for_superusers(server: ServerProcess) -> None:
    made = admin(server, "user", "add", "plain", "--grant", "Writer")
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": made["access_key"], "AWS_SECRET_ACCESS_KEY": made["secret_key"]}
    done = run(["admin", "--endpoint", server.admin, "status"], environment, check=False)
    assert "AccessDenied" in done.stderr
    for method, path in (
        ("GET", "/admin/v1/status"),
        ("POST", "/admin/v1/compact"),
        ("PUT", "/admin/v1/users/x"),
        ("GET", "/admin/v1/users"),
    ):
        assert send(server.admin, method, path, {}).status == 403
        target, headers, _ = signed(server.admin, method, path, secret="wrong")
        assert send(server.admin, method, target, headers).status == 403
    for path in ("/healthz", "/readyz", "/metrics", "/api/stats"):
        assert send(server.admin, "GET", path, {}).status == 200


def test_compaction_gives_the_disk_back_and_verify_agrees(server: ServerProcess, client: Any) -> None:
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="compact")
    kept = {}
    for number in range(300):
        body = os.urandom(10_000)
        s3.put_object(Bucket="compact", Key=f"k{number}", Body=body)
        if number % 3 == 0:
            kept[f"k{number}"] = body
    full = admin(server, "status")
    assert full["volume_bytes"] > 3_000_000
    for number in range(300):
        if number % 3:
            s3.delete_object(Bucket="compact", Key=f"k{number}")
    wait_until(lambda: admin(server, "status")["garbage_bytes"] > 1_900_000, "the shards are freed")
    admin(server, "compact", "--garbage", "0.3")  # or the server's own round, which may be at it already
    wait_until(
        lambda: admin(server, "status")["volume_bytes"] < full["volume_bytes"] - 1_000_000, "the disk has it back"
    )
    for key, body in kept.items():
        assert s3.get_object(Bucket="compact", Key=key)["Body"].read() == body
    report = admin(server, "verify", "--deep")
    assert report["problems"] == []
    assert report["bytes_read"] >= 1_000_000
    text = server.admin_cli("status").stdout
    assert "references" in text
    assert "compact" in server.admin_cli("buckets").stdout


def test_verify_sees_damage(own_server: Any, client: Any) -> None:
    server = own_server()
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="damage")
    s3.put_object(Bucket="damage", Key="bad", Body=os.urandom(100_000))
    s3.put_object(Bucket="damage", Key="good", Body=b"g" * 100_000)
    server.stop()
    path = next((server.directory / "volumes").glob("*.vol"))
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    server.start()
    assert server.admin_cli("verify").returncode == 0
    done = server.admin_cli("--json", "verify", "--read", check=False)
    assert done.returncode == 3
    assert "is damaged" in json.loads(done.stdout)["problems"][0]
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="damage", Key="bad")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert s3.get_object(Bucket="damage", Key="good")["Body"].read() == b"g" * 100_000


def test_damage_in_the_middle_of_a_download_cuts_it_off(own_server: Any, client: Any) -> None:
    """What came before is right, and nothing else follows it: no error page passes for data."""
    server = own_server("--dedup", "off")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="damage")
    body = os.urandom(5 << 20)
    s3.put_object(Bucket="damage", Key="k", Body=body)
    server.stop()
    path = next((server.directory / "volumes").glob("*.vol"))
    at = path.read_bytes().index(body[(3 << 20) + 500_000 : (3 << 20) + 500_100])
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"damage")
    server.start()
    target, headers, _ = signed(server.endpoint, "GET", "/damage/k")
    host = server.endpoint.partition("//")[2]
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() != "host"
    )
    received = exchange(server.endpoint, head.encode() + b"\r\n")
    top, _, data = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in top.lower()
    assert len(data) == 3 << 20
    assert body.startswith(data)
    assert s3.get_object(Bucket="damage", Key="k", Range="bytes=4194304-")["Body"].read() == body[4 << 20 :]


def test_renaming_a_prefix(server: ServerProcess, client: Any) -> None:
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="rename")
    bodies = {f"old/{number:03}": os.urandom(20 if number % 2 else 6000) for number in range(600)}
    for key, body in bodies.items():
        s3.put_object(Bucket="rename", Key=key, Body=body)
    s3.put_object(Bucket="rename", Key="other", Body=b"stays")
    done = admin(server, "rename-prefix", "rename", "old/", "new/deep/", "--wait")
    assert (done["done"], done["error"]) == (600, "")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="rename")
    assert sorted(item["Key"] for page in pages for item in page["Contents"]) == sorted(
        [key.replace("old/", "new/deep/") for key in bodies] + ["other"]
    )
    for key, body in list(bodies.items())[::50]:
        assert s3.get_object(Bucket="rename", Key=key.replace("old/", "new/deep/"))["Body"].read() == body
    assert "done" in server.admin_cli("renames").stdout


def test_a_rename_goes_on_after_kill(own_server: Any, client: Any) -> None:
    server = own_server()
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="rename")
    for number in range(2000):
        s3.put_object(Bucket="rename", Key=f"a/{number:04}", Body=b"%d" % number)
    name = admin(server, "rename-prefix", "rename", "a/", "b/")["id"]
    server.kill()
    server.start()

    def finished() -> bool:
        return any(job["id"] == name and job["finished"] for job in admin(server, "renames")["renames"])

    wait_until(finished, "the rename is done")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="rename"))
    assert [item["Key"] for page in pages for item in page["Contents"]] == [f"b/{number:04}" for number in range(2000)]


def test_help_names_every_setting() -> None:
    text = run(["server", "--help"], dict(os.environ)).stdout
    for word in ("--listen", "--workers", "--durability", "put_bytes", "memory_bytes", "fdatasync"):
        assert word in text
    assert "user add" in run(["--help"], dict(os.environ)).stdout

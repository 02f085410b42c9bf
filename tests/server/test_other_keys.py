"""Keys: a master key that is lost where something is sealed with it, one that is another's, and new root keys."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from process import ServerProcess, wait_until

OWN = {"S4_ROOT_ACCESS_KEY": "", "S4_ROOT_SECRET_KEY": ""}


def write_key(path: Path) -> Path:
    path.write_bytes(base64.b64encode(os.urandom(32)))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("sealed", ["a user's secret", "an encrypted object"])
def test_a_lost_master_key_is_not_made_anew_over_what_it_sealed(own_server: Any, client: Any, sealed: str) -> None:
    server: ServerProcess = own_server()
    if sealed == "a user's secret":
        server.admin_cli("user", "add", "ana", "--grant", "Reader")
    else:
        s3 = client(server.endpoint)
        s3.create_bucket(Bucket="secret")
        s3.put_object(Bucket="secret", Key="k", Body=b"x", ServerSideEncryption="AES256")
    server.stop()
    key = (server.directory / "master.key").read_bytes()
    (server.directory / "master.key").unlink()
    with pytest.raises(AssertionError, match=r"master\.key is gone from .* put the file back"):
        server.start()
    server.kill()
    assert not (server.directory / "master.key").exists()
    (server.directory / "master.key").write_bytes(key)
    server.start()


def test_a_master_key_is_made_where_nothing_was_sealed(own_server: Any) -> None:
    server: ServerProcess = own_server()
    server.stop()
    (server.directory / "master.key").unlink()
    server.start()
    assert (server.directory / "master.key").exists()


def test_a_server_with_another_master_key_serves_nobody(own_server: Any, client: Any, tmp_path: Path) -> None:
    right, wrong = write_key(tmp_path / "right"), write_key(tmp_path / "wrong")
    server: ServerProcess = own_server("--limit", "look_s=0.2", "--master-key", str(right))
    server.admin_cli("user", "add", "ana", "--grant", "Reader")
    client(server.endpoint).list_buckets()
    server.stop()
    server.options = ("--reserve", "64MiB", "--limit", "look_s=0.2", "--master-key", str(wrong))
    server.start()
    s3 = client(server.endpoint)

    def refused() -> bool:
        try:
            s3.list_buckets()
        except ClientError as error:
            return bool(error.response["Error"]["Code"] == "ServiceUnavailable")
        return False

    wait_until(refused, "nobody is served")
    said = server.admin_cli("status", check=False)
    assert "it serves nobody: the master key is not" in said.stdout
    server.stop()
    both = tmp_path / "both"
    both.write_bytes(right.read_bytes() + b"\n" + wrong.read_bytes())
    server.options = (*server.options[:-1], str(both))
    server.start()
    client(server.endpoint).list_buckets()
    wait_until(
        lambda: "it serves nobody" not in server.admin_cli("status", check=False).stdout, "a rotation is no other key"
    )


def test_new_root_keys_count_at_once_and_the_old_ones_do_not(own_server: Any, client: Any) -> None:
    server: ServerProcess = own_server("--workers", "2", environment=OWN)
    old = json.loads((server.directory / "root.json").read_text())
    pair = old["access_key"], old["secret_key"]
    clients = [client(server.endpoint, *pair) for _ in range(8)]  # on both workers
    for one in clients:
        one.list_buckets()
    said = server.admin_cli("--dir", str(server.directory), "root-keys", "change").stdout
    access, secret = re.findall(r"root \w+ key: (\S+)", said)
    kept = json.loads((server.directory / "root.json").read_text())
    assert (kept["access_key"], kept["secret_key"]) == (access, secret)
    for one in clients:
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            one.list_buckets()
    for _ in range(4):
        client(server.endpoint, access, secret).list_buckets()
    server.kill()
    server.start()
    client(server.endpoint, access, secret).list_buckets()


def test_root_keys_from_the_environment_are_changed_there(own_server: Any) -> None:
    server: ServerProcess = own_server()
    done = server.admin_cli("root-keys", "change", check=False)
    assert done.returncode != 0
    assert "change these and start it again" in done.stderr

"""SSE-KMS with a real Vault: its keys, its rotation, its refusals and its absence. The program comes from S4_VAULT or
the PATH."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac
import pytest
from botocore.exceptions import ClientError

from addresses import free_ports, own_address
from https import JsonServer
from process import ServerProcess, make_client, wait_until
from raw import send
from s4.crypto.kms import KmsError
from s4.crypto.vault import TIMEOUT_S, VaultKms

PROGRAM = os.environ.get("S4_VAULT") or shutil.which("vault")
KMS = {"ServerSideEncryption": "aws:kms"}
BUCKET = "vaulted"


class Vault:
    """A server in development mode: it keeps nothing when it ends."""

    def __init__(self) -> None:
        host = own_address()
        (port,) = free_ports(1, host)
        self.url = f"http://{host}:{port}"
        command = [str(PROGRAM), "server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address={host}:{port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "Vault answers")
        self.client = hvac.Client(self.url, token="root")
        self.client.sys.enable_secrets_engine("transit")
        for name in ("first", "second"):
            self.client.secrets.transit.create_key(name)

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.url}/v1/sys/health").status == 200
        except OSError:
            return False

    def token(self, key: str) -> str:
        """One that may use a key, and look at it."""
        paths = "".join(
            f'path "transit/{what}/{key}" {{ capabilities = ["update", "read"] }}\n'
            for what in ("encrypt", "decrypt", "keys")
        )
        self.client.sys.create_or_update_policy(f"only-{key}", paths)
        return str(self.client.auth.token.create(policies=[f"only-{key}"])["auth"]["client_token"])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def vault() -> Iterator[Vault]:
    if PROGRAM is None:
        pytest.skip("no vault on this machine")
    made = Vault()
    yield made
    made.stop()


@pytest.fixture
def server(tmp_path: Path, vault: Vault) -> Iterator[ServerProcess]:
    (tmp_path / "token").write_text(vault.token("first"))
    made = ServerProcess(
        tmp_path / "data",
        "--reserve",
        "64MiB",
        "--kms",
        vault.url,
        "--kms-key",
        "first",
        "--kms-token",
        str(tmp_path / "token"),
    ).start()
    make_client(made.endpoint).create_bucket(Bucket=BUCKET)
    yield made
    assert made.stop() == 0


def answer(call: Any, **given: Any) -> str:
    try:
        call(Bucket=BUCKET, **given)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def restarted(server: ServerProcess) -> Any:
    """What was unwrapped is kept for a minute; a new process has none of it."""
    assert server.stop() == 0
    server.start()
    return make_client(server.endpoint)


def test_keys_of_vault(tmp_path: Path, vault: Vault, server: ServerProcess) -> None:
    s3 = make_client(server.endpoint)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"sealed" * 50_000, **KMS)
    for found in (s3, restarted(server)):
        got = found.get_object(Bucket=BUCKET, Key="k")
        assert (got["Body"].read(), got["SSEKMSKeyId"]) == (b"sealed" * 50_000, "first")
    assert answer(s3.put_object, Key="other", SSEKMSKeyId="second", **KMS) == "AccessDenied", "the token may not"
    (tmp_path / "token").write_text("root")
    assert answer(s3.put_object, Key="other", SSEKMSKeyId="second", **KMS) == "", "another token, read again"
    assert answer(s3.copy_object, Key="copy", CopySource=f"{BUCKET}/k", SSEKMSKeyId="second", **KMS) == ""
    (tmp_path / "token").write_text("gone")
    assert answer(restarted(server).get_object, Key="k") == "AccessDenied"


def test_a_rotated_key_wraps_anew(vault: Vault, server: ServerProcess) -> None:
    s3 = make_client(server.endpoint)
    for number in range(5):
        s3.put_object(Bucket=BUCKET, Key=f"{number}", Body=b"sealed" * 1000, **KMS)
    vault.client.secrets.transit.rotate_key("first")
    s3 = restarted(server)  # a pass begins soon after, else within the hour
    wait_until(lambda: "s4_keys_rewrapped_total 5.0" in send(server.admin, "GET", "/metrics", {}).body.decode(), 60)
    vault.client.secrets.transit.update_key_configuration("first", min_decryption_version=2)
    s3 = restarted(server)
    for number in range(5):
        assert s3.get_object(Bucket=BUCKET, Key=f"{number}")["Body"].read() == b"sealed" * 1000


def test_without_vault_nothing_is_written_in_the_clear(vault: Vault, server: ServerProcess) -> None:
    s3 = make_client(server.endpoint)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"sealed", **KMS)
    vault.stop()
    assert answer(s3.put_object, Key="new", Body=b"x", **KMS) == "ServiceUnavailable"
    assert answer(s3.head_object, Key="new") == "404"
    assert answer(restarted(server).get_object, Key="k") == "ServiceUnavailable"
    assert answer(s3.head_object, Key="k") == "", "a look needs no key"
    assert answer(s3.put_object, Key="plain", Body=b"x") == ""


def test_a_vault_of_a_private_authority_is_trusted_where_the_process_trusts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("t")
    server = JsonServer(tmp_path, lambda _: {"data": {"ciphertext": "vault:v1:abc"}})

    def wrapped() -> str:
        return asyncio.run(VaultKms(server.url, "first", tmp_path / "token").wrap("first", bytes(32), "about"))

    with pytest.raises(KmsError):
        wrapped()
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    assert wrapped() == "vault:v1:abc"
    server.close()


def test_a_vault_that_says_nothing_holds_up_nobody_who_needs_no_key(tmp_path: Path) -> None:
    """Names of peers are looked up, and maps written, on the loop's own threads."""
    (tmp_path / "token").write_text("t")

    async def test() -> None:
        with socket.create_server((own_address(), 0)) as mute:
            host, port = mute.getsockname()
            kms = VaultKms(f"http://{host}:{port}", "first", tmp_path / "token")
            calls = [asyncio.create_task(kms.wrap("first", bytes(32), f"{number}")) for number in range(200)]
            await asyncio.sleep(0)
            asked, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
            await loop.getaddrinfo("127.0.0.1", 80)
            assert loop.time() - asked < TIMEOUT_S, "it did not wait for one of the calls"
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, KmsError)
                assert error.code == "ServiceUnavailable"
            assert loop.time() - asked < 4 * TIMEOUT_S, "nor does one call wait for all others"

    asyncio.run(test())

"""Keys that are taken out of a cluster, sealed with a passphrase, and brought back: as Secrets, or as files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c

from s4.cli.main import build_parser, run
from s4.cluster import clustermap, planner
from s4.crypto import keyring
from s4.crypto.backup import BackupError, seal, unseal
from s4.node.held import NAME, packed

PASSPHRASE = "correct horse battery"
# Format 1 as it was first written, with a passphrase that is cheap to try: what is here opens for good.
GOLDEN = """s4 keys 1
{"n":2,"nonce":"zkowrjigWMPCox3F","p":1,"r":8,"salt":"vBYonyy9Zdybo3fzYHziDA=="}
wxY0PbefsTjfMzCuvfmQGKKZOCIaFWIxf089TY31jzkxPry9XA==
crc32c be069c1a
"""


def test_format_1_opens() -> None:
    assert unseal(GOLDEN, PASSPHRASE) == b'{"master":"bWFzdGVy"}'
    through_mail = "\r\n\r\n" + GOLDEN.replace("\n", "  \r\n") + "\r\n"
    assert unseal(through_mail, PASSPHRASE) == b'{"master":"bWFzdGVy"}'


def test_two_of_the_same_have_nothing_in_common() -> None:
    first, second = seal(b"text", PASSPHRASE, n=2), seal(b"text", PASSPHRASE, n=2)
    assert not set(first.splitlines()[1:]) & set(second.splitlines()[1:])
    assert unseal(first, PASSPHRASE) == unseal(second, PASSPHRASE) == b"text"


def test_a_wrong_passphrase_is_told_from_damage_and_from_a_newer_format() -> None:
    with pytest.raises(BackupError, match="the passphrase is not that of this backup"):
        unseal(GOLDEN, PASSPHRASE + ".")
    for at in range(len(GOLDEN)):
        flipped = GOLDEN[:at] + chr(ord(GOLDEN[at]) ^ 1) + GOLDEN[at + 1 :]
        if flipped.split() == GOLDEN.split():
            continue  # white space
        with pytest.raises(BackupError):
            unseal(flipped, PASSPHRASE)
    lines = GOLDEN.splitlines()
    for cut in range(1, 4):
        with pytest.raises(BackupError, match="damaged or not whole"):
            unseal("\n".join(lines[:cut]), PASSPHRASE)
    with pytest.raises(BackupError, match="has format 2, and this S4 knows 1"):
        unseal(GOLDEN.replace("s4 keys 1", "s4 keys 2"), PASSPHRASE)
    for other in ("", "\n", "apiVersion: v1\nkind: Secret\n"):
        with pytest.raises(BackupError, match="this is no backup of keys"):
            unseal(other, PASSPHRASE)


def test_a_file_cannot_ask_for_any_memory() -> None:
    lines = GOLDEN.replace('"n":2,', '"n":1073741824,').splitlines()[:-1]
    whole = "".join(f"{line}\n" for line in lines)
    with pytest.raises(BackupError, match="cannot be"):
        unseal(f"{whole}crc32c {crc32c(whole.encode()):08x}\n", PASSPHRASE)


def test_a_short_passphrase_guards_nothing() -> None:
    with pytest.raises(BackupError, match="has 11 characters: give at least 12"):
        seal(b"text", "a" * 11)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's directory and the files and variables that its pod has."""
    directory = tmp_path / "store"
    directory.mkdir()
    (directory / NAME).write_bytes(packed(clustermap.encode(planner.new("ab" * 16, 4, 2, 64))))
    (tmp_path / "master.key").write_bytes(keyring.new())
    (tmp_path / "kms").write_text("first:" + "A" * 43 + "=\n")
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    monkeypatch.setenv("S4_MASTER_KEY", str(tmp_path / "master.key"))
    monkeypatch.setenv("S4_KMS", str(tmp_path / "kms"))
    monkeypatch.setenv("S4_ROOT_ACCESS_KEY", "rootaccess")
    monkeypatch.setenv("S4_ROOT_SECRET_KEY", "rootsecretkey")
    return directory


def admin(*words: object) -> int:
    return run(build_parser().parse_args(["admin", *map(str, words)]))


def test_what_a_pod_gives_becomes_the_secrets_of_its_s4cluster(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("S4_COORDINATOR", "kubernetes://storage/demo")
    assert admin("backup-keys", "--dir", node, "--passphrase-file", tmp_path / "passphrase") == 0
    sealed = capsys.readouterr().out
    assert "rootsecretkey" not in sealed
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSPHRASE}\n{sealed}"))
    assert admin("restore-keys", "-", "--passphrase-file", "-") == 0
    found: dict[str, Any] = {one["metadata"]["name"]: one for one in json.loads(capsys.readouterr().out)["items"]}
    assert {name: one["stringData"] for name, one in found.items()} == {
        "demo-master": {"master.key": (tmp_path / "master.key").read_text(), "cluster": "ab" * 16},
        "demo-root": {"accessKey": "rootaccess", "secretKey": "rootsecretkey"},
        "demo-kms": {"keys": (tmp_path / "kms").read_text()},
    }
    for one in found.values():
        assert one["metadata"]["namespace"] == "storage"
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "s4-operator", "else it is somebody else's"
        assert one["metadata"]["labels"]["s4.dev/cluster"] == "demo"


def test_files_are_nobody_elses_and_nothing_is_overwritten(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("S4_BACKUP_PASSPHRASE", PASSPHRASE)
    where, file = tmp_path / "restored", tmp_path / "backup"
    assert admin("backup-keys", "--dir", node, "--to", file) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert admin("backup-keys", "--dir", node, "--to", file) != 0
    assert "File exists" in capsys.readouterr().err
    assert admin("restore-keys", file) != 0
    assert "this backup is of no S4Cluster: give --to DIR" in capsys.readouterr().err
    assert admin("restore-keys", file, "--to", where) == 0
    assert f"cluster {'ab' * 16}, 4+2, 64 partitions" in capsys.readouterr().out
    assert (where / "master.key").read_bytes() == (tmp_path / "master.key").read_bytes()
    assert (where / "root.env").read_text() == "S4_ROOT_ACCESS_KEY=rootaccess\nS4_ROOT_SECRET_KEY=rootsecretkey\n"
    assert {path.stat().st_mode & 0o777 for path in where.iterdir()} == {0o600}
    assert admin("restore-keys", file, "--to", where) != 0
    assert "nothing is overwritten" in capsys.readouterr().err


def test_a_server_has_its_keys_beside_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("S4_MASTER_KEY", "S4_KMS", "S4_ROOT_ACCESS_KEY", "S4_ROOT_SECRET_KEY", "S4_COORDINATOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("S4_BACKUP_PASSPHRASE", PASSPHRASE)
    data = tmp_path / "data"
    data.mkdir()
    assert admin("backup-keys", "--dir", data) != 0
    assert "no master key: give --dir of a server, or --master-key FILE" in capsys.readouterr().err
    (data / "master.key").write_bytes(keyring.new())
    assert admin("backup-keys", "--dir", data) != 0
    assert "no root keys" in capsys.readouterr().err
    (data / "root.json").write_text('{"access_key": "a", "secret_key": "b"}')
    assert admin("backup-keys", "--dir", data, "--to", tmp_path / "file") == 0
    assert admin("restore-keys", tmp_path / "file", "--to", tmp_path / "new") == 0
    assert (tmp_path / "new" / "master.key").read_bytes() == (data / "master.key").read_bytes()


def test_a_passphrase_is_never_an_argument(
    node: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("S4_BACKUP_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert admin("backup-keys", "--dir", node) != 0
    assert "no passphrase: give --passphrase-file, or set S4_BACKUP_PASSPHRASE" in capsys.readouterr().err
    assert admin("backup-keys", "--dir", node, "--passphrase", PASSPHRASE) != 0, "short for --passphrase-file"
    assert "cannot be read" in capsys.readouterr().err

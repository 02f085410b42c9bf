"""`s4 admin backup-keys` and `restore-keys`: what a lost namespace, or lost machines, need beside the disks to be read
again.

That is the master key, the root keys, the KMS's file, and which cluster it is: its id and geometry. Certificates and
administrators' keys are made anew. It is taken where it is used: in a node's pod, or of a directory of a server or a
node; so whoever may run it can read these keys already, and no Kubernetes API is asked. It is written only sealed. A
passphrase is never an argument: others see these.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from s4 import __version__
from s4.base.said import words
from s4.cli import target
from s4.cli.admin_client import AdminClient, AdminError
from s4.crypto.backup import BackupError, seal, unseal

ACTIONS = ("backup-keys", "restore-keys")
VARIABLE = "S4_BACKUP_PASSPHRASE"
KEYS = ("S4_ROOT_ACCESS_KEY", "S4_ROOT_SECRET_KEY")


class Kept(msgspec.Struct):
    """What is in a backup. `namespace` and `name` are an S4Cluster's, empty elsewhere; `kms` is the KMS's file."""

    master: str = ""
    access_key: str = ""
    secret_key: str = ""
    kms: str = ""
    namespace: str = ""
    name: str = ""
    cluster: str = ""
    erasure: str = ""
    partitions: int = 0
    made_s: int = 0
    made_by: str = __version__


def add_arguments(actions: Any) -> None:
    backup = actions.add_parser(
        "backup-keys",
        help="the keys that a lost cluster is read again with, sealed with a passphrase",
        description="Prints the master key, the root keys, the keys of the KMS's file, and the cluster's id and geometry, sealed. "
        "In a node's pod, or with --dir of a server or node; each time that one of them was changed.",
    )
    backup.add_argument(
        "--to", default="", metavar="FILE", help="write it there, which is not there yet [standard output]"
    )
    for name, text in (("master-key", "file with the master key"), ("kms", "file with the keys of the KMS")):
        variable = f"S4_{name.replace('-', '_').upper()}"
        default = os.environ.get(variable, "")
        backup.add_argument(
            f"--{name}", default=default, metavar="FILE", help=f"{text} [{variable}, or what --dir has]"
        )
    restore = actions.add_parser(
        "restore-keys",
        help="what `backup-keys` sealed, as Secrets for Kubernetes or as files",
        description="Of an S4Cluster: prints its Secrets, for `kubectl apply -f -`, before the S4Cluster is applied. With --to: as files.",
    )
    restore.add_argument("file", metavar="FILE", help="the backup; - is standard input")
    restore.add_argument("--to", default="", metavar="DIR", help="write files there: master.key, kms.keys, root.env")
    for one in (backup, restore):
        one.add_argument(
            "--passphrase-file",
            default="",
            metavar="FILE",
            help=f"its first line is the passphrase; - is standard input [{VARIABLE}, else it is asked for]",
        )


def run(arguments: argparse.Namespace) -> tuple[Any, str]:
    """(value, text for people). Raises SaidError."""
    return _backup(arguments) if arguments.action == "backup-keys" else _restore(arguments)


def _backup(arguments: argparse.Namespace) -> tuple[Any, str]:
    sealed = seal(msgspec.json.encode(gather(arguments, os.environ)), _passphrase(arguments, twice=True))
    if not arguments.to:
        return {"backup": sealed}, sealed
    _write(Path(arguments.to), sealed)
    return {
        "file": arguments.to
    }, f"{arguments.to} has the keys; keep it apart from the cluster, and the passphrase apart from it\n"


def gather(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Kept:
    """What there is to be kept. Raises BackupError."""
    directory = Path(arguments.dir) if arguments.dir else None
    kept = Kept(made_s=int(time.time()))
    own = directory / "master.key" if directory is not None else None
    path = arguments.master_key or (str(own) if own is not None and own.exists() else "")
    if not path:
        raise BackupError(
            "no master key: give --dir of a server, or --master-key FILE, as each process of a cluster has it"
        )
    kept.master = _text(Path(path))
    if arguments.kms and not arguments.kms.startswith(("http://", "https://")):  # Vault has its own backups
        kept.kms = _text(Path(arguments.kms))
    kept.access_key, kept.secret_key = _root(directory, environment)
    coordinator = environment.get("S4_COORDINATOR", "")
    if coordinator.startswith("kubernetes://"):
        kept.namespace, _, kept.name = coordinator.removeprefix("kubernetes://").partition("/")
    if directory is None or not (directory / "root.json").exists():  # a server's drives know the rest themselves
        _geometry(kept, arguments, directory)
    return kept


def _root(directory: Path | None, environment: Mapping[str, str]) -> tuple[str, str]:
    if all(environment.get(name) for name in KEYS):
        return environment[KEYS[0]], environment[KEYS[1]]
    if directory is not None and (directory / "root.json").exists():
        found = json.loads(_text(directory / "root.json"))
        return str(found["access_key"]), str(found["secret_key"])
    raise BackupError(f"no root keys: set {' and '.join(KEYS)}, as each node has them")


def _geometry(kept: Kept, arguments: argparse.Namespace, directory: Path | None) -> None:
    """Of the copy of the map that a node's directory has, or as a running node says. Raises BackupError."""
    from s4.cluster import clustermap  # noqa: PLC0415 - half of the start of a command that needs none
    from s4.node.held import NAME, read  # noqa: PLC0415

    seen = read(directory / NAME) if directory is not None else b""
    if seen:
        known = clustermap.decode(seen)
        kept.cluster, kept.erasure, kept.partitions = known.cluster, f"{known.data}+{known.parity}", known.count
        return
    where = target.find(arguments.dir, arguments.endpoint, arguments.authority)
    client = AdminClient(where.admin, where.access_key, where.secret_key, arguments.region, where.authority)
    try:
        said = next(client.call("GET", "/status"))
    except AdminError as error:
        raise BackupError(f"which cluster this is cannot be told: {error}") from error
    kept.cluster, kept.erasure = str(said.get("cluster", "")), str(said.get("erasure", ""))
    kept.partitions = int(said.get("partitions", 0) or 0)


def _restore(arguments: argparse.Namespace) -> tuple[Any, str]:
    passphrase = _passphrase(arguments, twice=False)  # before the rest of standard input
    sealed = sys.stdin.read() if arguments.file == "-" else _text(Path(arguments.file))
    try:
        kept = msgspec.json.decode(unseal(sealed, passphrase), type=Kept)
    except msgspec.MsgspecError as error:
        raise BackupError(f"this backup cannot be read by S4 {__version__}: {error}") from error
    if arguments.to:
        return _files(kept, Path(arguments.to))
    if not kept.name:
        raise BackupError("this backup is of no S4Cluster: give --to DIR for its keys as files")
    made = {"apiVersion": "v1", "kind": "List", "items": secrets(kept)}
    return made, json.dumps(made, indent=1) + "\n"


def secrets(kept: Kept) -> list[dict[str, Any]]:
    """The Secrets of an S4Cluster, as its operator takes them for its own."""
    data: dict[str, dict[str, str]] = {
        "master": {"master.key": kept.master} | ({"cluster": kept.cluster} if kept.cluster else {}),
        "root": {"accessKey": kept.access_key, "secretKey": kept.secret_key},
    }
    if kept.kms:
        data["kms"] = {"keys": kept.kms}
    labels = {
        "app.kubernetes.io/name": "s4",
        "app.kubernetes.io/instance": kept.name,
        "app.kubernetes.io/managed-by": "s4-operator",
        "s4.dev/cluster": kept.name,
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": f"{kept.name}-{name}", "namespace": kept.namespace, "labels": labels},
            "stringData": found,
        }
        for name, found in data.items()
    ]


def _files(kept: Kept, directory: Path) -> tuple[Any, str]:
    directory.mkdir(parents=True, exist_ok=True)
    found = {"master.key": kept.master, "kms.keys": kept.kms}
    found["root.env"] = f"{KEYS[0]}={kept.access_key}\n{KEYS[1]}={kept.secret_key}\n"
    paths = [directory / name for name, text in found.items() if text]
    taken = [str(path) for path in paths if path.exists()]
    if taken:
        raise BackupError(f"{', '.join(taken)}: there already, and nothing is overwritten")
    for path in paths:
        _write(path, found[path.name])
    value = {"files": [str(path) for path in paths], "cluster": kept.cluster}
    text = "".join(f"{path}\n" for path in paths)
    if kept.cluster:
        text += f"cluster {kept.cluster}, {kept.erasure}, {kept.partitions} partitions\n"
    return value, text


def _passphrase(arguments: argparse.Namespace, *, twice: bool) -> str:
    """From a file, the variable, or who sits at the terminal. Raises BackupError."""
    name = arguments.passphrase_file
    if name:
        lines = [sys.stdin.readline()] if name == "-" else _text(Path(name)).splitlines()
        return lines[0].rstrip("\r\n") if lines else ""
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE]
    if not sys.stdin.isatty():
        raise BackupError(f"no passphrase: give --passphrase-file, or set {VARIABLE}")
    found = getpass.getpass("passphrase: ")
    if twice and getpass.getpass("once more: ") != found:
        raise BackupError("the two passphrases differ")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BackupError(f"{path} cannot be read: {words(error)}") from error


def _write(path: Path, text: str) -> None:
    """A new file that nobody else reads. Raises BackupError."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BackupError(words(error)) from error

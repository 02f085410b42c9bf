"""Where a command of `s4 admin` goes, and as whom: what options, a data directory and variables say, in this order.

A server or node that runs writes its addresses into its directories (`write`), so that `--dir` is all that a command
beside it needs. The file is a note for people's commands: no process depends on it, and one that is old leads nowhere
else than an address that was typed wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from s4.base.said import words
from s4.cli.admin_client import AdminError
from s4.cli.grammar import below

FILE = "addresses.json"
ADMIN, S3 = "127.0.0.1:9001", "http://127.0.0.1:9000"
_KEYS = (("S4_ROOT_ACCESS_KEY", "S4_ROOT_SECRET_KEY"), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


@dataclass(frozen=True, slots=True)
class Target:
    """`admin` and `s3` are addresses; `authority` is a file whose certificates are trusted there, or empty."""

    admin: str = ""
    s3: str = ""
    access_key: str = ""
    secret_key: str = ""
    authority: str = ""


def add_arguments(admin: argparse.ArgumentParser) -> None:
    """The options that say where and as whom, for a parser and for all below it: they may stand before or after an
    action."""
    _add(admin, again=False)
    for one in below(admin):
        _add(one, again=True)


def _add(parser: argparse.ArgumentParser, *, again: bool) -> None:
    """`again`: what was said before an action stands unless it is said again after it."""
    group = parser.add_argument_group("where and as whom")
    region = os.environ.get("S4_REGION", "us-east-1")

    def option(name: str, default: str, text: str, **more: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS if again else default, help=text, **more)

    option("--dir", "", "a data directory: its addresses, and the root keys made there", metavar="DIR")
    option("--endpoint", "", f"the admin port [S4_ADMIN_ENDPOINT, else {ADMIN}]", metavar="[https://]HOST:PORT")
    option("--authority", "", "speak TLS, with who has a certificate of this authority", metavar="FILE")
    option("--region", region, "the server's region [us-east-1]")
    group.add_argument("--json", action="store_true", default=argparse.SUPPRESS if again else False, help="print JSON")


def urls(endpoint: str, admin_endpoint: str, certificate: str, admin_authority: str) -> tuple[str, str]:
    """(S3 port, admin port) of a process by HOST:PORT of each; what is asked from this machine alone needs no TLS."""
    host = admin_endpoint.rpartition(":")[0]
    secure = admin_authority and not host.startswith("127.") and host not in ("localhost", "[::1]")
    return f"{'https' if certificate else 'http'}://{endpoint}", f"{'https' if secure else 'http'}://{admin_endpoint}"


def write(directories: Iterable[Path], s3: str, admin: str, authority: str = "") -> None:
    """Leave a running process's addresses in its directories."""
    content = json.dumps({"s3": s3, "admin": admin, "authority": authority}) + "\n"
    for directory in directories:
        with contextlib.suppress(OSError):
            new = directory / (FILE + ".new")
            new.write_text(content)
            new.replace(directory / FILE)


def find(directory: str, endpoint: str, authority: str, environment: Mapping[str, str] = os.environ) -> Target:
    """Raises AdminError."""
    found = _of_directory(Path(directory)) if directory else Target()
    if endpoint:
        found = replace(found, admin=endpoint, authority="")
    found = replace(
        found,
        admin=found.admin or environment.get("S4_ADMIN_ENDPOINT", "") or ADMIN,
        s3=found.s3 or S3,
        authority=authority or found.authority or environment.get("S4_ADMIN_AUTHORITY", ""),
    )
    if found.access_key:
        return found
    for access, secret in _KEYS:
        if environment.get(access) and environment.get(secret):
            return replace(found, access_key=environment[access], secret_key=environment[secret])
    raise AdminError("no keys; give --dir DIR, or set S4_ROOT_ACCESS_KEY and S4_ROOT_SECRET_KEY")


def _of_directory(directory: Path) -> Target:
    """What a data directory of `s4 server` or `s4 node` says, or one of `s4 dev`. Raises AdminError."""
    if not directory.is_dir():
        raise AdminError(f"--dir {directory}: there is no such directory")
    dev = _read(directory / "dev.json", {"members", "access_key", "secret_key"})
    if dev is not None:
        first = next(iter(dev["members"].values()))
        return Target(first["admin"], f"http://{first['s3']}", dev["access_key"], dev["secret_key"])
    said = _read(directory / FILE, {"s3", "admin", "authority"}) or {}
    keys = _read(directory / "root.json", {"access_key", "secret_key"}) or {}
    if not said and not keys:
        raise AdminError(f"--dir {directory}: this is no data directory of `s4 server`, `s4 node` or `s4 dev`")
    return Target(**said, **keys)


def _read(path: Path, names: set[str]) -> dict[str, Any] | None:
    """These values of a JSON file, all of them texts but for `members`; None where there is none. Raises AdminError."""
    try:
        value = json.loads(path.read_text())
        return {name: value[name] if name == "members" else _text(value[name]) for name in names}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AdminError(f"{words(error)}") from error
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise AdminError(f"{path} is damaged: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value

"""What a process says of itself when it starts and when it is told to read its files again: what counts, and what
looks wrong.

A setting that is misspelt in the environment is as good as not given, and nobody is told by the program that never
looks for it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from s4 import __version__

log = structlog.get_logger("s4")

# Variables that are no options: of programs, of tests, of what starts us.
OTHERS = frozenset(
    (
        "S4_ROOT_ACCESS_KEY",
        "S4_ROOT_SECRET_KEY",
        "S4_RESTART",
        "S4_FAILURES",
        "S4_TIMING_SCALE",
        "S4_ETCD",
        "S4_OIDC_AUTHORITY",
        "S4_TRACEBACK",
        "S4_ADMIN_ENDPOINT",
        "S4_ADMIN_AUTHORITY",
        "S4_COVERAGE",
    )
)
# Kubernetes gives every pod such variables for each Service, and S4's may be called s4.
_OF_SERVICES = re.compile(r"S4_(.*_)?(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)").fullmatch


def variables(parser: argparse.ArgumentParser) -> set[str]:
    """The environment variables that options of a command, or of its commands, are too."""
    found: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in set(action.choices.values()):
                found |= variables(one)
        elif name := getattr(action, "variable", ""):
            found.add(name)
    return found


def unknown(environment: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Sentences on variables that look like settings and are none."""
    names = {*known, *OTHERS}
    said = []
    for name in sorted(environment):
        if not name.startswith("S4_") or name in names or name.startswith("S4_LIMIT_") or _OF_SERVICES(name):
            continue
        near = difflib.get_close_matches(name, names, 1, 0.75)
        said.append(f"{name} is no setting{f'; did you mean {near[0]}?' if near else ' and does nothing'}")
    return said


def loose(paths: Iterable[str | Path]) -> list[str]:
    """Sentences on files with secrets that others than their owner may read."""
    said = []
    for path in paths:
        try:
            mode = Path(path).stat().st_mode
        except OSError:
            continue  # whoever needs it says so
        if stat.S_ISREG(mode) and mode & 0o044:
            said.append(f"{path} holds secrets and can be read by others (mode {mode & 0o777:03o}): chmod 600 it")
    return said


def secret_files(directories: Iterable[Path], settings: Any) -> list[Path]:
    """Files of a server that nobody else should read."""
    there = [directory / name for directory in directories for name in ("root.json", "master.key")]
    return there + [Path(one) for one in (settings.master_key, settings.kms, settings.kms_token, settings.key) if one]


def changed(settings: msgspec.Struct) -> dict[str, Any]:
    """The settings that are not as they are by default. None of them is a secret: keys are in files."""
    kept = {field.name: field for field in msgspec.structs.fields(settings)}
    found = {}
    for name, value in msgspec.structs.asdict(settings).items():
        default = kept[name].default
        if default is msgspec.NODEFAULT and kept[name].default_factory is not msgspec.NODEFAULT:
            default = kept[name].default_factory()
        if value != default:
            found[name] = msgspec.to_builtins(value)
    return found


def say_started(what: str, settings: msgspec.Struct, secrets: Iterable[str | Path], **more: Any) -> None:
    """Say what was started, with what, and what is wrong with its surroundings."""
    log.info(f"{what} started", version=__version__, pid=os.getpid(), settings=changed(settings), **more)
    for text in loose(secrets):
        log.warning(text)


def say_ready(environment: Mapping[str, str]) -> None:
    """Tell systemd that the process serves, where it asks (Type=notify): what is ordered after the start then finds a
    server, and no SIGHUP comes before there is somebody who takes it."""
    where = environment.get("NOTIFY_SOCKET", "")
    if not where:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.connect("\0" + where[1:] if where.startswith("@") else where)
            told.send(b"READY=1")
    except OSError as error:
        log.warning("systemd could not be told that the process serves", error=str(error))


def reloaded(what: Mapping[str, bool | None]) -> None:
    """Say what SIGHUP did: by name whether it was read again (None: there is nothing of the kind)."""
    read = [name for name, new in what.items() if new]
    kept = [name for name, new in what.items() if new is False]
    log.info(
        "SIGHUP: files were looked at again",
        read_again=read,
        unchanged=kept,
        note="all other settings are read at a start only",
    )

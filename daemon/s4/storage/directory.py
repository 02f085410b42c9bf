"""A data directory: its identity, made once at format, and the lock that keeps a second process out.

s4.json    format, cluster id, store id (a wiped disk gets a new one: rule M3)
map        the shard map            meta/      LevelDB with the rows
volumes/   shard records            index/     LevelDB with the shard index, made again when lost
root.json  root keys that were made here
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from s4.storage.files import Files

FORMAT = 1
_NAME = "s4.json"
_OURS_BEFORE_FORMAT = ("lock", "lost+found", _NAME + ".new")  # the last is left by a crash while formatting


class DirectoryError(Exception):
    """The directory cannot be used; the message says why and what to do."""


class Identity(msgspec.Struct, frozen=True):
    cluster: str
    store: str
    created_s: int
    partitions: int
    format: int = FORMAT

    @property
    def store_bytes(self) -> bytes:
        return bytes.fromhex(self.store)


def open_directory(files: Files, directory: Path, partitions: int) -> tuple[Identity, int]:
    """(identity, lock descriptor) of a data directory, formatted when it is empty. Raises DirectoryError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DirectoryError(f"{directory} cannot be made: {error.strerror}") from error
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DirectoryError(f"{directory} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DirectoryError(f"{directory} is in use by another s4 server; stop it first") from error
    return _identity(files, directory, partitions), lock


def _identity(files: Files, directory: Path, partitions: int) -> Identity:
    path = directory / _NAME
    if path.exists():
        try:
            identity = msgspec.json.decode(path.read_bytes(), type=Identity)
        except msgspec.MsgspecError as error:
            raise DirectoryError(f"{path} is damaged: {error}") from error
        if identity.format != FORMAT:
            raise DirectoryError(f"{directory} has format {identity.format}; this S4 knows {FORMAT}. Run a newer S4.")
        return identity
    foreign = [entry.name for entry in directory.iterdir() if entry.name not in _OURS_BEFORE_FORMAT]
    if foreign:
        raise DirectoryError(f"{directory} has files that are not S4's, such as {foreign[0]}; give an empty directory")
    identity = Identity(os.urandom(16).hex(), os.urandom(16).hex(), int(time.time()), partitions)
    files.replace(path, msgspec.json.format(msgspec.json.encode(identity), indent=1))
    return identity

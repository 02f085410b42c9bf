"""A data directory: its identity, made once at format, and the lock that keeps a second process out.

s4.json    format, cluster id, store id (a wiped disk gets a new one: rule M3)
map        the shard map            meta/      LevelDB with the rows, on the first directories
volumes/   shard records            index/     LevelDB with the shard index, made again when lost
root.json  root keys that were made here, in every directory
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from s4 import __version__
from s4.base.said import SaidError
from s4.storage.files import Files

log = logging.getLogger(__name__)

FORMAT = 1
# What this program writes is read rightly by OLDEST and newer. Who changes that raises it, and a store says so from the
# moment that
# it is opened. Programs up to SILENT do not look: these are kept out by format 2, which they refuse in words.
OLDEST = "0.7.0"
SILENT = (0, 7, 999)
FORMATS = (1, 2)
NAME = "s4.json"
ALIGNED = "0.7.1000"  # newer than any that does not know the records of version 2 (records.py); 0.8.0 binds a cluster's peers too
PROBE = ".s4-probe"  # written to see whether a drive takes anything (upkeep/returning.py)
# before it has an identity; the last three are left by a crash while formatting, or while it was looked at
_OURS_BEFORE_FORMAT = ("lock", "lost+found", NAME + ".new", PROBE, PROBE + ".new")


class DirectoryError(SaidError):
    """The directory cannot be used; the message says why and what to do."""


class FailingDriveError(Exception):
    """A drive cannot read so much that it is better left out."""


class DriveError(Exception):
    """A drive failed so that what is durable on it is in doubt (rule D7), or is to be left out at once (`for_good`)."""

    def __init__(self, directory: Path, cause: BaseException) -> None:
        super().__init__(f"{directory}: {cause}")
        self.directory, self.__cause__ = directory, cause
        self.for_good = isinstance(cause, FailingDriveError)


class Identity(msgspec.Struct, frozen=True):
    cluster: str
    store: str
    created_s: int
    partitions: int
    format: int = FORMAT
    oldest: str = ""  # the oldest program that may open it; unknown to 0.7, which goes by the format
    opened_by: str = ""  # the newest program that did

    @property
    def store_bytes(self) -> bytes:
        return bytes.fromhex(self.store)


class UnusableError(DirectoryError):
    """The drive below the directory fails or is not there: others may do without it."""


def open_directory(directory: Path, *, make: bool, made: list[Path] | None = None) -> tuple[Identity | None, int]:
    """(identity, lock descriptor) of a data directory; no identity where it is empty. Raises DirectoryError, and
    leaves the directory as it was then. What was made for it is added to `made`, for `unmake`."""
    new: list[Path] = []
    try:
        if make:
            _make(directory, new)
        identity_of(directory)  # before anything is put there
        lock = _open_lock(directory / "lock", new)
    except OSError as error:
        unmake(new)
        file = isinstance(error, FileExistsError | NotADirectoryError)
        why = "there is a file where a directory should be" if file else error.strerror
        raise UnusableError(f"{directory} cannot be used: {why}") from error
    except DirectoryError:
        unmake(new)
        raise
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink == 0:  # whoever made it was refused, and took it away
            raise OSError(errno.EAGAIN, "")
    except OSError as error:
        os.close(lock)
        raise DirectoryError(f"{directory} is in use by another s4 server; stop it first") from error
    try:
        identity = identity_of(directory)
    except OSError as error:
        unmake(new)
        os.close(lock)
        raise UnusableError(f"{directory} cannot be read: {error.strerror}") from error
    except DirectoryError:
        unmake(new)
        os.close(lock)
        raise
    if made is not None:
        made.extend(new)
    return identity, lock


def _make(directory: Path, made: list[Path]) -> None:
    """Make a directory and those above it, and note which."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    made.extend(reversed(missing))


def _open_lock(path: Path, made: list[Path]) -> int:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    made.append(path)
    return lock


def unmake(made: list[Path]) -> None:
    """Take away what a start made that was refused, the newest first. A lock goes while it is held."""
    for path in reversed(made):
        with contextlib.suppress(OSError):
            if path.name == "lock":
                path.unlink()
            else:
                path.rmdir()
    made.clear()


def identity_of(directory: Path) -> Identity | None:
    path = directory / NAME
    if path.exists():
        try:
            identity = msgspec.json.decode(path.read_bytes(), type=Identity)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnusableError(f"{path} is damaged: {error}") from error
        if identity.format not in FORMATS:
            raise DirectoryError(
                f"{directory} has format {identity.format}; this S4 knows {FORMATS[-1]}. Run a newer S4."
            )
        if version(identity.oldest) > version(__version__):
            raise DirectoryError(
                f"{directory} was used by S4 {identity.opened_by}, which left what this S4 {__version__} would misread: "
                f"run {identity.oldest} or newer"
            )
        return identity
    foreign = [entry.name for entry in directory.iterdir() if entry.name not in _OURS_BEFORE_FORMAT]
    if foreign:
        raise DirectoryError(f"{directory} has files that are not S4's, such as {foreign[0]}; give an empty directory")
    return None


def version(text: str) -> tuple[int, ...]:
    """Of "0.8.0", as it compares; nothing is older than all."""
    return tuple(int(piece) for piece in re.findall(r"\d+", text)[:3])


def note_opened(files: Files, directory: Path, identity: Identity, oldest: str = "") -> str:
    """Have a store say who opened it, and the oldest program that still may: OLDEST, or newer where the server's map
    wants one. Returns the program that had it before, where that was another one. A disk that takes nothing just now is told at the next start."""
    oldest = max(identity.oldest, OLDEST, oldest, key=version)
    newest = max(identity.opened_by, __version__, key=version)
    wanted = replace(identity, oldest=oldest, opened_by=newest, format=FORMATS[version(oldest) > SILENT])
    if wanted != identity:
        with contextlib.suppress(OSError):
            files.replace(directory / NAME, msgspec.json.format(msgspec.json.encode(wanted), indent=1))
    if identity.opened_by == __version__:
        return ""
    before = identity.opened_by or "0.7 or older"
    log.warning("this is S4 %s; %s was last opened by %s", __version__, directory, before)
    return before


def keeps_out(directory: Path, oldest: str) -> bool:
    """Whether a store says, durably, that programs older than `oldest` must not open it."""
    identity = identity_of(directory)
    return identity is not None and version(identity.oldest) >= version(oldest)


def refuse_older(files: Files, directory: Path, oldest: str) -> bool:
    """Have a store refuse programs older than `oldest`, durably, before something is written there that they would misread.
    Whether it does: a disk may take nothing just now. On the event loop alone, as `note_opened`: both read and write."""
    try:
        identity = identity_of(directory)
        if identity is None:
            return False
        if version(identity.oldest) >= version(oldest):
            files.sync_directory(directory)
        else:
            wanted = replace(identity, oldest=oldest, format=FORMATS[version(oldest) > SILENT])
            files.replace(directory / NAME, msgspec.json.format(msgspec.json.encode(wanted), indent=1))
    except (OSError, DirectoryError) as error:
        log.warning("%s cannot be marked for S4 %s and newer: %s", directory, oldest, error)
        return False
    return True


def aligning(files: Files, directory: Path) -> Callable[[], bool]:
    """What a store is asked before its first aligned record."""
    return lambda: refuse_older(files, directory, ALIGNED)


def format_directory(files: Files, directory: Path, cluster: str, partitions: int) -> Identity:
    """Give an empty directory an identity: a new store of `cluster` (rule M3). Raises UnusableError."""
    identity = Identity(
        cluster, os.urandom(16).hex(), int(time.time()), partitions, opened_by=__version__, oldest=OLDEST
    )
    try:
        files.replace(directory / NAME, msgspec.json.format(msgspec.json.encode(identity), indent=1))
    except OSError as error:
        raise UnusableError(f"{directory} cannot be written: {error.strerror}") from error
    return identity


def holds_data(directory: Path) -> bool:
    """Whether a formatted directory was ever used."""
    return any((directory / name).exists() for name in ("meta", "volumes", "index"))

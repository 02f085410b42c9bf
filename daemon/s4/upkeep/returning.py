"""A drive that is away comes back without anybody starting the server again: mounted again, freed, or replaced by an
empty one.

Which drives are there is decided at a start (storage/drives.py), so this one looks whether a start would take the
drive in, and has the process replace itself then, on the same sockets, as it does after a failure: about a second.
Whether a start would take it is judged with nothing changed, and strictly: what a start refuses altogether must never
be brought about by itself. A drive that failed while the server ran is taken in by itself only once it is another one;
else when an administrator says so.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from s4.cluster import shardmap
from s4.cluster.coordinator import LocalCoordinator
from s4.cluster.membership import DOCUMENT
from s4.cluster.shardmap import ShardMap
from s4.node.base import Node
from s4.storage.directory import PROBE, DirectoryError, FailingDriveError, identity_of
from s4.storage.drives import Drive
from s4.storage.files import Files
from s4.upkeep.failing import can_spare

log = logging.getLogger(__name__)

SETTLED_LOOKS, SETTLED_S = 100, 0.05
FAILED = "it failed while the server ran"  # how node/drive_set.py begins the reason of such a drive


class Returning:
    """`renew` starts the process again with the failures of a directory forgotten; `may_renew` says whether that was
    not done for it too often just now."""

    def __init__(
        self,
        node: Node,
        reserve_bytes: int,
        renew: Callable[[Path], None],
        may_renew: Callable[[Path], bool],
        files: Files,
        in_flight: Callable[[], int] = int,
    ) -> None:
        self._node, self._reserve, self._renew, self._may_renew = node, reserve_bytes, renew, may_renew
        self._files, self._in_flight = files, in_flight

    async def look(self) -> None:
        """Take in a drive that is usable again."""
        for drive in self._node.drives.all:
            if drive.shards is None and self._may_renew(drive.directory):
                why = await asyncio.to_thread(self.why_not, drive, told=False)
                if not why:
                    log.warning("drive %d, %s, is back: it is taken in", drive.number + 1, drive.directory)
                    await self.settled()
                    self._renew(drive.directory)
                    return

    async def settled(self) -> None:
        """Wait for a moment without requests, for so long as that may come soon."""
        for _ in range(SETTLED_LOOKS):
            if not self._in_flight():
                return
            await asyncio.sleep(SETTLED_S)

    def why_not(self, drive: Drive, *, told: bool) -> str:
        """Why a start would not take the drive in, or should not; empty where it would."""
        directory = drive.directory
        if not directory.is_dir():
            return "it does not exist"
        others = [one.directory for one in self._node.drives.all if one.shards is not None]
        if unmounted(directory, others):
            return "no drive is mounted there, as on the others"
        try:
            identity = identity_of(directory)
            if identity is not None and identity.store != drive.store:
                return "it holds another store than the one that belongs there"
            if identity is not None and drive.reason.startswith(FAILED) and not told:
                return "it failed, and is taken in again when you say so: `s4 admin drives retry`"
            return self._foreign(directory) or unusable(self._files, directory, self._reserve)
        except DirectoryError as error:
            return str(error)
        except OSError as error:
            return f"it cannot be used: {error.strerror}"

    def _foreign(self, directory: Path) -> str:
        """Why a drive's map is none of this server's, which a start would believe. With a majority of the drives here
        it may be a change that too few took before this process began (R4)."""
        membership, drives = self._node.membership, self._node.drives
        value, revision = LocalCoordinator(self._files, [directory]).newest(DOCUMENT)
        ahead, majority = revision - membership.revision, 2 * len(drives.stores) > len(drives.all)
        same = ahead == 0 and value == shardmap.encode(membership.current)
        if ahead < 0 or same or (majority and ahead <= 1):
            return ""
        return "it was used without the others, and has what they lack: empty it once nothing of it is needed"

    def find(self, name: str) -> Drive:
        """By number, as `s4 admin drives` lists them, or directory. Raises ValueError."""
        for drive in self._node.drives.all:
            if name in (str(drive.number + 1), str(drive.directory)):
                return drive
        raise ValueError(
            f"there is no drive {name}; `s4 admin drives` lists them, and either number or directory will do"
        )

    def retry(self, name: str) -> str:
        """Take a drive in that is away. What was done, in words. Raises ValueError."""
        drive = self.find(name)
        if drive.shards is not None:
            raise ValueError(f"drive {drive.number + 1}, {drive.directory}, is there")
        if why := self.why_not(drive, told=True):
            raise ValueError(f"drive {drive.number + 1}, {drive.directory}, cannot be taken in: {why}")
        asyncio.get_running_loop().call_later(0.2, self._renew, drive.directory)  # once this was answered
        return "it is taken in, and filled with what it lacks"

    def replace(self, name: str) -> str:
        """Put a drive aside, so that another can be mounted in its place. What was done, in words. Raises
        ValueError."""
        drive, membership = self.find(name), self._node.membership
        if drive.shards is None:
            return "it is away: mount an empty one in its place, and it is taken in by itself"
        current: ShardMap = membership.current
        if not can_spare(current, drive.store, membership.copies_needed(strict=False)):
            raise ValueError(
                f"drive {drive.number + 1}, {drive.directory}, cannot be spared now: too much would be missing without it"
            )
        error = FailingDriveError("an administrator replaces it")
        asyncio.get_running_loop().call_later(0.2, drive.shards.give_up, error)
        return "it is put aside: mount an empty one in its place, and it is taken in by itself"


def unmounted(directory: Path, others: Sequence[Path]) -> bool:
    """Whether a directory is on the disk of the system where the others are disks of their own."""
    return bool(others) and all(one.is_mount() for one in others) and not directory.is_mount()


def unusable(files: Files, directory: Path, reserve_bytes: int) -> str:
    """Why nothing could be kept there. Raises OSError."""
    free, _ = files.free_bytes(directory)
    if free <= reserve_bytes // 2:
        return "it is full"
    lock = directory / "lock"
    if lock.exists():
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "another server uses it"
        finally:
            os.close(fd)
    probe = directory / PROBE
    try:
        files.replace(probe, b"s4" * 2048)
    finally:
        probe.unlink(missing_ok=True)
    return ""

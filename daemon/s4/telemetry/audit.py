"""The audit log: one JSON line for every change that was asked for, with its outcome.

Lines are buffered until the event loop's next turn and then appended in one call, to a file or to standard output.
Several processes may append to one file; the one that called `rotate` moves it aside when it is large, the others see
that within a second and open the new one. The log is a record for people; durability is the store's alone.

A disk that takes a part of a line, or nothing, gets the rest with the next lines, once it takes more: up to
WAITING_BYTES wait. What comes beyond that is lost, and a line of its own says how many.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

WAITING_BYTES = 4 << 20
ROTATE_S = 30.0  # between looks whether the file is large
LOOK_S = 1.0  # how late it may be seen that another process moved the file: its lines are in what was moved until then
_encoder = msgspec.json.Encoder()


class AuditLog:
    """Appends to `path`; "-" is standard output, "none" nowhere. Keeps `keep` rotated files of `limit_bytes`."""

    def __init__(self, path: str, limit_bytes: int = 128 << 20, keep: int = 8) -> None:
        self._path = Path(path) if path not in ("-", "none") else None
        self._limit, self._keep = limit_bytes, keep
        self._lines: list[bytes] = []
        self._rest = b""  # of what was to be written before
        self._lost = 0
        self._look_at = 0.0
        self._fd = sys.stdout.fileno() if path == "-" else -1
        if self._path is not None:
            self._open()

    def _open(self) -> None:
        if self._path is not None:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, *, key: bytes, seconds: float, **fields: str | int) -> None:
        """Record one change. Values are what clients sent: JSON escapes them."""
        if self._fd < 0:
            return
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **fields,
            "key": key.decode("utf-8", "backslashreplace"),
            "milliseconds": round(seconds * 1000, 3),
        }
        self._lines.append(_encoder.encode(record))

    def flush(self) -> None:
        if self._fd < 0 or not (self._lines or self._rest):
            return
        failed = bool(self._rest)
        self._rest += self._waiting(len(self._rest))
        try:
            if self._path is not None and time.monotonic() >= self._look_at and self._moved(self._path):
                old = self._fd
                self._open()
                os.close(old)
            while self._rest:
                self._rest = self._rest[self._write_some(self._rest) :]
        except OSError as error:
            if not failed:
                log.error("the audit log takes nothing now, and is tried again: %s", error)

    def _waiting(self, held: int) -> bytes:
        """The lines that came since, as far as there is room for them."""
        taken: list[bytes] = []
        for line in self._lines:
            held += len(line) + 1
            if held > WAITING_BYTES:
                self._lost += 1
            else:
                taken.append(line)
        self._lines.clear()
        if self._lost and taken:
            taken.append(_encoder.encode({"lost": self._lost}))
            self._lost = 0
        return b"".join(line + b"\n" for line in taken)

    def _write_some(self, data: bytes) -> int:
        """One call, which may take fewer bytes than it is given."""
        return os.write(self._fd, data)

    def _moved(self, path: Path) -> bool:
        """Whether the file under our name is no longer the one that we have open."""
        self._look_at = time.monotonic() + LOOK_S
        try:
            return path.stat().st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return True

    async def rotate(self) -> None:
        """Move a file that has grown past its limit aside. For one process only."""
        if self._path is None or not self._path.exists() or self._path.stat().st_size < self._limit:
            return
        for number in range(self._keep - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._look_at = 0.0

    def close(self) -> None:
        self.flush()
        if self._path is not None and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

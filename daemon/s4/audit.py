"""The audit log: one JSON line for every change that was asked for, with its outcome.

Lines are buffered until the event loop's next turn and then appended in one call, to a file or to standard
output. Several processes may append to one file; the one that called `rotate` moves it aside when it is large,
the others see that and open the new one. The log is a record for people; durability is the store's alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

_encoder = msgspec.json.Encoder()


class AuditLog:
    """Appends to `path`; "-" is standard output, "none" nowhere. Keeps `keep` rotated files of `limit_bytes`."""

    def __init__(self, path: str, limit_bytes: int = 128 << 20, keep: int = 8) -> None:
        self._path = Path(path) if path not in ("-", "none") else None
        self._limit, self._keep = limit_bytes, keep
        self._lines: list[bytes] = []
        self._file: IO[bytes] | None = sys.stdout.buffer if path == "-" else None
        if self._path is not None:
            self._open()

    def _open(self) -> None:
        if self._path is not None:
            self._file = open(self._path, "ab", opener=_private)  # noqa: SIM115 - kept open

    def write(self, *, key: bytes, seconds: float, **fields: str | int) -> None:
        """Record one change. Values are what clients sent: JSON escapes them."""
        if self._file is None:
            return
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields,
                  "key": key.decode("utf-8", "backslashreplace"), "milliseconds": round(seconds * 1000, 3)}  # fmt: skip
        self._lines.append(_encoder.encode(record))

    def flush(self) -> None:
        if self._file is None or not self._lines:
            return
        data = b"\n".join(self._lines) + b"\n"
        self._lines.clear()
        if self._path is not None and self._moved(self._path):
            self._file.close()
            self._open()
        self._file.write(data)
        self._file.flush()

    def _moved(self, path: Path) -> bool:
        """Whether the file under our name is no longer the one that we have open."""
        try:
            return self._file is not None and path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return True

    def rotate(self) -> None:
        """Move a file that has grown past its limit aside. For one process only."""
        if self._path is None or not self._path.exists() or self._path.stat().st_size < self._limit:
            return
        for number in range(self._keep - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))

    def close(self) -> None:
        self.flush()
        if self._path is not None and self._file is not None:
            self._file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

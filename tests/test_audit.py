"""The audit log: on a disk that is full for a while, and when it is large."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest

from s4.telemetry import audit
from s4.telemetry.audit import AuditLog


class Full(AuditLog):
    """`room` is what the disk still takes."""

    room = 0

    def _write_some(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = super()._write_some(data[: self.room])
        self.room -= done
        return done


def test_no_line_is_torn_or_lost_by_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    async def test() -> None:
        kept = Full(str(tmp_path / "audit.log"))
        kept.room = 150  # a line and a part of the next
        for number in range(20):
            kept.write(key=b"%d" % number, seconds=0.0, operation="PutObject")
            kept.flush()
        assert (tmp_path / "audit.log").stat().st_size == 150
        kept.room = 1 << 30
        kept.write(key=b"20", seconds=0.0, operation="PutObject")
        kept.close()

    asyncio.run(test())
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [line["key"] for line in lines] == [str(number) for number in range(21)]


def test_what_waits_is_bounded_and_what_is_lost_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "WAITING_BYTES", 1000)

    async def test() -> None:
        kept = Full(str(tmp_path / "audit.log"))
        for number in range(100):
            kept.write(key=b"%d" % number, seconds=0.0)
            kept.flush()
        assert len(kept._rest) <= 1000
        kept.room = 1 << 30
        kept.flush()
        kept.write(key=b"after", seconds=0.0)
        kept.close()

    asyncio.run(test())
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert sum("key" in line for line in lines) + sum(line.get("lost", 0) for line in lines) == 101
    assert lines[-2]["key"] == "after"


def test_a_large_log_is_moved_aside_and_the_oldest_dropped(tmp_path: Path) -> None:
    async def test() -> None:
        path, told = tmp_path / "audit.log", tmp_path / "other"
        log = AuditLog(str(path), limit_bytes=1, keep=2)
        for number in range(4):
            await log.rotate()
            log.write(key=b"%d" % number, seconds=0.0)
            log.flush()
        found = {one.name: json.loads(one.read_bytes())["key"] for one in tmp_path.glob("audit*")}
        assert found == {"audit.log": "3", "audit.log.1": "2", "audit.log.2": "1"}
        await AuditLog(str(told)).rotate()
        assert told.exists(), "it is small"
        log.close()

    asyncio.run(test())

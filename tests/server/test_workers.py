"""Processes beside a server's own, by themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from inprocess import until
from s4.base.jobs import Jobs
from s4.server.workers import METRICS, Workers

DIES = "raise SystemExit(3)"
COMES_UP = "import os; os.write(0, b'u'); raise SystemExit(3)"


@pytest.mark.parametrize(("program", "fails"), [(DIES, True), (COMES_UP, False)], ids=["at its start", "later"])
def test_a_worker_that_does_not_come_up_is_a_job_that_fails(tmp_path: Path, program: str, fails: bool) -> None:
    """All was well by the status of a server that nobody could reach."""

    async def test() -> None:
        jobs = Jobs()
        workers = Workers(lambda: ["-c", program], {METRICS: str(tmp_path)}, jobs)
        starting = asyncio.create_task(workers.start(1))
        await until(lambda: [one for one in jobs.table() if one["failures" if fails else "runs"] == 2])
        (job,) = jobs.table()
        assert (job["failures_in_a_row"], job["runs"]) == ((2, 0) if fails else (0, 2))
        assert ("ended with 3 before it was up" in str(job["error"])) == fails
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await jobs.close()

    asyncio.run(test())

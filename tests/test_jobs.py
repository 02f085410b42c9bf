"""Background work: no error ends it, it is told no more than it should be, and counted."""

from __future__ import annotations

import asyncio
import logging

import pytest

from inprocess import until
from s4.base import jobs
from s4.base.jobs import Failures, Job, Jobs, each


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError(5, "x"), KeyError(1), asyncio.CancelledError(), AssertionError()], ids=repr
)
def test_no_error_ends_a_job(error: BaseException) -> None:
    """CancelledError among them: what a job waits for may have been cancelled by somebody else."""

    async def whole() -> None:
        errors, made = [error] * 3, Jobs()

        async def run() -> None:
            if errors:
                raise errors.pop()

        job = Job("work", 0.0, 0.0, run, retry_s=0.001)
        made.start(job)
        await until(lambda: job.runs >= 2)
        assert (job.failures.total, job.failures.in_a_row) == (3, 0)
        told = {(one.name, one.labels["job"]): one.value for one in made.metrics()}
        assert told["s4_job_failures", "work"] == 3
        assert told["s4_job_failing", "work"] == 0
        await made.close()
        assert not list(made.metrics())

    asyncio.run(whole())


def test_what_is_done_once_is_tried_until_it_succeeds() -> None:
    async def whole() -> None:
        errors, made = [ValueError("x")] * 2, Jobs()

        async def run() -> None:
            if errors:
                raise errors.pop()

        job = Job("work", 0.0, None, run, retry_s=0.001)
        made.start(job)
        assert made.named("work") is job
        await until(lambda: job.runs >= 1)
        assert made.named("work") is None

    asyncio.run(whole())


def test_a_job_that_is_stopped_stops_wherever_it_is() -> None:
    async def whole() -> None:
        made, ended, here = Jobs(), [], asyncio.Event()

        async def run() -> None:
            here.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        job, other = Job("work", 0.0, 0.0, run), Job("other", 1000.0, 1000.0, run)
        made.start(job, other)
        await here.wait()
        await made.stop(job)
        assert ended == [1]
        assert made.named("other") is other
        await made.close()

    asyncio.run(whole())


def test_a_failure_is_told_once_a_minute_another_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    failures = Failures()
    with caplog.at_level(logging.INFO, "s4.base.jobs"):
        for at in range(0, 130, 10):
            now[0] = float(at)
            failures.add("work", ValueError("first"))
        assert len(caplog.records) == 3
        failures.add("work", ValueError("second"))
        failures.add("work", OSError("third"), (OSError,))
        assert [one.levelname for one in caplog.records[3:]] == ["ERROR", "WARNING"]
        failures.end("work")
        failures.end("work")
        assert [one.levelname for one in caplog.records[5:]] == ["INFO"]


def test_what_fails_again_and_again_waits_longer_up_to_a_bound() -> None:
    job = Job("work", 0.0, 1.0, lambda: asyncio.sleep(0))
    assert job.pause_s() == 1.0
    pauses = []
    for _ in range(6):
        job.failures.add("work", ValueError("x"))
        pauses.append(job.pause_s())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    hourly = Job("work", 0.0, 3600.0, lambda: asyncio.sleep(0))
    hourly.failures.add("work", ValueError("x"))
    assert hourly.pause_s() == 3600.0


def test_what_fails_keeps_nothing_behind_it_waiting() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        if item in (1, 2):
            raise ValueError(item)
        done.append(item)

    with pytest.raises(ValueError, match="1"):
        asyncio.run(each([0, 1, 2, 3], work))
    assert done == [0, 3]

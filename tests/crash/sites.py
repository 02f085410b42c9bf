"""The process of test_call_sites.py: works with a faulty file layer, tells what it did, and ends as a server would."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from multiprocessing.connection import Connection
from pathlib import Path

from crash.history import History, workload
from inprocess import get, opened
from s4.gateway.buckets import create_bucket
from s4.s3.errors import S3Error
from s4.server.restart import EXIT_FATAL
from s4.storage import direct
from storage.fakes import FaultyFiles

DONE, REFUSED = 0, 3


class Telling(History):
    """A history that is told over a pipe, which outlives the process."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self.pipe = pipe

    async def doing(self, key: bytes, value: bytes | None, work: Awaitable[object]) -> None:
        self.pipe.send(("begun", key, value))
        await super().doing(key, value, work)
        self.pipe.send(("done", key, value))


def main(directories: list[Path], method: str, at: int, code: int, pipe: Connection) -> None:
    direct.LEAST_BYTES = 4096  # a process of its own: conftest.py has set that of the other one
    os._exit(asyncio.run(_run(directories, FaultyFiles({method}, at, code), Telling(pipe))))


async def _run(directories: list[Path], files: FaultyFiles, history: Telling) -> int:
    def fatal(_: BaseException) -> None:
        history.pipe.send(("fired", b"", None))
        os._exit(EXIT_FATAL)

    outcome = DONE
    async with opened(directories, files=files, fatal=fatal, volume_bytes=30_000, preallocate_bytes=4096) as (
        store,
        gateway,
    ):
        await create_bucket(gateway, "crash", "root")
        files.arm()
        try:
            await workload(store, gateway, history)
        except S3Error:
            outcome = REFUSED
            for key, value in history.known.items():  # what was refused hurt nothing else
                if value is not None and key not in history.maybe:
                    assert await get(gateway, "crash", key) == value
    if files.fired:
        history.pipe.send(("fired", b"", None))
    return outcome

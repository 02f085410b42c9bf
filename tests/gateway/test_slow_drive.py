"""A drive that is slow: reads do without it, as long as no more than m are, and do not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from inprocess import get, opened, put, until
from s4.gateway.buckets import create_bucket
from s4.metadata.commands import AnyCommand, NeedHeal
from s4.storage.files import Files


class StuckFiles(Files):
    """Reads below some directories wait until they are let go."""

    def __init__(self) -> None:
        self.stuck: set[str] = set()
        self.waiting = 0
        self.let_go = threading.Event()
        self._paths: dict[int, str] = {}

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._paths[fd] = path.parent.parent.name
        return fd

    def open(self, path: Path) -> int:
        fd = super().open(path)
        self._paths[fd] = path.parent.parent.name
        return fd

    def read(self, fd: int, buffers: object, offset: int, *, nowait: bool = False) -> int:
        if self._paths[fd] in self.stuck:
            if nowait:
                return -1
            self.waiting += 1
            self.let_go.wait(60)
        return super().read(fd, buffers, offset, nowait=nowait)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2])
def test_slow_drives_are_read_around(tmp_path: Path, count: int) -> None:
    async def whole() -> None:
        files = StuckFiles()
        directories = [tmp_path / f"d{number}" for number in range(1, 7)]
        async with opened(directories, files=files) as (store, gateway):
            await create_bucket(gateway, "slow", "root")
            body = bytes(range(256)) * 20_000
            for key in (b"a", b"b", b"c"):
                await put(gateway, "slow", key, key + body)
            gateway.hedge_s = 0.02
            queued: list[AnyCommand] = []
            submit: Callable[..., object] = store.node.host.submit
            store.node.host.submit = lambda partition, command, *more, **named: (
                queued.append(command) or submit(partition, command, *more, **named)
            )  # type: ignore[method-assign,assignment,func-returns-value]
            files.stuck = {f"d{number}" for number in range(1, 1 + count)}
            try:
                for key in (b"a", b"b", b"c"):
                    assert await asyncio.wait_for(get(gateway, "slow", key), 20) == key + body
                assert files.waiting > 0
            finally:
                files.let_go.set()
            assert not any(isinstance(command, NeedHeal) for command in queued), "slow is no damage"

    asyncio.run(whole())


def test_more_slow_drives_than_parity_are_waited_for(tmp_path: Path) -> None:
    async def whole() -> None:
        files = StuckFiles()
        async with opened([tmp_path / f"d{number}" for number in range(1, 7)], files=files) as (_, gateway):
            await create_bucket(gateway, "slow", "root")
            body = bytes(range(256)) * 20_000
            await put(gateway, "slow", b"a", body)
            gateway.hedge_s = 0.02
            files.stuck = {"d1", "d2", "d3"}
            reading = asyncio.ensure_future(get(gateway, "slow", b"a"))
            await until(lambda: files.waiting >= 3)
            assert not reading.done()
            files.let_go.set()
            assert await asyncio.wait_for(reading, 20) == body

    asyncio.run(whole())

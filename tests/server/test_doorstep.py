"""Who is not known yet: places, who gives way for whom, and what trickles. Of the request there is only how much has
come."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from s4.config.limits import Limits
from s4.http.doorstep import Doorstep
from s4.s3.errors import S3Error

SLOW = replace(Limits(), unknown_requests=3, unknown_s=3600.0, least_rate_bytes=1000)


class Reading:
    """One request that is read until it is told to be done."""

    def __init__(self, doorstep: Doorstep, come: int = 0) -> None:
        self.content = SimpleNamespace(total_bytes=come, is_eof=lambda: False)
        self.done = asyncio.Event()
        self.entered = asyncio.Event()
        self._doorstep = doorstep
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> str:
        try:
            async with self._doorstep.place(cast(Any, SimpleNamespace(http=SimpleNamespace(content=self.content)))):
                self.entered.set()
                await self.done.wait()
        except S3Error as error:
            return error.code
        return "read"


async def _begun(doorstep: Doorstep, come: int = 0) -> Reading:
    made = Reading(doorstep, come)
    await made.entered.wait()
    return made


def test_who_has_waited_longest_gives_way_to_who_comes() -> None:
    async def test() -> None:
        doorstep = Doorstep(SLOW)
        silent = [await _begun(doorstep) for _ in range(3)]
        for one in range(20):
            comes = await _begun(doorstep)
            comes.done.set()
            assert await comes.task == "read", one
            assert doorstep.count < 3
        assert await silent[0].task == "RequestTimeout"
        assert not silent[1].task.done(), "one place is enough for twenty who come and go"
        more = [await _begun(doorstep) for _ in range(3)]
        assert [await one.task for one in silent[1:]] == ["RequestTimeout"] * 2
        assert doorstep.count == 3
        for one in more:
            one.done.set()
        assert [await one.task for one in more] == ["read"] * 3
        assert doorstep.count == 0

    asyncio.run(test())


def test_time_ends_who_is_not_known() -> None:
    async def test() -> None:
        doorstep = Doorstep(replace(SLOW, unknown_s=0.05))
        assert await (await _begun(doorstep, come=10**9)).task == "RequestTimeout"  # fast, and for ever
        assert doorstep.count == 0

    asyncio.run(test())


def test_who_trickles_is_ended_long_before_the_time_is_over() -> None:
    async def test() -> None:
        doorstep = Doorstep(SLOW, grace_s=0.01)
        whole, fast = await _begun(doorstep), await _begun(doorstep, come=10**9)
        whole.content.is_eof = lambda: True
        assert await (await _begun(doorstep, come=1)).task == "RequestTimeout"
        for one in (whole, fast):
            one.done.set()
            assert await one.task == "read"

    asyncio.run(test())

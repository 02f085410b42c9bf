"""A machine that sleeps while the others go on: what it was promised has run out when it wakes, and what it reads is as
old as it is (R5, L2, D6). Sleep is made up: CLOCK_BOOTTIME jumps, `time.monotonic` and the event loop do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inprocess import opened
from s4.gateway.context import Readers
from s4.metadata import commands
from s4.peer.client import RemoteNode
from s4.peer.server import LEASE_S, PeerServer


class Sleep:
    """`slept_s` is how long the machine has slept so far."""

    def __init__(self) -> None:
        self.slept_s = 0.0
        self._true = time.clock_gettime

    def clock(self, number: int) -> float:
        return self._true(number) + (self.slept_s if number == time.CLOCK_BOOTTIME else 0.0)


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sleep]:
    made = Sleep()
    monkeypatch.setattr(time, "clock_gettime", made.clock)
    yield made


def test_a_gateway_that_slept_uses_no_settings_that_it_was_told_before(tmp_path: Path, sleep: Sleep) -> None:
    """Whoever changed the setting meanwhile waited for this lease by a clock that went on."""

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, _):
            server = PeerServer(store.node, tmp_path / "peer.sock")
            await server.start()
            remote = await RemoteNode.connect(tmp_path / "peer.sock", Readers().oldest, lambda: None)
            try:
                await remote.execute(0, commands.CreateBucket("photos", "root", 100, 100))
                found = await remote.find_bucket("photos")
                assert found is not None
                assert remote.known_bucket("photos") == found, "the lease holds"
                sleep.slept_s += LEASE_S
                assert remote.known_bucket("photos") is None
                await remote._beacon()
                assert remote.known_bucket("photos") is None, "others may have changed it, whom nobody had to wait for"
                assert await remote.find_bucket("photos") == found
                assert remote.known_bucket("photos") == found, "a lease that was renewed since holds"
            finally:
                await remote.close()
                await server.close()

    asyncio.run(whole())


def test_what_a_gateway_reads_is_as_old_as_it_is_though_it_slept(tmp_path: Path, sleep: Sleep) -> None:
    """Else shards would be freed that a request still reads, which began before they died (D6)."""

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, _):
            server, readers = PeerServer(store.node, tmp_path / "peer.sock"), Readers()
            await server.start()
            remote = await RemoteNode.connect(tmp_path / "peer.sock", readers.oldest, lambda: None)
            try:
                began = time.clock_gettime(time.CLOCK_BOOTTIME)
                number = readers.begin()
                sleep.slept_s += 600.0
                await remote._beacon()
                assert server.oldest_reader() - began < 300.0
                readers.end(number)
                await remote._beacon()
                await remote._beacon()
                assert server.oldest_reader() - began >= 600.0
            finally:
                await remote.close()
                await server.close()

    asyncio.run(whole())

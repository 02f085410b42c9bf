"""Requests hold what is here, not what was announced; those that wait for their client stand in nobody's way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from s4.config.limits import Limits
from s4.gateway import memory
from s4.gateway.memory import MemoryBudget, Share
from s4.http.request import Pace
from s4.s3.errors import S3Error

MIB = 1 << 20


async def _stalled(share: Share) -> None:
    """The client is waited for, for so long that it counts."""
    share.await_client()
    assert share._timer is not None
    share._timer.cancel()
    share._stall()


def test_a_request_that_waits_for_its_client_gives_back_what_it_does_not_hold() -> None:
    async def whole() -> None:
        budget = MemoryBudget(100, 0.01)
        share = Share(budget, lambda: 10)
        await share.take(100)
        await _stalled(share)
        assert (budget.used_bytes, budget.waiting) == (10, 1)
        other = Share(budget, lambda: 0)
        await other.take(90)
        other.drop()
        assert share.client_came()
        assert budget.waiting == 0
        await share.take(100)
        share.drop()
        assert budget.used_bytes == 0

    asyncio.run(whole())


def test_who_needs_memory_ends_those_that_hold_much_and_wait_longest() -> None:
    async def whole() -> None:
        budget, ended = MemoryBudget(4 * MIB, 5.0), list[int]()
        shares: list[Share] = []

        def make(number: int, held: int) -> Share:
            return Share(budget, lambda: held, lambda: ended.append(number))

        for number, held in enumerate((MIB // 8, MIB, MIB, MIB)):
            shares.append(make(number, held))
            await shares[-1].take(held)
            await _stalled(shares[-1])
        other = Share(budget, lambda: 0)
        taking = asyncio.ensure_future(other.take(2 * MIB))
        await asyncio.sleep(0)
        assert ended == [1, 2], "the one with little stays, and the last is not needed"
        for number in ended:
            shares[number].drop()
        await taking
        other.drop()
        shares[0].drop()
        shares[3].drop()
        assert budget.used_bytes == 0

    asyncio.run(whole())


def test_who_stops_after_others_began_to_wait_gives_way_too_and_no_more_than_have_to() -> None:
    """Looked for only when somebody came, those that stopped later kept whoever waited already until its time was
    over."""

    async def whole() -> None:
        budget, ended = MemoryBudget(4 * MIB, 5.0), list[int]()
        shares = [Share(budget, lambda: MIB, lambda number=number: ended.append(number)) for number in range(4)]  # type: ignore[misc]
        for share in shares:
            await share.take(MIB)
        other = Share(budget, lambda: 0)
        taking = asyncio.ensure_future(other.take(2 * MIB))
        await asyncio.sleep(0)
        for share in shares:
            await _stalled(share)
        assert ended == [0, 1], "two are enough, though they have not let go of it yet"
        shares[0].drop()
        assert ended == [0, 1]
        shares[1].drop()
        await taking
        for share in (other, *shares[2:]):
            share.drop()
        assert (budget.used_bytes, budget.ending_bytes) == (0, 0)

    asyncio.run(whole())


def test_an_upload_that_is_ended_hears_why() -> None:
    async def whole() -> None:
        budget = MemoryBudget(MIB, 5.0)

        async def upload() -> Any:
            share = Share(budget, lambda: MIB)
            await share.take(MIB)
            await _stalled(share)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                assert share.ended
                raise share.refusal() from None
            finally:
                share.drop()

        task = asyncio.ensure_future(upload())
        await asyncio.sleep(0)
        other = Share(budget, lambda: 0)
        await other.take(MIB)
        with pytest.raises(S3Error) as caught:
            await task
        assert caught.value.code == "RequestTimeout"
        other.drop()

    asyncio.run(whole())


def test_a_client_that_was_waited_for_a_moment_only_keeps_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        budget = MemoryBudget(100, 0.01)
        share = Share(budget, lambda: 1)
        await share.take(50)
        share.await_client()
        assert not share.client_came()
        assert budget.used_bytes == 50
        share.drop()

    monkeypatch.setattr(memory, "STALL_S", 3600.0)
    asyncio.run(whole())


def test_a_client_that_trickles_is_ended_and_one_that_is_only_slow_is_not() -> None:
    limits = Limits(stall_s=60.0, least_rate_bytes=1024)
    slow, trickling = Pace(limits), Pace(limits)
    for _ in range(100):
        slow.note(20_000, 10.0)
    for _ in range(6):
        trickling.note(100, 10.0)
    with pytest.raises(S3Error) as caught:
        trickling.note(100, 10.0)
    assert caught.value.code == "RequestTimeout"
    Pace(limits).note(1, 59.0)  # it has not had its time yet
    fast_once = Pace(limits)
    fast_once.note(5 << 30, 61.0)
    with pytest.raises(S3Error):
        for _ in range(7):
            fast_once.note(100, 10.0)

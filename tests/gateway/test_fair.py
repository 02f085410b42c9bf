"""Who comes when: the fair queue, and turns at the event loop. By the order of what is let go, never by time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.endpoint import endpoint
from inprocess import put, until
from s4.base.fair import FLOW, LATELY_S, REMEMBERED, Company, FairQueue, Flow
from s4.config.limits import Limits
from s4.gateway.memory import MemoryBudget, Share
from s4.gateway.places import BUSY, IDLE, LOOK_S, PACE_LEAST, PLACE, Pace, Place, Places
from s4.gateway.turns import ROUND_COST, Turns
from s4.s3.errors import S3Error
from s4.storage.records import Shard


def _order(queue: FairQueue[str]) -> list[str]:
    return [queue.pop()[1] for _ in range(len(queue))]


def test_a_flood_makes_nobody_else_wait_for_more_than_one_item() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.push(Flow("flood", "f"), 10, f"f{number}")
    served = [queue.pop()[1] for _ in range(50)]
    queue.push(Flow("other", "o"), 10, "o0")
    queue.push(Flow("other", "o"), 10, "o1")
    served += [queue.pop()[1] for _ in range(4)]
    assert [served.index("o0") - 50, served.index("o1") - 50] == [0, 2]


def test_buckets_of_a_user_share_what_is_the_users() -> None:
    """Another user has half of it, in however many buckets the first one works."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(40):
        for bucket in ("a", "b", "c", "d"):
            queue.push(Flow("many", bucket), 1, bucket)
        queue.push(Flow("one", "x"), 1, "x")
    served = _order(queue)[:40]
    assert {name: served.count(name) for name in "xabcd"} == {"x": 20, "a": 5, "b": 5, "c": 5, "d": 5}


def test_shares_are_of_cost_and_not_of_items() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.push(Flow("large", ""), 10, "l")
        queue.push(Flow("small", ""), 1, "s")
    served = _order(queue)[:55]
    assert 45 <= served.count("s") <= 51


def test_nothing_is_saved_up_in_a_pause() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(Flow("b", ""), 1, "b")
    queue.pop()
    for number in range(100):
        queue.push(Flow("a", ""), 1, f"a{number}")
        queue.pop()
    for _ in range(10):
        queue.push(Flow("a", ""), 1, "a")
        queue.push(Flow("b", ""), 1, "b")
    assert 4 <= _order(queue)[:10].count("b") <= 6


@given(
    st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 50))), max_size=200)
)
def test_everything_comes_once_in_order_of_its_flow(steps: list[tuple[int, int, int] | None]) -> None:
    queue: FairQueue[tuple[Flow, int]] = FairQueue()
    waiting: dict[Flow, list[int]] = {}
    for number, step in enumerate(steps):
        if step is None:
            if len(queue):
                flow, at = queue.pop()[1]
                assert waiting[flow].pop(0) == at
        else:
            flow = Flow(f"u{step[0]}", f"b{step[1]}")
            queue.push(flow, step[2], (flow, number))
            waiting.setdefault(flow, []).append(number)
        assert len(queue) == sum(len(one) for one in waiting.values())
        assert all(
            queue.count(f"u{user}") == sum(len(one) for flow, one in waiting.items() if flow.user == f"u{user}")
            for user in range(4)
        )


def test_who_is_gone_is_forgotten() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.push(Flow("flood", ""), 1, 0)
    for number in range(5 * REMEMBERED):
        queue.push(Flow("flood", ""), 1, 0)
        queue.push(Flow(f"user {number}", ""), 1, 0)
        queue.pop()
        queue.pop()
    assert len(queue._users.branches) <= REMEMBERED + 10
    queue.pop()
    assert not queue._users.branches


def test_only_so_much_goes_on_in_a_round_and_a_newcomer_is_next() -> None:
    async def test() -> list[str]:
        turns, order = Turns(round_cost=4), list[str]()

        async def work(user: str, cost: int) -> None:
            FLOW.set(Flow(user, ""))
            await turns.turn(cost)
            order.append(user)

        tasks = [asyncio.ensure_future(work("flood", 2)) for _ in range(20)]
        for _ in range(3):
            await asyncio.sleep(0)
        assert 0 < len(order) < 10
        order.append("|")
        tasks.append(asyncio.ensure_future(work("other", 2)))
        await asyncio.gather(*tasks)
        assert turns.waiting == 0
        return order

    order = asyncio.run(test())
    assert order.index("other") - order.index("|") <= 5  # a round that was let go already, and one of its own


def test_rounds_are_shorter_where_more_than_one_asks() -> None:
    async def test(users: str) -> int:
        turns, order, rounds = Turns(round_cost=8, shared_cost=2), list[int](), 0
        for user in users:
            turns.company.note(user)
        tasks = [asyncio.ensure_future(_let_on(turns, lambda: order.append(rounds))) for _ in range(40)]
        while len(order) < 40:
            await asyncio.sleep(0)
            rounds += 1
        await asyncio.gather(*tasks)
        return max(order.count(one) for one in order if one > 1)

    assert asyncio.run(test("aaa")) == 8
    assert asyncio.run(test("aab")) == 2


def test_what_is_more_than_a_rounds_is_taken_from_the_next_ones() -> None:
    """A piece of a MiB is four rounds of those that several users have."""

    async def test() -> list[int]:
        turns, went, rounds = Turns(round_cost=8, shared_cost=2), list[int](), 0
        for user in "ab":
            turns.company.note(user)

        async def large() -> None:
            await turns.turn(8)
            went.append(rounds)

        tasks = [asyncio.ensure_future(large()) for _ in range(5)]
        while len(went) < 5:
            await asyncio.sleep(0)
            rounds += 1
        await asyncio.gather(*tasks)
        return went

    went = asyncio.run(test())
    assert [later - sooner for sooner, later in pairwise(went)][-2:] == [4, 4]


async def _let_on(turns: Turns, done: Callable[[], None]) -> None:
    await turns.turn(1)
    done()


def test_who_was_cancelled_takes_nobody_elses_turn() -> None:
    async def test() -> None:
        turns = Turns(round_cost=1)
        await turns.turn(1)
        tasks = [asyncio.ensure_future(turns.turn(1)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[:4]:
            task.cancel()
        await asyncio.wait_for(tasks[4], 5.0)
        assert turns.waiting == 0

    asyncio.run(test())


async def _entered(places: Places, user: str, bucket: str = "") -> Place:
    place = Place(user, bucket, places)
    await place.enter()
    return place


async def _tried(places: Places, users: str) -> list[asyncio.Task[Place]]:
    tasks = [asyncio.ensure_future(_entered(places, user)) for user in users]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def _in(tasks: list[asyncio.Task[Place]]) -> int:
    return sum(task.done() and task.exception() is None for task in tasks)


async def _ended(*tasks: asyncio.Task[Place]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Place):
            result.leave()


def test_a_user_has_a_third_of_the_places_that_are_free_and_others_find_room() -> None:
    async def test() -> None:
        places = Places(256, 1024, 60.0, Company())
        flood = await _tried(places, "a" * 200)
        assert (_in(flood), places.waiting) == (64, 136)
        beside = await _tried(places, "b" * 200)
        assert _in(beside) == 48
        assert _in(await _tried(places, "c")) == 1
        next(task for task in flood if task.done()).result().leave()
        await asyncio.sleep(0)
        assert places.taken == 64 + 48 + 1 - 1  # fewer than before are free: whoever is over a third of them waits
        await _ended(*flood, *beside)

    asyncio.run(test())


class _Machine:
    """A clock, and what the loop's thread took of it."""

    def __init__(self) -> None:
        self.now, self.worked = 100.0, 5.0

    def goes_on(self, share: float, rounds: int) -> Iterator[None]:
        for _ in range(rounds):
            self.now += 2 * LOOK_S
            self.worked += share * 2 * LOOK_S
            yield


def _pace(machine: _Machine, company: Company, most: int) -> Pace:
    return Pace(company, most, lambda: machine.now, lambda: machine.worked)


def test_where_others_ask_no_more_are_at_work_than_keep_the_loop_busy() -> None:
    """64 writers of one user had as many steps in each round of the loop, and another's PUT waited for all of them."""
    machine = _Machine()
    company = Company(lambda: machine.now)
    pace = _pace(machine, company, 64)
    company.note("flood")
    assert not pace.holds_up(63), "nobody else is there"
    company.note("calm")
    assert pace.holds_up(PACE_LEAST)
    assert not pace.holds_up(PACE_LEAST - 1)
    reached = [next(n for n in range(65) if pace.holds_up(n) or n == 64) for _ in machine.goes_on(0.1, 20)]
    assert reached == sorted(reached), "it waits for a disk: more at a time"
    assert (reached[0], reached[-1]) == (PACE_LEAST + 2, 64)
    for _ in machine.goes_on((BUSY + IDLE) / 2, 20):
        assert pace.holds_up(64) and not pace.holds_up(63)
    assert [pace.holds_up(PACE_LEAST) for _ in machine.goes_on(0.95, 5)] == [False, False, False, True, True]
    machine.now += LATELY_S
    assert not pace.holds_up(63), "nobody else asked for so long"


def test_a_floods_places_are_few_beside_others_and_each_user_has_one() -> None:
    async def test() -> None:
        company = Company()
        places = Places(256, 1024, 60.0, company)
        places._pace = _pace(_Machine(), company, 64)  # its clock stands: nothing is known of the loop
        company.note("a")
        flood = await _tried(places, "a" * 100)
        assert _in(flood) == 64
        company.note("b")
        others = await _tried(places, "bcd" * 2)
        assert _in(others) == 3
        for place in [task.result() for task in flood if task.done()][PACE_LEAST - 2 :]:
            place.leave()
        await asyncio.sleep(0)
        assert (_in(flood), _in(others)) == (64, 3), "five are at work"
        others[0].result().leave()
        await asyncio.sleep(0)
        assert (places.taken, _in(others)) == (5, 4), "who has none comes first"
        await _ended(*flood, *others)

    asyncio.run(test())


def test_who_waits_for_a_place_comes_in_turn_of_users_and_buckets() -> None:
    async def test() -> list[str]:
        places, order = Places(1, 100, 60.0, Company()), list[str]()

        async def work(user: str, bucket: str) -> None:
            place = await _entered(places, user, bucket)
            order.append(f"{user}{bucket}")
            await asyncio.sleep(0)
            place.leave()

        first = await _entered(places, "x")
        tasks = [asyncio.ensure_future(work("a", "1")) for _ in range(6)]
        tasks += [asyncio.ensure_future(work(*one)) for one in ("a2", "b1", "b1")]
        await asyncio.sleep(0)
        first.leave()
        await asyncio.gather(*tasks)
        assert (places.taken, places.waiting) == (0, 0)
        return order

    assert asyncio.run(test()) == ["a1", "b1", "a2", "b1", "a1", "a1", "a1", "a1", "a1"]


def test_room_to_wait_in_is_shared_and_who_finds_none_is_told_at_once() -> None:
    async def test() -> None:
        places = Places(1, 8, 60.0, Company())
        tasks = await _tried(places, "x" + "a" * 8 + "b" * 8 + "c")
        failed = [task for task in tasks if task.done() and task.exception() is not None]
        assert {str(cast(S3Error, task.exception()).code) for task in failed} == {"SlowDown"}
        assert [sum(task in failed for task in part) for part in (tasks[1:9], tasks[9:17], tasks[17:])] == [4, 6, 0]
        await _ended(*tasks)
        assert (places.taken, places.waiting) == (0, 0)

    asyncio.run(test())


def test_who_waits_too_long_or_goes_leaves_the_way_free() -> None:
    async def test() -> None:
        places = Places(1, 100, 0.05, Company())
        first = await _entered(places, "a")
        second, third = await _tried(places, "ab")
        with pytest.raises(S3Error):
            await second
        with pytest.raises(S3Error):
            await third
        places = Places(1, 100, 60.0, Company())
        first = await _entered(places, "a")
        tasks = await _tried(places, "aaa")
        tasks[0].cancel()
        tasks[2].cancel()
        first.leave()
        (await tasks[1]).leave()
        assert places.taken == 0
        (await _entered(places, "a")).leave()

    asyncio.run(test())


def test_who_waits_for_its_client_has_no_place_and_takes_one_again() -> None:
    async def test() -> None:
        places, budget = Places(1, 0, 60.0, Company()), MemoryBudget(100, 60.0)
        place = await _entered(places, "a")
        PLACE.set(place)
        share = Share(budget, lambda: 0)
        share.await_client()
        assert places.taken == 0
        other = await _entered(places, "b")
        share.client_came()
        again = asyncio.ensure_future(place.again())
        await asyncio.sleep(0)
        assert not again.done()  # it waits, though there is no room to wait in
        other.leave()
        await again
        place.leave()
        place.leave()
        share.drop()
        assert places.taken == 0

    asyncio.run(test())


def test_memory_goes_to_users_in_turn() -> None:
    async def test() -> list[str]:
        budget, order = MemoryBudget(10, 60.0), list[str]()

        async def work(user: str) -> None:
            FLOW.set(Flow(user, ""))
            share = Share(budget, lambda: 0)
            await share.take(10)
            order.append(user)
            await asyncio.sleep(0)
            share.drop()

        tasks = [asyncio.ensure_future(work(user)) for user in "aaaaaab"]
        await asyncio.gather(*tasks)
        assert budget.used_bytes == 0
        return order

    assert (
        "".join(asyncio.run(test())) == "aaabaaa"
    )  # one is at work, one is chosen, and one is first in the queue, when the other comes


@pytest.mark.parametrize("size", [4 << 20, 1 << 20])
def test_downloads_that_begin_at_once_read_little_each_and_little_in_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Each read a MiB before its memory was asked for, all of them in one round of the loop: two thousand had 2 GB.
    What is no larger than that is still read whole before it is answered, by those few that find half of the memory
    free."""
    clients, little, reads, rounds = 100, 128 * 1024, list[tuple[int, int]](), 0
    monkeypatch.setattr("s4.gateway.memory.STALL_S", 600.0)  # or the first give theirs back while others still begin
    memory = MemoryBudget(64 << 20, 60.0)

    async def test() -> None:
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal rounds
            rounds += 1
            counting.append(loop.call_soon(count))
            del counting[:-1]

        counting: list[asyncio.Handle] = []
        async with endpoint(
            tmp_path, time.time, Limits(stall_s=600.0)
        ) as server:  # or the first is ended before the last begins
            gateway = server.gateway
            await put(gateway, "bbb", b"large", bytes(range(256)) * (size // 256))
            gateway.memory, read = memory, gateway.node.read

            async def counted(shard: Shard, offset: int, length: int) -> Any:
                reads.append((rounds, length))
                used.append(memory.used_bytes)
                unasked.extend([length] * (memory.used_bytes < length))
                return await read(shard, offset, length)

            used, unasked = [0], list[int]()
            monkeypatch.setattr(gateway.node, "read", counted)
            with ExitStack() as stack:
                pairs = [socket.socketpair() for _ in range(clients)]
                for ours, theirs in pairs:
                    stack.enter_context(ours)
                    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                    await loop.connect_accepted_socket(server._server, theirs)
                request = server.signed("GET", "/bbb/large")
                count()
                for ours, _ in pairs:
                    ours.send(request)
                while len(reads) < clients or memory.waiting < clients:  # all have begun, and wait for their clients
                    await asyncio.sleep(0.01)
                    assert not unasked, "read before its memory was asked for"
                    assert max(used) <= memory.limit_bytes // 2 * (size <= 1 << 20) + clients * 2 * little
                counting[0].cancel()
            await until(lambda: not memory.used_bytes)  # all see that their clients are gone

    asyncio.run(test())
    large = [length for _, length in reads if length > little]
    assert len(large) <= (memory.limit_bytes // 2 // (2 * size) if size <= 1 << 20 else 0)
    assert bool(large) == (size <= 1 << 20)
    by_round = [sum(length for number, length in reads if number == one) for one in {number for number, _ in reads}]
    assert max(by_round) < 2 * ROUND_COST + (size if large else 0)

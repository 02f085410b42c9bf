"""Who comes when: the fair queue, and turns at the event loop. By the order of what is let go, never by time."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.endpoint import Endpoint, endpoint
from inprocess import put
from s4.gateway.fair import REMEMBERED, FairQueue, Flow
from s4.gateway.turns import FLOW, ROUND_COST, Turns
from s4.s3 import sigv4
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


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 50))), max_size=200))
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
        assert all(queue.count(f"u{user}") == sum(len(one) for flow, one in waiting.items() if flow.user == f"u{user}") for user in range(4))


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


def _get(server: Endpoint, path: str) -> bytes:
    headers = {"host": "localhost", "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), "x-amz-content-sha256": sigv4.UNSIGNED}
    headers["authorization"] = sigv4.authorization(server.access, server.secret, "us-east-1", "GET", path, headers)
    return "\r\n".join([f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def test_downloads_that_begin_at_once_read_little_each_and_little_in_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read a MiB before its memory was asked for, all of them in one round of the loop: two thousand had 2 GB."""
    clients, reads, rounds = 100, list[tuple[int, int]](), 0

    async def test() -> None:
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal rounds
            rounds += 1
            counting.append(loop.call_soon(count))
            del counting[:-1]

        counting: list[asyncio.Handle] = []
        async with endpoint(tmp_path, time.time) as server:
            gateway = server.gateway
            await put(gateway, "bbb", b"large", bytes(range(256)) * (1 << 14))
            read = gateway.node.read

            async def counted(shard: Shard, offset: int, length: int) -> Any:
                reads.append((rounds, length))
                return await read(shard, offset, length)

            monkeypatch.setattr(gateway.node, "read", counted)
            with ExitStack() as stack:
                pairs = [socket.socketpair() for _ in range(clients)]
                for ours, theirs in pairs:
                    stack.enter_context(ours)
                    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                    await loop.connect_accepted_socket(server._server, theirs)
                request = _get(server, "/bbb/large")
                count()
                for ours, _ in pairs:
                    ours.send(request)
                while len(reads) < clients or gateway.memory.waiting < clients:  # all have begun, and wait for their clients
                    await asyncio.sleep(0.01)
                counting[0].cancel()
                assert gateway.memory.used_bytes <= clients * 2 * 128 * 1024
            while gateway.memory.used_bytes:  # all see that their clients are gone
                await asyncio.sleep(0.01)

    asyncio.run(test())
    assert max(length for _, length in reads) <= 128 * 1024
    by_round = [sum(length for number, length in reads if number == one) for one in {number for number, _ in reads}]
    assert max(by_round) < 2 * ROUND_COST

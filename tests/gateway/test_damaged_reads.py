"""A read that meets damage which nothing can make good: an error where nothing was answered yet, and never wrong
bytes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import damage
from fuzz.endpoint import endpoint
from inprocess import put, until
from s4.gateway.memory import MemoryBudget
from s4.http.operations.objects import FIRST_BYTES
from s4.metadata import keys
from s4.storage.records import DamagedError, OfflineError, Shard


def _hurt_the_end(drive: Path, size: int) -> None:
    """The last byte of the one object of that size."""
    (place,) = (one for one in damage.places(drive) if one.record.length == size)
    place.hurt_end()


@pytest.mark.parametrize(
    ("size", "memory_bytes", "head"),
    [
        (300_000, 384 << 20, b"HTTP/1.1 500"),
        (1 << 20, 384 << 20, b"HTTP/1.1 500"),
        (1 << 20, 3 << 20, b"HTTP/1.1 200"),  # memory is short: what was sent is right, and then the answer is cut
    ],
)
def test_an_object_that_is_read_whole_first_is_an_error_and_no_answer_that_is_cut(
    tmp_path: Path, size: int, memory_bytes: int, head: bytes
) -> None:
    async def test() -> None:
        async with endpoint(tmp_path, time.time) as server:
            gateway, data = server.gateway, os.urandom(size)
            gateway.memory = MemoryBudget(memory_bytes, 1.0)
            await put(gateway, "bbb", b"hurt", data)
            whole = await server.send(server.signed("GET", "/bbb/hurt", {"connection": "close"}))
            assert whole.partition(b"\r\n\r\n")[2] == data
            _hurt_the_end(tmp_path / "data", size)
            answer = await server.send(server.signed("GET", "/bbb/hurt", {"connection": "close"}))
            assert answer.startswith(head)
            body = answer.partition(b"\r\n\r\n")[2]
            if head.endswith(b"500"):
                assert b"damaged" in body
            else:
                assert FIRST_BYTES <= len(body) < size
                assert data.startswith(body)
            assert gateway.memory.used_bytes == 0

    asyncio.run(test())


@pytest.mark.parametrize(("away", "code"), [(3, b"ServiceUnavailable"), (0, b"InternalError")])
def test_what_cannot_be_reached_is_not_damaged(tmp_path: Path, away: int, code: bytes) -> None:
    """A node that was cut off said "damaged beyond repair" of what the others keep."""

    async def test() -> None:
        async with endpoint(tmp_path, time.time, drives=4) as server:
            await put(server.gateway, "bbb", b"k", os.urandom(300_000))

            async def read(shard: Shard, offset: int, length: int) -> memoryview:
                raise (OfflineError if shard.position < away else DamagedError)("no bytes")

            server.gateway.node.read = read  # type: ignore[method-assign]
            server.gateway.node.read_now = lambda *_: None  # type: ignore[method-assign]
            answer = await server.send(server.signed("GET", "/bbb/k", {"connection": "close"}))
            assert b"<Code>" + code + b"</Code>" in answer

    asyncio.run(test())


def test_a_large_answer_that_meets_damage_is_cut_short_of_its_length_and_that_is_told_and_repaired(
    tmp_path: Path,
) -> None:
    """Its head has gone out, and said how much would come: no more than that it does not come can be told to its client. Though
    that wanted to go on with its connection, that ends. What is damaged is healed from what comes back one day."""

    async def test() -> list[Any]:
        async with endpoint(tmp_path, time.time, drives=4) as server:
            gateway, data = server.gateway, os.urandom(6 << 20)
            await put(gateway, "bbb", b"hurt", data)
            hurt = set()
            for number in range(4):
                places = list(damage.places(tmp_path / (f"data{number}" if number else "data")))
                last = max(places, key=lambda one: (one.record.length > 100_000, one.record.shard.stripe))
                if len(hurt) < 3 and last.record.shard.stripe:
                    last.hurt_end()
                    hurt.add(last.record.shard.position)
            assert len(hurt) == 3
            with capture_logs() as logs:
                answer = await server.send(server.signed("GET", "/bbb/hurt"))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert f"Content-Length: {len(data)}".encode() in head
            assert FIRST_BYTES <= len(body) < len(data)
            assert data.startswith(body)
            assert gateway.memory.used_bytes == 0
            counted = server.registry.get_sample_value(
                "s4_requests_total", {"operation": "GetObject", "code": "InternalError"}
            )
            assert (counted, server.registry.get_sample_value("s4_sent_bytes_total")) == (1.0, float(len(body)))

            def heals() -> list[bytes]:
                return [key for part in range(16) for key, _ in gateway.node.host.scan(keys.table(part, keys.HEAL))]

            await until(lambda: len(heals()) >= 2)  # of the shards that were tried, with the writer's next turns
            return logs

    logs = asyncio.run(test())
    assert [one["code"] for one in logs if one["event"] == "request"] == ["cut off: InternalError"]
    assert any(one["event"] == "damaged data" for one in logs)

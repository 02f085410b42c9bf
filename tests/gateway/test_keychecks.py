"""Root keys of a cluster, asked of processes that have them and of gateways that need not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from inprocess import opened
from s4.gateway.context import Gateway
from s4.gateway.keychecks import KeyCheck
from s4.metadata import keymarks
from s4.s3.errors import S3Error

OWN, NEW, OTHER = ("S4OWN", "the own secret"), ("S4NEW", "the new secret"), ("S4OTHER", "another secret")


def with_gateway(path: Path, test: Callable[[Gateway], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with opened(path) as (_, gateway):
            await test(gateway)

    asyncio.run(whole())


async def roots(gateway: Gateway) -> list[str]:
    marks = keymarks.read((await gateway.node.find_accounts([keymarks.ROW]))[0])
    return [one.access_key for one in marks.roots] if marks is not None else []


def test_a_process_without_root_keys_says_that_it_has_none(tmp_path: Path) -> None:
    """It said that a change was under way, which nobody could finish."""

    async def test(gateway: Gateway) -> None:
        await KeyCheck(gateway, OWN).look()
        with pytest.raises(S3Error, match="no root keys of its own"):
            await KeyCheck(gateway, None).begin_change(*NEW)
        await KeyCheck(gateway, OWN).begin_change(*NEW)
        assert await roots(gateway) == [OWN[0], NEW[0]]
        with pytest.raises(S3Error, match="is under way"):
            await KeyCheck(gateway, OWN).begin_change(*OTHER)

    with_gateway(tmp_path / "data", test)


def test_root_keys_are_known_though_a_gateway_without_any_looked_first(tmp_path: Path) -> None:
    """Nothing was ever said of them then: a process with others served, and they could not be changed."""

    async def test(gateway: Gateway) -> None:
        await KeyCheck(gateway, None).look()
        assert await roots(gateway) == []
        own, other = KeyCheck(gateway, OWN), KeyCheck(gateway, OTHER)
        await own.look()
        assert await roots(gateway) == [OWN[0]]
        await other.look()
        assert "the root keys are not this cluster's" in other.wrong
        assert not own.wrong
        await own.begin_change(*NEW)
        assert await roots(gateway) == [OWN[0], NEW[0]]

    with_gateway(tmp_path / "data", test)

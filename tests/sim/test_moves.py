"""The rules of shards, with the code that states them: nothing is lost while stores die and move; each rule left out
is found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from s4.gateway.receive import _BlobWriter
from s4.metadata.commands import AnyCommand
from s4.upkeep.mend import Mender
from sim.shards import BrokenError, ShardWorld
from tiers import amount


@pytest.mark.parametrize("first", range(0, amount("S4_MOVE_SEEDS", 40, 2000), 20))
def test_no_shard_is_lost(first: int) -> None:
    for seed in range(first, first + 20):
        asyncio.run(ShardWorld(seed).run())


class ByTheOldMap(ShardWorld):
    """D3: a shard on a store that does not hold its position any more counts."""

    @staticmethod
    def adjust(_map: Any, _partition: int, command: AnyCommand) -> AnyCommand:
        return command


class TakesAnyProcess(_BlobWriter):
    """D2: stripes that two processes took count as one shard."""

    async def _append_shard(self, stripe: int, position: int, data: Any, sync: bool) -> None:
        self.takers.pop(position, None)
        await super()._append_shard(stripe, position, data, sync)


class AnyProcess(ShardWorld):
    writer = TakesAnyProcess


class FlipsAtOnce(Mender):
    """D3: a store holds its position before it was filled."""

    def __init__(self, node: Any, bytes_per_s: float) -> None:
        super().__init__(node, bytes_per_s)

        async def confirm(*_: Any) -> int:
            return 0

        self.repair._confirm = confirm  # type: ignore[method-assign]


class Flips(ShardWorld):
    mender = FlipsAtOnce


class HealsWithoutSync(Mender):
    """D1: a heal row goes before the shard is durable."""

    def __init__(self, node: Any, bytes_per_s: float) -> None:
        super().__init__(node, bytes_per_s)
        append = self.repair.target.append
        self.repair.target.append = lambda store, shard, data, _: append(store, shard, data, False)  # type: ignore[method-assign]


class Unsynced(ShardWorld):
    mender = HealsWithoutSync


class TrustsOldRows(Mender):
    """D6: who led before takes for dead what its copy has no row of, which is being filled anew."""

    def __init__(self, node: Any, bytes_per_s: float) -> None:
        super().__init__(node, bytes_per_s)
        self.repair._rows.check = lambda _: None  # type: ignore[method-assign]


class OldRows(ShardWorld):
    mender = TrustsOldRows


@pytest.mark.parametrize(
    "broken", [ByTheOldMap, AnyProcess, Flips, Unsynced, OldRows], ids=lambda broken: broken.__name__
)
def test_no_rule_can_be_left_out(broken: type[ShardWorld]) -> None:
    with pytest.raises(BrokenError):
        for seed in range(300):
            asyncio.run(broken(seed).run())

"""What clients do in a seed: operations of all areas, drawn by a profile; before all, buckets; after all, everything
read again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from whole.aging import Aging, Names
from whole.clients import TRIES, Area, Clients, History
from whole.objects import Objects
from whole.policies import Policies
from whole.settings import Accounts, Documents, Flips, Gone, Prefixes, Quotas
from whole.versions import Kept, Locks
from whole.world import DAY_S, World

AREAS = (Objects, Kept, Locks, Aging, Names, Documents, Flips, Quotas, Accounts, Policies, Prefixes, Gone)
BYTES = {
    "put": 30,
    "get": 28,
    "delete": 10,
    "create": 6,
    "swap": 6,
    "copy": 8,
    "multipart": 6,
    "listing": 5,
    "uploads": 1,
    "version": 12,
    "listed": 2,
}
SAYINGS = {
    "tag": 4,
    "document": 4,
    "lock": 10,
    "age": 8,
    "leave": 3,
    "rename": 7,
    "flip": 5,
    "fill": 4,
    "account": 4,
    "policy": 4,
    "grouped": 2,
    "job": 2,
    "bucket": 9,
}
PROFILES = (
    BYTES | SAYINGS,
    BYTES | SAYINGS,
    BYTES | SAYINGS,
    {
        "put": 50,
        "get": 20,
        "delete": 12,
        "multipart": 4,
        "rename": 3,
        "listing": 3,
    },  # bytes written and replaced: garbage, compaction
    {
        "put": 10,
        "get": 10,
        "version": 4,
        "tag": 25,
        "document": 25,
        "account": 15,
        "flip": 12,
        "job": 6,
        "bucket": 12,
        "policy": 15,
        "fill": 20,
    },  # settings
    BYTES | {"copy": 50, "swap": 10},
    {"put": 10, "get": 10, "lock": 40, "age": 25, "leave": 10, "version": 8},  # what ends by itself, and what must not
    {
        "put": 15,
        "get": 10,
        "bucket": 45,
        "rename": 20,
        "listing": 15,
        "uploads": 5,
        "multipart": 10,
        "listed": 5,
        "version": 5,
        "grouped": 8,
    },
)
DAYS = 3.5  # that pass in some seeds before all is read again


class Workload:
    """`clients` clients that do `operations` each."""

    def __init__(
        self, world: World, *, clients: int = 4, operations: int = 75, weights: dict[str, int] | None = None
    ) -> None:
        self.world, self.loop = world, world.loop
        self.clients = Clients(world)
        self.areas: list[Area] = [area(self.clients) for area in AREAS]
        self.weights = weights or random.Random(f"profile {world.seed}").choice(PROFILES)
        self.doing = {kind: getattr(area, kind) for area in self.areas for kind in area.kinds}
        self.done = self.running = 0
        self._tasks = [self._client(number, operations) for number in range(clients)]

    async def prepare(self) -> None:
        for area in self.areas:
            await area.prepare(random.Random(f"prepare {self.world.seed} {type(area).__name__}"))

    def begin(self) -> None:
        self.running = len(self._tasks)
        if random.Random(f"tries {self.world.seed}").random() < 0.25:
            self.clients.tries = 1
        self.loop.outside.kept += [self.loop.outside.spawn(one) for one in self._tasks]

    async def _client(self, number: int, operations: int) -> None:
        chosen = random.Random(f"client {self.world.seed} {number}")
        kinds, weights = list(self.weights), list(self.weights.values())
        try:
            for step in range(operations):
                await self.doing[chosen.choices(kinds, weights)[0]](chosen, f"{number}.{step}")
                self.done += 1
                await asyncio.sleep(chosen.expovariate(4.0))
        except Exception as error:
            self.clients.problem(f"a client ended: {error!r}")
        finally:
            self.running -= 1

    async def read_back(self) -> None:
        """Every key, version and setting; in some seeds once days have passed in which nothing failed."""
        chosen = random.Random(f"after {self.world.seed}")
        self.clients.tries = TRIES + 3  # who reads may be the first to meet damaged rows: others lead within seconds
        if chosen.random() < 0.4:
            for area in self.areas:
                if isinstance(area, Aging):
                    await area.days_pass(chosen)
            await asyncio.sleep(DAYS * DAY_S)
        for area in self.areas:
            await area.read_back(chosen)

    def histories(self) -> Iterator[History]:
        for area in self.areas:
            yield from area.histories()

    def judge(self) -> list[str]:
        """What areas found, once everything was read again."""
        for area in self.areas:
            area.judge()
        return self.clients.problems

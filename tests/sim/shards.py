"""The shards of one partition while stores die, start again and move, with the code that writes, heals, fills and
drops them.

Real: `_BlobWriter` of gateways, `member.adjusted`, the decisions, `Mender`, `ShardRepair`, `OwnStore`, the planner. Made up: stores
that lose what was not synced when they start again, a map that others see late, and time, which is the order in which
tasks go on: a seed decides it. No more is lost at once than is promised (D1); then every object must be whole at the
end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from s4.cluster import planner
from s4.cluster.clustermap import ClusterMap
from s4.config.limits import Limits
from s4.erasure.codec import codec, stripes_of
from s4.gateway.context import Gateway
from s4.gateway.receive import _BlobWriter
from s4.metadata import keys
from s4.metadata.commands import AnyAnswer, AnyCommand, NewBlob, PutObject, Settings, Written
from s4.metadata.entry import Overlay
from s4.metadata.rows import Blob, Extent, Object, decode
from s4.node.member import adjusted
from s4.peer.api import Layout, StaleError
from s4.replica.turn import Decider, Turn
from s4.s3.errors import S3Error
from s4.storage.records import DamagedError, OfflineError, Shard
from s4.upkeep.mend import Mender
from s4.upkeep.ownstore import OwnStore

DATA, PARITY, STORES, STRIPE = 2, 2, 6, 128
SETTINGS = Settings(1, 1, "")


class BrokenError(AssertionError):
    """An acknowledged object is not what it was, or has fewer shards than it should."""


class Store:
    """Shards on one disk. `loose` ones are not synced yet."""

    def __init__(self, world: ShardWorld, name: str) -> None:
        self.world, self.name, self.process = world, name, 1
        self.kept: dict[Shard, bytes] = {}
        self.loose: dict[Shard, bytes] = {}

    def all(self) -> dict[Shard, bytes]:
        return {**self.kept, **self.loose}

    def start_again(self) -> None:
        self.process += 1
        self.loose.clear()

    async def append(self, shard: Shard, data: bytes, sync: bool) -> str:
        await self.world.pause()
        self.world.must_be_there(self)
        self.loose[shard] = bytes(data)
        if sync:
            self.kept.update(self.loose)
            self.loose.clear()
        process = self.process
        await self.world.pause()
        self.world.must_be_there(self)
        return f"{self.name}.{process}"

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview:
        await self.world.pause()
        self.world.must_be_there(self)
        found = self.all().get(shard)
        if found is None:
            held = self.world.map.partitions[0].config.members[shard.position] == self.name
            raise DamagedError("lost") if held else OfflineError("not held here")
        return memoryview(found)[offset : offset + length]

    async def lacking(self, partition: int, position: int, blobs: list[tuple[bytes, Blob]]) -> list[bytes]:
        await self.world.pause()
        self.world.must_be_there(self)
        if self.world.tell_asked:
            self.world.asked.setdefault(self.name, {})[0] = float("inf")
        self.kept.update(self.loose)  # what is not lacking is durable
        self.loose.clear()
        there = self.kept
        return [
            blob
            for blob, row in blobs
            if any(Shard(0, blob, position, number) not in there for number, _ in stripes_of(row))
        ]

    # as `OwnStore` sees its ShardStore

    def records(self, partition: int) -> Iterator[tuple[Shard, None]]:
        return iter([(shard, None) for shard in self.all()])

    async def free_position(self, partition: int, blob: bytes, position: int) -> int:
        for shards in (self.kept, self.loose):
            for shard in [shard for shard in shards if (shard.blob, shard.position) == (blob, position)]:
                del shards[shard]
        await self.world.pause()
        return 1

    async def flush(self) -> None:
        await self.world.pause()


class Host:
    """The primary of the partition: real decisions over rows in memory. It is also its `group`."""

    def __init__(self, world: ShardWorld) -> None:
        self.world, self.rows, self.group, self.seating = world, dict[bytes, bytes](), self, False
        self.decider = Decider(
            1, lambda entry, bucket, key: next(entry.scan(keys.object_versions(0, bucket, key)), None), lambda: 1.0
        )

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, prefix: bytes, start: bytes = b"") -> list[tuple[bytes, bytes]]:
        start, stop = max(prefix, start), keys.after(prefix)
        return sorted((key, value) for key, value in self.rows.items() if start <= key < stop)

    def submit(self, partition: int, command: AnyCommand, *, own: bool = False) -> Awaitable[AnyAnswer]:
        return asyncio.ensure_future(self._decide(command))

    async def _decide(self, command: AnyCommand) -> AnyAnswer:
        await self.world.pause()
        source = SimpleNamespace(
            get=self.get,
            scan=lambda start, stop: sorted((key, value) for key, value in self.rows.items() if start <= key < stop),
        )
        head = len(self.world.map.partitions) and self.world.count
        self.world.count += 1
        turn = Turn(Overlay(source), {0: 1}, {0: head})  # type: ignore[arg-type]
        answer = self.decider.answer(turn, 0, self.world.adjust(self.world.map, 0, command), b"")
        turn.close()
        for key, value in turn.overlay.rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        await self.world.pause()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def propose(self, partition: int, rows: list[Any]) -> None:
        await self.world.pause()

    def seat(self, partition: int, members: tuple[str, ...], joining: str = "", position: int = -1) -> bool:
        if self.seating:
            return False
        self.seating = True
        self.world.task(self._seat(self.world.map.partitions[0].config.epoch, members, joining, position))
        return True

    async def _seat(self, epoch: int, members: tuple[str, ...], joining: str, position: int) -> None:
        await self.world.pause()
        self.seating = False
        one = self.world.map.partitions[0]
        if one.config.epoch == epoch:
            config = replace(one.config, epoch=epoch + 1, members=members, joining=joining, position=position)
            self.world.change(
                replace(self.world.map, partitions=(replace(one, revision=one.revision + 1, config=config),))
            )


class Led:
    """The host as a node sees it that leads, until another does; then its copy is emptied, to be filled anew."""

    def __init__(self, host: Host) -> None:
        self.host, self.leads, self.group = host, True, self

    def check(self, partition: int) -> None:
        if not self.leads:
            raise StaleError("another leads")

    def get(self, key: bytes) -> bytes | None:
        return self.host.get(key) if self.leads else None

    def scan(self, prefix: bytes, start: bytes = b"") -> list[tuple[bytes, bytes]]:
        return self.host.scan(prefix, start) if self.leads else []

    def submit(self, partition: int, command: AnyCommand, *, own: bool = False) -> Awaitable[AnyAnswer]:
        self.check(partition)
        return self.host.submit(partition, command)

    async def propose(self, partition: int, rows: list[Any]) -> None:
        self.check(partition)
        await self.host.propose(partition, rows)

    def seat(self, partition: int, members: tuple[str, ...], joining: str = "", position: int = -1) -> bool:
        return self.leads and self.host.seat(partition, members, joining, position)


class Peers:
    """The router of the primary (`view` the newest map) or of a gateway, which may look at an old one."""

    def __init__(self, world: ShardWorld, late: bool) -> None:
        self.world, self.late = world, late

    @property
    def view(self) -> ClusterMap:
        return self.world.old_map() if self.late else self.world.map

    def is_up(self, store: str) -> bool:
        return store in self.world.stores

    async def node(self, store: str) -> Store:
        await self.world.pause()
        if store not in self.world.stores:
            raise OfflineError("away")
        return self.world.stores[store]

    async def append(self, shard: Shard, payload: memoryview | bytes, sync: bool) -> str:
        return await self.append_to(self.view.target(0, shard.position), shard, bytes(payload), sync)

    async def append_to(self, store: str, shard: Shard, data: bytes, sync: bool) -> str:
        return await (await self.node(store)).append(shard, data, sync)

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview:
        failure: DamagedError = OfflineError("nobody")
        for store in dict.fromkeys(
            (self.view.target(0, shard.position), self.view.partitions[0].config.members[shard.position])
        ):
            try:
                return await (await self.node(store)).read(shard, offset, length)
            except DamagedError as error:
                failure = error
        raise failure

    async def discard(self, partition: int, blob: bytes) -> None:
        for store in self.world.stores.values():
            for shards in (store.kept, store.loose):
                for shard in [shard for shard in shards if shard.blob == blob]:
                    del shards[shard]

    async def heals_of(self, partition: int) -> int:
        await self.world.pause()
        return len(self.world.host.scan(keys.table(0, keys.HEAL)))


class ShardWorld:
    """One seed."""

    mender: type[Mender] = Mender
    adjust = staticmethod(adjusted)
    writer: type[_BlobWriter] = _BlobWriter
    tell_asked = True

    def __init__(self, seed: int) -> None:
        self.random, self.count, self.tasks = random.Random(seed), 10, set[asyncio.Task[Any]]()
        self.asked: dict[str, dict[int, float]] = {}
        self.contents: dict[bytes, bytes] = {}
        self.mending: list[Mender] = []
        self.ended = False

    async def pause(self) -> None:
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 5, 20))):
            await asyncio.sleep(0)

    def task(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def must_be_there(self, store: Store) -> None:
        if self.stores.get(store.name) is not store:
            raise OfflineError("its disk is gone")

    def change(self, made: ClusterMap) -> None:
        self.maps.append(made)

    @property
    def map(self) -> ClusterMap:
        return self.maps[-1]

    def old_map(self) -> ClusterMap:
        return self.random.choice(self.maps[-3:])

    def whole(self) -> bool:
        """Nothing waits to be healed or filled, so that as much as is promised may be lost."""
        one = self.map.partitions[0]
        return (
            one.config.members == one.wanted and not one.config.joining and not self.host.scan(keys.table(0, keys.HEAL))
        )

    async def run(self) -> None:
        made = planner.new("c", DATA, PARITY, 1)
        for number in range(STORES):
            made = planner.registered(made, f"s{number}", f"n{number}", "h:1", f"z{number}", 1.0)
        self.maps = [planner.added(made, list(made.stores))]
        self.stores = {name: Store(self, name) for name in made.stores}
        self.host, self.made = Host(self), STORES
        self.lead()
        work = [
            asyncio.ensure_future(self._mend()),
            *(asyncio.ensure_future(self._leave(name)) for name in self.stores),
        ]
        writers = [asyncio.ensure_future(self._write()) for _ in range(3)]
        await self._trouble()
        self.ended = True
        await asyncio.gather(*writers)
        for _ in range(20_000):
            if self.whole():
                break
            await asyncio.sleep(0)
        for one in work:
            one.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self.check()

    def lead(self) -> None:
        """Another node leads from now on; what the one before was at goes on."""
        self.led = Led(self.host)
        keeper = type("Keeper", (), {"current": property(lambda _: self.map)})()
        node = SimpleNamespace(
            keeper=keeper, host=self.led, router=Peers(self, late=False), led=lambda: [0], partitions=1
        )
        self.mending.append(self.mender(node, 0.0))  # type: ignore[arg-type]

    async def _mend(self) -> None:
        while True:
            mender = self.mending[-1]
            for put_off in (
                mender.repair.later,
                mender.repair.waits,
                mender._retry,
            ):  # no time goes by here: all is tried again at once
                put_off.clear()
            mender._follow_plan(0)
            with suppress(StaleError):
                await mender.repair.heal_queue(0)
            await self.pause()
            await asyncio.sleep(0)

    async def _leave(self, name: str) -> None:
        """A store drops what others hold, by a map that it may know late."""
        seen = SimpleNamespace(map=self.map, at=0)

        async def refresh() -> ClusterMap:
            await self.pause()
            seen.map, seen.at = self.map, len(self.maps) - 1
            return self.map

        keeper = type("Keeper", (), {"current": property(lambda _: seen.map), "refresh": staticmethod(refresh)})()
        while name in self.stores:
            node = SimpleNamespace(
                store=name,
                keeper=keeper,
                router=Peers(self, late=False),
                shards=self.stores[name],
                horizon=lambda: float("inf"),
                asked=self.asked.setdefault(name, {}),
            )
            own = OwnStore(node)  # type: ignore[arg-type]
            await own.leave()
            if self.random.random() < 0.3:  # it hears of some newer map
                seen.at = self.random.randint(seen.at, len(self.maps) - 1)
                seen.map = self.maps[seen.at]
            if self.random.random() < 0.2 and self.map.partitions[0].config.joining != name:
                self.asked[name].clear()  # a minute went by since somebody relied on it
            await self.pause()
            await asyncio.sleep(0)

    async def _write(self) -> None:
        while not self.ended:
            gateway = Gateway(
                Peers(self, late=True),
                Layout(1, DATA, PARITY),
                Limits(),
                0,
                STRIPE,
                False,
                None,
                None,
                None,
                None,  # type: ignore[arg-type]
                commit_syncs=False,
                random=self.random.randbytes,
            )
            writer, content = self.writer(gateway, 0), self.random.randbytes(self.random.randrange(1, 4 * STRIPE))
            try:
                for start in range(0, len(content), STRIPE):
                    writer.add([content[start : start + STRIPE]])
                    await writer.push()
                    await self.pause()
                await writer.finish()
            except (S3Error, OfflineError):
                await writer.discard()
                continue
            new = NewBlob(
                writer.blob,
                self.random.randbytes(16),
                len(content),
                STRIPE,
                DATA,
                PARITY,
                bytes(32),
                sorted(writer.missing),
                writer.stores(),
            )
            key = b"k%d" % self.random.getrandbits(40)
            row = Object(
                1, len(content), "e", False, True, "root", extents=[Extent(0, len(content), 0, new.blob, new.reference)]
            )
            answer = await self.host.submit(0, PutObject(SETTINGS, key, row, blobs=[new]))
            if isinstance(answer, Written):
                self.contents[new.blob] = content

    async def _trouble(self) -> None:
        for _ in range(25):
            for _ in range(self.random.randrange(5, 120)):
                await asyncio.sleep(0)
            kind = self.random.choice(("again", "again", "move", "move", "wipe", "lead"))
            serving = self.map.in_state("serving")
            if kind == "again":
                self.stores[self.random.choice(list(self.stores))].start_again()
            elif kind == "lead":
                self.led.leads = False
                self.lead()
            elif kind == "move":
                wanted = list(self.map.partitions[0].wanted)
                position = self.random.randrange(len(wanted))
                wanted[position] = self.random.choice([store for store in serving if store not in wanted])
                self.change(planner._with_wanted(self.map, [wanted]))
            elif self.whole():
                for lost in self.random.sample(serving, self.random.choice((1, 2))):
                    self.wipe(lost)

    def wipe(self, lost: str) -> None:
        new = f"s{self.made}"
        self.made += 1
        del self.stores[lost]
        self.stores[new] = Store(self, new)
        known = planner.registered(self.map, new, new, "h:1", new, 1.0)
        self.change(planner.swapped(known, lost, new))

    def check(self) -> None:
        """Every acknowledged object has each shard where the map says, with its bytes."""
        if not self.whole():
            raise BrokenError(
                f"never whole: {self.map.partitions[0]}, {len(self.host.scan(keys.table(0, keys.HEAL)))} heals"
            )
        members = self.map.partitions[0].config.members
        for blob, content in self.contents.items():
            row = decode(Blob, self.host.rows[keys.blob_row(0, blob)])
            for number, _ in stripes_of(row):
                shards = codec(DATA, PARITY).encode(content[number * STRIPE : (number + 1) * STRIPE])
                for position, wanted in enumerate(shards):
                    found = self.stores[members[position]].all().get(Shard(0, blob, position, number))
                    if found != bytes(wanted):
                        state = "lost" if found is None else "other bytes"
                        raise BrokenError(
                            f"blob {blob.hex()[:8]} stripe {number} position {position}: {state} on {members[position]}"
                        )

"""A node: the stores of this process with their partitions, as gateways see them (`peer.api.NodeApi`), and the outbox.

It composes the pieces and owns none of their state: rows belong to `replica.host`, shards to `storage.drives`, the map
to `cluster.membership`, memory of who still reads to the gateways. The outbox frees shards once more after a crash
rather than not at all, which is harmless (rule C2).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from s4.base.clock import boot_clock
from s4.base.jobs import Job, Jobs
from s4.cluster.membership import Membership
from s4.cluster.messages import AnyMessage
from s4.metadata import commands, keys
from s4.metadata.commands import AnyAnswer
from s4.metadata.rows import (
    FreeBlob,
    decode_action,
)
from s4.node.rows import RowNode
from s4.peer.api import (
    Census,
    Identity,
    UnavailableError,
    stats_of,
)
from s4.replica.host import Host
from s4.replica.letting import LettingGo
from s4.storage.drives import Drives
from s4.storage.records import DamagedError, OfflineError, Shard
from s4.storage.shards import ShardStore

REAP_BLOBS = 2048
REAP_PAUSE = 64
REAP_S = 0.5


class Node(RowNode):
    """The node of a server that keeps everything by itself."""

    def __init__(
        self,
        host: Host,
        drives: Drives,
        membership: Membership,
        *,
        horizon: Callable[[], float],
        root: Identity,
        root_key: str,
        strict: bool = False,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        super().__init__(
            host, drives, membership, horizon=horizon, root=root, root_key=root_key, strict=strict, clock=clock
        )
        self.host, self.membership = host, membership
        self._freed: deque[tuple[float, int, bytes, bytes]] = deque()
        self._jobs, self._reaping = Jobs(), Job("free shards", REAP_S, REAP_S, self.reap)
        self.letting_go = LettingGo(host)
        self._letting_go = Job("letting go", 0.0, 0.0, self.letting_go.round)

    def start(self, jobs: Jobs) -> None:
        """Take up the outbox as it was left, and begin to work."""
        for partition in range(self.partitions):
            for key, value in self.host.scan(keys.table(partition, keys.OUTBOX)):
                self.on_outbox(partition, key, value)
            self.letting_go.note(partition)
        self.host.on_gone = self.letting_go.note
        self._jobs = jobs
        jobs.start(self._reaping, self._letting_go)

    async def close(self) -> None:
        await self._jobs.stop(self._reaping, self._letting_go)

    # -- shards

    async def append(self, shard: Shard, payload: memoryview | bytes, sync: bool) -> str:
        await self.drives.append(shard, [payload], sync=sync)
        return ""

    async def read(self, shard: Shard, offset: int, length: int) -> memoryview:
        store = self.drives.find(shard)
        if store is not None and self.is_to_come(store, shard):
            raise OfflineError(f"{shard} is not on the drive that is being filled yet")  # no damage
        try:
            return await self.drives.read(shard, offset, length)
        except OfflineError:
            raise
        except DamagedError:
            self.found_damage(shard.partition, shard.blob, shard.position)
            raise

    def is_to_come(self, store: ShardStore, shard: Shard) -> bool:
        """Whether a shard is not on its drive because that is being filled."""
        return not self.membership.current.status[shard.partition].members[shard.position] and not store.locate(shard)

    def found_damage(self, partition: int, blob: bytes, position: int) -> asyncio.Future[AnyAnswer] | None:
        """Queue a shard for healing; without parity there is nothing to heal it from."""
        if not self.membership.geometry[1]:
            return None
        return self.host.submit(partition, commands.NeedHeal(blob, [position]), own=True)

    def found(self, shard: Shard) -> None:
        """A shard was found damaged by whoever works on its drive."""
        self.found_damage(shard.partition, shard.blob, shard.position)

    async def deliver(self, sender: str, messages: list[tuple[int, AnyMessage]]) -> None:
        raise UnavailableError("ServiceUnavailable", "This server keeps its metadata by itself and has no peers.")

    # -- figures
    async def census(self) -> Census:
        raise UnavailableError("ServiceUnavailable", "This server is no member of a cluster.")

    async def stats(self) -> dict[str, float]:
        sums = self.counters()
        buckets = sum(1 for _ in self.host.scan(keys.table(0, keys.BUCKET)))
        use = [volume for store in self.drives.stores for volume in store.usage().values()]
        rows = sum(copy.size_bytes() for copy in self.host.copies.all())
        stored = sum(volume.used - volume.dead for volume in use) + rows
        return stats_of(self._clock() - self._started, buckets, stored, sums)

    # -- the outbox

    def on_outbox(self, partition: int, key: bytes, value: bytes) -> None:
        """Called for each outbox row once it is committed: shards to free when no reader wants them."""
        action = decode_action(value)
        if not isinstance(action, FreeBlob):
            raise TypeError(f"no other partition is elsewhere, but the outbox has {action}")
        self._freed.append((self._clock(), partition, key, action.blob))

    @property
    def outbox_waiting(self) -> int:
        return len(self._freed) + self.letting_go.waiting

    def horizon(self) -> float:
        """Start of the oldest request that may still read shards (D6)."""
        return min(self._horizon(), self.drives.oldest_use())

    async def reap(self) -> None:
        """Free the shards of dead blobs once every request that began before has ended (rule D6). What fails is
        tried again later."""
        horizon = self.horizon()
        done: dict[int, list[bytes]] = {}
        count, failure = 0, None
        while self._freed and self._freed[0][0] < horizon and count < REAP_BLOBS:
            _, partition, key, blob = self._freed.popleft()
            count += 1
            if count % REAP_PAUSE == 0:
                await asyncio.sleep(0)
            try:
                await self.drives.free(partition, blob)
            except Exception as error:  # the others do not wait for it
                self._freed.append((self._clock(), partition, key, blob))
                failure = error
            else:
                done.setdefault(partition, []).append(key)
        if done:
            await self.drives.flush()
        for partition, rows in done.items():
            await self.host.submit(partition, commands.ForgetRows(rows), own=True)
        if failure is not None:
            raise failure

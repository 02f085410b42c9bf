"""What the primary of a partition does besides shards: its outbox, answers that nobody asks for any more, and, for
partition 0, deletions of buckets that somebody left half done, and renames of prefixes.

An outbox row goes once its action was carried out; everything that it asks for may be asked twice (C2). What somebody
may miss, as the source of a rename that is to go, is carried out at once. Nobody waits for hints of content, nor for
rows to go: those of all partitions go together, twice a second at most, and with entries that others need
(replica/replicated.py). Actions of one partition about the same thing are carried out in their order. The shards of a
dead blob are freed once every request that began before has ended, as far as gateways are known (D6).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from s4.base.clock import boot_clock, wall_ms
from s4.base.jobs import Failures, Job, Jobs, each
from s4.gateway.context import Gateway
from s4.metadata import commands, keys
from s4.metadata.outbox import about, follow_id, follow_up
from s4.metadata.rows import AnyAction, FreeBlob, Publish, Unpublish, decode_action
from s4.node.member import MemberNode
from s4.peer.api import CallError, ForgottenError
from s4.replica.letting import LettingGo
from s4.s3.errors import S3Error
from s4.upkeep.deletions import Deletions
from s4.upkeep.forget import forget_answers
from s4.upkeep.renames import Renames

log = logging.getLogger(__name__)

BATCH, FORGOTTEN = 256, 4096  # rows: of a step, and that go at once
LOOK_S = 0.5
TRIM_S = 10.0
JOBS_S = 5.0


@dataclass(slots=True)
class _Outbox:
    """What is known of a partition's outbox since it is led. New rows come at its end: none is read twice, for those
    that wait for readers may be very many."""

    next: bytes  # where the rows begin that were not looked at
    dead: deque[tuple[float, bytes, bytes]] = field(default_factory=deque)  # since when it is known, row, blob
    hints: list[tuple[bytes, AnyAction]] = field(default_factory=list)  # row, action
    done: set[bytes] = field(default_factory=set)  # rows that were carried out and are still there


class Leader:
    """The tasks of one node for the partitions that it leads."""

    def __init__(self, node: MemberNode, gateway: Gateway, renames: Renames) -> None:
        self._node, self._gateway, self._renames = node, gateway, renames
        self._dirty: set[int] = set()
        self._wake = asyncio.Event()
        self._known: dict[int, _Outbox] = {}
        self._looked = 0.0
        self._deletions = Deletions(gateway, alone=False)
        self._failures: dict[int, Failures] = {}  # of outboxes
        self._leads_first = False
        self._letting_go = LettingGo(node.host)

    def start(self, jobs: Jobs) -> None:
        self._node.host.on_outbox = self._note
        self._node.host.on_gone = self._letting_go.note
        self._node.host.on_lead = self._lead
        jobs.start(
            Job("outboxes", 0.0, 0.0, self._outboxes),
            Job("hints of content", LOOK_S, LOOK_S, self._hint),
            Job("old answers", TRIM_S, TRIM_S, self._trim, (CallError,)),
            Job("letting go", 0.0, 0.0, self._let_go, (CallError,)),
            Job("jobs of partition 0", JOBS_S, JOBS_S, self._first_partition, (CallError, S3Error)),
        )

    def _note(self, partition: int) -> None:
        self._dirty.add(partition)
        self._wake.set()

    def _lead(self, partition: int) -> None:
        self._known.pop(partition, None)  # a round that is under way ends with its own
        self._note(partition)
        self._letting_go.note(partition)

    async def _let_go(self) -> None:
        await self._letting_go.round(lambda partition: self._node.host.group.replica(partition).leading)

    # -- the outbox

    async def _outboxes(self) -> None:
        """One round, once there is something to do."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), LOOK_S)
        self._wake.clear()
        dirty, self._dirty = self._dirty, set()
        if boot_clock() - self._looked >= LOOK_S:
            self._looked = boot_clock()
            dirty |= {partition for partition, outbox in self._known.items() if outbox.dead}
        await asyncio.gather(*(self._outbox(partition, self._carry_out) for partition in dirty))

    async def _hint(self) -> None:
        """One round of what nobody waits for."""
        late = [partition for partition, outbox in self._known.items() if outbox.hints or outbox.done]
        await asyncio.gather(*(self._outbox(partition, self._end) for partition in late))

    async def _outbox(self, partition: int, work: Callable[[int], Awaitable[None]]) -> None:
        failures, what = self._failures.setdefault(partition, Failures()), f"partition {partition}: its outbox"
        try:
            await work(partition)
        except Exception as error:
            if isinstance(error, CallError) and not self._node.host.group.replica(partition).leading:
                self._known.pop(partition, None)
                return
            failures.add(what, error, (CallError,))
            await asyncio.sleep(LOOK_S)
            self._note(partition)
        else:
            failures.end(what)

    async def _carry_out(self, partition: int) -> None:
        table, horizon = keys.table(partition, keys.OUTBOX), self._node.horizon()
        outbox = self._known.setdefault(partition, _Outbox(table))
        while rows := list(islice(self._node.host.scan(table, outbox.next), BATCH)):
            self._node.host.check(partition)
            actions = [(key, decode_action(value)) for key, value in rows]
            hints = [one for one in actions if isinstance(one[1], Publish | Unpublish)]
            dead = [(boot_clock(), key, action.blob) for key, action in actions if isinstance(action, FreeBlob)]
            urgent = [one for one in actions if not isinstance(one[1], Publish | Unpublish | FreeBlob)]
            await self._follow(outbox, urgent)
            outbox.next = rows[-1][0] + b"\x00"
            outbox.dead.extend(dead)
            outbox.hints += hints
            await asyncio.sleep(0)
        await self._free(partition, outbox, horizon)

    async def _end(self, partition: int) -> None:
        """What comes meanwhile is for the next round: steady work of one partition would hold up all others."""
        if (outbox := self._known.get(partition)) is None:
            return
        for _ in range(0, len(outbox.hints), BATCH):
            hints = outbox.hints[:BATCH]
            await self._follow(outbox, hints)
            del outbox.hints[: len(hints)]  # others may have come
        rows = sorted(outbox.done)
        for at in range(0, len(rows), FORGOTTEN):
            some = rows[at : at + FORGOTTEN]
            await self._node.host.submit(partition, commands.ForgetRows(some), own=True, patient=True)
            outbox.done.difference_update(some)

    async def _follow(self, outbox: _Outbox, actions: Sequence[tuple[bytes, AnyAction]]) -> None:
        """Carry out what actions ask of other partitions."""
        queues: dict[tuple[int, bytes], list[tuple[commands.AnyCommand, bytes]]] = {}
        for key, action in actions:
            if (follow := follow_up(action, self._node.partitions)) is not None:
                queues.setdefault((follow[0], about(action)), []).append((follow[1], follow_id(key, action)))
        await asyncio.gather(*(self._in_order(target, queue) for (target, _), queue in queues.items()))
        outbox.done.update(key for key, _ in actions)

    def _may_free(self, since: float, horizon: float) -> bool:
        """Whether every request that began before a blob died has ended (D6)."""
        return since < horizon

    async def _free(self, partition: int, outbox: _Outbox, horizon: float) -> None:
        while outbox.dead and self._may_free(outbox.dead[0][0], horizon):
            self._node.host.check(partition)
            dead = [(row, blob) for since, row, blob in islice(outbox.dead, BATCH) if self._may_free(since, horizon)]
            await self._node.router.discard_all(partition, [blob for _, blob in dead])
            outbox.done.update(row for row, _ in dead)
            for _ in dead:
                outbox.dead.popleft()

    async def _in_order(self, partition: int, queue: list[tuple[commands.AnyCommand, bytes]]) -> None:
        for command, named in queue:
            try:  # whoever led before may have sent it
                await self._node.router.execute(partition, command, named, bool(named))
            except ForgottenError:  # it waited so long that nobody knows: once more is better than never
                await self._node.router.execute(partition, command)

    # -- answers

    async def _trim(self) -> None:
        """One round: answers that nobody can ask for any more (upkeep/forget.py)."""
        await each(self._node.led(), self._trim_one)

    async def _trim_one(self, partition: int) -> None:
        await forget_answers(self._node.host, partition, wall_ms())

    # -- partition 0

    async def _first_partition(self) -> None:
        if self._node.host.group.serves(0):
            self._leads_first = True
            await self._renames.resume()
            await self._deletions.look()
        elif self._leads_first:
            self._leads_first = False
            await self._renames.close()

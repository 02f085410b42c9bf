"""Memory of requests: what they may hold in buffers together, and what one holds that waits for its client.

Counted is what is here, not what was announced. A request takes its share when bytes come, gives back all but what it
really holds while its client neither sends nor takes any, and takes its share again when the client goes on. Where
others need what such requests hold, those that hold more than KEPT_BYTES are ended first, then those that waited
longest.

That is asked whenever something changes, not only when somebody comes: a client may stop after others began to wait.

For editors: a share that is stalled is given back or ended by whoever took it, or the requests in flight are
miscounted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from s4.base import tasks
from s4.base.fair import FLOW, FairQueue
from s4.gateway.places import PLACE
from s4.s3.errors import S3Error

STALL_S = 0.25  # without a byte from or to the client: the request waits for it
KEPT_BYTES = 256 * 1024  # that such a request may hold while others want memory


class MemoryBudget:
    """Bytes that requests may hold in buffers; who has to wait for them does so in a queue that is fair between users
    and buckets. `waiting` requests wait for their client."""

    def __init__(self, limit_bytes: int, wait_s: float) -> None:
        self.limit_bytes, self._wait_s = limit_bytes, wait_s
        self.used_bytes = 0
        self.ending_bytes = 0  # of them held by requests that were ended, and have not let go of it yet
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._next: tuple[int, asyncio.Future[None]] | None = None  # who gets what comes free, whoever else comes
        self._stalled: OrderedDict[Share, None] = OrderedDict()  # longest first
        self.waiting = 0

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Raises S3Error SlowDown where no share came free in time."""
        size = min(size, self.limit_bytes)
        await self._acquire(size)
        try:
            yield
        finally:
            self.used_bytes -= size
            self._grant()

    def _evict(self, wanted: int) -> None:
        """End requests that wait for their client until so much came free or is about to, or none is left."""
        for least in (KEPT_BYTES, 0):
            for share in [share for share in self._stalled if share.size > least]:
                if self.ending_bytes >= wanted:
                    return
                share.end()

    def give_back(self, size: int) -> None:
        self.used_bytes -= size
        self._grant()

    def stalls(self, share: Share, held: int) -> None:
        """What is held is here, and counts whether there is room or not."""
        self.used_bytes += held - share.size
        share.size = held
        self._stalled[share] = None
        self._grant()

    def goes_on(self, share: Share) -> None:
        self._stalled.pop(share, None)

    async def take(self, size: int) -> None:
        """Raises S3Error SlowDown where no share came free in time."""
        await self._acquire(size)

    def take_now(self, size: int, *, spare: bool = False) -> bool:
        """Whether so much is free, and nobody waits for it: then it is taken. With `spare`, where half of all stays
        free."""
        free = self._next is None and self.used_bytes + size <= (self.limit_bytes // 2 if spare else self.limit_bytes)
        if free:
            self.used_bytes += size
        return free

    async def _acquire(self, size: int) -> None:
        if self.take_now(size):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.push(FLOW.get(), max(size, 1), future)
        self._grant()
        try:
            async with tasks.within(self._wait_s):
                await asyncio.shield(future)
        except (TimeoutError, asyncio.CancelledError) as error:
            if future.done():  # granted while we gave up
                self.used_bytes -= size
            else:
                future.cancel()
            self._grant()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise S3Error(
                "SlowDown", "The server's memory for uploads is in use; try again.", headers={"Retry-After": "1"}
            ) from None

    def _grant(self) -> None:
        while self._next is not None or self._queue:
            size, future = self._next = self._next or self._queue.pop()
            if not future.cancelled():
                if self.used_bytes + size > self.limit_bytes:
                    self._evict(self.used_bytes + size - self.limit_bytes)
                    return
                self.used_bytes += size
                future.set_result(None)
            self._next = None


class Share:
    """What one request holds. `held` says how much that really is; `cut` ends a request that waits for its client."""

    def __init__(self, budget: MemoryBudget, held: Callable[[], int], cut: Callable[[], None] | None = None) -> None:
        self._budget, self._held, self._cut = budget, held, cut
        self.size = 0
        self.ended = False
        self._ending = 0  # what it held when it was ended
        self._task: asyncio.Task[Any] | None = None  # that waits for its client
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = self._awaits = False
        self._place = PLACE.get()

    async def take(self, size: int) -> None:
        """Hold `size` bytes from now on. Raises S3Error SlowDown."""
        size = min(size, self._budget.limit_bytes)
        if size > self.size:
            await self._budget.take(size - self.size)
        else:
            self._budget.give_back(self.size - size)
        self.size = size

    def grow(self, size: int, *, spare: bool = False) -> bool:
        """Hold `size` bytes from now on where that needs no waiting, with `spare` where memory is plenty; whether it
        does."""
        more = size - self.size
        if more > 0 and not self._budget.take_now(more, spare=spare):
            return False
        self.size = max(self.size, size)
        return True

    def await_client(self) -> None:
        """Called, in a task, before the client is waited for."""
        self._task = asyncio.current_task()
        self._awaits = True
        self._budget.waiting += 1
        self._place.leave()
        self._timer = asyncio.get_running_loop().call_later(STALL_S, self._stall)

    def _stall(self) -> None:
        self._stalled = True
        self._budget.stalls(self, min(self.size, self._held()) if self.size else self._held())

    def client_came(self) -> bool:
        """Called after it. Whether the share was given back meanwhile."""
        if self._awaits:
            self._awaits = False
            self._budget.waiting -= 1
        if self._timer is not None:
            self._timer.cancel()
        stalled, self._stalled = self._stalled, False
        if stalled:
            self._budget.goes_on(self)
        return stalled

    def end(self) -> None:
        """Others need the memory."""
        self.ended = True
        self._ending = self.size
        self._budget.ending_bytes += self._ending
        self._budget.goes_on(self)
        if self._cut is not None:
            self._cut()
        elif self._task is not None:
            self._task.cancel()

    def drop(self) -> None:
        """The request is over, or has what it needs elsewhere."""
        self.client_came()
        self._budget.ending_bytes -= self._ending
        self._budget.give_back(self.size)
        self.size = self._ending = 0

    def refusal(self) -> S3Error:
        """What the client of a request is told that was ended."""
        if self._cut is None and self._task is not None:
            self._task.uncancel()
        return S3Error(
            "RequestTimeout", "No bytes came, and others need the memory. Try again.", headers={"Connection": "close"}
        )

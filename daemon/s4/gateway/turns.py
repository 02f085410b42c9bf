"""Turns at the event loop, which is what all requests of a process share. (The writer's turns: replica/turn.py.)

The loop runs whatever is ready before it looks for more: two thousand downloads that begin at once read and send their
first pieces in one go, and whoever comes meanwhile waits for all of them. So what takes long asks for a turn first,
and only so much is let go on in each round of the loop; who has to wait does so in a queue that is fair between users
and buckets.

For editors: `turn` costs a request where nobody waits, which is nearly always. Costs are bytes, or what takes as long.
"""

from __future__ import annotations

import asyncio

from s4.base.fair import FLOW, Company, FairQueue

ROUND_COST = 1 << 20  # of one round of the loop; some 1.5 ms
SHARED_COST = 256 * 1024  # where more than one user asks: a request has several rounds to wait for, each step one


class Turns:
    """Who may go on in this round of the loop."""

    def __init__(self, round_cost: int = ROUND_COST, shared_cost: int = SHARED_COST) -> None:
        self._most, self._shared_cost = round_cost, min(shared_cost, round_cost)
        self._round_cost = self._left = round_cost
        self.company = Company()  # of users
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._armed = False
        self._served: set[str] = set()  # users of whom one went on at once in this round

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def turn(self, cost: int) -> None:
        """Go on, in this round or a later one."""
        if self.now(cost):
            return
        flow = FLOW.get()
        if self._is_next(flow.user):
            self._spend(cost)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.push(flow, cost, future)
        await future

    def now(self, cost: int) -> bool:
        """Whether that needs no waiting."""
        if self._left <= 0 or self._queue.length:
            return False
        self._spend(cost)
        return True

    def _spend(self, cost: int) -> None:
        """The next round is asked for once half of one is spent, be it in one or in several: to ask costs as much as a
        twentieth of a small request."""
        self._left -= cost
        if not self._armed and 2 * self._left <= self._round_cost:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._round)

    def _is_next(self, user: str) -> bool:
        """Whether a user who waits for nothing would be first in the next round: then it need not wait for that. One
        of each user, and of all together no more than a round."""
        if self._left <= -self._round_cost or user in self._served or self._queue.count(user):
            return False
        self._served.add(user)
        return True

    def _round(self) -> None:
        """Once in each round in which somebody goes on. What was more than a round's is taken from the next ones."""
        self._round_cost = self._most if self.company.alone else self._shared_cost
        self._left = min(self._left, 0) + self._round_cost
        self._armed = False
        self._served.clear()
        while self._queue and self._left > 0:
            cost, future = self._queue.pop()
            if not future.done():  # else whoever waited was cancelled
                self._left -= cost
                future.set_result(None)
        if self._left < self._round_cost:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._round)

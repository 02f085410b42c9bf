"""What is read before it is known who asks: forms and IAM calls, whose own bytes say it.

Such requests have places of their own, few, and little time: nobody without a key takes the places of those who have
one. Where all places are taken, the one that has waited longest gives way to who comes, so that those who trickle lock
nobody out here either. One that brings less than `least_rate_bytes` a second is ended before its time is over.

For editors: whoever is ended is told RequestTimeout, which SDKs repeat, and its connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from s4.base import tasks
from s4.config.limits import Limits
from s4.http.request import S3Request
from s4.s3.errors import S3Error

GRACE_S = 5.0  # before the rate counts


class Doorstep:
    """The places of those who are not known yet."""

    def __init__(self, limits: Limits, grace_s: float = GRACE_S) -> None:
        self._limits, self._grace_s = limits, grace_s
        self._places: dict[asyncio.Timeout, None] = {}  # longest first

    @property
    def count(self) -> int:
        return len(self._places)

    @asynccontextmanager
    async def place(self, request: S3Request) -> AsyncIterator[None]:
        """While the request is read. Raises S3Error RequestTimeout."""
        limits, loop = self._limits, asyncio.get_running_loop()
        if len(self._places) >= limits.unknown_requests:
            self._end(next(iter(self._places)))
        content, began = request.http.content, loop.time()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            lasts_s = content.total_bytes / limits.least_rate_bytes
            if content.is_eof():
                return
            if lasts_s < loop.time() - began:
                self._end(place)
            else:
                timer = loop.call_at(began + lasts_s + 1.0, look)

        timer = loop.call_later(self._grace_s, look)
        try:
            async with tasks.within(limits.unknown_s) as place:
                self._places[place] = None
                yield
        except TimeoutError:
            raise S3Error("RequestTimeout", headers={"Connection": "close"}) from None
        finally:
            self._places.pop(place, None)
            timer.cancel()

    def _end(self, place: asyncio.Timeout) -> None:
        if place in self._places:
            del self._places[place]
            place.reschedule(asyncio.get_running_loop().time())

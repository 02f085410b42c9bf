"""Where a request that is known begins its work: it takes a place, and a turn at the event loop.

    user and bucket  ->  a place (gateway/places.py)  ->  a turn (gateway/turns.py)  ->  authorize, run

Before, nothing but its signature was looked at. So one user's flood waits by itself, and of what goes on in one round
of the loop others have their part.
"""

from __future__ import annotations

import math

from s4.access.documents import rate_of
from s4.base import fair
from s4.base.clock import boot_clock
from s4.base.fair import FLOW
from s4.config.limits import Limits
from s4.gateway.context import Gateway
from s4.gateway.places import NOBODYS, PLACE, Place, Places
from s4.gateway.rates import NO_RATE, Rates
from s4.http.metrics import RequestMetrics
from s4.http.request import S3Request
from s4.s3.errors import S3Error

REQUEST_COST = 128 * 1024  # as bytes: a small request takes the loop about as long as reading and sending so many


class Admission:
    """Of one process."""

    def __init__(self, gateway: Gateway, limits: Limits, metrics: RequestMetrics) -> None:
        self._gateway, self._metrics = gateway, metrics
        self.places = Places(limits.requests, limits.waiting_requests, limits.memory_wait_s, gateway.turns.company)
        self._rates = Rates(limits, gateway.bucket_rates)
        self.known = 0  # requests that are known, whether they have a place or not

    def enter_now(self, request: S3Request) -> bool:
        """Once it is known who asks; whether the request may go on. If not, `enter` waits until it may. `leave` when
        it is over."""
        own = request.requester.rate
        request.rated = self._rates.count(own)
        if request.rated and self._rates.ask(request.user, request.bucket, boot_clock(), own):
            return False
        place = request.place = Place(request.user, request.bucket, self.places)
        self.known += 1
        PLACE.set(place)
        FLOW.set(place.flow)
        turns = self._gateway.turns
        turns.company.note(request.user)
        return place.enter_now() and turns.now(REQUEST_COST)

    async def enter(self, request: S3Request) -> None:
        """Raises S3Error SlowDown."""
        if request.place is None and self.enter_now(request):
            return
        if request.place is None:
            await self._look_again(request)
            if self.enter_now(request):
                return
        if request.place is None:
            wait_s = self._rates.ask(request.user, request.bucket, boot_clock(), request.requester.rate)
            raise S3Error("SlowDown", headers={"Retry-After": str(max(1, math.ceil(wait_s)))})
        try:
            await request.place.enter()
        except S3Error:
            self._metrics.refused.inc()
            raise
        await self._gateway.turns.turn(REQUEST_COST)

    async def _look_again(self, request: S3Request) -> None:
        """A bucket that answers nobody would never be seen to have another rate."""
        if self._gateway.bucket_rates.of(request.bucket) != NO_RATE:
            bucket = await self._gateway.node.find_bucket(request.bucket)
            self._gateway.bucket_rates.note(request.bucket, rate_of(bucket) if bucket is not None else NO_RATE)

    def went(self, request: S3Request, size: int) -> None:
        """So many bytes of bodies came and went for it."""
        if request.rated:
            self._rates.went(request.user, request.bucket, size, boot_clock(), request.requester.rate)

    def leave(self, request: S3Request) -> None:
        """Whether it entered or not."""
        place = request.place
        if place is not None:
            request.place = None
            self.known -= 1
            place.leave()
            self.went(request, request.http.content.total_bytes + request.sent)
            PLACE.set(NOBODYS)
            FLOW.set(fair.NOBODYS)

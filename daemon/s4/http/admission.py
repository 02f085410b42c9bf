"""Where a request that is known begins its work: it takes a place, and a turn at the event loop.

    user and bucket  ->  a place (gateway/places.py)  ->  a turn (gateway/turns.py)  ->  authorize, run

Before, nothing but its signature was looked at. So one user's flood waits by itself, and of what goes on in one round of the
loop others have their part.
"""

from __future__ import annotations

from s4.gateway.context import Gateway
from s4.gateway.places import NOBODYS, PLACE, Place, Places
from s4.http.metrics import RequestMetrics
from s4.http.request import S3Request
from s4.limits import Limits
from s4.s3.errors import S3Error

FEW = 4  # at work: they need no turns, which cost a small request a twentieth of its time
REQUEST_COST = 128 * 1024  # as bytes: a small request takes the loop about as long as reading and sending so many


class Admission:
    """Of one process."""

    def __init__(self, gateway: Gateway, limits: Limits, metrics: RequestMetrics) -> None:
        self._gateway, self._metrics = gateway, metrics
        self.places = Places(limits.requests, limits.waiting_requests, limits.memory_wait_s)
        self.known = 0  # requests that are known, whether they have a place or not

    def enter_now(self, request: S3Request) -> bool:
        """Once it is known who asks; whether the request may go on. If not, `enter` waits until it may. `leave` when it is over."""
        place = request.place = Place(request.user, request.bucket, self.places)
        self.known += 1
        PLACE.set(place)
        return place.enter_now() and self.places.taken <= FEW

    async def enter(self, request: S3Request) -> None:
        """Raises S3Error SlowDown."""
        if not (request.place is None and self.enter_now(request)) and request.place is not None:
            try:
                await request.place.enter()
            except S3Error:
                self._metrics.refused.inc()
                raise
            await self._gateway.turns.turn(REQUEST_COST)

    def leave(self, request: S3Request) -> None:
        """Whether it entered or not."""
        place = request.place
        if place is not None:
            request.place = None
            self.known -= 1
            place.leave()
            PLACE.set(NOBODYS)

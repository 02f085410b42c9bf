"""Where a request that is known begins its work: it takes a place, and a turn at the event loop.

    user and bucket  ->  a place (gateway/places.py)  ->  a turn (gateway/turns.py)  ->  authorize, run

Before, nothing but its signature was looked at. So one user's flood waits by itself, and of what goes on in one round of the
loop others have their part.
"""

from __future__ import annotations

from s4.gateway.context import Gateway
from s4.gateway.fair import Flow
from s4.gateway.places import NOBODYS, PLACE, Place, Places
from s4.http.metrics import RequestMetrics
from s4.http.request import S3Request
from s4.limits import Limits
from s4.s3.errors import S3Error

REQUEST_COST = 128 * 1024  # as bytes: a small request takes the loop about as long as reading and sending so many


class Admission:
    """Of one process."""

    def __init__(self, gateway: Gateway, limits: Limits, metrics: RequestMetrics) -> None:
        self._gateway, self._metrics = gateway, metrics
        self.places = Places(limits.requests, limits.waiting_requests, limits.memory_wait_s)
        self.known = 0  # requests that are known, whether they have a place or not

    async def enter(self, request: S3Request) -> None:
        """Once it is known who asks; `leave` when the request is over. Raises S3Error SlowDown."""
        place = Place(Flow(request.user, request.bucket), self.places)
        request.place = place
        self.known += 1
        PLACE.set(place)
        try:
            await place.enter()
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

"""How much users and buckets may ask for in a second, where that is a setting: requests, and bytes of bodies and answers.

A rate is a level that fills by so much a second, up to what one second gives. A request takes one from it and is refused where
there is none; bytes are taken once they have gone, so that the level may be below nothing, and whoever owes is refused until
that is made up. So one large transfer is not slowed down, and what comes after it waits. Pure: the time is passed in.
"""

from __future__ import annotations

from collections import OrderedDict

from s4.limits import NO_RATE, Limits

KNOWN = 10_000  # names; who was heard of longest ago is forgotten


class Rate:
    """So much a second for each name."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level and when

    def _level(self, name: str, now: float) -> float:
        level, at = self._levels.get(name, (float(self._per_s), now))
        return min(float(self._per_s), level + (now - at) * self._per_s)

    def wait_s(self, name: str, now: float, least: float) -> float:
        """Seconds until the level is `least`; none where it is."""
        if self._per_s >= NO_RATE or not name:
            return 0.0
        return max(0.0, (least - self._level(name, now)) / self._per_s)

    def spend(self, name: str, now: float, amount: float) -> None:
        if self._per_s >= NO_RATE or not name:
            return
        self._levels[name] = self._level(name, now) - amount, now
        self._levels.move_to_end(name)
        if len(self._levels) > KNOWN:
            self._levels.popitem(last=False)


class Rates:
    """Of users and of buckets, in one process."""

    def __init__(self, limits: Limits) -> None:
        self._requests = Rate(limits.user_requests_per_s), Rate(limits.bucket_requests_per_s)
        self._bytes = Rate(limits.user_bytes_per_s), Rate(limits.bucket_bytes_per_s)
        rates = (
            limits.user_requests_per_s,
            limits.bucket_requests_per_s,
            limits.user_bytes_per_s,
            limits.bucket_bytes_per_s,
        )
        self.are_set = min(rates) < NO_RATE

    def ask(self, user: str, bucket: str, now: float) -> float:
        """Zero where a request may go on, which counts then; or else the seconds after which to try again."""
        names = user, bucket
        waits = [rate.wait_s(name, now, 1.0) for rate, name in zip(self._requests, names, strict=True)]
        waits += [rate.wait_s(name, now, 0.0) for rate, name in zip(self._bytes, names, strict=True)]
        if not any(waits):
            for rate, name in zip(self._requests, names, strict=True):
                rate.spend(name, now, 1.0)
        return max(waits)

    def went(self, user: str, bucket: str, size: int, now: float) -> None:
        """So many bytes came and went."""
        for rate, name in zip(self._bytes, (user, bucket), strict=True):
            rate.spend(name, now, size)

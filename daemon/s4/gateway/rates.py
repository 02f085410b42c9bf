"""How much users and buckets may ask for in a second, where that is a setting: requests, and bytes of bodies and
answers.

A rate is a level that fills by so much a second, up to what one second gives. A request takes one from it and is
refused where there is none; bytes are taken once they have gone, so that the level may be below nothing, and whoever
owes is refused until that is made up. So one large transfer is not slowed down, and what comes after it waits. Pure:
the time is passed in.

The limits are the same for all; a user or bucket that has a rate of its own (`s4 admin user rate`) has that instead. A
user's is known with its key. A bucket's is in its row, which is looked at after the rates are asked: each process
notes it there for what comes next.
"""

from __future__ import annotations

from collections import OrderedDict

from s4.config.limits import NO_RATE as ENDLESS
from s4.config.limits import Limits

KNOWN = 10_000  # names; who was heard of longest ago is forgotten
NO_RATE = (0, 0)  # of its own: requests and bytes a second


class Rate:
    """So much a second for each name; `own` where the name has another."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level and when

    def _level(self, name: str, now: float, per_s: int) -> float:
        level, at = self._levels.get(name, (float(per_s), now))
        return min(float(per_s), level + (now - at) * per_s)

    def wait_s(self, name: str, now: float, least: float, own: int = 0) -> float:
        """Seconds until the level is `least`; none where it is."""
        per_s = own or self._per_s
        if per_s >= ENDLESS or not name:
            return 0.0
        return max(0.0, (least - self._level(name, now, per_s)) / per_s)

    def spend(self, name: str, now: float, amount: float, own: int = 0) -> None:
        per_s = own or self._per_s
        if per_s >= ENDLESS or not name:
            return
        self._levels[name] = self._level(name, now, per_s) - amount, now
        self._levels.move_to_end(name)
        if len(self._levels) > KNOWN:
            self._levels.popitem(last=False)


class BucketRates:
    """Those of single buckets, as their rows were seen last."""

    def __init__(self) -> None:
        self._rates: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._rates)

    def of(self, bucket: str) -> tuple[int, int]:
        return self._rates.get(bucket, NO_RATE)

    def note(self, bucket: str, rate: tuple[int, int]) -> None:
        if rate != NO_RATE:
            self._rates[bucket] = rate
            if len(self._rates) > KNOWN:
                self._rates.popitem(last=False)
        elif self._rates:
            self._rates.pop(bucket, None)


class Rates:
    """Of users and of buckets, in one process."""

    def __init__(self, limits: Limits, buckets: BucketRates | None = None) -> None:
        self._requests = Rate(limits.user_requests_per_s), Rate(limits.bucket_requests_per_s)
        self._bytes = Rate(limits.user_bytes_per_s), Rate(limits.bucket_bytes_per_s)
        rates = (
            limits.user_requests_per_s,
            limits.bucket_requests_per_s,
            limits.user_bytes_per_s,
            limits.bucket_bytes_per_s,
        )
        self._are_set, self._buckets = min(rates) < ENDLESS, buckets if buckets is not None else BucketRates()

    def count(self, own: tuple[int, int] = NO_RATE) -> bool:
        """Whether any may say no to a user that has this one of its own."""
        return self._are_set or own != NO_RATE or bool(self._buckets)

    def ask(self, user: str, bucket: str, now: float, own: tuple[int, int] = NO_RATE) -> float:
        """Zero where a request may go on, which counts then; or else the seconds after which to try again."""
        names = (user, own), (bucket, self._buckets.of(bucket))
        waits = [rate.wait_s(name, now, 1.0, its[0]) for rate, (name, its) in zip(self._requests, names, strict=True)]
        waits += [rate.wait_s(name, now, 0.0, its[1]) for rate, (name, its) in zip(self._bytes, names, strict=True)]
        if not any(waits):
            for rate, (name, its) in zip(self._requests, names, strict=True):
                rate.spend(name, now, 1.0, its[0])
        return max(waits)

    def went(self, user: str, bucket: str, size: int, now: float, own: tuple[int, int] = NO_RATE) -> None:
        """So many bytes came and went."""
        names = (user, own), (bucket, self._buckets.of(bucket))
        for rate, (name, its) in zip(self._bytes, names, strict=True):
            rate.spend(name, now, size, its[1])

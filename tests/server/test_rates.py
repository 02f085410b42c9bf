"""Rates of users and of buckets: what they let through is counted, on a clock of the test's own; a real server owes
for hours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raw import call
from s4.config.limits import Limits
from s4.gateway.rates import KNOWN, BucketRates, Rate, Rates
from server.test_admin import admin


def test_rates_are_of_users_and_of_buckets() -> None:
    for name, bytes_of in (
        ("user_requests_per_s", 0),
        ("bucket_requests_per_s", 0),
        ("user_bytes_per_s", 1),
        ("bucket_bytes_per_s", 1),
    ):
        rates, of_user = Rates(replace(Limits(), **{name: 5})), name.startswith("user")
        assert rates.count()

        def answered(user: str, bucket: str, now: float, rates: Rates = rates, bytes_of: int = bytes_of) -> int:
            """Of ten requests of a byte each."""
            fine = 0
            for _ in range(10):
                if not rates.ask(user, bucket, now):
                    fine += 1
                    rates.went(user, bucket, bytes_of, now)
            return fine

        first = answered("a", "x", 100.0)
        assert first == 5 + bytes_of  # bytes are owed afterwards
        assert answered("a", "y", 100.0) == (0 if of_user else first)
        assert answered("b", "x", 100.0) == (first if of_user else 0)
        assert answered("a", "x", 101.0) == 5
        assert answered("a", "x", 1000.0) == first  # no more is saved up than a second gives


def test_without_a_rate_nothing_is_kept() -> None:
    rates = Rates(Limits())
    assert not rates.count()
    assert rates.ask("a", "x", 1.0) == 0.0


def test_one_of_its_own_counts_instead_of_the_general_one() -> None:
    buckets = BucketRates()
    rates = Rates(replace(Limits(), user_requests_per_s=2), buckets)
    buckets.note("slow", (1, 0))
    fine = [
        sum(not rates.ask(user, bucket, 100.0, own) for _ in range(10))
        for user, bucket, own in (("a", "x", (0, 0)), ("b", "x", (5, 0)), ("c", "slow", (5, 0)), ("d", "slow", (0, 0)))
    ]
    assert fine == [2, 5, 1, 0]
    buckets.note("slow", (0, 0))
    assert not buckets
    assert not rates.ask("c", "slow", 100.0, (5, 0))
    for number in range(2 * KNOWN):
        buckets.note(str(number), (1, 1))
    assert len(buckets._rates) == KNOWN


def test_what_is_owed_says_when_to_come_again_and_names_are_bounded() -> None:
    rate = Rate(100)
    rate.spend("a", 0.0, 1100.0)
    assert rate.wait_s("a", 0.0, 0.0) == 10.0
    assert rate.wait_s("a", 10.0, 0.0) == 0.0
    for number in range(2 * KNOWN):
        rate.spend(str(number), 0.0, 1.0)
    assert len(rate._levels) == KNOWN


def test_who_took_more_than_its_rate_is_refused_until_that_is_made_up(own_server: Any, client: Any) -> None:
    server = own_server("--limit", "user_bytes_per_s=1")
    other = admin(server, "user", "add", "other", "--grant", "SuperUser")
    s3 = client(server.endpoint)
    s3.create_bucket(Bucket="rates")
    first = call(server.endpoint, "PUT", "/rates/k", body=b"x" * 50_000)
    assert first.status in (200, 503)  # what made the bucket may be owed for
    theirs = {"access": other["access_key"], "secret": other["secret_key"]}
    assert call(server.endpoint, "PUT", "/rates/k", body=b"x" * 50_000, **theirs).status == 200
    refused = call(server.endpoint, "GET", "/rates/k", **theirs)
    assert (refused.status, refused.code) == (503, "SlowDown")
    assert 40_000 < int(refused.headers["retry-after"]) <= 50_000

"""Prometheus metrics of requests, one set per process; with workers prometheus-client's multiprocess files add them up.
Those of stores are in server/metrics.py."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from s4.base.metrics import Metric
from s4.http import metric_files

metric_files.install()
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class _Seconds(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, seconds: float, counts: list[int]) -> None:
        """`counts` of observations by bucket, the last of those beyond all; `seconds` is their sum."""
        self._sum.inc(seconds)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class _Tally:
    """Requests of one operation and outcome that the library was not told of yet."""

    __slots__ = ("_requests", "_seconds", "calls", "counts", "seconds")

    def __init__(self, requests: Counter, seconds: _Seconds) -> None:
        self._requests, self._seconds = requests, seconds
        self._clear()

    def _clear(self) -> None:
        self.calls, self.seconds, self.counts = 0, 0.0, [0] * (len(BUCKETS_S) + 1)

    def tell(self) -> None:
        if self.calls:
            self._requests.inc(self.calls)
            self._seconds.add(self.seconds, self.counts)
            self._clear()


class RequestMetrics(Collector):
    """What a gateway counts: plain numbers, which the library is told of when this process is asked for them, and
    twice a second for other processes that are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        registry.register(self)  # the first, so that the others know all
        labels = ("operation", "code")
        self._requests = Counter("s4_requests", "S3 requests by operation and outcome", labels, registry=registry)
        self._seconds = _Seconds(
            "s4_request_seconds",
            "Seconds from the head of a request to the end of its answer",
            ("operation",),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._in = Counter("s4_received_bytes", "Bytes of request bodies", registry=registry)
        self._out = Counter("s4_sent_bytes", "Bytes of response bodies", registry=registry)
        self.in_flight = Gauge(
            "s4_requests_in_flight",
            "S3 requests being served, as of the last half second",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.refused = Counter(
            "s4_overload_refusals", "Requests answered 503 at once because of limits", registry=registry
        )
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._received = self._sent = 0

    def observe(self, operation: str, code: str, seconds: float, received: int, sent: int) -> None:
        tally = self._tallies.get((operation, code))
        if tally is None:
            tally = _Tally(self._requests.labels(operation, code), self._seconds.labels(operation))
            self._tallies[operation, code] = tally
        tally.calls += 1
        tally.seconds += seconds
        tally.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._received += received
        self._sent += sent

    def collect(self) -> Iterator[Family]:
        self.tell()
        return iter(())

    def tell(self) -> None:
        for tally in self._tallies.values():
            tally.tell()
        received, sent, self._received, self._sent = self._received, self._sent, 0, 0
        self._in.inc(received)
        self._out.inc(sent)


class StoreCollector(Collector):
    """What there is to tell of stores, read when it is asked for."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for one in self._read():
            if one.name not in families:
                kind = CounterMetricFamily if one.rises else GaugeMetricFamily
                families[one.name] = kind(one.name, one.help, labels=[*one.labels])
            families[one.name].add_metric([*one.labels.values()], one.value)
        yield from families.values()


def exposition(registry: CollectorRegistry, directory: str | None, collector: Collector) -> bytes:
    """All metrics as text. With a directory, those of every process that writes there."""
    if directory is None:
        return bytes(generate_latest(registry)) + _only(collector)
    combined = CollectorRegistry()
    multiprocess.MultiProcessCollector(combined, path=directory)  # type: ignore[no-untyped-call]
    return bytes(generate_latest(combined)) + _only(collector)


def _only(collector: Collector) -> bytes:
    registry = CollectorRegistry()
    registry.register(collector)
    return bytes(generate_latest(registry))

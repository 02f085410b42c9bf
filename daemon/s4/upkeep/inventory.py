"""What each bucket holds, for the metrics: read now and then where partition 0 is led, since it takes all
partitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from s4.base.metrics import Metric, gauge
from s4.metadata.rows import Counters
from s4.peer.api import NodeApi

MOST = 1000  # buckets that are shown, the largest first


class Inventory:
    """`leads` tells whether it is ours to show."""

    def __init__(self, node: NodeApi, leads: Callable[[], bool]) -> None:
        self._node, self._leads = node, leads
        self.buckets: dict[str, Counters] = {}

    async def look(self) -> None:
        found = {}
        if self._leads():
            for name, row in await self._node.list_buckets():
                found[name] = await self._node.bucket_counters(row.id)
        largest = sorted(found.items(), key=lambda one: -one[1].bytes)[:MOST]
        self.buckets = dict(largest)

    def metrics(self) -> Iterator[Metric]:
        for name, sums in self.buckets.items():
            yield gauge(
                "s4_bucket_objects",
                "Object versions in a bucket that are not delete markers",
                sums.objects,
                bucket=name,
            )
            yield gauge("s4_bucket_bytes", "Bytes of these as clients see them", sums.bytes, bucket=name)
            yield gauge(
                "s4_bucket_saved_bytes",
                "Bytes of content that a bucket shares and does not store",
                sums.saved,
                bucket=name,
            )

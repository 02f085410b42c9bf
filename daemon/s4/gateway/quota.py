"""Quotas of buckets: how many bytes of versions a bucket may hold.

What a bucket holds is summed over its partitions, each time that SUMMED_S have passed; what this gateway admits
meanwhile is added. So a quota may be passed by what other gateways admit within that time, and is obeyed again from
then on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from s4.access.documents import quota_of
from s4.base.clock import boot_clock
from s4.metadata.rows import Bucket
from s4.peer.api import NodeApi
from s4.s3.errors import S3Error

SUMMED_S = 2.0
KNOWN = 4096


class Quotas:
    """Sums of buckets that have a quota, of one gateway."""

    def __init__(self) -> None:
        self._sums: OrderedDict[int, tuple[float, int]] = OrderedDict()
        self._completing: set[bytes] = set()  # uploads whose bytes are admitted and not summed yet

    @asynccontextmanager
    async def completing(self, node: NodeApi, bucket: Bucket, size: int, upload: bytes) -> AsyncIterator[None]:
        """While an upload is completed. Completions of it at the same time are about the same bytes, admitted once,
        and given back by who did not get in. Raises S3Error QuotaExceeded."""
        if not quota_of(bucket):
            yield
            return
        until, used = await self._sum(node, bucket)
        first = upload not in self._completing
        if first:
            self._admit(bucket, until, used, size)
            self._completing.add(upload)
        try:
            yield
        except S3Error as error:
            if first and error.status < 500 and self._sums.get(bucket.id, (0.0, 0))[0] == until:
                self._sums[bucket.id] = until, self._sums[bucket.id][1] - size  # else it is summed anew already
            raise
        finally:
            if first:
                self._completing.discard(upload)

    async def take(self, node: NodeApi, bucket: Bucket, size: int) -> None:
        """Admit `size` more bytes. Raises S3Error QuotaExceeded."""
        if quota_of(bucket):
            self._admit(bucket, *await self._sum(node, bucket), size)

    async def _sum(self, node: NodeApi, bucket: Bucket) -> tuple[float, int]:
        """Until when the sum counts, and the sum."""
        until, used = self._sums.get(bucket.id, (0.0, 0))
        if boot_clock() >= until:
            summed = (await node.bucket_counters(bucket.id)).bytes
            until, used = self._sums.get(bucket.id, (0.0, 0))
            if boot_clock() >= until:  # nobody else did it meanwhile, and admitted more since
                until, used = boot_clock() + SUMMED_S, summed
        return until, used

    def _admit(self, bucket: Bucket, until: float, used: int, size: int) -> None:
        quota = quota_of(bucket)
        if used + size > quota:
            raise S3Error("QuotaExceeded", QuotaBytes=str(quota), UsedBytes=str(used))
        self._sums[bucket.id] = until, used + size
        self._sums.move_to_end(bucket.id)
        if len(self._sums) > KNOWN:
            self._sums.popitem(last=False)

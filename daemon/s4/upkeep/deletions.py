"""Deletions of buckets that were cut off, by a crash or because a write in between was refused: finished, or undone.

Until then nobody can use such a bucket, and its name is taken. Whoever looks is the single server, or the primary of
partition 0. That others may be at work on the same deletion does no harm (gateway/buckets.py), so a crash here, or a
second one that looks, loses nothing; it is only waste, which DELETE_S keeps rare.
"""

from __future__ import annotations

import time

from s4.base.jobs import each
from s4.gateway.buckets import finish_delete
from s4.gateway.context import Gateway
from s4.metadata.rows import Bucket
from s4.s3.errors import S3Error

DELETE_S = 60.0  # after which a deletion that is under way is taken for abandoned
LOOK_S = 5.0


class Deletions:
    """`alone`: nobody else can have been at work on what is there at the first look."""

    def __init__(self, gateway: Gateway, *, alone: bool) -> None:
        self._gateway = gateway
        self._begun_s = float("-inf") if alone else None  # when those of the first look were begun, if that is known
        self._since: dict[bytes, float] = {}  # by token, when a deletion was first seen

    async def look(self) -> None:
        """One round. Raises S3Error, once all have had their turn, where one can neither be finished nor undone now."""
        now = time.monotonic()
        found = [(name, row) for name, row in await self._gateway.node.list_buckets() if row.deleting]
        first = now if self._begun_s is None else self._begun_s
        self._since = {row.deleting: self._since.get(row.deleting, first) for _, row in found}
        self._begun_s = None
        await each([one for one in found if now - self._since[one[1].deleting] > DELETE_S], self._finish)

    async def _finish(self, found: tuple[str, Bucket]) -> None:
        try:
            await finish_delete(self._gateway, *found)
        except S3Error as error:
            if error.code not in ("BucketNotEmpty", "OperationAborted"):  # then it was undone
                raise

"""After a key was rotated: what older keys wrapped is wrapped anew, and no byte of an object moves.

It runs only where a key file holds more than one version of a key, or where Vault has the keys, over the rows of the
partitions that are led here. Each change names the wrapped key that it replaces, so that a pass can be cut off anywhere
and begun again, and meets no write of anybody else. A pass is made anew each hour: a process that was not restarted yet
may have used the older key meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from s4.base.jobs import each
from s4.base.metrics import Metric, counter, gauge
from s4.crypto.keyring import is_sealed
from s4.crypto.kms import KmsError
from s4.gateway import sealing
from s4.gateway.accounts import Accounts, change, kept_secret, open_secret
from s4.gateway.context import Gateway, execute
from s4.metadata import keys
from s4.metadata.commands import Rewrap
from s4.metadata.rows import AccessKey, Sealing, Upload, decode, decode_object
from s4.s3.encryption import SSE_C, SSE_S3
from s4.s3.errors import S3Error

log = logging.getLogger(__name__)

RUN = 500
AGAIN_S = 3600.0


class Rewrapper:
    """`rows` has `scan` and `check` of this store's partitions, `led` says which are ours. Counts are since the
    start."""

    def __init__(self, gateway: Gateway, rows: Any, led: Callable[[], Sequence[int]]) -> None:
        self._gateway, self._rows, self._led = gateway, rows, led
        self._done: dict[
            int, tuple[float, int]
        ] = {}  # by partition: when it is to be looked through again, and what is left
        self.rewrapped = 0

    @property
    def rotated(self) -> bool:
        """Whether there may be anything that an older key wrapped."""
        ring, kms = self._gateway.keyring, self._gateway.kms
        return (ring is not None and ring.several) or (kms is not None and kms.several)

    @property
    def left(self) -> int:
        """Partitions led here whose last pass found older keys, or that had none, and keys that could not be wrapped
        anew: 0 before an old key may go."""
        if not self.rotated:
            return 0
        return sum(self._done[one][1] if one in self._done else 1 for one in self._led())

    def metrics(self) -> Iterator[Metric]:
        done = "Keys of objects and secrets that were wrapped anew after a rotation"
        left = "After a rotation: partitions to look through, and keys that could not be wrapped anew; 0 before an old key may go"
        yield counter("s4_keys_rewrapped", done, self.rewrapped)
        yield gauge("s4_keys_left", left, self.left)

    async def run(self) -> None:
        """One look: a pass over each partition that has had none for an hour, or whose last one found older keys."""
        if not self.rotated:
            return
        await each(list(self._led()), self._pass)

    async def _pass(self, partition: int) -> None:
        if time.monotonic() < self._done.get(partition, (0.0, 0))[0]:
            return
        before = self.rewrapped
        failed = await self._partition(partition)
        if partition == 0:
            await change(self._gateway, self._secrets)
        found = self.rewrapped > before
        self._done[partition] = 0.0 if found else time.monotonic() + AGAIN_S, failed + found

    async def _partition(self, partition: int) -> int:
        failed = 0
        for table in (keys.UPLOAD, keys.OBJECT):  # what is completed meanwhile is still to come
            prefix = start = keys.table(partition, table)
            while found := list(islice(self._rows.scan(prefix, start), RUN)):
                self._rows.check(partition)
                for bucket, row_key, held in _sealed(found):
                    failed += not await self._one(partition, bucket, row_key, held)
                start = found[-1][0] + b"\x00"
                await asyncio.sleep(0)
            self._rows.check(partition)  # a copy that leads no more may be empty: nothing of it was read to its end
        return failed

    async def _one(self, partition: int, bucket: int, row_key: bytes, held: Sealing) -> bool:
        """Whether a key is under the current one now."""
        gateway = self._gateway
        try:
            if await self._is_current(held):
                return True
            key = await sealing.unwrap(gateway, bucket, held, b"")
            after = (await sealing.wrapped(gateway, bucket, held, key)).wrapped
            await execute(gateway, partition, Rewrap(row_key, held.wrapped, after))
        except (S3Error, KmsError) as error:
            if error.code == "ServiceUnavailable":
                raise
            log.error("a key in bucket %d was not wrapped anew: %s", bucket, error)
            return False
        self.rewrapped += 1
        return True

    async def _is_current(self, held: Sealing) -> bool:
        if held.mode == SSE_S3:
            return sealing.keyring_of(self._gateway).is_current(held.wrapped)
        return await sealing.kms_of(self._gateway).is_current(held.key, held.wrapped)

    async def _secrets(self, accounts: Accounts) -> None:
        """Secrets of access keys are under the master key too."""
        ring = self._gateway.keyring
        if ring is None or not ring.several:
            return
        for name, row in await accounts.all(AccessKey, seen=True):
            if is_sealed(row.secret) and not ring.is_current(row.secret):
                secret = open_secret(self._gateway, name, row.secret)
                accounts.put(
                    name, AccessKey(row.user, kept_secret(self._gateway, name, secret), row.created_ms, row.enabled)
                )
                self.rewrapped += 1


def _sealed(rows: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[int, bytes, Sealing]]:
    """(bucket, row, how it is encrypted) of what a key of ours wrapped."""
    for row_key, value in rows:
        table = row_key[2:3]
        held = decode_object(value)[0].sealing if table == keys.OBJECT else decode(Upload, value).sealing
        if held is not None and held.mode != SSE_C:
            yield int.from_bytes(row_key[3:11], "big"), row_key, held

"""Lifecycle: ends what a bucket's rules say has ended, and moves what they say goes to another storage class. One pass
over each partition at the beginning of each day.

It is done where the partition is led, over its own rows; what to end is `s3/lifecycle.py`'s to say, and each ending is
a command that names a version and is decided anew: a version that is current again, locked or gone is left alone. So a
pass may be cut off anywhere and begun again, here or elsewhere, and nothing ends twice. Nothing ends while this node's
clock differs from its peers' (R13).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from s4.access import documents
from s4.base.jobs import each
from s4.base.metrics import Metric, counter
from s4.gateway.context import Gateway, NotCommittedError, Origin, execute, notify_of, settings_of
from s4.metadata import classes, keys
from s4.metadata.commands import AbortUpload, ChangeObject, DeleteIfNewest, Expire, Judged, Stale
from s4.metadata.rows import Bucket, Notify, Upload, decode, decode_object
from s4.replica.pieces import pieces
from s4.s3 import lifecycle
from s4.s3.errors import S3Error
from s4.s3.lifecycle import Rule, Version

log = logging.getLogger(__name__)

Ending = DeleteIfNewest | Expire | AbortUpload | ChangeObject
USER = "s4-lifecycle"  # of events and in the audit log
ORIGIN = Origin(USER)
RUN = 500
CONCURRENCY = 16


class Lifecycle:
    """`rows` has `scan` and `check` of this store's partitions, `led` says which are ours; `audit` writes a line of
    what was ended. Counts are since the start."""

    def __init__(
        self,
        gateway: Gateway,
        rows: Any,
        led: Callable[[], Sequence[int]],
        agrees: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        audit: Callable[..., None] = lambda **_: None,
    ) -> None:
        self._audit = audit
        self._gateway, self._rows, self._led, self._agrees, self._clock = gateway, rows, led, agrees, clock
        self._done: dict[int, tuple[int, set[int]]] = {}  # by partition: the day, and buckets that had their pass
        self._whole: dict[int, int] = {}  # the day on which all of a partition had it last
        self.ended = dict.fromkeys((lifecycle.CURRENT, lifecycle.NONCURRENT, lifecycle.MARKER, "upload"), 0)
        self.moved = 0
        self.kept = 0  # that the primary left alone

    def metrics(self) -> Iterator[Metric]:
        yield counter(
            "s4_lifecycle_ended", "Versions, markers and uploads that lifecycle ended", sum(self.ended.values())
        )
        yield counter("s4_lifecycle_moved", "Versions that lifecycle moved to another storage class", self.moved)
        yield counter(
            "s4_lifecycle_kept", "What lifecycle would have ended or moved, and was locked or gone", self.kept
        )

    async def run(self) -> None:
        """One look: a pass over each partition that has had none today. What cannot be ended now, as where the receiver
        of its events takes no more, keeps nothing else waiting, and is tried with the next look."""
        await each(self._led(), self._pass)

    async def _pass(self, partition: int) -> None:
        day_ms, now_ms = self._gateway.day_ms, int(self._clock() * 1000)
        today = now_ms // day_ms
        if self._whole.get(partition) == today or not self._agrees():
            return
        if self._done.get(partition, (None,))[0] != today:
            self._done[partition] = today, set()
        done = self._done[partition][1]

        async def one(found: tuple[str, Bucket]) -> None:
            name, bucket = found
            rules = documents.lifecycle_of(bucket)
            if rules and not bucket.deleting and bucket.id not in done:
                await each((self._objects, self._uploads), lambda what: what(partition, name, bucket, rules, now_ms))
                if self._agrees():  # else what was left alone for that is looked at once more
                    done.add(bucket.id)

        await each(await self._gateway.node.list_buckets(), one)
        if self._agrees():
            self._whole[partition] = today
            del self._done[partition]

    async def _objects(self, partition: int, name: str, bucket: Bucket, rules: list[Rule], now_ms: int) -> None:
        prefix = start = keys.bucket_objects(partition, bucket.id)
        failure: S3Error | None = None
        while found := list(islice(self._rows.scan(prefix, start), RUN)):
            self._rows.check(partition)
            groups = list(_by_key(found, prefix))
            if len(found) == RUN and len(groups) > 1:
                groups.pop()  # the rest of its versions is in the next run
            elif len(found) == RUN:  # one key with more versions than a run
                one_key = keys.object_versions(partition, bucket.id, groups[0][0])
                groups = list(_by_key([row async for row in pieces(self._rows, one_key)], prefix))
            current = await self._current(name, bucket, rules)
            if current is None:
                break
            commands = [
                one
                for key, versions in groups
                for one in _due(current, name, key, rules, versions, now_ms, self._gateway.day_ms)
            ]
            failure = await self._end(partition, name, commands) or failure
            start = keys.object_versions(partition, bucket.id, groups[-1][0]) + b"\xff" * 13
            await asyncio.sleep(0)
        if failure is not None:
            raise failure

    async def _current(self, name: str, bucket: Bucket, rules: list[Rule]) -> Bucket | None:
        """The bucket as it is, where it still has these rules, and this clock can be trusted. Whoever decides looks at
        both once more."""
        found = await self._gateway.node.find_bucket(name)
        same = found is not None and found.id == bucket.id and documents.lifecycle_of(found) == rules
        return found if same and self._agrees() else None

    async def _uploads(self, partition: int, name: str, bucket: Bucket, rules: list[Rule], now_ms: int) -> None:
        if not any(rule.abort_days for rule in rules):
            return
        current = await self._current(name, bucket, rules)
        if current is None:
            return
        table = keys.bucket_uploads(partition, bucket.id)
        old: list[tuple[str, Ending]] = []
        async for row_key, value in pieces(self._rows, table):
            key, upload = keys.split_upload(row_key[len(table) :])
            row = decode(Upload, value)
            end = lifecycle.aborts_at(rules, key.decode("utf-8", "replace"), row.created_ms, self._gateway.day_ms)
            if end is not None and end[0] <= now_ms:
                old.append(("upload", AbortUpload(settings_of(current, "", ORIGIN), key, upload, row.created_ms + 1)))
        self._rows.check(partition)
        failure = await self._end(partition, name, old)
        if failure is not None:
            raise failure

    async def _end(self, partition: int, name: str, commands: Sequence[tuple[str, Ending]]) -> S3Error | None:
        """The first that was refused for a fault, once all were tried. Raises S3Error where nobody knows."""
        failed = list[S3Error | None]()
        for at in range(0, len(commands), CONCURRENCY):
            some = commands[at : at + CONCURRENCY]
            failed += await asyncio.gather(*(self._one(partition, name, *one) for one in some))
        return next(filter(None, failed), None)

    async def _one(self, partition: int, name: str, kind: str, command: Ending) -> S3Error | None:
        try:
            answer = await execute(self._gateway, partition, command)
        except NotCommittedError as error:  # a refusal: others may be granted
            if error.status >= 500:
                return error
            self.kept += 1  # locked, gone, or not due any more
            return None
        if isinstance(answer, Stale):
            self.kept += 1
            return None
        version = command.upload.hex() if isinstance(command, AbortUpload) else command.version
        if isinstance(command, ChangeObject):
            self.moved += 1
            version = keys.version_id(command.seen)
        else:
            self.ended[kind] += 1
        self._audit(
            request_id="",
            user=USER,
            operation=f"Lifecycle:{kind}",
            bucket=name,
            key=command.key,
            version=version,
            status=200,
            code="OK",
            remote="",
            seconds=0.0,
        )
        return None


def _due(
    bucket: Bucket, name: str, key: bytes, rules: list[Rule], versions: list[Version], now_ms: int, day_ms: int
) -> Iterator[tuple[str, Ending]]:
    """What is to be done with one key's versions: what ends is not moved."""
    ended = set[str]()
    for kind, one in lifecycle.due(rules, versions, now_ms, day_ms):
        ended.add(one.id)
        yield kind, _ending(bucket, key, kind, one, notify_of(bucket, name, ORIGIN))
    for kind, one, target in lifecycle.moving(rules, versions, now_ms, day_ms):
        if one.id not in ended:
            yield "transition", _move(bucket, name, key, kind, one, target)


def _move(bucket: Bucket, name: str, key: bytes, kind: str, one: Version, target: str) -> ChangeObject:
    """Under the settings that were looked at: where the partition knows newer ones, nothing is moved."""
    version = "" if kind == lifecycle.CURRENT else "null" if one.null else one.id
    return ChangeObject(
        settings_of(bucket, name, ORIGIN),
        key,
        version,
        seen=keys.parse_version_id(one.id) or b"",
        storage_class=target,
        judged=Judged(bucket.revision, dict(one.tags), one.kept),
    )


def _ending(bucket: Bucket, key: bytes, kind: str, one: Version, notify: Notify | None) -> Ending:
    judged = Judged(bucket.revision, dict(one.tags), one.kept)
    if kind == lifecycle.CURRENT:
        return DeleteIfNewest(bucket.id, key, one.id, notify, "LifecycleExpiration", judged)
    return Expire(bucket.id, key, one.id, notify, judged)


def _by_key(rows: Sequence[tuple[bytes, bytes]], prefix: bytes) -> Iterator[tuple[bytes, list[Version]]]:
    """Versions of each key, newest first."""
    key, versions = b"", list[Version]()
    for row_key, value in rows:
        name, suffix = keys.split_object(row_key[len(prefix) :])
        if versions and name != key:
            yield key, versions
            versions = []
        key = name
        row, _ = decode_object(value)
        versions.append(
            Version(
                name.decode("utf-8", "replace"),
                keys.version_id(suffix),
                row.modified_ms,
                row.size,
                row.marker,
                row.tags,
                storage_class=classes.of(row.headers),
                null=row.null,
            )
        )
    if versions:
        yield key, versions

"""Sends events to their receivers, from the queues that the primaries' entries fill (`metadata/events.py`).

Where a partition is led its queues are sent, each in order, one event at a time: what came later of a key never arrives
before what came earlier. An event leaves its queue once its receiver has taken it; a crash, or another leader, in
between sends it again under the same id. A receiver that fails is tried again, ever less often, and keeps no other
waiting. A queue that is longer than `most` refuses what would make it longer (`full_queues` of the host).
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import quote_plus

import msgspec

from s4.base.jobs import Failures, Job, Jobs
from s4.base.metrics import Metric, counter, gauge
from s4.metadata import keys
from s4.metadata.canonical import canonical_id
from s4.metadata.commands import ForgetRows
from s4.metadata.rows import Event, decode
from s4.notify.receivers import ReceiverError, Settings, make
from s4.peer.api import CallError

log = logging.getLogger(__name__)

BATCH = 64
POLL_S = 0.2
LEAST_S, MOST_S = 0.5, 30.0  # between two tries of a receiver that fails
COUNT_S, IDLE_S = 1.0, 60.0  # without receivers there is only what older ones left


class Sender:
    """`rows` is the host. Counts are since the start; `waiting` is of the partitions that are led here."""

    def __init__(
        self, rows: Any, led: Callable[[], Sequence[int]], receivers: Mapping[str, Settings], region: str, most: int
    ) -> None:
        self._rows, self._led, self._region, self._most = rows, led, region, most
        self._receivers = {name: make(settings) for name, settings in receivers.items()}
        self._waits = dict.fromkeys(self._receivers, LEAST_S)
        self._failures = {name: Failures() for name in self._receivers}
        self.sent = dict.fromkeys(self._receivers, 0)
        self.failed = dict.fromkeys(self._receivers, 0)
        self.waiting: dict[str, int] = {}

    def start(self, jobs: Jobs) -> None:
        jobs.start(*(Job(f"events for {name}", 0.0, 0.0, partial(self._serve, name)) for name in self._receivers))
        jobs.start(Job("queues of events", 0.0, COUNT_S if self._receivers else IDLE_S, self._count, retry_s=COUNT_S))

    async def close(self) -> None:
        """Call once its jobs have ended."""
        for receiver in self._receivers.values():
            await receiver.close()

    def metrics(self) -> Iterator[Metric]:
        for name, count in self.waiting.items():
            yield gauge("s4_events_waiting", "Events that a receiver has not taken yet", count, receiver=name)
        for name, count in self.sent.items():
            yield counter("s4_events_sent", "Events that a receiver took", count, receiver=name)
        for name, count in self.failed.items():
            yield counter("s4_events_failed", "Times that sending to a receiver failed", count, receiver=name)

    async def _serve(self, name: str) -> None:
        """One round over the queues of a receiver."""
        ends = await asyncio.gather(*(self._drain(one, name) for one in self._led()), return_exceptions=True)
        errors = [one for one in ends if isinstance(one, BaseException)]
        for error in errors:
            self._failures[name].add(f"sending events to {name}", error, (ReceiverError, CallError))
        if errors:
            self.failed[name] += 1
            await asyncio.sleep(self._waits[name])
            self._waits[name] = min(2 * self._waits[name], MOST_S)
            return
        self._waits[name] = LEAST_S
        self._failures[name].end(f"sending events to {name}")
        if not any(ends):
            await asyncio.sleep(POLL_S)

    async def _drain(self, partition: int, name: str) -> int:
        """Send what waits in one queue, in order, and forget what was taken; how many. Raises ReceiverError."""
        rows = list(islice(self._rows.scan(keys.events(partition, name)), BATCH))
        if not rows:
            return 0
        self._rows.check(partition)
        done: list[bytes] = []
        try:
            for row_key, value in rows:
                event = decode(Event, value)
                place = f"{event.bucket}/".encode() + event.key
                await self._receivers[name].send(event_id(row_key), place, record(event, row_key, self._region))
                done.append(row_key)
        finally:
            if done:
                self.sent[name] += len(done)
                await self._rows.submit(partition, ForgetRows(done), own=True)
        return len(done)

    async def _count(self) -> None:
        """Look how long the queues are, those too whose receiver this process does not know any more."""
        waiting = dict.fromkeys(self._receivers, 0)
        full: set[tuple[int, str]] = set()
        for partition in self._led():
            for name in self._queues(partition):
                length = sum(1 for _ in islice(self._rows.scan(keys.events(partition, name)), self._most))
                waiting[name] = waiting.get(name, 0) + length
                if length >= self._most:
                    full.add((partition, name))
            await asyncio.sleep(0)
        for name in waiting.keys() - self._receivers.keys() - self.waiting.keys():
            log.error("events wait for %s, and --receivers has no such receiver", name)
        self.waiting = waiting
        self._rows.full_queues.clear()
        self._rows.full_queues.update(full)

    def _queues(self, partition: int) -> Iterator[str]:
        """Receivers for whom something waits."""
        table = start = keys.table(partition, keys.EVENT)
        while (found := next(self._rows.scan(table, start), None)) is not None:
            name = keys.target_of(found[0])
            yield name
            start = keys.after(keys.events(partition, name))


def event_id(row_key: bytes) -> str:
    """Partition and entry: the same whenever it is sent, another for every change."""
    return f"{row_key[:2].hex()}-{row_key[-8:].hex()}"


def record(event: Event, row_key: bytes, region: str) -> bytes:
    """S3's JSON. Source: user guide, "Event message structure", version 2.1."""
    when = datetime.datetime.fromtimestamp(event.time_ms / 1000, datetime.UTC)
    stored: dict[str, Any] = {"key": quote_plus(event.key, safe="/"), "sequencer": row_key[-8:].hex()}
    if event.version:
        stored["versionId"] = event.version
    if event.etag:
        stored |= {"size": event.size, "eTag": event.etag}
    owner = canonical_id(event.user or "root")
    return msgspec.json.encode(
        {
            "Records": [
                {
                    "eventVersion": "2.1",
                    "eventSource": "s4:s3",
                    "awsRegion": region,
                    "eventTime": when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{event.time_ms % 1000:03}Z",
                    "eventName": event.name,
                    "userIdentity": {"principalId": event.user},
                    "requestParameters": {"sourceIPAddress": event.address},
                    "responseElements": {"x-amz-request-id": event.request, "x-s4-event-id": event_id(row_key)},
                    "s3": {
                        "s3SchemaVersion": "1.0",
                        "configurationId": event.rule,
                        "bucket": {
                            "name": event.bucket,
                            "ownerIdentity": {"principalId": owner},
                            "arn": f"arn:aws:s3:::{event.bucket}",
                        },
                        "object": stored,
                    },
                }
            ]
        }
    )

"""Events: what a change tells the receivers that its bucket's rules name. Pure.

An event is a row of the same entry as the change: there is none without the other, and it waits, in the order of the
partition's entries, until its receiver has taken it. Every receiver has a queue of its own, so that one that is away
keeps no other waiting. Where a queue is full the change is refused: nothing that is acknowledged goes untold.
Source: Amazon S3 user guide, "Event notification types and destinations".
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from s4.metadata import keys
from s4.metadata.entry import Entry, RefusalError
from s4.metadata.rows import Event, Notify, Object, encode

PUT, POST, COPY, COMPLETE = (f"ObjectCreated:{how}" for how in ("Put", "Post", "Copy", "CompleteMultipartUpload"))
DELETE, MARKER = "ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated"
EXPIRED, EXPIRED_MARKER = "LifecycleExpiration:Delete", "LifecycleExpiration:DeleteMarkerCreated"
TAGGED, UNTAGGED, ACL = "ObjectTagging:Put", "ObjectTagging:Delete", "ObjectAcl:Put"
MOVED = "LifecycleTransition"
NAMES = frozenset((PUT, POST, COPY, COMPLETE, DELETE, MARKER, EXPIRED, EXPIRED_MARKER, TAGGED, UNTAGGED, ACL, MOVED))


class NotificationRule(msgspec.Struct, frozen=True):
    """`target` names a receiver, `arn` as the client wrote it; `events` have no "s3:", and may end in "*"."""

    id: str
    kind: str
    arn: str
    target: str
    events: list[str]
    prefix: str = ""
    suffix: str = ""

    def takes(self, event: str, key: str) -> bool:
        named = any(event == one or (one.endswith("*") and event.startswith(one[:-1])) for one in self.events)
        return named and key.startswith(self.prefix) and key.endswith(self.suffix)


@lru_cache(maxsize=1024)
def rules_of(text: str) -> list[NotificationRule]:
    """Raises RefusalError where the bucket's rules cannot be read: no change is made that nobody would be told of."""
    try:
        return msgspec.json.decode(text, type=list[NotificationRule])
    except msgspec.MsgspecError as error:
        raise RefusalError(
            "InternalError", "The bucket's notification configuration cannot be read: put it again."
        ) from error


def tell(
    entry: Entry, notify: Notify | None, event: str, key: bytes, version: str, row: Object, *, owed: bool = False
) -> None:
    """Leave word of a change for each receiver that has a rule for it. Raises RefusalError where a queue is full, but
    for a change that is `owed`: it follows from one that was acknowledged, and nobody would ask for it again; and for a
    second change of one entry, whose row would take the place of the first one's."""
    if notify is None:
        return
    shown, told = key.decode("utf-8", "replace"), set[str]()
    for rule in rules_of(notify.rules):
        if rule.target in told or not rule.takes(event, shown):
            continue
        told.add(rule.target)
        if entry.is_full(rule.target) and not owed:
            raise RefusalError("SlowDown", f"The queue of events for {rule.target} is full. Try again later.")
        row_key = keys.event_row(entry.partition, rule.target, entry.sequence)
        if row_key in entry.rows:
            raise RefusalError(
                "InternalError", f"{rule.target} would be told of one of two changes only: ask for each."
            )
        gone = row.marker or event in (DELETE, EXPIRED)
        entry.put(
            row_key,
            encode(
                Event(
                    event,
                    rule.id,
                    notify.bucket,
                    key,
                    version,
                    0 if gone else row.size,
                    "" if gone else row.etag,
                    entry.now_ms,
                    notify.user,
                    notify.address,
                    notify.request,
                )
            ),
        )

"""Events in the entries of changes, where a queue is full: nothing is acknowledged that would go untold, and no half
of a rename is lost."""

from __future__ import annotations

import pytest

from metadata.test_lock_decisions import Rows
from s4.metadata import keys
from s4.metadata.commands import (
    AnyCommand,
    ChangeObject,
    DeleteIfNewest,
    DeleteObject,
    Expire,
    PutObject,
    Refused,
    Settings,
)
from s4.metadata.decide import decide
from s4.metadata.entry import Entry, Overlay
from s4.metadata.rows import Event, Notify, Object, decode, encode_object

NOTIFY = Notify(
    "b",
    '[{"id": "r", "kind": "Queue", "arn": "arn:t", "target": "t", "events": ["ObjectCreated:*", "ObjectRemoved:*", "LifecycleExpiration:*"]}]',
)
TOLD, ROW = Settings(7, 1, "", notify=NOTIFY), Object(1, 0, "e", False, False, "ana")
VERSIONED = Settings(7, 1, "Enabled", notify=NOTIFY)
OBJECT_KEY, OLDER = keys.object_row(0, 7, b"k", 1, 3), keys.object_row(0, 7, b"k", 1, 2)
NEWEST, OLD = (keys.version_id(key[-keys.VERSION_BYTES :]) for key in (OBJECT_KEY, OLDER))


def done(command: AnyCommand, *, full: bool) -> Entry | Refused:
    database = Rows()
    database.rows |= {OBJECT_KEY: encode_object(ROW), OLDER: encode_object(ROW)}
    entry = Entry(Overlay(database), 0, 1, 1, 5, 100, full={(0, "t")} if full else set())
    answer = decide(entry, command)
    return answer if isinstance(answer, Refused) else entry


CHANGES: dict[str, AnyCommand] = {
    "ObjectCreated:Put": PutObject(VERSIONED, b"k", ROW),
    "ObjectRemoved:DeleteMarkerCreated": DeleteObject(VERSIONED, b"k"),
    "ObjectRemoved:Delete": DeleteObject(TOLD, b"k"),
    "LifecycleExpiration:Delete": Expire(7, b"k", OLD, NOTIFY),
}


@pytest.mark.parametrize("event", CHANGES)
def test_a_full_queue_refuses_the_change_whole(event: str) -> None:
    entry = done(CHANGES[event], full=False)
    assert isinstance(entry, Entry)
    assert decode(Event, entry.rows[keys.event_row(0, "t", 5)] or b"").name == event
    refused = done(CHANGES[event], full=True)
    assert isinstance(refused, Refused)
    assert refused.code == "SlowDown"


def test_the_second_half_of_a_rename_is_told_and_never_refused() -> None:
    entry = done(DeleteIfNewest(7, b"k", NEWEST, NOTIFY), full=True)
    assert isinstance(entry, Entry)
    assert entry.rows[OBJECT_KEY] is None
    assert decode(Event, entry.rows[keys.event_row(0, "t", 5)] or b"").name == "ObjectRemoved:Delete"
    assert isinstance(done(DeleteIfNewest(7, b"k", NEWEST, NOTIFY, "LifecycleExpiration"), full=True), Refused)


def test_no_event_takes_the_place_of_another_of_its_entry() -> None:
    """An entry has one event for each receiver: what would tell of two changes is refused, whole."""
    tagging = Settings(
        7,
        1,
        "",
        notify=Notify(
            "b",
            '[{"id": "r", "kind": "Queue", "arn": "arn:t", "target": "t", "events": ["ObjectTagging:*", "ObjectAcl:Put"]}]',
        ),
    )
    both = done(ChangeObject(tagging, b"k", tags={"a": "1"}, acl="{}"), full=False)
    assert isinstance(both, Refused)
    assert both.code == "InternalError"
    for one in (ChangeObject(tagging, b"k", tags={"a": "1"}), ChangeObject(tagging, b"k", acl="{}")):
        entry = done(one, full=False)
        assert isinstance(entry, Entry)
        assert keys.event_row(0, "t", 5) in entry.rows
    assert isinstance(done(ChangeObject(TOLD, b"k", tags={"a": "1"}, acl="{}"), full=False), Entry), (
        "none of the two is asked for"
    )

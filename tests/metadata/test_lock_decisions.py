"""Object lock and lifecycle as partitions decide them, against a model, with a moving clock that peers sometimes do not
believe, and passes of lifecycle that are cut off anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from s4.cluster.clocks import Clocks
from s4.metadata import keys
from s4.metadata.commands import (
    AnyAnswer,
    AnyCommand,
    ChangeObject,
    Deleted,
    DeleteIfNewest,
    DeleteObject,
    Done,
    Expire,
    PutObject,
    Refused,
    Settings,
    SpreadSettings,
    Stale,
    Written,
)
from s4.metadata.decide import decide
from s4.metadata.entry import Entry, Overlay
from s4.metadata.rows import Object, decode_object
from s4.s3 import lifecycle

BUCKET, KEY, DAY = 7, b"k", 10
MODES = ("GOVERNANCE", "COMPLIANCE")


def midnight(at: int) -> int:
    while at % DAY:
        at += 1
    return at


class Rows:
    """A database in memory."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        return sorted((key, value) for key, value in self.rows.items() if start <= key < stop)


@dataclass
class Version:
    body: str
    mode: str = ""
    until: int = 0
    hold: bool = False
    marker: bool = False
    at: int = 0


class Locked(RuleBasedStateMachine):
    """One key of a bucket with object lock. The model says of each version whether it must still be there."""

    def __init__(self) -> None:
        super().__init__()
        self.database, self.sequence, self.now, self.believed = Rows(), 0, 1_000_000, True
        self.versions: dict[str, Version] = {}
        self.settings = Settings(BUCKET, 2, "Enabled")

    def do(self, command: AnyCommand) -> AnyAnswer:
        self.sequence += 1
        entry = Entry(Overlay(self.database), 0, 1, 1, self.sequence, self.now, agrees=lambda: self.believed)
        answer = decide(entry, command)
        for key, value in entry.rows.items():
            if value is None:
                self.database.rows.pop(key, None)
            else:
                self.database.rows[key] = value
        return answer

    def ended(self, one: Version) -> bool:
        return not one.mode or (self.believed and one.until <= self.now)

    def may_go(self, one: Version, bypass: bool) -> bool:
        if one.hold:
            return False
        return self.ended(one) or (one.mode == "GOVERNANCE" and bypass)

    # -- what clients do

    @rule(mode=st.sampled_from(("", *MODES)), lasts=st.integers(1, 50), hold=st.booleans())
    def put(self, mode: str, lasts: int, hold: bool) -> None:
        until = self.now + lasts if mode else 0
        row = Object(
            self.now, 0, f"e{self.sequence}", False, False, "ana", lock_mode=mode, lock_until_ms=until, legal_hold=hold
        )
        answer = self.do(PutObject(self.settings, KEY, row))
        assert isinstance(answer, Written)
        default = not mode and self.settings.lock_mode
        self.versions[answer.version] = Version(
            row.etag,
            self.settings.lock_mode if default else mode,
            self.now + self.settings.lock_ms if default else until,
            hold,
            at=self.now,
        )

    @rule()
    def delete(self) -> None:
        answer = self.do(DeleteObject(self.settings, KEY))
        assert isinstance(answer, Deleted)
        assert answer.marker
        self.versions[answer.version] = Version("", marker=True, at=self.now)

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), bypass=st.booleans())
    def delete_version(self, data: st.DataObject, bypass: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.versions)))
        one = self.versions[name]
        answer = self.do(DeleteObject(self.settings, KEY, name, bypass=bypass))
        if self.may_go(one, bypass):
            assert isinstance(answer, Deleted)
            del self.versions[name]
        else:
            assert isinstance(answer, Refused)
            assert answer.code == "AccessDenied"

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), mode=st.sampled_from(("", *MODES)), lasts=st.integers(1, 50), bypass=st.booleans())
    def retain(self, data: st.DataObject, mode: str, lasts: int, bypass: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.versions)))
        one, until = self.versions[name], self.now + lasts if mode else 0
        answer = self.do(ChangeObject(self.settings, KEY, name, retention=(mode, until), bypass=bypass))
        longer = mode == one.mode and until >= one.until
        if one.marker:
            assert isinstance(answer, Refused)
        elif longer or self.ended(one) or (one.mode == "GOVERNANCE" and bypass):
            assert isinstance(answer, Written)
            one.mode, one.until = mode, until
        else:
            assert isinstance(answer, Refused)
            assert answer.code == "AccessDenied"

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), hold=st.booleans())
    def hold(self, data: st.DataObject, hold: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.versions)))
        one = self.versions[name]
        answer = self.do(ChangeObject(self.settings, KEY, name, hold=hold))
        assert isinstance(answer, Refused if one.marker else Written)
        if not one.marker:
            one.hold = hold

    @rule(mode=st.sampled_from(("", *MODES)), lasts=st.integers(1, 50))
    def default_changes(self, mode: str, lasts: int) -> None:
        before = self.settings
        self.settings = Settings(BUCKET, before.revision + 1, "Enabled", mode, lasts if mode else 0)
        assert isinstance(self.do(SpreadSettings(self.settings)), Done)
        late = PutObject(before, KEY, Object(self.now, 0, "late", False, False, "ana"))
        assert isinstance(self.do(late), Stale), "a write under an older default"

    # -- what time does

    @precondition(lambda self: self.versions)
    @rule(
        days=st.integers(0, 3),
        noncurrent=st.integers(0, 3),
        newer=st.integers(0, 2),
        markers=st.booleans(),
        cut_off=st.integers(0, 5),
    )
    def lifecycle_passes(self, days: int, noncurrent: int, newer: int, markers: bool, cut_off: int) -> None:
        """The worker's part is done here: what it read, it sends, as far as it gets."""
        prefix = keys.object_versions(0, BUCKET, KEY)
        rows = [
            (keys.version_id(key[-keys.VERSION_BYTES :]), decode_object(value)[0])
            for key, value in self.database.scan(prefix, keys.after(prefix))
        ]
        seen = [lifecycle.Version("k", name, row.modified_ms, row.size, row.marker, row.tags) for name, row in rows]
        rule_of_all = lifecycle.Rule("r", True, days=days, noncurrent_days=noncurrent, newer=newer, markers=markers)
        expected = self.what_ends(days, noncurrent, newer, markers)
        found = list(lifecycle.due([rule_of_all], seen, self.now, DAY))
        assert {(kind, one.id) for kind, one in found} == expected
        for kind, one in found[:cut_off]:
            self.end(kind, one.id)

    def what_ends(self, days: int, noncurrent: int, newer: int, markers: bool) -> set[tuple[str, str]]:
        """From the model's versions, the oldest of which comes first."""
        order = list(self.versions.items())
        name, newest = order[-1]
        aged = bool(days) and self.now >= midnight(newest.at + days * DAY)
        ends = set()
        if not newest.marker and aged:
            ends.add((lifecycle.CURRENT, name))
        if newest.marker and len(order) == 1 and (markers or aged):
            ends.add((lifecycle.MARKER, name))
        for place in range(len(order) - 1):
            successor, newer_ones = order[place + 1][1], len(order) - 2 - place
            if noncurrent and newer_ones >= newer and self.now >= midnight(successor.at + noncurrent * DAY):
                ends.add((lifecycle.NONCURRENT, order[place][0]))
        return ends

    def end(self, kind: str, name: str) -> None:
        if kind == lifecycle.CURRENT:
            answer = self.do(DeleteIfNewest(BUCKET, KEY, name))
            assert isinstance(answer, Deleted)
            self.versions[answer.version] = Version("", marker=True, at=self.now)
            return
        answer = self.do(Expire(BUCKET, KEY, name))
        if self.believed and self.may_go(self.versions[name], False):
            assert isinstance(answer, Deleted)
            del self.versions[name]
        else:
            assert isinstance(answer, Refused)

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def a_late_ending_comes(self, data: st.DataObject) -> None:
        """Of a version that was noncurrent once, or a marker that stood alone."""
        name = data.draw(st.sampled_from(sorted(self.versions)))
        one, newest = self.versions[name], list(self.versions)[-1]
        current = name == newest and not (one.marker and len(self.versions) == 1)
        answer = self.do(Expire(BUCKET, KEY, name))
        if not self.believed or (not current and not self.may_go(one, False)):
            assert isinstance(answer, Refused)
        elif current:
            assert answer == Deleted()
        else:
            del self.versions[name]

    @rule(by=st.integers(1, 40))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule(by=st.integers(1, 40))
    def the_clock_is_set_back(self, by: int) -> None:
        self.now -= by

    @rule(believed=st.booleans())
    def peers_believe_the_clock(self, believed: bool) -> None:
        self.believed = believed

    @invariant()
    def what_is_there_is_what_must_be(self) -> None:
        prefix = keys.object_versions(0, BUCKET, KEY)
        found = {
            keys.version_id(key[-keys.VERSION_BYTES :]): decode_object(value)[0]
            for key, value in self.database.scan(prefix, keys.after(prefix))
        }
        assert {
            name: (row.etag, row.lock_mode, row.lock_until_ms, row.legal_hold, row.marker)
            for name, row in found.items()
        } == {name: (one.body, one.mode, one.until, one.hold, one.marker) for name, one in self.versions.items()}


Locked.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
test_locks_are_those_of_the_model = Locked.TestCase


def test_overwrites_of_null_versions_are_no_way_round() -> None:
    """Where a bucket had no versioning when the version was written, and a partition does not know better."""
    database = Rows()

    def do(command: AnyCommand, sequence: int) -> AnyAnswer:
        entry = Entry(Overlay(database), 0, 1, 1, sequence, 1000)
        answer = decide(entry, command)
        database.rows.update({key: value for key, value in entry.rows.items() if value is not None})
        return answer

    off = Settings(BUCKET, 1, "")
    locked = Object(1, 0, "first", False, True, "ana", lock_mode="COMPLIANCE", lock_until_ms=2000)
    assert isinstance(do(PutObject(off, KEY, locked), 1), Written)
    for command in (
        PutObject(off, KEY, Object(2, 0, "second", False, True, "ana")),
        DeleteObject(off, KEY),
        DeleteObject(off, KEY, "null", bypass=True),
        PutObject(Settings(BUCKET, 2, "Suspended"), KEY, Object(2, 0, "third", False, True, "ana")),
    ):
        answer = do(command, 2)
        assert isinstance(answer, Refused)
        assert answer.code == "AccessDenied"


def test_an_unknown_mode_is_locked() -> None:
    database = Rows()
    entry = Entry(Overlay(database), 0, 1, 1, 1, 1000)
    row = Object(1, 0, "e", False, False, "ana", lock_mode="FUTURE", lock_until_ms=2000)
    name = decide(entry, PutObject(Settings(BUCKET, 2, "Enabled"), KEY, row)).version  # type: ignore[union-attr]
    assert isinstance(decide(entry, DeleteObject(Settings(BUCKET, 2, "Enabled"), KEY, name, bypass=True)), Refused)


def test_whose_clock_is_wrong() -> None:
    clocks = Clocks()
    assert clocks.agree(0.0, 1000.2, alone=True), "nobody to differ from"
    assert not clocks.agree(0.0, 1000.2), "nobody has answered yet"
    clocks.heard("a", 1000.0, 1000.0, 1000.2, 0.0)
    assert clocks.agree(1.0, 1001.2)
    clocks.heard("b", 1100.0, 1000.0, 1000.2, 0.0)
    assert clocks.agree(1.0, 1001.2), "one of two differs: it may be the wrong one"
    clocks.heard("c", 1100.0, 1000.0, 1000.2, 0.0)
    assert not clocks.agree(1.0, 1001.2)
    assert not clocks.agree(120.0, 1120.2), "they were not heard lately"
    clocks.heard("d", 1007.0, 1000.0, 1010.0, 200.0)
    assert clocks.agree(201.0, 1011.0), "an answer that took ten seconds says little"


def test_a_step_of_our_own_clock_is_seen_before_anybody_is_asked_again() -> None:
    """R13: in the seconds until the next question a clock that was set wrong would end what it should not."""
    clocks = Clocks()
    clocks.heard("a", 1000.0, 1000.0, 1000.2, 50.0)
    assert clocks.agree(51.0, 1001.2)
    assert not clocks.agree(51.0, 1901.2)
    assert not clocks.agree(51.0, 101.2)
    assert clocks.agree(52.0, 1002.2), "it was set right again"

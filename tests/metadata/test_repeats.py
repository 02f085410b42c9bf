"""Commands that come twice, each class of them: a late repeat undoes nothing that came since (R12). And what is kept of
answers, by whatever clocks.

A class that has no case here fails the test, so that nobody adds a command without thinking of its repeat.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from metadata.test_lock_decisions import Rows
from s4.metadata import commands, keys
from s4.metadata.commands import (
    AbortUpload,
    AnyAnswer,
    AnyCommand,
    BeginDelete,
    ChangeAccounts,
    ChangeObject,
    Claim,
    CloseBucket,
    CompleteUpload,
    CreateBucket,
    CreateUpload,
    DeleteAccessKey,
    DeleteIfNewest,
    DeleteJob,
    DeleteObject,
    DeleteUser,
    DropReferences,
    EndDelete,
    Expire,
    ForgetAnswers,
    ForgetRows,
    Healed,
    LetGo,
    NeedHeal,
    NewBlob,
    NoteUses,
    PublishContent,
    PutAccessKey,
    PutJob,
    PutObject,
    PutPart,
    PutUser,
    Recounted,
    RefuseBlob,
    Refused,
    RefuseReference,
    ReopenBucket,
    Rewrap,
    SetDocument,
    SetLock,
    Settings,
    SetVersioning,
    SpreadSettings,
    Taken,
    TakeReferences,
    UndoDelete,
    UnpublishContent,
    Written,
)
from s4.metadata.decide import COMMANDS
from s4.metadata.entry import Entry, Overlay
from s4.metadata.outbox import follow_id, follow_up
from s4.metadata.repeats import KEPT_MS
from s4.metadata.rows import Extent, Grant, Job, LastUse, Object, RemoveSource, Sealing, Upload, User, encode
from s4.peer.api import ForgottenError, UnknownResultError
from s4.replica.host import SETTINGS_TABLES
from s4.replica.turn import Decider, Turn

DAEMON = Path(__file__).parents[2] / "daemon" / "s4"
BLOB, REF, UPLOAD, SHA = b"b" * 16, b"r" * 16, b"u" * 16, bytes(32)
OFF, ON = Settings(7, 1, ""), Settings(7, 2, "Enabled")
NEW = NewBlob(BLOB, REF, 5000, 1 << 20, 2, 1, SHA)
EXTENT = Extent(0, 5000, 0, BLOB, REF, "e")
ROW = Object(1, 0, "e", False, True, "ana")
VERSION = Object(1, 0, "e", False, False, "ana")
PUT = PutObject(OFF, b"k", ROW)
BROUGHT = PutObject(OFF, b"k", Object(1, 5000, "e", False, True, "ana", extents=[EXTENT]), blobs=[NEW])
PART = Extent(1, 3, etag="p")
BUCKET = CreateBucket("photos", "ana", 10, 10)
TOKEN = (2).to_bytes(8, "big") + b"t" * 8  # of a deletion that is the second entry
JOB = Job("photos", "a/", "b/", 1)
NAMED = keys.named_row(keys.USER, "eva")


def first_version(sequence: int = 1) -> str:
    return keys.version_id(keys.version_suffix(3, sequence))


class World:
    """A primary of the only partition, whose rows another one may find."""

    def __init__(self, database: Rows | None = None) -> None:
        self.database, self.now, self.believed, self.room, self.sequence = (
            database or Rows(),
            10_000_000.0,
            True,
            True,
            0,
        )

    def do(self, command: AnyCommand, command_id: bytes = b"", *, again: bool = False) -> AnyAnswer | Exception:
        def newest(entry: Entry, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
            return next(entry.scan(keys.object_versions(0, bucket, key)), None)

        decider = Decider(1, newest, lambda: self.now, lambda: self.believed, room=lambda: self.room)
        turn = Turn(Overlay(self.database), {0: 3}, {0: self.sequence})
        answer = decider.answer(turn, 0, command, command_id, again=again)
        turn.close()
        self.sequence = turn.sequences[0]
        for key, value in turn.overlay.rows.items():
            if value is None:
                self.database.rows.pop(key, None)
            else:
                self.database.rows[key] = value
        return answer

    def new_id(self, number: int = 1) -> bytes:
        return keys.command_id(int(self.now * 1000), number.to_bytes(10, "big"))

    def rows(self, *without: bytes) -> dict[bytes, bytes]:
        return {key: value for key, value in self.database.rows.items() if key[2:3] not in without}


@dataclass
class Case:
    """What was there before a command, the command, and what comes between it and its repeat."""

    command: AnyCommand
    before: list[AnyCommand]
    since: list[AnyCommand]


def uploaded(*more: AnyCommand) -> list[AnyCommand]:
    return [CreateUpload(OFF, b"k", UPLOAD, Upload(1, "ana")), *more]


COMPLETED = CompleteUpload(OFF, b"k", UPLOAD, Object(1, 3, "m", False, True, "ana", extents=[PART], upload=UPLOAD))
PUT_PART = PutPart(OFF, b"k", UPLOAD, PART, b"abc")
SEALED = Object(1, 0, "e", False, True, "ana", sealing=Sealing("AES256", "old"))
SEALED_KEY = keys.object_row(0, 7, b"k", 3, 1)
CASES = [
    Case(PUT, [], [PutObject(OFF, b"k", Object(2, 0, "newer", False, True, "ana"))]),
    Case(DeleteObject(OFF, b"k"), [PUT], [PutObject(OFF, b"k", Object(2, 0, "newer", False, True, "ana"))]),
    Case(
        DeleteIfNewest(7, b"k", first_version()),
        [PutObject(ON, b"k", VERSION)],
        [DeleteObject(ON, b"k", first_version(2))],
    ),
    Case(
        Expire(7, b"k", first_version()),
        [PutObject(ON, b"k", VERSION), DeleteObject(ON, b"k")],
        [PutObject(ON, b"k", VERSION)],
    ),
    Case(ChangeObject(OFF, b"k", tags={"t": "1"}), [PUT], [ChangeObject(OFF, b"k", tags={"t": "2"})]),
    Case(Rewrap(SEALED_KEY, "old", "new"), [PutObject(OFF, b"k", SEALED)], [Rewrap(SEALED_KEY, "new", "newest")]),
    Case(uploaded()[0], [], [AbortUpload(OFF, b"k", UPLOAD)]),
    Case(PUT_PART, uploaded(), [PutPart(OFF, b"k", UPLOAD, Extent(1, 3, etag="q"), b"new")]),
    Case(COMPLETED, uploaded(PUT_PART), [PutObject(OFF, b"k", Object(2, 0, "newer", False, True, "ana"))]),
    Case(AbortUpload(OFF, b"k", UPLOAD), uploaded(), uploaded()),
    Case(TakeReferences([Claim(BLOB, b"s" * 16, 0, 7, b"l")]), [BROUGHT], [DropReferences([(BLOB, b"s" * 16)])]),
    Case(
        DropReferences([(BLOB, b"s" * 16)]),
        [BROUGHT, TakeReferences([Claim(BLOB, b"s" * 16, 0, 7, b"l")])],
        [TakeReferences([Claim(BLOB, b"x" * 16, 0, 7, b"l")])],
    ),
    Case(
        LetGo(keys.gone_row(0, 2, 0)),
        [CreateUpload(OFF, b"k", UPLOAD, Upload(1, "ana")), CloseBucket(7, b"t" * 8)],
        [ReopenBucket(7, b"t" * 8)],
    ),
    Case(PublishContent(SHA, 0, BLOB, 5000), [], [PublishContent(SHA, 0, b"c" * 16, 5000)]),
    Case(UnpublishContent(SHA, BLOB), [BROUGHT], [PublishContent(SHA, 0, b"c" * 16, 5000)]),
    Case(RefuseReference(7, b"k", b"", BLOB, b"s" * 16), [BROUGHT], [PUT]),
    Case(RefuseBlob(b"c" * 16), [BROUGHT], [PUT]),
    Case(NeedHeal(BLOB, [1]), [BROUGHT], [Healed(BLOB, [1])]),
    Case(Healed(BLOB, [1]), [BROUGHT, NeedHeal(BLOB, [1])], [NeedHeal(BLOB, [1])]),
    Case(ForgetRows([keys.refused_row(0, b"c" * 16)]), [RefuseBlob(b"c" * 16)], [RefuseBlob(b"c" * 16)]),
    Case(Recounted([(7, 5)]), [PUT], [PUT]),
    Case(ForgetAnswers(), [PUT], [PUT]),
    Case(BUCKET, [], [BeginDelete("photos", b"t" * 16), EndDelete("photos", TOKEN, True)]),
    Case(SetVersioning("photos", "Enabled"), [BUCKET], [SetVersioning("photos", "Suspended")]),
    Case(SetDocument("photos", "policy", "{}"), [BUCKET], [SetDocument("photos", "policy", '{"Deny": 1}')]),
    Case(SetLock("photos", '{"a":1}'), [BUCKET, SetVersioning("photos", "Enabled")], [SetLock("photos", '{"b":1}')]),
    Case(SpreadSettings(ON), [PUT], [SpreadSettings(Settings(7, 3, "Suspended"))]),
    Case(BeginDelete("photos", b"t" * 16), [BUCKET], [EndDelete("photos", TOKEN, True), BUCKET]),
    Case(CloseBucket(7, TOKEN), [], [ReopenBucket(7, TOKEN)]),
    Case(ReopenBucket(7, TOKEN), [CloseBucket(7, TOKEN)], [CloseBucket(7, TOKEN[:-1] + b"u")]),
    Case(UndoDelete("photos", TOKEN), [BUCKET, BeginDelete("photos", b"t" * 16)], [EndDelete("photos", TOKEN, False)]),
    Case(EndDelete("photos", TOKEN, True), [BUCKET, BeginDelete("photos", b"t" * 16)], [BUCKET]),
    Case(PutUser("ana", [Grant("Reader")], create=True), [], [PutUser("ana", [Grant("Writer")])]),
    Case(DeleteUser("ana"), [PutUser("ana", [], create=True)], [PutUser("ana", [], create=True)]),
    Case(PutAccessKey("K1", "ana", "s"), [PutUser("ana", [], create=True)], [DeleteAccessKey("K1")]),
    Case(
        DeleteAccessKey("K1"),
        [PutUser("ana", [], create=True), PutAccessKey("K1", "ana", "s")],
        [PutAccessKey("K1", "ana", "t")],
    ),
    Case(ChangeAccounts([], [(NAMED, encode(User("eva", 1)))]), [], [ChangeAccounts([], [(NAMED, None)])]),
    Case(
        NoteUses([("K1", LastUse(5, "s3", "r"))]),
        [PutUser("ana", [], create=True), PutAccessKey("K1", "ana", "s")],
        [NoteUses([("K1", LastUse(9, "s3", "r"))])],
    ),
    Case(PutJob("1-a", JOB), [], [DeleteJob("1-a")]),
    Case(DeleteJob("1-a"), [PutJob("1-a", JOB)], [PutJob("1-a", JOB)]),
]
BY_NAME = {type(case.command).__name__: case for case in CASES}
HINTS = (keys.REFERENCE, keys.CONTENT, keys.BLOB, keys.HEAL, keys.REFUSED)  # that what is harmless may leave as garbage
BOOKS = (keys.ANSWER, keys.HEAD, keys.COUNTERS, keys.FORGOTTEN)


def test_every_command_has_a_case_and_every_exception_its_reason() -> None:
    classes = {kind.__name__ for kind in get_args(AnyCommand)}
    assert set(BY_NAME) == classes == {kind.__name__ for kind in COMMANDS}
    assert all(not spec.twice or len(spec.twice) > 20 for spec in COMMANDS.values())


@pytest.mark.parametrize("name", BY_NAME)
def test_a_late_repeat_undoes_nothing_that_came_since(name: str) -> None:
    world, case = World(), BY_NAME[name]
    for command in case.before:
        assert not isinstance(world.do(command), Exception | Refused)
    named = world.new_id()
    first = world.do(case.command, named)
    assert not isinstance(first, Exception | Refused)
    for command in case.since:
        assert not isinstance(world.do(command), Exception | Refused)
    harmless = bool(COMMANDS[type(case.command)].twice)
    hidden = (*BOOKS, *HINTS) if harmless else BOOKS
    before = world.rows(*hidden)
    repeated = world.do(case.command, named, again=True)
    assert world.rows(*hidden) == before
    assert harmless or repeated == first


@pytest.mark.parametrize("name", BY_NAME)
def test_what_changes_settings_is_known_to_change_them(name: str) -> None:
    """Gateways hold them under lease: who changes them has to wait for that (L1)."""
    world, case = World(), BY_NAME[name]
    for command in case.before:
        world.do(command)
    before = {key: value for key, value in world.database.rows.items() if key[2:3] in SETTINGS_TABLES}
    world.do(case.command)
    after = {key: value for key, value in world.database.rows.items() if key[2:3] in SETTINGS_TABLES}
    assert COMMANDS[type(case.command)].settings or after == before


REFUSED_AT_FIRST = [
    name
    for name, case in BY_NAME.items()
    if not COMMANDS[type(case.command)].twice and isinstance(World().do(case.command), Refused)
]


@pytest.mark.parametrize("name", REFUSED_AT_FIRST)
def test_a_refusal_of_a_repeat_is_recorded(name: str) -> None:
    """The first sending, late on another connection, is told the same, though it would be done by then."""
    world, case = World(), BY_NAME[name]
    refused = world.do(case.command, world.new_id(), again=True)
    for command in case.before:
        world.do(command)
    assert world.do(case.command, world.new_id()) == refused


# -- how long answers are kept


def test_a_repeat_after_a_failover_to_a_clock_that_is_ahead_destroys_nothing() -> None:
    """The answer went, at once: the repeat is not known, and not decided. It used to free its own blob."""
    world = World()
    named = world.new_id()
    assert isinstance(world.do(BROUGHT, named), Written)
    other = World(world.database)
    other.now, other.sequence = world.now + 2 * KEPT_MS / 1000, world.sequence
    other.do(ForgetAnswers())
    assert keys.ANSWER not in {key[2:3] for key in other.database.rows}
    before = other.rows()
    third = World(other.database)
    third.sequence = other.sequence  # with a clock that is right again
    for again in (True, False):
        assert isinstance(third.do(BROUGHT, named, again=again), ForgottenError)
    assert third.rows() == before


def test_answers_are_forgotten_by_clocks_that_agree_only() -> None:
    world = World()
    first = world.do(PUT, world.new_id())
    named, world.now, world.believed = world.new_id(), world.now + 2 * KEPT_MS / 1000, False
    assert world.do(ForgetAnswers()) == Taken(False)
    assert world.do(PUT, named, again=True) == first, "its row is there"
    world.believed = True
    world.do(ForgetAnswers())
    assert isinstance(world.do(PUT, named, again=True), ForgottenError)


def test_what_was_forgotten_is_not_known_to_a_clock_that_is_behind() -> None:
    world = World()
    named = world.new_id()
    world.do(PUT, named)
    world.now += 2 * KEPT_MS / 1000
    world.do(ForgetAnswers())
    world.now -= 10 * KEPT_MS / 1000
    assert isinstance(world.do(PUT, named), ForgottenError)
    assert isinstance(world.do(PUT, world.new_id(2)), ForgottenError), "a gateway with that clock learns a newer time"
    world.now += 20 * KEPT_MS / 1000
    assert isinstance(world.do(PUT, world.new_id(3)), Written)


def test_many_answers_are_forgotten_some_at_once_and_no_younger_ones() -> None:
    world = World()
    for number in range(600):
        world.do(PUT, world.new_id(number))
    world.now += 2 * KEPT_MS / 1000
    young = world.new_id()
    kept = world.do(PUT, young)
    steps = 0
    while world.do(ForgetAnswers()) == Taken(True):
        steps += 1
    assert steps == 2
    assert [keys.command_of(key) for key in world.database.rows if key[2:3] == keys.ANSWER] == [young]
    assert world.do(PUT, young, again=True) == kept


@pytest.mark.parametrize(
    "command", [BROUGHT, PutPart(OFF, b"k", UPLOAD, Extent(1, 5000, 0, BLOB, REF, "e"), blobs=[NEW])]
)
def test_a_blob_that_is_known_is_not_brought_once_more(command: AnyCommand) -> None:
    """Whatever became of its answer: it would be freed with the row that it replaces. That is no refusal, since who is
    refused drops what it stored."""
    world = World()
    if isinstance(command, PutPart):
        world.do(uploaded()[0])
    assert isinstance(world.do(command), Written)
    before = world.rows()
    answer = world.do(command)
    assert isinstance(answer, UnknownResultError)
    assert world.rows() == before


def test_a_reference_that_is_held_is_not_brought_once_more() -> None:
    world = World()
    world.do(PutObject(OFF, b"first", Object(1, 5000, "e", False, True, "ana", extents=[EXTENT]), blobs=[NEW]))
    world.do(TakeReferences([Claim(BLOB, b"s" * 16, 0, 7, b"k")]))
    shared = Object(1, 5000, "e", False, True, "ana", extents=[Extent(0, 5000, 0, BLOB, b"s" * 16, "e")])
    command = PutObject(OFF, b"k", shared, granted=[b"s" * 16])
    assert isinstance(world.do(command), Written)
    before = world.rows()
    assert isinstance(world.do(command), UnknownResultError)
    assert world.rows() == before


def test_the_second_half_of_a_rename_is_not_done_again_by_who_leads_next() -> None:
    """The marker on its source was taken away meanwhile: that was acknowledged."""
    world = World()
    version = world.do(PutObject(ON, b"source", VERSION))
    assert isinstance(version, Written)
    action = RemoveSource(7, b"source", version.version, None, int(world.now * 1000))
    row = keys.outbox_row(0, 5, 0)
    follow = follow_up(action, 1)
    assert follow is not None
    first = world.do(follow[1], follow_id(row, action), again=True)
    assert isinstance(first, commands.Deleted)
    world.do(DeleteObject(ON, b"source", first.version))
    before = world.rows()
    assert world.do(follow[1], follow_id(row, action), again=True) == first
    assert world.rows() == before
    assert follow_id(keys.outbox_row(0, 6, 0), action) != follow_id(row, action)
    assert follow_id(row, RemoveSource(7, b"source", version.version)) == b"", "as 0.7 left it"


# -- who may say no


def _makes_refusals(path: Path) -> list[str]:
    tree, own = ast.parse(path.read_text()), False
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "s4.metadata.commands":
            own = own or any(one.name == "Refused" for one in node.names)

    def is_refused(called: ast.expr) -> bool:
        if isinstance(called, ast.Attribute):
            return called.attr == "Refused" and isinstance(called.value, ast.Name) and called.value.id == "commands"
        return own and isinstance(called, ast.Name) and called.id == "Refused"

    return [
        f"{path.name}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.Call) and is_refused(node.func)
    ]


def test_nobody_refuses_but_who_decides() -> None:
    """Who is refused takes back what it prepared: nobody says so who has not looked for the first answer."""
    found = [place for path in sorted(DAEMON.rglob("*.py")) for place in _makes_refusals(path)]
    assert [place.partition(":")[0] for place in found] == ["decide.py"]


def test_the_disk_is_asked_when_a_command_is_decided() -> None:
    world = World()
    needing = (PUT, uploaded()[0], PUT_PART, BUCKET)
    done = {number: world.do(command, world.new_id(number)) for number, command in enumerate(needing)}
    world.room = False
    for number, command in enumerate(needing):
        assert world.do(command, world.new_id(number), again=True) == done[number]
        refused = world.do(command, world.new_id(10 + number))
        assert isinstance(refused, Refused)
        assert refused.code == "StorageFull"
    assert isinstance(world.do(DeleteObject(OFF, b"k"), world.new_id(20)), commands.Deleted), "deletes go on"

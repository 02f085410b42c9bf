"""Locks, lifecycle and versions on a real store against a model, with a clock that moves and a process that is killed.

What was acknowledged holds after each crash; what was under way happened whole or not at all. A pass of lifecycle that
is cut off has ended some of what was due, and never anything else.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model import keeper
from process import forked
from tiers import amount

DAY, START = 10, 1_800_000_000
KEYS = ("a", "b")
LOCKS = ("", "GOVERNANCE", "COMPLIANCE")


@dataclass(frozen=True)
class Version:
    key: str
    id: str
    marker: bool
    at: int  # seconds
    mode: str = ""
    until: int = 0
    hold: bool = False
    body: str = ""


class Store:
    """The keeper's process."""

    def __init__(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.start()

    def start(self) -> None:
        self.process, self.pipe = forked(keeper.main, Path(self.place.name) / "data")
        assert self.receive() == "ready"

    def send(self, op: str, now: int, **given: Any) -> None:
        self.pipe.send({"op": op, "now": now, **given})

    def receive(self) -> Any:
        return self.pipe.recv()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()

    def close(self) -> None:
        self.kill()
        self.place.cleanup()


class Kept(RuleBasedStateMachine):
    """`versions` is the model: oldest first for each key. `crash` is how long after the next call the process dies."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.now, self.number = Store(), START, 0
        self.versions: list[Version] = []
        self.lifecycle = {"days": 0, "noncurrent_days": 0, "newer": 0, "markers": False}
        self.crash: float | None = None

    def teardown(self) -> None:
        self.store.close()

    # -- the model

    def of(self, key: str) -> list[Version]:
        return [one for one in self.versions if one.key == key]

    def locked(self, one: Version, bypass: bool = False) -> bool:
        retained = bool(one.mode) and one.until > self.now and not (bypass and one.mode == "GOVERNANCE")
        return one.hold or retained

    def over(self, since: int, days: int) -> bool:
        return bool(days) and self.now >= -(-(since + days * DAY) // DAY) * DAY

    def due(self) -> tuple[list[str], list[Version]]:
        """(keys that get a marker, versions that go) of a whole pass now."""
        marked, gone = [], []
        for key in KEYS:
            versions = self.of(key)
            if not versions:
                continue
            newest = versions[-1]
            if not newest.marker and self.over(newest.at, self.lifecycle["days"]):
                marked.append(key)
            if (
                newest.marker
                and len(versions) == 1
                and (self.lifecycle["markers"] or self.over(newest.at, self.lifecycle["days"]))
            ):
                gone.append(newest)
            for place, one in enumerate(versions[:-1]):
                newer = len(versions) - 2 - place
                if (
                    newer >= self.lifecycle["newer"]
                    and self.over(versions[place + 1].at, self.lifecycle["noncurrent_days"])
                    and not self.locked(one)
                ):
                    gone.append(one)
        return marked, gone

    # -- the store

    def call(self, op: str, **given: Any) -> dict[str, Any] | None:
        """The answer; None where the process was killed before there was one."""
        self.store.send(op, self.now, **given)
        if self.crash is None:
            answer: dict[str, Any] = self.store.receive()
            return answer
        time.sleep(self.crash)  # no wait for anything: where in the call the process dies is left to chance
        self.crash = None
        self.store.kill()
        self.store.start()
        return None

    def seen(self) -> list[Version]:
        self.store.send("versions", self.now)
        found = [
            Version(key, name, marker, at // 1000, mode, until // 1000, hold, body)
            for key, name, marker, at, mode, until, hold, body in self.store.receive()["ok"]
        ]
        return [one for key in KEYS for one in reversed([one for one in found if one.key == key])]

    def settle(self, answer: dict[str, Any] | None, after: list[Version], error: str = "") -> None:
        """`after` is the model once the call is done, "?" for an id not known yet; without an answer it may not be."""
        if answer is not None:
            assert answer.get("error", "") == error
        elif error:
            after = self.versions
        found = self.seen()
        named = [
            replace(one, id=here.id) if one.id == "?" else one
            for one, here in zip(self.ordered(after), found, strict=False)
        ]
        if answer is None and found == self.ordered(self.versions):
            return
        assert found == named
        self.versions = named

    def ordered(self, versions: list[Version]) -> list[Version]:
        return [one for key in KEYS for one in versions if one.key == key]

    # -- what clients do

    @rule(days=st.integers(0, 3), noncurrent_days=st.integers(0, 2), newer=st.integers(0, 1), markers=st.booleans())
    def rules(self, **chosen: Any) -> None:
        self.crash = None
        assert self.call("rules", **chosen) == {"ok": ""}
        self.lifecycle = chosen

    @rule(
        key=st.sampled_from(KEYS),
        mode=st.sampled_from(LOCKS),
        lasts=st.integers(1, 40),
        hold=st.sampled_from((False, False, True)),
        large=st.booleans(),
        sealed=st.booleans(),
    )
    def put(self, key: str, mode: str, lasts: int, hold: bool, large: bool, sealed: bool) -> None:
        self.number += 1
        body, until = f"{self.number}." * (3000 if large else 3), self.now + lasts if mode else 0
        answer = self.call("put", key=key, body=body, mode=mode, until=until * 1000, hold=hold, sealed=sealed)
        self.settle(answer, [*self.versions, Version(key, "?", False, self.now, mode, until, hold, body)])

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        self.settle(self.call("delete", key=key), [*self.versions, Version(key, "?", True, self.now)])

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), bypass=st.booleans())
    def delete_version(self, data: st.DataObject, bypass: bool) -> None:
        one = data.draw(st.sampled_from(self.versions))
        answer = self.call("delete_version", key=one.key, version=one.id, bypass=bypass)
        if self.locked(one, bypass):
            self.settle(answer, self.versions, "AccessDenied")
        else:
            self.settle(answer, [other for other in self.versions if other != one])

    @precondition(lambda self: any(not one.marker for one in self.versions))
    @rule(data=st.data(), mode=st.sampled_from(LOCKS), lasts=st.integers(1, 40), bypass=st.booleans())
    def retain(self, data: st.DataObject, mode: str, lasts: int, bypass: bool) -> None:
        one = data.draw(st.sampled_from([one for one in self.versions if not one.marker]))
        until = self.now + lasts if mode else 0
        answer = self.call("retain", key=one.key, version=one.id, mode=mode, until=until * 1000, bypass=bypass)
        ended = not one.mode or one.until <= self.now
        allowed = ended or (mode == one.mode and until >= one.until) or (one.mode == "GOVERNANCE" and bypass)
        after = [replace(other, mode=mode, until=until) if other == one else other for other in self.versions]
        self.settle(answer, after if allowed else self.versions, "" if allowed else "AccessDenied")

    @precondition(lambda self: any(not one.marker for one in self.versions))
    @rule(data=st.data(), on=st.booleans())
    def hold(self, data: st.DataObject, on: bool) -> None:
        one = data.draw(st.sampled_from([one for one in self.versions if not one.marker]))
        self.settle(
            self.call("hold", key=one.key, version=one.id, on=on),
            [replace(other, hold=on) if other == one else other for other in self.versions],
        )

    # -- what time does

    @rule(by=st.integers(1, 35))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule(by=st.integers(1, 15))
    def the_clock_is_set_back(self, by: int) -> None:
        self.now -= by

    @rule()
    def lifecycle_passes(self) -> None:
        marked, gone = self.due()
        answer = self.call("lifecycle")
        found = self.seen()
        fresh = {one.key: one for one in found if one.id not in {old.id for old in self.versions}}
        assert all(one.marker and one.at == self.now for one in fresh.values())
        assert fresh.keys() <= set(marked)
        missing = [one for one in self.versions if one not in found]
        assert set(missing) <= set(gone)
        if answer is not None:
            assert answer == {"ok": ""}
            assert (fresh.keys(), set(missing)) == (set(marked), set(gone))
        self.versions = found

    @rule(after_ms=st.integers(0, 12))
    def the_process_will_die(self, after_ms: int) -> None:
        self.crash = after_ms / 1000

    @rule()
    def the_process_dies(self) -> None:
        self.store.kill()
        self.store.start()
        assert self.seen() == self.ordered(self.versions)

    @precondition(lambda self: self.number % 7 == 6)
    @invariant()
    def the_rows_add_up(self) -> None:
        self.store.send("problems", self.now)
        assert [one for one in self.store.receive()["ok"] if "auditor" not in one] == []


TestKept = Kept.TestCase
TestKept.settings = hypothesis_settings(
    max_examples=amount("S4_TIME_EXAMPLES", 4, 60), stateful_step_count=20, deadline=None, phases=[Phase.generate]
)  # to shrink would take hours

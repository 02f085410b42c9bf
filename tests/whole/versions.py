"""Versions: a bucket that keeps them all, and one whose versions are locked, tagged, unlocked, removed and expire.

Each locked version is a thing of its own, with a history: whether it is there, its hold, its retention, its tags. What
the time decides is judged by the moments between which a call was decided, and by how far clocks may have been off.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from s4.access import documents
from s4.gateway import buckets, objects
from s4.gateway.context import Gateway, find_bucket
from s4.metadata import keys
from s4.metadata.listing import Query
from s4.metadata.locks import COMPLIANCE, GOVERNANCE
from s4.s3.lifecycle import Rule
from s4.s3.lock import DAY_MS, NONE, Default, Lock
from whole.clients import FOREVER, Area, Call, Clients, History, Key, register
from whole.world import DAY_S

TAGGED = b"tagged"
MOST_PAGES = 40


class Kept(Area):
    """A versioned bucket of which no version is ever removed."""

    kinds = ("version", "listed", "tag")
    bucket = "kept"

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.names = [b"v%d" % number for number in range(4)]
        self.keys = {name: Key() for name in self.names}
        self.versions: dict[bytes, dict[str, tuple[str, float, float]]] = {
            name: {} for name in self.names
        }  # id: value, begin, end
        self.tags = Key()

    async def prepare(self, chosen: random.Random) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, self.bucket, "root")
            await buckets.set_versioning(gateway, self.bucket, "Enabled")

        await self.clients.tried(chosen, work)
        await self.clients.put(
            chosen, self.bucket, TAGGED, TAGGED.decode(), of=Key(), call=lambda: Call("put", None, 0.0)
        )

    async def version(self, chosen: random.Random, value: str) -> None:
        name, clients = chosen.choice(self.names), self.clients
        known, what = self.versions[name], chosen.random()
        if what < 0.5 or not known:
            answer, put = await clients.put(
                chosen, self.bucket, name, value, of=self.keys[name], call=lambda: Call("put", value, 0.0)
            )
            if put is not None:
                known[put.version] = value, answer.record.begin, answer.record.end
                clients.kept.append((self.bucket, name, put.version, value))
            else:
                clients.took(answer)
        elif what < 0.6:

            async def mark(gateway: Gateway) -> Any:
                return await objects.delete_object(gateway, self.bucket, name, "", "root")

            await clients.tried(chosen, mark, key=self.keys[name], call=lambda: Call("delete", None, 0.0))
        elif what < 0.8:
            await self._current(chosen, name)
        else:
            await self._read(chosen, name, chosen.choice(sorted(known)))

    async def _current(self, chosen: random.Random, name: bytes) -> bool:
        answer = await self.clients.get(chosen, self.bucket, name, of=self.keys[name])
        if answer.record is not None:
            answer.record.result = answer.result.value if answer.done else None
        return answer.known

    async def _read(self, chosen: random.Random, name: bytes, version: str) -> None:
        value = self.versions[name][version][0]
        answer = await self.clients.get(chosen, self.bucket, name, version)
        if answer.refusal is not None or (answer.done and answer.result.value != value):
            self.clients.problem(
                f"{self.bucket}/{name.decode()} version {version} of {value} is {answer.result and answer.result.value} {answer.refusal}"
            )
        elif not answer.known and self.world.calm:
            self.clients.problem(f"{self.bucket}/{name.decode()} version {version} cannot be read at the end")

    async def versions_listed(self, chosen: random.Random) -> list[tuple[float, list[Any]]] | None:
        """Pages of all versions, each with the moment when it was asked for; None where one was not answered."""
        limit, after, pages = chosen.choice((1, 3, 1000)), (b"", b""), list[tuple[float, list[Any]]]()
        for _ in range(MOST_PAGES):

            async def work(gateway: Gateway, after: tuple[bytes, bytes] = after) -> Any:
                bucket = await find_bucket(gateway, self.bucket)
                return await gateway.node.list_objects(bucket.id, Query(b"", b"", *after, limit, versions=True))

            record = Call("versions", None, 0.0)
            answer = await self.clients.tried(chosen, work, call=lambda record=record: record)
            if not answer.done:
                return None
            pages.append((record.begin, answer.result.items))
            if not answer.result.truncated:
                return pages
            after = answer.result.next_key, answer.result.next_version
        return None

    async def listed(self, chosen: random.Random, value: str) -> None:
        begin = self.loop.now
        pages = await self.versions_listed(chosen)
        items = [item for _, page in pages or () for item in page]
        places = [(item.key, item.suffix) for item in items]
        if places != sorted(set(places)):
            self.clients.problem(f"versions are listed out of order, or twice: {places}")
        for name in self.names if pages is not None else ():
            there = [keys.version_id(item.suffix) for item in items if item.key == name]
            for version, (put, _, end) in self.versions[name].items():
                if end < begin and version not in there:
                    self.clients.problem(f"{self.bucket}/{name.decode()} version {version} of {put} is not listed")
            known = [self.versions[name][version][1:] for version in there if version in self.versions[name]]
            for newer, older in pairwise(known):
                if newer[1] < older[0]:
                    self.clients.problem(f"versions of {name.decode()} are listed in another order than they were put")

    async def tag(self, chosen: random.Random, value: str) -> None:
        """Tags of one object are a thing of their own."""
        writes = chosen.random() < 0.5 and bool(value)

        async def put(gateway: Gateway) -> Any:
            await objects.change_object(gateway, self.bucket, TAGGED, "", tags={"t": value})

        if writes:
            answer = await self.clients.tried(chosen, put, key=self.tags, call=lambda: Call("put", value, 0.0))
        else:
            answer = await self.clients.get(chosen, self.bucket, TAGGED, of=self.tags)
            if answer.done:
                answer.record.result = answer.result.tags.get("t")
        if answer.refusal is not None:
            self.clients.problem(f"tags were refused: {answer.refusal}")

    async def read_back(self, chosen: random.Random) -> None:
        for name in self.names:
            if not await self._current(chosen, name):
                self.clients.problem(f"{self.bucket}/{name.decode()} cannot be read at the end")
            for version in sorted(self.versions[name]):
                await self._read(chosen, name, version)
        await self.listed(chosen, "")
        await self.tag(chosen, "")

    def histories(self) -> Iterator[History]:
        for name, key in self.keys.items():
            yield History(f"{self.bucket}/{name.decode()}", key.calls, None, register)
        yield History("tags", self.tags.calls, None, register)


class State(NamedTuple):
    """What a locked version is. `until` is in ms since 1970."""

    there: bool = True
    hold: bool = False
    mode: str = ""
    until: int = 0
    tag: str = ""


@dataclass
class Locked:
    """A version with what was asked of it. `defaulted` is the end of a retention that nobody named, about."""

    key: bytes
    value: str
    begin: float
    end: float
    state: State
    defaulted: int = 0
    calls: Key = field(default_factory=Key)


class Locks(Area):
    """A bucket with object lock, with a default retention in some seeds, and lifecycle of noncurrent versions in
    some."""

    kinds = ("lock",)
    bucket = "locked"

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        chosen = random.Random(f"locks {clients.world.seed}")
        self.default, self.ends = chosen.random() < 0.4, chosen.random() < 0.6
        self.names = [b"l%d" % number for number in range(2)]
        self.versions: dict[str, Locked] = {}
        self.puts: dict[bytes, list[Key]] = {name: [] for name in self.names}  # attempts of each; results are versions

    async def prepare(self, chosen: random.Random) -> None:
        async def make(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, self.bucket, "root", lock=True)

        async def default(gateway: Gateway) -> Any:
            await buckets.set_lock(gateway, self.bucket, documents.encode(Default(GOVERNANCE, 1)))

        async def ends(gateway: Gateway) -> Any:
            await buckets.set_document(
                gateway, self.bucket, documents.LIFECYCLE, documents.encode([Rule("old", True, noncurrent_days=1)])
            )

        for work in (make, *([default] if self.default else []), *([ends] if self.ends else [])):
            await self.clients.tried(chosen, work)

    async def lock(self, chosen: random.Random, value: str) -> None:
        what = chosen.random()
        if what < 0.35 or not self.versions:
            await self._put(chosen, value)
            return
        version = chosen.choice(sorted(self.versions))
        one = self.versions[version]
        if what < 0.55:
            await self._look(chosen, version)
        elif what < 0.7:
            bypass = chosen.random() < 0.4
            await self._change(
                chosen,
                one,
                Call("remove", bypass, 0.0),
                lambda gateway: objects.delete_object(gateway, self.bucket, one.key, version, "root", bypass=bypass),
            )
        elif what < 0.8:
            hold = chosen.random() < 0.5
            await self._change(
                chosen,
                one,
                Call("hold", hold, 0.0),
                lambda gateway: objects.change_object(gateway, self.bucket, one.key, version, hold=hold),
            )
        elif what < 0.9:
            bypass, retention = chosen.random() < 0.4, self._retention(chosen)
            await self._change(
                chosen,
                one,
                Call("retain", retention, 0.0, expected=bypass),
                lambda gateway: objects.change_object(
                    gateway, self.bucket, one.key, version, retention=retention, bypass=bypass
                ),
            )
        else:
            await self._change(
                chosen,
                one,
                Call("tag", value, 0.0),
                lambda gateway: objects.change_object(gateway, self.bucket, one.key, version, tags={"t": value}),
            )

    def _retention(self, chosen: random.Random) -> tuple[str, int]:
        mode = chosen.choice(("", GOVERNANCE, COMPLIANCE))
        return mode, self.clients.now_ms() + int(chosen.choice((6, 25, 100_000)) * 1000) if mode else 0

    async def _put(self, chosen: random.Random, value: str) -> None:
        name = chosen.choice(self.names)
        mode, until = self._retention(chosen) if chosen.random() < 0.5 else ("", 0)
        lock = Lock(mode, until, chosen.random() < 0.2)
        attempts = Key()
        self.puts[name].append(attempts)
        answer, put = await self.clients.put(
            chosen,
            self.bucket,
            name,
            value,
            of=attempts,
            call=lambda: Call("put", value, 0.0),
            lock=lock if any(lock) else NONE,
        )
        if put is not None:
            answer.record.result = put.version
            defaulted = self.clients.now_ms() + DAY_MS if self.default and not mode else 0
            state = State(hold=lock.hold, mode=GOVERNANCE if defaulted else mode, until=defaulted or until)
            self.versions[put.version] = Locked(name, value, answer.record.begin, answer.record.end, state, defaulted)
        else:
            self.clients.took(answer)

    async def _change(self, chosen: random.Random, one: Locked, of: Call, work: Any) -> None:
        answer = await self.clients.tried(
            chosen, work, key=one.calls, call=lambda: Call(of.kind, of.value, 0.0, expected=of.expected)
        )
        if answer.record is not None:
            answer.record.result = answer.refusal.code if answer.refusal is not None else ""

    async def _look(self, chosen: random.Random, version: str) -> bool:
        one = self.versions[version]
        answer = await self.clients.get(
            chosen, self.bucket, one.key, version, of=one.calls, call=lambda: Call("look", None, 0.0)
        )
        if answer.done:
            found = answer.result
            answer.record.result = State(
                True, found.lock.hold, found.lock.mode, found.lock.until_ms, found.tags.get("t", "")
            )
            if found.value != one.value:
                self.clients.problem(f"version {version} of {one.key!r} is {found.value}, not {one.value}")
        elif answer.refusal is not None:
            answer.record.result = State(False)
            if answer.refusal.code != "NoSuchVersion":
                self.clients.problem(f"version {version} of {one.key!r}: {answer.refusal}")
        return answer.known

    async def read_back(self, chosen: random.Random) -> None:
        for version in sorted(self.versions):
            if not await self._look(chosen, version):
                self.clients.problem(f"{self.bucket} version {version} cannot be read at the end")

    # -- judging

    def histories(self) -> Iterator[History]:
        for version, one in self.versions.items():
            calls = [call for call in one.calls.calls if call.kind != "look" or call.end < FOREVER]
            if self.ends and (since := self._past_since(version, one)) < FOREVER:
                calls.append(Call("ends", None, since))
            yield History(
                f"{self.bucket} version {version} of {one.value}",
                calls,
                one.state,
                lambda call, state, one=one: self._apply(one, call, state),
            )

    def _past_since(self, version: str, one: Locked) -> float:
        """The earliest moment at which lifecycle may have ended it: a day after something came upon it, which counts
        from when that was asked for. Upon it is what has a later id (R13), whichever of the two was asked for first,
        and perhaps what nobody knows of; what is known to have been refused is not there."""
        above = [
            attempt.begin
            for put in self.puts[one.key]
            for attempt in put.calls
            if attempt.end == FOREVER or (attempt.result or "") > version
        ]
        return max(0.0, min(above) + DAY_S - 2 * self.clients.slack_s()) if above else FOREVER

    def _retained(self, state: State, call: Call) -> tuple[bool, bool]:
        """(surely, perhaps) retained when a call was decided."""
        end_ms = self.clients.now_ms() - (self.loop.now - min(call.end, self.loop.now)) * 1000
        # perhaps: where nobody knows what time it is, right after a start and while clocks differ, no retention ends
        return bool(state.mode) and state.until > end_ms + self.clients.slack_s() * 1000, bool(state.mode)

    def _apply(self, one: Locked, call: Call, state: State) -> tuple[bool, State]:
        known, surely, perhaps = call.end < FOREVER, *self._retained(state, call)
        if call.kind == "look":
            return self._is(one, call.result, state), state
        if call.kind == "ends":
            return state.there and not state.hold and not surely, state._replace(there=False)
        if call.kind == "remove":
            passes = bool(call.value) and state.mode == GOVERNANCE
            if known and call.result:
                return call.result == "AccessDenied" and state.there and (state.hold or (perhaps and not passes)), state
            return not state.there or not (state.hold or (surely and not passes)), state._replace(there=False)
        if known and call.result == "NoSuchVersion":
            return not state.there, state
        if call.kind == "retain":
            mode, until = call.value
            passes = bool(call.expected) and state.mode == GOVERNANCE
            less = (mode != state.mode or until < state.until) and not passes
            if known and call.result:
                return call.result == "AccessDenied" and state.there and perhaps and less, state
            return state.there and not (surely and less), state._replace(mode=mode, until=until)
        after = state._replace(hold=call.value) if call.kind == "hold" else state._replace(tag=call.value)
        return state.there and not call.result, after

    def _is(self, one: Locked, found: State, state: State) -> bool:
        if not found.there or not state.there:
            return found.there == state.there
        off_ms = abs(found.until - state.until)
        return found._replace(until=0) == state._replace(until=0) and (
            off_ms == 0 or (state.until == one.defaulted and off_ms < 5_000_000)
        )

    def judge(self) -> None:
        """What should have ended has, once days have passed in which nothing failed."""
        if not self.ends or {"rate", "wall step", "late leader"} & set(self.clients.happened):
            return
        for version, one in self.versions.items():
            last = one.calls.known("look")[-1:]
            newer = [other for other in self.versions.values() if other.key == one.key and other.begin > one.end]
            past = min(
                [other.end for other in newer if any(look.result.there for look in other.calls.known("look")[-1:])],
                default=FOREVER,
            )
            if last and last[0].result.there and max(past, self.world.whole_at) + 3 * DAY_S < last[0].begin:
                state, when_ms = (
                    last[0].result,
                    self.clients.now_ms() - (self.loop.now - last[0].begin + 2 * DAY_S) * 1000,
                )
                if not state.hold and state.until < when_ms:
                    self.clients.problem(
                        f"{self.bucket} version {version} is past since {past:.3f}, unlocked, and still there: {state}"
                    )

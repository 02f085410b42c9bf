"""Objects and uploads that end by a bucket's rules, which are withdrawn and put again; and objects that get other
names.

A day is some seconds long. An object may go from when it was due by the earliest clock, while the rules held and it had
the tags that they ask for; once days have passed in peace it must have gone. A rename puts the object under its new
name before its answer, and takes it from the old one in its own time, if that is still what was renamed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from s4.access import documents
from s4.gateway import buckets, copies, multipart, objects
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.multipart import Completion, WantedPart
from s4.gateway.objects import Attributes
from s4.metadata.listing import Query
from s4.metadata.rows import Part, decode
from s4.s3.checksums import Expected
from s4.s3.lifecycle import Rule
from whole.clients import FOREVER, Area, Body, Call, Clients, History, Key, register
from whole.loop import EPOCH
from whole.world import DAY_S

AGED = {"age": "1"}
RULES = documents.encode(
    [
        Rule("all", True, prefix="e", days=1),
        Rule("tagged", True, prefix="t", tags=AGED, days=1),
        Rule("uploads", True, prefix="u", abort_days=1),
    ]
)

CHANGING = "OperationAborted"  # who writes while the bucket's rules are put again and again


class Aging(Area):
    """State of a key: (value or None, whether it is tagged to end, whether the rules hold)."""

    kinds = ("age", "leave")
    bucket = "aging"

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.keys = {name: Key() for name in (b"e0", b"e1", b"t0", b"t1")}
        self.rules = Key()
        self.uploads: dict[str, tuple[float, float]] = {}  # id: before, after it was made
        self.last_on = FOREVER
        self.left: list[str] = []

    async def prepare(self, chosen: random.Random) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, self.bucket, "root")

        await self.clients.tried(chosen, work)
        await self._set(chosen, True)

    async def _set(self, chosen: random.Random, on: bool) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.set_document(gateway, self.bucket, documents.LIFECYCLE, RULES if on else "")

        answer = await self.clients.tried(chosen, work, key=self.rules, call=lambda: Call("rules", on, 0.0))
        if answer.refusal is not None:
            self.clients.problem(f"rules were refused: {answer.refusal}")

    async def age(self, chosen: random.Random, value: str) -> None:
        name, what = chosen.choice(sorted(self.keys)), chosen.random()
        key = self.keys[name]
        if what < 0.4:
            aged = chosen.random() < 0.6
            answer, _ = await self.clients.put(
                chosen,
                self.bucket,
                name,
                value,
                of=key,
                call=lambda: Call("put", value, 0.0, expected=aged),
                tags=AGED if aged else {},
            )
            if answer.refusal is not None and answer.refusal.code == CHANGING:
                key.calls.remove(answer.record)
            elif answer.refusal is not None:
                self.clients.problem(f"a put was refused: {answer.refusal}")
        elif what < 0.65:
            await self._read(chosen, name)
        elif what < 0.9:
            aged = chosen.random() < 0.5

            async def tag(gateway: Gateway) -> Any:
                await objects.change_object(gateway, self.bucket, name, "", tags=AGED if aged else {"other": "1"})

            answer = await self.clients.tried(chosen, tag, key=key, call=lambda: Call("tag", aged, 0.0))
            if answer.record is not None:
                answer.record.result = answer.refusal.code if answer.refusal is not None else ""
        else:
            await self._set(chosen, chosen.random() < 0.6)

    async def _read(self, chosen: random.Random, name: bytes) -> bool:
        answer = await self.clients.get(chosen, self.bucket, name, of=self.keys[name])
        if answer.record is not None:
            answer.record.result = (answer.result.value, answer.result.tags == AGED) if answer.done else (None, False)
        return answer.known

    # -- uploads

    async def leave(self, chosen: random.Random, value: str) -> None:
        """An upload with a part, which is left lying about, or completed some time later, or too late."""
        if self.uploads and chosen.random() < 0.4:
            await self._finish(chosen, chosen.choice(sorted(self.uploads)))
            return
        before = self.loop.now

        async def create(gateway: Gateway) -> Any:
            made, _ = await multipart.create_upload(gateway, self.bucket, b"u", Attributes(), "root", "", "")
            await multipart.put_part(gateway, self.bucket, b"u", made, 1, Body(b"u" * 5000), Expected())
            return made

        answer = await self.clients.tried(chosen, create, call=lambda: Call("upload", None, 0.0))
        if answer.done:
            self.uploads[answer.result] = answer.record.begin, self.loop.now
        elif answer.refusal is not None and answer.refusal.code not in ("NoSuchUpload", CHANGING):
            self.clients.problem(f"an upload made at {before:.3f} was refused: {answer.refusal}")

    async def _finish(self, chosen: random.Random, upload: str) -> None:
        begin, _ = self.uploads.pop(upload)

        async def complete(gateway: Gateway) -> Any:
            found = (await multipart.find_upload(gateway, self.bucket, b"u", upload, 0, 10))[3]
            await multipart.complete_upload(
                gateway, self.bucket, b"u", upload, Completion([WantedPart(1, _etag(found), {})])
            )

        attempts = Key()
        answer = await self.clients.tried(chosen, complete, key=attempts, call=lambda: Call("complete", None, 0.0))
        if (
            answer.refusal is not None
            and len(attempts.calls) == 1
            and self.loop.now < self._due(begin, 5000.0 if self.world.parity == 0 else 70.0)
        ):
            self.clients.problem(f"an upload of {begin:.3f} was gone at {self.loop.now:.3f}: {answer.refusal}")

    # -- when

    def _due(self, begin: float, slack_s: float) -> float:
        """The earliest moment at which what was made after `begin` may go: at the day's beginning that follows a
        day."""
        whole = math.ceil((EPOCH + begin - slack_s + DAY_S) / DAY_S) * DAY_S
        return max(begin, whole - EPOCH - slack_s)

    async def days_pass(self, chosen: random.Random) -> None:
        """The rules hold from now on; three days after, everything that they are about has ended."""
        await self._set(chosen, True)
        self.last_on = self.loop.now

    async def read_back(self, chosen: random.Random) -> None:
        for name in self.keys:
            if not await self._read(chosen, name):
                self.clients.problem(f"{self.bucket}/{name.decode()} cannot be read at the end")

        async def listed(gateway: Gateway) -> Any:
            bucket = await find_bucket(gateway, self.bucket)
            return [
                item.upload.hex()
                for item in (await gateway.node.list_uploads(bucket.id, b"", b"", b"", b"", 1000)).items
            ]

        answer = await self.clients.tried(chosen, listed)
        self.left = answer.result if answer.done else ["nobody can tell"]

    def histories(self) -> Iterator[History]:
        slack_s = self.clients.slack_s()
        slack_s = slack_s if slack_s < 100 or self.world.parity else 5000.0
        for name, key in self.keys.items():
            calls = [one for one in key.calls if one.kind != "get" or one.end < FOREVER]
            due = [Call("due", one.value, self._due(one.begin, slack_s)) for one in calls if one.kind == "put"]
            yield History(
                f"{self.bucket}/{name.decode()}",
                calls + due + self.rules.calls,
                (None, False, False),
                lambda call, state, name=name: self._apply(name, call, state),
            )

    @staticmethod
    def _apply(name: bytes, call: Call, state: tuple[str | None, bool, bool]) -> tuple[bool, Any]:
        value, aged, on = state
        match call.kind:
            case "put":
                return True, (call.value, call.expected, on)
            case "get":
                return call.result == (value, aged), state
            case "tag":
                if call.end < FOREVER and call.result:
                    return call.result == CHANGING or (call.result == "NoSuchKey" and value is None), state
                return value is not None, (value, call.value, on)
            case "rules":
                return True, (value, aged, call.value)
        return value == call.value and on and (aged or name.startswith(b"e")), (None, False, on)

    def judge(self) -> None:
        since = max(self.last_on, self.world.whole_at)
        if {"rate", "wall step", "late leader"} & set(self.clients.happened) or self.loop.now < since + 3 * DAY_S:
            return
        for name, key in self.keys.items():
            last = key.known("get")[-1:]
            if (
                last
                and last[0].begin > since + 3 * DAY_S
                and last[0].result[0] is not None
                and (last[0].result[1] or name.startswith(b"e"))
            ):
                self.clients.problem(f"{self.bucket}/{name.decode()} should have ended, and is {last[0].result}")
        if self.left:
            self.clients.problem(f"uploads are left that should have ended: {self.left}")


def _etag(found: Any) -> str:
    return decode(Part, found.parts[0]).extent.etag if found.parts else ""


class Names(Area):
    """Objects that are renamed one by one, each client its own. A name's history is that of any key, but for what a
    rename takes from it: that goes some time after its answer, if it is still what was renamed."""

    kinds = ("rename", "grouped")
    bucket = "named"

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.keys: dict[bytes, Key] = {}
        self.now: dict[
            str, tuple[bytes, str]
        ] = {}  # the name that a client's object has, and what it is; none where unsure
        self.made = 0
        self.groups: dict[
            bytes, tuple[float, float]
        ] = {}  # what names begin with: when one was first put, and surely was
        self.moves: list[list[Any]] = []  # (what the names begin with, begin, end) of a rename
        self.taken: list[tuple[bytes, str, float]] = []  # (old name, what was renamed, since when)

    async def prepare(self, chosen: random.Random) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, self.bucket, "root")

        await self.clients.tried(chosen, work)

    async def rename(self, chosen: random.Random, value: str) -> None:
        client = value.partition(".")[0]
        if client not in self.now:
            self.made += 1
            await self._put(chosen, client, b"%s/%d" % (client.encode(), self.made), value)
            return
        name, held = self.now.pop(client)
        target = b"%s/%d" % (client.encode(), chosen.randint(0, 3))
        if target == name:
            await self._put(chosen, client, name, value)
            return

        async def work(gateway: Gateway) -> Any:
            with gateway.readers.reading():
                await copies.rename_object(gateway, self.bucket, name, target, "root")

        attempts, move = Key(), [client.encode() + b"/", self.loop.now, FOREVER]
        self.moves.append(move)
        to, of = self.keys.setdefault(target, Key()), self.keys.setdefault(name, Key())
        answer = await self.clients.tried(chosen, work, key=attempts, call=lambda: Call("put", held, 0.0))
        if answer.done:
            move[2] = self.loop.now
        for one in attempts.calls:
            if one.end == FOREVER or answer.done:
                to.calls.append(one)
                of.calls.append(Call("dropped", held, one.begin))
        if answer.done:
            self.now[client] = target, held
            self.taken.append((name, held, attempts.calls[0].begin))
            if chosen.random() < 0.5:  # the old name at once for something else
                await self._put(chosen, client, name, value)
                self.now[client] = target, held
        elif answer.refusal is not None and len(attempts.calls) == 1:
            self.clients.problem(f"{name!r} with {held} could not be renamed: {answer.refusal}")

    async def _put(self, chosen: random.Random, client: str, name: bytes, value: str) -> None:
        key, group = self.keys.setdefault(name, Key()), client.encode() + b"/"
        begin, _ = self.groups.setdefault(group, (self.loop.now, FOREVER))
        answer, _ = await self.clients.put(
            chosen, self.bucket, name, value, of=key, call=lambda: Call("put", value, 0.0)
        )
        self.clients.took(answer)
        if answer.done:
            self.groups[group] = begin, min(self.groups[group][1], answer.record.end)
        if answer.done and not any(one.end == FOREVER and one.kind == "put" for one in key.calls):
            self.now[client] = name, value

    async def grouped(self, chosen: random.Random, value: str) -> None:
        """A listing up to a delimiter, page by page: each client's names are one entry, and there is always one of
        them. One that is renamed meanwhile may be in none of the partitions: not yet in the new name's, and
        no more in the old one's (seed 9014)."""
        begin, limit, after, said = self.loop.now, chosen.choice((1, 2, 1000)), b"", list[Any]()
        for _ in range(20):

            async def work(gateway: Gateway, after: bytes = after) -> Any:
                bucket = await find_bucket(gateway, self.bucket)
                return await gateway.node.list_objects(bucket.id, Query(b"", b"/", after, b"", limit))

            answer = await self.clients.tried(chosen, work, call=lambda: Call("grouped", None, 0.0))
            if not answer.done:
                return
            said += answer.result.items
            if not answer.result.truncated:
                break
            after = answer.result.next_key
        there = {group for group, (_, surely) in self.groups.items() if surely < begin}
        lacking = there - set(said) - {group for group, _, end in self.moves if end > begin}
        if lacking or said != sorted(set(said)) or not set(said) <= set(self.groups):
            self.clients.problem(f"a listing up to / of {sorted(self.groups)} has {said}")

    async def read_back(self, chosen: random.Random) -> None:
        await self.grouped(chosen, "")
        for name, key in sorted(self.keys.items()):
            answer = await self.clients.get(chosen, self.bucket, name, of=key)
            if answer.record is None:
                self.clients.problem(f"{self.bucket}/{name.decode()} cannot be read at the end")
            else:
                answer.record.result = answer.result.value if answer.done else None

    def judge(self) -> None:
        """What was renamed has gone from its old name in the end, unless somebody may have put it there once more."""
        for name, held, begin in self.taken:
            puts = [one for one in self.keys[name].calls if one.kind == "put" and one.value == held]
            last = self.keys[name].known("get")[-1:]
            if last and last[0].result == held and all(one.end < begin for one in puts):
                self.clients.problem(f"{name!r} still has {held}, which was renamed at {begin:.3f}")

    def histories(self) -> Iterator[History]:
        for name, key in self.keys.items():
            yield History(
                f"{self.bucket}/{name.decode()}",
                [one for one in key.calls if one.kind != "get" or one.end < FOREVER],
                None,
                register,
            )

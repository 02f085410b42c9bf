"""What is said of buckets, accounts and jobs: each setting obeyed once its call has returned, and undone by nothing
that comes late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from s4.access import documents
from s4.gateway import accounts, buckets, multipart, objects
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.objects import Attributes
from s4.metadata import keys
from s4.metadata.listing import Query
from s4.metadata.rows import User, decode
from s4.s3.checksums import Expected
from s4.upkeep.renames import Renames
from whole.clients import FOREVER, Area, Body, Call, Clients, History, Key, register, settled, surely

ON, OFF = "Enabled", "Suspended"
MOVED = 8


class Documents(Area):
    """One setting that gateways cache: until the call that changes it has returned, they may differ (L2)."""

    kinds = ("document",)
    settings = ("tags", "cors")

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.keys = {setting: Key() for setting in self.settings}

    async def document(self, chosen: random.Random, value: str) -> None:
        setting = chosen.choice(self.settings)
        if not value or chosen.random() < 0.5:
            await self._read(chosen, setting)
            return
        text = "" if chosen.random() < 0.2 else value  # an empty one removes it

        async def put(gateway: Gateway) -> Any:
            await buckets.set_document(gateway, "plain", setting, text)

        others = [one for one in self.world.machines if one is not self.world.alone]
        answer = await self.clients.tried(
            chosen, put, key=self.keys[setting], call=lambda: Call("put", text or None, 0.0), machines=others
        )
        if answer.refusal is not None:
            self.clients.problem(f"a setting was refused: {answer.refusal}")

    async def _read(self, chosen: random.Random, setting: str) -> None:
        async def get(gateway: Gateway) -> Any:
            return (await find_bucket(gateway, "plain")).documents.get(setting)

        asked = [self.world.alone] if self.world.alone is not None and chosen.random() < 0.7 else []
        answer = await self.clients.tried(
            chosen, get, key=self.keys[setting], call=lambda: Call("get", None, 0.0), machines=asked
        )
        if answer.record is not None:
            answer.record.result = answer.result

    async def read_back(self, chosen: random.Random) -> None:
        for setting in self.settings:
            await self._read(chosen, setting)

    def judge(self) -> None:
        for setting, key in self.keys.items():
            for text in settled(key):
                self.clients.problem(f"the setting {setting} {text}")


class Flips(Area):
    """A bucket whose versioning is switched on and off. What was put while it was surely on is never replaced, and
    nothing replaces the null version while it is surely on (L2)."""

    kinds = ("flip",)
    bucket, name = "flip", b"f"

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.flips, self.nulls, self.puts = Key(), Key(), list[tuple[Call, str, str]]()

    async def prepare(self, chosen: random.Random) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, self.bucket, "root")
            await buckets.set_versioning(gateway, self.bucket, ON)

        await self.clients.tried(chosen, work, key=self.flips, call=lambda: Call("flip", ON, 0.0))

    async def flip(self, chosen: random.Random, value: str) -> None:
        what = chosen.random()
        if 0.35 <= what < 0.6:
            await self._read_null(chosen)
            return
        if what < 0.35:
            wanted = chosen.choice((ON, OFF))

            async def work(gateway: Gateway) -> Any:
                await buckets.set_versioning(gateway, self.bucket, wanted)

            await self.clients.tried(chosen, work, key=self.flips, call=lambda: Call("flip", wanted, 0.0))
            return
        answer, put = await self.clients.put(
            chosen, self.bucket, self.name, value, of=Key(), call=lambda: Call("put", value, 0.0)
        )
        if put is not None:
            self.puts.append((answer.record, value, put.version))
        elif answer.refusal is not None and answer.refusal.code != "OperationAborted":
            self.clients.problem(f"a put was refused while versioning changed: {answer.refusal}")

    async def _read_null(self, chosen: random.Random) -> None:
        answer = await self.clients.get(chosen, self.bucket, self.name, "null", of=self.nulls)
        if answer.record is not None:
            answer.record.result = answer.result.value if answer.done else None

    def judge(self) -> None:
        """A write that was prepared while versioning was off and committed after it was on again replaces what was to
        stay."""
        for one, two in pairwise(sorted(self.nulls.known("get"), key=lambda call: call.begin)):
            if (
                one.end < two.begin
                and one.result != two.result
                and surely(self.flips.calls, Call("get", None, one.begin, two.end)) == ON
            ):
                self.clients.problem(
                    f"the null version was {one.result} at {one.begin:.3f}-{one.end:.3f}, and {two.result} at {two.begin:.3f}-{two.end:.3f}, while versioning was on"
                )

    async def read_back(self, chosen: random.Random) -> None:
        await self._read_null(chosen)
        for put, value, version in self.puts:
            was = surely(self.flips.calls, put)
            if was is not None and (version == "null") != (was == OFF):
                self.clients.problem(f"{value} was put as version {version} while versioning was {was}")
            if version != "null":
                answer = await self.clients.get(chosen, self.bucket, self.name, version)
                if not answer.done or answer.result.value != value:
                    self.clients.problem(
                        f"version {version} of {value}, put while versioning was {was}, is {answer.result and answer.result.value} {answer.refusal}"
                    )


class Quotas(Area):
    """A bucket with a quota: it may be passed for seconds, and is obeyed once these have gone by."""

    kinds = ("fill",)
    bucket, quota = "small", 150_000

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.names = [b"s%d" % number for number in range(6)]
        self.keys = {name: Key() for name in self.names}

    async def prepare(self, chosen: random.Random) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, self.bucket, "root")
            await buckets.set_document(gateway, self.bucket, documents.QUOTA, str(self.quota))

        await self.clients.tried(chosen, work)

    async def fill(self, chosen: random.Random, value: str) -> None:
        name = chosen.choice(self.names)
        if chosen.random() < 0.3:

            async def work(gateway: Gateway) -> Any:
                return await objects.delete_object(gateway, self.bucket, name, "", "root")

            await self.clients.tried(chosen, work, key=self.keys[name], call=lambda: Call("delete", None, 0.0))
            return
        answer, _ = await self.clients.put(
            chosen, self.bucket, name, value, of=self.keys[name], call=lambda: Call("put", value, 0.0)
        )
        if answer.refusal is not None:
            self.keys[name].calls.remove(answer.record)
            if answer.refusal.code != "QuotaExceeded":
                self.clients.problem(f"a put beside a quota was refused: {answer.refusal}")

    async def read_back(self, chosen: random.Random) -> None:
        used = 0
        for name in self.names:
            answer = await self.clients.get(chosen, self.bucket, name, of=self.keys[name])
            if answer.record is not None:
                answer.record.result = answer.result.value if answer.done else None
            used += len(answer.result.data) if answer.done else 0
        await asyncio.sleep(2.5)
        for size in (max(0, self.quota - used) + 1, self.quota - used):

            async def work(gateway: Gateway, size: int = size) -> Any:
                await gateway.quotas.take(gateway.node, await find_bucket(gateway, self.bucket), size)

            answer = await self.clients.tried(chosen, work)
            if answer.known and answer.done != (used + size <= self.quota):
                self.clients.problem(
                    f"with {used} of {self.quota} bytes used, {size} more were {'taken' if answer.done else 'refused'}"
                )

    def histories(self) -> Iterator[History]:
        for name, key in self.keys.items():
            yield History(f"{self.bucket}/{name.decode()}", key.calls, None, register)


class Accounts(Area):
    """A user who is made, changed and removed."""

    kinds = ("account",)

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.key = Key()

    async def account(self, chosen: random.Random, value: str) -> None:
        gone = chosen.random() < 0.35

        async def change(work: accounts.Accounts) -> None:
            if gone:
                work.delete(User, "u")
            else:
                await work.get(User, "u")
                work.put("u", User("u", 0, tags={"v": value}))

        async def put(gateway: Gateway) -> Any:
            return await accounts.change(gateway, change)

        if value and chosen.random() < 0.5:
            answer = await self.clients.tried(
                chosen, put, key=self.key, call=lambda: Call("put", None if gone else value, 0.0)
            )
            if answer.refusal is not None and answer.record is not None:
                self.key.calls.remove(answer.record)
        else:
            await self._read(chosen)

    async def _read(self, chosen: random.Random) -> None:
        async def get(gateway: Gateway) -> Any:
            row = (await gateway.node.find_accounts([keys.named_row(keys.USER, "u")]))[0]
            return decode(User, row).tags["v"] if row is not None else None

        answer = await self.clients.tried(chosen, get, key=self.key, call=lambda: Call("get", None, 0.0))
        if answer.record is not None:
            answer.record.result = answer.result

    async def read_back(self, chosen: random.Random) -> None:
        await self._read(chosen)

    def histories(self) -> Iterator[History]:
        yield History("a user", self.key.calls, None, register)


class Prefixes(Area):
    """Renames of prefixes: one of them moves objects while all else goes on; others are started, and forgotten for
    good."""

    kinds = ("job",)
    bucket, moves = "moved", 4

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.forgotten: set[str] = set()
        self.place = b"a/"

    async def prepare(self, chosen: random.Random) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, self.bucket, "root")
            for number in range(MOVED):
                await objects.put_object(
                    gateway, self.bucket, b"a/%d" % number, Body(b"x" * 100), Expected(), Attributes(), "root"
                )

        await self.clients.tried(chosen, work)
        self.mover = self.world.loop.outside.spawn(self._move(chosen))

    async def _move(self, chosen: random.Random) -> None:
        """Some, one after the other, all to be done at the end, whatever happens."""
        await asyncio.sleep(chosen.uniform(1.0, 10.0))
        for step in range(chosen.choice((1, 1, self.moves))):
            source, target = f"{chr(97 + step)}/", f"{chr(98 + step)}/"

            async def begin(gateway: Gateway, source: str = source, target: str = target) -> None:
                await self._renames(gateway).start(self.bucket, source, target)

            while not (await self.clients.tried(chosen, begin)).done:
                await asyncio.sleep(0.5)
            self.place = target.encode()
            while not await self._is_moved(chosen, source):
                await asyncio.sleep(0.5)

    async def _is_moved(self, chosen: random.Random, source: str) -> bool:
        """Whether all renames from a prefix have ended."""
        answer = await self.clients.tried(chosen, lambda gateway: gateway.node.list_jobs())
        return answer.done and all(job.finished for _, job in answer.result if job.source == source)

    async def job(self, chosen: random.Random, value: str) -> None:
        """A rename of nothing, started and forgotten."""
        started = await self.clients.tried(
            chosen, lambda gateway: self._renames(gateway).start(self.bucket, f"{value}/", "z/")
        )
        if not started.done:
            return
        await asyncio.sleep(chosen.choice((0.0, 0.5)))
        if (await self.clients.tried(chosen, lambda gateway: self._renames(gateway).forget(started.result))).done:
            self.forgotten.add(started.result)

    def _renames(self, gateway: Gateway) -> Renames:
        return next(one.renames for one in self.world.machines if one.gateway is gateway)

    async def read_back(self, chosen: random.Random) -> None:
        """Whether the renames came to their end, and nothing came back that was forgotten."""
        await asyncio.wait((self.mover,), timeout=60.0)

        async def listed(gateway: Gateway) -> Any:
            bucket = await find_bucket(gateway, self.bucket)
            page = await gateway.node.list_objects(bucket.id, Query(b"", b"", b"", b"", 100))
            return [item.key for item in page.items], await gateway.node.list_jobs()

        answer = await self.clients.tried(chosen, listed)
        if not answer.done:
            self.clients.problem(f"what was renamed cannot be listed: {answer.refusal}")
            return
        names, jobs = answer.result
        if names != [self.place + b"%d" % number for number in range(MOVED)] or any(
            not job.finished or job.error for _, job in jobs if len(job.source) == 2
        ):
            self.clients.problem(f"a prefix was not renamed: {names} {jobs}")
        if back := self.forgotten & {name for name, _ in jobs}:
            self.clients.problem(f"jobs are there which were forgotten: {sorted(back)}")


class Gone(Area):
    """Buckets that are made, filled, emptied and deleted. A bucket with its objects is one thing: None where there is
    none, else the set of what it holds."""

    kinds = ("bucket",)
    names = (b"g0", b"g1")

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.buckets = {f"gone-{number}": Key() for number in range(2)}

    async def bucket(self, chosen: random.Random, value: str) -> None:
        bucket = chosen.choice(sorted(self.buckets))
        key, name, what = self.buckets[bucket], chosen.choice(self.names), chosen.random()
        if what < 0.3:
            await self._put(chosen, bucket, name, value)
        elif what < 0.4:
            await self._get(chosen, bucket, name)
        elif what < 0.5:

            async def upload(gateway: Gateway) -> Any:
                made, _ = await multipart.create_upload(gateway, bucket, name, Attributes(), "root", "", "")
                await multipart.put_part(gateway, bucket, name, made, 1, Body(chosen.randbytes(6000)), Expected())

            await self.clients.tried(chosen, upload)  # left lying about: the bucket takes it along
        else:

            async def make(gateway: Gateway) -> Any:
                await buckets.create_bucket(gateway, bucket, "root")

            async def unmake(gateway: Gateway) -> Any:
                await buckets.delete_bucket(gateway, bucket)

            async def drop(gateway: Gateway) -> Any:
                await objects.delete_object(gateway, bucket, name, "", "root")

            kind, work = ("make", make) if what < 0.65 else ("unmake", unmake) if what < 0.85 else ("drop", drop)
            answer = await self.clients.tried(chosen, work, key=key, call=lambda: Call(kind, name, 0.0))
            if answer.record is not None:
                answer.record.result = answer.refusal.code if answer.refusal is not None else ""

    async def _put(self, chosen: random.Random, bucket: str, name: bytes, value: str) -> None:
        answer, _ = await self.clients.put(
            chosen, bucket, name, value, of=self.buckets[bucket], call=lambda: Call("put", (name, value), 0.0)
        )
        if answer.record is not None:
            answer.record.result = answer.refusal.code if answer.refusal is not None else ""

    async def _get(self, chosen: random.Random, bucket: str, name: bytes) -> None:
        answer = await self.clients.get(
            chosen, bucket, name, of=self.buckets[bucket], call=lambda: Call("get", name, 0.0)
        )
        if answer.record is not None:
            answer.record.result = answer.refusal.code if answer.refusal is not None else answer.result.value

    async def read_back(self, chosen: random.Random) -> None:
        for bucket in self.buckets:
            for name in self.names:
                await self._get(chosen, bucket, name)

    def histories(self) -> Iterator[History]:
        for bucket, key in self.buckets.items():
            unmade = [one for one in key.calls if one.kind == "unmake"]
            calls = [one for one in key.calls if one.kind != "get" or one.end < FOREVER]
            for one in calls:  # a deletion that is under way closes the bucket before it is sure to be done
                one.expected = any(
                    other is not one and other.begin < one.end and other.end > one.begin for other in unmade
                )
            yield History(bucket, calls, None, _of_bucket)


def _of_bucket(call: Call, state: frozenset[tuple[bytes, str]] | None) -> tuple[bool, Any]:
    known, code = call.end < FOREVER, call.result if call.kind != "get" else ""
    if known and code == "OperationAborted":
        return True, state
    if known and (code == "NoSuchBucket" or (call.kind == "get" and call.result == "NoSuchBucket")):
        return state is None or call.expected, state
    if call.kind == "make":
        if known and code:
            return code == "BucketAlreadyOwnedByYou" and (state is not None or call.expected), state
        return state is None, frozenset()
    if call.kind == "unmake":
        if known and code:
            return code == "BucketNotEmpty" and bool(state), state
        return state == frozenset() or (
            state is None and known and call.expected
        ), None  # two who delete it may both be told so
    if state is None:
        return False, state
    if call.kind == "get":
        return dict(state).get(call.value, "NoSuchKey") == call.result, state
    left = frozenset(one for one in state if one[0] != (call.value[0] if call.kind == "put" else call.value))
    return not code, left | {call.value} if call.kind == "put" else left

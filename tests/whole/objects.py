"""Objects of a plain bucket: put, replaced by conditions, copied, completed from parts, deleted, read, listed.

Each key's history must be linearizable; a page of a listing is a read of every key that it covers, each at some moment
between its request and its answer.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from s4.gateway import buckets, copies, multipart, objects
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.copies import Copy
from s4.gateway.multipart import Completion, WantedPart
from s4.gateway.objects import Attributes
from s4.gateway.read import Opened, open_object
from s4.metadata.commands import Conditions
from s4.metadata.listing import Query
from s4.metadata.rows import Part, decode
from s4.s3 import conditions
from s4.s3.checksums import Expected
from whole.clients import FOREVER, Answer, Area, Body, Call, Clients, History, Key

BUCKET = "plain"
MOST_PAGES = 20


class Upload:
    """A multipart upload. `closing` is when somebody first asked for its end, `closed` when that was answered."""

    def __init__(self, key: bytes, made: float) -> None:
        self.key, self.made = key, made
        self.closing = self.closed = FOREVER


class Objects(Area):
    kinds = ("put", "get", "delete", "create", "swap", "copy", "multipart", "listing", "uploads", "claim")

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        count = random.Random(f"keys {clients.world.seed}").choice((3, 8, 8))
        self.names = [b"k%d" % number for number in range(count)]
        self.keys = {name: Key() for name in self.names}
        self.made: dict[str, Upload] = {}

    async def prepare(self, chosen: random.Random) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, BUCKET, "root")

        await self.clients.tried(chosen, work)

    # -- one object

    async def put(self, chosen: random.Random, value: str) -> None:
        await self._write(chosen, value, "put", Conditions())

    async def create(self, chosen: random.Random, value: str) -> None:
        await self._write(chosen, value, "create", Conditions(if_none_match="*"))

    async def swap(self, chosen: random.Random, value: str) -> None:
        name = chosen.choice(self.names)
        if etag := self._seen(name):
            await self._write(chosen, value, "swap", Conditions(if_match=etag), name)

    def _seen(self, name: bytes) -> str:
        """An ETag that somebody read there."""
        seen = [one.result for one in self.keys[name].known("get") if one.result]
        return self.clients.etags.get(seen[-1], "") if seen else ""

    async def _write(self, chosen: random.Random, value: str, kind: str, wanted: Conditions, name: bytes = b"") -> None:
        name = name or chosen.choice(self.names)
        key = self.keys[name]
        answer, _ = await self.clients.put(
            chosen,
            BUCKET,
            name,
            value,
            of=key,
            call=lambda: Call(kind, value, 0.0, expected=wanted.if_match),
            wanted=wanted,
        )
        if answer.record is not None:
            answer.record.result = answer.done
            if answer.refusal is not None and answer.refusal.code not in ("PreconditionFailed", "NoSuchKey"):
                key.calls.remove(answer.record)

    async def claim(self, chosen: random.Random, value: str) -> None:
        """A body that is not what its hash says, which others have put: nothing is stored, and nothing shared (C4)."""
        name, shared = chosen.choice(self.names), chosen.choice(self.clients.shared)

        async def work(gateway: Gateway) -> Any:
            named = Expected(sha256=hashlib.sha256(shared).digest())
            return await objects.put_object(
                gateway, BUCKET, name, Body(bytes(len(shared))), named, Attributes(), "root", Conditions()
            )

        answer = await self.clients.tried(chosen, work)
        if answer.done:
            self.clients.problem(f"PUT {name!r}: a hash that was merely claimed was taken for the content")

    async def get(self, chosen: random.Random, value: str) -> None:
        await self.read(chosen, chosen.choice(self.names))

    async def read(self, chosen: random.Random, name: bytes) -> bool:
        """Whether it was answered. A read is a call on the key too."""
        answer = await self.clients.get(chosen, BUCKET, name, of=self.keys[name])
        if answer.record is not None:
            answer.record.result = answer.result.value if answer.done else None
        if answer.refusal is not None and answer.refusal.code != "NoSuchKey":
            self.clients.problem(f"GET {name!r}: {answer.refusal}")
        return answer.known

    async def delete(self, chosen: random.Random, value: str) -> None:
        name = chosen.choice(self.names)

        async def work(gateway: Gateway) -> Any:
            return await objects.delete_object(gateway, BUCKET, name, "", "root")

        await self.clients.tried(chosen, work, key=self.keys[name], call=lambda: Call("delete", None, 0.0))

    # -- copies

    async def copy(self, chosen: random.Random, value: str) -> None:
        """As the S3 endpoint does it: open the source, judge its conditions, copy. Some come from another bucket."""
        if self.clients.kept and chosen.random() < 0.25:
            await self._copy_in(chosen, value, *chosen.choice(self.clients.kept))
            return
        name, source = chosen.sample(self.names, 2)
        wanted = self._seen(source) if chosen.random() < 0.6 else ""
        of, to, clients = self.keys[source], self.keys[name], self.clients
        clients.copied[value] = {one.value for one in of.calls if one.value is not None}

        async def work(gateway: Gateway) -> Any:
            async def attempt() -> Any:
                opened: Opened = await open_object(gateway, BUCKET, source, "")
                if wanted:
                    conditions.check_read({"if-match": wanted}, opened.row.etag, opened.row.modified_ms)
                return await copies.copy_object(
                    gateway, opened, Copy(BUCKET, name, "root", Attributes(metadata={"op": value}))
                )

            with gateway.readers.reading():
                return await objects.while_it_changes(attempt)

        answer = await clients.tried(chosen, work, key=to, call=lambda: Call("put", value, 0.0))
        clients.copied[value] |= {one.value for one in of.calls if one.value is not None}
        if answer.record is None:
            return
        if answer.refusal is not None:
            to.calls.remove(answer.record)
            return
        clients.etags[value] = answer.result.etag
        if (
            wanted and answer.result.etag != wanted and "-" not in wanted
        ):  # of parts that are written anew as one it is another
            clients.problem(f"copy {value} if-match {wanted} took {answer.result.etag}")
        answer.record.result = True

    async def _copy_in(
        self, chosen: random.Random, value: str, bucket: str, source: bytes, version: str, held: str
    ) -> None:
        """A copy of a version that is never removed: it must be there, and nothing else."""
        name, clients = chosen.choice(self.names), self.clients
        clients.copied[value] = {held}

        async def work(gateway: Gateway) -> Any:
            with gateway.readers.reading():
                opened = await open_object(gateway, bucket, source, version)
                return await copies.copy_object(
                    gateway, opened, Copy(BUCKET, name, "root", Attributes(metadata={"op": value}))
                )

        answer = await clients.tried(chosen, work, key=self.keys[name], call=lambda: Call("put", value, 0.0))
        if answer.done:
            clients.etags[value], answer.record.result = answer.result.etag, True
        elif answer.refusal is not None:
            clients.problem(f"{bucket}/{source.decode()} version {version} was not copied: {answer.refusal}")

    # -- multipart

    async def multipart(self, chosen: random.Random, value: str) -> None:
        name, clients = chosen.choice(self.names), self.clients
        parts = [clients.content(chosen, value) for _ in range(chosen.choice((1, 2, 3, 3, 5)))]
        parts = [(one + bytes(4096))[: max(4096, len(one))] for one in parts[:-1]] + parts[-1:]
        clients.contents[value] = b"".join(parts)
        clients.etags.pop(value, None)

        async def create(gateway: Gateway) -> Any:
            return await multipart.create_upload(
                gateway, BUCKET, name, Attributes(metadata={"op": value}), "root", "", ""
            )

        made = await clients.tried(chosen, create)
        if not made.done:
            return
        upload, wanted = made.result[0], list[WantedPart]()
        self.made[upload] = Upload(name, self.loop.now)
        for number, data in enumerate(parts, 1):

            async def send(gateway: Gateway, number: int = number, data: bytes = data) -> Any:
                return await multipart.put_part(gateway, BUCKET, name, upload, number, Body(data), Expected())

            stored = await clients.tried(chosen, send)
            if not stored.done:
                return
            wanted.append(WantedPart(number, stored.result[0].etag, {}))
        if chosen.random() < 0.3:
            await self._list_parts(chosen, name, upload, wanted)
        if chosen.random() < 0.75:
            await self._complete(chosen, name, upload, wanted, value)
        elif chosen.random() < 0.8:
            await self._abort(chosen, name, upload)

    async def _list_parts(self, chosen: random.Random, name: bytes, upload: str, wanted: list[WantedPart]) -> None:
        async def parts(gateway: Gateway) -> Any:
            found = (await multipart.find_upload(gateway, BUCKET, name, upload, 0, 100))[3]
            return [(part.extent.number, part.extent.etag) for part in (decode(Part, value) for value in found.parts)]

        answer = await self.clients.tried(chosen, parts)
        if answer.known and answer.result != [(one.number, one.etag) for one in wanted]:
            self.clients.problem(f"the parts of {upload} are listed as {answer.result} {answer.refusal}, not {wanted}")

    async def _abort(self, chosen: random.Random, name: bytes, upload: str) -> None:
        async def abort(gateway: Gateway) -> Any:
            await multipart.abort_upload(gateway, BUCKET, name, upload)

        self.made[upload].closing = self.loop.now
        if (await self.clients.tried(chosen, abort)).known:
            self.made[upload].closed = self.loop.now

    async def _complete(
        self, chosen: random.Random, name: bytes, upload: str, wanted: list[WantedPart], value: str
    ) -> None:
        async def complete(gateway: Gateway) -> Any:
            return await multipart.complete_upload(gateway, BUCKET, name, upload, Completion(wanted))

        self.made[upload].closing = self.loop.now
        answer = await self.clients.tried(chosen, complete, key=self.keys[name], call=lambda: Call("put", value, 0.0))
        if answer.record is None:
            return
        self.made[upload].closed = self.loop.now
        if answer.refusal is None:
            self.clients.etags[value], answer.record.result = answer.result.etag, True
        elif answer.refusal.code == "NoSuchUpload":
            # an attempt before may have completed it, and something newer has been put since
            answer.record.end, answer.record.result = FOREVER, None
            if not any(one.value == value and one is not answer.record for one in self.keys[name].calls):
                self.clients.problem(f"upload {upload} is gone, and nobody ended it")
        else:
            self.keys[name].calls.remove(answer.record)

    # -- listings

    async def listing(self, chosen: random.Random, value: str) -> None:
        """All pages of a listing; each covers the keys behind the page before up to its own last one."""
        prefix, limit, after = chosen.choice((b"", b"k", b"k1", b"z")), chosen.choice((1, 2, 3, 1000)), b""
        for _ in range(MOST_PAGES):

            async def work(gateway: Gateway, after: bytes = after) -> Any:
                bucket = await find_bucket(gateway, BUCKET)
                return await gateway.node.list_objects(bucket.id, Query(prefix, b"", after, b"", limit))

            record = Call("listed", None, 0.0)
            answer = await self.clients.tried(chosen, work, call=lambda record=record: record)
            if not answer.done:
                return
            page, said = answer.result, {item.key: item.row.etag for item in answer.result.items}
            names = [item.key for item in page.items]
            if (
                names != sorted(set(names))
                or any(not one.startswith(prefix) or one <= after for one in names)
                or len(names) > limit
            ):
                self.clients.problem(f"a page of {limit} with prefix {prefix!r} behind {after!r} has {names}")
            if set(names) - set(self.names):
                self.clients.problem(f"a listing has {set(names) - set(self.names)}, which nobody put")
            for name in self.names:
                if name.startswith(prefix) and name > after and (not page.truncated or name <= page.next_key):
                    self.keys[name].calls.append(Call("listed", None, record.begin, record.end, said.get(name)))
            if not page.truncated:
                return
            after = page.next_key

    async def uploads(self, chosen: random.Random, value: str) -> None:
        begin = self.loop.now
        answer = await self._list_uploads(chosen)
        if answer.done:
            self._judge_uploads({item.upload.hex() for item in answer.result.items}, begin)

    async def _list_uploads(self, chosen: random.Random) -> Answer:
        async def work(gateway: Gateway) -> Any:
            bucket = await find_bucket(gateway, BUCKET)
            return await gateway.node.list_uploads(bucket.id, b"", b"", b"", b"", 10_000)

        return await self.clients.tried(chosen, work, call=lambda: Call("uploads", None, 0.0))

    def _judge_uploads(self, listed: set[str], begin: float) -> None:
        for upload, one in self.made.items():
            if upload not in listed and one.made < begin and one.closing == FOREVER:
                self.clients.problem(f"upload {upload} of {one.key!r}, made at {one.made:.3f}, is not listed")
            if upload in listed and one.closed < begin:
                self.clients.problem(f"upload {upload} of {one.key!r} is listed, which ended at {one.closed:.3f}")

    # -- at the end

    async def read_back(self, chosen: random.Random) -> None:
        for name in self.names:
            if not await self.read(chosen, name):
                self.clients.problem(f"{BUCKET}/{name.decode()} cannot be read at the end")
        begin = self.loop.now
        answer = await self._list_uploads(chosen)
        if answer.done:
            self._judge_uploads({item.upload.hex() for item in answer.result.items}, begin)
        else:
            self.clients.problem("uploads cannot be listed at the end")
        await self.listing(chosen, "")

    def histories(self) -> Iterator[History]:
        for name, key in self.keys.items():
            yield History(f"{BUCKET}/{name.decode()}", self._calls(key), None, self._apply)

    def _calls(self, key: Key) -> list[Call]:
        """The calls that count: where nothing but reads tells of a write whose outcome is unknown, those that nobody
        saw do not."""
        calls = [one for one in key.calls if not (one.kind == "get" and one.end == FOREVER)]
        if any(one.kind in ("create", "swap") for one in calls):
            return calls
        seen = {one.result for one in calls if one.kind in ("get", "listed")}
        etags = self.clients.etags
        return [
            one
            for one in calls
            if one.end < FOREVER or one.kind == "delete" or one.value in seen or etags.get(one.value) in {*seen, None}
        ]

    def _apply(self, call: Call, value: str | None) -> tuple[bool, str | None]:
        etags = self.clients.etags
        if call.kind == "get":
            return call.result == value, value
        if call.kind == "listed":
            return (call.result is None) if value is None else etags.get(value, call.result) == call.result, value
        if call.kind in ("put", "delete"):
            return True, call.value
        if call.kind == "create":
            fits = value is None
        else:
            etag = etags.get(value) if value is not None else ""
            fits = etag is None or etag == call.expected
        if call.end == FOREVER:
            return True, call.value if fits else value
        if call.kind == "swap" and value is not None and etags.get(value) is None:
            return True, call.value if call.result else value
        return fits == call.result, call.value if call.result else value

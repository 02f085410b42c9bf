"""What a client did and was told, and what may therefore be found after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from checker import check
from inprocess import Bytes, get, opened, put
from s4.gateway.context import Gateway
from s4.gateway.multipart import Completion, WantedPart, complete_upload, create_upload, put_part
from s4.gateway.objects import Attributes, delete_object
from s4.node.local import OpenStore
from s4.s3.checksums import Expected
from s4.s3.errors import S3Error
from s4.upkeep.heal import Healer
from s4.upkeep.orphans import audit
from s4.upkeep.scrub import Scrubber

ABSENT = None


@dataclass
class History:
    """`known` is what each key surely holds; `maybe` what an operation in flight would make of it."""

    known: dict[bytes, bytes | None] = field(default_factory=dict)
    maybe: dict[bytes, bytes | None] = field(default_factory=dict)

    async def doing(self, key: bytes, value: bytes | None, work: Awaitable[object]) -> None:
        """Run an operation that gives `key` a value (None: no object); known once it is acknowledged."""
        self.maybe[key] = value
        await work
        self.known[key] = value
        del self.maybe[key]

    def image(self) -> History:
        return History(dict(self.known), dict(self.maybe))


async def multipart(gateway: Gateway, key: bytes, pieces: list[bytes], bucket: str = "crash") -> None:
    upload, _ = await create_upload(gateway, bucket, key, Attributes(), "root", "", "")
    wanted = []
    for number, piece in enumerate(pieces, 1):
        part, _, _ = await put_part(gateway, bucket, key, upload, number, Bytes(piece), Expected())
        wanted.append(WantedPart(number, part.etag, {}))
    await complete_upload(gateway, bucket, key, upload, Completion(wanted))


async def recover(directories: list[Path], history: History, *, strict_rows: bool = True) -> None:
    """Start on what a crash left: everything acknowledged is there, the rest is old or new; then heal and look."""
    async with opened(directories) as (store, gateway):
        for key in history.known.keys() | history.maybe.keys():
            try:
                found: bytes | None = await get(gateway, "crash", key)
            except S3Error as error:
                assert error.code == "NoSuchKey", (key, error.code, error.message)
                found = None
            legal = [history.known.get(key)]
            if key in history.maybe:
                legal.append(history.maybe[key])
            assert found in legal, (key, found and len(found), [one and len(one) for one in legal])
        await settle(store)
        for key in history.known:  # it goes on working
            await put(gateway, "crash", key, b"after" * 2000)
            assert await get(gateway, "crash", key) == b"after" * 2000
            break
        await settle(store)
    problems = check(directories)
    assert not problems, problems[:5]


async def settle(store: OpenStore) -> None:
    """Free, audit and heal until nothing is left to do."""
    await asyncio.sleep(0)
    store.node._horizon = lambda: float("inf")
    await store.node.reap()
    await audit(store.node, store.node, age_s=-10)
    await store.node.reap()
    await Scrubber(store.node, 0, store.host._fatal).run(deep=True)
    healer = Healer(store.node, store.joiners)
    for _ in range(10):
        await healer.work()
        if not healer.waiting and not healer.left and not healer.metadata_left:
            break
    await store.drives.flush()


def bodies(seed: int) -> Callable[[int], bytes]:
    chosen = random.Random(seed)
    return chosen.randbytes


async def workload(store: OpenStore, gateway: Gateway, history: History) -> None:
    """PUT, overwrite, equal content, multipart, delete, heal, compaction: each once, in this order."""
    make = bodies(7)
    small, one, two, big = make(300), make(9_000), make(70_000), make(1_500_000)
    await history.doing(b"inline", small, put(gateway, "crash", b"inline", small))
    await history.doing(b"one", one, put(gateway, "crash", b"one", one))
    await history.doing(b"same", one, put(gateway, "crash", b"same", one))
    await history.doing(b"one", two, put(gateway, "crash", b"one", two))
    await history.doing(b"big", big, put(gateway, "crash", b"big", big))
    await history.doing(b"parts", big[:6_000], multipart(gateway, b"parts", [big[:6_000]]))
    await history.doing(b"inline", ABSENT, delete_object(gateway, "crash", b"inline", "", "root"))
    await history.doing(b"same", ABSENT, delete_object(gateway, "crash", b"same", "", "root"))
    await history.doing(b"big", small, put(gateway, "crash", b"big", small))
    store.node._horizon = lambda: float("inf")
    with contextlib.suppress(OSError):  # the server's own loop says so and goes on
        await store.node.reap()

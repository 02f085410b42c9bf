"""A store with its gateway in this process, for tests that put faults under it or look inside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from s4.base.clock import boot_clock
from s4.config.limits import Limits
from s4.config.settings import StoreSettings
from s4.gateway.context import Gateway, Readers
from s4.gateway.objects import Attributes, put_object
from s4.gateway.read import open_object, stream
from s4.gateway.receive import Decoder
from s4.node.local import OpenStore, open_store
from s4.s3.checksums import Expected
from s4.s3.chunked import PlainDecoder
from s4.server.parts import ServerSettings, make_gateway
from s4.storage.files import Files
from s4.upkeep.renames import Renames
from s4.upkeep.verify import Report, verify

HANGS_S = 60.0


async def until(condition: Callable[[], Any]) -> None:
    """Look until it is true, at what this process does itself. For what stays so once it is; the limit is for what
    hangs."""
    looks = 0
    async with asyncio.timeout(HANGS_S):
        while not condition():
            looks += 1
            await asyncio.sleep(0 if looks < 100 else 0.01)


async def finished(renames: Renames, name: str) -> None:
    """Return once a rename of a prefix has been done."""
    async with asyncio.timeout(HANGS_S):
        while not dict(await renames.jobs())[name].finished:
            await asyncio.sleep(0.01)


class Bytes:
    """A body that is at hand."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self.decoder: Decoder = PlainDecoder(len(data))
        self._left = data

    async def read(self) -> bytes:
        data, self._left = self._left, b""
        return data


async def put(gateway: Gateway, bucket: str, key: bytes, data: bytes) -> None:
    await put_object(gateway, bucket, key, Bytes(data), Expected(), Attributes(), "root")


async def get(gateway: Gateway, bucket: str, key: bytes) -> bytes:
    opened = await open_object(gateway, bucket, key, "")
    return b"".join([bytes(piece) async for piece in stream(gateway, opened, 0, opened.row.size)])


async def verified(node: Any, *, deep: bool = True) -> Report:
    """What `verify` has to say in the end; `deep` has it read all bytes."""
    return [report async for report in verify(node, read=deep, deep=deep)][-1]


def _raise(error: BaseException) -> None:
    raise error


@asynccontextmanager
async def opened(
    paths: Path | Sequence[Path],
    *,
    files: Files | None = None,
    fatal: Any = _raise,
    strict: bool = False,
    clock: Callable[[], float] = time.time,
    small: int = 0,
    **more: Any,
) -> AsyncIterator[tuple[OpenStore, Gateway]]:
    """An open store; `small` is `--small`, `more` are StoreSettings."""
    directories = [paths] if isinstance(paths, Path) else list(paths)
    settings = StoreSettings(**{"reserve_bytes": 0, "small": small > 0, **more})
    store = await open_store(directories, settings, Limits(), horizon=boot_clock, fatal=fatal, files=files, clock=clock)
    gateway = make_gateway(store.node, await store.node.layout(), ServerSettings([], strict=strict), Readers())
    gateway.clock, gateway.small_bytes = clock, small
    try:
        yield store, gateway
    finally:
        await store.close()
        gateway.pool.shutdown()

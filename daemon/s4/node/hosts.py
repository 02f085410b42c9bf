"""The host of a node's rows, as the node knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from s4.metadata.commands import AnyAnswer, AnyCommand
from s4.metadata.listing import Cursor
from s4.metadata.nulls import Nulls


class AnyHost(Protocol):
    """What `replica.host` and `replica.replicated` have in common."""

    nulls: Nulls
    on_settings: Callable[[], None]

    def submit(
        self, partition: int, command: AnyCommand, command_id: bytes = b"", *, own: bool = False, again: bool = False
    ) -> asyncio.Future[AnyAnswer]: ...

    async def settings_may_change(self) -> None: ...

    def check(self, partition: int, epoch: int = 0) -> None: ...

    async def settled(self) -> None: ...

    def newest(self, partition: int, bucket: int, key: bytes) -> tuple[bytes, bytes] | None: ...

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...

    def cursor(self, prefix: bytes) -> Cursor: ...

"""Renames of prefixes beside what is lost and comes late: on a real store, whose node lets a test hold a command
back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from inprocess import finished, get, opened, put
from s4.base.jobs import Jobs
from s4.gateway import buckets
from s4.metadata import commands, keys
from s4.peer.api import ForgottenError, UnavailableError
from s4.s3.errors import S3Error
from s4.upkeep.renames import Renames


class Holding:
    """The node. What is put at `held` is not answered the first time, and its sender cannot know whether it was
    done."""

    def __init__(self, node: Any, held: bytes, *, arrives: bool) -> None:
        self._node, self._held, self._arrives = node, held, arrives
        self.late: tuple[Any, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def execute(self, partition: int, command: Any, command_id: bytes = b"", again: bool = False) -> Any:
        if isinstance(command, commands.PutObject) and command.key == self._held and not self.late:
            self.late = partition, command, command_id, True
            if self._arrives:
                await self._node.execute(*self.late)
            raise UnavailableError("ServiceUnavailable", "The store does not answer.")
        return await self._node.execute(partition, command, command_id, again)


@pytest.mark.parametrize("arrives", [True, False])
def test_what_a_rename_sent_and_had_no_answer_to_undoes_nothing_later(tmp_path: Path, arrives: bool) -> None:
    """It is sent again under its id; once it took effect it has none when it comes late, though the name has other
    bytes by then."""

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, gateway):
            node = Holding(store.node, b"new/1", arrives=arrives)
            gateway.node = node  # type: ignore[assignment]
            jobs = Jobs()
            renames = Renames(gateway, jobs)
            await buckets.create_bucket(gateway, "b", "root")
            for number in range(3):
                await put(gateway, "b", b"old/%d" % number, b"renamed" * 2000)
            await finished(renames, await renames.start("b", "old/", "new/"))
            assert node.late
            await put(gateway, "b", b"new/1", b"newer")
            await store.node.execute(*node.late)
            assert await get(gateway, "b", b"new/1") == b"newer"
            await jobs.close()

    asyncio.run(whole())


class Refusing:
    """The node. Two puts of a rename are refused, each for ever under its id (R12)."""

    def __init__(self, node: Any) -> None:
        self._node, self.left, self._refused = node, 2, set[bytes]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def execute(self, partition: int, command: Any, command_id: bytes = b"", again: bool = False) -> Any:
        if isinstance(command, commands.PutObject) and command.rename_from:
            if self.left and command_id not in self._refused:
                self.left -= 1
                self._refused.add(command_id)
            if command_id in self._refused:
                return commands.Refused("StorageFull", "full")
        return await self._node.execute(partition, command, command_id, again)


def test_what_was_refused_is_asked_anew(tmp_path: Path) -> None:
    """As on a disk that is full for a while."""

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, gateway):
            node = gateway.node = Refusing(store.node)  # type: ignore[assignment]
            jobs = Jobs()
            renames = Renames(gateway, jobs)
            await buckets.create_bucket(gateway, "b", "root")
            await put(gateway, "b", b"old/0", b"x")
            await finished(renames, await renames.start("b", "old/", "new/"))
            assert not node.left
            assert await get(gateway, "b", b"new/0") == b"x"
            await jobs.close()

    asyncio.run(whole())


class Forgetful:
    """The node of a store whose clock is an hour ahead: what has an older id is never decided."""

    def __init__(self, node: Any) -> None:
        self._node, self.before_ms = node, int(time.time() * 1000) + 3_600_000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def execute(self, partition: int, command: Any, command_id: bytes = b"", again: bool = False) -> Any:
        if command_id and keys.command_ms(command_id) < self.before_ms:
            raise ForgottenError("older than answers are kept", self.before_ms)
        return await self._node.execute(partition, command, command_id, again)


def test_a_clock_that_is_behind_renames_all_the_same(tmp_path: Path) -> None:
    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, gateway):
            gateway.node = Forgetful(store.node)  # type: ignore[assignment]
            jobs = Jobs()
            renames = Renames(gateway, jobs)
            await buckets.create_bucket(gateway, "b", "root")
            await put(gateway, "b", b"old/0", b"x")
            await finished(renames, await renames.start("b", "old/", "new/"))
            assert await get(gateway, "b", b"new/0") == b"x"
            await jobs.close()

    asyncio.run(whole())


class Damaged:
    """The node. Lists from a copy of the metadata with damaged blocks, until another copy leads."""

    def __init__(self, node: Any) -> None:
        self._node, self.left = node, 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def list_objects(self, *arguments: Any) -> Any:
        if self.left:
            self.left -= 1
            raise S3Error("InternalError", "Corruption: block checksum mismatch")
        return await self._node.list_objects(*arguments)


def test_a_fault_of_the_store_does_not_end_a_rename(tmp_path: Path) -> None:
    """Found by the simulator (seed 2074). What is wrong with the rename itself does: a bucket that is gone."""

    async def whole() -> None:
        async with opened(tmp_path / "data") as (store, gateway):
            node = gateway.node = Damaged(store.node)  # type: ignore[assignment]
            jobs = Jobs()
            renames = Renames(gateway, jobs)
            await buckets.create_bucket(gateway, "b", "root")
            await put(gateway, "b", b"old/0", b"x")
            name = await renames.start("b", "old/", "new/")
            await finished(renames, name)
            assert not node.left
            assert await get(gateway, "b", b"new/0") == b"x"
            assert dict(await renames.jobs())[name].error == ""
            await jobs.close()

    asyncio.run(whole())

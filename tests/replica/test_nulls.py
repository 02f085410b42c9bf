"""The null version behind any number of others: found in pieces, and decided on in a few steps. Counted are the rows
that a decision reads."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inprocess import opened, put
from s4.gateway.buckets import create_bucket, set_versioning
from s4.gateway.context import Gateway
from s4.gateway.objects import delete_object
from s4.metadata import entry as entries
from s4.metadata import keys
from s4.metadata.entry import Entry
from s4.metadata.nulls import FAR, KNOWN, Nulls, Seen, find
from s4.metadata.rows import Object, encode_object
from s4.replica.pieces import PIECE

MANY = 3 * PIECE + 50


def _row(null: bool) -> bytes:
    return encode_object(Object(1, 0, "", False, null, "ana"))


def test_what_was_seen_once_of_a_key_stays_right() -> None:
    """Against a walk over everything, whatever was put and removed since."""
    for seed in range(200):
        chosen, rows, nulls, number = random.Random(seed), dict[bytes, bytes](), Nulls(), 1000
        for _ in range(60):
            action, null_now = (
                chosen.randrange(5),
                next((key for key, value in rows.items() if value == _row(null=True)), None),
            )
            if action == 0 and rows:
                del rows[chosen.choice(sorted(rows))]
            elif action == 1 and rows:  # somebody looked
                nulls.note(b"", Seen(min(rows), null_now or b""))
            else:
                number -= 1
                null = action == 2
                if null and null_now is not None:
                    del rows[null_now]
                rows[number.to_bytes(4, "big")] = _row(null)
            expected = next(((key, value) for key, value in sorted(rows.items()) if value == _row(null=True)), None)
            assert find(sorted(rows.items()), nulls.get(b""), rows.get) == expected, seed


def test_as_many_keys_are_noted_as_there_is_room_for() -> None:
    nulls = Nulls()
    for number in range(2 * KNOWN):
        nulls.note(b"%d" % number, Seen(b"n", b""))
    assert len(nulls._seen) == KNOWN


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that each decision has walked."""
    walked = [0]
    real = Entry.scan

    def scan(self: Entry, prefix: bytes) -> Iterator[Any]:
        walked.append(0)
        for row in real(self, prefix):
            walked[-1] += 1
            yield row

    monkeypatch.setattr(entries.Entry, "scan", scan)
    return walked


async def _shown(gateway: Gateway, bucket: int, key: bytes) -> str:
    partition = keys.partition_of(bucket, key, gateway.partitions)
    found = await gateway.node.find_object(partition, bucket, key, "null")
    return "none" if found is None else found.suffix.hex()


def test_no_decision_walks_all_versions_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with opened(tmp_path / "data", durability="none") as (_, gateway):
            made = await create_bucket(gateway, "bbb", "root")
            await put(gateway, "bbb", b"old", b"the null version, as of 0.7")
            await set_versioning(gateway, "bbb", "Enabled")
            for key in (b"old", b"none", b"gone"):
                for _ in range(MANY // 50):
                    await asyncio.gather(*(put(gateway, "bbb", key, b"x") for _ in range(50)))
            walked = _counted(monkeypatch)
            await delete_object(gateway, "bbb", b"gone", "null", "root")  # there is none
            await set_versioning(gateway, "bbb", "Suspended")
            first = await _shown(gateway, made.id, b"old")
            await put(gateway, "bbb", b"none", b"new")
            await put(gateway, "bbb", b"old", b"new")
            assert "none" not in (first, await _shown(gateway, made.id, b"none"))
            assert await _shown(gateway, made.id, b"old") != first
            for key in (b"old", b"none"):
                await delete_object(gateway, "bbb", key, "null", "root")
                assert await _shown(gateway, made.id, key) == "none"
                await delete_object(gateway, "bbb", key, "", "root")  # a marker is the null version then
                assert await _shown(gateway, made.id, key) != "none"
            assert max(walked) <= FAR

    asyncio.run(test())


def test_what_was_looked_for_is_kept_until_it_is_decided_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who deleted the null versions of more keys at once than are noted had decisions walk all versions of most."""
    monkeypatch.setattr("s4.metadata.nulls.KNOWN", 1)

    async def test() -> None:
        async with opened(tmp_path / "data", durability="none") as (_, gateway):
            await create_bucket(gateway, "bbb", "root")
            await set_versioning(gateway, "bbb", "Enabled")
            names = [b"%d" % number for number in range(4)]
            for key in names:
                await asyncio.gather(*(put(gateway, "bbb", key, b"x") for _ in range(2 * FAR)))
            walked = _counted(monkeypatch)
            await asyncio.gather(*(delete_object(gateway, "bbb", key, "null", "root") for key in names for _ in "12"))
            assert max(walked) <= FAR
            assert not gateway.node.host.nulls._kept  # type: ignore[attr-defined]

    asyncio.run(test())

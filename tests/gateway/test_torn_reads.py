"""Reads that belong together, with a turn written between them: the writer's thread does not wait for the loop's
reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inprocess import Bytes, opened
from s4.gateway.buckets import create_bucket
from s4.gateway.multipart import Completion, WantedPart, complete_upload, create_upload, put_part
from s4.gateway.objects import Attributes
from s4.metadata import keys
from s4.s3.checksums import Expected


def test_an_upload_that_is_completed_while_it_is_read_is_not_found_without_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other completion was told InvalidPart, where it gets the winner's answer."""

    async def test() -> None:
        async with opened(tmp_path / "data", durability="none") as (store, gateway):
            await create_bucket(gateway, "bbb", "root")
            upload, _ = await create_upload(gateway, "bbb", b"k", Attributes(), "root", "", "")
            stored, _, _ = await put_part(gateway, "bbb", b"k", upload, 1, Bytes(b"x" * 5000), Expected())
            wanted = Completion([WantedPart(1, stored.etag, {})])
            host: Any = store.host
            get, scan, done = host.get, host.scan, list[Any]()
            bucket = await gateway.node.find_bucket("bbb")
            assert bucket is not None
            partition = keys.partition_of(bucket.id, b"k", gateway.partitions)
            row = keys.upload_row(partition, bucket.id, b"k", bytes.fromhex(upload))
            parts = keys.upload_parts(partition, bucket.id, b"k", bytes.fromhex(upload))

            def written_between() -> None:
                """What the winner's turn writes, as its thread does it."""
                if not done:
                    done.append([(key, host.database.get(key)) for key in (row, *(key for key, _ in scan(parts)))])
                    host.database.write([(key, None) for key, _ in done[0]], sync=False)

            def scanned(prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
                found = list(scan(prefix, start))
                if prefix == parts:
                    written_between()
                return iter(found)

            def got(key: bytes) -> bytes | None:
                found: bytes | None = get(key)
                if key == row:
                    written_between()
                return found

            monkeypatch.setattr(host, "get", got)
            monkeypatch.setattr(host, "scan", scanned)
            found = await gateway.node.find_upload(partition, bucket.id, b"k", bytes.fromhex(upload), 0, 10)
            assert done
            assert found is None or len(found.parts) == 1
            monkeypatch.undo()
            host.database.write(done[0], sync=False)
            assert (await complete_upload(gateway, "bbb", b"k", upload, wanted)).size == 5000

    asyncio.run(test())
